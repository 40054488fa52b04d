/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "vmdk/file_order.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORDER_DISK (192 * KIB)
#define ORDER_FILE (640 * KIB)
#define ORDER_GRAINS (ORDER_DISK / SECTOR)
#define ORDER_TABLES 64u
#define ORDER_HELD 64u

/* An extent like no other: whatever the shape is, and wherever everything lies. */
struct order {
	struct tree_shape shape;
	uint8_t file[ORDER_FILE], model[ORDER_DISK], disk[ORDER_DISK], written[ORDER_DISK];
	uint64_t end;                  /* of the file */
	uint64_t table[ORDER_TABLES];  /* where each is, 0: nowhere */
	uint64_t grain[ORDER_GRAINS];  /* the same; 1: zeros */
	struct run held[ORDER_HELD];   /* of a stream: not fetched before they have to be */
	unsigned helds;
};

static int order_table(struct tree *g, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e)
{
	(void)g, (void)i, (void)e;
	*pos = raw * SECTOR;
	return 1;
}

static int order_grain(struct tree *g, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e)
{
	(void)g, (void)n, (void)e;
	*pos = raw * SECTOR;
	return raw == 1 ? GRAIN_ZERO : GRAIN_DATA;
}

static void order_entry(struct order *o, uint64_t at, uint64_t i, uint64_t value)
{
	for (unsigned k = 0; k < o->shape.width; k++)
		o->file[at + i * o->shape.width + k] = (uint8_t)(value >> 8 * k);
}

static uint64_t order_len(const struct order *o, uint64_t grain)
{
	return min_u64(o->shape.grain, o->shape.size - grain * o->shape.grain);
}

/* layout: tables in front of all grains, behind them, each before its grains with the last one first,
 * or anything anywhere. */
static void order_make(struct order *o, unsigned layout)
{
	struct tree_shape *s = &o->shape;
	static uint32_t item[ORDER_TABLES + ORDER_GRAINS]; /* grains, and tables with the high bit */
	const uint32_t table = UINT32_C(1) << 31;
	uint64_t grains, n = 0, used = 1 + below(8), at;

	memset(o, 0, sizeof(*o));
	s->width = below(2) ? 4 : 8;
	s->entries = 16u << below(4);
	s->grain = (uint64_t)SECTOR << below(6);
	s->size = (1 + below(min_u64(ORDER_GRAINS, ORDER_TABLES * s->entries * s->grain / SECTOR))) *
		  SECTOR;
	grains = div_up(s->size, s->grain);
	s->tables = div_up(grains, s->entries);
	s->dir = SECTOR;
	s->area[0] = (struct tree_area){0, SECTOR, "header"};
	s->area[1] = (struct tree_area){SECTOR, SECTOR + s->tables * s->width, "directory"};
	s->areas = 2;
	s->floor = div_up(s->area[1].end, SECTOR) * SECTOR;
	s->table = order_table;
	s->grain_at = order_grain;
	random_bytes(o->file, sizeof(o->file));
	memset(o->file + s->dir, 0, s->tables * s->width);
	for (uint64_t t = s->tables; t-- > 0;) {
		item[n++] = (uint32_t)t | table;
		for (uint64_t g = t * s->entries; g < min_u64(grains, (t + 1) * s->entries); g++) {
			o->grain[g] = below(8) >= used ? 0 : below(9) ? 2 : 1;
			if (o->grain[g] == 2)
				item[n++] = (uint32_t)g;
		}
	}
	for (uint64_t i = 0, tables = 0; layout < 2 && i < n; i++)
		if (item[i] & table) { /* to the front; the rest in any order */
			uint32_t x = item[i];

			item[i] = item[tables];
			item[tables++] = x;
		}
	for (uint64_t i = 0; layout == 1 && i < n / 2; i++) {
		uint32_t x = item[i];

		item[i] = item[n - 1 - i];
		item[n - 1 - i] = x;
	}
	for (uint64_t i = 0; layout == 3 && i < n; i++) {
		uint64_t k = i + below(n - i);
		uint32_t x = item[i];

		item[i] = item[k];
		item[k] = x;
	}
	at = s->floor;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t g = item[i], len;

		at += below(5) ? 0 : below(9) * SECTOR;
		if (g & table) {
			g &= ~table;
			len = s->entries * s->width;
			o->table[g] = at;
			memset(o->file + at, 0, len);
			order_entry(o, s->dir, g, at / SECTOR);
		} else {
			len = order_len(o, g);
			o->grain[g] = at;
		}
		o->end = at + len;
		at = div_up(at + len, SECTOR) * SECTOR;
	}
	for (uint64_t g = 0; g < grains; g++) {
		uint8_t *to = o->model + g * s->grain;

		if (!o->grain[g])
			memset(to, 0x5a, order_len(o, g));
		else
			order_entry(o, o->table[g / s->entries], g % s->entries,
				    o->grain[g] == 1 ? 1 : o->grain[g] / SECTOR);
		if (o->grain[g] > 1)
			memcpy(to, o->file + o->grain[g], order_len(o, g));
	}
	if (!o->end)
		o->end = s->area[1].end;
	CHECK(at <= ORDER_FILE);
}

static int order_fetch(struct order *o, struct err *e)
{
	int r = 0;

	while (!r && o->helds) {
		const struct run *run = &o->held[--o->helds];

		r = reader_fetch(run, o->disk + run->off, e);
	}
	return r;
}

/* Applies what src brings to disk[], as the pump does; *queued: in file order. */
static int order_apply(struct order *o, struct source *src, bool *queued, struct err *e)
{
	struct tree *g = alloc(sizeof(*g));
	struct run run;
	struct reader *reader;
	int r = tree_open(&reader, g, src, &o->shape, e);

	if (r < 0) {
		source_free(src);
		return r;
	}
	*queued = g->file;
	o->helds = 0;
	memset(o->disk, 0x5a, sizeof(o->disk));
	memset(o->written, 0, sizeof(o->written));
	while (r >= 0 && (r = reader_next(&g->reader, &run, e)) > 0) {
		if (run.kind == RUN_FENCE) {
			r = order_fetch(o, e);
			continue;
		}
		CHECK(all_zero(o->written + run.off, run.len)); /* nothing is given twice */
		memset(o->written + run.off, 1, run.len);
		if (run.kind == RUN_ZERO) {
			memset(o->disk + run.off, 0, run.len);
		} else if (run.kind == RUN_RAW) {
			r = source_read(run.src, run.pos, o->disk + run.off, run.len, "data", e);
		} else {
			o->held[o->helds++] = run;
			if (o->helds == ORDER_HELD)
				r = order_fetch(o, e);
		}
	}
	if (order_fetch(o, e) < 0)
		r = -EBADMSG;
	reader_free(&g->reader);
	return r;
}

/* The bytes before `size` come through a pipe. */
static int order_pipe(struct order *o, uint64_t size, bool *queued, struct err *e)
{
	struct feed f = {.bytes = o->file, .n = size, .chunk = 5000 + below(60000)};
	const struct source_opts opts = {.stream = {.window = (size_t)32768 << below(3)}};
	struct source *src = NULL;
	char path[32];
	pthread_t thread;
	int fd[2], r;

	if (pipe(fd) < 0)
		die("pipe");
	f.fd = fd[1];
	if (pthread_create(&thread, NULL, feed, &f))
		die("pthread_create");
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	r = source_open_any(&src, path, &opts, e);
	close(fd[0]);
	if (CHECK(r == 0))
		r = order_apply(o, src, queued, e);
	pthread_join(thread, NULL);
	return r;
}

/* A leaf whose tables are larger than a window: an error, and no bitmap that is too small. */
static void test_window_claim(void)
{
	static uint8_t bytes[256 * KIB];
	struct feed f = {.bytes = bytes, .n = sizeof(bytes), .chunk = 4096};
	const struct source_opts opts = {.stream = {.window = 32768}};
	const struct tree_shape shape = {
		.size = MIB,
		.grain = SECTOR,
		.dir = SECTOR,
		.tables = 1,
		.entries = 8192,
		.width = 8,
		.area = {{0, SECTOR, "header"}},
		.areas = 1,
		.table = order_table,
		.grain_at = order_grain,
	};
	struct tree *g = alloc(sizeof(*g));
	struct err e = {.set = false};
	struct source *src = NULL;
	struct reader *reader;
	char path[32];
	pthread_t thread;
	int fd[2];

	signal(SIGPIPE, SIG_IGN); /* the pipe is closed while it is being filled */
	if (pipe(fd) < 0)
		die("pipe");
	f.fd = fd[1];
	if (pthread_create(&thread, NULL, feed, &f))
		die("pthread_create");
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	if (CHECK(source_open_any(&src, path, &opts, &e) == 0)) {
		close(fd[0]);
		CHECK(tree_open(&reader, g, src, &shape, &e) == -EFBIG);
		CHECK(strstr(e.msg, "a grain table of 65536 bytes is larger than a window of 32768"));
		source_free(src);
	}
	pthread_join(thread, NULL);
	signal(SIGPIPE, SIG_DFL);
}

/* Of a file that was cut there, all grains are there of which the table and they themselves came whole. */
static void order_cut(struct order *o, uint64_t cut)
{
	bool queued = false;
	struct err e = {.set = false};
	int r = order_pipe(o, cut, &queued, &e);

	CHECK((r < 0) == (cut < o->end) && e.set == (r < 0));
	if (!queued)
		return;
	for (uint64_t g = 0; g * o->shape.grain < o->shape.size; g++) {
		uint64_t table = o->table[g / o->shape.entries], at = g * o->shape.grain;
		uint64_t len = order_len(o, g);

		for (uint64_t i = at; i < at + len; i++)
			if (o->disk[i] != 0x5a && !CHECK(o->disk[i] == o->model[i]))
				return;
		if (o->grain[g] && table + o->shape.entries * o->shape.width <= cut &&
		    (o->grain[g] == 1 || o->grain[g] + len <= cut))
			CHECK(!memcmp(o->disk + at, o->model + at, len));
	}
}

static void test_file_order(void)
{
	struct order *o = alloc(sizeof(*o));
	unsigned in_order = 0;

	signal(SIGPIPE, SIG_IGN);
	seed(55);
	for (unsigned round = 0; round < 300 && failures < 10; round++) {
		struct err e = {.set = false};
		bool queued = false;
		struct source *src;

		order_make(o, round % 4);
		o->shape.opts.remember = below(2) ? 0 : 4100 + below(1000);
		o->shape.promised = below(2) ? o->end : 0;
		if (source_memory(&src, "file", o->file, o->end, &e) < 0)
			die(e.msg);
		CHECK(order_apply(o, src, &queued, &e) == 0 && !queued);
		CHECK(!memcmp(o->disk, o->model, o->shape.size));
		CHECK(order_pipe(o, o->end, &queued, &e) == 0);
		CHECK(!memcmp(o->disk, o->model, o->shape.size));
		in_order += queued;
		order_cut(o, below(o->end + SECTOR) + 1);
		CHECK_STR(e.msg, "");
	}
	CHECK(in_order > 100);
	free(o);
	signal(SIGPIPE, SIG_DFL);
}

const struct test file_order_tests[] = {
	{"file-order", test_file_order},
	{"window-claim", test_window_claim},
	{NULL, NULL},
};
