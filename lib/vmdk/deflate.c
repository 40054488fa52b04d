/* SPDX-License-Identifier: MIT */
/* See deflate.h. Facts: layout.h. */
#include "vmdk/deflate.h"
#include "vmdk/layout.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define GRAIN_AT "%s: " OBJECT("grain %" PRIu64) " at file sector %" PRIu64

/* What an incompressible grain can grow to, and some. */
static uint64_t record_max(uint64_t grain)
{
	return grain + grain / 1024 + 512;
}

uint64_t deflate_record_max(uint64_t grain)
{
	return RECORD_HEAD + record_max(grain);
}

int deflate_record_end(const struct source *src, uint64_t pos, uint64_t off, uint64_t grain,
		       uint64_t bytes, uint64_t *end, struct err *e)
{
	if (!bytes || bytes > record_max(grain))
		return fail(e, EBADMSG, GRAIN_AT ": %" PRIu64 " bytes of compressed data (1 to "
			    "%" PRIu64 " are possible)", src->name, off / grain, pos / SECTOR,
			    bytes, record_max(grain));
	if (!src->streaming && bytes > src->size - pos - RECORD_HEAD)
		return fail_with(e, EBADMSG, TRUNCATED(src->size, pos + RECORD_HEAD + bytes),
				 GRAIN_AT ": its %" PRIu64 " bytes of compressed data end outside the file "
				 "of %" PRIu64 " bytes" HINT ": is it truncated? compare its size with the "
				 "original's", src->name, off / grain, pos / SECTOR, bytes, src->size);
	*end = pos + div_up(RECORD_HEAD + bytes, SECTOR) * SECTOR;
	return 0;
}

int deflate_check_head(struct source *src, uint64_t pos, uint64_t off, uint64_t grain,
		       uint64_t *bytes, struct err *e)
{
	uint8_t m[RECORD_HEAD];
	uint64_t lba, end;
	int r = source_read(src, pos, m, sizeof(m), "grain marker", e);

	if (r < 0)
		return r;
	lba = le64(m + RECORD_LBA);
	if (lba != off / SECTOR)
		return fail(e, EBADMSG,
			    "%s: the marker of grain %" PRIu64 " at file sector %" PRIu64
			    " is that of disk sector %" PRIu64 ", not %" PRIu64,
			    src->name, off / grain, pos / SECTOR, lba, off / SECTOR);
	*bytes = le32(m + RECORD_SIZE);
	return deflate_record_end(src, pos, off, grain, *bytes, &end, e);
}

int deflate_arrived(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, struct err *e)
{
	uint64_t have = src->size, bytes, end = pos + RECORD_HEAD;
	uint8_t m[RECORD_HEAD];
	int r = src->streaming ? source_ahead(src, end, &have, e) : 0;

	if (r < 0 || have < end)
		return r;
	r = source_read(src, pos, m, sizeof(m), "grain marker", e);
	if (r < 0)
		return r;
	bytes = le32(m + RECORD_SIZE);
	if (le64(m + RECORD_LBA) != off / SECTOR || !bytes || bytes > record_max(grain))
		return deflate_check_head(src, pos, off, grain, &bytes, e); /* which says why not */
	end += bytes;
	r = src->streaming ? source_ahead(src, end, &have, e) : 0;
	return r < 0 ? r : have >= end;
}

/* --- inflating ---------------------------------------------------------------------------------- */

#define LANES_BYTES (32u << 20) /* in all lanes of one file, but there is always one */

/* What one thread needs to inflate a grain. */
struct lane {
	struct lane *next;
	z_stream z;
	uint8_t *compressed;
	uint8_t *grain_buf;
	uint64_t held; /* position of the marker of what is in grain_buf; UINT64_MAX: nothing */
};

struct inflater {
	struct source *src;
	uint64_t size, grain;
	unsigned most;        /* lanes; few where grains are large: each needs both buffers */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t given; /* a lane */
	struct lane *free;    /* last used on top */
	unsigned taken;       /* lanes that are at work */
	uint64_t grain_at;    /* position of the grain that was asked for last */
	bool ended;           /* its last bytes were */
	bool warned_left;     /* about bytes behind the data */
};

static void lanes_free(struct lane *l)
{
	while (l) {
		struct lane *next = l->next;

		inflateEnd(&l->z);
		free(l->compressed);
		free(l->grain_buf);
		free(l);
		l = next;
	}
}

static struct lane *lane_new(const struct inflater *u)
{
	struct lane *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->held = UINT64_MAX;
	l->compressed = malloc(record_max(u->grain));
	l->grain_buf = malloc(u->grain);
	if (inflateInit(&l->z) == Z_OK && l->compressed && l->grain_buf)
		return l;
	lanes_free(l); /* inflateEnd() takes what was not begun, too */
	return NULL;
}

/* last: for the last bytes of the grain at pos. */
static int lane_take(struct inflater *u, uint64_t pos, bool last, struct lane **out, struct err *e)
{
	struct lane *l;

	pthread_mutex_lock(&u->lock);
	while (u->taken >= u->most)
		pthread_cond_wait(&u->given, &u->lock);
	l = u->free;
	if (l)
		u->free = l->next;
	u->taken++;
	u->ended = last || (u->ended && u->grain_at == pos);
	u->grain_at = pos;
	pthread_mutex_unlock(&u->lock);
	if (!l)
		l = lane_new(u);
	*out = l;
	if (l)
		return 0;
	pthread_mutex_lock(&u->lock);
	u->taken--;
	pthread_cond_signal(&u->given);
	pthread_mutex_unlock(&u->lock);
	return fail(e, ENOMEM, "out of memory");
}

/*
 * Where no lane is at work, and no more of a grain is to be expected, none is kept: a disk may have
 * thousands of extents, each with grains of 16 MiB, and each of them is idle but once.
 */
static void lane_give(struct inflater *u, struct lane *l)
{
	struct lane *idle;

	pthread_mutex_lock(&u->lock);
	l->next = u->free;
	u->free = l;
	if (u->taken == 1 && u->ended) {
		idle = u->free;
		u->free = NULL;
		/* before anyone who waits makes another */
		pthread_mutex_unlock(&u->lock);
		lanes_free(idle);
		pthread_mutex_lock(&u->lock);
	}
	u->taken--;
	pthread_cond_signal(&u->given);
	pthread_mutex_unlock(&u->lock);
}

int inflater_new(struct inflater **out, struct source *src, uint64_t size, uint64_t grain,
		 struct err *e)
{
	struct inflater *u = calloc(1, sizeof(*u));

	if (!u)
		return fail(e, ENOMEM, "out of memory");
	u->src = src;
	u->size = size;
	u->grain = grain;
	u->most = (unsigned)max_u64(1, LANES_BYTES / (grain + record_max(grain)));
	pthread_mutex_init(&u->lock, NULL);
	pthread_cond_init(&u->given, NULL);
	*out = u;
	return 0;
}

void inflater_free(struct inflater *u)
{
	if (!u)
		return;
	lanes_free(u->free);
	pthread_cond_destroy(&u->given);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

/* The record at pos into buf of a whole grain, of which `need` bytes have to come. */
static int inflate_grain(struct inflater *u, struct lane *l, uint64_t pos, uint64_t off,
			 uint64_t need, void *buf, struct err *e)
{
	const char *name = u->src->name;
	const uint64_t n = off / u->grain, sector = pos / SECTOR;
	z_stream *z = &l->z;
	uint64_t bytes;
	uint8_t more;
	bool warned;
	int r, end;

	r = deflate_check_head(u->src, pos, off, u->grain, &bytes, e);
	if (!r)
		r = source_read(u->src, pos + RECORD_HEAD, l->compressed, bytes, "compressed grain", e);
	if (r < 0)
		return r;
	inflateReset(z);
	z->next_in = l->compressed;
	z->avail_in = (uInt)bytes;
	z->next_out = buf;
	z->avail_out = (uInt)u->grain;
	end = inflate(z, Z_NO_FLUSH);
	if (end == Z_OK && !z->avail_out) {
		/* the end of the data may still have to be read; a byte more may not come */
		z->next_out = &more;
		z->avail_out = 1;
		end = inflate(z, Z_NO_FLUSH);
		if (!z->avail_out)
			return fail(e, EBADMSG, GRAIN_AT " decompresses to more than %" PRIu64 " bytes",
				    name, n, sector, u->grain);
	}
	if (end == Z_MEM_ERROR)
		return fail(e, ENOMEM, "out of memory");
	if (end != Z_STREAM_END)
		return fail(e, EBADMSG, GRAIN_AT " cannot be decompressed: %s", name, n, sector,
			    end == Z_OK || end == Z_BUF_ERROR ? "its compressed data has no end"
			    : z->msg			      ? z->msg
							      : "unknown compression");
	if (z->total_out < need)
		return fail(e, EBADMSG, GRAIN_AT " decompresses to %lu bytes, not %" PRIu64, name, n,
			    sector, z->total_out, need);
	if (!z->avail_in)
		return 0;
	pthread_mutex_lock(&u->lock);
	warned = u->warned_left;
	u->warned_left = true;
	pthread_mutex_unlock(&u->lock);
	if (warned)
		return 0;
	return warning(e, GRAIN_AT " has %u byte%s behind its compressed data", name, n, sector,
		       z->avail_in, plural(z->avail_in));
}

int inflater_run(struct inflater *u, const struct run *run, void *buf, struct err *e)
{
	/* not run->off: whoever put the leaf into a larger disk has moved that */
	const uint64_t off = run->skip / u->grain * u->grain;
	const uint64_t inner = run->skip - off;
	const uint64_t need = min_u64(u->grain, u->size - off);
	struct lane *l;
	int r;

	if (run->skip >= u->size || inner + run->len > need)
		return fail(e, EBADMSG, "%s: %" PRIu64 " bytes at %" PRIu64 " are not of one grain",
			    u->src->name, run->len, run->skip);
	r = lane_take(u, run->pos, inner + run->len == need, &l, e);
	if (r < 0)
		return r;
	if (run->len == u->grain) { /* a whole grain; the last may inflate to more than the disk */
		r = inflate_grain(u, l, run->pos, off, need, buf, e);
	} else {
		if (l->held != run->pos) {
			l->held = UINT64_MAX;
			r = inflate_grain(u, l, run->pos, off, need, l->grain_buf, e);
			if (!r)
				l->held = run->pos;
		}
		if (!r)
			memcpy(buf, l->grain_buf + inner, run->len);
	}
	lane_give(u, l);
	return r;
}

int inflater_check(struct inflater *u, uint64_t pos, uint64_t off, struct err *e)
{
	struct lane *l;
	int r = lane_take(u, pos, false, &l, e);

	if (r < 0)
		return r;
	l->held = UINT64_MAX;
	r = inflate_grain(u, l, pos, off, min_u64(u->grain, u->size - off), l->grain_buf, e);
	lane_give(u, l);
	return r;
}
