/* SPDX-License-Identifier: MIT */
/*
 * The walk over the grain tree of a stream, in the order of the file. The directory names all tables, so
 * these are known from the start. Grains are pending, by the window of the file that brings them: once it is
 * there, its tables are read, which may add grains to it and to later ones; then its grains are given in
 * guest order, and a FENCE. While tables are still to come, sectors that no table has named yet are spooled:
 * a later table may name them, once.
 *
 * Where the leaf judges its metadata, or has two copies of it, nothing is given before all of that is
 * received, if it comes before the grains. What is named lies apart, so it need only be added up to know
 * how many bytes belong to nothing. Must not know entries or formats.
 */
#ifndef FILE_ORDER_H
#define FILE_ORDER_H

#include "vmdk/tree.h"

/*
 * A reader in guest order of a file, in file order of a stream, or, where the directory is too large for the
 * windows or the memory, in guest order of what was spooled: t->file is NULL then. t is the leaf's, zeroed,
 * and is taken over in any case; src when it succeeds. -errno.
 */
int tree_open(struct reader **out, struct tree *t, struct source *src, const struct tree_shape *shape,
	      struct err *e);

#endif
