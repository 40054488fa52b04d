/* SPDX-License-Identifier: MIT */
#include "vmdk/guest_order.h"
#include "base/bitmap.h"
#include "vmdk/deflate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tables that are asked of the kernel together, before the first of them is read, */
#define WINDOW 64u
/* and bytes of them read at once: memory that is touched the first time costs more than a read does. */
#define READ_AT_ONCE (256u * 1024)
#define DIR_CHUNK 8192u /* directory entries read at a time */
/* Sectors claimed are marked in a bitmap of 32 MiB, which covers 128 GiB of file (1 TiB where a bit
 * stands for 8 sectors). Larger files are walked again for each further part in use: time instead of
 * memory, up to a limit that no sane file comes near. */
#define PARTS_MAX 256u
#ifndef CLAIM_SECTORS /* fuzzers cannot pay for that much each time */
#define CLAIM_SECTORS (UINT64_C(1) << 28)
#endif
/* Spans of the first walk that are kept, so that the second needs neither to read nor to decode. */
#define KEPT_MAX (512u * 1024)
#define KEPT_LEAST 1024u

struct guest_order {
	uint8_t *dir;          /* DIR_CHUNK entries from dir_first on */
	uint8_t *mirror_dir;   /* the same of the redundant directory; NULL where there is none */
	uint64_t dir_first, dir_count;
	uint64_t next_table;   /* directory entry to look at next */
	struct guest_table {
		uint64_t index, pos, mirror;
		bool empty;    /* a hole of the file */
	} table[WINDOW];
	unsigned tables, t;    /* how many there are, and the one in work */
	unsigned read;         /* so many of them were read, */
	uint8_t *buf;          /* the last of which are here: */
	unsigned room;         /* table i at place i % room */
	struct tree_scan scan; /* of the table in work, */
	bool scanning;         /* where it has begun */
	uint8_t *mirror_buf;   /* one table */
	size_t table_bytes;
	/* first walk */
	uint64_t *claimed;     /* NULL: nothing is claimed in this walk */
	uint64_t claim_from;   /* unit of the first bit */
	uint64_t claim_next;   /* first unit behind the bitmap that wants to be claimed */
	unsigned parts;        /* begun so far */
	/* later walks */
	struct tree_span *kept;
	size_t kept_n, kept_room, kept_at;
	bool kept_whole, replay;
};

/* --- claims --- */

/* Marks the sectors of file bytes [at, end). -EBADMSG when one of them is marked already, unless
 * `what` is NULL. */
static int claim(struct tree *t, uint64_t at, uint64_t end, const char *what, uint64_t n, struct err *e)
{
	struct guest_order *w = t->guest;
	const uint64_t unit = t->shape.unit * SECTOR;
	uint64_t a = at / unit, b = div_up(end, unit), to = w->claim_from + CLAIM_SECTORS;

	if (!w->claimed)
		return 0;
	if (b > to)
		w->claim_next = min_u64(w->claim_next, max_u64(a, to));
	a = max_u64(a, w->claim_from);
	b = min_u64(b, to);
	if (a < b && !bitmap_set(w->claimed, a - w->claim_from, b - w->claim_from) && what)
		return tree_overlap(t, what, n, at, end, e);
	return 0;
}

/* Whether the sums are added up: of walks that claim only in the first. */
static bool counting(const struct tree *t)
{
	return t->first && t->guest->parts == 1;
}

static void restart(struct guest_order *w)
{
	w->next_table = 0;
	w->dir_first = w->dir_count = 0;
	w->tables = w->t = w->read = 0;
	w->scanning = false;
}

/* Begins the walk that claims the part of the file at `from`. */
static int begin_part(struct tree *t, uint64_t from, struct err *e)
{
	struct guest_order *w = t->guest;
	int r = 0;

	if (w->parts++ == PARTS_MAX)
		return fail(e, EFBIG,
			    "%s: its tables and grains are scattered over more than %u parts of the "
			    "file, each of %" PRIu64 " GiB",
			    t->reader.name, PARTS_MAX,
			    (CLAIM_SECTORS * t->shape.unit * SECTOR) >> 30);
	free(w->claimed);
	w->claimed = bitmap_new(CLAIM_SECTORS);
	if (!w->claimed)
		return fail(e, ENOMEM, "out of memory");
	w->claim_from = from;
	w->claim_next = UINT64_MAX;
	for (size_t i = 0; !r && i < t->shape.areas; i++)
		r = claim(t, t->shape.area[i].at, t->shape.area[i].end, NULL, 0, e);
	restart(w);
	return r;
}

/* --- directory and tables --- */

/* Makes directory entries from next_table on stand in w->dir. 1, 0 when none of them is used, -errno.
 * Of a large disk most are not. */
static int load_dir(struct tree *t, struct err *e)
{
	struct guest_order *w = t->guest;
	const uint64_t at = w->next_table * t->shape.width;
	size_t n;
	int r = 0;

	w->dir_first = w->next_table;
	w->dir_count = min_u64(DIR_CHUNK, t->shape.tables - w->next_table);
	n = w->dir_count * t->shape.width;
	if (!w->mirror_dir && source_is_hole(t->src, t->shape.dir + at, n))
		return 0;
	r = source_read(t->src, t->shape.dir + at, w->dir, n, "grain directory", e);
	if (!r && w->mirror_dir && t->first)
		r = source_read(t->src, t->shape.mirror + at, w->mirror_dir, n,
				"redundant grain directory", e);
	return r < 0 ? r : w->mirror_dir || !all_zero(w->dir, n);
}

/* The entries of table i of the window, which was among the last that were read. */
static uint8_t *table_at(const struct guest_order *w, unsigned i)
{
	return w->buf + i % w->room * w->table_bytes;
}

/* On the first walk: table i of the window against its redundant copy. */
static int compare_mirror(struct tree *t, unsigned i, struct err *e)
{
	struct guest_order *w = t->guest;
	const bool empty = w->table[i].empty;
	int r;

	if (empty && source_is_hole(t->src, w->table[i].mirror, w->table_bytes))
		return 0;
	r = source_read(t->src, w->table[i].mirror, w->mirror_buf, w->table_bytes,
			"redundant grain table", e);
	if (r < 0 || (empty ? all_zero(w->mirror_buf, w->table_bytes)
			    : !memcmp(table_at(w, i), w->mirror_buf, w->table_bytes)))
		return r;
	return fail(e, EBADMSG,
		    "%s: " OBJECT("grain table %" PRIu64)
		    " and its redundant copy differ: it is damaged" HINT "; copy it again, or try --dry-run "
		    "with --force=gd (reads the first) or --force=rgd (the redundant one)",
		    t->reader.name, w->table[i].index);
}

/* Reads the tables of the window that come next, as many as there is room for. */
static int read_tables(struct tree *t, struct err *e)
{
	struct guest_order *w = t->guest;
	const unsigned end = (unsigned)min_u64(w->tables, w->read + w->room);
	char what[64];
	int r;

	for (unsigned i = w->read, n; i < end; i += n) {
		n = 1;
		if (w->table[i].empty)
			continue;
		while (i + n < end && !w->table[i + n].empty &&
		       w->table[i + n].pos == w->table[i].pos + n * w->table_bytes)
			n++;
		snprintf(what, sizeof(what), "grain table %" PRIu64, w->table[i].index);
		r = source_read(t->src, w->table[i].pos, table_at(w, i), n * w->table_bytes, what,
				e);
		if (r < 0)
			return r;
	}
	for (unsigned i = w->read; w->mirror_dir && t->first && i < end; i++) {
		r = compare_mirror(t, i, e);
		if (r < 0)
			return r;
	}
	w->read = end;
	return 0;
}

/* Directory entry next_table: 1 and where the tables are that it names, 0 when it names none, -errno. */
static int next_entry(struct tree *t, struct guest_table *table, struct err *e)
{
	struct guest_order *w = t->guest;
	const uint64_t i = w->next_table++, at = (i - w->dir_first) * t->shape.width;
	const bool compare = w->mirror_dir && t->first;
	int used, r = 0;

	table->index = i;
	used = tree_tables(t, i, tree_entry(t, w->dir + at),
			   compare ? tree_entry(t, w->mirror_dir + at) : 0, t->src->size,
			   counting(t), &table->pos, compare ? &table->mirror : NULL, e);
	if (used > 0)
		r = claim(t, table->pos, table->pos + w->table_bytes, tree_table_text(false), i, e);
	if (used > 0 && !r && compare)
		r = claim(t, table->mirror, table->mirror + w->table_bytes, tree_table_text(true), i, e);
	return r < 0 ? r : used;
}

/* Fills the window with the next tables. 1, 0 when there are none, -errno. */
static int load_window(struct tree *t, struct err *e)
{
	struct guest_order *w = t->guest;
	int r;

	w->tables = w->t = w->read = 0;
	while (w->tables < reader_part(&t->reader, WINDOW, 2) && w->next_table < t->shape.tables) {
		if (w->next_table >= w->dir_first + w->dir_count) {
			r = load_dir(t, e);
			if (r < 0)
				return r;
			if (!r) {
				t->sums.missing = min_u64(t->sums.missing, w->next_table);
				w->next_table += w->dir_count;
				continue;
			}
		}
		r = next_entry(t, &w->table[w->tables], e);
		if (r < 0)
			return r;
		w->tables += r > 0;
	}
	for (unsigned i = 0; i < w->tables; i++) {
		w->table[i].empty = source_is_hole(t->src, w->table[i].pos, w->table_bytes);
		if (!w->table[i].empty && t->first)
			source_hint(t->src, w->table[i].pos, w->table_bytes);
	}
	return w->tables > 0;
}

/* --- the walk --- */

/* The next grains that lie one behind the other. 1, 0 at the end of the walk, -errno. */
static int walk_next(struct tree *t, struct tree_span *span, struct err *e)
{
	struct guest_order *w = t->guest;

	for (;; w->t++, w->scanning = false) {
		int r = 1;

		if (w->t == w->tables) {
			r = load_window(t, e);
			if (r <= 0)
				return r;
		}
		if (w->t == w->read)
			r = read_tables(t, e);
		if (r < 0)
			return r;
		if (w->table[w->t].empty)
			continue;
		if (!w->scanning)
			r = tree_scan_begin(t, &w->scan, w->table[w->t].index, table_at(w, w->t),
					    t->src->size, e);
		w->scanning = true;
		if (r >= 0)
			r = tree_scan_next(t, &w->scan, span, e);
		if (r < 0)
			return r;
		if (!r)
			continue;
		if (counting(t))
			tree_count(t, &w->scan, span);
		if (span->pos == TREE_ZEROS)
			return 1;
		r = claim(t, span->pos, span->pos + (t->shape.compressed ? SECTOR : span->len), "grain",
			  span->off / t->shape.grain, e);
		return r < 0 ? r : 1;
	}
}

static void keep(struct tree *t, const struct tree_span *span)
{
	struct guest_order *w = t->guest;

	if (!w->kept_whole)
		return;
	if (w->kept_n == w->kept_room) {
		size_t room = w->kept_room ? w->kept_room * 2 : KEPT_LEAST;
		struct tree_span *more = room > reader_part(&t->reader, KEPT_MAX, KEPT_LEAST)
						 ? NULL
						 : realloc(w->kept, room * sizeof(*more));

		if (!more) {
			free(w->kept);
			w->kept = NULL;
			w->kept_whole = false;
			return;
		}
		w->kept = more;
		w->kept_room = room;
	}
	w->kept[w->kept_n++] = *span;
}

/* The first walk is at its end: claims what lies further back in the file, and judges the sums. */
static int end_first(struct tree *t, struct err *e)
{
	struct guest_order *w = t->guest;
	struct tree_span span;
	int r;

	while (w->claim_next != UINT64_MAX) {
		r = begin_part(t, w->claim_next, e);
		if (r < 0)
			return r;
		do
			r = walk_next(t, &span, e);
		while (r > 0);
		if (r < 0)
			return r;
	}
	free(w->claimed);
	w->claimed = NULL;
	r = t->shape.account ? t->shape.account(t, &t->sums, e) : 0;
	if (r < 0)
		return r;
	t->first = false;
	w->replay = w->kept_whole;
	w->kept_at = w->kept_n;
	return 0;
}

static int guest_order_next(struct reader *reader, struct run *run, struct err *e)
{
	struct tree *t = container_of(reader, struct tree, reader);
	struct guest_order *w = t->guest;
	struct tree_span span;
	int r = 0;

	if (w->replay) {
		if (w->kept_at == w->kept_n)
			return 0;
		tree_run(t, &w->kept[w->kept_at++], run);
		return 1;
	}
	if (t->first && !w->claimed)
		r = begin_part(t, 0, e);
	if (!r)
		r = walk_next(t, &span, e);
	if (r > 0)
		tree_run(t, &span, run);
	if (r > 0 && t->first)
		keep(t, &span);
	return r || !t->first ? r : end_first(t, e);
}

static int guest_order_rewind(struct reader *reader, struct err *e)
{
	struct tree *t = container_of(reader, struct tree, reader);
	struct guest_order *w = t->guest;

	(void)e;
	restart(w);
	w->kept_at = 0;
	if (t->first) { /* it did not reach its end: it does not count */
		w->parts = 0;
		tree_reset_sums(t);
		free(w->claimed);
		w->claimed = NULL;
		w->kept_n = 0;
	}
	return 0;
}

static int guest_order_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct tree *t = container_of(reader, struct tree, reader);

	return inflater_run(t->inflater, run, buf, e);
}

static void walk_free(struct guest_order *w)
{
	free(w->dir);
	free(w->mirror_dir);
	free(w->buf);
	free(w->mirror_buf);
	free(w->claimed);
	free(w->kept);
	free(w);
}

static void guest_order_free(struct reader *reader)
{
	struct tree *t = container_of(reader, struct tree, reader);

	walk_free(t->guest);
	tree_free(t);
}

static const struct reader_ops guest_order_ops = {
	.next = guest_order_next,
	.rewind = guest_order_rewind,
	.fetch = guest_order_fetch,
	.free = guest_order_free,
};

int guest_order_open(struct tree *t, struct source *src, const struct tree_shape *shape, struct err *e)
{
	const size_t dir_bytes = (size_t)DIR_CHUNK * shape->width;
	struct guest_order *w;
	int r = tree_init(t, src, shape, &guest_order_ops, e);

	if (r < 0)
		return r;
	w = calloc(1, sizeof(*w));
	if (!w)
		return fail(e, ENOMEM, "out of memory");
	w->table_bytes = tree_table_bytes(t);
	w->dir = malloc(dir_bytes);
	w->room = (unsigned)max_u64(min_u64(READ_AT_ONCE / w->table_bytes, WINDOW), 1);
	w->buf = malloc(w->room * w->table_bytes);
	if (shape->mirror) {
		w->mirror_dir = malloc(dir_bytes);
		w->mirror_buf = malloc(w->table_bytes);
	}
	if (!w->dir || !w->buf || (shape->mirror && (!w->mirror_dir || !w->mirror_buf))) {
		walk_free(w);
		return fail(e, ENOMEM, "out of memory");
	}
	w->kept_whole = true;
	t->guest = w;
	return 0;
}
