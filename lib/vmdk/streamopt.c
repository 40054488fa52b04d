/* SPDX-License-Identifier: MIT */
/* See streamopt.h. Facts: layout.h. */
#include "vmdk/streamopt.h"
#include "base/bitmap.h"
#include "vmdk/deflate.h"
#include "vmdk/layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SKIP_MAX 65536u /* sectors behind a progress marker */
#define STEP 65536u /* bytes read at a time in search of a barrier */

#define MARKS_LEAST 1024u

struct mark { /* where a grain is */
	uint64_t off, pos; /* bytes: of the guest, of the file */
};

struct marker {
	uint32_t type; /* MARKER_END ..., or */
#define MARKER_GRAIN UINT32_MAX
	uint64_t off;  /* of that: guest */
	uint64_t next; /* position of the next one */
};

/* A grain table of a stream. Which one it is only the directory says, which follows later. */
struct table_sums {
	uint64_t pos;
	uint64_t sum, weighed; /* of all entries, and of each times its number */
};

struct streamopt {
	struct reader reader;
	struct source *src; /* owned */
	struct streamopt_shape shape;
	struct inflater *inflater;
	struct mark *mark;  /* the batch; ascending once it is there */
	size_t marks, room, at;
	bool checked, ascending; /* all markers were gone over once; their grains are in guest order */
	uint64_t total;     /* grains in the file */
	uint64_t given;     /* of these in the batches since the walk began, this one included */
	uint64_t last;      /* guest offset of the last grain met, or of the last of the batch before */
	struct mark behind; /* the first grain behind the batch, if any */
	uint64_t end;       /* an unfinished log ends at this position; else UINT64_MAX */
	/* of a stream */
	uint64_t pos;         /* of the next marker */
	struct marker marker; /* that one */
	uint64_t window;      /* number of the one it lies in */
	uint64_t fenced;      /* the runs of all records before this position have been copied */
	uint64_t *seen;       /* bitmap of grains; NULL: they are too many */
	uint64_t gap;         /* with opts.fill: behind the last one that was not seen, */
	bool ended;           /* once all is received */
	uint64_t mark_sum, mark_weighed; /* as in struct table_sums, over all markers of grains */
	struct table_sums *table;
	size_t tables;
	uint64_t dir, footer_dir; /* sector of the directory, and what the footer has; 0: none */
	bool damaged_dir;     /* it names a table that was not received */
};

/* Grains of which a bitmap is kept: it takes 32 MiB; and where the gaps of a stream are zeros, which cannot do
 * without: 128 MiB, for a disk of 64 TiB with grains of the usual size. */
#define SEEN_MAX (UINT64_C(32) << 23)
#define FILL_MAX (UINT64_C(128) << 23)

/*
 * The walk is ascending, the file need not be, and there may be more grains than memory has room for
 * marks. Marks are therefore got in batches, each of the lowest grains above the batch before: of more than
 * there is room for the highest are dropped.
 */
static int add_mark(struct streamopt *s, uint64_t off, uint64_t pos, struct err *e)
{
	const size_t most = s->shape.marks;

	if (s->marks == s->room) {
		const size_t room = (size_t)min_u64(s->room ? s->room * 2 : MARKS_LEAST, most + 1);
		struct mark *more = realloc(s->mark, room * sizeof(*more));

		if (!more)
			return fail(e, ENOMEM, "out of memory");
		s->mark = more;
		s->room = room;
	}
	s->mark[s->marks++] = (struct mark){off, pos};
	if (s->marks > most) {
		s->marks = most;
		if (!s->ascending) {
			qsort(s->mark, most + 1, sizeof(*s->mark), by_first_u64);
			s->marks -= most / 8; /* or each further grain would sort them again */
		}
		s->behind = s->mark[s->marks];
	}
	return 0;
}

static int take_grain(struct streamopt *s, uint64_t off, uint64_t pos, struct err *e)
{
	if (!s->checked) {
		s->ascending &= !s->total || off > s->last;
		s->last = off;
		s->total++;
	} else if (s->given && off <= s->last) {
		return 0;
	}
	return off < s->behind.off ? add_mark(s, off, pos, e) : 0;
}

/* r, a failure with `mine` as its message: damage goes into *why, and is none. */
static int damage_of(int r, const struct err *mine, struct err *why, struct err *e)
{
	if (r != -EBADMSG && r != -ENOTSUP)
		return r < 0 ? fail_again(e, -r, mine) : r;
	*why = *mine;
	return 0;
}

/* How many sectors follow a marker without data. */
static int check_skip(const struct source *src, const struct streamopt_shape *shape, uint64_t pos,
		      uint32_t type, uint64_t value, struct err *e)
{
	const uint64_t want[] = {
		[MARKER_END] = 0,
		[MARKER_TABLE] = shape->table_sectors,
		[MARKER_DIR] = shape->dir_sectors,
		[MARKER_FOOTER] = 1,
		[MARKER_PROGRESS] = min_u64(value, SKIP_MAX),
	};

	if (type > MARKER_PROGRESS)
		return fail(e, ENOTSUP,
			    "%s: the marker at file sector %" PRIu64 " is of unknown type %" PRIu32,
			    src->name, pos / SECTOR, type);
	if (value != want[type])
		return fail(e, EBADMSG,
			    "%s: the marker of type %" PRIu32 " at file sector %" PRIu64
			    " stands for %" PRIu64 " sectors, not %" PRIu64,
			    src->name, type, pos / SECTOR, value, want[type]);
	return 0;
}

int streamopt_tail(const struct source *src, const struct format_opts *o, uint64_t pos, struct err *e)
{
	account_missing(o, src->size - pos);
	return unbalanced(o, src->name, e,
			  "there is data behind the end marker (from file sector %" PRIu64
			  " on)" HINT ": is it damaged?",
			  pos / SECTOR);
}

static int check_tail(struct streamopt *s, uint64_t pos, struct err *e)
{
	uint64_t end;
	int r = account_data_end(s->src, pos, UINT64_MAX, &end, e);

	return r < 0 || end == pos ? r : streamopt_tail(s->src, &s->shape.opts, pos, e);
}

static int end_missing(const struct source *src, struct err *e)
{
	return fail_with(e, EBADMSG, TRUNCATED(src->size, src->size + 1),
			 "%s: ends after %" PRIu64 " bytes without an end marker: it is truncated", src->name,
			 src->size);
}

static int read_marker(struct source *src, const struct streamopt_shape *shape, uint64_t pos,
		       struct marker *marker, struct err *e)
{
	uint64_t value, bytes;
	uint8_t m[MARKER_BYTES];
	int r;

	if (pos > src->size || src->size - pos < sizeof(m))
		return end_missing(src, e);
	r = source_read(src, pos, m, sizeof(m), "marker", e);
	if (r < 0)
		return r;
	value = le64(m + RECORD_LBA);
	bytes = le32(m + RECORD_SIZE);
	if (!bytes) {
		r = check_skip(src, shape, pos, le32(m + MARKER_TYPE), value, e);
		if (r < 0)
			return r;
		marker->type = le32(m + MARKER_TYPE);
		/* checked: at most SKIP_MAX or what a directory takes */
		marker->next = pos + (1 + value) * SECTOR;
		return 0;
	}
	if (value >= shape->size / SECTOR || value % (shape->grain / SECTOR))
		return fail(e, EBADMSG,
			    "%s: the grain at file sector %" PRIu64 " is for disk sector %" PRIu64
			    ", where no grain of the disk begins",
			    src->name, pos / SECTOR, value);
	marker->type = MARKER_GRAIN;
	marker->off = value * SECTOR;
	return deflate_record_end(src, pos, marker->off, shape->grain, bytes, &marker->next, e);
}

/* Whether the file ends here, where it may. */
static bool at_end(const struct source *src, const struct streamopt_shape *shape, uint64_t pos)
{
	return shape->no_end && pos >= src->size;
}

/* Goes from marker to marker from pos on, to the one that ends them. */
static int scan(struct streamopt *s, uint64_t pos, struct err *e)
{
	struct marker m = {.type = MARKER_GRAIN};

	while (m.type != MARKER_END && pos != s->end && !at_end(s->src, &s->shape, pos)) {
		int r = read_marker(s->src, &s->shape, pos, &m, e);

		if (!r && m.type == MARKER_GRAIN)
			r = take_grain(s, m.off, pos, e);
		if (r < 0)
			return r;
		pos = m.next;
		if (s->checked && s->ascending && s->behind.off != UINT64_MAX)
			return 0;
	}
	return !s->checked && m.type == MARKER_END ? check_tail(s, pos, e) : 0;
}

int streamopt_count(struct streamopt_sums *sums, struct source *src,
		    const struct streamopt_shape *shape, struct err *e)
{
	struct err mine = {0};
	struct marker m;
	uint64_t end = 0;
	int r;

	if (!sums->pos)
		sums->pos = shape->start;
	sums->ended = sums->ended || at_end(src, shape, sums->pos);
	if (sums->ended)
		return 0;
	r = damage_of(read_marker(src, shape, sums->pos, &m, &mine), &mine, &sums->why, e);
	sums->ended = sums->why.set;
	if (r < 0 || sums->ended)
		return r;
	if (m.type == MARKER_GRAIN) {
		sums->grains++;
		sums->hash += account_hash(m.off, sums->pos);
	} else if (m.type != MARKER_END) {
		sums->others++;
	} else {
		sums->ended = true;
		if (!src->streaming) /* what follows in a stream is not here yet */
			r = account_data_end(src, m.next, UINT64_MAX, &end, e);
		sums->tail = !src->streaming && !r && end > m.next;
	}
	sums->pos = m.next;
	return r;
}

/* Marks grain n, of the record at pos, as seen. */
static int see(struct streamopt *s, uint64_t n, uint64_t pos, struct err *e)
{
	return !s->seen || bitmap_set(s->seen, n, n + 1)
		       ? 0
		       : fail(e, EBADMSG,
			      "%s: grain %" PRIu64 " is there twice, the second time at file sector %" PRIu64,
			      s->reader.name, n, pos / SECTOR);
}

static int begin_seen(struct streamopt *s, struct err *e)
{
	const uint64_t grains = div_up(s->shape.size, s->shape.grain);
	const bool fill = s->shape.opts.fill && s->src->streaming;

	if (grains > SEEN_MAX && !fill)
		return 0;
	if (grains > FILL_MAX)
		return fail(e, EFBIG,
			    "%s: its disk has more grains than are counted of a stream (%" PRIu64
			    "); --spool-first makes a file of it",
			    s->reader.name, FILL_MAX);
	s->seen = bitmap_new(grains);
	return s->seen ? 0 : fail(e, ENOMEM, "out of memory");
}

int streamopt_check(struct source *src, const struct streamopt_shape *shape, struct err *why, struct err *e)
{
	struct streamopt s = {.src = src, .shape = *shape, .reader.name = src->name};
	struct marker m = {.type = MARKER_GRAIN};
	struct err mine = {0};
	uint64_t pos = shape->start;
	int r = inflater_new(&s.inflater, src, shape->size, shape->grain, e);

	if (!r)
		r = begin_seen(&s, e);
	while (!r && m.type != MARKER_END && !at_end(src, shape, pos)) {
		r = read_marker(src, shape, pos, &m, &mine);
		if (!r && m.type == MARKER_GRAIN)
			r = inflater_check(s.inflater, pos, m.off, &mine);
		if (!r && m.type == MARKER_GRAIN)
			r = see(&s, m.off / shape->grain, pos, &mine);
		pos = m.next;
	}
	inflater_free(s.inflater);
	free(s.seen);
	return damage_of(r, &mine, why, e);
}

/* --- where an unfinished undo log ends --- */

static bool is_barrier(const uint8_t *sector, uint64_t pos)
{
	return !le64(sector + RECORD_LBA) && !le32(sector + RECORD_SIZE) &&
	       le32(sector + MARKER_TYPE) == MARKER_PROGRESS &&
	       !memcmp(sector + UNDO_BARRIER_AT, UNDO_BARRIER, strlen(UNDO_BARRIER)) &&
	       le64(sector + UNDO_BARRIER_POS) == pos / SECTOR;
}

/* 1 when one of the sectors in [pos, end) is a barrier. */
static int find_barrier(struct streamopt *s, uint64_t pos, uint64_t end, struct err *e)
{
	uint8_t *buf = malloc(STEP);
	int r = buf ? 0 : fail(e, ENOMEM, "out of memory");

	while (!r && pos < end && end - pos >= SECTOR) {
		const size_t n = (size_t)min_u64(STEP, (end - pos) / SECTOR * SECTOR);

		if (!source_is_hole(s->src, pos, n)) {
			r = source_read(s->src, pos, buf, n, "end of the file", e);
			for (size_t i = 0; !r && i < n; i += SECTOR)
				r = is_barrier(buf + i, pos + i);
		}
		pos += n;
	}
	free(buf);
	return r;
}

/* Goes on to the first marker that is none, *pos. *durable: where the last barrier stands. */
static int walk_log(struct streamopt *s, uint64_t *pos, uint64_t *durable, struct err *e)
{
	struct marker m;
	int r;

	for (;;) {
		r = read_marker(s->src, &s->shape, *pos, &m, e);
		if (r < 0 || m.type == MARKER_END)
			return r;
		if (m.type == MARKER_PROGRESS && m.next == *pos + SECTOR) {
			r = find_barrier(s, *pos, min_u64(m.next, s->src->size), e);
			if (r < 0)
				return r;
			if (r > 0)
				*durable = *pos;
		}
		*pos = m.next;
	}
}

/* On to the first record from *pos on that is not whole, or to `end`. */
static int check_records(struct streamopt *s, uint64_t *pos, uint64_t end, struct err *e)
{
	struct marker m;
	int r = 0;

	while (!r && *pos < end) {
		r = read_marker(s->src, &s->shape, *pos, &m, e);
		if (!r && m.type == MARKER_GRAIN)
			r = inflater_check(s->inflater, *pos, m.off, e);
		if (!r)
			*pos = m.next;
	}
	return r;
}

/*
 * Records after the last barrier may be torn, in any order, and the data that they should have saved
 * were not overwritten: from the first record there that is not whole on, nothing counts.
 */
static int find_end(struct streamopt *s, struct err *e)
{
	uint64_t pos = s->shape.start, durable = pos, end;
	struct err mine = {0}, torn = {0}, ignored;
	int r = damage_of(walk_log(s, &pos, &durable, &mine), &mine, &ignored, e);

	if (!r)
		r = find_barrier(s, pos, s->src->size, e);
	if (r > 0)
		return fail(e, EBADMSG,
			    "%s: is damaged at file sector %" PRIu64
			    ": what stands behind it shows that it had been whole",
			    s->reader.name, pos / SECTOR);
	if (!r) {
		s->end = durable;
		r = damage_of(check_records(s, &s->end, pos, &torn), &torn, &ignored, e);
	}
	/* a crash may leave that, and so may damage; in either case there is nothing to roll back */
	if (!r && s->end == s->shape.start && !s->shape.opts.unbalanced) {
		r = account_data_end(s->src, s->end, UINT64_MAX, &end, e);
		if (!r && end > s->end)
			r = fail(e, EBADMSG,
				 "%s: is an undo log without a whole record: it is damaged, or the run "
				 "that it is of was interrupted before it overwrote anything; there is "
				 "nothing to roll back",
				 s->reader.name);
	}
	return r;
}

/* The next batch: of a file in order from where the one before ended, else of all markers once more, which
 * is time instead of memory. It is empty when there is none. */
static int next_batch(struct streamopt *s, struct err *e)
{
	const uint64_t from = s->given && s->ascending ? s->behind.pos : s->shape.start;
	int r = 0;

	if (s->given)
		s->last = s->mark[s->marks - 1].off;
	s->marks = s->at = 0;
	s->behind.off = UINT64_MAX;
	if (!s->checked) {
		s->ascending = true;
		s->total = 0;
		if (s->shape.open_log)
			r = find_end(s, e);
	}
	if (!r)
		r = scan(s, from, e);
	if (r < 0)
		return r;
	s->checked = true;
	s->given += s->marks;
	if (!s->ascending)
		qsort(s->mark, s->marks, sizeof(*s->mark), by_first_u64);
	for (size_t i = 1; i < s->marks; i++)
		if (s->mark[i].off == s->mark[i - 1].off)
			return fail(e, EBADMSG,
				    "%s: grain %" PRIu64 " is there twice, at file sectors %" PRIu64
				    " and %" PRIu64,
				    s->reader.name, s->mark[i].off / s->shape.grain,
				    min_u64(s->mark[i - 1].pos, s->mark[i].pos) / SECTOR,
				    max_u64(s->mark[i - 1].pos, s->mark[i].pos) / SECTOR);
	return 0;
}

static struct run grain_run(struct streamopt *s, uint64_t off, uint64_t pos)
{
	return (struct run){
		.off = off,
		.len = min_u64(s->shape.grain, s->shape.size - off),
		.pos = pos,
		.skip = off,
		.kind = RUN_COMPRESSED,
		.leaf = &s->reader,
	};
}

static int streamopt_next(struct reader *reader, struct run *run, struct err *e)
{
	struct streamopt *s = container_of(reader, struct streamopt, reader);
	int r;

	if (!s->checked)
		s->shape.marks = reader_part(reader, s->shape.marks, MARKS_LEAST);
	if (!s->checked || (s->at == s->marks && s->given < s->total)) {
		r = next_batch(s, e);
		if (r < 0)
			return r;
		if (!s->marks && s->total) /* the copies of a grain fell into two batches */
			return fail(e, EBADMSG, "%s: a grain is there twice", s->reader.name);
	}
	if (s->at == s->marks)
		return 0;
	*run = grain_run(s, s->mark[s->at].off, s->mark[s->at].pos);
	s->at++;
	return 1;
}

static int streamopt_rewind(struct reader *reader, struct err *e)
{
	struct streamopt *s = container_of(reader, struct streamopt, reader);

	(void)e;
	s->at = 0;
	if (s->checked && s->given > s->marks) { /* the batch is not the first one */
		s->marks = 0;
		s->given = 0;
	}
	return 0;
}

static int streamopt_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct streamopt *s = container_of(reader, struct streamopt, reader);

	return inflater_run(s->inflater, run, buf, e);
}

static void streamopt_free(struct reader *reader)
{
	struct streamopt *s = container_of(reader, struct streamopt, reader);

	inflater_free(s->inflater);
	source_free(s->src);
	free(s->mark);
	free(s->seen);
	free(s->table);
	free(s);
}

static const struct reader_ops streamopt_ops = {
	.next = streamopt_next,
	.rewind = streamopt_rewind,
	.fetch = streamopt_fetch,
	.free = streamopt_free,
};

/* --- streams ------------------------------------------------------------------------------------- */

/* Waits for n bytes at pos, and releases all before them. */
static int wait_for(struct streamopt *s, uint64_t pos, size_t n, uint64_t *have, struct err *e)
{
	int r = source_skip(s->src, pos, have, e);

	return r < 0 ? r : source_ahead(s->src, pos + n, have, e);
}

static int take(struct streamopt *s, uint64_t pos, void *buf, size_t n, const char *what, struct err *e)
{
	uint64_t have;
	int r = wait_for(s, pos, n, &have, e);

	if (!r && have < pos + n)
		return source_short(s->src, what, pos + n, e);
	return r < 0 ? r : source_read(s->src, pos, buf, n, what, e);
}

static uint64_t mix(uint64_t sector)
{
	sector = (sector + 1) * UINT64_C(0x9e3779b97f4a7c15);
	sector = (sector ^ sector >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	return sector ^ sector >> 31;
}

/* A grain table at pos. */
static int stream_table(struct streamopt *s, uint64_t pos, struct err *e)
{
	const size_t n = (size_t)(s->shape.table_sectors * SECTOR);
	struct table_sums t = {.pos = pos};
	uint8_t *buf = calloc(1, n); /* -fanalyzer does not see that take() fills it */
	int r = buf ? take(s, pos, buf, n, "a grain table", e) : fail(e, ENOMEM, "out of memory");

	for (size_t k = 0; !r && k < n / 4; k++) {
		const uint64_t raw = le32(buf + 4 * k);

		t.sum += raw ? mix(raw) : 0;
		t.weighed += raw ? mix(raw) * k : 0;
	}
	free(buf);
	if (!r && (!s->tables || is_pow2(s->tables))) {
		struct table_sums *more =
			reallocarray(s->table, max_u64(1, s->tables * 2), sizeof(*more));

		if (!more)
			return fail(e, ENOMEM, "out of memory");
		s->table = more;
	}
	if (!r)
		s->table[s->tables++] = t;
	return r;
}

/* The directory at pos: takes what its tables say from the sums over the markers. */
static int stream_dir(struct streamopt *s, uint64_t pos, struct err *e)
{
	const uint64_t entries = s->shape.table_sectors * SECTOR / 4; /* of a table */
	const uint64_t tables = div_up(s->shape.size, s->shape.grain * entries);
	struct table_sums key = {.pos = 0};
	uint8_t buf[SECTOR];

	if (s->dir)
		return unbalanced(&s->shape.opts, s->reader.name, e,
				  "has a second grain directory at file sector %" PRIu64, pos / SECTOR);
	s->dir = pos / SECTOR;
	for (uint64_t i = 0; i < tables; i++) {
		const size_t k = (size_t)(i * 4 % sizeof(buf));
		const struct table_sums *t;
		int r = k ? 0 : take(s, pos + i * 4, buf, sizeof(buf), "the grain directory", e);

		if (r < 0)
			return r;
		if (!le32(buf + k))
			continue;
		key.pos = (uint64_t)le32(buf + k) * SECTOR;
		/* they stand in the order of the file */
		t = s->tables ? bsearch(&key, s->table, s->tables, sizeof(*t), by_first_u64) : NULL;
		if (!t) {
			s->damaged_dir = true;
			continue;
		}
		s->mark_sum -= t->sum;
		s->mark_weighed -= t->sum * (i * entries) + t->weighed;
	}
	return 0;
}

static int stream_footer(struct streamopt *s, uint64_t pos, struct err *e)
{
	uint8_t f[SECTOR];
	int r = take(s, pos, f, sizeof(f), "the footer", e);

	if (r < 0)
		return r;
	if (!s->shape.is_footer(s->shape.head, f))
		return unbalanced(&s->shape.opts, s->reader.name, e,
				  "the footer at file sector %" PRIu64
				  " does not agree with the header: it is damaged" HINT "; copy it again",
				  pos / SECTOR);
	s->footer_dir = le64(f + KDMV_GD);
	return 0;
}

/* At the end marker: tables, directory and footer were received, and name the grains received. */
static int check_end(struct streamopt *s, struct err *e)
{
	const uint64_t header = le64(s->shape.head + KDMV_GD);
	const char *what;

	if (!s->dir)
		what = "ends without a grain directory";
	else if (header == KDMV_GD_AT_END && !s->footer_dir)
		what = "ends without a footer";
	else if ((header != KDMV_GD_AT_END && header != s->dir) ||
		 (s->footer_dir && s->footer_dir != s->dir))
		what = "has a grain directory, but the header or the footer has it elsewhere";
	else if (s->damaged_dir || s->mark_sum || s->mark_weighed)
		what = "the grains received are not those that its grain tables name";
	else
		return 0;
	return unbalanced(&s->shape.opts, s->reader.name, e, "%s: it is damaged" HINT "; copy it again", what);
}

/* Reads the marker at s->pos. 1, 0 where the stream ends before it does, -errno. */
static int next_marker(struct streamopt *s, struct err *e)
{
	uint64_t have;
	int r = wait_for(s, s->pos, MARKER_BYTES, &have, e);

	if (r < 0 || have < s->pos + MARKER_BYTES)
		return r;
	r = read_marker(s->src, &s->shape, s->pos, &s->marker, e);
	return r < 0 ? r : 1;
}

/* Drops the rest of the stream, behind the end marker. */
static int finish(struct streamopt *s, struct err *e)
{
	uint64_t have, ignored, pos = s->marker.next;
	bool zero = true;
	int r;

	do {
		r = source_skip(s->src, pos + 1, &have, e);
		while (!r && pos < have) {
			size_t n;
			const void *p = source_at(s->src, pos, &n);

			zero = all_zero(p, n) && zero;
			pos += n;
		}
	} while (!r && have <= pos && have < s->src->size); /* by now there may be more than `have` */
	if (!r)
		r = source_finish(s->src, &ignored, e);
	if (!r && !zero)
		r = streamopt_tail(s->src, &s->shape.opts, s->marker.next, e);
	return r < 0 ? r : check_end(s, e);
}

static int stream_grain(struct streamopt *s, struct run *run, struct err *e)
{
	const uint64_t pos = s->pos, off = s->marker.off, n = off / s->shape.grain;
	int r = deflate_arrived(s->src, pos, off, s->shape.grain, e);

	if (r < 0)
		return r;
	if (!r)
		return source_short(s->src, "a grain", s->marker.next, e);
	r = see(s, n, pos, e);
	if (r < 0)
		return r;
	s->mark_sum += mix(pos / SECTOR);
	s->mark_weighed += mix(pos / SECTOR) * n;
	*run = grain_run(s, off, pos);
	s->pos = s->marker.next;
	return 1;
}

/* The next grains of which no record was received, as zeros. */
static int give_gap(struct streamopt *s, struct run *run)
{
	const uint64_t grains = div_up(s->shape.size, s->shape.grain);
	const uint64_t from = bitmap_find(s->seen, s->gap, grains, false);

	if (from == grains)
		return 0;
	s->gap = bitmap_find(s->seen, from, grains, true);
	*run = (struct run){.off = from * s->shape.grain, .kind = RUN_ZERO};
	run->len = min_u64(s->gap * s->shape.grain, s->shape.size) - run->off;
	return 1;
}

static int stream_next(struct reader *reader, struct run *run, struct err *e)
{
	struct streamopt *s = container_of(reader, struct streamopt, reader);

	while (!s->ended) {
		const uint64_t window = s->pos / source_window(s->src);
		uint64_t ignored;
		int r = 1;

		/* to read the marker releases the windows before it */
		if (window == s->window || s->fenced == s->pos) {
			s->window = window;
			r = next_marker(s, e);
			if (r < 0)
				return r;
			if (r && s->marker.type == MARKER_GRAIN)
				return stream_grain(s, run, e);
		}
		if (s->fenced != s->pos) {
			s->fenced = s->pos;
			*run = (struct run){.kind = RUN_FENCE};
			return 1;
		}
		if (!r) {
			r = source_finish(s->src, &ignored, e);
			return r < 0 ? r : end_missing(s->src, e);
		}
		s->ended = s->marker.type == MARKER_END;
		if (s->ended)
			r = finish(s, e);
		else if (s->marker.type == MARKER_TABLE)
			r = stream_table(s, s->pos + SECTOR, e);
		else if (s->marker.type == MARKER_DIR)
			r = stream_dir(s, s->pos + SECTOR, e);
		else if (s->marker.type == MARKER_FOOTER)
			r = stream_footer(s, s->pos + SECTOR, e);
		if (r < 0)
			return r;
		s->pos = s->fenced = s->marker.next;
	}
	return s->shape.opts.fill ? give_gap(s, run) : 0;
}

static const struct reader_ops stream_ops = {
	.next = stream_next,
	.fetch = streamopt_fetch,
	.free = streamopt_free,
};

int streamopt_open(struct reader **out, struct source *src, const struct streamopt_shape *shape,
		   struct err *e)
{
	struct streamopt *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return fail(e, ENOMEM, "out of memory");
	s->src = src;
	s->shape = *shape;
	s->end = UINT64_MAX;
	s->pos = s->fenced = shape->start;
	reader_init(&s->reader, src->streaming ? &stream_ops : &streamopt_ops, src->name, shape->size);
	s->reader.streaming = src->streaming ? &s->reader : NULL;
	s->reader.threads = src->streaming;
	r = inflater_new(&s->inflater, src, shape->size, shape->grain, e);
	if (!r && src->streaming)
		r = begin_seen(s, e);
	if (r < 0) {
		inflater_free(s->inflater);
		free(s);
		return r;
	}
	*out = &s->reader;
	return 0;
}
