/* SPDX-License-Identifier: MIT */
/*
 * One compressed grain (streamOptimized): the record it lies in, and inflating it. Must not know how
 * records are found: by markers (streamopt) or by tables (the orders), which call it. Facts: layout.h.
 */
#ifndef DEFLATE_H
#define DEFLATE_H

#include "run/run.h"

/* Checks the size, in bytes, of the compressed data in the record at pos, that of the grain at guest byte
 * off: it is possible, and inside the file. *end: where the next record begins. -EBADMSG. */
int deflate_record_end(const struct source *src, uint64_t pos, uint64_t off, uint64_t grain,
		       uint64_t bytes, uint64_t *end, struct err *e);
/* Largest size of a record, bytes; grain: bytes. */
uint64_t deflate_record_max(uint64_t grain);
/* Checks the head of the record at pos, without reading the data: it is that of the grain at guest byte
 * off, and its size is as above; *bytes: that size. -EBADMSG. */
int deflate_check_head(struct source *src, uint64_t pos, uint64_t off, uint64_t grain,
		       uint64_t *bytes, struct err *e);
/* The same in a stream, after waiting for the record. 1 all of it was received, 0 the stream ends before
 * that, -errno. */
int deflate_arrived(struct source *src, uint64_t pos, uint64_t off, uint64_t grain, struct err *e);

/* Inflates grains of one file, on any number of threads; in a stream those of records that were received
 * and are not released yet. Keeps the last grain of which a part was asked for. */
struct inflater;

int inflater_new(struct inflater **out, struct source *src, uint64_t size, uint64_t grain,
		 struct err *e);
void inflater_free(struct inflater *u); /* NULL-safe; src stays */
/* The bytes of a COMPRESSED run whose pos is the position of the marker; checks the record whole. */
int inflater_run(struct inflater *u, const struct run *run, void *buf, struct err *e);
/* Inflates the record at pos, that of the grain at guest byte off, and drops the result. -EBADMSG. */
int inflater_check(struct inflater *u, uint64_t pos, uint64_t off, struct err *e);

#endif
