/* See jobs.h. */
#include "jobs.h"

int job_scan(struct reader *r, const struct pump_opts *o, struct totals *t, struct err *e)
{
	struct run run;
	int got;

	*t = (struct totals){0};
	while ((got = reader_next(r, &run, e)) > 0) {
		if (o->stop && o->stop(o->arg))
			return fail(e, EINTR, "%s: stopped by a signal before anything was written",
				    r->name);
		t->runs++;
		*(run.kind == RUN_ZERO ? &t->zero : &t->data) += run.len;
		t->end = run.off + run.len;
	}
	return got < 0 || r->passing ? got : reader_rewind(r, e);
}

struct apply {
	const struct pump_opts *opts;
	struct undo *undo;
	struct sums *sums;
};

static bool on_stop(void *arg)
{
	struct apply *a = arg;

	return a->opts->stop && a->opts->stop(a->opts->arg);
}

static void on_moved(void *arg, uint64_t bytes)
{
	struct apply *a = arg;

	if (a->opts->moved)
		a->opts->moved(a->opts->arg, bytes);
}

/* Saves what the batch will overwrite, and what else is in the same grains of the log. */
static int save_old(struct apply *a, const struct batch_view *b, struct err *e)
{
	const struct run *last = &b->piece[b->pieces - 1];
	uint64_t off = b->off, end = last->off + last->len, from, to;
	int r = 0;

	while (off < end && (r = undo_missing(a->undo, off, end - off, &from, &to, e)) > 0) {
		r = undo_save(a->undo, from, to - from, b->old + (from - b->old_off), e);
		if (r < 0)
			break;
		off = to;
	}
	return r;
}

static int on_ready(void *arg, const struct batch_view *b, struct err *e)
{
	struct apply *a = arg;
	int r = a->undo ? save_old(a, b, e) : 0;

	if (r >= 0 && a->sums)
		r = sums_add(a->sums, b, e);
	return r < 0 ? r : 1;
}

static int on_barrier(void *arg, struct err *e)
{
	struct apply *a = arg;

	return undo_barrier(a->undo, e);
}

int job_apply(struct reader *r, struct target *t, const struct pump_opts *o, struct undo *undo,
	      struct sums *sums, struct pump_stats *stats, struct err *e)
{
	struct apply apply = {o, undo, sums};
	struct pump_opts opts = *o;
	int result, sync;

	if (undo) {
		opts.barrier = on_barrier;
		opts.look = undo_grain(undo);
	}
	if (undo || sums) {
		opts.ready = on_ready;
		opts.stop = on_stop;
		opts.moved = on_moved;
		opts.arg = &apply;
	}
	result = pump_run(sums ? sums_tap(sums) : r, t, &opts, stats, e);
	/* After an error, too: what was written shall be on stable storage. And where nothing had to be
	 * written: what the target holds may never have been synced, and the caller is told that it is. */
	sync = result == 0 || stats->begun || t->created ? target_sync(t, e) : 0;
	stats->synced = !sync;
	return result < 0 ? result : sync;
}
