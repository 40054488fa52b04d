/* SPDX-License-Identifier: MIT */
/*
 * The disks of a folder or of a .vmx file: of each chain the newest link. Knows file names; must not print.
 * Called by vmdksync.c.
 */
#ifndef DISKS_H
#define DISKS_H

#include "chain/chain.h"

struct disks {
	char **path;
	size_t n;
	bool listed; /* they were found in a folder or a .vmx file; else it is the name itself */
};

/* o: how descriptors are opened. -ENOENT where a folder has none, -ENOMEM. disks_free() also then. */
int disks_find(struct disks *d, const char *name, const struct image_opts *o, struct err *e);
void disks_free(struct disks *d);

#endif
