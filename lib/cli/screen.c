/* SPDX-License-Identifier: MIT */
/* See screen.h. */
#include "cli/screen.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LABEL 9 /* columns of a label */

static const char *set_or(const char *name, const char *other)
{
	const char *s = getenv(name);

	return s && *s ? s : other;
}

unsigned screen_columns(int fd)
{
	struct winsize w;

	return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

struct screen screen_of(int fd)
{
	const char *locale = set_or("LC_ALL", set_or("LC_CTYPE", set_or("LANG", "C")));
	struct screen s = {.terminal = isatty(fd)};

	s.utf8 = strcasestr(locale, "utf-8") || strcasestr(locale, "utf8");
	s.colour = s.terminal && !*set_or("NO_COLOR", "") && strcmp(set_or("TERM", "dumb"), "dumb") != 0;
	s.columns = (unsigned)max_u64(screen_columns(fd), 20);
	return s;
}

static unsigned width(const char *s, size_t n)
{
	unsigned used = 0;

	for (; n--; s++)
		if (((unsigned char)*s & 0xc0) != 0x80)
			used += (unsigned char)*s < 0xe1 ? 1 : 2;
	return used;
}

unsigned screen_width(const char *s)
{
	return width(s, strlen(s));
}

const char *screen_last(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash && slash[1] ? slash + 1 : name;
}

void screen_name(struct text *t, const char *name, unsigned columns)
{
	bool cut = false;

	name = screen_last(name);
	while (screen_width(name) + cut > columns) {
		cut = true;
		do
			name++;
		while (((unsigned char)*name & 0xc0) == 0x80);
	}
	text_printf(t, "%s%s", cut ? "~" : "", name);
}

void screen_row(struct text *t, const struct screen *s, const char *label, const char *text)
{
	unsigned column = LABEL;

	text_printf(t, "%-*s", LABEL, label);
	for (bool first = true; *text; first = false) {
		const size_t n = strcspn(text, " ");

		if (!first && s->terminal && column + 1 + width(text, n) >= s->columns) {
			text_printf(t, "\n%*s", LABEL, "");
			column = LABEL;
		} else if (!first) {
			text_add(t, " ", 1);
			column++;
		}
		text_add(t, text, n);
		column += width(text, n);
		text += n + (text[n] == ' ');
	}
	text_add(t, "\n", 1);
}

void screen_word(struct text *t, const char *word)
{
	const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
	bool odd = false;
	size_t n;

	if (*word && !word[strspn(word, plain)]) {
		text_printf(t, "%s", word);
		return;
	}
	for (const char *s = word; *s; s += n ? n : 1) {
		uint32_t c;

		n = utf8_len(s, &c);
		odd |= !n || c < 0x20 || (c >= 0x7f && c < 0xa0);
	}
	text_printf(t, odd ? "$'" : "'");
	for (const char *s = word; *s; s++) {
		const unsigned char c = (unsigned char)*s;

		if (odd && (c < 0x20 || c >= 0x7f || c == '\'' || c == '\\'))
			text_printf(t, "\\x%02x", c);
		else if (c == '\'')
			text_printf(t, "'\\''");
		else
			text_add(t, s, 1);
	}
	text_add(t, "'", 1);
}
