/* SPDX-License-Identifier: MIT */
/*
 * Results for standard output, as text or as one JSON object, built whole except for a map. Knows what the
 * jobs found; must not print. Called by vmdksync.c.
 */
#ifndef REPORT_H
#define REPORT_H

#include "cli/screen.h"
#include "cli/work.h"

/* Where text goes that is not held whole. */
struct report_out {
	int (*put)(void *arg, const char *text, size_t n, struct err *e); /* 0 or -errno */
	void *arg;
	bool begun; /* something was put */
};

struct report_how {
	const struct options *o;
	bool commands; /* what to do with an image, too */
	struct screen screen;
};
/* Returns text for the caller to free, or NULL when memory was short; so do those below. */
char *report_info(struct info *const *info, size_t n, const struct report_how *how);
/* Goes over the reader of the chain. The last part is put when all went well and last() agrees; of a short
 * map it is the only part. Where it fails the JSON is completed with the error; out->put is called with a
 * failed *e then. 0 or -errno. */
int report_map(const struct work *w, struct report_out *out, int (*last)(void *arg, struct err *e),
	       struct err *e);
/* Bytes of the files that nothing names, as far as they were walked. */
uint64_t report_unaccounted(const struct work *w);
/* Of an apply, a dry run or a verify, as JSON. */
char *report_result(const struct work *w);
/* The differences, one a line. */
char *report_differences(const struct work *w);

#endif
