/*
 * Room 2: the chain of markers (streamOptimized), in which the records of grains are found without
 * tables. Must not know headers, directories or tables, which are hosted.c's, nor what a record holds.
 */
#ifndef STREAMOPT_H
#define STREAMOPT_H

#include "vmdk/format.h"

/* What the header says, checked there. Bytes, but for sectors and marks. */
struct streamopt_shape {
	uint64_t size;          /* of the disk */
	uint64_t grain;
	uint64_t start;         /* position of the first marker */
	uint64_t table_sectors; /* of a grain table */
	uint64_t dir_sectors;   /* of the grain directory */
	size_t marks;           /* that may be held in memory, 16 bytes each; not 0 */
	bool open_log;          /* an undo log that was not finished: it may end anywhere */
	bool no_end;            /* the file may end behind any record, without an end marker */
	/* Of what passes: where the header has the directory; UINT64_MAX: a footer has to say it. */
	uint64_t dir_at;
	uint8_t head[SECTOR];   /* the header, and whether f is the footer to it; its directory */
	bool (*is_footer)(const uint8_t *head, const uint8_t *f, uint64_t *dir_at);
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

/*
 * A reader that needs no tables: its first walk goes over all markers of the file, up to the one
 * that ends them, and remembers where the grains are, as many as it may hold. An unfinished undo log
 * ends with its last whole record; that nothing behind it had been on stable storage is checked.
 * Takes src over when it succeeds.
 */
/* Takes the next marker of a file into the sums, which are zeroed before the first. A marker that is
 * none ends them. 0 or -errno. */
int streamopt_count(struct streamopt_sums *sums, struct source *src, const struct streamopt_shape *shape,
		 struct err *e);
int streamopt_open(struct reader **out, struct source *src, const struct streamopt_shape *shape,
		struct err *e);
/* Whether the markers of a file lead to every grain: inflates all of them. why: what is wrong, not set
 * where nothing is. 0 or -errno. */
int streamopt_check(struct source *src, const struct streamopt_shape *shape, struct err *why, struct err *e);

#endif
