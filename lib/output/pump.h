/* SPDX-License-Identifier: MIT */
/*
 * Moves the runs of a reader to a target: gathers neighbours into batches, fills many batches
 * at once, and hands each to its consumer, or writes it with one transfer. Knows runs, the ring and
 * the target; must not know formats, chains, or what a consumer does. All numbers are bytes.
 */
#ifndef PUMP_H
#define PUMP_H

#include "output/batch.h"
#include "output/target.h"

/*
 * Drains before it returns, whatever happens; after the first error nothing more is written. Unless
 * it compares, what was written is durable then, see stats->synced. 0, or -errno with the message in e;
 * stats are valid in both cases.
 */
int pump_run(struct reader *r, struct target *t, const struct pump_opts *o,
	     struct pump_stats *stats, struct err *e);

#endif
