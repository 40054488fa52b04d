/* SPDX-License-Identifier: MIT */
/*
 * The disk that is written. Opens and identifies a file or block device, refuses the wrong
 * one, tells how to write to it, and zeroes ranges. Knows file systems and devices; must not know
 * runs or formats. All offsets and lengths are bytes.
 */
#ifndef TARGET_H
#define TARGET_H

#include "output/queue.h"

/* Whether both are of the same file or device, whatever names led to it. */
bool same_disk(const struct stat *a, const struct stat *b);

struct target;

/* What a kind of target does in its own way, one table a file: target_file.c, target_nbd.c. The functions
 * below of the same names say what is expected of each. */
struct target_ops {
	void (*put)(struct target *t, struct queue *q, struct xfer *x);
	bool (*look)(struct target *t, uint64_t off, void *buf, size_t n);
	void (*free)(struct target *t); /* all but name */
	/* NULL where a server keeps the bytes: */
	void (*advise)(const struct target *t, uint64_t off, uint64_t len, int advice); /* posix_fadvise(2) */
	bool (*room)(const struct target *t, uint64_t *bytes);
	int (*sync_name)(const struct target *t, struct err *e);
};

struct target {
	const struct target_ops *ops;
	char *name;       /* printable; owned */
	const char *kind; /* "file", "device", "nbd" */
	struct stat st;   /* of what was opened; zeros where a server keeps the bytes */
	bool past_cache; /* transfers can be direct */
	bool aligned;    /* all transfers align to block, not the direct ones alone */
	uint64_t size;   /* bytes; never changes */
	uint32_t block;  /* what direct transfers align to (offset, length), power of two, 512 ... */
	uint32_t memory; /* what their buffers align to */
	uint32_t cached; /* what the page cache writes as a whole, power of two: a page or a larger block
			  * of the file system; block where no such writes are in flight with others */
	bool device;
	bool thick;      /* device, or a file with (nearly) every block allocated */
	bool thin;       /* zeros need not take room: data that are zeros are zeroed, not written */
	bool rereads;    /* zeros would take room, as nobody can make them otherwise: what is to be zeroed
			  * is read first, and left alone where it is zeros already */
	bool created;    /* by us: holds nothing but zeros */
	bool in_memory;  /* a file that is lost when the machine stops (tmpfs) */
	/* NULL, or how a program keeps the bytes instead of the kernel: see served.h. Then one read or
	 * write is in flight at a time, and zeros are sent as bytes. */
	const char *served;
	bool read_only;  /* may not be written; only where target_opts asks for no more than reading */
	/* How zeros can be made of a range without sending them, a bit for each way: FALLOC_FL_PUNCH_HOLE,
	 * FALLOC_FL_ZERO_RANGE, the latter where a server is asked. 0: none is trusted, or left. */
	int zero_ways;
	int dead;        /* 0, or the -errno with which every transfer ends, as the server is lost; then */
	const char *why; /* that in words */
	struct extents *extents; /* NULL: all is data and written */
};

struct target_opts {
	uint64_t need;   /* bytes the disk has: a smaller target is refused */
	bool read_only;  /* opened O_RDONLY: dry run, verify */
	bool create;     /* make a new sparse regular file of `need` bytes (O_EXCL) */
	bool force_busy; /* go on where it is held by someone */
	unsigned silence; /* seconds after which a server that does not answer is given up; 0: usual */
	/* Asked while a server is waited for that does not answer. NULL: never. */
	bool (*stop)(void *arg);
	void *arg;
	const struct target_input {
		const struct stat *st;
		const char *name; /* printable */
	} *inputs;                /* none of which the target may be */
	size_t n_inputs;
};

/* Refuses, each with a message of its own: see the guards in the manual. Nothing of the target has
 * changed when it fails. -errno: ENOENT, EISDIR, ENOTBLK (FIFO, terminal, socket, other), EROFS,
 * EBUSY, EINVAL (is an input), ENOSPC (too small), or the system's. */
int target_open(struct target **out, const char *path, const struct target_opts *o, struct err *e);
/* The same for one kind of target; called by target_open(). */
int target_file_open(struct target **out, const char *path, const struct target_opts *o,
		     struct err *e);
int target_nbd_open(struct target **out, const char *uri, const struct target_opts *o, struct err *e);
/* -ENOSPC where t->size is too small. For those. */
int target_check_size(const struct target *t, const struct target_opts *o, struct err *e);
/* NULL-safe. Does not sync. */
void target_free(struct target *t);

/* Whether every byte of the range lies in blocks that are allocated and written, so that a direct
 * write there is an overwrite. True for devices, and for what a program serves, where direct writes
 * are faster throughout. Answers from a cached window of the extent map. */
bool target_written(struct target *t, uint64_t off, uint64_t len);
/* Where the range of data, or of hole (which reads as zeros), that begins at off ends: UINT64_MAX
 * when nobody knows of another. *hole says which it is; devices are all data, and so is what a program
 * serves: holes that it names are a promise of its own. */
uint64_t target_range(struct target *t, uint64_t off, bool *hole);
/* What n bytes at off hold now; false when they cannot all be read. */
bool target_look(struct target *t, uint64_t off, void *buf, size_t n);
/* The bytes of the range are going to be looked at. */
void target_hint(struct target *t, uint64_t off, uint64_t len);
/* Whether st is of the same file or device. */
bool target_is(const struct target *t, const struct stat *st);
/* How many bytes are free where it lies; false where nobody knows. */
bool target_room(const struct target *t, uint64_t *bytes);
/* Forgets what is in the page cache and in cached extent maps, so that what is read next comes from
 * the disk. To be called when all is synced. */
void target_forget(struct target *t);
/* Puts a transfer of the target into the queue: kind, direct, buf, len, off, owner and done are set.
 * Direct ones align to block and memory; zeroing to block. */
void target_put(struct target *t, struct queue *q, struct xfer *x);
/* Whether err, of a transfer that was to zero, says that this way is not supported: it will not be
 * tried again, another one may, if t->zero_ways has one. */
bool target_zero_unsupported(struct target *t, const struct xfer *x, int err);
/* What err, which a transfer ended with, means; for people. */
const char *target_why(const struct target *t, int err);
/* fsync of the directory of a created file. */
int target_sync_name(struct target *t, struct err *e);

#endif
