/* SPDX-License-Identifier: MIT */
/*
 * --map for people: one line an image of the chain, one column a part of the disk. Must not print.
 * Called by vmdksync.c.
 */
#ifndef PICTURE_H
#define PICTURE_H

#include "cli/report.h"
#include "cli/screen.h"

/* Goes over c->reader, and puts nothing but all of it. last: as for report_map(). 0 or -errno. */
int picture_map(const struct chain *c, const struct screen *s, const struct report_out *out,
		int (*last)(void *arg, struct err *e), struct err *e);

#endif
