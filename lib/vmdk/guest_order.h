/* SPDX-License-Identifier: MIT */
/*
 * The walk over the grain tree of a file: table after table, so in guest order. Bounded memory whatever the
 * size of the disk; rewindable. The first walk warns, adds up the sums, and claims every sector of the file
 * that a table or a grain stands on: one that is claimed twice is refused. Must not know entries or formats.
 * Called by file_order.
 */
#ifndef GUEST_ORDER_H
#define GUEST_ORDER_H

#include "vmdk/tree.h"

/* As tree_open(), but takes t and src over when it succeeds. */
int guest_order_open(struct tree *t, struct source *src, const struct tree_shape *shape, struct err *e);

#endif
