/* SPDX-License-Identifier: MIT */
/* See facts.h. */
#include "jobs/facts.h"

#include <stdio.h>
#include <sys/utsname.h>
#include <zlib.h>

const char *job_versions(char *buf, size_t size)
{
	struct err quiet = {.set = false};
	struct queue *q = NULL;
	struct utsname u = {0};
	const char *kind = queue_new(&q, 1, false, &quiet) < 0 ? "in line" : queue_kind(q);

	uname(&u);
	snprintf(buf, size, "%s, zlib %s, Linux %s (%s)", queue_library(), zlibVersion(), u.release, kind);
	queue_free(q);
	return buf;
}
