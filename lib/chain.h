/*
 * Room 3: readers made of readers: layers on top of each other, and gaps that read as zeros. Knows
 * runs; must not know formats, targets or rings.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "run.h"

/* Layers, newest first: where they overlap the newest wins, and each byte is given once. Takes the
 * layers over (not the array), also when it fails. O(n) memory. -ENOMEM. */
int merge_new(struct reader **out, struct reader *const *layers, size_t n, struct err *e);
/* Gaps become zeros: right only when child is all there is beneath. Takes child over, also when it
 * fails. -ENOMEM. */
int fill_new(struct reader **out, struct reader *child, struct err *e);

#endif
