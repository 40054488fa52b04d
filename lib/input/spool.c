/* See spool.h. */
#include "input/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
