/* SPDX-License-Identifier: MIT */
/*
 * A grain tree, as COWD, hosted sparse and SEsparse have one: a directory names tables, a table names
 * grains. This file knows its shape, decodes entries, and adds up what they name. It must not know what an
 * entry looks like (the leaf decodes it), nor in which order the tree is walked: that is the business of
 *
 *   guest_order   of files: bounded memory whatever the size of the disk, rewindable;
 *   file_order    of streams: the directory first, then tables and grains as they are received.
 *
 * A leaf calls tree_open() of file_order, which chooses; only these two call what stands behind "for the orders". All
 * numbers are bytes unless they say something else.
 */
#ifndef TREE_H
#define TREE_H

#include "vmdk/format.h"

enum tree_grain { GRAIN_NONE, GRAIN_ZERO, GRAIN_DATA };

struct tree;

struct tree_area { /* metadata in the file, bytes [at, end): nothing else may lie there */
	uint64_t at, end;
	const char *what;
};

#define TREE_AREAS 8

/* Sums of the first walk of a file, or the only one of a stream. */
struct tree_sums {
	uint64_t tables;     /* entries of the directory that are not 0 */
	uint64_t missing;    /* the first of those that are, if any */
	uint64_t data, zero; /* grains */
	uint64_t hash;       /* of account_hash() over the data grains, where they are compressed */
	uint64_t claimed;    /* sectors from shape.count_from on that areas, tables and data grains take;
			      * of compressed grains one each */
	uint64_t beyond;     /* sectors that the last grain would take behind the end of the disk */
	uint64_t end;        /* where the last of all that ends */
	uint64_t data_end;   /* of a stream with shape.received: behind its last byte that is not 0 */
};

struct tree_shape {
	uint64_t size;    /* of the disk, not 0 */
	uint64_t grain;
	uint64_t dir;     /* position of the directory */
	uint64_t mirror;  /* position of a redundant directory with tables of its own that has to say
			   * the same; 0: none */
	uint64_t tables;  /* entries of the directory in use: those that cover the disk */
	uint32_t entries; /* of a table */
	uint32_t width;   /* of an entry of either, 4 or 8 bytes */
	uint32_t unit;    /* sectors; all tables and grains begin at multiples of it, and whatever lies
			   * in one unit with an area is part of that; 0: 1 */
	struct tree_area area[TREE_AREAS];
	size_t areas;
	uint64_t count_from; /* position, see tree_sums.claimed */
	/* Grains are compressed: each is a run of its own, of kind COMPRESSED, whose pos is that of its
	 * record; only the first sector of that is claimed. grain_at checks the record. */
	bool compressed;
	struct format_opts opts;
	uint64_t floor;    /* no sane file has a grain before this position; what judge() needs to know,
			    * but for tables, ends here */
	/* Bytes in use, as the header says; 0: it does not. Where it does, an entry of 4 bytes that leads from
	 * `floor` on to less is the sector of a data grain, and grain_at says nothing more of it. */
	uint64_t promised;
	/* Of streams: */
	uint64_t least; /* no whole file is shorter */
	/* File bytes [from, to), a window or the received part of it, are there until this returns.
	 * NULL: nobody looks at them, and bytes behind the last grain are dropped. */
	int (*received)(struct tree *t, uint64_t from, uint64_t to, struct err *e);
	/* All tables are received, and all bytes before `floor`: the last moment to refuse what they
	 * say before anything is written, unless grains precede tables. May be NULL. */
	int (*judge)(struct tree *t, const struct tree_sums *s, struct err *e);
	/* Of both: */
	/* Judges the sums at the end of the first walk of a file, or at the end of a stream. 0 or -errno.
	 * May be NULL. */
	int (*account)(struct tree *t, const struct tree_sums *s, struct err *e);
	/* raw: the entry as it stands in the file, not 0 (that is "none" in every format). Table i:
	 * 1 and its position, or 0, or -errno. */
	int (*table)(struct tree *t, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e);
	/* Grain n: GRAIN_ZERO, GRAIN_DATA and its position, or -errno. */
	int (*grain_at)(struct tree *t, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e);
};

/* A leaf has this in front of what it adds, in one piece of memory. */
struct tree {
	struct reader reader;
	struct source *src; /* owned */
	struct inflater *inflater; /* NULL: grains are plain */
	struct tree_shape shape;
	struct tree_sums sums;
	bool first; /* walk, of which sums are made; the only one of a stream */
	bool warned_beyond;
	struct guest_order *guest; /* private to guest_order.c */
	struct file_order *file;   /* private to file_order.c; NULL in guest order */
};

/* --- for the orders --- */

/* Sets all of *t but the orders; checks that areas lie inside the file and apart. src stays the caller's
 * when this fails. -errno. */
int tree_init(struct tree *t, struct source *src, const struct tree_shape *shape,
	      const struct reader_ops *ops, struct err *e);
/* Frees the source, the inflater, and t with what the leaf added. */
void tree_free(struct tree *t);
/* Nothing is counted but the areas. */
void tree_reset_sums(struct tree *t);

static inline uint64_t tree_entry(const struct tree *t, const uint8_t *p)
{
	return t->shape.width == 4 ? le32(p) : le64(p);
}

static inline size_t tree_table_bytes(const struct tree *t)
{
	return (size_t)t->shape.entries * t->shape.width;
}

/* "grain table", or what its copy is called. */
const char *tree_table_text(bool copy);
/*
 * Entry i of the directory and, where mirror is not NULL, that of the redundant one: 1 and the positions
 * of the tables, which end before `limit`; 0 when there is none; -errno. count: adds them to the sums.
 */
int tree_tables(struct tree *t, uint64_t i, uint64_t raw, uint64_t raw_mirror, uint64_t limit, bool count,
		uint64_t *pos, uint64_t *mirror, struct err *e);

/* Neighbouring grains: guest bytes [off, off + len) lie at pos. */
struct tree_span {
	uint64_t off, len, pos;
};
#define TREE_ZEROS UINT64_MAX /* as pos: they are zeros */

/* A walk over one table. */
struct tree_scan {
	const uint8_t *p;  /* its entries */
	uint64_t base;     /* the grain of the first of them */
	uint64_t limit;    /* where the file ends */
	uint32_t used, k;  /* entries that belong to the disk, and the one in work */
	uint32_t grains;   /* in the last span */
	int kind;          /* of entry k where that is decoded, or GRAIN_NONE; */
	uint64_t pos;      /* and its position */
};

/* Of table `index`, whose entries p stay there; warns of entries beyond the disk. -errno. */
int tree_scan_begin(struct tree *t, struct tree_scan *s, uint64_t index, const uint8_t *p, uint64_t limit,
		    struct err *e);
/* The next grains that lie one behind the other. 1, 0 when there are no more, -errno. */
int tree_scan_next(struct tree *t, struct tree_scan *s, struct tree_span *span, struct err *e);
/* Adds that span to the sums. */
void tree_count(struct tree *t, const struct tree_scan *s, const struct tree_span *span);
/* The run of it: zeros, or data that has to be read from the source or inflated by the leaf. */
void tree_run(struct tree *t, const struct tree_span *span, struct run *run);
/* -EBADMSG: object n at file bytes [at, end) shares sectors with another. */
int tree_overlap(const struct tree *t, const char *what, uint64_t n, uint64_t at, uint64_t end,
		 struct err *e);

#endif
