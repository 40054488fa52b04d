/* SPDX-License-Identifier: MIT */
/*
 * Transfers in flight: reads, writes, zeroing and flushes through io_uring or, where there is none or
 * the transfer asks for it, by the same calls in line; jobs of the processor on worker threads; and
 * transfers that a server on the other end of a socket completes. The only place of the program that
 * waits for any of them. Knows descriptors and offsets; must not know targets, runs, or what is being
 * written. Called by the pump and by targets.
 *
 * A transfer is a struct of the caller's that stays put from queue_put() to its callback. The queue
 * finishes it (short transfers, EAGAIN, EINTR) before the callback hears of it. Callbacks run only
 * inside queue_wait(), on the caller's thread, in any order, and may put more. One thread owns a
 * queue.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "output/xfer.h"

struct queue;

/*
 * Completes transfers in its own way: the connection to a server. A queue has one peer at most, and a
 * peer that has nothing in flight may go on to another queue.
 */
struct peer {
	int fd; /* readable when there is something to do: an answer, room to send, time is up */
	/* Runs inside queue_wait(), and ends transfers by queue_done(), whose callback may put more. Sends
	 * what was put; ready: 1 fd is readable; -errno: io_uring broke, and all transfers have to be
	 * ended. Does not block. */
	void (*work)(struct peer *p, struct queue *q, int ready);
};

/* depth: how many transfers the kernel holds at once. in_line: never ask for io_uring. Falls back to
 * in line by itself where a ring is refused (ENOSYS, EPERM, ENOMEM, EINVAL ...). -ENOMEM. */
int queue_new(struct queue **out, unsigned depth, bool in_line, struct err *e);
/* NULL-safe. Nothing may be in flight. */
void queue_free(struct queue *q);
/* "io_uring" or "in line" */
const char *queue_kind(const struct queue *q);
/* The version of liburing that this was built with. */
const char *queue_library(void);
/* Never fails: errors reach x->done. A transfer made in line may block; its callback runs later. Jobs
 * are run here and now where no thread can be had. */
void queue_put(struct queue *q, struct xfer *x);
/* Counts x, which p has taken, as in flight: p->work() is called for it, and ends it. */
void queue_put_peer(struct queue *q, struct xfer *x, struct peer *p);
/* Ends a transfer of the peer: err is 0 or -errno. Only inside p->work(). */
void queue_done(struct queue *q, struct xfer *x, int err);
/* Submits what was put, waits until at least min callbacks have run (fewer when nothing is left in
 * flight), runs all that are ready. Returns how many ran, or -errno when io_uring itself broke (which
 * nothing can be in flight after). */
int queue_wait(struct queue *q, unsigned min);
/* Transfers put whose callback has not run: all of them, and the jobs among them. */
unsigned queue_busy(const struct queue *q);
unsigned queue_jobs(const struct queue *q);

#endif
