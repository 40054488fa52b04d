/* SPDX-License-Identifier: MIT */
/*
 * Batches on their way to a target: what only partly covered blocks need is read (preread), the bytes
 * are brought into a buffer (fill), the consumer looks at them, they are held until its barrier, and
 * written. Knows runs, the queue and the target; must not know in which order runs come, or how a
 * batch is made of them. Called by the pump. All numbers are bytes.
 */
#ifndef FLIGHT_H
#define FLIGHT_H

#include "output/batch.h"
#include "output/target.h"

#define BIG (1024u * 1024) /* largest single write; batches never cross a multiple of it */
#define ZERO_MOST (16u * BIG) /* zeroed by one call: each may take a second on a slow device */
#define BATCH_RUNS 64u /* runs in one batch */

/* Neighbouring runs. Between two of them may lie a gap inside one block of the target, or inside one
 * page of a file; that, and what a ragged end leaves of a block, is preread. Where the consumer looks
 * at the target it has been read anyway. */
struct batch {
	uint64_t off, end; /* guest bytes from the first run to the last */
	bool direct;       /* past the page cache */
	bool zeros;        /* one run, zeros, for the kernel to make; without look up to ZERO_MOST */
	unsigned runs;
	struct run run[BATCH_RUNS];
};

struct flight; /* see flight_slot.h */

static inline uint64_t round_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t round_up(uint64_t v, uint64_t align)
{
	return round_down(v + align - 1, align);
}

/* Two writes in flight never share a block of this size. */
uint64_t flight_align(const struct target *t, const struct pump_opts *o);
/* fetch_here: compressed runs can be fetched by the caller's thread only. All pointers have to outlive
 * it. -ENOMEM. */
int flight_new(struct flight **out, struct target *t, const struct pump_opts *o, bool fetch_here,
	       struct pump_stats *stats, struct err *e);
/* NULL-safe. flight_drain() comes first. */
void flight_free(struct flight *f);
/* Nothing is written any more. */
void flight_fail(struct flight *f, int r);
/* The first -errno, or 0. */
int flight_failed(const struct flight *f);
/* Whether bytes for this range, which crosses no multiple of BIG, are written past the page cache: into
 * what is not written yet each direct write allocates by itself; for a large one that still costs less
 * than the page cache does. */
bool flight_direct(struct flight *f, uint64_t off, uint64_t len);
/* Sends a copy of the batch on its way when there is room, and nothing in flight shares a block with
 * it. Does nothing after a failure. */
void flight_launch(struct flight *f, const struct batch *b);
/* Where runs come in guest order: all before `off` are on their way, or need nothing. */
void flight_taken(struct flight *f, uint64_t off);
/* Every run that was launched is copied when this returns: written, or in a buffer of our own. Begins
 * a flush where the last one was long ago. */
void flight_fence(struct flight *f);
/* Until nothing is in flight or held. */
void flight_drain(struct flight *f);
/* Makes all that was written durable, after a failure, too. Nothing else is in flight. 0 or -errno. */
int flight_flush(struct flight *f);
/* Guest bytes that are done with. */
void flight_moved(struct flight *f, uint64_t bytes);

#endif
