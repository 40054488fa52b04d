/* SPDX-License-Identifier: MIT */
/*
 * Private to flight.c and flight_write.c: a batch on its way, and all of them. See flight.h.
 */
#ifndef FLIGHT_SLOT_H
#define FLIGHT_SLOT_H

#include "output/flight.h"
#include "output/queue.h"

#define SMALL (64u * 1024)
enum slot_class { IS_SMALL, IS_MIDDLE, IS_BIG, IS_ZEROING, CLASSES };
#define SLOTS (160u + 40u + 16u + 32u)

enum slot_state { FREE, PREREAD, FILL, HELD, CHECK, WRITE };

/* A compressed run that another thread inflates. */
struct fetch {
	struct xfer xfer;
	struct slot *slot;
	const struct run *run;
	uint8_t *buf;
	int result;
	struct err *why; /* of a failure; NULL: memory was short */
	char *text; /* a warning */
};

struct slot {
	struct flight *flight;
	enum slot_class class;
	enum slot_state state;
	uint8_t *buf;      /* stands for guest byte `from` on */
	uint64_t from, to; /* what the write covers; block aligned when direct */
	uint8_t *old; /* where the consumer wants to look at the target: guest byte old_from on */
	uint64_t old_from, old_to;
	unsigned waiting; /* transfers of this state in flight */
	bool bad;         /* one of its writes failed */
	uint32_t zero;    /* a bit for each range of SMALL: it is zeros; see find_zeros() */
	struct slot *next; /* free */
	struct batch b;
	struct xfer xfer[BATCH_RUNS + 2];
	struct fetch fetch[BATCH_RUNS];
};

struct flight {
	struct target *t;
	const struct pump_opts *o;
	struct pump_stats *stats;
	struct err *e;
	int failed;     /* the first -errno: nothing is written any more */
	uint64_t align; /* two writes in flight never share a block of this size */
	struct queue *q;
	bool fetch_here;
	unsigned queued; /* transfers the kernel has not heard of */
	uint64_t queued_bytes;
	uint64_t reach; /* aligned end of all that ever was in flight */
	struct xfer *refused; /* direct transfers to be made through the page cache */
	struct xfer flush;
	bool flushing;   /* it is in flight */
	uint64_t taken;       /* guest order: all runs before this byte were launched, or need nothing, */
	uint64_t flush_taken; /* and those before this one the flush makes durable */
	int64_t flushed; /* when it was put, milliseconds */
	struct slot slot[SLOTS];
	unsigned slots; /* that were ever used: the others are never touched, which costs memory and time */
	struct slot *free[CLASSES]; /* of those; last used on top */
	struct {
		unsigned slots; /* still to be used the first time */
		size_t bytes;   /* of the buffers of each */
		uint8_t *memory;
	} fresh[CLASSES];
	unsigned held; /* slots that wait for the barrier */
	uint8_t *zeros; /* ZERO_MOST of them, only read: they never take memory */
	uint8_t *memory;
	size_t memory_size;
};

/* flight.c */
void slot_release(struct slot *s);
/* A transfer of this slot; all those of one state are put before one of them is done. */
struct xfer *slot_xfer(struct slot *s, uint8_t *buf, uint64_t len, uint64_t off,
		       void (*done)(struct xfer *, int));
/* Puts a read or write of the target: a new one, or what became of another. */
void flight_put(struct flight *f, struct xfer *x, bool direct);
void slot_put(struct slot *s, bool direct, uint8_t *buf, uint64_t len, uint64_t off,
	      void (*done)(struct xfer *, int));
/* Whether a direct transfer was refused, and is made through the page cache. */
bool slot_again_buffered(struct xfer *x, int err);
/* Of a read of the target that is done: whether it was the last one that its slot waits for. */
bool slot_all_read(struct xfer *x, int err);

/* flight_write.c: the batch stands whole in its buffer. */
void slot_write(struct slot *s);
/* The consumer makes safe what has to be safe, then all that was held back for it is written. */
void flight_write_held(struct flight *f);
/* What lies before run i, or with i == runs behind the last one, inside what is written. */
void slot_gap_before(const struct slot *s, unsigned i, uint64_t *a, uint64_t *b);

#endif
