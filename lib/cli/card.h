/* SPDX-License-Identifier: MIT */
/*
 * What --dry-run shows: the target, the disk, the chain, what is to be written, and the command that does
 * it. Must not print. Called by vmdksync.c.
 */
#ifndef CARD_H
#define CARD_H

#include "cli/report.h"

struct card { /* what is known for it alone */
	char device[512];    /* model of a device, and so on */
	const char *content; /* what is on the target, */
	char users[600];     /* and who uses it */
	const char *propose; /* a file for an undo log where none is named; NULL: none */
};

void card_show(struct text *t, const struct work *w, const struct card *c, const struct screen *s);

#endif
