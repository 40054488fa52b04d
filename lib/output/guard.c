/* SPDX-License-Identifier: MIT */
#include "output/guard.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A small file of /sys or /proc, whole. */
static bool read_text(const char *path, char *buf, size_t size)
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
	return true;
}

bool sys_text(const char *path, char *buf, size_t size)
{
	const bool there = read_text(path, buf, size);

	if (there)
		buf[strcspn(buf, "\n")] = '\0';
	return there;
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

bool sys_dev(const char *path, dev_t *dev)
{
	unsigned ma, mi;
	char buf[32];

	if (!sys_text(path, buf, sizeof(buf)) || sscanf(buf, "%u:%u", &ma, &mi) != 2)
		return false;
	*dev = makedev(ma, mi);
	return true;
}

/* The disk a partition is on; any other device itself. */
static dev_t whole_disk(dev_t dev)
{
	char path[128], buf[32];
	dev_t disk;

	if (!sys_block_text(dev, "partition", buf, sizeof(buf)))
		return dev;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(dev), minor(dev));
	return sys_dev(path, &disk) ? disk : dev;
}

bool guard_overlap(dev_t a, dev_t b)
{
	return a != b && (whole_disk(a) == b || whole_disk(b) == a);
}

static bool lies_in(const char *path, const char *dir)
{
	const size_t n = strlen(dir);

	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

bool guard_in_dev(const char *path, const struct stat *st)
{
	struct stat dev, root;
	char *real;
	bool yes;

	if (stat("/dev", &dev) < 0 || st->st_dev != dev.st_dev)
		return false;
	real = realpath(path, NULL);
	yes = real && !lies_in(real, "/dev/shm") &&
	      ((stat("/", &root) == 0 && root.st_dev != dev.st_dev) || lies_in(real, "/dev"));
	free(real);
	return yes;
}

/* --- who has it open ----------------------------------------------------------------------------- */

/*
 * Whether descriptor `name` of process `pid` (or "self") may write to that file. The flags and the
 * inode come first: stat() of a file on a server that does not answer would wait for it.
 */
static bool may_write(const char *pid, const char *name, const struct stat *st)
{
	char path[64], buf[512], *ino;
	struct stat other;
	unsigned flags;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, name);
	if (!read_text(path, buf, sizeof(buf)))
		return false;
	if (sscanf(buf, "pos: %*d flags: %o", &flags) != 1 || (flags & O_ACCMODE) == O_RDONLY)
		return false;
	/* since Linux 5.14; not always the number that stat() has, which for our own we can ask */
	ino = strcmp(pid, "self") ? strstr(buf, "\nino:") : NULL;
	if (ino && strtoull(ino + 5, NULL, 10) != st->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, name);
	return stat(path, &other) == 0 && same_file(&other, st);
}

static bool process_writes(const char *pid, const struct stat *st)
{
	char path[64];
	struct dirent *de;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	d = opendir(path);
	while (d && !found && (de = readdir(d)))
		found = isdigit((unsigned char)de->d_name[0]) && may_write(pid, de->d_name, st);
	if (d)
		closedir(d);
	return found;
}

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

bool guard_writer(char buf[GUARD_WHO], const struct stat *st)
{
	DIR *d = opendir("/proc");
	struct dirent *de;
	bool found = false;

	while (d && !found && (de = readdir(d)))
		found = isdigit((unsigned char)de->d_name[0]) && process_writes(de->d_name, st) &&
			process_text(buf, de->d_name);
	if (d)
		closedir(d);
	return found;
}

bool guard_locker(char buf[GUARD_WHO], bool *ended, const struct stat *st)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256], kind[16], pid[24];
	unsigned maj, min;
	unsigned long long ino;
	bool found = false;

	*ended = false;
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
	*ended = kill((pid_t)atoi(pid), 0) < 0 && errno == ESRCH;
	snprintf(buf, GUARD_WHO, "process %s", pid);
	return true;
}

/* --- the lease ----------------------------------------------------------------------------------- */

/* A network file system refuses leases for reasons of its own, with the same EAGAIN. */
static bool leases_tell(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((uint32_t)fs.f_type) {
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case 0xff534d42: /* CIFS */
	case 0xfe534d42: /* SMB 2 and 3 */
		return false;
	default:
		return true;
	}
}

/*
 * Who opens the file while the lease is held makes the kernel send its holder a signal: not SIGIO,
 * which would end the program, but one that is ignored. A read lease needs a description that
 * cannot write, and is refused exactly where another one can.
 */
bool guard_written(int fd, const struct stat *st)
{
	if (!leases_tell(fd) || fcntl(fd, F_SETSIG, SIGURG) < 0)
		return false;
	if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		return false;
	}
	return errno == EAGAIN && !process_writes("self", st);
}
