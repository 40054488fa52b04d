/* SPDX-License-Identifier: MIT */
/*
 * What --dry-run shows: the target, the disk, the chain, what is to be written, and the command that does
 * it. Must not print. Called by vmdksync.c.
 */
#ifndef CARD_H
#define CARD_H

#include "cli/report.h"

/* log: a file for an undo log where none is named; NULL: none is proposed. */
void card_show(struct text *t, const struct work *w, const char *log, const struct screen *s);

#endif
