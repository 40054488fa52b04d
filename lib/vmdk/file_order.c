/* SPDX-License-Identifier: MIT */
#include "vmdk/file_order.h"
#include "base/bitmap.h"
#include "vmdk/deflate.h"
#include "vmdk/guest_order.h"
#include "vmdk/pending.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_USUAL (64u << 20)
#define DIR_CHUNK 8192u /* directory entries read at a time */
#define REST_MAX (UINT64_C(128) << 30) /* bytes of file that the bitmap of the rest covers */
#define TAIL_USUAL (16u << 20) /* ESX(i) makes its files grow in such steps */

struct table {
	uint64_t pos;
	uint64_t index : 63, copy : 1; /* copy: of the redundant directory, to be compared only */
};

struct claims { /* which sectors of file bytes [from, to) are named */
	uint64_t from, to, *map;
};

struct file_order {
	struct pending pending;
	uint64_t memory;     /* in use beside that, */
	uint64_t memory_max; /* and how much both may take */
	struct table *table; /* ascending in the file */
	size_t tables, table_room, at;
	uint64_t end; /* of the furthest table or grain named */
	struct claims rest; /* once everything from there on is spooled */
	/* the window in work */
	uint64_t window, window_size;
	uint64_t have; /* bytes received, in all */
	enum {
		WINDOW_EXPECTED, /* its bytes are not received yet */
		WINDOW_TABLES,   /* they are; its tables are being read */
		WINDOW_GRAINS,   /* its grains are being given */
		WINDOW_FENCED,   /* and have been copied */
		WINDOW_LAST,     /* there are no more */
	} state;
	enum {
		VERDICT_FIRST, /* judge() has not been asked: nothing is given before */
		VERDICT_LATER, /* the same, but grains came first, and are given */
		VERDICT_GIVEN,
	} verdict;
	bool cut;  /* something named in the window ends behind the end of the file */
	bool lost; /* the same of something spooled */
	struct claims claims;
	struct pending_window *open;
	uint32_t open_at;
	/* the last table */
	size_t table_bytes;
	uint8_t *buf;
	struct tree_span *ready; /* of it, zeros and what is spooled; while nothing is given, of all */
	size_t readies, ready_at, ready_room;
	uint64_t tables_hash[2]; /* over all tables, and over their redundant copies */
};

/* --- claims ---------------------------------------------------------------------------------------- */

/* Bytes of the file that neighbouring grains, or the record of one, are known to take. */
static uint64_t claim_len(const struct tree *t, uint64_t len)
{
	return t->shape.compressed ? SECTOR : len;
}

/* Marks what of file bytes [from, to) the map covers. false: some of that is marked already. */
static bool claim_bytes(struct claims *c, uint64_t from, uint64_t to)
{
	from = max_u64(from, c->from);
	to = min_u64(to, c->to);
	return from >= to ||
	       bitmap_set(c->map, (from - c->from) / SECTOR, div_up(to - c->from, SECTOR));
}

/* Areas, and tables [first, last). */
static int claim_tables(struct tree *t, struct claims *c, size_t first, size_t last, struct err *e)
{
	const struct file_order *q = t->file;

	for (size_t i = 0; i < t->shape.areas; i++)
		claim_bytes(c, t->shape.area[i].at, t->shape.area[i].end);
	for (size_t i = first; i < last; i++) {
		const struct table *table = &q->table[i];
		const uint64_t to = table->pos + q->table_bytes;

		if (!claim_bytes(c, table->pos, to))
			return tree_overlap(t, tree_table_text(table->copy), table->index, table->pos,
					    to, e);
	}
	return 0;
}

static int claim_grains(struct tree *t, struct claims *c, const struct pending_window *w, struct err *e)
{
	for (uint32_t i = 0; w && i < w->grains; i++) {
		const struct pending_grain *p = &w->grain[i];
		const uint64_t pos = w->number * t->file->window_size + p->at;
		const uint64_t to = pos + claim_len(t, p->len);

		if (!claim_bytes(c, pos, to))
			return tree_overlap(t, "grain", p->off / t->shape.grain, pos, to, e);
	}
	return 0;
}

/* Everything that is named in the window, and nothing twice. */
static int claim_window(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	size_t first = q->at;
	int r;

	q->claims.from = q->window * q->window_size;
	q->claims.to = q->claims.from + q->window_size;
	memset(q->claims.map, 0, div_up(q->window_size / SECTOR, 64) * sizeof(*q->claims.map));
	while (first > 0 && q->table[first - 1].pos + q->table_bytes > q->claims.from)
		first--;
	r = claim_tables(t, &q->claims, first, q->at, e);
	return r < 0 ? r : claim_grains(t, &q->claims, q->open, e);
}

/* --- the spool ------------------------------------------------------------------------------------- */

/* What is pending takes more memory than it may: the rest becomes a file, in which nothing has to be
 * pending that is not yet. */
static int spool_rest(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	int r = source_spool_rest(t->src, SPOOL_MEMORY, e);

	if (r < 0)
		return r;
	q->have = t->src->size;
	q->rest.from = q->window * q->window_size;
	q->rest.to = min_u64(max_u64(q->have, q->rest.from), q->rest.from + REST_MAX);
	q->rest.map = bitmap_new((q->rest.to - q->rest.from) / SECTOR + 1);
	if (!q->rest.map)
		return fail(e, ENOMEM, "out of memory");
	r = claim_tables(t, &q->rest, 0, q->tables, e);
	for (size_t i = 0; !r && i < PENDING_LISTS; i++)
		for (const struct pending_window *w = q->pending.hash[i]; !r && w; w = w->next)
			r = claim_grains(t, &q->rest, w, e);
	return r;
}

/* The window goes while tables are still to come: what no table has named is kept. */
static int spool_unnamed(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t low = q->window * q->window_size, sectors = q->window_size / SECTOR;
	const uint64_t floor = (max_u64(t->shape.floor, low) - low) / SECTOR;
	uint64_t *named = q->claims.map, from;
	int r = 0;

	bitmap_set(named, 0, min_u64(floor, sectors));
	from = bitmap_find(named, 0, sectors, false);
	if (from == sectors)
		return 0;
	q->claims.map = bitmap_new(sectors);
	if (!q->claims.map || !pending_spooled(&q->pending, q->window, named)) {
		free(named);
		return fail(e, ENOMEM, "out of memory");
	}
	while (!r && from < sectors) {
		const uint64_t to = bitmap_find(named, from, sectors, true);

		r = source_spool(t->src, low + from * SECTOR, (to - from) * SECTOR,
				 SPOOL_TABLES, e);
		from = bitmap_find(named, to, sectors, false);
	}
	return r;
}

/* --- accounts -------------------------------------------------------------------------------------- */

/* Summed up over tables it tells whether two sets of them are equal, in whatever order they come. */
static uint64_t table_hash(uint64_t index, const uint8_t *p, size_t n)
{
	uint64_t h = index + 1;

	for (size_t i = 0; i < n; i += 8) {
		h = (h ^ le64(p + i)) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	h = (h ^ h >> 32) * UINT64_C(0xbf58476d1ce4e5b9);
	return h ^ h >> 29;
}

/* Where the bytes of [from, to), which are there, become zeros. */
static int find_data_end(struct tree *t, uint64_t from, uint64_t to, struct err *e)
{
	uint8_t buf[4096];

	while (to > from) {
		size_t n = (size_t)min_u64(sizeof(buf), to - from);
		int r = source_read(t->src, to - n, buf, n, "window", e);

		if (r < 0)
			return r;
		if (all_zero(buf, n)) {
			to -= n;
			continue;
		}
		while (!buf[--n])
			to--;
		t->sums.data_end = to;
		return 0;
	}
	return 0;
}

/* All tables are received, and what else there is to know. */
static int judge(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;

	q->verdict = VERDICT_GIVEN;
	if (q->tables_hash[0] != q->tables_hash[1] && t->shape.mirror)
		return fail(e, EBADMSG,
			    "%s: the grain tables and their redundant copies differ: it is damaged" HINT "; copy "
			    "it again, or try --dry-run with --force=gd (reads the first) or --force=rgd "
			    "(the redundant ones)",
			    t->reader.name);
	return t->shape.judge ? t->shape.judge(t, &t->sums, e) : 0;
}

/* --- tables ---------------------------------------------------------------------------------------- */

/* Neighbours in the guest and in the spool become one. */
static void add_ready(struct tree *t, uint64_t off, uint64_t len, uint64_t pos)
{
	struct file_order *q = t->file;
	struct tree_span *last = q->readies ? &q->ready[q->readies - 1] : NULL;

	if (last && last->off + last->len == off &&
	    (pos == TREE_ZEROS ? last->pos == TREE_ZEROS
			       : !t->shape.compressed && last->pos != TREE_ZEROS &&
					 last->pos + last->len == pos))
		last->len += len;
	else
		q->ready[q->readies++] = (struct tree_span){off, len, pos};
}

/* A grain, or a part of it, that is spooled, but its end may be missing. */
static int place_spooled(struct tree *t, uint64_t off, uint64_t len, uint64_t pos, struct err *e)
{
	struct file_order *q = t->file;
	uint64_t here = len;
	int r = 1;

	if (t->shape.compressed)
		r = deflate_arrived(t->src, pos, off, t->shape.grain, e);
	else if (pos >= q->rest.from)
		here = pos < q->have ? min_u64(len, (q->have - pos) / SECTOR * SECTOR) : 0;
	if (r < 0)
		return r;
	if (r && here)
		add_ready(t, off, here, pos);
	q->lost |= !r || here < len;
	return 0;
}

/* Data that a table has named: to come, or gone by. */
static int place(struct tree *t, const struct tree_span *span, struct err *e)
{
	struct file_order *q = t->file;
	uint64_t off = span->off, pos = span->pos, len = span->len, n;
	int r = 0;

	q->end = max_u64(q->end, pos + claim_len(t, len));
	for (; !r && len; off += n, pos += n, len -= n) {
		const uint64_t window = pos / q->window_size;
		uint64_t to;

		n = t->shape.compressed ? len : min_u64(len, (window + 1) * q->window_size - pos);
		to = pos + claim_len(t, n);
		if (pos < q->rest.from && window >= q->window) {
			if (!pending_add(&q->pending, off, pos, n))
				r = fail(e, ENOMEM, "out of memory");
			continue;
		}
		if (pos >= q->rest.from ? !claim_bytes(&q->rest, pos, to)
				       : !pending_name(&q->pending, pos, to - pos))
			return tree_overlap(t, "grain", off / t->shape.grain, pos, to, e);
		r = place_spooled(t, off, n, pos, e);
	}
	return r;
}

/* In ready[] for n more. */
static int make_room(struct tree *t, size_t n, struct err *e)
{
	struct file_order *q = t->file;
	struct tree_span *more;
	size_t room;

	if (q->ready_room - q->readies >= n)
		return 0;
	room = q->ready_room * 2;
	more = realloc(q->ready, room * sizeof(*more));
	if (!more)
		return fail(e, ENOMEM, "out of memory");
	q->memory += (room - q->ready_room) * sizeof(*more);
	q->ready = more;
	q->ready_room = room;
	return 0;
}

/* Guest bytes [from, to) that no table names: zeros, where that is asked for. */
static void add_gap(struct tree *t, uint64_t from, uint64_t to)
{
	if (t->shape.opts.fill && from < to)
		add_ready(t, from, to - from, TREE_ZEROS);
}

/* Everything a table names. */
static int take_grains(struct tree *t, uint64_t index, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t bytes = t->shape.entries * t->shape.grain;
	uint64_t at = index * bytes;
	struct tree_scan scan;
	struct tree_span span;
	int r = tree_scan_begin(t, &scan, index, q->buf, source_limit(t->src), e);

	if (q->verdict != VERDICT_FIRST)
		q->readies = q->ready_at = 0;
	if (!r)
		r = make_room(t, t->shape.entries, e);
	while (!r && (r = tree_scan_next(t, &scan, &span, e)) > 0) {
		tree_count(t, &scan, &span);
		r = 0;
		add_gap(t, at, span.off);
		at = span.off + span.len;
		if (span.pos == TREE_ZEROS)
			add_ready(t, span.off, span.len, TREE_ZEROS);
		else
			r = place(t, &span, e);
	}
	if (!r)
		add_gap(t, at, min_u64((index + 1) * bytes, t->shape.size));
	return r;
}

static int take_table(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const struct table *table = &q->table[q->at];
	char what[64];
	int r = 0;

	if (t->src->streaming)
		r = source_ahead(t->src, table->pos + q->table_bytes, &q->have, e);
	if (r < 0)
		return r;
	if (table->pos + q->table_bytes > q->have) {
		q->cut = true;
		return 0;
	}
	snprintf(what, sizeof(what), "%s %" PRIu64, tree_table_text(table->copy),
		 (uint64_t)table->index);
	r = source_read(t->src, table->pos, q->buf, q->table_bytes, what, e);
	if (!r && t->shape.mirror)
		q->tables_hash[table->copy] += table_hash(table->index, q->buf, q->table_bytes);
	if (!r && !table->copy)
		r = take_grains(t, table->index, e);
	q->at++;
	return r;
}

/* --- windows --------------------------------------------------------------------------------------- */

/* Drops what will never be received whole. */
static int trim(struct tree *t, uint64_t low, struct err *e)
{
	struct file_order *q = t->file;
	struct pending_window *w = q->open;
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->grains; i++) {
		struct pending_grain p = w->grain[i];

		if (t->shape.compressed) {
			int r = deflate_arrived(t->src, low + p.at, p.off, t->shape.grain, e);

			if (r < 0)
				return r;
			if (!r)
				p.len = 0;
		} else if (low + p.at + p.len > q->have) {
			p.len = low + p.at < q->have ? (uint32_t)(q->have - low - p.at) : 0;
			p.len -= p.len % SECTOR;
		}
		q->cut |= p.len != w->grain[i].len;
		if (p.len)
			w->grain[n++] = p;
	}
	q->pending.grains -= w->grains - n;
	w->grains = n;
	return 0;
}

/* All tables of the window are read: its grains can be given. */
static int open_window(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t low = q->window * q->window_size, end = low + q->window_size;
	const uint64_t have = min_u64(q->have, end);
	struct pending_window *w = pending_window(&q->pending, q->window);
	int r;

	q->state = WINDOW_GRAINS;
	q->open = w && w->grains ? w : NULL;
	q->open_at = 0;
	r = claim_window(t, e);
	if (!r && t->shape.received && have > low)
		r = find_data_end(t, low, have, e);
	if (!r && t->shape.received && have > low)
		r = t->shape.received(t, low, have, e);
	if (!r && q->verdict != VERDICT_GIVEN && q->at == q->tables &&
	    have >= max_u64(t->shape.floor, t->shape.least))
		r = judge(t, e);
	if (r < 0 || !q->open)
		return r;
	if (q->verdict == VERDICT_FIRST) /* its bytes will not be there for long */
		q->verdict = VERDICT_LATER;
	if (t->shape.compressed || have < end)
		r = trim(t, low, e);
	if (!r)
		pending_sort(w);
	return r;
}

/* All that was named is received. 1 or -errno. */
static int finish(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t used = max_u64(q->end, t->shape.promised);
	/* of a compressed grain only its first sector is known to be in use */
	const uint64_t usual = TAIL_USUAL + (t->shape.compressed ? 2 * t->shape.grain : 0);
	uint64_t size;
	int r;

	q->state = WINDOW_LAST;
	r = source_finish(t->src, &size, e);
	if (r < 0)
		return r;
	if (size < t->shape.least)
		return source_short(t->src, "its header, directory or tables", t->shape.least, e);
	if (q->lost)
		return source_short(t->src, "its grains", used, e);
	if (size < t->shape.promised)
		return source_short(t->src, "what its header calls used", t->shape.promised, e);
	if (q->verdict != VERDICT_GIVEN)
		r = judge(t, e);
	if (!r && size > used && size - used > usual)
		r = warning(e,
			    "%s: %" PRIu64 " bytes follow the last grain; they are ignored",
			    t->reader.name, size - used);
	if (!r && t->shape.account)
		r = t->shape.account(t, &t->sums, e);
	return r < 0 ? r : 1;
}

/* The window in work is done with. 1 or -errno. */
static int next_window(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t end = (q->window + 1) * q->window_size;
	const bool ended = q->have < end;
	int r;

	if (q->open)
		pending_received(&q->pending, q->open);
	q->open = NULL;
	if (q->at == q->tables && !q->pending.grains && !q->cut && (ended || !t->shape.received))
		return finish(t, e);
	if (q->cut || ended)
		return source_short(t->src, q->at < q->tables ? "its grain tables" : "its grains",
				    max_u64(q->end, t->shape.promised), e);
	if (t->src->streaming && q->at < q->tables) {
		r = spool_unnamed(t, e);
		if (r < 0)
			return r;
	}
	pending_drop(&q->pending, q->window);
	if (t->src->streaming)
		source_release(t->src, end);
	q->window++;
	q->state = WINDOW_EXPECTED;
	return 1;
}

/* One step on the way to something to give. 1, 0 at the end, -errno. */
static int step(struct tree *t, struct err *e)
{
	struct file_order *q = t->file;
	const uint64_t end = (q->window + 1) * q->window_size;
	int r = 0;

	if (q->state == WINDOW_LAST)
		return 0;
	if (q->state == WINDOW_FENCED)
		return next_window(t, e);
	if (q->memory + q->pending.memory > q->memory_max && t->src->streaming)
		r = spool_rest(t, e);
	else if (q->state == WINDOW_EXPECTED) {
		q->state = WINDOW_TABLES;
		if (t->src->streaming)
			r = source_ahead(t->src, end, &q->have, e);
	} else if (!q->cut && q->at < q->tables && q->table[q->at].pos < end)
		r = take_table(t, e);
	else
		r = open_window(t, e);
	return r < 0 ? r : 1;
}

/* --- the reader ------------------------------------------------------------------------------------ */

/* The next neighbours in the guest that the window holds, wherever in it they lie. */
static void give(struct tree *t, struct run *run)
{
	struct file_order *q = t->file;
	const uint64_t low = q->window * q->window_size;
	const uint32_t first = q->open_at++;
	const struct pending_grain *p = &q->open->grain[first];

	tree_run(t, &(struct tree_span){p->off, p->len, low + p->at}, run);
	if (low >= q->rest.from || t->shape.compressed)
		return;
	run->kind = RUN_COMPRESSED;
	run->src = NULL;
	run->leaf = &t->reader;
	run->skip = p->off;
	run->pos = first;
	while (q->open_at < q->open->grains && (++p)->off == run->off + run->len) {
		run->len += p->len;
		q->open_at++;
	}
}

static int file_order_next(struct reader *reader, struct run *run, struct err *e)
{
	struct tree *t = container_of(reader, struct tree, reader);
	struct file_order *q = t->file;

	for (;;) {
		int r;

		if (q->ready_at < q->readies && q->verdict != VERDICT_FIRST) {
			tree_run(t, &q->ready[q->ready_at++], run);
			return 1;
		}
		if (q->open && q->open_at < q->open->grains) {
			give(t, run);
			return 1;
		}
		if (q->state == WINDOW_GRAINS) {
			q->state = WINDOW_FENCED;
			*run = (struct run){.kind = RUN_FENCE};
			return 1;
		}
		r = step(t, e);
		if (r <= 0)
			return r;
	}
}

static int file_order_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct tree *t = container_of(reader, struct tree, reader);
	const struct pending_window *w = t->file->open;
	const uint64_t low = t->file->window * t->file->window_size, end = run->skip + run->len;
	uint8_t *to = buf;

	if (t->shape.compressed)
		return inflater_run(t->inflater, run, buf, e);
	/* run->pos is the first grain of the run, of which the front may be gone */
	for (uint64_t off = run->skip, i = run->pos; off < end; i++) {
		const struct pending_grain *p = w && i < w->grains ? &w->grain[i] : NULL;
		size_t n, here;

		if (!p || p->off > off)
			return fail(e, EBADMSG, "%s: the bytes of the run at %" PRIu64 " have passed",
				    reader->name, run->off);
		if (off - p->off >= p->len)
			continue;
		n = (size_t)min_u64(end - off, p->len - (off - p->off));
		memcpy(to, source_at(t->src, low + p->at + (off - p->off), &here), n);
		to += n;
		off += n;
	}
	return 0;
}

static void order_free(struct tree *t)
{
	struct file_order *q = t->file;

	pending_free(&q->pending);
	free(q->table);
	free(q->claims.map);
	free(q->rest.map);
	free(q->buf);
	free(q->ready);
	free(q);
	t->file = NULL;
}

static void file_order_free(struct reader *reader)
{
	struct tree *t = container_of(reader, struct tree, reader);

	order_free(t);
	tree_free(t);
}

static const struct reader_ops file_order_ops = {
	.next = file_order_next,
	.fetch = file_order_fetch,
	.free = file_order_free,
};

/* --- the directory --------------------------------------------------------------------------------- */

static int add_table(struct tree *t, uint64_t index, bool copy, uint64_t pos, struct err *e)
{
	struct file_order *q = t->file;

	if (q->tables == q->table_room) {
		const size_t room = q->table_room ? q->table_room * 2 : 256;
		struct table *more = realloc(q->table, room * sizeof(*more));

		if (!more)
			return fail(e, ENOMEM, "out of memory");
		q->memory += (room - q->table_room) * sizeof(*more);
		q->table = more;
		q->table_room = room;
	}
	q->table[q->tables++] = (struct table){pos, index, copy};
	q->end = max_u64(q->end, pos + q->table_bytes);
	return 0;
}

/* Entry i of the directory is 0. */
static int add_missing(struct tree *t, uint64_t i, struct err *e)
{
	const uint64_t bytes = t->shape.entries * t->shape.grain;
	int r = t->shape.opts.fill ? make_room(t, 1, e) : 0;

	if (!r)
		add_gap(t, i * bytes, min_u64((i + 1) * bytes, t->shape.size));
	return r;
}

/* 1, 0 when it is too large for the windows or the memory, -errno. buf has room for two chunks. */
static int read_dir(struct tree *t, uint8_t *buf, struct err *e)
{
	const struct tree_shape *s = &t->shape;
	struct file_order *q = t->file;
	uint8_t *copy = buf + (size_t)DIR_CHUNK * s->width;

	for (uint64_t i = 0; i < s->tables; i += DIR_CHUNK) {
		uint64_t n = min_u64(DIR_CHUNK, s->tables - i);
		int r = source_read(t->src, s->dir + i * s->width, buf, n * s->width,
				    "grain directory", e);

		if (!r && s->mirror)
			r = source_read(t->src, s->mirror + i * s->width, copy, n * s->width,
					"redundant grain directory", e);
		for (uint64_t k = 0; !r && k < n; k++) {
			uint64_t pos, mirror;
			int used = tree_tables(t, i + k, tree_entry(t, buf + k * s->width),
					       s->mirror ? tree_entry(t, copy + k * s->width) : 0,
					       source_limit(t->src), true, &pos,
					       s->mirror ? &mirror : NULL, e);

			r = used > 0 ? add_table(t, i + k, false, pos, e)
			    : used < 0 ? used : add_missing(t, i + k, e);
			if (!r && used && s->mirror)
				r = add_table(t, i + k, true, mirror, e);
		}
		if (r < 0)
			return r;
		if (!t->src->streaming)
			return 0;
		if (q->memory > q->memory_max)
			return source_spool_all(t->src, SPOOL_MEMORY, e);
	}
	return 1;
}

/* Tables in their order, apart from each other and from areas. */
static int sort_tables(struct tree *t, struct err *e)
{
	const struct file_order *q = t->file;

	if (q->tables)
		qsort(q->table, q->tables, sizeof(*q->table), by_first_u64);
	for (size_t i = 0; i < q->tables; i++) {
		const struct table *table = &q->table[i];
		bool apart = !i || table[-1].pos + q->table_bytes <= table->pos;

		for (size_t k = 0; k < t->shape.areas; k++)
			apart &= table->pos >= t->shape.area[k].end ||
				 table->pos + q->table_bytes <= t->shape.area[k].at;
		if (!apart)
			return tree_overlap(t, tree_table_text(table->copy), table->index, table->pos,
					    table->pos + q->table_bytes, e);
	}
	return 0;
}

static int file_order_open(struct tree *t, struct source *src, const struct tree_shape *s, struct err *e)
{
	struct file_order *q;
	uint8_t *dir;
	int r = tree_init(t, src, s, &file_order_ops, e);

	/* no table lies in more than two windows */
	if (!r && source_window(src) < tree_table_bytes(t))
		r = fail(e, EFBIG,
			 "%s: a grain table of %zu bytes is larger than a window of %zu bytes; read it "
			 "from a file",
			 src->name, tree_table_bytes(t), source_window(src));
	if (r < 0)
		return r;
	t->file = q = calloc(1, sizeof(*q));
	if (!q)
		return fail(e, ENOMEM, "out of memory");
	q->table_bytes = tree_table_bytes(t);
	q->window_size = source_window(src);
	q->memory_max = s->opts.remember ? s->opts.remember : MEMORY_USUAL;
	q->rest.from = UINT64_MAX;
	q->verdict = s->judge || s->mirror ? VERDICT_FIRST : VERDICT_LATER;
	for (size_t i = 0; i < s->areas; i++)
		q->end = max_u64(q->end, s->area[i].end);
	q->ready_room = s->entries;
	q->ready = malloc(q->ready_room * sizeof(*q->ready));
	q->buf = malloc(q->table_bytes);
	q->claims.map = bitmap_new(q->window_size / SECTOR);
	dir = malloc((size_t)DIR_CHUNK * s->width * 2);
	t->reader.streaming = &t->reader;
	t->reader.threads = s->compressed;
	if (pending_init(&q->pending, q->window_size) && q->buf && q->ready && q->claims.map && dir)
		r = read_dir(t, dir, e);
	else
		r = fail(e, ENOMEM, "out of memory");
	free(dir);
	if (r > 0) {
		r = sort_tables(t, e);
		if (!r)
			return 0;
	}
	order_free(t);
	return r < 0 ? r : guest_order_open(t, src, s, e);
}

int tree_open(struct reader **out, struct tree *t, struct source *src, const struct tree_shape *s, struct err *e)
{
	int r = s->compressed ? inflater_new(&t->inflater, src, s->size, s->grain, e) : 0;

	if (!r)
		r = src->streaming ? file_order_open(t, src, s, e) : guest_order_open(t, src, s, e);
	if (r < 0) {
		inflater_free(t->inflater);
		free(t);
		return r;
	}
	*out = &t->reader;
	return 0;
}
