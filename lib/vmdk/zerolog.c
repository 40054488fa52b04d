/* SPDX-License-Identifier: MIT */
#include "vmdk/zerolog.h"
#include "vmdk/layout.h"

#include <stdlib.h>

/* Deflate makes at least 1/1032 of anything; a stored grain of data is never so short. */
#define SHORT_RECORD(grain) ((grain) / 512 + 64)
/* Neighbouring grains of zeros become one run, or a rollback would punch holes of 4 KiB one by one. But
 * a signal has to be able to stop it in between. */
#define JOINED_MOST (UINT64_C(64) << 20)

struct zerolog {
	struct reader reader;
	struct reader *child;
	struct source *src; /* the child's */
	uint64_t grain;
	bool have_ahead;
	struct run ahead; /* what the child gave last, a FENCE too, and is not given yet */
	uint8_t buf[];
};

/* The next run of the child; a grain of zeros becomes a run of zeros. */
static int next_run(struct zerolog *z, struct run *run, struct err *e)
{
	uint8_t size[4];
	int r;

	r = reader_next(z->child, run, e);
	if (r <= 0 || run->kind != RUN_COMPRESSED || run->len > z->grain)
		return r;
	r = source_read(z->src, run->pos + RECORD_SIZE, size, sizeof(size), "grain marker", e);
	if (r < 0)
		return r;
	if (le32(size) > SHORT_RECORD(z->grain))
		return 1;
	r = reader_fetch(run, z->buf, e);
	if (r < 0)
		return r;
	if (all_zero(z->buf, run->len))
		*run = (struct run){.off = run->off, .len = run->len, .kind = RUN_ZERO};
	return 1;
}

/* The run ahead is the child's last one until it is given: in a stream its bytes are still held then. */
static int zerolog_next(struct reader *reader, struct run *run, struct err *e)
{
	struct zerolog *z = container_of(reader, struct zerolog, reader);
	int r = 1;

	z->child->share = reader->share;
	*run = z->ahead;
	if (!z->have_ahead)
		r = next_run(z, run, e);
	z->have_ahead = false;
	while (r > 0 && run->kind == RUN_ZERO && run->len < JOINED_MOST) {
		r = next_run(z, &z->ahead, e);
		if (!r)
			return 1; /* and the child says once more that it has ended */
		if (r < 0 || z->ahead.kind != RUN_ZERO || z->ahead.off != run->off + run->len) {
			z->have_ahead = r > 0;
			break;
		}
		run->len += z->ahead.len;
	}
	return r;
}

static int zerolog_rewind(struct reader *reader, struct err *e)
{
	struct zerolog *z = container_of(reader, struct zerolog, reader);

	z->have_ahead = false;
	return reader_rewind(z->child, e);
}

static void zerolog_free(struct reader *reader)
{
	struct zerolog *z = container_of(reader, struct zerolog, reader);

	reader_free(z->child);
	free(z);
}

static const struct reader_ops zerolog_ops = {
	.next = zerolog_next,
	.rewind = zerolog_rewind,
	.free = zerolog_free,
};

struct reader *zerolog_over(struct reader *child, struct source *src, uint64_t grain)
{
	struct zerolog *z = malloc(sizeof(*z) + grain);

	if (!z)
		return child;
	z->child = child;
	z->have_ahead = false;
	z->src = src;
	z->grain = grain;
	reader_init(&z->reader, &zerolog_ops, child->name, child->size);
	z->reader.streaming = child->streaming;
	return &z->reader;
}
