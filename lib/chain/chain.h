/*
 * Room 3: images on top of each other. Finds the parents that descriptors name, checks that they are
 * the right ones, and makes one reader of them all: layers, of which the newest wins, and gaps that
 * read as zeros. Must not know targets or rings.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "chain/image.h"

#define CHAIN_MAX 255u /* images in a chain; ESXi goes to 32 */

struct chain {
	struct image **link;   /* newest first; owned */
	size_t links;
	size_t borrowed;       /* the newest ones, which belong to another chain */
	size_t named;          /* the newest ones: those that were named, and base; below come parents */
	/* Why nothing is known of what lies beneath the lowest link, a whole message; NULL when nothing
	 * does, or nobody asked. code: positive, ENOENT for a parent that is not there. */
	char *lacks;
	int lacks_code;
	struct reader *reader; /* owned; NULL before chain_read() */
};

struct chain_opts {
	struct image_opts image;
	bool parents;          /* look for what lies beneath the images named */
	const char *base;      /* this lies beneath them: a raw file, device, or VMDK; NULL: see their
				* descriptors */
	bool found;            /* also by descriptors that were found and not named (beside.h) */
	bool force_cid, force_size;
	bool force_changed; /* by info.c; others need not ask chain_unchanged() */
};

/*
 * Opens the n images, oldest first, and what lies beneath them. Where two images are known to be
 * child and parent their CIDs have to agree, and all are of one size. -errno for the images named and
 * for base; see chain->lacks for what their descriptors say.
 */
int chain_open(struct chain **out, const char *const *path, size_t n, const struct chain_opts *o,
	       struct err *e);
/*
 * What lies beneath the newest n links of a chain, which lend these to the new one and outlive it:
 * link[n] and so on. -errno for base, which is opened as for chain_open(); nothing else is said, and
 * warnings are not passed on: see chain->lacks.
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
 * is given once. What a layer has beyond the end of the disk, or of any newer layer, is dropped. Runs carry the layer->layer they are of.
 * Takes the layers over (not the array), also when it fails. O(n) memory. -ENOMEM. */
int merge_new(struct reader **out, struct reader *const *layers, size_t n, uint64_t size,
	      struct err *e);
/* Gaps become zeros: right only when child is all there is beneath. Takes child over, also when it
 * fails. -ENOMEM. */
int fill_new(struct reader **out, struct reader *child, struct err *e);

#endif
