/*
 * Room 5: what can be done with a reader. Jobs report through their options; they must not print,
 * and know no formats.
 */
#ifndef JOBS_H
#define JOBS_H

#include "pump.h"

struct totals { /* of one walk over a reader; bytes */
	uint64_t runs, data, zero;
	uint64_t end; /* where the last run ends */
};

/* Look before you leap: walks the whole metadata once, so that damage is found while the target is
 * untouched, and rewinds. 0, or -errno: -EINTR when o->stop said so. */
int job_scan(struct reader *r, const struct pump_opts *o, struct totals *t, struct err *e);
/* Writes the runs and makes them durable. 0 or -errno; stats->begun tells whether the target may
 * have changed. When stopped by opts->stop what was written is durable. */
int job_apply(struct reader *r, struct target *t, const struct pump_opts *o,
	      struct pump_stats *stats, struct err *e);

#endif
