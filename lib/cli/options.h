/* SPDX-License-Identifier: MIT */
/*
 * The command line: options, their values, which of them exclude each other. Must not know what is done
 * with them, nor print. Called by vmdksync.c.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "base/base.h"

/* What --force overrides. */
enum force {
	FORCE_BUSY = 1,
	FORCE_GD = 2,
	FORCE_RGD = 4,
	FORCE_CID = 8,
	FORCE_SIZE = 16,
	FORCE_RAW = 32,
	FORCE_BASE = 64,
	FORCE_CHANGED = 128,
	FORCE_DISK = 1024,
	FORCE_ROOM = 2048,
	FORCE_ACCOUNTS = 4096
};

struct options { /* what is a name points into argv */
	bool help, version;     /* then nothing else counts */
	bool verify, info, map; /* what to do instead of writing */
	bool map_list;          /* map: a list even on a terminal */
	bool descriptors;       /* info reads nothing else */
	bool raw, raw_gzip;     /* the input is a plain disk; a stream is looked at for gzip */
	bool chain, full;       /* the parents, too: those above the base, or all */
	const char *base;
	uint64_t max_ranges; /* differences that are listed */
	bool json, read_back, dry_run, create, strict, in_line;
	const char *undo; /* file of the old bytes; NULL: none */
	bool undo_append;
	const char *resume; /* file of the checkpoint; NULL: none */
	bool position;      /* print where a stream has to begin */
	unsigned force; /* of enum force */
	const char **search; /* the array is the caller's to free */
	size_t searches;
	bool confine;
	bool placed; /* the extent belongs at `offset` */
	uint64_t offset;
	const char *spool;
	bool spool_first;
	uint64_t expect, memory;
	int progress; /* an enum progress_form; -1: a line where stderr is a terminal */
	int progress_fd;
	bool quiet;
	int verbose;
	const char *const *inputs;
	size_t n_inputs;
	const char *target; /* NULL for info and map */
	const char *program; /* as it was called */
	char *again; /* all else of the command line but --dry-run, as a shell takes it; the caller frees it */
};

/* What --help prints, for the caller to free; NULL when memory is short. */
char *options_help(void);

/* -EINVAL for a word that is not understood, or what does not go together; -ENOMEM. */
int options_parse(struct options *o, int argc, char **argv, struct err *e);

#endif
