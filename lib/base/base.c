/* SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *code_of(int number)
{
	static const struct {
		int number;
		const char *code;
	} known[] = {
		{EBUSY, ERR_BUSY}, {EAGAIN, ERR_BUSY}, {ETXTBSY, ERR_BUSY},
		{ESTALE, ERR_CHANGED}, {EXDEV, ERR_CONFINED}, {ECONNREFUSED, ERR_CONNECTION},
		{ECONNRESET, ERR_CONNECTION}, {EPIPE, ERR_CONNECTION},
		{ETIMEDOUT, ERR_CONNECTION}, {EPROTO, ERR_CONNECTION},
		{EHOSTUNREACH, ERR_CONNECTION}, {ENETUNREACH, ERR_CONNECTION},
		{EBADMSG, ERR_DAMAGED}, {EEXIST, ERR_EXISTS}, {EALREADY, ERR_FINISHED},
		{ENOMEM, ERR_MEMORY}, {ENODATA, ERR_MISSING_PARENT}, {ENOSPC, ERR_NO_SPACE},
		{EDQUOT, ERR_NO_SPACE}, {ENOTBLK, ERR_NOT_A_DISK}, {EISDIR, ERR_NOT_A_DISK},
		{ENOENT, ERR_NOT_FOUND}, {ENOTDIR, ERR_NOT_FOUND}, {ENODEV, ERR_NOT_FOUND},
		{ENXIO, ERR_NOT_FOUND}, {EACCES, ERR_PERMISSION}, {EPERM, ERR_PERMISSION},
		{EROFS, ERR_PERMISSION}, {EINTR, ERR_STOPPED}, {EFBIG, ERR_TOO_LARGE},
		{ENOTSUP, ERR_UNSUPPORTED}, {EINVAL, ERR_USAGE}, {ELOOP, ERR_WRONG_PARENT},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i].number == number)
			return known[i].code;
	return ERR_IO;
}

/* Takes the marks out of the text, and notes where they stood. */
static void take_marks(struct err *e)
{
	size_t n = 0;

	for (size_t i = 0; e->msg[i]; i++) {
		if (e->msg[i] == *HINT)
			e->hint.at = e->hint.at ? e->hint.at : (uint16_t)n;
		else if (e->msg[i] == '\016')
			e->object.at = (uint16_t)n;
		else if (e->msg[i] == '\017')
			e->object.len = (uint16_t)(n - e->object.at);
		else
			e->msg[n++] = e->msg[i];
	}
	e->msg[n] = '\0';
	if (e->hint.at)
		e->hint.len = (uint16_t)(n - e->hint.at);
}

/* Fills msg and its parts. */
static __attribute__((format(printf, 2, 0))) void format(struct err *e, const char *fmt, va_list ap)
{
	va_list first;

	e->file = e->object = e->hint = (struct err_part){0, 0};
	va_copy(first, ap);
	if (!strncmp(fmt, "%s: ", 4))
		e->file.len = (uint16_t)min_u64(strlen(va_arg(first, const char *)), sizeof(e->msg) - 1);
	va_end(first);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	take_marks(e);
}

static const char *force_word(const char *fmt)
{
	const char *s = strstr(fmt, "--force=");

	return s ? s + strlen("--force=") : NULL;
}

void fail_text(struct err *e, int code, const struct err_facts *facts, const char *fmt, ...)
{
	va_list ap;

	if (e->set)
		return;
	e->facts = facts ? *facts : (struct err_facts){.placed = false};
	if (!e->facts.code)
		e->facts.code = code_of(code);
	if (!e->facts.force && strcmp(e->facts.code, ERR_USAGE) != 0)
		e->facts.force = force_word(fmt);
	va_start(ap, fmt);
	format(e, fmt, ap);
	va_end(ap);
	e->set = true;
}

/* Where a part is when n bytes stand before its text, of which `room` are left. */
static struct err_part moved_part(struct err_part part, size_t n, size_t room)
{
	if (n + part.at >= room)
		return (struct err_part){0, 0};
	return (struct err_part){(uint16_t)(part.at + n),
				 (uint16_t)min_u64(part.len, room - (part.at + n))};
}

void fail_cause(struct err *e, int code, const struct err *cause, const char *fmt, ...)
{
	size_t n;
	va_list ap;

	if (e->set)
		return;
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	n = strlen(e->msg);
	snprintf(e->msg + n, sizeof(e->msg) - n, "%s", cause->msg);
	e->facts = cause->facts;
	if (!e->facts.code)
		e->facts.code = code_of(code);
	e->file = moved_part(cause->file, n, strlen(e->msg));
	e->object = moved_part(cause->object, n, strlen(e->msg));
	e->hint = moved_part(cause->hint, n, strlen(e->msg));
	e->set = true;
}

struct err *err_copy(const struct err *e)
{
	struct err *copy = malloc(sizeof(*copy));

	if (copy)
		*copy = *e;
	return copy;
}

int err_pass(struct err *e, int code, const struct err *copy)
{
	return copy ? fail_again(e, -code, copy) : fail(e, -code, "out of memory");
}

int warning(struct err *e, const char *fmt, ...)
{
	struct err text = {.set = false};
	va_list ap;

	va_start(ap, fmt);
	format(&text, fmt, ap);
	va_end(ap);
	if (e->strict) {
		const size_t n = strlen(text.msg);

		text.facts.code = ERR_STRICT;
		snprintf(text.msg + n, sizeof(text.msg) - n, " (--strict)");
		return fail_again(e, EBADMSG, &text);
	}
	if (e->warn)
		e->warn(e->arg, text.msg);
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

int64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int by_first_u64(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
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

int sync_folder(const char *path)
{
	char *dir = path_folder(path);
	const int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	const int r = fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(dir);
	return r;
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

/* What an escape looks like would be taken for one. */
static bool is_escape(const char *s)
{
	static const char digits[] = "0123456789abcdef";

	return s[0] == '\\' && s[1] == 'x' && s[2] && strchr(digits, s[2]) && s[3] && strchr(digits, s[3]);
}

/* Not a control character, nor a line or paragraph separator, nor one that turns the writing direction. */
static bool is_printable(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c >= 0xa0) && (c < 0x2028 || c > 0x202e) &&
	       (c < 0x2066 || c > 0x2069);
}

/* escapes: what looks like an escape becomes one, so that the text can be turned back. */
static char *printable(const char *name, bool escapes)
{
	const char *s = name;
	char *out = malloc(strlen(name) * 4 + 1), *o = out;

	if (!out)
		return NULL;
	while (*s) {
		uint32_t c;
		const size_t n = utf8_len(s, &c);

		if (n && is_printable(c) && !(escapes && is_escape(s))) {
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

char *name_text(const char *name)
{
	return printable(name, true);
}

char *clean_text(const char *text)
{
	return printable(text, false);
}

char *path_folder(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

char *path_in(const char *dir, const char *file)
{
	const size_t n = strlen(dir);
	char *path;

	if (!strcmp(dir, ".") && strcmp(file, "-") != 0) /* which would be standard input */
		return strdup(file);
	return asprintf(&path, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", file) < 0 ? NULL : path;
}
