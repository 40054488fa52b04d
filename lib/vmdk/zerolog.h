/* SPDX-License-Identifier: MIT */
/*
 * A reader over the reader of an undo log, in which zeros are compressed grains of zeros: gives them as
 * runs of zeros, neighbours as one, so that a rollback makes holes again. Knows how long such a record
 * can be; must not know where records are. Called by image.
 */
#ifndef ZEROLOG_H
#define ZEROLOG_H

#include "run/run.h"

/* child: a reader of compressed grains of `grain` bytes in src, which becomes part of what is returned.
 * Where memory is short that is child itself: then zeros are written. */
struct reader *zerolog_over(struct reader *child, struct source *src, uint64_t grain);

#endif
