/* SPDX-License-Identifier: MIT */
/*
 * What the parts of a run share: its options, what was opened, and what became of it. Filled by vmdksync.c,
 * told by the other files of this folder.
 */
#ifndef WORK_H
#define WORK_H

#include "cli/options.h"
#include "cli/progress.h"
#include "jobs/checks.h"
#include "jobs/info.h"
#include "jobs/resume.h"

/* What one run of the program has found out and done so far. */
struct work {
	const struct options *o;
	struct warnings warnings;
	struct progress progress;
	struct chain *chain;
	struct target *target;
	struct undo *undo;
	char *undo_name; /* printable */
	struct log_room room; /* of the undo log, or of one that is proposed */
	struct resume *resume; /* NULL: no checkpoint is kept */
	bool undo_finished;
	bool warned_repeated;
	size_t applied; /* links of the chain that are written, the newest */
	struct look look;
	bool log_checked; /* undo logs were compared with TARGET, */
	size_t places;    /* in so many places */
	bool by_stream;   /* progress is counted in bytes received, not in bytes written */
	bool told;        /* JSON was printed, or a part of it */
	bool undone;      /* --undo-append: the log is finished, and so is the apply */
	struct totals totals;
	struct pump_stats stats;
	struct verify_result differences;
	struct sums *sums; /* of a stream, for a read-back */
	uint64_t done;     /* bytes, for progress */
	bool whole;        /* every byte of the disk is read */
};

#endif
