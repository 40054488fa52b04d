/* SPDX-License-Identifier: MIT */
#include "jobs/jobs.h"
#include "input/spool.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Differences that are kept; beyond that those furthest back in the disk are only counted. */
#define KEPT_MAX (256u * 1024)
/* Equal bytes between two differences that do not make them two: where data are another's, a byte
 * in 256 is equal by chance. */
#define EQUAL_MAX SECTOR

struct verify {
	struct verify_result *v;
	size_t room;
	bool sums; /* of data only the checksum is known: it is in pos */
};

/* Sorts what is kept, and makes one of what was cut apart. */
static void settle(struct verify_result *v)
{
	size_t n = 0;

	if (!v->n)
		return;
	qsort(v->diff, v->n, sizeof(*v->diff), by_first_u64);
	for (size_t i = 1; i < v->n; i++) {
		struct difference *last = &v->diff[n], *d = &v->diff[i];

		uint64_t gap = d->off - (last->off + last->len);

		if (gap <= EQUAL_MAX && gap == last->behind + d->before &&
		    last->layer == d->layer && last->zero == d->zero) {
			last->len += gap + d->len;
			last->behind = d->behind;
			v->bytes += gap;
		} else {
			v->diff[++n] = *d;
		}
	}
	v->n = n + 1;
}

static int differs(struct verify *w, const struct difference *d, struct err *e)
{
	struct verify_result *v = w->v;

	v->bytes += d->len;
	if (v->n == w->room && w->room == KEPT_MAX) {
		settle(v);
		if (v->n > KEPT_MAX / 2) {
			v->n = KEPT_MAX / 2;
			v->more = true;
		}
	}
	if (v->n == w->room) {
		size_t room = w->room ? w->room * 2 : 64;
		struct difference *more = realloc(v->diff, room * sizeof(*more));

		if (!more)
			return fail(e, ENOMEM, "out of memory");
		v->diff = more;
		w->room = room;
	}
	v->diff[v->n++] = *d;
	return 0;
}

/* The first byte from i on in which a differs from b (NULL: from zero), or n. */
static uint64_t next_difference(const uint8_t *a, const uint8_t *b, uint64_t i, uint64_t n)
{
	while (i < n) {
		uint64_t step = min_u64(n - i, 4096);

		if (b ? memcmp(a + i, b + i, step) != 0 : !all_zero(a + i, step))
			break;
		i += step;
	}
	while (i < n && a[i] == (b ? b[i] : 0))
		i++;
	return i;
}

static int compare(struct verify *w, const struct run *run, const uint8_t *old, const uint8_t *data,
		   struct err *e)
{
	uint64_t begin = next_difference(old, data, 0, run->len), last = begin;
	int r = 0;

	while (!r && begin < run->len) {
		uint64_t next = next_difference(old, data, last + 1, run->len);

		if (next < run->len && next - last <= EQUAL_MAX) {
			last = next;
			continue;
		}
		r = differs(w,
			    &(struct difference){.off = run->off + begin,
						 .len = last + 1 - begin,
						 .layer = run->layer,
						 .zero = run->kind == RUN_ZERO,
						 .before = begin,
						 .behind = run->len - last - 1},
			    e);
		begin = last = next;
	}
	return r;
}

static int verify_ready(void *arg, const struct batch_view *b, struct err *e)
{
	struct verify *w = arg;
	int r = 0;

	for (unsigned i = 0; !r && i < b->runs; i++) {
		const struct run *run = &b->run[i];
		const uint8_t *old = b->old + (run->off - b->old_off);

		if (run->kind == RUN_ZERO)
			r = compare(w, run, old, NULL, e);
		else if (!w->sums)
			r = compare(w, run, old, b->data + (run->off - b->off), e);
		else if (crc32(0, old, (uInt)run->len) != run->pos)
			r = differs(w, &(struct difference){.off = run->off, .len = run->len}, e);
		w->v->compared += run->len;
	}
	return r;
}

void verify_free(struct verify_result *v)
{
	free(v->diff);
	v->diff = NULL;
	v->n = 0;
}

/* --- streams ------------------------------------------------------------------------------------- */

/* Each range of this size has a checksum, and is one difference. */
#define SUM_BYTES (64u * 1024)
#define SUMS_HELD (256u * 1024) /* in memory; more are written to the spool */
#define SUM_ZEROS (UINT64_C(1) << 63)

struct sum {
	uint64_t off; /* SUM_ZEROS set: zeros, which need no checksum */
	uint32_t len, crc;
};

struct sums {
	struct reader written; /* gives what was added, as runs whose pos is the checksum */
	struct reader tap;     /* gives what `input` gives, and adds the zeros */
	struct reader *input;
	struct sum *held;
	size_t n, at;
	int spool;             /* -1: not needed yet */
	uint64_t spooled, read; /* sums */
	const char *spool_dir;
};

static int spool_sums(struct sums *s, bool out, uint64_t first, size_t n, struct err *e)
{
	const size_t size = n * sizeof(*s->held);
	const uint64_t at = first * sizeof(*s->held);
	ssize_t r = out ? write_full(s->spool, s->held, size, at) : read_full(s->spool, s->held, size, at);

	if (!out && r >= 0 && r != (ssize_t)size)
		r = -EIO;
	return r < 0 ? fail(e, (int)-r, "%s: checksums in the spool: %s", s->tap.name, strerror((int)-r)) : 0;
}

static int add_sum(struct sums *s, uint64_t off, uint32_t len, uint32_t crc, struct err *e)
{
	int r = 0;

	if (s->n == SUMS_HELD) {
		if (s->spool < 0)
			r = s->spool = spool_open(s->spool_dir, s->tap.name, e);
		if (r >= 0)
			r = spool_sums(s, true, s->spooled, s->n, e);
		if (r < 0)
			return r;
		s->spooled += s->n;
		s->n = 0;
	}
	s->held[s->n++] = (struct sum){.off = off, .len = len, .crc = crc};
	return 0;
}

int sums_add(struct sums *s, const struct batch_view *b, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; !r && i < b->runs; i++) {
		struct run run = b->run[i];

		if (run.kind == RUN_ZERO) /* the tap has added it */
			continue;
		while (!r && run.len) {
			uint32_t n = (uint32_t)min_u64(run.len, SUM_BYTES - run.off % SUM_BYTES);
			const uint8_t *data = b->data + (run.off - b->off);

			r = add_sum(s, run.off, n, (uint32_t)crc32(0, data, n), e);
			run.off += n;
			run.len -= n;
		}
	}
	return r;
}

static int tap_next(struct reader *reader, struct run *run, struct err *e)
{
	struct sums *s = container_of(reader, struct sums, tap);
	int got = reader_next(s->input, run, e), r = 0;

	if (got <= 0 || run->kind != RUN_ZERO)
		return got;
	for (uint64_t at = 0, n; !r && at < run->len; at += n) {
		n = min_u64(run->len - at, UINT32_MAX);
		r = add_sum(s, (run->off + at) | SUM_ZEROS, (uint32_t)n, 0, e);
	}
	return r < 0 ? r : got;
}

static int written_next(struct reader *reader, struct run *run, struct err *e)
{
	struct sums *s = container_of(reader, struct sums, written);
	const struct sum *sum;

	if (s->at == s->n) {
		int r;

		/* what is held was added last and is given first, then what was spooled before it */
		s->n = (size_t)min_u64(SUMS_HELD, s->spooled - s->read);
		s->at = 0;
		if (!s->n)
			return 0;
		r = spool_sums(s, false, s->read, s->n, e);
		if (r < 0)
			return r;
		s->read += s->n;
	}
	sum = &s->held[s->at++];
	*run = (struct run){.off = sum->off & ~SUM_ZEROS, .len = sum->len, .kind = RUN_ZERO};
	if (!(sum->off & SUM_ZEROS)) {
		run->kind = RUN_COMPRESSED;
		run->pos = sum->crc;
		run->leaf = reader;
	}
	return 1;
}

/* Nobody knows the bytes any more. */
static int written_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	(void)reader, (void)run, (void)buf, (void)e;
	return 0;
}

static const struct reader_ops tap_ops = {.next = tap_next};
static const struct reader_ops written_ops = {.next = written_next, .fetch = written_fetch};

int sums_new(struct sums **out, struct reader *input, const char *spool_dir, struct err *e)
{
	struct sums *s = calloc(1, sizeof(*s));

	if (s)
		s->held = malloc(SUMS_HELD * sizeof(*s->held));
	if (!s || !s->held) {
		free(s);
		return fail(e, ENOMEM, "out of memory");
	}
	reader_init(&s->tap, &tap_ops, input->name, input->size);
	reader_init(&s->written, &written_ops, input->name, input->size);
	s->tap.streaming = input->streaming;
	s->written.streaming = &s->written;
	s->input = input;
	s->spool_dir = spool_dir;
	s->spool = -1;
	*out = s;
	return 0;
}

void sums_free(struct sums *s)
{
	if (!s)
		return;
	if (s->spool >= 0)
		close(s->spool);
	free(s->held);
	free(s);
}

struct reader *sums_tap(struct sums *s)
{
	return &s->tap;
}

int job_verify(struct reader *r, struct sums *sums, struct target *t, const struct pump_opts *o,
	       struct verify_result *v, struct pump_stats *stats, struct err *e)
{
	struct verify w = {.v = v, .sums = sums};
	struct pump_opts opts = *o;
	int result;

	*v = (struct verify_result){0};
	opts.ready = verify_ready;
	opts.consumer = &w;
	opts.look = 1;
	opts.compare = true;
	result = pump_run(sums ? &sums->written : r, t, &opts, stats, e);
	settle(v);
	return result;
}
