/*
 * Room 2: one compressed grain (streamOptimized): the record it stands in, and what that unpacks to.
 * Must not know how records are found: that is the business of streamopt.c and of tables.
 */
#ifndef DEFLATE_H
#define DEFLATE_H

#include "run/run.h"

/* Whether a grain of the guest bytes from `off` on may have so many bytes of compressed data in the
 * record at pos. *end: behind that, a whole number of sectors. -EBADMSG. */
int deflate_record_end(const struct source *src, uint64_t pos, uint64_t off, uint64_t grain, uint64_t bytes,
		 uint64_t *end, struct err *e);
/* Bytes that the record of a grain of so many takes at most. */
uint64_t deflate_record_max(uint64_t grain);
/*
 * Looks at the marker at pos without reading what it stands before: it is that of the grain that
 * begins at guest byte `off`, and its record lies inside the file and is no longer than a grain can
 * make it. -EBADMSG.
 */
int deflate_check_head(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, uint64_t *bytes,
		 struct err *e);
/* The same of a record that passes. 1 it has come whole, 0 it never will, -errno. */
int deflate_arrived(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, struct err *e);

/* Unpacks grains of one file, on any number of threads: of what is passing, of records that have come
 * whole, until they are released. Keeps the last one of which it was asked for a part. */
struct inflater;

int inflater_new(struct inflater **out, struct source *src, uint64_t size, uint64_t grain,
		 struct err *e);
void inflater_free(struct inflater *u); /* NULL-safe; src stays */
/* The bytes of a PACKED run whose pos is the position of the marker; checks the record whole. */
int inflater_run(struct inflater *u, const struct run *run, void *buf, struct err *e);
/* Whether the record at pos is whole: that of the grain at guest byte off. -EBADMSG. */
int inflater_check(struct inflater *u, uint64_t pos, uint64_t off, struct err *e);

#endif
