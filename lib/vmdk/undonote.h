/* SPDX-License-Identifier: MIT */
/*
 * What an undo log says of itself in its descriptor: of which disk it is, since when, what was applied,
 * and checksums of places of the disk as it was; all in comments, which other readers of VMDKs skip.
 * Knows that text; must not know the log's grains, nor how the disk is read. Called by undo, image and
 * the rollback check.
 */
#ifndef UNDONOTE_H
#define UNDONOTE_H

#include "base/base.h"

#define UNDO_SAMPLES 64u
/* The second line of the descriptor, with the name of the disk in between. */
#define UNDO_ABOUT "# Disk DescriptorFile\n# what was on "
#define UNDO_ABOUT_END " before vmdksync wrote to it\n"

struct undo_sample {
	uint64_t grain; /* number, in grains of the log */
	uint32_t sum;   /* 0: there is no such sample */
};

struct undo_note {
	char *disk;    /* printable name */
	char *time;    /* when it was begun, UTC, as 2026-11-28T17:33:24Z; NULL: not known */
	char *applied; /* printable name of what was applied; NULL: not known */
	bool finished; /* set by who reads the header */
	bool sampled;  /* there is a list of samples; logs of version 1.0.0 have none */
	bool damaged;  /* and that cannot be read */
	struct undo_sample sample[UNDO_SAMPLES];
};

/* Of a descriptor's text. *out: NULL where that is not an undo log's. -ENOMEM. */
int undo_note_parse(struct undo_note **out, const char *text, size_t len, struct err *e);
/* NULL-safe. */
void undo_note_free(struct undo_note *note);

/* The first lines. As snprintf(3). */
int undo_note_head(char *text, size_t room, const char *disk, const char *applied);
/*
 * Puts the list of samples behind the used bytes of text, or over the list that is there already. It
 * begins at a multiple of 512 bytes and its lines have 32, so that a torn write leaves whole lines.
 * False: there is no room.
 */
bool undo_note_samples(char *text, size_t room, const struct undo_sample *sample);
/* The checksum of a grain; never 0. */
uint32_t undo_sample_sum(const void *grain, size_t n);

#endif
