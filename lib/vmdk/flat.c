/* SPDX-License-Identifier: MIT */
/*
 * Extents without metadata: raw bytes (FLAT, VMFS), and none at all (ZERO). Knows positions; must not
 * know descriptors. Called by image.
 */
#include "vmdk/format.h"

#include <inttypes.h>
#include <stdlib.h>

struct flat {
	struct reader reader;
	struct source *src; /* owned; NULL: zeros */
	uint64_t from;      /* position of guest byte 0 */
	uint64_t at;        /* next guest byte */
};

static int flat_next(struct reader *reader, struct run *run, struct err *e)
{
	struct flat *f = container_of(reader, struct flat, reader);
	uint64_t left = reader->size - f->at;
	bool hole = true;

	(void)e;
	if (!left)
		return 0;
	*run = (struct run){.off = f->at, .len = left, .kind = RUN_ZERO};
	if (f->src) {
		uint64_t pos = f->from + f->at;

		run->len = min_u64(left, source_range(f->src, pos, &hole) - pos);
		if (!hole) {
			run->kind = RUN_RAW;
			run->src = f->src;
			run->pos = pos;
		}
	}
	f->at += run->len;
	return 1;
}

static int flat_rewind(struct reader *reader, struct err *e)
{
	struct flat *f = container_of(reader, struct flat, reader);

	(void)e;
	f->at = 0;
	return 0;
}

static void flat_free(struct reader *reader)
{
	struct flat *f = container_of(reader, struct flat, reader);

	source_free(f->src);
	free(f);
}

static const struct reader_ops flat_ops = {
	.next = flat_next,
	.rewind = flat_rewind,
	.free = flat_free,
};

static int flat_new(struct reader **out, struct source *src, const char *name, uint64_t from,
		    uint64_t size, struct err *e)
{
	struct flat *f = calloc(1, sizeof(*f));

	if (!f)
		return fail(e, ENOMEM, "out of memory");
	f->src = src;
	f->from = from;
	reader_init(&f->reader, &flat_ops, name, size);
	*out = &f->reader;
	return 0;
}

int flat_open(struct reader **out, struct source *src, uint64_t at, uint64_t size, struct err *e)
{
	if (at > src->size || size > src->size - at)
		return fail(e, EBADMSG,
			    "%s: the extent needs bytes %" PRIu64 " to %" PRIu64
			    ", the file has %" PRIu64, src->name, at, at + size, src->size);
	return flat_new(out, src, src->name, at, size, e);
}

int zero_open(struct reader **out, const char *name, uint64_t size, struct err *e)
{
	return flat_new(out, NULL, name, 0, size, e);
}
