/* SPDX-License-Identifier: MIT */
/*
 * Results for standard output, as text or as one JSON object, built whole except for a map. Knows what the
 * jobs found; must not print. Called by vmdksync.c.
 */
#ifndef REPORT_H
#define REPORT_H

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/screen.h"
#include "jobs/checks.h"
#include "jobs/info.h"
#include "jobs/resume.h"

/* Where text goes that is not held whole. */
struct report_out {
	int (*put)(void *arg, const char *text, size_t n, struct err *e); /* 0 or -errno */
	void *arg;
	bool begun; /* something was put */
};

struct report_how {
	const struct options *o;
	bool verbose;  /* all that is known of each image, behind the table */
	bool commands; /* and what to do with it */
	struct screen screen;
};
/* Returns text for the caller to free, or NULL when memory was short; so do those below. */
char *report_info(struct info *const *info, size_t n, const struct report_how *how, struct err *e);
/* What one run of the program has found out and done so far. */
struct work {
	const struct options *o;
	struct warnings warnings;
	struct progress *progress; /* NULL: none yet */
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

/* Goes over the reader of the chain. The last part is put when all went well and last() agrees; of a short
 * map it is the only part. Where it fails the JSON is completed with the error; out->put is called with a
 * failed *e then. 0 or -errno. */
int report_map(const struct work *w, struct report_out *out, int (*last)(void *arg, struct err *e),
	       struct err *e);
/* Bytes of the files that nothing names, as far as they were walked. */
uint64_t report_unaccounted(const struct work *w);
/* Of an apply, a dry run or a verify, as JSON. */
char *report_result(const struct work *w, struct err *e);
/* The differences, one a line. */
char *report_differences(const struct work *w, struct err *e);

#endif
