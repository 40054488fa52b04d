/* SPDX-License-Identifier: MIT */
/*
 * What has to be right before the first write: the target is a raw disk and the one that is meant, the
 * undo log is a new file with room. Knows chains, targets and undo logs; must not know options, nor print.
 * Called by vmdksync.c, in the order below. 0 or -errno, with nothing changed, unless it says otherwise.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include "jobs/jobs.h"

/* Whether a regular file begins as a VMDK; for hints. */
bool job_is_vmdk(const char *path);
/* target_open() for the disk of the chain, none of whose files it may be: need and inputs of *how are set
 * here. Unless force_raw, what begins as an image is refused. */
int job_open_target(struct target **out, const char *path, const struct target_opts *how,
		    const struct chain *c, bool force_raw, struct err *e);
/* Warns of a partition, and, where deltas are expected, of links that are whole disks. */
int job_check_kinds(const struct chain *c, const struct target *t, bool deltas, struct err *e);

struct base_opts {
	bool named; /* by --base: a warning where it could not be compared */
	bool chain; /* for the hint */
	bool force; /* a difference is a warning */
};
/* What job_look() found. target: printable. */
int job_check_base(const struct look *l, const char *target, const struct base_opts *o, struct err *e);
/* Where links are undo logs: whether t is their disk, see job_check_undo(). *checked: some had checksums. */
int job_check_logs(const struct chain *c, struct target *t, bool *checked, size_t *places, struct err *e);

struct log_opts { /* of the undo log that an apply writes */
	const char *path;
	const char *name; /* the same, printable */
	bool append;
	bool force_room, force_disk;
};

struct log_room { /* bytes */
	bool known; /* not of a stream */
	uint64_t most, free;
};
/* That the log is none of the files at work, and has room. sum: of a walk over c->reader. */
int job_check_log(const struct log_opts *o, const struct chain *c, const struct target *t,
		  const struct totals *sum, struct log_room *room, struct err *e);
/* undo_open(); o, c and t outlive the log. 1: the log is a finished one, and t holds all that c has. Where
 * comparing that was stopped, see stats, *out is not set, and it is 0. */
int job_open_log(struct undo **out, const struct log_opts *o, struct chain *c, struct target *t,
		 const struct pump_opts *pump, struct pump_stats *stats, struct err *e);

#endif
