/* SPDX-License-Identifier: MIT */
/*
 * What people are told on standard error, as lines of text. Knows the words and what a run of the program
 * found; must not print, and decides nothing. Called by vmdksync.c.
 */
#ifndef SAY_H
#define SAY_H

#include "cli/json.h"
#include "cli/report.h"

/* Of a rollback, whether the target is the disk of the log. */
void say_logs(struct text *t, const struct work *w);
/* The images, what will be written, what the target holds: all that is known before the first write. */
void say_facts(struct text *t, const struct work *w);
/* What is to be written; a part of a line. */
void say_totals(struct text *t, const struct totals *sum);
void say_dry_run(struct text *t, const struct work *w);
/* How it was read and written. */
void say_details(struct text *t, const struct work *w);
/* How it ended, and what to do next. r: 0, or the -errno of a failure whose message was said before. */
void say_end(struct text *t, const struct work *w, int r);
void say_different(struct text *t, const struct work *w);
void say_equal(struct text *t, const struct work *w);

#endif
