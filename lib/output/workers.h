/* SPDX-License-Identifier: MIT */
/*
 * Work of the processor, done on several threads. Knows jobs; must not know what they are for. Called
 * by the queue, which waits for them. One thread calls all of these functions.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include "output/xfer.h"

struct workers;

/* The first job starts as many threads as there are processors for us, which get no signals. Where there
 * can be none, jobs are run when they are put. NULL when memory is short. */
struct workers *workers_new(void);
/* NULL-safe. No job may be put and not taken. */
void workers_free(struct workers *w);
void workers_put(struct workers *w, struct xfer *job);
/* Those that have finished, in the order in which they did, by next; NULL: none. */
struct xfer *workers_take(struct workers *w);
/* Whether n jobs, more than none, have finished and were not taken. Where not, the bell will ring
 * when they have. */
bool workers_want(struct workers *w, unsigned n);
/* An eventfd that can be read when the bell has rung. A read takes the ring. */
int workers_bell(const struct workers *w);
/* Waits until it has. */
void workers_sleep(struct workers *w);
/* Rings it. */
void workers_ring(struct workers *w);

#endif
