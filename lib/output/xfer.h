/* SPDX-License-Identifier: MIT */
/* A transfer, what a queue has in flight: see queue.h. And lists of them; one stands in one at most. */
#ifndef XFER_H
#define XFER_H

#include "base/base.h"

enum xfer_kind {
	XFER_READ,
	XFER_WRITE,
	XFER_ZERO,  /* fallocate(2) with `mode`; no buffer */
	XFER_FLUSH, /* fdatasync(2): covers all that completed before it was put; no range */
	XFER_POLL,  /* private to queue.c: until fd is readable */
	XFER_JOB,   /* run() on some thread, which leaves its result where it likes */
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
	void (*run)(struct xfer *x); /* XFER_JOB */
	void *owner;  /* the caller's */
	/* err: 0 or -errno. A read that meets the end of the file is -ENODATA, a write that makes
	 * no progress is -ENOSPC. x->done_len tells how many bytes were moved. */
	void (*done)(struct xfer *x, int err);
	uint64_t done_len;
	/* of whoever has it, from queue_put() to done() */
	struct xfer *next;
	int res;
};

struct xfer_list {
	struct xfer *head, **tail; /* tail: where there is a head */
};

static inline void xfer_append(struct xfer_list *l, struct xfer *x)
{
	x->next = NULL;
	*(l->head ? l->tail : &l->head) = x;
	l->tail = &x->next;
}

/* The first one, or NULL. */
static inline struct xfer *xfer_take(struct xfer_list *l)
{
	struct xfer *x = l->head;

	if (x)
		l->head = x->next;
	return x;
}

/* All of them, by x->next. */
static inline struct xfer *xfer_take_all(struct xfer_list *l)
{
	struct xfer *x = l->head;

	l->head = NULL;
	return x;
}

#endif
