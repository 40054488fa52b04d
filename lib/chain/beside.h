/* SPDX-License-Identifier: MIT */
/*
 * Finds the descriptor of an extent that was named alone. Knows folders and descriptors; must not know
 * the contents of the extent. Called by image.
 */
#ifndef BESIDE_H
#define BESIDE_H

#include "chain/lookup.h"

/*
 * Opens the descriptor whose only extent is the file `st`, opened as `path`. Candidates are the text
 * *.vmdk files of the folder of path and of the search folders, a bounded number of them. 1 and *src,
 * *where (the caller frees both); 0: there is none, or there are several that differ; -ENOMEM.
 */
int beside_find(struct source **src, char **where, const char *path, const struct stat *st,
		const struct lookup_opts *o, struct err *e);

#endif
