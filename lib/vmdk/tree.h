/*
 * Room 2: the walk that COWD, hosted sparse and SEsparse share: directory, table, grain. Knows
 * positions in one file; must not know what an entry looks like (the leaf decodes it).
 *
 * Guest order, of files: bounded memory whatever the size of the disk, rewindable. The first walk also claims
 * every sector of the file that a table or a grain stands on, and refuses what is claimed twice.
 *
 * File order, of what is passing (file_order.c): the directory is read first, and what it names is
 * awaited; a table that comes adds its grains, grains that come are given. What a later table might
 * still name goes to the spool.
 */
#ifndef TREE_H
#define TREE_H

#include "run/run.h"

enum tree_grain { GRAIN_NONE, GRAIN_ZERO, GRAIN_DATA };

struct tree;

struct tree_area { /* metadata in the file, bytes [at, end): nothing else may lie there */
	uint64_t at, end;
	const char *what;
};

#define TREE_AREAS 8

/* What the first walk of a file, or the only one of a stream, adds up. */
struct tree_sums {
	uint64_t tables;     /* entries of the directory that are not 0 */
	uint64_t missing;    /* the first of those that are, if any */
	uint64_t data, zero; /* grains */
	uint64_t hash;       /* of account_hash() over the data grains, where they are packed */
	uint64_t claimed;    /* sectors from shape.count_from on that areas, tables and data grains take;
			      * of packed grains one each */
	uint64_t beyond;     /* sectors that the last grain would take behind the end of the disk */
	uint64_t end;        /* where the last of all that ends, bytes */
	uint64_t data_end;   /* of a stream with shape.received: behind its last byte that is not 0 */
};

struct tree_shape {
	uint64_t size;    /* of the disk, bytes, not 0 */
	uint64_t grain;   /* bytes */
	uint64_t dir;     /* position of the directory, bytes */
	uint64_t mirror;  /* position of a redundant directory with tables of its own that has to say
			   * the same; 0: none */
	uint64_t tables;  /* entries of the directory in use: those that cover the disk */
	uint32_t entries; /* of a table */
	uint32_t width;   /* of an entry of either, 4 or 8 bytes */
	uint32_t unit;    /* sectors; all tables and grains begin at multiples of it, and whatever lies
			   * in one unit with an area is part of that; 0: 1 */
	struct tree_area area[TREE_AREAS];
	size_t areas;
	/* of what is passing */
	uint64_t floor;    /* no sane file has a grain before this position */
	uint64_t least;    /* no whole file is shorter */
	uint64_t head;     /* what judge() needs to know ends here, but for tables */
	/* File bytes [from, to), a window or the part of it that came, are there until this returns.
	 * NULL: nobody looks at them, and what comes behind the last grain is dropped. */
	int (*received)(struct tree *g, uint64_t from, uint64_t to, struct err *e);
	/* All tables have come, and all bytes before `head`: the last moment to refuse what they say
	 * before anything is written, unless grains come before tables. NULL: nobody does. */
	int (*judge)(struct tree *g, const struct tree_sums *s, struct err *e);
	uint64_t promised; /* bytes that are in use, as the header says; 0: it does not */
	uint64_t memory; /* bytes of memory for what is awaited; 0: the usual number */
	/* Where entries are sector numbers: of one from plain_from on and before plain_to, grain_at
	 * says that a data grain begins there, and nothing more. 0, 0: there are none. */
	uint64_t plain_from, plain_to;
	/* Grains are packed: each is a run of its own, of kind PACKED, whose pos is that of its
	 * record; only the first sector of that is claimed. grain_at checks the record. */
	bool compressed;
	uint64_t count_from; /* position, see tree_sums.claimed */
	/* Judges the sums at the end of the first walk of a file, or when all of a stream has come. 0 or
	 * -errno; NULL: nobody does. */
	int (*account)(struct tree *g, const struct tree_sums *s, struct err *e);
	/* raw: the entry as it stands in the file, not 0 (that is "none" in every format). Table i:
	 * 1 and where it is (bytes), or 0, or -errno. */
	int (*table)(struct tree *g, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e);
	/* Grain n: one of enum tree_grain and where it is (bytes), or -errno. first: this is the
	 * first walk, the one that warns. */
	int (*grain_at)(struct tree *g, uint64_t n, uint64_t raw, bool first, uint64_t *pos,
			struct err *e);
	/* where packed: the bytes of a run, as in reader_ops.fetch */
	int (*unpack)(struct tree *g, const struct run *run, void *buf, struct err *e);
	/* where packed, and passing: the record at pos, that of the grain at guest byte off. 1 it has
	 * come whole, 0 it never will, -errno. */
	int (*whole)(struct tree *g, uint64_t pos, uint64_t off, struct err *e);
	void (*free)(struct tree *g); /* frees what the leaf added, not g; may be NULL */
};

/* A leaf has this in front of what it adds. */
struct tree {
	struct reader reader;
	struct source *src; /* owned */
	struct tree_shape shape;
	struct guest_order *guest;   /* private to guest_order.c */
	struct file_order *file; /* private to file_order.c; NULL in guest order */
};

/* Takes src over when it succeeds. g is the leaf's, zeroed; tree_free() gives it to free(). Checks
 * that areas lie inside the file and apart. -errno. */
int tree_init(struct tree *g, struct source *src, const struct tree_shape *shape,
	       struct err *e);

/* Between guest_order.c and file_order.c. */

/* Reads the directory of what is passing. 1 when the walk will be in file order; 0 when it cannot be,
 * and everything was spooled: g->src is a file now. */
int file_order_init(struct tree *g, struct err *e);
int file_order_next(struct reader *reader, struct run *run, struct err *e);
int file_order_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e);
void file_order_free(struct file_order *q); /* NULL-safe */
static inline uint64_t tree_entry(const struct tree *g, const uint8_t *p)
{
	return g->shape.width == 4 ? le32(p) : le64(p);
}

/* Bytes of grain n that belong to the disk. */
uint64_t tree_grain_len(const struct tree *g, uint64_t n);
/* Decodes the entry of grain n, and checks that it leads to bytes before `limit`. */
int tree_decode(struct tree *g, uint64_t n, uint64_t raw, bool first, uint64_t limit,
		 uint64_t *pos, struct err *e);
/* Of a table p: the first entry from k on that is not the plain grain that follows the one before, of
 * which `raw` leads to entry k - 1; or `used`. With grains of one sector there are two million
 * entries in a GiB. */
uint32_t tree_skip_plain(const struct tree *g, const uint8_t *p, uint32_t k, uint32_t used,
			  uint64_t raw, uint64_t limit);

#endif
