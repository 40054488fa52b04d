/* SPDX-License-Identifier: MIT */
/* Markers in batches. */
#include "unit.h"

#include "vmdk/streamopt.h"

#include <stdlib.h>
#include <string.h>

#define MARKED 40u /* grains of the disk, a sector each */

/* A sector for each grain of order[], and the end marker; the data are never looked at. */
static struct reader *marked(const unsigned *order, size_t n, size_t limit, uint8_t *file)
{
	const struct streamopt_shape shape = {
		.size = MARKED * SECTOR, .grain = SECTOR, .start = 0, .table_sectors = 1,
		.dir_sectors = 1, .marks = limit,
	};
	struct err e = {.set = false};
	struct reader *r;
	struct source *s;

	memset(file, 0, (n + 1) * SECTOR);
	for (size_t i = 0; i < n; i++) {
		file[i * SECTOR] = (uint8_t)order[i];
		file[i * SECTOR + 8] = 100;
	}
	if (source_memory(&s, "marked", file, (n + 1) * SECTOR, &e) < 0 ||
	    streamopt_open(&r, s, &shape, &e) < 0)
		die(e.msg);
	return r;
}

static void walk_marked(struct reader *r, const unsigned *order, size_t n, size_t stop)
{
	struct err e = {.set = false};
	struct run run;
	size_t got = 0;
	uint64_t at = 0;

	while (got < stop && reader_next(r, &run, &e) > 0) {
		got++;
		CHECK(run.off >= at && run.len == SECTOR && run.pos / SECTOR < n &&
		      order[run.pos / SECTOR] * SECTOR == run.off);
		at = run.off + SECTOR;
	}
	CHECK(got == stop && !e.set);
	if (stop == n)
		CHECK(reader_next(r, &run, &e) == 0 && !e.set);
}

static void test_stream_batches(void)
{
	static const char *const twice = "there twice";
	uint8_t file[(MARKED + 2) * SECTOR];
	unsigned order[MARKED + 1];

	seed(77);
	for (unsigned round = 0; round < 2000; round++) {
		size_t n = below(MARKED + 1), limit = 1 + below(n + 3);
		unsigned kind = round % 4;
		struct reader *r;

		for (unsigned i = 0; i < MARKED; i++)
			order[i] = kind == 2 ? MARKED - 1 - i : i;
		for (unsigned i = 0; kind >= 3 && i < MARKED; i++) {
			unsigned j = i + (unsigned)below(MARKED - i), x = order[i];

			order[i] = order[j];
			order[j] = x;
		}
		if (kind == 1 && n > 2) { /* in order but for two neighbours */
			size_t i = below(n - 1);
			unsigned x = order[i];

			order[i] = order[i + 1];
			order[i + 1] = x;
		}
		r = marked(order, n, limit, file);
		walk_marked(r, order, n, n ? below(n) : 0);
		for (unsigned again = 0; again < 2; again++) {
			struct err e = {.set = false};

			CHECK(reader_rewind(r, &e) == 0);
			walk_marked(r, order, n, n);
		}
		reader_free(r);
		if (!n)
			continue;
		/* one of them twice is never let through, wherever the two fall */
		order[n] = order[below(n)];
		r = marked(order, n + 1, limit, file);
		for (unsigned again = 0; again < 2; again++) {
			struct err e = {.set = false};
			struct run run;
			int got;

			do
				got = reader_next(r, &run, &e);
			while (got > 0);
			CHECK(got == -EBADMSG && (strstr(e.msg, twice) || again));
			e.set = false;
			CHECK(reader_rewind(r, &e) == 0);
		}
		reader_free(r);
	}
}

const struct test streamopt_tests[] = {
	{"stream-batches", test_stream_batches},
	{NULL, NULL},
};
