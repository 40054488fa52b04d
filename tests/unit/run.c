/* SPDX-License-Identifier: MIT */
#include "unit.h"

static void test_trim(void)
{
	struct run raw = {.off = 10, .len = 20, .pos = 100, .skip = 5, .kind = RUN_RAW};
	struct run packed = raw, zero = raw;

	packed.kind = RUN_COMPRESSED;
	zero.kind = RUN_ZERO;
	run_trim_front(&raw, 7);
	CHECK(raw.off == 17 && raw.len == 13 && raw.pos == 107 && raw.skip == 5);
	run_trim_front(&packed, 7);
	CHECK(packed.off == 17 && packed.len == 13 && packed.pos == 100 && packed.skip == 12);
	run_trim_front(&zero, 7);
	CHECK(zero.off == 17 && zero.len == 13 && zero.pos == 100 && zero.skip == 5);
	run_trim_front(&zero, 0);
	CHECK(zero.off == 17 && zero.len == 13);
}

static void test_joins(void)
{
	struct source s1, s2;
	static const enum run_kind kinds[] = {RUN_RAW, RUN_COMPRESSED, RUN_ZERO};

	for (size_t ka = 0; ka < 3; ka++)
		for (size_t kb = 0; kb < 3; kb++)
			for (int gap = -1; gap <= 1; gap++)
				for (int jump = -1; jump <= 1; jump++)
					for (int other = 0; other < 2; other++) {
						struct run a = {.off = 10, .len = 5, .pos = 50,
								.kind = kinds[ka], .src = &s1};
						struct run b = {.off = (uint64_t)(15 + gap),
								.len = 5,
								.pos = (uint64_t)(55 + jump),
								.kind = kinds[kb],
								.src = other ? &s2 : &s1};
						bool want = ka == kb && !gap &&
							    (kinds[ka] == RUN_ZERO ||
							     (kinds[ka] == RUN_RAW && !jump &&
							      !other));

						CHECK(run_joins(&a, &b) == want);
					}
}

static void gate_refuses(struct list *l, size_t good)
{
	struct err e = {.set = false};
	struct run run;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < good; i++)
			CHECK(reader_next(&l->reader, &run, &e) == 1);
		CHECK(!e.set);
		CHECK(reader_next(&l->reader, &run, &e) == -EBADMSG);
		CHECK(e.set);
		e.set = false;
		for (int i = 0; i < 3; i++)
			CHECK(reader_next(&l->reader, &run, &e) == 0);
		CHECK(reader_rewind(&l->reader, &e) == 0);
	}
	reader_free(&l->reader);
}

static void test_gate_refuses(void)
{
	static const uint8_t bytes[100];
	struct err e = {.set = false};
	struct source *src;
	struct list *l;

	CHECK(source_memory(&src, "mem", bytes, sizeof(bytes), &e) == 0);
#define BAD(size, ...) gate_refuses(list_one(size, (struct run){__VA_ARGS__}), 0)
	BAD(1000, .off = 5, .len = 0, .kind = RUN_ZERO);
	BAD(0, .off = 0, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 1000, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 1001, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 999, .len = 2, .kind = RUN_ZERO);
	BAD(1000, .off = 0, .len = 1001, .kind = RUN_ZERO);
	BAD(1000, .off = UINT64_MAX, .len = 2, .kind = RUN_ZERO);
	BAD(1000, .off = 2, .len = UINT64_MAX, .kind = RUN_ZERO);
	BAD(1000, .off = UINT64_MAX - 9, .len = 10, .kind = RUN_ZERO);
	BAD(UINT64_MAX, .off = UINT64_MAX - 9, .len = 10, .kind = RUN_ZERO);
	BAD(1000, .len = 10, .kind = RUN_RAW);
	BAD(1000, .len = 10, .pos = 91, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 1, .pos = 100, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 1, .pos = 101, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 101, .pos = 0, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 10, .pos = UINT64_MAX - 4, .src = src, .kind = RUN_RAW);
#undef BAD
	l = list_one(1000, (struct run){.len = 10, .kind = RUN_COMPRESSED});
	l->run[0].leaf = NULL;
	gate_refuses(l, 0);
	l = list_one(1000, (struct run){.len = 10, .kind = RUN_COMPRESSED});
	l->reader.ops = &list_ops_no_fetch;
	gate_refuses(l, 0);
	/* out of order: overlapping by one byte, the same again, and backwards */
	for (uint64_t off = 0; off < 30; off += off < 20 ? 10 : 9) {
		const struct run two[] = {{.off = 20, .len = 10, .kind = RUN_ZERO},
					  {.off = off, .len = 5, .kind = RUN_ZERO}};

		gate_refuses(list_new(1000, two, 2), 1);
	}
	source_free(src);
}

static void test_gate_passes(void)
{
	static const uint8_t bytes[100];
	struct err e = {.set = false};
	unsigned freed = 0;
	struct source *src;
	struct run run;
	struct list *l;

	CHECK(source_memory(&src, "mem", bytes, sizeof(bytes), &e) == 0);
	{
		const struct run good[] = {
			{.off = 0, .len = 100, .src = src, .kind = RUN_RAW},
			{.off = 100, .len = 1, .pos = 99, .src = src, .kind = RUN_RAW},
			{.off = 200, .len = 50, .pos = 7, .kind = RUN_COMPRESSED},
			{.off = 250, .len = 750, .kind = RUN_ZERO},
		};

		l = list_new(1000, good, COUNT(good));
		l->freed = &freed;
		for (int pass = 0; pass < 3; pass++) {
			for (size_t i = 0; i < COUNT(good); i++) {
				CHECK(reader_next(&l->reader, &run, &e) == 1);
				CHECK(run.off == good[i].off && run.len == good[i].len);
				CHECK(run.kind == good[i].kind && run.pos == good[i].pos);
				if (pass == 1 && i == 1)
					break; /* rewind from the middle */
			}
			if (pass != 1)
				for (int i = 0; i < 3; i++)
					CHECK(reader_next(&l->reader, &run, &e) == 0);
			CHECK(reader_rewind(&l->reader, &e) == 0);
		}
		/* an error of the reader itself is handed on, once */
		l->fail_at = 1;
		l->fail_with = EIO;
		CHECK(reader_next(&l->reader, &run, &e) == 1);
		CHECK(reader_next(&l->reader, &run, &e) == -EIO);
		CHECK(e.set);
		CHECK_STR(e.msg, "list: told to fail");
		CHECK(reader_next(&l->reader, &run, &e) == 0);
	}
	reader_free(&l->reader);
	CHECK(freed == 1);
	reader_free(NULL);
	source_free(src);
}

const struct test run_tests[] = {
	{"run-trim", test_trim},
	{"run-joins", test_joins},
	{"gate-refuses", test_gate_refuses},
	{"gate-passes", test_gate_passes},
	{NULL, NULL},
};
