/*
 * See source.h: bytes of a file lent to the kernel's own calls. A write out of the mapped file saves
 * the copy into a buffer and the read that makes it, which for single sectors is most of the work.
 *
 * Nothing in this program ever touches the mapping: where the file has become shorter meanwhile, or
 * its disk fails, the call that was given the address answers EFAULT, and there is no SIGBUS. What is
 * not in the page cache is not lent: the kernel would fetch it while we wait, page by page.
 */
#include "input/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u /* at least */
#define CHUNK (UINT64_C(2) << 20) /* asked about at once */

enum chunk_state { UNKNOWN, CACHED, NOT_CACHED };

struct lend {
	void *room; /* in which map lies */
	void *map; /* NULL: cannot be had */
	uint64_t size;
	uint8_t *chunk; /* enum chunk_state of each */
};

/* For others than the owner of the file the kernel says that all of it is cached. */
static bool may_ask(const struct source *s)
{
	return geteuid() == 0 || geteuid() == s->st.st_uid;
}

static struct lend *lend_new(const struct source *s)
{
	struct lend *l = calloc(1, sizeof(*l));

	/* 32 bits of addresses are too few to map whole files */
	if (!l || sizeof(size_t) < sizeof(uint64_t) || s->fd < 0 || s->piped || !may_ask(s) ||
	    !(S_ISREG(s->st.st_mode) || S_ISBLK(s->st.st_mode)))
		return l;
	l->size = s->size;
	l->chunk = calloc(div_up(l->size, CHUNK), 1);
	if (!l->chunk || l->size > SIZE_MAX)
		return l;
	/* one page off from where the kernel would map two MiB for a page that is looked for: they
	 * count as ours */
	l->room = mmap(NULL, (size_t)l->size + 2 * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (l->room == MAP_FAILED) {
		l->room = NULL;
		return l;
	}
	l->map = mmap((uint8_t *)l->room + CHUNK - (uintptr_t)l->room % CHUNK +
				(uint64_t)sysconf(_SC_PAGESIZE),
		      (size_t)l->size, PROT_READ, MAP_SHARED | MAP_FIXED, s->fd, 0);
	if (l->map == MAP_FAILED)
		l->map = NULL;
	return l;
}

static enum chunk_state ask(const struct lend *l, uint64_t chunk)
{
	uint64_t off = chunk * CHUNK;
	uint64_t n = min_u64(CHUNK, l->size - off);
	unsigned char page[CHUNK / PAGE];

	if (mincore((uint8_t *)l->map + off, (size_t)n, page) < 0)
		return NOT_CACHED;
	for (uint64_t i = 0; i < div_up(n, (uint64_t)sysconf(_SC_PAGESIZE)); i++)
		if (!(page[i] & 1))
			return NOT_CACHED;
	return CACHED;
}

const void *source_lend(struct source *s, uint64_t off, uint64_t n)
{
	struct lend *l = s->lend;

	if (!l)
		l = s->lend = lend_new(s);
	if (!l || !l->map || off > l->size || n > l->size - off || !n)
		return NULL;
	for (uint64_t c = off / CHUNK; c <= (off + n - 1) / CHUNK; c++) {
		if (l->chunk[c] == UNKNOWN)
			l->chunk[c] = (uint8_t)ask(l, c);
		if (l->chunk[c] != CACHED)
			return NULL;
	}
	return (const uint8_t *)l->map + off;
}

bool source_is_whole(const struct source *s)
{
	struct stat st;

	return fstat(s->fd, &st) == 0 &&
	       (!S_ISREG(st.st_mode) || (uint64_t)st.st_size >= s->size);
}

void source_lend_drop(struct source *s)
{
	/* what a call holds stays alive until that is done with it */
	if (s->lend && s->lend->map)
		madvise(s->lend->map, (size_t)s->lend->size, MADV_DONTNEED);
}

uint64_t source_lend_resident(void)
{
	unsigned long long size, resident, shared;
	FILE *f = fopen("/proc/self/statm", "re");
	int got = f ? fscanf(f, "%llu %llu %llu", &size, &resident, &shared) : 0;

	if (f)
		fclose(f);
	return got == 3 ? shared * (uint64_t)sysconf(_SC_PAGESIZE) : UINT64_MAX;
}

void source_lend_end(struct source *s)
{
	struct lend *l = s->lend;

	if (!l)
		return;
	if (l->room)
		munmap(l->room, (size_t)l->size + 2 * CHUNK);
	free(l->chunk);
	free(l);
	s->lend = NULL;
}
