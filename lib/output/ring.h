/*
 * Room 4: batched positioned transfers, through io_uring or, where there is none, by the same calls
 * in line. Knows descriptors and offsets; must not know runs, formats or what is being written.
 *
 * A transfer is a struct of the caller's that stays put from ring_put() to its callback. The ring
 * finishes it (short transfers, EAGAIN, EINTR) before anyone hears of it. Callbacks run only inside
 * ring_wait(), and may call ring_put(). One thread owns a ring.
 */
#ifndef RING_H
#define RING_H

#include "base/base.h"

struct ring;

struct xfer {
	int fd;
	bool write;
	bool sync; /* fdatasync of all that completed before: nothing else but fd and len 0 matters */
	void *buf;
	size_t len;   /* bytes, at most 1 GiB */
	uint64_t off; /* bytes */
	void *owner;  /* the caller's */
	/* err: 0 or -errno. A read that meets the end of the file is -ENODATA, a write that makes
	 * no progress is -ENOSPC. x->done_len tells how many bytes were moved. */
	void (*done)(struct xfer *x, int err);
	size_t done_len;
	/* the ring's own */
	struct xfer *next;
	int res;
};

/* depth: how many transfers the kernel holds at once. in_line: never ask for io_uring. Falls back
 * to in line by itself where a ring, or its first use, is refused (ENOSYS, EPERM, ENOMEM ...). */
int ring_new(struct ring **out, unsigned depth, bool in_line, struct err *e);
/* NULL-safe. Nothing may be in flight. */
void ring_free(struct ring *r);
/* "io_uring" or "in line" */
const char *ring_kind(const struct ring *r);
/* Queues x. Never fails and never blocks in line with a callback: errors reach x->done. */
void ring_put(struct ring *r, struct xfer *x);
/* Submits what is queued, waits until at least min callbacks have run (fewer when nothing is left in
 * flight), runs all that are ready. Returns how many ran, or -errno when the ring itself broke (which
 * nothing can be in flight after). */
int ring_wait(struct ring *r, unsigned min);
/* Transfers put whose callback has not run. */
unsigned ring_busy(const struct ring *r);

#endif
