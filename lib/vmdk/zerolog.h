/*
 * Room 2: undo logs hold what was zero as compressed grains of zeros. This reader gives these as runs
 * of zeros, neighbours as one, so that a rollback makes holes again. Knows how long such a record can be; must not know
 * where records are.
 */
#ifndef ZEROLOG_H
#define ZEROLOG_H

#include "run/run.h"

/* child: a reader of compressed grains of `grain` bytes in src, which becomes part of what is returned.
 * Where memory is short that is child itself: then zeros are written. */
struct reader *zerolog_over(struct reader *child, struct source *src, uint64_t grain);

#endif
