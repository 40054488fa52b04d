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
	struct span hole, data;	      /* the last ones found; empty when not known */
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

void extents_free(struct extents *m)
{
	free(m);
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
	off_t next;

	*hole = false;
	if (inside(&m->data, off))
		return m->data.end;
	if (!inside(&m->hole, off)) {
		next = lseek(m->fd, (off_t)off, SEEK_DATA);
		if (next < 0 && errno != ENXIO)
			return UINT64_MAX;
		if (next >= 0 && (uint64_t)next <= off) {
			next = lseek(m->fd, (off_t)off, SEEK_HOLE);
			if (next <= (off_t)off)
				return UINT64_MAX;
			m->data = (struct span){off, (uint64_t)next};
			return m->data.end;
		}
		m->hole = (struct span){off, next < 0 ? UINT64_MAX : (uint64_t)next};
	}
	*hole = true;
	return m->hole.end;
}

void extents_forget(struct extents *m)
{
	const struct span none = {0, 0};

	m->window = m->hole = m->data = none;
}
