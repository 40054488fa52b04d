/* See zerolog.h. That the size of a record is found at byte 8: "Virtual Disk Format 5.0". */
#include "zerolog.h"

#include <stdlib.h>

#define AT_SIZE 8u
/* Deflate makes at least 1/1032 of anything; a stored grain of data is never so short. */
#define SHORT_RECORD(grain) ((grain) / 512 + 64)

struct zerolog {
	struct reader reader;
	struct reader *child;
	struct source *src; /* the child's */
	uint64_t grain;
	uint8_t buf[];
};

static int zerolog_next(struct reader *reader, struct run *run, struct err *e)
{
	struct zerolog *z = container_of(reader, struct zerolog, reader);
	uint8_t size[4];
	int r;

	z->child->share = reader->share;
	r = reader_next(z->child, run, e);
	if (r <= 0 || run->kind != RUN_PACKED || run->len > z->grain)
		return r;
	r = source_read(z->src, run->pos + AT_SIZE, size, sizeof(size), "grain marker", e);
	if (r < 0)
		return r;
	if (le32(size) > SHORT_RECORD(z->grain))
		return 1;
	r = reader_fetch(run, z->buf, e);
	if (r < 0)
		return r;
	if (all_zero(z->buf, run->len))
		/* undo.c goes on with a log by the places of all records */
		*run = (struct run){
			.off = run->off, .len = run->len, .pos = run->pos, .kind = RUN_ZERO};
	return 1;
}

static int zerolog_rewind(struct reader *reader, struct err *e)
{
	return reader_rewind(container_of(reader, struct zerolog, reader)->child, e);
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

static const struct reader_ops passing_ops = {
	.next = zerolog_next,
	.free = zerolog_free,
};

struct reader *zerolog_over(struct reader *child, struct source *src, uint64_t grain)
{
	struct zerolog *z = malloc(sizeof(*z) + grain);

	if (!z)
		return child;
	z->child = child;
	z->src = src;
	z->grain = grain;
	reader_init(&z->reader, child->passing ? &passing_ops : &zerolog_ops, child->name, child->size);
	z->reader.passing = child->passing;
	return &z->reader;
}
