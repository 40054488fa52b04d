/* SPDX-License-Identifier: MIT */
/*
 * A chain of images. Finds the parents that descriptors name, checks that they are the right ones, and
 * makes one reader of them all: layers, of which the newest wins, and gaps that read as zeros. Must not
 * know targets or queues. Called by the jobs and vmdksync.c.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "chain/image.h"

#define CHAIN_MAX 255u /* images in a chain; ESXi goes to 32 */

struct chain {
	struct image *link[CHAIN_MAX]; /* newest first; owned */
	size_t links;
	size_t borrowed;       /* the newest ones, which belong to another chain */
	size_t named;          /* the newest ones: those that were named, and base; below come parents */
	/* 0 when it is complete, or parents were not asked for; else -errno, -ENOENT for a parent that is
	 * missing, and `why` has the message. */
	int incomplete;
	struct err why;
	uint64_t start;        /* the disk begins here: not 0 for an extent alone, see chain_opts */
	struct reader *reader; /* owned; NULL before chain_read() */
};

struct chain_opts {
	struct image_opts image;
	bool parents;          /* find the parents of the images named */
	const char *base;      /* parent of the oldest image: a raw file, device, or VMDK; NULL: see its
				* descriptor */
	bool alone;            /* an extent without descriptor has no parent, and is no more than its
				* part of a disk */
	bool found;            /* also by descriptors that were found and not named (beside.h) */
	bool force_cid, force_size;
	bool force_changed; /* by info.c; others need not ask chain_unchanged() */
};

/*
 * Opens the n images, oldest first, and their parents. Where two images are known to be
 * child and parent their CIDs have to agree, and all are of one size. -errno for the images named and
 * for base; see chain->incomplete for what their descriptors say.
 */
int chain_open(struct chain **out, const char *const *path, size_t n, const struct chain_opts *o,
	       struct err *e);
/*
 * The parents of the newest n links of a chain, as link[n] and so on of a new one, which borrows those
 * n and must not outlive them. -errno for base, which is opened as for chain_open(); other failures
 * are in chain->incomplete, and warnings are dropped.
 */
int chain_beneath(struct chain **out, const struct chain *of, size_t n, const struct chain_opts *o,
		  struct err *e);
/* Makes chain->reader of the n > 0 links from number `from` on, whose own readers it takes over, up
 * to where the smallest newer link ends; `whole`: gaps read as zeros. Runs carry the number of their
 * link as layer. -ENOMEM. */
int chain_read(struct chain *c, size_t from, size_t n, bool whole, struct err *e);
/* Whether all files still are as they were when they were opened: to be asked when all was read, while
 * the readers are still there. -ESTALE, see source.h. */
int chain_unchanged(const struct chain *c, struct err *e);
/* NULL-safe. */
void chain_free(struct chain *c);

/* Layers, newest first, of a disk of `size` bytes: where they overlap the newest wins, and each byte
 * is given once. What a layer has beyond the end of the disk, or of any newer layer, is dropped. Gaps from
 * byte `zeros_from` on read as zeros, which is right only where the chain is complete; UINT64_MAX: nothing is
 * given for them. Runs carry the number of their layer. Takes the layers over (not the array), also when it
 * fails. -ENOMEM. */
int merge_new(struct reader **out, struct reader *const *layers, size_t n, uint64_t size,
	      uint64_t zeros_from, struct err *e);

#endif
