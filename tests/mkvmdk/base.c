/* SPDX-License-Identifier: MIT */
/* Errors, memory, files and numbers. */
#include "mkvmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noreturn, format(printf, 2, 3)))
void die(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("mkvmdk: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

void *grab(uint64_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		die(1, "out of memory");
	return p;
}

uint64_t ceil_div(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

uint64_t round_up(uint64_t a, uint64_t b)
{
	return ceil_div(a, b) * b;
}

void put(uint8_t *p, unsigned int width, uint64_t v)
{
	for (unsigned int i = 0; i < width; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

void fill_sector(uint8_t *p, uint64_t lba, uint64_t key)
{
	put(p, 8, lba);
	for (unsigned int i = 1; i < SECTOR / 8; i++)
		put(p + 8 * i, 8, mix((lba * 64 + i) ^ key));
}

/* The upper 64 bits; not all targets have 128-bit integers. */
static uint64_t high_of_product(uint64_t a, uint64_t b)
{
	const uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
	const uint64_t mid = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
	const uint64_t other = (a & UINT32_MAX) * (b >> 32) + (mid & UINT32_MAX);

	return (a >> 32) * (b >> 32) + (mid >> 32) + (other >> 32);
}

uint64_t below(uint64_t *state, uint64_t n)
{
	*state += 0x9e3779b97f4a7c15;
	return high_of_product(mix(*state), n);
}

void write_at(int fd, const char *name, const uint8_t *p, size_t n, uint64_t pos)
{
	while (n) {
		ssize_t got = pwrite(fd, p, n, (off_t)pos);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			die(1, "%s: write: %s", name, got ? strerror(errno) : "no progress");
		p += got;
		pos += (uint64_t)got;
		n -= (size_t)got;
	}
}

static void out_flush(struct out *o)
{
	write_at(o->fd, o->name, o->buf, o->len, o->pos);
	o->pos += o->len;
	o->len = 0;
}

/* Room for the sector at byte pos, which the caller fills. */
uint8_t *out_sector(struct out *o, uint64_t pos)
{
	uint8_t *p;

	if (o->pos + o->len != pos || o->len + SECTOR > BUF_SIZE) {
		out_flush(o);
		o->pos = pos;
	}
	p = o->buf + o->len;
	o->len += SECTOR;
	return p;
}

struct out out_open(int fd, const char *name)
{
	return (struct out){.fd = fd, .name = name, .buf = grab(BUF_SIZE, 1)};
}

void out_close(struct out *o)
{
	out_flush(o);
	free(o->buf);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Writes the sectors that are not all zero; the rest stays a hole of the new file. */
void write_sparse(struct disk *d, const uint8_t *p, size_t n, uint64_t pos)
{
	size_t start = 0, at = 0;

	while (at < n) {
		size_t part = n - at < SECTOR ? n - at : SECTOR;

		if (is_zero(p + at, part)) {
			if (at > start)
				write_at(d->fd, d->path, p + start, at - start, pos + start);
			start = at + part;
		}
		at += part;
	}
	if (n > start)
		write_at(d->fd, d->path, p + start, n - start, pos + start);
}

int create(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		die(1, "%s: %s", path, strerror(errno));
	return fd;
}

void set_size(int fd, const char *path, uint64_t size)
{
	if (ftruncate(fd, (off_t)size))
		die(1, "%s: truncate: %s", path, strerror(errno));
}

void finish(int fd, const char *path)
{
	if (close(fd))
		die(1, "%s: close: %s", path, strerror(errno));
}

/* A number at *s, decimal or 0x hex; *s moves past it. */
bool scan(const char **s, uint64_t *v)
{
	const char *p = *s;
	unsigned int base = 10;
	uint64_t n = 0;
	bool any = false;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (;; p++) {
		unsigned int digit;

		if (*p >= '0' && *p <= '9')
			digit = (unsigned int)(*p - '0');
		else if (base == 16 && (*p | 32) >= 'a' && (*p | 32) <= 'f')
			digit = (unsigned int)((*p | 32) - 'a') + 10;
		else
			break;
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, digit, &n))
			return false;
		any = true;
	}
	*s = p;
	*v = n;
	return any;
}

uint64_t number(const char *what, const char *s)
{
	const char *p = s;
	uint64_t v;

	if (!scan(&p, &v) || *p)
		die(2, "%s: bad number '%s'", what, s);
	return v;
}

bool boolean(const char *what, const char *s)
{
	uint64_t v = number(what, s);

	if (v > 1)
		die(2, "%s: 0 or 1, not '%s'", what, s);
	return v;
}

uint64_t sectors(const char *what, const char *s)
{
	static const char suffix[] = "KMGT";
	const char *p = s, *unit;
	uint64_t v;

	if (!scan(&p, &v))
		die(2, "%s: bad size '%s'", what, s);
	if (*p) {
		unit = strchr(suffix, *p);
		if (!unit || p[1] || v > UINT32_MAX)
			die(2, "%s: bad size '%s'", what, s);
		v <<= 10 * (unit - suffix + 1) - 9;
	}
	if (v == 0 || v > UINT64_MAX >> 10)
		die(2, "%s: '%s' is out of range", what, s);
	return v;
}

const char *value_of(const char *arg, const char *key)
{
	size_t n = strlen(key);

	return !strncmp(arg, key, n) && arg[n] == '=' ? arg + n + 1 : NULL;
}
