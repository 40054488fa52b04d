/*
 * Room 2: the chain of markers (streamOptimized), in which the records of grains are found without
 * tables. Must not know headers, directories or tables, which are hosted.c's, nor what a record holds.
 */
#ifndef STREAM_H
#define STREAM_H

#include "format.h"

/* What the header says, checked there. Bytes, but for sectors and marks. */
struct stream_shape {
	uint64_t size;          /* of the disk */
	uint64_t grain;
	uint64_t start;         /* position of the first marker */
	uint64_t table_sectors; /* of a grain table */
	uint64_t dir_sectors;   /* of the grain directory */
	size_t marks;           /* that may be held in memory, 16 bytes each; not 0 */
	bool open_log;          /* an undo log that was not finished: it may end anywhere */
};

/*
 * A reader that needs no tables: its first walk goes over all markers of the file, up to the one
 * that ends them, and remembers where the grains are, as many as it may hold. An unfinished undo log
 * ends with its last whole record; that nothing behind it had been on stable storage is checked.
 * Takes src over when it succeeds.
 */
int stream_open(struct reader **out, struct source *src, const struct stream_shape *shape,
		struct err *e);

#endif
