/*
 * Room 2: compressed grains and the markers in front of them (streamOptimized). Knows one record
 * and the chain of records; must not know headers, directories or tables, which are hosted.c's.
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
 * Looks at the marker at pos without reading what it stands before: it is that of the grain that
 * begins at guest byte `off`, and its record lies inside the file and is no longer than a grain can
 * make it. -EBADMSG.
 */
int grain_marker(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, uint64_t *bytes,
		 struct err *e);
/* The same of a record that passes. 1 it has come whole, 0 it never will, -errno. */
int grain_arrived(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, struct err *e);

/* Unpacks grains of one file, on any number of threads: of what is passing, of records that have come
 * whole, until they are released. Keeps the last one of which it was asked for a part. */
struct unpacker;

int unpacker_new(struct unpacker **out, struct source *src, uint64_t size, uint64_t grain,
		 struct err *e);
void unpacker_free(struct unpacker *u); /* NULL-safe; src stays */
/* The bytes of a PACKED run whose pos is the position of the marker; checks the record whole. */
int grain_inflate(struct unpacker *u, const struct run *run, void *buf, struct err *e);

/*
 * A reader that needs no tables: its first walk goes over all markers of the file, up to the one
 * that ends them, and remembers where the grains are, as many as it may hold. An unfinished undo log
 * ends with its last whole record; that nothing behind it had been on stable storage is checked.
 * Takes src over when it succeeds.
 */
int stream_open(struct reader **out, struct source *src, const struct stream_shape *shape,
		struct err *e);

#endif
