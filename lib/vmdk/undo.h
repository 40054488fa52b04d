/* SPDX-License-Identifier: MIT */
/*
 * Writes the log of old bytes by which an apply is undone: a streamOptimized VMDK (layout.h), so that
 * whatever reads VMDKs reads it. Knows one file and its contents; must not know targets or where old
 * bytes come from. Called by vmdksync.c and the apply job. Bytes, but for what is called sectors.
 *
 * Each grain is saved once, the first time. What undo_barrier() has returned for is on stable storage,
 * and so is the file's name. An unfinished log, which its header marks as one, is read up to its last
 * whole record (streamopt), with a warning.
 */
#ifndef UNDO_H
#define UNDO_H

#include "vmdk/format.h"

struct undo;

struct undo_opts {
	bool append; /* resume an unfinished log */
	mode_t mode; /* of a new file */
	const char *disk;    /* printable name of what is saved, for people */
	const char *applied; /* of what will be written over it */
	bool disk_in_memory; /* or a log that is there is warned of */
	/* Reads n bytes of the disk as it is now; false where that fails. NULL: nobody can. */
	bool (*look)(void *arg, uint64_t off, void *buf, size_t n);
	void *arg;
};

/*
 * path must not exist; with append it must be an unfinished log of a disk of `size` bytes. -EEXIST;
 * -EALREADY: it was finished; -EINVAL: not such a log; or -errno.
 *
 * What o points to has to outlive it. A log has checksums of some places of the disk as it was. With
 * append these places have to be unchanged, but for what the log holds: else it is the log of another
 * disk, or the disk was written to without it. The disk's name need not be the same (a warning).
 */
int undo_open(struct undo **out, const char *path, uint64_t size, const struct undo_opts *o,
	      struct err *e);
/* Bytes of a log of so many grains, in so many tables, of a disk of `size` bytes: at least where all of
 * them are zeros, at most where none is. */
void undo_room(uint64_t size, uint64_t grains, uint64_t tables, uint64_t *least, uint64_t *most);
/* The grain of a disk's log, and how many grains a table of it has. */
uint64_t undo_grain_of(uint64_t size);
#define UNDO_TABLE 512u
/* NULL-safe. Neither finishes nor syncs. */
void undo_free(struct undo *u);
/* What undo_missing() aligns to: a power of two, 4 to 32 KiB. */
uint32_t undo_grain(const struct undo *u);
/*
 * The first range of whole grains, or grains up to the end of the disk, that [off, off+len)
 * touches and that are not saved: 1, and it is [*from, *to). 0: all are saved. -errno.
 */
int undo_missing(struct undo *u, uint64_t off, uint64_t len, uint64_t *from, uint64_t *to,
		 struct err *e);
/* Appends what is not saved of [off, off+len), which must be as undo_missing() says. Big enough
 * calls may write; none syncs. -EFBIG: the log would pass 2 TiB; -ENOSPC; -errno. Nothing can be
 * saved after a failure. */
int undo_save(struct undo *u, uint64_t off, uint64_t len, const void *old, struct err *e);
/* Makes all that was saved durable. */
int undo_barrier(struct undo *u, struct err *e);
/* Tables, footer, end marker; durable. The log is complete then, and no more can be saved. */
int undo_finish(struct undo *u, struct err *e);

#endif
