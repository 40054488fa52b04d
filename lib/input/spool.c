/* SPDX-License-Identifier: MIT */
#include "input/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PART 4096u /* zeros of this size, and aligned to it, are not written */

const char *spool_folder(const char *dir)
{
	if (!dir)
		dir = getenv("TMPDIR");
	return dir && *dir ? dir : "/var/tmp";
}

int spool_open(const char *dir, const char *name, struct err *e)
{
	char *path;
	int fd;

	dir = spool_folder(dir);
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	/* file systems that know no nameless files */
	if (asprintf(&path, "%s/vmdksync-spool-XXXXXX", dir) < 0)
		return fail(e, ENOMEM, "out of memory");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	free(path);
	return fd < 0 ? fail(e, errno, "%s: no spool can be made in %s: %s", name, dir,
			     strerror(errno))
		      : fd;
}

/* How much of n bytes at off lies in the first part. */
static size_t in_part(uint64_t off, size_t n)
{
	return (size_t)min_u64(n, PART - off % PART);
}

int spool_write(int fd, const uint8_t *p, size_t n, uint64_t off, uint64_t *written)
{
	for (size_t at = 0, end, part; at < n; at = end) {
		int r;

		end = at + in_part(off + at, n - at);
		if (all_zero(p + at, end - at))
			continue;
		for (; end < n; end += part) {
			part = in_part(off + end, n - end);
			if (all_zero(p + end, part))
				break;
		}
		r = write_full(fd, p + at, end - at, off + at);
		if (r < 0)
			return r;
		*written += end - at;
	}
	return 0;
}
