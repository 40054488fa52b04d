/*
 * Room 2: writes the log of old bytes, by which an apply is undone. The log is a streamOptimized
 * VMDK: a header, then grains behind their markers, and at the end tables and a footer. So whoever
 * reads VMDKs reads it. Knows one file and what lies in it; must not know targets or where old bytes
 * come from. Bytes, but for what is called sectors.
 *
 * Each grain is saved once, the first time it is asked for. What undo_barrier() has returned for is
 * on stable storage, and so is the file's name. A log that was not finished is read up to its last
 * whole record (streamopt.c), with a warning; the header says that it is one (layout.h).
 */
#ifndef UNDO_H
#define UNDO_H

#include "vmdk/format.h"

struct undo;

struct undo_opts {
	bool append; /* go on with a log that was not finished */
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
 * What o points to has to outlive it. A log knows checksums of some places of the disk, as it was. With append these places have to be
 * as they were, but for what the log holds: a log of another disk of that size would bring its bytes
 * here, and one of a disk that was written to without it would keep what is new for old. So neither
 * the disk's name matters (another one is a warning) nor what is going to be written.
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
 * The first stretch of whole grains, or grains up to the end of the disk, that [off, off+len)
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
