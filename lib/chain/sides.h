/* SPDX-License-Identifier: MIT */
/*
 * Extents side by side: one reader of many, each at its place of the disk. Must not know formats. Called by
 * image.
 */
#ifndef SIDES_H
#define SIDES_H

#include "run/run.h"

struct part {
	struct reader *reader;
	uint64_t start, size; /* guest bytes; what the reader has beyond size is dropped */
};

struct sides {
	struct reader reader;
	size_t n, i;
	struct part part[];
};

/* No parts yet, and room for so many; NULL when memory is short. name has to outlive it. */
struct sides *sides_new(const char *name, size_t room);
/* Takes r over. */
void sides_add(struct sides *s, struct reader *r, uint64_t start, uint64_t size);

#endif
