/*
 * Room 4: work of the processor done on several threads. Knows jobs; must not know what they are for.
 *
 * A job is a struct of the caller's that stays put from workers_put() until done() has been called.
 * run() is called on some thread, done() only inside workers_wait(), on the caller's, in any order.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include "base/base.h"

struct workers;

struct job {
	void (*run)(struct job *j);
	void (*done)(struct job *j);
	struct job *next; /* private */
};

/* As many threads as there are processors for us. Signals go to the caller. -errno: there are none,
 * which is no disaster. */
int workers_new(struct workers **out);
/* NULL-safe. Nothing may be busy. */
void workers_free(struct workers *w);
void workers_put(struct workers *w, struct job *j);
/* Runs done() of all that have finished, waits until that are at least min, or none is busy. Returns
 * how many. */
unsigned workers_wait(struct workers *w, unsigned min);
/* Jobs put whose done() has not been called. */
unsigned workers_busy(const struct workers *w);

#endif
