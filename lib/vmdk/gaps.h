/* SPDX-License-Identifier: MIT */
/*
 * A reader over a stream of grains: when they have ended it gives all others of the disk as zeros. For
 * grains in any order, as markers name them; where there are tables file_order does it. Called by image.
 */
#ifndef GAPS_H
#define GAPS_H

#include "run/run.h"

/* *reader is streaming, and its runs begin at multiples of `grain` bytes. It becomes part of what takes its
 * place, unless this fails. -EFBIG, -ENOMEM. */
int gaps_over(struct reader **reader, uint64_t grain, struct err *e);

#endif
