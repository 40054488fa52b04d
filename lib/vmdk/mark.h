/* SPDX-License-Identifier: MIT */
/*
 * Marks: where the grains of a file without tables are. A heap keeps the lowest of more than fit into
 * memory, and sorts them in place, unlike qsort(3) of the GNU library. Called by streamopt.
 */
#ifndef MARK_H
#define MARK_H

#include "base/base.h"

struct mark {
	uint64_t off, pos; /* bytes: of the guest, of the file */
};

/* Makes a heap of n marks, the highest on top. */
void mark_heap(struct mark *m, size_t n);
/* Moves mark i of a heap down to its place. */
void mark_sift(struct mark *m, size_t n, size_t i);
/* Ascending. */
void mark_sort(struct mark *m, size_t n);

#endif
