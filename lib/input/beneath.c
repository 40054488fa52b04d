/* SPDX-License-Identifier: MIT */
#include "input/beneath.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Opening a device may already do something: rewind a tape, start a watchdog. So each file is looked at
 * first through a descriptor that opens nothing. */
#define LOOK_FLAGS (O_PATH | O_CLOEXEC)
/* O_NONBLOCK: a FIFO may have taken its place, and must not hang us */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/*
 * Really opens what `at`, opened with LOOK_FLAGS, stands for; takes `at` over. A regular file, a block
 * device, with `pipe` a FIFO; else -ENOTSUP, and *st tells what it is. dir, path: its name, for systems
 * without /proc; what that leads to must still be the same file. The file's descriptor, or -errno.
 */
static int open_looked_at(int at, int dir, const char *path, bool pipe, struct stat *st)
{
	char link[32];
	struct stat now;
	int fd;

	if (fstat(at, st) < 0)
		fd = -errno;
	else if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode) && !(pipe && S_ISFIFO(st->st_mode)))
		fd = -ENOTSUP;
	else {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
		fd = open(link, OPEN_FLAGS);
		/* EACCES: also where /proc is not ours to use, as with file capabilities */
		if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
			fd = openat(dir, path, OPEN_FLAGS);
		if (fd < 0)
			fd = -errno;
	}
	if (fd >= 0 && (fstat(fd, &now) < 0 || !same_file(&now, st))) {
		close(fd);
		fd = -ESTALE;
	}
	close(at);
	return fd;
}

int open_path(const char *path, bool pipe, struct stat *st)
{
	int at = open(path, LOOK_FLAGS);

	return at < 0 ? -errno : open_looked_at(at, AT_FDCWD, path, pipe, st);
}

/* For kernels without openat2, and stricter: no symbolic link is followed at all. A descriptor with
 * LOOK_FLAGS, or -errno. */
static int walk_beneath(int dir, const char *file)
{
	char part[NAME_MAX + 1];
	int at = dup(dir), next;
	struct stat st;

	if (at < 0)
		return -errno;
	for (;;) {
		size_t n = strcspn(file, "/");
		bool last = !file[n];

		if (n > NAME_MAX || (n == 2 && !memcmp(file, "..", 2))) {
			close(at);
			return n > NAME_MAX ? -ENAMETOOLONG : -EXDEV;
		}
		memcpy(part, file, n);
		part[n] = '\0';
		next = openat(at, n ? part : ".", O_NOFOLLOW | LOOK_FLAGS);
		if (next < 0)
			next = -errno;
		else if (fstat(next, &st) < 0 || S_ISLNK(st.st_mode)) {
			close(next);
			next = -EXDEV;
		}
		close(at);
		if (last || next < 0)
			return next;
		at = next;
		file += n + 1;
	}
}

int open_beneath(const char *dir, const char *file, struct stat *st)
{
	struct open_how how = {.flags = LOOK_FLAGS,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	int at, fd;

	if (*file == '/')
		return -EXDEV;
	at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, at, file, &how, sizeof(how));
	if (fd < 0)
		fd = -errno;
	if (fd == -ENOSYS || fd == -EPERM || fd == -EINVAL || fd == -E2BIG)
		fd = walk_beneath(at, file);
	if (fd >= 0)
		fd = open_looked_at(fd, at, file, false, st);
	close(at);
	return fd;
}
