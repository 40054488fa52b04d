/*
 * Room 6: the progress line. Knows a terminal and a clock; must not know what is being done.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "base.h"

struct progress;

/* fd: where the line goes. total: bytes, 0 when unknown. NULL when memory is short (all calls below
 * take NULL and do nothing). */
struct progress *progress_new(int fd, const char *label, uint64_t total);
/* At most six lines a second; never wider than the terminal (asked anew at every line). done: bytes
 * completed so far. */
void progress_show(struct progress *p, uint64_t done);
/* Erases the line, so that a message or the summary can follow. */
void progress_clear(struct progress *p);
void progress_free(struct progress *p);
/* Seconds since progress_new(). */
double progress_seconds(const struct progress *p);

#endif
