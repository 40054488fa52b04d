/*
 * Room 6: results as text for people or as one JSON object, built whole but for a map. Knows what the
 * jobs found; must not print.
 */
#ifndef REPORT_H
#define REPORT_H

#include "jobs/info.h"

/* Where text goes that is not held whole. */
struct report_out {
	int (*put)(void *arg, const char *text, size_t n, struct err *e); /* 0 or -errno */
	void *arg;
};

/* Returns text for the caller to free, or NULL when memory was short; so do those below. */
char *report_info(struct info *const *info, size_t n, bool json, struct err *e);
/* Goes over c->reader. The last part, with the bracket that closes the JSON array, is put when all went
 * well and last() agrees; of a short map it is the only part. 0 or -errno. */
int report_map(const struct chain *c, bool json, const struct report_out *out,
	       int (*last)(void *arg, struct err *e), struct err *e);

struct result {
	const char *job; /* apply, dry-run, verify */
	const struct chain *chain;
	const char *target;
	const struct totals *totals;
	uint64_t unaccounted; /* bytes of the files that nothing names */
	const struct pump_stats *stats;                /* of apply */
	bool base_checked;                             /* of apply and dry-run */
	const uint64_t *present;                       /* of these; NULL: not known */
	const struct verify_result *differences;       /* NULL: nothing was compared */
	uint64_t max_ranges;
	bool whole;      /* it was about every byte of the disk */
	const struct warnings *warnings;
	double seconds;
};

char *report_result(const struct result *r, struct err *e);
/* The differences, one a line. */
char *report_differences(const struct result *r, struct err *e);

#endif
