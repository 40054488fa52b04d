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
	return got < 0 ? got : reader_rewind(r, e);
}

int job_apply(struct reader *r, struct target *t, const struct pump_opts *o,
	      struct pump_stats *stats, struct err *e)
{
	int result = pump_run(r, t, o, stats, e);
	/* also after an error: what did arrive shall be on stable storage */
	int sync = stats->begun || t->created ? target_sync(t, e) : 0;

	return result < 0 ? result : sync;
}
