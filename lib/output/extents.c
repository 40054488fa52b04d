/* SPDX-License-Identifier: MIT */
#include "output/extents.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define EXTENTS 256

/* What makes a direct write to an extent more than an overwrite. */
#define NOT_WRITTEN                                                                                \
	(FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED |                  \
	 FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DATA_TAIL |         \
	 FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_SHARED)

struct span {
	uint64_t start, end;
};

struct extents {
	int fd;
	bool no_fiemap;
	struct span window; /* where the extents below tell everything */
	size_t n;
	struct span written[EXTENTS]; /* ascending; neighbours that touch are one */
	struct span range; /* the last one found; empty when not known */
	bool hole;         /* it is one */
	union {
		struct fiemap fm;
		char room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	} ask;
};

static bool inside(const struct span *s, uint64_t pos)
{
	return pos >= s->start && pos < s->end;
}

struct extents *extents_new(int fd)
{
	struct extents *m = calloc(1, sizeof(*m));

	if (m)
		m->fd = fd;
	return m;
}

/* Makes the window begin at off. */
static bool load_window(struct extents *m, uint64_t off)
{
	struct fiemap *fm = &m->ask.fm;
	uint64_t end = off;
	bool last;

	memset(fm, 0, sizeof(*fm));
	fm->fm_start = off;
	fm->fm_length = FIEMAP_MAX_OFFSET - off;
	fm->fm_extent_count = EXTENTS;
	m->n = 0;
	m->window = (struct span){0, 0};
	if (ioctl(m->fd, FS_IOC_FIEMAP, fm) < 0) {
		m->no_fiemap = true;
		return false;
	}
	last = fm->fm_mapped_extents < EXTENTS;
	for (uint32_t i = 0; i < fm->fm_mapped_extents; i++) {
		const struct fiemap_extent *x = &fm->fm_extents[i];
		struct span *before = m->n ? &m->written[m->n - 1] : NULL;
		uint64_t start = x->fe_logical;

		end = start + x->fe_length;
		last |= x->fe_flags & FIEMAP_EXTENT_LAST;
		if (x->fe_flags & NOT_WRITTEN)
			continue;
		if (before && before->end == start)
			before->end = end;
		else
			m->written[m->n++] = (struct span){start, end};
	}
	m->window = (struct span){off, last ? UINT64_MAX : end};
	return inside(&m->window, off);
}

/* The end of the written extent that has pos in it, or 0. */
static uint64_t written_until(const struct extents *m, uint64_t pos)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->written[mid].end <= pos)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->n && m->written[lo].start <= pos ? m->written[lo].end : 0;
}

bool extents_written(struct extents *m, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	while (off < end) {
		if (m->no_fiemap || (!inside(&m->window, off) && !load_window(m, off)))
			return false;
		off = written_until(m, off);
		if (!off)
			return false;
	}
	return true;
}

uint64_t extents_range(struct extents *m, uint64_t off, bool *hole)
{
	if (!inside(&m->range, off)) {
		off_t data = lseek(m->fd, (off_t)off, SEEK_DATA), end = data;

		*hole = data > (off_t)off || (data < 0 && errno == ENXIO);
		if (data >= 0 && !*hole)
			end = lseek(m->fd, (off_t)off, SEEK_HOLE);
		if (!*hole && end <= (off_t)off)
			return UINT64_MAX;
		m->range = (struct span){off, end < 0 ? UINT64_MAX : (uint64_t)end};
		m->hole = *hole;
	}
	*hole = m->hole;
	return m->range.end;
}

void extents_forget(struct extents *m)
{
	m->window = m->range = (struct span){0, 0};
}
