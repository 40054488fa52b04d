/* See guard.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

bool sys_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return true;
}

bool sys_block_text(dev_t dev, const char *what, char *buf, size_t size)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), what);
	if (sys_text(path, buf, size))
		return true;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../%s", major(dev), minor(dev), what);
	return sys_text(path, buf, size);
}

/* --- who has it open ----------------------------------------------------------------------------- */

/* False where there is no such process. */
static bool process_text(char buf[GUARD_WHO], const char *pid)
{
	char path[64], name[64];

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	if (!sys_text(path, name, sizeof(name)))
		return false;
	for (char *p = name; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?';
	snprintf(buf, GUARD_WHO, "process %.20s, %s", pid, name);
	return true;
}

bool guard_locker(char buf[GUARD_WHO], const struct stat *st)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256], kind[16], pid[24];
	unsigned maj, min;
	unsigned long long ino;
	bool found = false, gone;

	while (f && !found && fgets(line, sizeof(line), f)) {
		/* who waits for a lock has "->" before the kind */
		if (sscanf(line, "%*u: %15s %*s %*s %23s %x:%x:%llu", kind, pid, &maj, &min, &ino) != 5)
			continue;
		found = !strcmp(kind, "FLOCK") && ino == st->st_ino &&
			makedev(maj, min) == st->st_dev;
	}
	if (f)
		fclose(f);
	if (!found || process_text(buf, pid))
		return found;
	/* a process that /proc hides is there all the same */
	gone = kill((pid_t)atoi(pid), 0) < 0 && errno == ESRCH;
	snprintf(buf, GUARD_WHO, "process %s%s", pid,
		 gone ? ", which has ended; its last writes are in flight" : "");
	return true;
}
