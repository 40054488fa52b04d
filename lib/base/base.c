/* SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fail_text(struct err *e, const char *fmt, ...)
{
	va_list ap;

	if (e->set)
		return;
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	e->set = true;
}

int warning(struct err *e, const char *fmt, ...)
{
	char text[sizeof(e->msg)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (e->strict)
		return fail(e, EBADMSG, "%s (--strict)", text);
	if (e->warn)
		e->warn(e->arg, text);
	return 0;
}

void warnings_add(struct warnings *w, const char *text)
{
	char **more = w->n == w->kept ? realloc(w->text, (w->n + 1) * sizeof(*more)) : NULL;

	w->n++;
	if (!more)
		return;
	w->text = more;
	w->text[w->kept] = strdup(text);
	w->kept += w->text[w->kept] != NULL;
}

void warnings_free(struct warnings *w)
{
	for (size_t i = 0; i < w->kept; i++)
		free(w->text[i]);
	free(w->text);
	*w = (struct warnings){0};
}

bool all_zero(const void *p, size_t n)
{
	const unsigned char *b = p;
	size_t head = n < 16 ? n : 16;

	for (size_t i = 0; i < head; i++)
		if (b[i])
			return false;
	/* every byte equals the one 16 before it, and those are zero: memcmp does the wide loads */
	return n <= 16 || memcmp(b, b + 16, n - 16) == 0;
}

ssize_t read_full(int fd, void *buf, size_t n, uint64_t off)
{
	size_t done = 0;

	while (done < n) {
		ssize_t got = pread(fd, (char *)buf + done, n - done, (off_t)(off + done));

		if (got == 0)
			break;
		if (got > 0)
			done += (size_t)got;
		else if (errno != EINTR)
			return -errno;
	}
	return (ssize_t)done;
}

int write_full(int fd, const void *buf, size_t n, uint64_t off)
{
	size_t done = 0;

	while (done < n) {
		ssize_t put = pwrite(fd, (const char *)buf + done, n - done, (off_t)(off + done));

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			return put ? -errno : -ENOSPC;
	}
	return 0;
}

const char *size_text(char buf[32], uint64_t bytes)
{
	static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes / 1024;
	size_t u = 0;

	if (bytes < 1024) {
		snprintf(buf, 32, "%u byte%s", (unsigned)bytes, plural(bytes));
		return buf;
	}
	for (; v >= 1024 && u < 5; u++)
		v /= 1024;
	snprintf(buf, 32, v < 100 ? "%.1f %s" : "%.0f %s", v, unit[u]);
	return buf;
}

const char *exact_text(char buf[32], uint64_t bytes)
{
	buf[0] = '\0';
	if (bytes >= 1024)
		snprintf(buf, 32, " (%" PRIu64 " bytes)", bytes);
	return buf;
}

size_t utf8_len(const char *text, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *s = (const unsigned char *)text;
	const size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

	if ((s[0] >= 0x80 && s[0] < 0xc0) || s[0] >= 0xf8)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	*code = c;
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

/* Not a control character, nor a line or paragraph separator, nor one that turns the writing direction. */
static bool is_printable(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c >= 0xa0) && (c < 0x2028 || c > 0x202e) &&
	       (c < 0x2066 || c > 0x2069);
}

char *name_text(const char *name)
{
	const char *s = name;
	char *out = malloc(strlen(name) * 4 + 1), *o = out;

	if (!out)
		return NULL;
	while (*s) {
		uint32_t c;
		const size_t n = utf8_len(s, &c);

		if (n && is_printable(c)) {
			memcpy(o, s, n);
			o += n;
			s += n;
		} else {
			o += snprintf(o, 5, "\\x%02x", (unsigned char)*s++);
		}
	}
	*o = '\0';
	return out;
}
