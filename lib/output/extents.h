/* SPDX-License-Identifier: MIT */
/*
 * Which ranges of a file are allocated and written, and where its holes are: the kernel's answers,
 * kept for one window. Knows FIEMAP and SEEK_HOLE; must not know targets. Called by target_file.c.
 * All numbers are bytes.
 */
#ifndef EXTENTS_H
#define EXTENTS_H

#include "base/base.h"

struct extents;

/* For free(); NULL when memory is short. fd: of the file; it has to outlive it. */
struct extents *extents_new(int fd);
/* Whether every byte of the range lies in blocks that are allocated and written. */
bool extents_written(struct extents *m, uint64_t off, uint64_t len);
/* Where the range of data, or the hole, that begins at off ends: UINT64_MAX when no other is known. */
uint64_t extents_range(struct extents *m, uint64_t off, bool *hole);
/* Drops the answers. */
void extents_forget(struct extents *m);

#endif
