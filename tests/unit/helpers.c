/* SPDX-License-Identifier: MIT */
/* What the unit tests share: checks, random numbers, files, a reader over an array of runs. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned checks, failures;

/* Prints no more than a screen of them. */
bool check(bool ok, const char *file, int line, const char *text)
{
	checks++;
	if (!ok && ++failures <= 40)
		printf("# %s:%d: failed: %s\n", file, line, text);
	return ok;
}

void check_str(const char *a, const char *b, const char *file, int line)
{
	if (!check(a && strcmp(a, b) == 0, file, line, "strings are equal"))
		printf("#   \"%s\" instead of \"%s\"\n", a ? a : "(null)", b);
}

/* A test that cannot go on. */
void __attribute__((noreturn)) die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

void *alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		die("calloc");
	return p;
}

uint64_t rng_state;

void seed(uint64_t s)
{
	rng_state = s * 0x9e3779b97f4a7c15u + 1;
}

uint64_t rnd(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t below(uint64_t n)
{
	return rnd() % n;
}

void random_bytes(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rnd();
}

/* An open file that has no name any more; *path, where wanted, keeps it and is the caller's. */
int temp_file(char **path)
{
	const char *dir = getenv("TMPDIR");
	char *name = NULL;
	int fd;

	if (asprintf(&name, "%s/unit.XXXXXX", dir && *dir ? dir : "/tmp") < 0)
		die("asprintf");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		die(name);
	if (path) {
		*path = name;
	} else {
		unlink(name);
		free(name);
	}
	return fd;
}

void remove_temp(int fd, char *path)
{
	close(fd);
	unlink(path);
	free(path);
}

void write_all(int fd, const void *p, size_t n, uint64_t off)
{
	if (pwrite(fd, p, n, (off_t)off) != (ssize_t)n)
		die("pwrite");
}

void read_all(int fd, void *p, size_t n, uint64_t off)
{
	if (pread(fd, p, n, (off_t)off) != (ssize_t)n)
		die("pread");
}

/* Byte i of what is packed at pos. */
uint8_t packed_byte(uint64_t pos, uint64_t i)
{
	return (uint8_t)((pos * 131 + i * 7 + (i >> 8) * 3) % 255 + 1);
}

static int list_next(struct reader *r, struct run *run, struct err *e)
{
	struct list *l = container_of(r, struct list, reader);

	if (l->fail_with && l->i == l->fail_at)
		return fail(e, l->fail_with, "list: told to fail");
	if (l->i == l->n)
		return 0;
	*run = l->run[l->i++];
	return 1;
}

static int list_rewind(struct reader *r, struct err *e)
{
	(void)e;
	container_of(r, struct list, reader)->i = 0;
	return 0;
}

static int list_fetch(struct reader *r, const struct run *run, void *buf, struct err *e)
{
	uint8_t *b = buf;

	if (container_of(r, struct list, reader)->fetch_fails)
		return fail(e, EIO, "list: told not to unpack");
	for (uint64_t i = 0; i < run->len; i++)
		b[i] = packed_byte(run->pos, run->skip + i);
	return 0;
}

static void list_free(struct reader *r)
{
	struct list *l = container_of(r, struct list, reader);

	if (l->freed)
		(*l->freed)++;
	free(l->run);
	free(l);
}

static const struct reader_ops list_ops = {
	.next = list_next, .rewind = list_rewind, .fetch = list_fetch, .free = list_free};
const struct reader_ops list_ops_no_fetch = {
	.next = list_next, .rewind = list_rewind, .free = list_free};

struct list *list_new(uint64_t size, const struct run *run, size_t n)
{
	struct list *l = alloc(sizeof(*l));

	reader_init(&l->reader, &list_ops, "list", size);
	l->run = alloc(n * sizeof(*run));
	if (n)
		memcpy(l->run, run, n * sizeof(*run));
	l->n = n;
	for (size_t i = 0; i < n; i++)
		if (l->run[i].kind == RUN_COMPRESSED)
			l->run[i].leaf = &l->reader;
	return l;
}

struct list *list_one(uint64_t size, struct run run)
{
	return list_new(size, &run, 1);
}

void *feed(void *arg)
{
	struct feed *f = arg;
	size_t pos = 0, n = 1;

	while (pos < f->n) {
		ssize_t put = write(f->fd, f->bytes + pos, n < f->n - pos ? n : f->n - pos);

		if (put < 0)
			break;
		pos += (size_t)put;
		n = n * 7 % f->chunk + 1;
	}
	close(f->fd);
	return NULL;
}
