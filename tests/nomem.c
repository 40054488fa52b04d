/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into the program under test: the Nth request for memory, and with NOMEM=N+ all after it,
 * is refused. Says on stderr how many there were with NOMEM=0. The names with two underscores are
 * glibc's own.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

static atomic_ulong count;
static unsigned long refused;
static int for_ever, leaving;

__attribute__((constructor)) static void start(void)
{
	const char *text = getenv("NOMEM");
	char *end = NULL;

	refused = text ? strtoul(text, &end, 10) : 0;
	for_ever = end && *end == '+';
	count = 0;
}

__attribute__((destructor)) static void end(void)
{
	if (!refused)
		fprintf(stderr, "nomem: %lu\n", (unsigned long)count);
}

/* What a profiler does at the end of the program is left alone. */
static void leave(void)
{
	leaving = 1;
}

static int refuse(void)
{
	unsigned long n;

	if (leaving)
		return 0;
	n = ++count;
	if (n == 1) /* later than this file is loaded, so that it is called before all destructors */
		atexit(leave);
	if (!refused || n < refused || (n > refused && !for_ever))
		return 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t n)
{
	return refuse() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	return refuse() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	return refuse() ? NULL : __libc_realloc(p, n);
}
