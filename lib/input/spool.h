/* SPDX-License-Identifier: MIT */
/*
 * A place on disk for what has to wait: an unlinked file. Called by source.c for bytes of a stream and by
 * jobs/verify.c for checksums; must not know what a source is.
 */
#ifndef SPOOL_H
#define SPOOL_H

#include "base/base.h"

/* The folder: dir, else $TMPDIR, else /var/tmp. */
const char *spool_folder(const char *dir);
/* An unlinked file in that folder. name: printable, for messages. Its descriptor, to be closed by the
 * caller, or -errno. */
int spool_open(const char *dir, const char *name, struct err *e);
/* Writes n bytes at off; zeros become holes, where nothing was written there before. *written grows by the
 * bytes that need room. 0 or -errno. */
int spool_write(int fd, const uint8_t *p, size_t n, uint64_t off, uint64_t *written);

#endif
