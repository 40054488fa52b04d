/* SPDX-License-Identifier: MIT */
#include "jobs/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE 4096u
#define READS 256u /* of TARGET at most, for what the parents hold, and as many for the deltas */
#define READS_ZERO 64u /* of them where the parents hold zeros, which prove less */
#define LINKS_MAX 64u  /* parents that are compared, the nearest */

/*
 * Samples of a sequence of runs, evenly spread over its bytes, whose number is not known before its
 * end: one every `step` bytes; where there is no room for more every other one is dropped.
 */
struct picks {
	struct run at[READS];
	unsigned n, room; /* room: even */
	uint64_t step, next, sum;
};

struct looker {
	struct target *target;
	const struct pump_opts *pump;
	size_t first, links; /* parents that are compared */
	struct picks own;
	struct picks *of; /* each of these links two: data, zeros */
	struct look *look;
};

static void pick(struct picks *p, const struct run *run)
{
	const uint64_t end = p->sum + run->len;

	while (p->next < end) {
		struct run *to = &p->at[p->n++];

		*to = *run;
		if (p->next > p->sum)
			run_trim_front(to, p->next - p->sum);
		to->len = min_u64(to->len, SAMPLE);
		if (p->n == p->room) {
			for (unsigned i = 0; i < p->room / 2; i++)
				p->at[i] = p->at[2 * i];
			p->n = p->room / 2;
			p->step *= 2;
		}
		p->next = p->n * p->step;
	}
	p->sum = end;
}

static void pick_below(struct looker *l, const struct run *run)
{
	size_t i = run->layer - l->first;

	if (i < l->links && run->len)
		pick(&l->of[2 * i + (run->kind == RUN_ZERO)], run);
}

/* Why the parents are not compared: the first reason. */
static void set_why(struct look *look, const char *why)
{
	if (!*look->why)
		snprintf(look->why, sizeof(look->why), "%s", why);
}

static int stopped(const struct looker *l, const struct reader *r, struct err *e)
{
	if (l->pump->stop && l->pump->stop(l->pump->arg))
		return fail(e, EINTR, "%s: stopped by a signal before anything was written", r->name);
	return 0;
}

/* The next run of the deltas, of which a sample is taken; len 0: there is none. */
static int next_own(struct looker *l, struct reader *r, struct run *run, struct err *e)
{
	int got = reader_next(r, run, e);

	if (got < 0)
		return got;
	if (!got)
		*run = (struct run){0};
	else if (run->kind != RUN_ZERO)
		pick(&l->own, run);
	return stopped(l, r, e);
}

/* Takes samples of what the deltas hold, and of what only their parents hold. Rewinds the deltas. */
static int take_samples(struct looker *l, struct reader *deltas, struct reader *below, struct err *e)
{
	struct err quiet = {.set = false};
	struct run own, run;
	int r = next_own(l, deltas, &own, e), got = 0;

	while (!r && below && (got = reader_next(below, &run, &quiet)) > 0) {
		const uint64_t end = run.off + run.len;

		r = stopped(l, below, e);
		while (!r) {
			struct run part = run;

			if (own.len && own.off + own.len <= run.off) {
				r = next_own(l, deltas, &own, e);
				continue;
			}
			if (own.len && own.off < end)
				part.len = own.off > run.off ? own.off - run.off : 0;
			pick_below(l, &part);
			if (part.len == run.len || own.off + own.len >= end)
				break;
			run_trim_front(&run, own.off + own.len - run.off);
		}
	}
	while (!r && own.len)
		r = next_own(l, deltas, &own, e);
	if (!r && got < 0)
		set_why(l->look, quiet.msg);
	return r < 0 ? r : reader_rewind(deltas, e);
}

static void hint(const struct looker *l, const struct picks *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct run *run = &p->at[i];

		target_hint(l->target, run->off, run->len);
		if (run->kind == RUN_RAW)
			source_hint(run->src, run->pos, run->len);
	}
}

/* 1 TARGET holds the sample, 0 it does not. *zeros: the sample is zeros. -errno. */
static int compare(const struct looker *l, const struct run *run, bool *zeros, struct err *e)
{
	const size_t n = (size_t)run->len;
	uint8_t want[SAMPLE] = {0}, is[SAMPLE];
	int r = 0;

	if (run->kind == RUN_RAW)
		r = source_read(run->src, run->pos, want, n, "sample", e);
	else if (run->kind == RUN_COMPRESSED)
		r = reader_fetch(run, want, e);
	if (r < 0)
		return r;
	if (!target_look(l->target, run->off, is, n))
		return fail(e, EIO, "%s: bytes %" PRIu64 " to %" PRIu64 " cannot be read",
			    l->target->name, run->off, run->off + run->len - 1);
	*zeros = all_zero(want, n);
	return !memcmp(want, is, n);
}

static int compare_own(struct looker *l, struct look *look, struct err *e)
{
	hint(l, &l->own);
	for (unsigned i = 0; i < l->own.n; i++) {
		bool zeros;
		int r = compare(l, &l->own.at[i], &zeros, e);

		if (r < 0)
			return r;
		look->own += !zeros;
		look->own_same += r && !zeros;
	}
	return 0;
}

/* Counts what TARGET does not hold of the lowest link of which that is so: where it is the base, all
 * that is above it says nothing. */
static int compare_below(struct looker *l, struct look *look, struct err *e)
{
	for (size_t i = 0; i < 2 * l->links; i++)
		hint(l, &l->of[i]);
	for (size_t i = 0; i < l->links; i++) {
		const struct picks *data = &l->of[2 * i], *zero = data + 1;
		unsigned differ = 0, n = data->n + zero->n;

		for (unsigned k = 0; k < n; k++) {
			const struct run *run = k < data->n ? &data->at[k] : &zero->at[k - data->n];
			bool zeros;
			int r = compare(l, run, &zeros, e);

			if (r < 0)
				return r;
			if (!r && !differ++) {
				look->link = l->first + i;
				look->at = *run;
			}
		}
		look->reads += n;
		if (differ) {
			look->differ = differ;
			look->of = n;
		}
	}
	return 0;
}

static bool is_target(const struct image *m, const struct target *t)
{
	for (size_t i = 0; i < m->files; i++)
		if (target_is(t, &m->file[i].st))
			return true;
	return false;
}

/* How many parents can be read, from the nearest on, and are not TARGET itself. */
static size_t readable(const struct chain *c, size_t first, const struct target *t)
{
	size_t n = first;

	while (n < c->links && n - first < LINKS_MAX && c->link[n]->reader && !is_target(c->link[n], t))
		n++;
	return n - first;
}

static bool make_picks(struct looker *l)
{
	const unsigned n = (unsigned)l->links;

	l->own = (struct picks){.room = READS, .step = SAMPLE};
	l->of = calloc(2 * n + 1, sizeof(*l->of));
	for (unsigned i = 0; l->of && i < 2 * n; i++) {
		const unsigned room = (i % 2 ? READS_ZERO : READS - READS_ZERO) / n & ~1u;

		l->of[i] = (struct picks){.room = room < 2 ? 2 : room, .step = SAMPLE};
	}
	return l->of;
}

/* The parents' data are not needed to write: what is wrong with them is no failure. */
static int look_at(struct looker *l, struct reader *deltas, const struct chain *below, struct err *e)
{
	struct look *look = l->look;
	struct err quiet = {.set = false};
	int r = make_picks(l) ? take_samples(l, deltas, below->reader, e)
			      : fail(e, ENOMEM, "out of memory");

	if (r < 0)
		return r;
	if (compare_own(l, look, &quiet) < 0)
		look->own = 0;
	if (*look->why || !l->links)
		return 0;
	quiet.set = false;
	if (compare_below(l, look, &quiet) < 0)
		set_why(look, quiet.msg);
	else if (!look->reads)
		set_why(look, "they hold nothing that the deltas do not hold");
	return 0;
}

int job_look(struct look *look, const struct chain *c, size_t n, struct target *t,
	     const struct chain_opts *o, const struct pump_opts *pump, struct err *e)
{
	struct looker l = {.target = t, .pump = pump, .first = n, .look = look};
	struct chain *below = NULL;
	bool hole;
	int r;

	*look = (struct look){.link = n};
	if (c->reader->streaming)
		set_why(look, "a stream is read only once");
	else if (target_range(t, 0, &hole) >= t->size && hole)
		set_why(look, "TARGET holds nothing yet");
	if (*look->why)
		return 0;
	r = chain_beneath(&below, c, n, o, e);
	if (!r) {
		l.links = readable(below, n, t);
		if (!l.links)
			set_why(look, below->links > n ? "their data are not at hand, or are TARGET itself"
				      : below->incomplete ? below->why.msg : "there are none");
		else
			r = chain_read(below, n, l.links, false, e);
	}
	if (!r)
		r = look_at(&l, c->reader, below, e);
	if (!r && look->differ) {
		const struct image *m = below->link[look->link];

		look->name = strdup(m->name);
		look->base = m->raw || (m->descriptor && !descriptor_has_parent(m->descriptor));
		if (!look->name)
			r = fail(e, ENOMEM, "out of memory");
	}
	free(l.of);
	chain_free(below);
	return r;
}

void look_free(struct look *look)
{
	free(look->name);
}
