/* SPDX-License-Identifier: MIT */
/*
 * Facts about an image and its chain: amounts of each layer and of the disk they make, and what
 * machines that share layers take together. Must not print. Called by vmdksync.c and report.
 */
#ifndef INFO_H
#define INFO_H

#include "chain/chain.h"
#include "jobs/jobs.h"

struct info {
	struct chain *chain;  /* without readers: all is closed again */
	struct totals *layer; /* of each link; NULL: only descriptors were read */
	struct totals disk;   /* of all of them, merged */
	struct warnings warnings;
	bool machine; /* info_families(): it is no parent of another */
};

/* Opens path and its parents, and walks all metadata, or with image.text_only reads their descriptors.
 * o->parents is taken as set, image.base_unread as not. -errno; failures of the parents alone are in
 * info->chain->incomplete. */
int info_open(struct info **out, const char *path, const struct chain_opts *o,
	      const struct pump_opts *pump, struct err *e);
/* NULL-safe. */
void info_free(struct info *i);

struct family { /* machines with the same base; bytes */
	const struct image *base;
	size_t machines;
	uint64_t provisioned; /* what their disks hold at most */
	uint64_t thin;        /* data, if each were a disk of its own that takes what it holds */
	uint64_t shared;      /* data in the images that several of them stand on */
	uint64_t own;         /* data in the others */
};

/* Images that are parents of others of the n are no machines. An array, for the caller to free; the
 * images in it are not. NULL: memory was short. */
struct family *info_families(size_t *families, struct info *const *info, size_t n);

#endif
