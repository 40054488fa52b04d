/* SPDX-License-Identifier: MIT */
/* A transfer, what a queue has in flight: see queue.h. */
#ifndef XFER_H
#define XFER_H

#include "output/workers.h"

enum xfer_kind {
	XFER_READ,
	XFER_WRITE,
	XFER_ZERO,  /* fallocate(2) with `mode`; no buffer */
	XFER_FLUSH, /* fdatasync(2): covers all that completed before it was put; no range */
	XFER_POLL,  /* private to queue.c: until fd is readable */
	XFER_JOB,   /* job.run() on some thread, which leaves its result where it likes */
};

struct xfer {
	enum xfer_kind kind;
	bool in_line; /* never through io_uring */
	bool direct;  /* of a target: past the page cache; the queue does not look at it */
	int fd;
	int mode;     /* XFER_ZERO: FALLOC_FL_... */
	void *buf;
	uint64_t len; /* bytes; of reads and writes at most 1 GiB */
	uint64_t off; /* bytes */
	struct job job; /* XFER_JOB: its run() */
	void *owner;  /* the caller's */
	/* err: 0 or -errno. A read that meets the end of the file is -ENODATA, a write that makes
	 * no progress is -ENOSPC. x->done_len tells how many bytes were moved. */
	void (*done)(struct xfer *x, int err);
	uint64_t done_len;
	/* private to queue.c */
	struct xfer *next;
	int res;
};

#endif
