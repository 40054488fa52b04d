/* SPDX-License-Identifier: MIT */
#include "output/served.h"
#include "output/guard.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546    /* fuse, fuseblk, virtiofs */
#define FUSECTL_MAGIC 0x65735543 /* has one directory for each FUSE file system of this kernel */
#define FUSECTL "/sys/fs/fuse/connections"
#define DEPTH 16 /* devices on top of each other */

/* Ordered: of several devices below one, the worst counts. */
enum keeper { KERNEL, UNKNOWN, PROGRAM };

static enum keeper below_device(int fd, dev_t dev, unsigned depth);

static enum keeper worse(enum keeper a, enum keeper b)
{
	return a > b ? a : b;
}

static enum keeper of_file(int fd)
{
	struct statfs fs;

	/* the kernel's own file systems do not fail here, a server may */
	if (fstatfs(fd, &fs) < 0)
		return UNKNOWN;
	return fs.f_type == FUSE_MAGIC ? PROGRAM : KERNEL;
}

/* Of a file that no name leads to: deleted, or outside of our root or mount namespace. */
static enum keeper of_file_system(dev_t dev)
{
	char path[sizeof(FUSECTL) + 32];
	struct statfs fs;

	if (statfs(FUSECTL, &fs) < 0 || fs.f_type != FUSECTL_MAGIC)
		return UNKNOWN;
	/* the kernel's own form of a device number */
	snprintf(path, sizeof(path), FUSECTL "/%llu", (unsigned long long)major(dev) << 20 | minor(dev));
	if (access(path, F_OK) == 0)
		return PROGRAM;
	return errno == ENOENT ? KERNEL : UNKNOWN;
}

static enum keeper below_loop(const char *dir, const struct loop_info64 *info)
{
	char path[PATH_MAX + 32], name[PATH_MAX];
	enum keeper keeper = UNKNOWN;
	struct stat st;
	int fd = -1;

	snprintf(path, sizeof(path), "%s/loop/backing_file", dir);
	if (sys_text(path, name, sizeof(name)))
		fd = open(name, O_PATH | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == info->lo_device &&
	    st.st_ino == info->lo_inode)
		keeper = of_file(fd);
	else
		keeper = of_file_system(info->lo_device);
	if (fd >= 0)
		close(fd);
	return keeper;
}

/* The loop setup of a device. fd: it, or a partition of it, or -1: the one called name. */
static int loop_status(int fd, const char *name, struct loop_info64 *info)
{
	char path[NAME_MAX + 8], number[16];
	int r;

	if (fd >= 0)
		return ioctl(fd, LOOP_GET_STATUS64, info) < 0 ? -errno : 0;
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	r = ioctl(fd, LOOP_GET_STATUS64, info) < 0 ? -errno : 0;
	close(fd);
	snprintf(number, sizeof(number), "%u", info->lo_number);
	return r || strcmp(number, name + strlen("loop")) == 0 ? r : -ENODEV;
}

/* Device mapper, RAID and the like. */
static enum keeper below_stack(const char *dir, unsigned depth)
{
	char path[PATH_MAX + NAME_MAX + 32];
	enum keeper keeper = KERNEL;
	struct dirent *de;
	dev_t dev;
	DIR *d;

	snprintf(path, sizeof(path), "%s/slaves", dir);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/slaves/%s/dev", dir, de->d_name);
		keeper = worse(keeper, sys_dev(path, &dev) ? below_device(-1, dev, depth - 1)
							   : UNKNOWN);
	}
	if (d)
		closedir(d);
	return keeper;
}

static enum keeper below_device(int fd, dev_t dev, unsigned depth)
{
	char path[PATH_MAX + 16], dir[PATH_MAX] = "/sys/none";
	const char *name = "";
	struct loop_info64 info = {0};
	int r;

	if (!depth)
		return UNKNOWN;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	if (realpath(path, dir)) {
		snprintf(path, sizeof(path), "%s/partition", dir);
		if (access(path, F_OK) == 0)
			*strrchr(dir, '/') = '\0';
		name = strrchr(dir, '/') + 1;
	} else if (fd < 0) {
		return UNKNOWN;
	}
	if (*name && strncmp(name, "loop", strlen("loop")) != 0) /* without sysfs it is asked itself */
		return below_stack(dir, depth);
	r = loop_status(fd, name, &info);
	if (r == -ENXIO || (r == -ENOTTY && !*name))
		return KERNEL; /* nothing is set up on it, or it is none */
	if (r < 0)
		return UNKNOWN;
	return info.lo_rdevice ? below_device(-1, info.lo_rdevice, depth - 1)
			       : below_loop(dir, &info);
}

const char *served_by(int fd, const struct stat *st)
{
	bool device = S_ISBLK(st->st_mode);

	switch (device ? below_device(fd, st->st_rdev, DEPTH) : of_file(fd)) {
	case PROGRAM:
		return device ? "on a file that is served by a program (FUSE)"
			      : "served by a program (FUSE)";
	case UNKNOWN:
		return device ? "on a file that cannot be found and may be served by a program (FUSE)"
			      : "on an unknown file system, perhaps served by a program (FUSE)";
	default:
		return NULL;
	}
}
