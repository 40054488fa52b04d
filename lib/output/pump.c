/* SPDX-License-Identifier: MIT */
/* See pump.h: runs to batches. What becomes of a batch is in flight.h. The numbers below were measured;
 * the commit that changes one says against what. */
#include "output/pump.h"
#include "output/flight.h"

#define ZERO_WORTH                                                                                 \
	(64u * 1024) /* shorter ranges of zeros are sent as bytes where nothing is thin: a system  \
		      * call each costs more */
#define ASK_EACH (64u * BIG)  /* guest bytes of one run, after which opts->stop is asked again */
#define BRIDGE (16u * 1024)   /* compare: a gap up to this is read over rather than made two reads */
/* Of a target that a program serves: the kernel cuts a larger write, and has the parts in flight at
 * once. FUSE takes 32 pages at least, a loop device 128. */
#define SERVED_MOST (128u * 1024)

struct pump {
	struct flight *f;
	struct target *t;
	const struct pump_opts *o;
	struct pump_stats *stats;
	uint64_t align;    /* of the flight */
	uint64_t most;     /* largest single write, power of two */
	struct batch open; /* being gathered */
	uint64_t seen;     /* where the last run ends that was taken whole */
};

static void launch(struct pump *p)
{
	if (p->open.runs) {
		flight_launch(p->f, &p->open);
		/* behind it there may be holes that need nothing */
		flight_taken(p->f, max_u64(p->open.end, p->seen));
	}
	p->open.runs = 0;
}

/* Whether the caller wants nothing more to be taken. */
static bool stopping(struct pump *p)
{
	if (!p->stats->stopped && p->o->stop && p->o->stop(p->o->arg))
		p->stats->stopped = true;
	return flight_failed(p->f) || p->stats->stopped;
}

/* The same in the middle of a run that goes on from `before` to `off`. */
static bool stopping_at(struct pump *p, uint64_t before, uint64_t off)
{
	return flight_failed(p->f) || p->stats->stopped ||
	       (before / ASK_EACH != off / ASK_EACH && stopping(p));
}

/* Whether a run may follow what the open batch has. */
static bool follows(struct pump *p, const struct run *run, bool direct, bool zeros)
{
	const struct batch *b = &p->open;

	if (zeros || b->zeros || b->direct != direct || b->off / p->most != run->off / p->most)
		return false;
	if (run->off == b->end)
		return true;
	if (run->off < b->end)
		return false;
	if (p->o->compare)
		return run->off - b->end <= BRIDGE;
	/* two batches would have to wait for each other */
	if (round_down(run->off, p->align) >= round_up(b->end, p->align))
		return false;
	return p->o->look || (direct && target_written(p->t, b->end, run->off - b->end));
}

/* Adds a run to the open batch, or begins a new one. Nothing is cut but at multiples of `most`, so a
 * cut never lies inside a block. zeros: for the kernel to make, a batch of its own. */
static void gather(struct pump *p, struct run run, bool zeros, uint64_t most)
{
	struct batch *b = &p->open;

	for (;;) {
		uint64_t n = min_u64(run.len, round_down(run.off, most) + most - run.off);
		bool direct = !p->o->compare && !zeros && flight_direct(p->f, run.off, n);
		struct run part = run;

		part.len = n;
		if (b->runs && !follows(p, &part, direct, zeros))
			launch(p);
		if (b->runs && run_joins(&b->run[b->runs - 1], &part)) {
			b->run[b->runs - 1].len += n;
		} else {
			if (b->runs == BATCH_RUNS)
				launch(p);
			if (flight_failed(p->f))
				return;
			if (!b->runs) {
				b->off = part.off;
				b->direct = direct;
				b->zeros = zeros;
			}
			b->run[b->runs++] = part;
		}
		b->end = part.off + n;
		if (zeros)
			launch(p);
		if (n == run.len || (zeros ? stopping(p) : stopping_at(p, run.off, run.off + n)))
			return;
		run_trim_front(&run, n);
	}
}

/* Zeros that are sent, looked at, or made by the kernel, but for what is a hole of the target. */
static void gather_zeros(struct pump *p, const struct run *run, uint64_t off, uint64_t end, bool kernel)
{
	while (off < end) {
		bool hole;
		uint64_t stop = min_u64(target_range(p->t, off, &hole), end);

		if (hole) {
			p->stats->zeroed += stop - off;
			flight_moved(p->f, stop - off);
		} else {
			gather(p,
			       (struct run){.off = off,
					    .len = stop - off,
					    .kind = RUN_ZERO,
					    .layer = run->layer},
			       kernel, kernel && !p->o->look ? ZERO_MOST : p->most);
		}
		if (stopping_at(p, off, stop))
			return;
		off = stop;
	}
}

static void zero(struct pump *p, const struct run *run)
{
	const uint64_t end = run->off + run->len, align = p->align;
	const uint64_t a = min_u64(round_up(run->off, align), end);
	const uint64_t b = max_u64(round_down(end, align), a);

	if (p->t->served && p->t->created && !p->o->compare) {
		/* of a file that we have just made it is known, without a promise, that it holds zeros
		 * where nothing was written yet */
		p->stats->zeroed += run->len;
		flight_moved(p->f, run->len);
		return;
	}
	if (p->o->compare || a == b || (p->t->thick && b - a < ZERO_WORTH) || p->t->rereads ||
	    !p->t->zero_ways) {
		gather_zeros(p, run, run->off, end, false);
		return;
	}
	gather_zeros(p, run, run->off, a, false);
	gather_zeros(p, run, a, b, true);
	gather_zeros(p, run, b, end, false);
}

/* 0 at the end of the runs, or when nothing more is to be taken; -errno: the reader failed. */
static int take_runs(struct pump *p, struct reader *r, struct err *e)
{
	struct run run;
	int got = 0;

	while (!stopping(p) && (got = reader_next(r, &run, e)) > 0) {
		if (run.kind == RUN_FENCE) {
			launch(p);
			flight_fence(p->f);
			continue;
		}
		p->stats->runs++;
		if (run.kind == RUN_ZERO)
			zero(p, &run);
		else
			gather(p, run, false, p->most);
		if (p->stats->stopped)
			break;
		p->seen = run.off + run.len;
		if (!p->open.runs)
			flight_taken(p->f, p->seen);
	}
	return got < 0 ? got : 0;
}

int pump_run(struct reader *r, struct target *t, const struct pump_opts *o,
	     struct pump_stats *stats, struct err *e)
{
	struct pump p = {.t = t, .o = o, .stats = stats, .align = flight_align(t, o),
			 .most = t->served ? SERVED_MOST : BIG};
	int got, failed, flushed;

	*stats = (struct pump_stats){0};
	/* only one thread may fetch from some streams */
	got = flight_new(&p.f, t, o, r->streaming && !r->streaming->threads, stats, e);
	if (got < 0)
		return got;
	got = take_runs(&p, r, e);
	/* of a stream that broke off, the runs before that are written */
	if (got < 0 && !r->streaming)
		flight_fail(p.f, got);
	launch(&p);
	flight_drain(p.f);
	/* After an error, too: what was written shall be on stable storage. And where nothing had to be
	 * written: what the target holds may never have been synced, and the caller is told that it is. */
	failed = flight_failed(p.f);
	if (!o->compare && (!failed || stats->begun)) {
		if (o->syncing)
			o->syncing(o->arg);
		flushed = flight_flush(p.f);
		stats->synced = !flushed;
		failed = failed ? failed : flushed;
	}
	if (got == -EINTR && o->stop && o->stop(o->arg)) {
		stats->stopped = true;
		e->set = e->set && failed; /* that it stopped hides no failure of what follows */
	} else if (got < 0 && !failed) {
		failed = got;
	}
	flight_free(p.f);
	return failed;
}
