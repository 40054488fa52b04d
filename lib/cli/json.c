/* SPDX-License-Identifier: MIT */
#include "cli/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_add(struct text *t, const char *s, size_t n)
{
	if (t->fixed) {
		n = (size_t)min_u64(n, t->room - 1 - t->len);
	} else if (!t->failed && t->room - t->len <= n) {
		size_t room = (t->room + n) * 2 + 256;
		char *more = realloc(t->s, room);

		if (more) {
			t->s = more;
			t->room = room;
		} else {
			t->failed = true;
		}
	}
	if (t->failed)
		return;
	memcpy(t->s + t->len, s, n);
	t->len += n;
	t->s[t->len] = '\0';
}

void text_printf(struct text *t, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = t->fixed ? vsnprintf(t->s + t->len, t->room - t->len, fmt, ap) : vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		t->failed = true;
	} else if (t->fixed) {
		t->len = (size_t)min_u64(t->len + (size_t)n, t->room - 1);
	} else {
		text_add(t, s, (size_t)n);
		free(s);
	}
}

char *text_take(struct text *t)
{
	char *s = t->s;

	if (t->failed) {
		free(s);
		s = NULL;
	} else if (!s) {
		s = strdup("");
	}
	*t = (struct text){0};
	return s;
}

static void quoted(struct text *t, const char *s)
{
	text_add(t, "\"", 1);
	while (*s) {
		uint32_t c;
		const size_t n = utf8_len(s, &c);

		if (!n)
			text_add(t, "\xef\xbf\xbd", 3);
		else if (c == '"' || c == '\\')
			text_printf(t, "\\%c", (char)c);
		else if (c < 0x20 || c == 0x7f)
			text_printf(t, "\\u%04x", c);
		else
			text_add(t, s, n);
		s += n ? n : 1;
	}
	text_add(t, "\"", 1);
}

/* What stands before a value: a comma, unless it is the first, and its key. */
static void begin(struct text *t, const char *key)
{
	size_t n = t->len;
	char last;

	while (n && t->s[n - 1] == '\n')
		n--;
	last = n ? t->s[n - 1] : '\0';

	if (last && last != '[' && last != '{')
		text_add(t, ", ", 2);
	if (key) {
		quoted(t, key);
		text_add(t, ": ", 2);
	}
}

void json_open(struct text *t, const char *key, char bracket)
{
	begin(t, key);
	text_add(t, &bracket, 1);
}

void json_close(struct text *t, char bracket)
{
	text_add(t, &bracket, 1);
}

void json_string(struct text *t, const char *key, const char *s)
{
	begin(t, key);
	if (s)
		quoted(t, s);
	else
		text_add(t, "null", 4);
}

/* The byte that an escape of name_text() at s stands for, or -1. */
static int escaped(const char *s)
{
	static const char digits[] = "0123456789abcdef";
	const char *high, *low;

	if (s[0] != '\\' || s[1] != 'x' || !s[2] || !s[3])
		return -1;
	high = strchr(digits, s[2]);
	low = strchr(digits, s[3]);
	return high && low ? (int)(high - digits) << 4 | (int)(low - digits) : -1;
}

bool json_is_exact(const char *name)
{
	for (; *name; name++)
		if (escaped(name) >= 0)
			return false;
	return true;
}

void json_hex(struct text *t, const char *key, const char *name)
{
	if (json_is_exact(name)) {
		json_string(t, key, NULL);
		return;
	}
	begin(t, key);
	text_add(t, "\"", 1);
	while (*name) {
		const int byte = escaped(name);

		text_printf(t, "%02x", byte >= 0 ? (unsigned)byte : (unsigned char)*name);
		name += byte >= 0 ? 4 : 1;
	}
	text_add(t, "\"", 1);
}

void json_name(struct text *t, const char *key, const char *name)
{
	char more[32];

	json_string(t, key, name);
	if (!name || json_is_exact(name))
		return;
	snprintf(more, sizeof(more), "%s_hex", key);
	json_hex(t, more, name);
}

void json_number(struct text *t, const char *key, uint64_t v)
{
	begin(t, key);
	text_printf(t, "%" PRIu64, v);
}

void json_known(struct text *t, const char *key, bool known, uint64_t v)
{
	if (known)
		json_number(t, key, v);
	else
		json_string(t, key, NULL);
}

void json_bool(struct text *t, const char *key, bool v)
{
	begin(t, key);
	text_printf(t, "%s", v ? "true" : "false");
}
