/* SPDX-License-Identifier: MIT */
/*
 * What can be done with a reader: scan, check, apply, verify. Jobs report through their options; they
 * must not print, and know no formats. Called by vmdksync.c.
 */
#ifndef JOBS_H
#define JOBS_H

#include "chain/chain.h"
#include "output/pump.h"
#include "vmdk/undo.h"

struct totals { /* of one walk over a reader; bytes */
	uint64_t runs, data, zero;
	uint64_t end; /* where the last run ends */
};

/* Walks the whole metadata once, so that damage is found while the target is untouched, and rewinds
 * (but for a stream). inflate: compressed grains are inflated as well, which takes as long as it does
 * for an apply. 0, or -errno: -EINTR when o->stop said so. */
int job_scan(struct reader *r, const struct pump_opts *o, bool inflate, struct totals *t,
	     struct err *e);
/* TARGET before the first write, by samples: does it hold what the parents of the deltas hold, and
 * does it hold the deltas already. look_free(). */
struct look {
	char why[1024];      /* what the parents hold was not compared: why not, a phrase; else "" */
	unsigned reads;      /* samples of what only the parents hold that were compared */
	unsigned differ, of; /* of those of the lowest link that TARGET does not hold; 0: it holds all */
	size_t link;         /* its number in the chain, */
	char *name;          /* its printable name, */
	bool base;           /* whether it has no parent, */
	struct run at;       /* and the first sample that differs */
	unsigned own;        /* samples of what the deltas hold, but for zeros, */
	unsigned own_same;   /* and how many of them TARGET holds already */
};

/* Whether that is so many that the deltas have been written before. */
#define LOOK_NEARLY_ALL(same, all) ((all) && (same) >= (all) - (all) / 10)

/* c->reader: of the newest n links, which are to be written; it is rewound. o: how parents are opened,
 * quietly but for o->base. -errno not for what is wrong with the parents. */
int job_look(struct look *look, const struct chain *c, size_t n, struct target *t,
	     const struct chain_opts *o, const struct pump_opts *pump, struct err *e);
void look_free(struct look *look);
/* How many grains, and tables of `table` grains, of an undo log the runs touch. Rewinds. */
int job_touched(struct reader *r, uint64_t grain, uint64_t table, uint64_t *grains, uint64_t *tables,
		struct err *e);

/*
 * Whether t is the disk that the undo logs of the chain are of: places that neither they nor any
 * other of its images hold are compared with what the logs know of them. c->reader, which must not be
 * a stream unless there is one link, is at its start, and is rewound. *places: how many were compared.
 * -EINVAL: t is another disk, or was written to; -errno.
 */
int job_check_undo(const struct chain *c, struct target *t, size_t *places, struct err *e);
/* Writes the runs and makes them durable. 0 or -errno; stats->begun tells whether the target may
 * have changed. When stopped by opts->stop what was written is durable. undo: NULL, or the log in
 * which what is overwritten is on stable storage first; the caller finishes it; stats->present is
 * counted then. sums: NULL, or what keeps checksums of r, see below. */
struct sums;
int job_apply(struct reader *r, struct target *t, const struct pump_opts *o, struct undo *undo,
	      struct sums *sums, struct pump_stats *stats, struct err *e);

struct difference {
	uint64_t off, len; /* bytes; from the first that differs to the last */
	unsigned layer;    /* where the expected bytes come from, see struct run */
	bool zero;         /* they are zeros */
	uint64_t before, behind; /* equal bytes to the ends of the run that was compared */
};

struct verify_result {
	struct difference *diff; /* ascending; verify_free() */
	size_t n;
	bool more;          /* there are others, behind those */
	uint64_t bytes;     /* of all differences */
	uint64_t compared;  /* bytes read and compared; what is a hole of the target and zeros in the
			     * image is neither */
};

/* Compares the target with the runs; writes nothing. sums: NULL, or instead of r what was kept of it, 64 KiB
 * each: a difference is that large; once. 0 also where they differ, or -errno. */
int job_verify(struct reader *r, struct sums *sums, struct target *t, const struct pump_opts *o,
	       struct verify_result *v, struct pump_stats *stats, struct err *e);
void verify_free(struct verify_result *v);

/*
 * For input that cannot be read again: checksums of what is written, in bounded memory, the rest of
 * them in the spool. The writer takes the runs from sums_tap(), and shows every batch to sums_add().
 */
/* input and spool_dir (NULL: as for source_open_any()) have to outlive it. */
int sums_new(struct sums **out, struct reader *input, const char *spool_dir, struct err *e);
void sums_free(struct sums *s); /* NULL-safe; input stays */
struct reader *sums_tap(struct sums *s);
int sums_add(struct sums *s, const struct batch_view *b, struct err *e);
#endif
