/* See jobs.h. */
#include "jobs.h"

#include <stdlib.h>
#include <string.h>

/* Differences that are kept; beyond that those furthest back in the disk are only counted. */
#define KEPT_MAX (256u * 1024)
/* Equal bytes between two differences that do not make them two: where data are another's, a byte
 * in 256 is equal by chance. */
#define EQUAL_MAX SECTOR

struct verify {
	const struct pump_opts *opts;
	struct verify_result *v;
	size_t room;
};

static int by_offset(const void *a, const void *b)
{
	const struct difference *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Sorts what is kept, and makes one of what was cut apart. */
static void settle(struct verify_result *v)
{
	size_t n = 0;

	if (!v->n)
		return;
	qsort(v->diff, v->n, sizeof(*v->diff), by_offset);
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

	for (unsigned i = 0; !r && i < b->pieces; i++) {
		const struct run *run = &b->piece[i];

		r = compare(w, run, b->old + (run->off - b->old_off),
			    run->kind == RUN_ZERO ? NULL : b->data + (run->off - b->off), e);
		w->v->compared += run->len;
	}
	return r;
}

static bool verify_stop(void *arg)
{
	const struct verify *w = arg;

	return w->opts->stop && w->opts->stop(w->opts->arg);
}

static void verify_moved(void *arg, uint64_t bytes)
{
	const struct verify *w = arg;

	if (w->opts->moved)
		w->opts->moved(w->opts->arg, bytes);
}

int job_verify(struct reader *r, struct target *t, const struct pump_opts *o,
	       struct verify_result *v, struct pump_stats *stats, struct err *e)
{
	struct verify w = {.opts = o, .v = v};
	const struct pump_opts opts = {
	    .in_line = o->in_line,
	    .ready = verify_ready,
	    .look = 1,
	    .compare = true,
	    .past_cache = o->past_cache,
	    .stop = verify_stop,
	    .moved = verify_moved,
	    .arg = &w,
	};
	int result;

	*v = (struct verify_result){0};
	result = pump_run(r, t, &opts, stats, e);
	settle(v);
	return result;
}

void verify_free(struct verify_result *v)
{
	free(v->diff);
	v->diff = NULL;
	v->n = 0;
}
