/* SPDX-License-Identifier: MIT */
/*
 * What the pump, the flights below it and their callers have in common: what a consumer sees of a batch,
 * what is asked for, and what became of it. Declarations only. All numbers are bytes.
 */
#ifndef BATCH_H
#define BATCH_H

#include "run/run.h"

/* What a consumer sees: neighbouring runs whose bytes have arrived. */
struct batch_view {
	const struct run *run; /* in guest order, within one range of 1 MiB; gaps may lie between */
	unsigned runs;
	uint64_t off;            /* of the first byte of data */
	const uint8_t *data;     /* what the runs say; undefined in gaps, and where compare is set also
				  * for runs of zeros */
	uint64_t old_off, old_end;
	const uint8_t *old;      /* what the target holds from old_off to old_end; NULL without look */
};

struct pump_opts {
	bool in_line; /* no io_uring */
	/*
	 * The consumer. ready: 1 write the batch, 0 it is done with, -errno. NULL: all are written.
	 * Batches become ready in any order. barrier: what ready said 1 to is held back until this
	 * has been called, and is written when it returned 0. It is called for many at once.
	 */
	int (*ready)(void *arg, const struct batch_view *b, struct err *e);
	int (*barrier)(void *arg, struct err *e);
	void *consumer;   /* the arg of both */
	/* Not 0, a power of two up to 64 KiB: the target's bytes under each batch are read
	 * before it is ready, from a multiple of this to a multiple of this or the end of the target.
	 * Batches in flight never share such a range. */
	uint32_t look;
	bool compare;     /* ready never says 1: nothing is written */
	bool past_cache;  /* compare: read the target directly where that can be done */
	/* Asked between batches: nothing more is taken once it is true. NULL: never. */
	bool (*stop)(void *arg);
	/* Guest bytes that are done with. NULL: nobody asks. */
	void (*moved)(void *arg, uint64_t bytes);
	/* All is written, and will be flushed. NULL: nobody asks. */
	void (*syncing)(void *arg);
	void *arg; /* of stop, moved and syncing */
	/*
	 * Where runs come in guest order: every run before `off` is on stable storage. Called after each
	 * flush; there are such for files, too, then, every flush_each milliseconds (0: as of a stream), and at the
	 * end. NULL: nobody asks.
	 */
	void (*durable)(void *arg, uint64_t off);
	void *durable_arg;
	unsigned flush_each;
};

struct pump_stats {
	bool begun;       /* a write or zeroing was sent to the target: it may have changed */
	bool stopped;     /* by opts->stop */
	bool synced;      /* all that was written is on stable storage */
	uint64_t runs;    /* taken from the reader */
	uint64_t written; /* data bytes completed */
	uint64_t zeroed;  /* zero bytes completed, written or not */
	uint64_t present; /* of both: bytes that TARGET held already; job_apply() counts them with undo */
	bool repeated;    /* and they are nearly all of those that are not zeros */
	uint64_t reached; /* guest offset behind the furthest byte written */
	uint64_t writes;  /* transfers */
	const char *ring; /* how it was done, for people */
	int refused;      /* errno with which direct transfers were refused, so that all went through
			   * the page cache from then on; 0: none was */
};

#endif
