/* SPDX-License-Identifier: MIT */
/*
 * Grains of a stream that a table has named and that are not received yet, by the window of the file that
 * brings them; and of windows that are gone, the sectors that were spooled as no table had named them. Must
 * not know tables, runs or sources. Called by file_order. Numbers are bytes unless they say something else.
 */
#ifndef PENDING_H
#define PENDING_H

#include "base/base.h"

struct pending_grain { /* or neighbouring grains, or the part of one in this window */
	uint64_t off;     /* guest */
	uint32_t at, len; /* position in the window, of the record where grains are compressed; guest
			   * bytes */
};

struct pending_window {
	struct pending_window *next;
	uint64_t number;             /* position / window size */
	struct pending_grain *grain; /* in any order */
	uint32_t grains, room;
	uint64_t *named; /* bitmap of its sectors: those not in it are spooled, and may be named once;
			  * NULL: the window is not gone, or nothing of it was spooled */
};

/* As many windows as the usual memory has room for make lists of 40: of hundreds of GiB of grains that are
 * all scattered. */
#define PENDING_BITS 14
#define PENDING_LISTS (1u << PENDING_BITS)

struct pending { /* zeroed before pending_init() */
	uint64_t window_size;
	struct pending_window **hash; /* PENDING_LISTS of them, by number and by chance */
	uint64_t salt;
	uint64_t grains; /* in all windows */
	uint64_t memory; /* that all windows take */
};

/* false: memory is short, here and below. */
bool pending_init(struct pending *p, uint64_t window_size);
void pending_free(struct pending *p);
/* NULL: nothing is pending there, and nothing was spooled. */
struct pending_window *pending_window(const struct pending *p, uint64_t number);
/* Guest bytes [off, off + len) will be received at pos; all of it, or its record, begins in one window. */
bool pending_add(struct pending *p, uint64_t off, uint64_t pos, uint64_t len);
/* All sectors of the window that are not in `named` are spooled. Takes the bitmap over when it succeeds. */
bool pending_spooled(struct pending *p, uint64_t number, uint64_t *named);
/* Names sectors of a window that is gone. false: they are not spooled, or somebody has named them. */
bool pending_name(struct pending *p, uint64_t pos, uint64_t len);
/* From here on in guest order. */
void pending_sort(struct pending_window *w);
/* The grains of the window are not pending any more. */
void pending_received(struct pending *p, struct pending_window *w);
/* Forgets the window, unless something of it is spooled. */
void pending_drop(struct pending *p, uint64_t number);

#endif
