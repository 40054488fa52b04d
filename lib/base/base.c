/* See base.h. */
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

/* How many bytes the UTF-8 character at s has; 0 when there is none, or a control character. */
static size_t utf8_len(const unsigned char *s)
{
	uint32_t c, least;
	size_t n;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if ((s[0] & 0xe0) == 0xc0)
		n = 2, c = s[0] & 0x1f, least = 0xa0; /* below lie the C1 control characters */
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3, c = s[0] & 0x0f, least = 0x800;
	else if ((s[0] & 0xf8) == 0xf0)
		n = 4, c = s[0] & 0x07, least = 0x10000;
	else
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	/* line and paragraph separators, and the characters that turn the writing direction */
	if ((c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
		return 0;
	return n;
}

char *name_text(const char *name)
{
	const unsigned char *s = (const unsigned char *)name;
	char *out = malloc(strlen(name) * 4 + 1), *o = out;

	if (!out)
		return NULL;
	while (*s) {
		size_t n = utf8_len(s);

		if (n) {
			memcpy(o, s, n);
			o += n;
			s += n;
		} else {
			o += snprintf(o, 5, "\\x%02x", *s++);
		}
	}
	*o = '\0';
	return out;
}
