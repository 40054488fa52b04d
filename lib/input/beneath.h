/* SPDX-License-Identifier: MIT */
/*
 * Opens that are careful: what a path leads to is looked at before it is really opened, and a name out of
 * a descriptor may be kept inside a folder. Called by source.c only; must not know what a source is.
 */
#ifndef BENEATH_H
#define BENEATH_H

#include "base/base.h"

/* Opens a regular file or a block device for reading; with `pipe` a FIFO, too. A descriptor, to be closed
 * by the caller, or -errno: -ENOTSUP for any other kind, which *st then tells. */
int open_path(const char *path, bool pipe, struct stat *st);
/* The same for dir/file, no FIFO; -EXDEV when anything in `file`, a symbolic link too, leads out of dir. */
int open_beneath(const char *dir, const char *file, struct stat *st);

#endif
