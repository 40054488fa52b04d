/* SPDX-License-Identifier: MIT */
/*
 * A run is a range of guest bytes that is either data or zero. Runs, the reader that gives them, and the
 * gate that checks every one of them; all folders from vmdk/ on speak in runs. Must not know formats or
 * targets. All numbers are bytes.
 */
#ifndef RUN_H
#define RUN_H

#include "input/source.h"

struct reader;

#define LAYER_NONE UINT32_MAX

struct run { /* guest bytes [off, off+len) */
	uint64_t off, len;
	uint64_t pos;  /* RAW: where the bytes lie in src; COMPRESSED: the leaf's own mark */
	uint64_t skip; /* COMPRESSED: where the bytes lie among the inflated ones of the leaf */
	enum run_kind { RUN_RAW, RUN_COMPRESSED, RUN_ZERO, RUN_FENCE } kind;
	unsigned layer;      /* of a chain, 0 the newest; LAYER_NONE: a gap that reads as zeros */
	struct source *src;  /* RAW: anyone may read them */
	struct reader *leaf; /* COMPRESSED: only this reader can inflate them */
};

struct reader_ops {
	/* 1 got one, 0 end, -errno. Runs stay valid until free, but for those of a stream. */
	int (*next)(struct reader *r, struct run *run, struct err *e);
	int (*rewind)(struct reader *r, struct err *e); /* NULL where it is streaming */
	/* Inflates exactly run->len bytes; NULL where no run is COMPRESSED. Unless it is streaming, and does
	 * not say `threads`, on any number of threads at once, and while next() is called on another. */
	int (*fetch)(struct reader *r, const struct run *run, void *buf, struct err *e);
	void (*free)(struct reader *r); /* NULL: a part of something else, never given to reader_free() */
};

/* What all readers have in front; made by reader_init(). */
struct reader {
	const struct reader_ops *ops;
	const char *name; /* printable; for messages; lives as long as the reader */
	uint64_t size;    /* of the disk */
	unsigned layer;   /* what a merge calls its runs */
	unsigned share;   /* so many readers are used side by side: each takes its part of the memory
			   * that one may have; 0 is 1 */
	uint64_t at;      /* the gate: where the last run ended */
	bool ended;
	/* The leaf that reads a stream; NULL: there is none. Then runs come in
	 * any order, there is no rewind, and a FENCE may come between them: every COMPRESSED run before it
	 * has to be fetched before the reader is asked again. */
	struct reader *streaming;
	bool threads; /* of that leaf: see fetch */
};

void reader_init(struct reader *r, const struct reader_ops *ops, const char *name, uint64_t size);
/*
 * The gate. Asks for the next run and believes nothing of it: it is not empty, lies inside the disk
 * and, unless it is streaming, behind the run before, RAW bytes lie inside their source, COMPRESSED ones
 * have a reader that inflates them. A FENCE has no bytes; only a stream gives one. 1, 0, or -errno;
 * -EBADMSG for a run that breaks the rules.
 */
int reader_next(struct reader *r, struct run *run, struct err *e);
/* Starts again at the first run. -errno. */
int reader_rewind(struct reader *r, struct err *e);
int reader_fetch(const struct run *run, void *buf, struct err *e);
/* NULL-safe; frees what it is made of, too. */
void reader_free(struct reader *r);

/* The part of `most` for one of those that share it: all of it, or not less than `least`. */
static inline size_t reader_part(const struct reader *r, size_t most, size_t least)
{
	size_t part = r->share ? most / r->share : most;

	return r->share && part < least ? least : part;
}

/* Drops the first n bytes, n < run->len. */
static inline void run_trim_front(struct run *run, uint64_t n)
{
	run->off += n;
	run->len -= n;
	if (run->kind == RUN_RAW)
		run->pos += n;
	else if (run->kind == RUN_COMPRESSED)
		run->skip += n;
}

/* Whether b goes on exactly where a ends, in the guest and in the source. */
static inline bool run_joins(const struct run *a, const struct run *b)
{
	if (a->kind != b->kind || a->layer != b->layer || a->off + a->len != b->off)
		return false;
	return a->kind == RUN_ZERO ||
	       (a->kind == RUN_RAW && a->src == b->src && a->pos + a->len == b->pos);
}

#endif
