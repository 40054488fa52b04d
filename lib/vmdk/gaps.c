/* SPDX-License-Identifier: MIT */
/* See gaps.h. */
#include "vmdk/gaps.h"
#include "base/bitmap.h"

#include <inttypes.h>
#include <stdlib.h>

/* Their bitmap takes 128 MiB; a disk of 64 TiB has as many of the usual size. */
#define GRAINS_MAX (UINT64_C(128) << 23)

struct gaps {
	struct reader reader;
	struct reader *child;
	uint64_t grain, grains;
	uint64_t *given; /* bitmap of grains */
	uint64_t at;     /* the first grain that may be missing, once the child has ended */
};

static int gaps_next(struct reader *reader, struct run *run, struct err *e)
{
	struct gaps *g = container_of(reader, struct gaps, reader);
	const int got = reader_next(g->child, run, e);
	uint64_t from;

	if (got < 0)
		return got;
	if (got) {
		if (run->kind != RUN_FENCE)
			bitmap_set(g->given, run->off / g->grain, div_up(run->off + run->len, g->grain));
		return 1;
	}
	from = bitmap_find(g->given, g->at, g->grains, false);
	g->at = bitmap_find(g->given, from, g->grains, true);
	*run = (struct run){.off = from * g->grain, .kind = RUN_ZERO};
	run->len = min_u64(g->at * g->grain, reader->size) - min_u64(run->off, reader->size);
	return run->len != 0;
}

static void gaps_free(struct reader *reader)
{
	struct gaps *g = container_of(reader, struct gaps, reader);

	reader_free(g->child);
	free(g->given);
	free(g);
}

static const struct reader_ops gaps_ops = {.next = gaps_next, .free = gaps_free};

int gaps_over(struct reader **reader, uint64_t grain, struct err *e)
{
	struct reader *child = *reader;
	const uint64_t grains = div_up(child->size, grain);
	struct gaps *g;

	if (grains > GRAINS_MAX)
		return fail(e, EFBIG,
			    "%s: its disk has more grains than are counted of a stream (%" PRIu64
			    "); --spool-first makes a file of it",
			    child->name, GRAINS_MAX);
	g = calloc(1, sizeof(*g));
	if (g)
		g->given = bitmap_new(grains);
	if (!g || !g->given) {
		free(g);
		return fail(e, ENOMEM, "out of memory");
	}
	g->child = child;
	g->grain = grain;
	g->grains = grains;
	reader_init(&g->reader, &gaps_ops, child->name, child->size);
	g->reader.streaming = child->streaming;
	*reader = &g->reader;
	return 0;
}
