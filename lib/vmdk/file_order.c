/*
 * Room 2: the file-order half of tree, see tree.h. Knows what is awaited, and where in the file.
 *
 * The directory names all tables, so these are known from the start, in file order. Grains are kept
 * by the window of the file they will come in: when it is there, its tables are read, which may add
 * grains to it and to later ones; then its grains are given in guest order. While tables are still
 * to come, sectors that nobody has named yet go to the spool, and are marked as left over: a later
 * table may name them, once.
 *
 * Where the leaf judges its metadata, or has two copies of it, nothing is given before all of that has
 * come, if it comes before the grains. What is named lies apart, so it need only be added up to know how
 * many bytes belong to nothing.
 */
#include "vmdk/tree.h"
#include "vmdk/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define REMEMBER (64u << 20)
#define DIR_CHUNK 8192u /* directory entries read at a time */
#define HASHES 64u      /* to begin with */
#define REST_MAX (UINT64_C(128) << 30) /* bytes of file that the bitmap of the rest covers */
#define TAIL_USUAL (16u << 20) /* ESX(i) makes its files grow in such steps */

struct piece { /* of the file, in one window */
	uint64_t off;     /* guest */
	uint32_t at, len; /* in the window; where grains are packed, that of the record, and the guest's
			   * bytes */
};

struct awaited { /* in one window, or left over from it */
	struct awaited *next;
	uint64_t window;
	struct piece *piece;
	uint32_t pieces, room;
	uint64_t *left; /* bitmap of sectors in the spool that nobody has named; NULL: none */
};

struct table {
	uint64_t pos;
	uint64_t index : 63, copy : 1; /* copy: of the redundant directory, to be compared only */
};

struct now {
	uint64_t off, len, pos; /* pos UINT64_MAX: zeros; else in the spool */
};

struct file_order {
	uint64_t memory, remember; /* bytes in use for what is awaited, and how many may be */
	struct table *table;       /* ascending in the file */
	size_t tables, table_room, at;
	struct awaited **hash; /* by window */
	uint64_t odd; /* and by chance: no file can be made so that all come to one place */
	size_t hashes, awaits;
	uint64_t pieces; /* awaited in all */
	uint64_t end;    /* of the furthest table or grain named */
	/* everything behind all_from was spooled; bitmap of the sectors from there to rest_to that
	 * somebody has named */
	uint64_t all_from, rest_to, *rest;
	/* the window in work */
	uint64_t window, window_size;
	uint64_t have; /* bytes that have come, in all */
	bool loaded, given, fenced;
	bool cut;  /* something named in it ends behind the end of the file */
	bool lost; /* the same of what was not awaited there */
	bool finished, warned_beyond;
	uint64_t *claimed; /* bitmap of its sectors */
	struct awaited *open;
	uint32_t open_at;
	/* the last table */
	size_t table_bytes;
	uint8_t *buf;
	struct now *now; /* grains of it that need not be awaited; while holding, of all tables */
	size_t nows, now_at, now_room;
	/* accounts */
	struct tree_sums sums;
	uint64_t tables_hash[2]; /* over all tables, and over their redundant copies */
	bool holding;     /* nothing is given before judge() has said so, or grains come first */
	bool judged;
};

/* --- what is awaited ------------------------------------------------------------------------------ */

static struct awaited **slot(struct file_order *q, uint64_t window)
{
	struct awaited **a = &q->hash[window * q->odd >> (64 - __builtin_ctzll(q->hashes))];

	while (*a && (*a)->window != window)
		a = &(*a)->next;
	return a;
}

static bool grow_hash(struct file_order *q)
{
	struct awaited **old = q->hash;
	size_t n = q->hashes;

	q->hash = calloc(n ? n * 2 : HASHES, sizeof(struct awaited *));
	if (!q->hash) {
		q->hash = old;
		return false;
	}
	q->hashes = n ? n * 2 : HASHES;
	q->memory += (q->hashes - n) * sizeof(struct awaited *);
	for (size_t i = 0; i < n; i++) {
		struct awaited *a, *next;

		for (a = old[i]; a; a = next) {
			next = a->next;
			a->next = NULL;
			*slot(q, a->window) = a;
		}
	}
	free(old);
	return true;
}

/* That of the window; NULL when memory is short. */
static struct awaited *await(struct file_order *q, uint64_t window)
{
	struct awaited **a;

	if (q->awaits >= q->hashes * 2 && !grow_hash(q))
		return NULL;
	a = slot(q, window);
	if (!*a) {
		*a = calloc(1, sizeof(**a));
		if (!*a)
			return NULL;
		(*a)->window = window;
		q->awaits++;
		q->memory += sizeof(**a);
	}
	return *a;
}

static void drop_pieces(struct file_order *q, struct awaited *a)
{
	q->pieces -= a->pieces;
	q->memory -= a->room * sizeof(*a->piece);
	free(a->piece);
	a->piece = NULL;
	a->pieces = a->room = 0;
}

static void drop(struct file_order *q, uint64_t window)
{
	struct awaited **at = slot(q, window), *a = *at;

	if (!a || a->left)
		return;
	*at = a->next;
	drop_pieces(q, a);
	q->memory -= sizeof(*a);
	q->awaits--;
	free(a);
}

static int add_piece(struct file_order *q, uint64_t off, uint64_t pos, uint64_t len, struct err *e)
{
	struct awaited *a = await(q, pos / q->window_size);

	if (a && a->pieces == a->room) {
		uint32_t room = a->room ? a->room * 2 : 4;
		struct piece *more = realloc(a->piece, room * sizeof(*more));

		if (!more) {
			a = NULL;
		} else {
			q->memory += (room - a->room) * sizeof(*more);
			a->piece = more;
			a->room = room;
		}
	}
	if (!a)
		return fail(e, ENOMEM, "out of memory");
	a->piece[a->pieces++] = (struct piece){off, (uint32_t)(pos % q->window_size), (uint32_t)len};
	q->pieces++;
	return 0;
}

/* --- sectors -------------------------------------------------------------------------------------- */

/* Sets or clears the bits of bytes [at, at + len) of a window. false: one of them was so already. */
static bool turn_bits(uint64_t *map, uint64_t at, uint64_t len, bool on)
{
	uint64_t a = at / SECTOR, b = div_up(at + len, SECTOR);

	while (a < b) {
		uint64_t in_word = a % 64, n = min_u64(64 - in_word, b - a);
		uint64_t mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << in_word;

		if (on ? map[a / 64] & mask : ~map[a / 64] & mask)
			return false;
		map[a / 64] ^= mask;
		a += n;
	}
	return true;
}

static int overlap(const struct tree *g, const char *what, uint64_t n, uint64_t pos, struct err *e)
{
	return fail(e, EBADMSG,
		    "%s: %s %" PRIu64 " at file sector %" PRIu64
		    " lies on sectors of another table or grain",
		    g->reader.name, what, n, pos / SECTOR);
}

static const char *table_text(const struct table *t)
{
	return t->copy ? "redundant grain table" : "grain table";
}

/* Marks what of file bytes [from, to) lies in the window. */
static bool claim(struct file_order *q, uint64_t from, uint64_t to)
{
	const uint64_t low = q->window * q->window_size;

	from = max_u64(from, low);
	to = min_u64(to, low + q->window_size);
	return from >= to || turn_bits(q->claimed, from - low, to - from, true);
}

/* Everything that is named in the window, and nothing twice. */
static int claim_all(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t low = q->window * q->window_size;

	memset(q->claimed, 0, q->window_size / SECTOR / 8);
	for (size_t i = 0; i < g->shape.areas; i++)
		if (!claim(q, g->shape.area[i].at, g->shape.area[i].end))
			return overlap(g, g->shape.area[i].what, 0, g->shape.area[i].at, e);
	for (size_t i = q->at; i > 0 && q->table[i - 1].pos + q->table_bytes > low; i--)
		if (!claim(q, q->table[i - 1].pos, q->table[i - 1].pos + q->table_bytes))
			return overlap(g, table_text(&q->table[i - 1]), q->table[i - 1].index,
				       q->table[i - 1].pos, e);
	for (uint32_t i = 0; q->open && i < q->open->pieces; i++) {
		const struct piece *p = &q->open->piece[i];

		if (!turn_bits(q->claimed, p->at, g->shape.compressed ? SECTOR : p->len, true))
			return overlap(g, "grain", p->off / g->shape.grain, low + p->at, e);
	}
	return 0;
}

/* Marks what of [from, to) lies where everything was spooled. */
static bool claim_rest(struct file_order *q, uint64_t from, uint64_t to)
{
	from = max_u64(from, q->all_from);
	to = min_u64(to, q->rest_to);
	return from >= to || turn_bits(q->rest, from - q->all_from, to - from, true);
}

/* What is awaited takes more memory than it may: the rest becomes a file, in which nothing has to be
 * awaited that is not yet. */
static int spool_rest(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	int r;

	r = source_spool_rest(g->src, e);
	if (r < 0)
		return r;
	q->have = g->src->size;
	q->all_from = q->window * q->window_size;
	q->rest_to = min_u64(max_u64(q->have, q->all_from), q->all_from + REST_MAX);
	/* calloc of this size is fresh mappings: only what is marked costs memory */
	q->rest = calloc((size_t)div_up(q->rest_to - q->all_from, 64 * SECTOR) + 1, sizeof(*q->rest));
	if (!q->rest)
		return fail(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < g->shape.areas; i++)
		claim_rest(q, g->shape.area[i].at, g->shape.area[i].end);
	for (size_t i = 0; i < q->tables; i++)
		if (!claim_rest(q, q->table[i].pos, q->table[i].pos + q->table_bytes))
			return overlap(g, table_text(&q->table[i]), q->table[i].index,
				       q->table[i].pos, e);
	for (size_t i = 0; i < q->hashes; i++)
		for (const struct awaited *a = q->hash[i]; a; a = a->next)
			for (uint32_t k = 0; k < a->pieces; k++) {
				const struct piece *p = &a->piece[k];
				uint64_t pos = a->window * q->window_size + p->at;

				if (!claim_rest(q, pos, pos + (g->shape.compressed ? SECTOR : p->len)))
					return overlap(g, "grain", p->off / g->shape.grain, pos, e);
			}
	return 0;
}

/* The window passes while tables are still to come: what nobody has named is kept. */
static int keep_left(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t low = q->window * q->window_size, sectors = q->window_size / SECTOR;
	const size_t bytes = q->window_size / SECTOR / 8;
	uint64_t from = max_u64(g->shape.floor, low), i, end;
	struct awaited *a;
	int r = 0;

	from = min_u64((from - low) / SECTOR, sectors);
	for (i = 0; i < from; i++)
		q->claimed[i / 64] |= UINT64_C(1) << i % 64;
	for (i = 0; i < bytes / 8 && q->claimed[i] == UINT64_MAX; i++)
		;
	if (i == bytes / 8)
		return 0;
	a = await(q, q->window);
	if (!a)
		return fail(e, ENOMEM, "out of memory");
	a->left = q->claimed;
	q->memory += bytes;
	for (i = 0; i < bytes / 8; i++)
		a->left[i] = ~a->left[i];
	for (i = 0; !r && i < sectors; i = end) {
		bool in = a->left[i / 64] >> i % 64 & 1;

		for (end = i + 1; end < sectors && (a->left[end / 64] >> end % 64 & 1) == in; end++)
			;
		if (in)
			r = source_spool(g->src, low + i * SECTOR, (end - i) * SECTOR, e);
	}
	q->claimed = calloc(1, bytes);
	return !r && !q->claimed ? fail(e, ENOMEM, "out of memory") : r;
}

/* --- accounts ------------------------------------------------------------------------------------- */

/* A table, an area, or grains that take file bytes [from, to). */
static void count_place(struct tree *g, uint64_t from, uint64_t to)
{
	struct tree_sums *s = &g->file->sums;

	s->end = max_u64(s->end, div_up(to, SECTOR) * SECTOR);
	from = max_u64(from, g->shape.count_from);
	if (from < to)
		s->claimed += div_up(to, SECTOR) - from / SECTOR;
}

/* Neighbouring grains: len bytes of the guest, which lie at pos. */
static void count_data(struct tree *g, uint64_t off, uint64_t len, uint64_t pos)
{
	struct tree_sums *s = &g->file->sums;
	const uint64_t grains = div_up(len, g->shape.grain);

	s->data += grains;
	count_place(g, pos, pos + (g->shape.compressed ? SECTOR : len));
	if (g->shape.compressed)
		s->hash += account_hash(off, pos);
	else
		s->beyond += (grains * g->shape.grain - len) / SECTOR;
}

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
static int find_data_end(struct tree *g, uint64_t from, uint64_t to, struct err *e)
{
	uint8_t buf[4096];

	while (to > from) {
		size_t n = (size_t)min_u64(sizeof(buf), to - from);
		int r = source_read(g->src, to - n, buf, n, "window", e);

		if (r < 0)
			return r;
		if (all_zero(buf, n)) {
			to -= n;
			continue;
		}
		while (!buf[--n])
			to--;
		g->file->sums.data_end = to;
		return 0;
	}
	return 0;
}

/* All tables have come, and what else there is to know. */
static int judge(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;

	q->judged = true;
	if (q->tables_hash[0] != q->tables_hash[1] && g->shape.mirror)
		return fail(e, EBADMSG,
			    "%s: the grain tables and their redundant copies differ: it is damaged; copy "
			    "it again, or try --dry-run with --force=gd (reads the first) or --force=rgd "
			    "(the redundant ones)",
			    g->reader.name);
	return g->shape.judge ? g->shape.judge(g, &q->sums, e) : 0;
}

/* The window is there, and its tables are read: whether anything can be given by now. */
static int settle(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t end = (q->window + 1) * q->window_size;
	const uint64_t head = max_u64(g->shape.head, g->shape.least);
	int r = 0;

	if (!q->judged && q->at == q->tables && min_u64(q->have, end) >= head) {
		r = judge(g, e);
		q->holding = false;
	}
	if (q->open) /* it will not be there for long */
		q->holding = false;
	return r;
}

/* --- tables --------------------------------------------------------------------------------------- */

static void add_now(struct file_order *q, uint64_t off, uint64_t len, uint64_t pos, bool join)
{
	struct now *last = q->nows ? &q->now[q->nows - 1] : NULL;

	if (last && join && last->pos != UINT64_MAX && last->off + last->len == off &&
	    last->pos + last->len == pos)
		last->len += len;
	else
		q->now[q->nows++] = (struct now){off, len, pos};
}

/* A grain, or a part of it, that was spooled, but its end may not have come. */
static int place_now(struct tree *g, uint64_t off, uint64_t len, uint64_t pos, struct err *e)
{
	struct file_order *q = g->file;
	uint64_t here = len;
	int r = 1;

	if (g->shape.compressed)
		r = g->shape.whole(g, pos, off, e);
	else if (pos >= q->all_from)
		here = pos < q->have ? min_u64(len, (q->have - pos) / SECTOR * SECTOR) : 0;
	if (r < 0)
		return r;
	if (r && here)
		add_now(q, off, here, pos, !g->shape.compressed);
	q->lost |= !r || here < len;
	return 0;
}

/* Guest bytes [off, off + len) lie at pos: to come, or gone by. */
static int place(struct tree *g, uint64_t off, uint64_t len, uint64_t pos, struct err *e)
{
	struct file_order *q = g->file;
	const bool packed = g->shape.compressed;
	int r = 0;

	q->end = max_u64(q->end, pos + (packed ? SECTOR : len));
	while (!r && len) {
		uint64_t window = pos / q->window_size;
		uint64_t n = packed ? len : min_u64(len, (window + 1) * q->window_size - pos);

		if (pos >= q->all_from) {
			if (!claim_rest(q, pos, pos + (packed ? SECTOR : n)))
				return overlap(g, "grain", off / g->shape.grain, pos, e);
			r = place_now(g, off, n, pos, e);
		} else if (window < q->window) {
			struct awaited *a = *slot(q, window);

			if (!a || !a->left ||
			    !turn_bits(a->left, pos % q->window_size, packed ? SECTOR : n, false))
				return overlap(g, "grain", off / g->shape.grain, pos, e);
			r = place_now(g, off, n, pos, e);
		} else {
			r = add_piece(q, off, pos, n, e);
		}
		off += n;
		pos += n;
		len -= n;
	}
	return r;
}

static int check_beyond(struct tree *g, uint64_t index, uint32_t used, struct err *e)
{
	struct file_order *q = g->file;
	const size_t at = (size_t)used * g->shape.width;

	if (q->warned_beyond || all_zero(q->buf + at, q->table_bytes - at))
		return 0;
	q->warned_beyond = true;
	return warning(e,
		       "%s: grain table %" PRIu64
		       " has entries for grains beyond the end of the disk; they are ignored",
		       g->reader.name, index);
}

/* For what a table names and need not be awaited. */
static int make_room(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	struct now *more;
	size_t room;

	if (!q->holding)
		q->nows = q->now_at = 0;
	if (q->now_room - q->nows >= g->shape.entries)
		return 0;
	room = q->now_room * 2;
	more = realloc(q->now, room * sizeof(*more));
	if (!more)
		return fail(e, ENOMEM, "out of memory");
	q->memory += (room - q->now_room) * sizeof(*more);
	q->now = more;
	q->now_room = room;
	return 0;
}

/* Everything a table names. */
static int decode_table(struct tree *g, const struct table *t, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t grains = div_up(g->shape.size, g->shape.grain);
	const uint64_t base = t->index * g->shape.entries, limit = source_limit(g->src);
	const uint32_t used = (uint32_t)min_u64(g->shape.entries, grains - base);
	uint64_t off = 0, len = 0, pos = 0; /* a stretch of neighbours */
	int kind = GRAIN_NONE, r = check_beyond(g, t->index, used, e);

	if (!r)
		r = make_room(g, e);
	for (uint32_t k = 0; !r && k <= used; k++) {
		uint64_t raw = k < used ? tree_entry(g, q->buf + k * g->shape.width) : 0;
		uint64_t next = 0;
		int is = raw ? tree_decode(g, base + k, raw, true, limit, &next, e) : GRAIN_NONE;

		if (is < 0)
			return is;
		if (is == kind && is != GRAIN_NONE && !(is == GRAIN_DATA && g->shape.compressed) &&
		    (is == GRAIN_ZERO || next == pos + len)) {
			len += tree_grain_len(g, base + k);
			continue;
		}
		if (kind == GRAIN_ZERO) {
			q->sums.zero += div_up(len, g->shape.grain);
			add_now(q, off, len, UINT64_MAX, false);
		} else if (kind == GRAIN_DATA) {
			count_data(g, off, len, pos);
			r = place(g, off, len, pos, e);
		}
		kind = is;
		if (is != GRAIN_NONE) {
			const uint32_t from = k;

			if (is == GRAIN_DATA)
				k = tree_skip_plain(g, q->buf, k + 1, used, raw, limit) - 1;
			off = (base + from) * g->shape.grain;
			len = (k - from) * g->shape.grain + tree_grain_len(g, base + k);
			pos = next;
		}
	}
	return r;
}

static int take_table(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const struct table *t = &q->table[q->at];
	char what[64];
	int r = 0;

	if (g->src->passing)
		r = source_ahead(g->src, t->pos + q->table_bytes, &q->have, e);
	if (r < 0)
		return r;
	if (t->pos + q->table_bytes > q->have) {
		q->cut = true;
		return 0;
	}
	snprintf(what, sizeof(what), "%s %" PRIu64, table_text(t), (uint64_t)t->index);
	r = source_read(g->src, t->pos, q->buf, q->table_bytes, what, e);
	if (!r && g->shape.mirror)
		q->tables_hash[t->copy] += table_hash(t->index, q->buf, q->table_bytes);
	if (!r && !t->copy)
		r = decode_table(g, t, e);
	q->at++;
	return r;
}

/* --- windows -------------------------------------------------------------------------------------- */

static int by_off(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

/* Drops what will never come whole. */
static int trim(struct tree *g, uint64_t low, struct err *e)
{
	struct file_order *q = g->file;
	struct awaited *a = q->open;
	uint32_t n = 0;
	int r;

	for (uint32_t i = 0; i < a->pieces; i++) {
		struct piece p = a->piece[i];

		if (g->shape.compressed) {
			r = g->shape.whole(g, low + p.at, p.off, e);
			if (r < 0)
				return r;
			if (!r)
				p.len = 0;
		} else if (low + p.at + p.len > q->have) {
			p.len = low + p.at < q->have ? (uint32_t)(q->have - low - p.at) : 0;
			p.len -= p.len % SECTOR;
		}
		if (p.len != a->piece[i].len)
			q->cut = true;
		if (p.len)
			a->piece[n++] = p;
	}
	q->pieces -= a->pieces - n;
	a->pieces = n;
	return 0;
}

/* All tables of the window are read: its grains can be given. */
static int open_window(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t low = q->window * q->window_size;
	struct awaited *a = *slot(q, q->window);
	bool ascending = true;
	int r;

	q->given = true;
	q->open = a && a->pieces ? a : NULL;
	q->open_at = 0;
	r = claim_all(g, e);
	if (!r && g->shape.received && q->have > low) {
		const uint64_t to = min_u64(q->have, low + q->window_size);

		r = find_data_end(g, low, to, e);
		if (!r)
			r = g->shape.received(g, low, to, e);
	}
	if (!r)
		r = settle(g, e);
	if (r < 0 || !q->open)
		return r;
	if (g->shape.compressed || q->have < low + q->window_size) {
		r = trim(g, low, e);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 1; i < a->pieces && ascending; i++)
		ascending = a->piece[i - 1].off < a->piece[i].off;
	if (!ascending)
		qsort(a->piece, a->pieces, sizeof(*a->piece), by_off);
	return 0;
}

/* All that was named has come. */
static int finish(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	uint64_t size, used = max_u64(q->end, g->shape.promised);
	/* of a packed grain only its first sector is known to be in use */
	const uint64_t usual = TAIL_USUAL + (g->shape.compressed ? 2 * g->shape.grain : 0);
	int r;

	q->finished = true;
	r = source_finish(g->src, &size, e);
	if (r < 0)
		return r;
	if (size < g->shape.least)
		return source_short(g->src, "its header, directory or tables", g->shape.least, e);
	if (q->lost)
		return source_short(g->src, "its grains", used, e);
	if (size < g->shape.promised)
		return source_short(g->src, "what its header calls used", g->shape.promised, e);
	if (!q->judged)
		r = judge(g, e);
	if (!r && size > used && size - used > usual)
		r = warning(e,
			    "%s: %" PRIu64 " bytes came behind the last grain; they are ignored",
			    g->reader.name, size - used);
	return !r && g->shape.account ? g->shape.account(g, &q->sums, e) : r;
}

/* The window in work is done with. 1, 0 when it was the last, -errno. */
static int next_window(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t end = (q->window + 1) * q->window_size;
	const bool ended = q->have < end;
	int r;

	if (q->open)
		drop_pieces(q, q->open);
	q->open = NULL;
	if (q->at == q->tables && !q->pieces && !q->cut && (ended || !g->shape.received))
		return finish(g, e);
	if (q->cut || ended)
		return source_short(g->src, q->at < q->tables ? "its grain tables" : "its grains",
				    max_u64(q->end, g->shape.promised), e);
	if (g->src->passing && q->at < q->tables) {
		r = keep_left(g, e);
		if (r < 0)
			return r;
	}
	drop(q, q->window);
	if (g->src->passing)
		source_release(g->src, end);
	q->window++;
	q->loaded = q->given = q->fenced = false;
	return 1;
}

/* Until there is something to give. 1, 0 at the end, -errno. */
static int go_on(struct tree *g, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t end = (q->window + 1) * q->window_size;
	int r;

	if (q->finished)
		return 0;
	if (!q->given && q->memory > q->remember && g->src->passing) {
		r = spool_rest(g, e);
		return r < 0 ? r : 1;
	}
	if (!q->loaded) {
		q->loaded = true;
		r = g->src->passing ? source_ahead(g->src, end, &q->have, e) : 0;
		return r < 0 ? r : 1;
	}
	if (!q->given && !q->cut && q->at < q->tables && q->table[q->at].pos < end) {
		r = take_table(g, e);
		return r < 0 ? r : 1;
	}
	if (!q->given) {
		r = open_window(g, e);
		return r < 0 ? r : 1;
	}
	return next_window(g, e);
}

/* --- the reader ----------------------------------------------------------------------------------- */

/* The next stretch of the guest that the window holds, however it lies in the file. */
static void give(struct tree *g, struct run *run)
{
	struct file_order *q = g->file;
	const struct piece *p = &q->open->piece[q->open_at++];
	const uint64_t low = q->window * q->window_size;

	*run = (struct run){.off = p->off, .len = p->len};
	if (low >= q->all_from && !g->shape.compressed) {
		run->kind = RUN_RAW;
		run->src = g->src;
		run->pos = low + p->at;
		return;
	}
	run->kind = RUN_PACKED;
	run->leaf = &g->reader;
	run->skip = p->off;
	run->pos = low + p->at;
	while (!g->shape.compressed && q->open_at < q->open->pieces &&
	       q->open->piece[q->open_at].off == run->off + run->len)
		run->len += q->open->piece[q->open_at++].len;
}

int file_order_next(struct reader *reader, struct run *run, struct err *e)
{
	struct tree *g = container_of(reader, struct tree, reader);
	struct file_order *q = g->file;

	for (;;) {
		int r;

		if (q->now_at < q->nows && !q->holding) {
			const struct now *n = &q->now[q->now_at++];

			*run = (struct run){.off = n->off, .len = n->len, .kind = RUN_ZERO};
			if (n->pos == UINT64_MAX)
				return 1;
			run->kind = g->shape.compressed ? RUN_PACKED : RUN_RAW;
			run->src = g->src;
			run->leaf = g->shape.compressed ? reader : NULL;
			run->pos = n->pos;
			run->skip = n->off;
			return 1;
		}
		if (q->open && q->open_at < q->open->pieces) {
			give(g, run);
			return 1;
		}
		if (q->given && !q->fenced) {
			q->fenced = true;
			*run = (struct run){.kind = RUN_FENCE};
			return 1;
		}
		r = go_on(g, e);
		if (r <= 0)
			return r;
	}
}

/* The piece of the window in work that the guest's byte `off` may be in. */
static uint32_t find(const struct file_order *q, uint64_t off)
{
	uint32_t a = 0, b = q->open ? q->open->pieces : 0;

	while (b - a > 1) { /* the last that begins at or before off */
		uint32_t mid = a + (b - a) / 2;

		if (q->open->piece[mid].off <= off)
			a = mid;
		else
			b = mid;
	}
	return a;
}

/* Where in memory piece i has the guest's byte `off` of a run, and in *n how many of at most `most`
 * bytes follow; NULL: not there. */
static const uint8_t *bytes_of(const struct tree *g, uint32_t i, uint64_t off, uint64_t most,
			       uint64_t *n)
{
	const struct file_order *q = g->file;
	const struct piece *p;
	size_t here;

	if (!q->open || i >= q->open->pieces)
		return NULL;
	p = &q->open->piece[i];
	if (p->off > off || off - p->off >= p->len)
		return NULL;
	*n = min_u64(most, p->len - (off - p->off));
	return source_at(g->src, q->window * q->window_size + p->at + (off - p->off), &here);
}

int file_order_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct tree *g = container_of(reader, struct tree, reader);
	uint64_t off = run->skip, end = off + run->len, n;
	uint8_t *to = buf;
	const uint8_t *at;

	if (g->shape.compressed)
		return g->shape.unpack(g, run, buf, e);
	for (uint32_t i = find(g->file, off); off < end; i++) {
		at = bytes_of(g, i, off, end - off, &n);
		if (!at)
			return fail(e, EBADMSG, "%s: the bytes of the run at %" PRIu64 " have passed",
				    reader->name, run->off);
		memcpy(to, at, n);
		to += n;
		off += n;
	}
	return 0;
}

void file_order_free(struct file_order *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < q->hashes; i++) {
		struct awaited *a, *next;

		for (a = q->hash[i]; a; a = next) {
			next = a->next;
			free(a->piece);
			free(a->left);
			free(a);
		}
	}
	free(q->hash);
	free(q->table);
	free(q->claimed);
	free(q->rest);
	free(q->buf);
	free(q->now);
	free(q);
}

/* --- the directory -------------------------------------------------------------------------------- */

static int by_pos(const void *a, const void *b)
{
	const struct table *x = a, *y = b;

	return (x->pos > y->pos) - (x->pos < y->pos);
}

static int add_table(struct tree *g, uint64_t index, bool copy, uint64_t pos, struct err *e)
{
	struct file_order *q = g->file;
	const uint64_t limit = source_limit(g->src);

	if (pos > limit || q->table_bytes > limit - pos)
		return fail(e, EBADMSG,
			    "%s: %s %" PRIu64 " at file sector %" PRIu64
			    " lies outside the file of %" PRIu64 " bytes",
			    g->reader.name, copy ? "redundant grain table" : "grain table", index,
			    pos / SECTOR, limit);
	if (q->tables == q->table_room) {
		size_t room = q->table_room ? q->table_room * 2 : 256;
		struct table *more = realloc(q->table, room * sizeof(*more));

		if (!more)
			return fail(e, ENOMEM, "out of memory");
		q->memory += (room - q->table_room) * sizeof(*more);
		q->table = more;
		q->table_room = room;
	}
	q->table[q->tables++] = (struct table){pos, index, copy};
	q->end = max_u64(q->end, pos + q->table_bytes);
	count_place(g, pos, pos + q->table_bytes);
	return 0;
}

/* An entry of the directory, and that of the redundant one. */
static int take_entry(struct tree *g, uint64_t i, uint64_t raw, uint64_t raw_copy, struct err *e)
{
	const struct tree_shape *s = &g->shape;
	struct tree_sums *sums = &g->file->sums;
	uint64_t pos = 0, copy = 0;
	int used = raw ? s->table(g, i, raw, &pos, e) : 0, r = 0;

	if (used >= 0 && raw_copy)
		r = s->table(g, i, raw_copy, &copy, e);
	if (used < 0 || r < 0)
		return used < 0 ? used : r;
	if (s->mirror && (r != used || (used && copy == pos)))
		return fail(e, EBADMSG,
			    "%s: directory entry %" PRIu64
			    " and its redundant copy do not agree: it is damaged; copy it again, or try "
			    "--dry-run with --force=gd (reads the first) or --force=rgd (the redundant one)",
			    g->reader.name, i);
	if (!used) {
		sums->missing = min_u64(sums->missing, i);
		return 0;
	}
	sums->tables++;
	r = add_table(g, i, false, pos, e);
	return !r && s->mirror ? add_table(g, i, true, copy, e) : r;
}

/* 1, 0 when it is too large for the windows or the memory, -errno. buf has room for two chunks. */
static int read_dir(struct tree *g, uint8_t *buf, struct err *e)
{
	const struct tree_shape *s = &g->shape;
	struct file_order *q = g->file;
	uint8_t *copy = buf + (size_t)DIR_CHUNK * s->width;

	for (uint64_t i = 0; i < s->tables; i += DIR_CHUNK) {
		uint64_t n = min_u64(DIR_CHUNK, s->tables - i);
		int r = source_read(g->src, s->dir + i * s->width, buf, n * s->width,
				    "grain directory", e);

		if (!r && s->mirror)
			r = source_read(g->src, s->mirror + i * s->width, copy, n * s->width,
					"redundant grain directory", e);
		if (r < 0)
			return r;
		for (uint64_t k = 0; k < n; k++) {
			r = take_entry(g, i + k, tree_entry(g, buf + k * s->width),
				       s->mirror ? tree_entry(g, copy + k * s->width) : 0, e);
			if (r < 0)
				return r;
		}
		if (!g->src->passing)
			return 0;
		if (q->memory > q->remember) {
			uint64_t size;

			/* a file from here on, whose end nobody else would ask about */
			r = source_spool_rest(g->src, e);
			return r < 0 ? r : source_finish(g->src, &size, e);
		}
	}
	return 1;
}

static int check_tables(struct tree *g, struct err *e)
{
	const struct file_order *q = g->file;

	for (size_t i = 0; i < q->tables; i++) {
		const struct table *t = &q->table[i];

		if (i && t[-1].pos + q->table_bytes > t->pos)
			return overlap(g, table_text(t), t->index, t->pos, e);
		for (size_t k = 0; k < g->shape.areas; k++)
			if (t->pos < g->shape.area[k].end &&
			    t->pos + q->table_bytes > g->shape.area[k].at)
				return fail(e, EBADMSG,
					    "%s: %s %" PRIu64 " at file sector %" PRIu64
					    " lies inside the %s",
					    g->reader.name, table_text(t), (uint64_t)t->index,
					    t->pos / SECTOR, g->shape.area[k].what);
	}
	return 0;
}

int file_order_init(struct tree *g, struct err *e)
{
	struct file_order *q = calloc(1, sizeof(*q));
	uint8_t *dir = malloc((size_t)DIR_CHUNK * g->shape.width * 2);
	int r = 0;

	g->file = q;
	if (q) {
		q->table_bytes = (size_t)g->shape.entries * g->shape.width;
		q->window_size = source_window(g->src);
		if (getrandom(&q->odd, sizeof(q->odd), GRND_NONBLOCK) != sizeof(q->odd))
			q->odd = (uintptr_t)q * 0x9e3779b97f4a7c15u;
		q->odd |= 1;
		q->remember = g->shape.memory ? g->shape.memory : REMEMBER;
		q->all_from = UINT64_MAX;
		q->buf = malloc(q->table_bytes);
		q->now_room = g->shape.entries;
		q->now = malloc(q->now_room * sizeof(*q->now));
		q->holding = g->shape.judge || g->shape.mirror;
		q->sums.missing = UINT64_MAX;
		q->claimed = calloc(1, q->window_size / SECTOR / 8);
	}
	if (!q || !dir || !q->buf || !q->now || !q->claimed || !grow_hash(q))
		r = fail(e, ENOMEM, "out of memory");
	for (size_t i = 0; !r && i < g->shape.areas; i++) {
		q->end = max_u64(q->end, g->shape.area[i].end);
		count_place(g, g->shape.area[i].at, g->shape.area[i].end);
	}
	if (!r)
		r = read_dir(g, dir, e);
	free(dir);
	if (r > 0) {
		if (q->tables)
			qsort(q->table, q->tables, sizeof(*q->table), by_pos);
		r = check_tables(g, e);
		if (!r)
			return 1;
	}
	file_order_free(q);
	g->file = NULL;
	return r;
}
