/*
 * Room 4: moves the runs of a reader onto a target: gathers neighbours into batches, fills many
 * batches at once, writes each with one transfer. Knows runs, the ring and the target; must not know
 * formats or chains. All numbers are bytes.
 */
#ifndef PUMP_H
#define PUMP_H

#include "ring.h"
#include "run.h"
#include "target.h"

struct pump_opts {
	bool in_line; /* no io_uring */
	/* Asked between batches: nothing more is taken once it is true. NULL: never. */
	bool (*stop)(void *arg);
	/* Guest bytes that have reached the target. NULL: nobody asks. */
	void (*moved)(void *arg, uint64_t bytes);
	void *arg;
};

struct pump_stats {
	bool begun;       /* a write or zeroing was sent to the target: it may have changed */
	bool stopped;     /* by opts->stop */
	uint64_t runs;    /* taken from the reader */
	uint64_t written; /* data bytes completed */
	uint64_t zeroed;  /* zero bytes completed, written or not */
	uint64_t writes;  /* transfers */
	const char *ring; /* how it was done, for people */
};

/*
 * Drains before it returns, whatever happens; after the first error nothing more is written. Does
 * not sync. 0, or -errno with the message in e; stats are valid in both cases.
 */
int pump_run(struct reader *r, struct target *t, const struct pump_opts *o,
	     struct pump_stats *stats, struct err *e);

#endif
