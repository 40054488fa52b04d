/* SPDX-License-Identifier: MIT */
/*
 * The progress line. Knows a terminal and a clock; must not know what is being done. Called by vmdksync.c.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "base/base.h"

/* Bytes a second: at first the average of all, later that of the last seconds. All zero at first. */
struct rate {
	uint64_t done;
	double time; /* of the last look, seconds from the start */
	double bytes;
};
/* done: bytes so far; now: seconds from the start, > 0. */
void rate_look(struct rate *r, uint64_t done, double now);

enum progress_form {
	PROGRESS_NONE, /* only the clock, and progress_say() */
	PROGRESS_LINE, /* one line, written over again and again */
	PROGRESS_JSON, /* an object a line: bytes, total, rate, seconds, left, schema, phase */
};

struct progress { /* private to progress.c, but for form; progress_init() */
	enum progress_form form;
	int fd; /* where it goes */
	const char *phase;
	uint64_t total, done; /* at the last object; total: 0 when unknown */
	double born;          /* the clock for machines */
	double start;         /* that for people */
	double due;           /* seconds from start; no line before */
	bool shown;
	struct rate rate; /* at the last line */
};

void progress_init(struct progress *p, enum progress_form form, int fd);
/* So much was done before. */
void progress_from(struct progress *p, uint64_t done);
/* A phase for machines: scan, write, sync, verify. The clock for people begins anew. */
void progress_begin(struct progress *p, const char *phase, uint64_t total);
/* The same without a new clock: counting begins again at 0, and goes to `total`. */
void progress_again(struct progress *p, const char *phase, uint64_t total);
/* Of what was counted already. */
void progress_phase(struct progress *p, const char *phase, uint64_t done);
/* At most six times a second. A line is never wider than the terminal, asked anew each time: what
 * does not fit is left out, the label first. done: bytes completed so far. */
void progress_show(struct progress *p, uint64_t done);
/* One line to fd, at once, with a line end. */
void progress_say(struct progress *p, int fd, uint64_t done);
/* Erases the line for people, so that a message can follow. */
void progress_end(struct progress *p, uint64_t done);
/* The last object for machines: the exit status, and the code of the error or NULL. */
void progress_last(struct progress *p, int status, const char *error);
/* Erases the line. */
void progress_clear(struct progress *p);
/* Seconds since progress_init(), or progress_begin(). */
double progress_seconds(const struct progress *p);

#endif
