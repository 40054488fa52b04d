/* SPDX-License-Identifier: MIT */
/*
 * The chain of markers of streamOptimized files and streams, by which records of grains are found
 * without tables: a reader over it, and a walk that counts. Must not know header, directory or tables,
 * which are hosted's, nor what a record holds (deflate). Called by hosted. Facts: layout.h.
 */
#ifndef STREAMOPT_H
#define STREAMOPT_H

#include "vmdk/format.h"

/* From the header, checked by hosted. Bytes, but for sectors and marks. */
struct streamopt_shape {
	uint64_t size;          /* of the disk */
	uint64_t grain;
	uint64_t start;         /* position of the first marker */
	uint64_t table_sectors; /* of a grain table */
	uint64_t dir_sectors;   /* of the grain directory */
	size_t marks;           /* that may be held in memory, 16 bytes each; not 0 */
	bool open_log;          /* an undo log that was not finished: it may end anywhere */
	bool no_end;            /* the file may end behind any record, without an end marker */
	/* Of a stream: the header, and whether f is the footer to it. */
	uint8_t head[SECTOR];
	bool (*is_footer)(const uint8_t *head, const uint8_t *f);
	struct format_opts opts;
};

/* What a walk over all markers adds up. */
struct streamopt_sums {
	uint64_t grains, hash;  /* of account_hash() */
	uint64_t others;        /* markers without data, but for the end */
	uint64_t pos;           /* of the next marker */
	bool ended;
	bool tail;              /* there is data behind the end marker, at pos or further on */
	struct err why;         /* what is wrong with the marker at pos; not set: nothing was */
};

/* Adds the next marker to the sums, which are zeroed before the first. An invalid marker ends them, see
 * `why`. 0 or -errno. */
int streamopt_count(struct streamopt_sums *sums, struct source *src,
		    const struct streamopt_shape *shape, struct err *e);
/* Says that there is data behind the end marker, whose sector ends at pos: a refusal, or a warning. */
int streamopt_tail(const struct source *src, const struct format_opts *o, uint64_t pos, struct err *e);
/*
 * A reader that needs no tables. Of a file its first walk goes over all markers, and remembers where
 * the grains are, as many as it may hold; an unfinished undo log ends with its last whole record, and
 * that nothing behind that had been on stable storage is checked. A stream is read once, in its order.
 * Takes src over when it succeeds.
 */
int streamopt_open(struct reader **out, struct source *src, const struct streamopt_shape *shape,
		   struct err *e);
/* Whether the markers of a file lead to every grain: inflates all of them. why: what is wrong, not set
 * where nothing is. 0 or -errno. */
int streamopt_check(struct source *src, const struct streamopt_shape *shape, struct err *why,
		    struct err *e);

#endif
