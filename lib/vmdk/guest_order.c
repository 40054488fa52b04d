/* See tree.h. */
#include "vmdk/tree.h"
#include "vmdk/format.h"

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
 * stands for 8 sectors). Larger files are walked again for each further stretch in use: time instead
 * of memory, up to a limit that no sane file comes near. */
#define STRETCHES_MAX 256u
#ifndef CLAIM_SECTORS /* fuzzers cannot pay for that much each time */
#define CLAIM_SECTORS (UINT64_C(1) << 28)
#endif
/* Runs of the first walk that are kept, so that the second needs neither to read nor to decode. */
#define KEPT_MAX (512u * 1024)
#define KEPT_LEAST 1024u

struct kept {
	uint64_t off, len, pos; /* pos UINT64_MAX: zeros */
};

struct guest_order {
	uint8_t *dir;          /* DIR_CHUNK entries from dir_first on */
	uint8_t *mirror_dir;   /* the same of the redundant directory; NULL where there is none */
	uint64_t dir_first, dir_count;
	uint64_t next_table;   /* directory entry to look at next */
	struct {
		uint64_t index, pos, mirror;
		bool empty;    /* a hole of the file */
	} table[WINDOW];
	unsigned tables, t;    /* how many there are, and the one in work */
	unsigned read;         /* so many of them were read, */
	uint8_t *buf;          /* the last of which are here: */
	unsigned room;         /* table i at place i % room */
	uint32_t k;            /* entry of the table in work to look at next */
	uint8_t *mirror_buf;   /* one table */
	size_t table_bytes;
	/* first walk */
	bool first;
	uint64_t *claimed;     /* NULL: nothing is claimed in this walk */
	uint64_t claim_from;   /* unit of the first bit */
	uint64_t count_from;   /* unit, see tree_sums.claimed: areas that count share none */
	uint64_t claim_next;   /* first unit behind the bitmap that wants to be claimed */
	unsigned stretches;    /* begun so far */
	bool warned_beyond;
	struct tree_sums sums;
	/* later walks */
	struct kept *kept;
	size_t kept_n, kept_room, kept_at;
	bool kept_whole, replay;
};

/* Marks the sectors of file bytes [at, end). -EBADMSG when one of them is marked already, unless
 * `what` is NULL. */
static int claim(struct tree *g, uint64_t at, uint64_t end, const char *what, uint64_t n,
		 struct err *e)
{
	struct guest_order *w = g->guest;
	const uint64_t unit = g->shape.unit * SECTOR, from = w->count_from;
	uint64_t a = at / unit, b = div_up(end, unit);

	if (!w->claimed)
		return 0;
	w->sums.end = max_u64(w->sums.end, b * unit);
	if (b > w->claim_from + CLAIM_SECTORS)
		w->claim_next =
			min_u64(w->claim_next, max_u64(a, w->claim_from + CLAIM_SECTORS));
	a = max_u64(a, w->claim_from);
	b = min_u64(b, w->claim_from + CLAIM_SECTORS);
	if (b > max_u64(a, from))
		w->sums.claimed += b - max_u64(a, from);
	while (a < b) {
		uint64_t bit = a - w->claim_from, in_word = bit % 64;
		uint64_t count = min_u64(64 - in_word, b - a);
		uint64_t mask = (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1) << in_word;

		uint64_t taken = w->claimed[bit / 64] & mask;

		if (taken && what) {
			uint64_t first = (w->claim_from + bit / 64 * 64 +
					  (unsigned)__builtin_ctzll(taken)) * unit;

			for (size_t i = 0; i < g->shape.areas; i++)
				if (first < g->shape.area[i].end &&
				    first + unit > g->shape.area[i].at)
					return fail(e, EBADMSG,
						    "%s: %s %" PRIu64 " at file sector %" PRIu64
						    " lies inside the %s",
						    g->reader.name, what, n, at / SECTOR,
						    g->shape.area[i].what);
			return fail(e, EBADMSG,
				    "%s: %s %" PRIu64 " at file sector %" PRIu64
				    " lies on sectors of another table or grain",
				    g->reader.name, what, n, at / SECTOR);
		}
		w->claimed[bit / 64] |= mask;
		a += count;
	}
	return 0;
}

/* Whether what the walk comes to is to be counted: of walks that claim only the first. */
static bool counting(const struct guest_order *w)
{
	return w->first && w->stretches == 1;
}

static void restart(struct guest_order *w)
{
	w->next_table = 0;
	w->dir_first = w->dir_count = 0;
	w->tables = w->t = w->read = 0;
	w->k = 0;
}

/* Begins the walk that claims the stretch of the file at `from`. */
static int claim_stretch(struct tree *g, uint64_t from, struct err *e)
{
	struct guest_order *w = g->guest;
	int r = 0;

	if (w->stretches++ == STRETCHES_MAX)
		return fail(e, EFBIG,
			    "%s: its tables and grains are scattered over more than %u parts of the "
			    "file, each of %" PRIu64 " GiB",
			    g->reader.name, STRETCHES_MAX,
			    (CLAIM_SECTORS * g->shape.unit * SECTOR) >> 30);
	free(w->claimed);
	/* calloc of this size is fresh mappings: only what is marked costs memory */
	w->claimed = calloc(CLAIM_SECTORS / 64, sizeof(*w->claimed));
	if (!w->claimed)
		return fail(e, ENOMEM, "out of memory");
	w->count_from = g->shape.count_from / (g->shape.unit * SECTOR);
	w->claim_from = from;
	w->claim_next = UINT64_MAX;
	for (size_t i = 0; !r && i < g->shape.areas; i++)
		r = claim(g, g->shape.area[i].at, g->shape.area[i].end, NULL, 0, e);
	restart(w);
	return r;
}

static int load_entries(struct tree *g, uint64_t dir, uint8_t *buf, const char *what,
			struct err *e)
{
	uint64_t at = dir + g->guest->dir_first * g->shape.width;
	uint64_t n = g->guest->dir_count * g->shape.width;

	if (source_is_hole(g->src, at, n)) {
		memset(buf, 0, n);
		return 0;
	}
	return source_read(g->src, at, buf, n, what, e);
}

/* Makes directory entries from next_table on stand in w->dir. 1, 0 when none of them is used, -errno.
 * Of a large disk most are not. */
static int load_dir(struct tree *g, struct err *e)
{
	struct guest_order *w = g->guest;
	int r;

	w->dir_first = w->next_table;
	w->dir_count = min_u64(DIR_CHUNK, g->shape.tables - w->next_table);
	if (!w->mirror_dir && source_is_hole(g->src, g->shape.dir + w->dir_first * g->shape.width,
					     w->dir_count * g->shape.width))
		return 0;
	r = load_entries(g, g->shape.dir, w->dir, "grain directory", e);
	if (!r && w->mirror_dir && w->first)
		r = load_entries(g, g->shape.mirror, w->mirror_dir, "redundant grain directory", e);
	return r < 0 ? r : w->mirror_dir || !all_zero(w->dir, w->dir_count * g->shape.width);
}

/* Checks where a table lies and claims its place. */
static int place_table(struct tree *g, uint64_t pos, const char *what, struct err *e)
{
	struct guest_order *w = g->guest;

	if (pos > g->src->size || w->table_bytes > g->src->size - pos)
		return fail(e, EBADMSG,
			    "%s: %s %" PRIu64 " at file sector %" PRIu64
			    " lies outside the file of %" PRIu64
			    " bytes: is it truncated? expected at least %" PRIu64 " bytes",
			    g->reader.name, what, w->next_table, pos / SECTOR, g->src->size,
			    pos + w->table_bytes);
	return claim(g, pos, pos + w->table_bytes, what, w->next_table, e);
}

/* On the first walk: the redundant entry for the table that next_table names. */
static int place_mirror(struct tree *g, uint64_t pos, bool used, uint64_t *mirror, struct err *e)
{
	struct guest_order *w = g->guest;
	uint64_t raw = tree_entry(g, w->mirror_dir + (w->next_table - w->dir_first) * g->shape.width);
	int r = 0;

	if (raw)
		r = g->shape.table(g, w->next_table, raw, mirror, e);
	if (r < 0)
		return r;
	if (r != used || (used && *mirror == pos))
		return fail(e, EBADMSG,
			    "%s: directory entry %" PRIu64 " and its redundant copy do not agree: it is "
			    "damaged; copy it again, or try --dry-run with %s",
			    g->reader.name, w->next_table,
			    !used ? "--force=rgd (reads the redundant one)"
			    : !r  ? "--force=gd (reads the first)"
				  : "--force=gd (reads the first) or --force=rgd (the redundant one)");
	return used ? place_table(g, *mirror, "redundant grain table", e) : 0;
}

/* The entries of table i of the window, which was among the last that were read. */
static uint8_t *table_at(const struct guest_order *w, unsigned i)
{
	return w->buf + i % w->room * w->table_bytes;
}

/* On the first walk: table i of the window against its redundant copy. */
static int compare_mirror(struct tree *g, unsigned i, struct err *e)
{
	struct guest_order *w = g->guest;
	bool hole = source_is_hole(g->src, w->table[i].mirror, w->table_bytes);
	const uint8_t *table = table_at(w, i);
	int r = 0;

	if (hole && w->table[i].empty)
		return 0;
	if (!hole)
		r = source_read(g->src, w->table[i].mirror, w->mirror_buf, w->table_bytes,
				"redundant grain table", e);
	if (r < 0)
		return r;
	if (hole ? all_zero(table, w->table_bytes)
	    : w->table[i].empty ? all_zero(w->mirror_buf, w->table_bytes)
				: !memcmp(table, w->mirror_buf, w->table_bytes))
		return 0;
	return fail(e, EBADMSG,
		    "%s: grain table %" PRIu64
		    " and its redundant copy differ: it is damaged; copy it again, or try --dry-run "
		    "with --force=gd (reads the first) or --force=rgd (the redundant one)",
		    g->reader.name, w->table[i].index);
}

/* Reads the tables of the window that come next, as many as there is room for. */
static int read_tables(struct tree *g, struct err *e)
{
	struct guest_order *w = g->guest;
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
		r = source_read(g->src, w->table[i].pos, table_at(w, i), n * w->table_bytes, what,
				e);
		if (r < 0)
			return r;
	}
	for (unsigned i = w->read; w->mirror_dir && w->first && i < end; i++) {
		r = compare_mirror(g, i, e);
		if (r < 0)
			return r;
	}
	w->read = end;
	return 0;
}

/* Fills the window with the next tables. 1, 0 when there are none, -errno. */
static int load_window(struct tree *g, struct err *e)
{
	struct guest_order *w = g->guest;
	int r;

	w->tables = w->t = w->read = 0;
	w->k = 0;
	while (w->tables < reader_part(&g->reader, WINDOW, 2) && w->next_table < g->shape.tables) {
		uint64_t raw, pos, mirror;
		int used;

		if (w->next_table >= w->dir_first + w->dir_count) {
			r = load_dir(g, e);
			if (r < 0)
				return r;
			if (!r) {
				w->sums.missing = min_u64(w->sums.missing, w->next_table);
				w->next_table += w->dir_count;
				continue;
			}
		}
		raw = tree_entry(g, w->dir + (w->next_table - w->dir_first) * g->shape.width);
		pos = mirror = 0;
		used = raw ? g->shape.table(g, w->next_table, raw, &pos, e) : 0;
		if (used < 0)
			return used;
		r = used ? place_table(g, pos, "grain table", e) : 0;
		if (!r && w->mirror_dir && w->first)
			r = place_mirror(g, pos, used, &mirror, e);
		if (r < 0)
			return r;
		if (used) {
			w->table[w->tables].index = w->next_table;
			w->table[w->tables].pos = pos;
			w->table[w->tables].mirror = mirror;
			w->tables++;
		} else {
			w->sums.missing = min_u64(w->sums.missing, w->next_table);
		}
		w->next_table++;
	}
	if (counting(w))
		w->sums.tables += w->tables;
	for (unsigned i = 0; i < w->tables; i++) {
		w->table[i].empty = source_is_hole(g->src, w->table[i].pos, w->table_bytes);
		if (!w->table[i].empty && w->first)
			source_hint(g->src, w->table[i].pos, w->table_bytes);
	}
	return w->tables > 0;
}

/* The entries of table t that lie beyond the disk: 0 in a sane file. */
static int check_beyond(struct tree *g, uint32_t used, struct err *e)
{
	struct guest_order *w = g->guest;
	const uint8_t *p = table_at(w, w->t);

	if (!w->first || w->warned_beyond ||
	    all_zero(p + used * g->shape.width, w->table_bytes - used * g->shape.width))
		return 0;
	w->warned_beyond = true;
	return warning(e,
		       "%s: grain table %" PRIu64
		       " has entries for grains beyond the end of the disk; they are ignored",
		       g->reader.name, w->table[w->t].index);
}

/* An entry of the table in work. */
static int decode(struct tree *g, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e)
{
	return tree_decode(g, n, raw, g->guest->first, g->src->size, pos, e);
}

static void set_data(struct tree *g, struct run *run, uint64_t pos)
{
	run->pos = pos;
	if (g->shape.compressed) {
		run->kind = RUN_PACKED;
		run->skip = run->off;
		run->leaf = &g->reader;
	} else {
		run->kind = RUN_RAW;
		run->src = g->src;
	}
}

/* The first entry from k on that is in use, or `used`. */
static uint32_t skip_unused(const struct tree *g, const uint8_t *p, uint32_t k, uint32_t used)
{
	const uint32_t width = g->shape.width, stride = 32 / width;

	for (; k + stride <= used; k += stride) {
		const uint8_t *q = p + k * width;

		if (le64(q) | le64(q + 8) | le64(q + 16) | le64(q + 24))
			break;
	}
	while (k < used && !tree_entry(g, p + k * width))
		k++;
	return k;
}

static void count(struct tree *g, const struct run *run, int kind, uint64_t grains, uint64_t pos)
{
	struct tree_sums *s = &g->guest->sums;

	if (kind == GRAIN_ZERO) {
		s->zero += grains;
		return;
	}
	s->data += grains;
	if (g->shape.compressed)
		s->hash += account_hash(run->off, pos);
	else
		s->beyond += (grains * g->shape.grain - run->len) / SECTOR;
}

/* The next stretch of grains that lie one behind the other. 1, 0 at the end of the walk, -errno. */
static int walk_next(struct tree *g, struct run *run, struct err *e)
{
	struct guest_order *w = g->guest;
	const uint64_t grains = div_up(g->shape.size, g->shape.grain);

	for (;; w->t++, w->k = 0) {
		const uint8_t *p;
		uint64_t base, n, pos, next_pos;
		uint32_t used, begin;
		int kind, r;

		if (w->t == w->tables) {
			r = load_window(g, e);
			if (r <= 0)
				return r;
		}
		if (w->t == w->read) {
			r = read_tables(g, e);
			if (r < 0)
				return r;
		}
		if (w->table[w->t].empty)
			continue;
		p = table_at(w, w->t);
		base = w->table[w->t].index * g->shape.entries;
		used = (uint32_t)min_u64(g->shape.entries, grains - base);
		if (w->k == 0 && used < g->shape.entries) {
			r = check_beyond(g, used, e);
			if (r < 0)
				return r;
		}
		kind = GRAIN_NONE;
		begin = 0;
		pos = 0;
		while (kind == GRAIN_NONE && (w->k = skip_unused(g, p, w->k, used)) < used) {
			uint64_t raw = tree_entry(g, p + w->k * g->shape.width);

			begin = w->k++;
			kind = decode(g, base + begin, raw, &pos, e);
			if (kind < 0)
				return kind;
			if (kind == GRAIN_DATA)
				w->k = tree_skip_plain(g, p, w->k, used, raw, g->src->size);
		}
		if (kind == GRAIN_NONE)
			continue;
		n = base + begin;
		for (; w->k < used && !(g->shape.compressed && kind == GRAIN_DATA); w->k++) {
			uint64_t raw = tree_entry(g, p + w->k * g->shape.width);

			if (!raw)
				break;
			r = decode(g, base + w->k, raw, &next_pos, e);
			if (r < 0)
				return r;
			if (r != kind || (kind == GRAIN_DATA &&
					  next_pos != pos + (w->k - begin) * g->shape.grain))
				break;
		}
		run->off = n * g->shape.grain;
		run->len = min_u64((w->k - begin) * g->shape.grain, g->shape.size - run->off);
		if (counting(w))
			count(g, run, kind, w->k - begin, pos);
		if (kind == GRAIN_ZERO) {
			run->kind = RUN_ZERO;
			return 1;
		}
		set_data(g, run, pos);
		r = claim(g, pos, pos + (g->shape.compressed ? SECTOR : run->len), "grain", n, e);
		return r < 0 ? r : 1;
	}
}

static void keep(struct tree *g, const struct run *run)
{
	struct guest_order *w = g->guest;

	if (!w->kept_whole)
		return;
	if (w->kept_n == w->kept_room) {
		size_t room = w->kept_room ? w->kept_room * 2 : KEPT_LEAST;
		struct kept *more = room > reader_part(&g->reader, KEPT_MAX, KEPT_LEAST)
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
	w->kept[w->kept_n++] = (struct kept){
		.off = run->off,
		.len = run->len,
		.pos = run->kind == RUN_ZERO ? UINT64_MAX : run->pos,
	};
}

static int guest_order_next(struct reader *reader, struct run *run, struct err *e)
{
	struct tree *g = container_of(reader, struct tree, reader);
	struct guest_order *w = g->guest;
	int r;

	if (w->replay) {
		const struct kept *k;

		if (w->kept_at == w->kept_n)
			return 0;
		k = &w->kept[w->kept_at++];
		*run = (struct run){.off = k->off, .len = k->len, .kind = RUN_ZERO};
		if (k->pos != UINT64_MAX)
			set_data(g, run, k->pos);
		return 1;
	}
	if (w->first && !w->claimed) {
		r = claim_stretch(g, 0, e);
		if (r < 0)
			return r;
	}
	r = walk_next(g, run, e);
	if (!w->first || r < 0)
		return r;
	if (r > 0) {
		keep(g, run);
		return r;
	}
	/* the first walk ends: claim what lies further back in the file */
	while (w->claim_next != UINT64_MAX) {
		struct run other;

		r = claim_stretch(g, w->claim_next, e);
		if (r < 0)
			return r;
		do
			r = walk_next(g, &other, e);
		while (r > 0);
		if (r < 0)
			return r;
	}
	free(w->claimed);
	w->claimed = NULL;
	r = g->shape.account ? g->shape.account(g, &w->sums, e) : 0;
	if (r < 0)
		return r;
	w->first = false;
	w->replay = w->kept_whole;
	w->kept_at = w->kept_n;
	return 0;
}

static int guest_order_rewind(struct reader *reader, struct err *e)
{
	struct tree *g = container_of(reader, struct tree, reader);
	struct guest_order *w = g->guest;

	(void)e;
	restart(w);
	w->kept_at = 0;
	if (w->first) { /* it did not reach its end: it does not count */
		w->stretches = 0;
		w->sums = (struct tree_sums){.missing = UINT64_MAX};
		free(w->claimed);
		w->claimed = NULL;
		w->kept_n = 0;
	}
	return 0;
}

static int guest_order_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct tree *g = container_of(reader, struct tree, reader);

	return g->shape.unpack(g, run, buf, e);
}

static void walk_free(struct guest_order *w)
{
	if (!w)
		return;
	free(w->dir);
	free(w->mirror_dir);
	free(w->buf);
	free(w->mirror_buf);
	free(w->claimed);
	free(w->kept);
	free(w);
}

static void tree_free(struct reader *reader)
{
	struct tree *g = container_of(reader, struct tree, reader);

	if (g->shape.free)
		g->shape.free(g);
	source_free(g->src);
	walk_free(g->guest);
	file_order_free(g->file);
	free(g);
}

static const struct reader_ops guest_order_ops = {
	.next = guest_order_next,
	.rewind = guest_order_rewind,
	.free = tree_free,
};

static const struct reader_ops packed_ops = {
	.next = guest_order_next,
	.rewind = guest_order_rewind,
	.fetch = guest_order_fetch,
	.free = tree_free,
};

static const struct reader_ops passing_ops = {
	.next = file_order_next,
	.fetch = file_order_fetch,
	.free = tree_free,
};

int tree_init(struct tree *g, struct source *src, const struct tree_shape *shape,
	       struct err *e)
{
	struct guest_order *w;

	for (size_t i = 0; i < shape->areas; i++) {
		const struct tree_area *a = &shape->area[i];

		if (a->at > a->end || a->end > src->size)
			return fail(e, EBADMSG,
				    "%s: the %s (file sectors %" PRIu64 " to %" PRIu64
				    ") lies outside the file of %" PRIu64
				    " bytes: is it truncated? expected at least %" PRIu64 " bytes",
				    src->name, a->what, a->at / SECTOR, a->end / SECTOR, src->size,
				    a->end);
		for (size_t j = 0; j < i; j++)
			if (a->at < shape->area[j].end && shape->area[j].at < a->end)
				return fail(e, EBADMSG,
					    "%s: the %s at file sector %" PRIu64
					    " lies inside the %s",
					    src->name, a->what, a->at / SECTOR,
					    shape->area[j].what);
	}
	g->shape = *shape;
	if (!g->shape.unit)
		g->shape.unit = 1;
	g->src = src;
	if (src->passing) {
		const size_t window = source_window(src), bytes = (size_t)shape->entries * shape->width;
		int r;

		/* bitmaps of sectors are whole words, and no table lies in more than two windows */
		if (window < 64 * SECTOR || window < bytes)
			return fail(e, EFBIG,
				    "%s: a grain table of %zu bytes is larger than a window of %zu bytes; "
				    "read it from a file",
				    src->name, bytes, window);
		reader_init(&g->reader, &passing_ops, src->name, shape->size);
		g->reader.passing = &g->reader;
		g->reader.threads = shape->compressed;
		r = file_order_init(g, e);
		if (r)
			return r < 0 ? r : 0;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return fail(e, ENOMEM, "out of memory");
	w->table_bytes = (size_t)shape->entries * shape->width;
	w->dir = malloc((size_t)DIR_CHUNK * shape->width);
	w->room = (unsigned)max_u64(min_u64(READ_AT_ONCE / w->table_bytes, WINDOW), 1);
	w->buf = malloc(w->room * w->table_bytes);
	if (shape->mirror) {
		w->mirror_dir = malloc((size_t)DIR_CHUNK * shape->width);
		w->mirror_buf = malloc(w->table_bytes);
	}
	if (!w->dir || !w->buf || (shape->mirror && (!w->mirror_dir || !w->mirror_buf))) {
		walk_free(w);
		return fail(e, ENOMEM, "out of memory");
	}
	w->first = w->kept_whole = true;
	w->sums.missing = UINT64_MAX;
	g->guest = w;
	reader_init(&g->reader, shape->compressed ? &packed_ops : &guest_order_ops, src->name, shape->size);
	return 0;
}
