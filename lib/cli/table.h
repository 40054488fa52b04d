/* SPDX-License-Identifier: MIT */
/*
 * --info for people: a table of the images of a chain, and the command that comes next. Must not print.
 * Called by report.
 */
#ifndef TABLE_H
#define TABLE_H

#include "cli/screen.h"
#include "jobs/info.h"

void table_chain(struct text *t, const struct info *i, const struct screen *s);
/* A line with the command that applies it. */
void table_command(struct text *t, const struct info *i);

#endif
