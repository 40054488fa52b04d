/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "chain/chain.h"
#include "chain/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK 200u

struct byte { /* of the model */
	bool have;
	enum run_kind kind;
	uint8_t value;
	uint64_t at; /* RAW: where in its source; COMPRESSED: skip */
	const void *owner; /* RAW: source; COMPRESSED: leaf */
};

static struct byte byte_of(const struct run *run, uint64_t i)
{
	struct byte b = {.have = true, .kind = run->kind};

	if (run->kind == RUN_RAW) {
		b.at = run->pos + i;
		b.owner = run->src;
		b.value = run->src->mem[b.at];
	} else if (run->kind == RUN_COMPRESSED) {
		b.at = run->skip + i;
		b.owner = run->leaf;
		b.value = packed_byte(run->pos, b.at);
	}
	return b;
}

static bool same_byte(const struct byte *a, const struct byte *b)
{
	return a->have == b->have && a->kind == b->kind && a->value == b->value &&
	       a->at == b->at && a->owner == b->owner;
}

/* Random runs; often neighbours, sometimes none. */
static struct list *random_layer(uint64_t size, struct source *src)
{
	struct run run[DISK];
	uint64_t at = below(3) ? below(size + 1) / (1 + below(8)) : 0;
	uint64_t longest = 1 + below(below(2) ? 6 : 80);
	size_t n = 0;

	while (at < size && n < DISK && below(30)) {
		uint64_t len = min_u64(1 + below(longest), size - at);

		run[n] = (struct run){.off = at, .len = len, .kind = (enum run_kind)below(3)};
		if (run[n].kind == RUN_RAW) {
			run[n].src = src;
			run[n].pos = below(src->size - len + 1);
		} else if (run[n].kind == RUN_COMPRESSED) {
			run[n].pos = below(1000);
			run[n].skip = below(10);
		}
		n++;
		at += len + (below(2) ? below(longest * 2) : 0);
	}
	return list_new(size, run, n);
}

/* Walks r and compares: ascending, disjoint, each byte as in the model. */
static void walk(struct reader *r, const struct byte *model, uint64_t size)
{
	struct byte got[DISK] = {{0}};
	struct err e = {.set = false};
	uint64_t at = 0;
	struct run run;
	int rc;

	while ((rc = reader_next(r, &run, &e)) == 1) {
		if (!CHECK(run.len && run.off >= at && run.off + run.len <= size))
			return;
		for (uint64_t i = 0; i < run.len; i++)
			got[run.off + i] = byte_of(&run, i);
		if (run.kind == RUN_COMPRESSED) {
			uint8_t buf[DISK];

			CHECK(reader_fetch(&run, buf, &e) == 0);
			for (uint64_t i = 0; i < run.len; i++)
				CHECK(buf[i] == model[run.off + i].value);
		}
		at = run.off + run.len;
	}
	CHECK(rc == 0 && !e.set);
	for (uint64_t i = 0; i < size; i++)
		CHECK(same_byte(&got[i], &model[i]));
}

static void chains(bool whole, uint64_t with_seed, int rounds)
{
	uint8_t bytes[512];

	seed(with_seed);
	random_bytes(bytes, sizeof(bytes));
	for (int round = 0; round < rounds; round++) {
		size_t n = 1 + below(6);
		struct byte model[DISK] = {{0}};
		struct err e = {.set = false};
		struct reader *layer[6], *r = NULL;
		struct source *src[6];
		uint64_t size = 0, seen = UINT64_MAX, from = UINT64_MAX;
		unsigned before = failures, freed = 0;

		for (size_t i = 0; i < n; i++) {
			/* mostly of one size; a smaller one hides the end of those beneath */
			uint64_t s = below(4) && size ? size : 1 + below(DISK);
			struct list *l;

			CHECK(source_memory(&src[i], "mem", bytes, sizeof(bytes), &e) == 0);
			l = random_layer(s, src[i]);
			l->freed = &freed;
			layer[i] = &l->reader;
			size = max_u64(size, s);
			seen = min_u64(seen, s);
			for (size_t k = 0; k < l->n; k++)
				for (uint64_t b = 0; b < l->run[k].len; b++)
					if (l->run[k].off + b < seen && !model[l->run[k].off + b].have)
						model[l->run[k].off + b] = byte_of(&l->run[k], b);
		}
		if (!below(4)) /* some layers go on behind the end of the disk */
			size = 1 + below(size);
		if (whole)
			from = below(2) ? below(size + 1) : 0;
		CHECK(merge_new(&r, layer, n, size, from, &e) == 0);
		CHECK(r->size == size);
		for (uint64_t i = from; i < size; i++)
			if (!model[i].have)
				model[i] = (struct byte){.have = true, .kind = RUN_ZERO};
		if (round % 3 == 0) { /* rewound before, in the middle, and after */
			struct run run;

			for (uint64_t k = below(10); k; k--)
				CHECK(reader_next(r, &run, &e) >= 0);
			CHECK(reader_rewind(r, &e) == 0);
		}
		walk(r, model, size);
		CHECK(reader_rewind(r, &e) == 0);
		walk(r, model, size);
		reader_free(r);
		CHECK(freed == n);
		for (size_t i = 0; i < n; i++)
			source_free(src[i]);
		if (failures != before) {
			printf("# round %d, seed %d\n", round, (int)with_seed);
			return;
		}
	}
}

static void test_merge(void)
{
	chains(false, 4, 15000);
}

static void test_merge_whole(void)
{
	chains(true, 5, 15000);
}

static void test_chain_edges(void)
{
	struct err e = {.set = false};
	struct reader *r = NULL, *layers[2];
	struct list *l;
	struct run run;

	/* nothing in the only layer, and no layer at all */
	layers[0] = &list_new(100, NULL, 0)->reader;
	CHECK(merge_new(&r, layers, 1, 100, UINT64_MAX, &e) == 0);
	CHECK(reader_next(r, &run, &e) == 0);
	reader_free(r);
	layers[0] = &list_new(100, NULL, 0)->reader;
	CHECK(merge_new(&r, layers, 1, 100, 0, &e) == 0);
	CHECK(reader_next(r, &run, &e) == 1 && run.off == 0 && run.len == 100);
	CHECK(run.kind == RUN_ZERO && reader_next(r, &run, &e) == 0);
	reader_free(r);
	CHECK(merge_new(&r, layers, 0, 0, 0, &e) == 0);
	CHECK(r->size == 0 && reader_next(r, &run, &e) == 0);
	reader_free(r);

	/* an error below comes through, of either layer, and nothing after */
	for (int which = 0; which < 2; which++) {
		const struct run two[] = {{.off = 0, .len = 10, .kind = RUN_ZERO},
					  {.off = 50, .len = 10, .kind = RUN_ZERO}};
		int rc;

		for (int i = 0; i < 2; i++) {
			l = list_new(100, two, 2);
			if (i == which)
				l->fail_with = EIO, l->fail_at = 1;
			layers[i] = &l->reader;
		}
		e.set = false;
		CHECK(merge_new(&r, layers, 2, 100, which ? 0 : UINT64_MAX, &e) == 0);
		while ((rc = reader_next(r, &run, &e)) > 0)
			CHECK(run.off < 50);
		CHECK(rc == -EIO && e.set);
		CHECK(reader_next(r, &run, &e) == 0);
		reader_free(r);
	}
	l = list_new(100, NULL, 0);
	l->fail_with = EIO;
	e.set = false;
	layers[0] = &l->reader;
	CHECK(merge_new(&r, layers, 1, 100, 0, &e) == 0);
	CHECK(reader_next(r, &run, &e) == -EIO && e.set);
	reader_free(r);
}

const struct test chain_tests[] = {
	{"merge", test_merge},
	{"merge-whole", test_merge_whole},
	{"chain-edges", test_chain_edges},
	{NULL, NULL},
};
