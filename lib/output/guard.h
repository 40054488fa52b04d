/* SPDX-License-Identifier: MIT */
/*
 * What the system knows about a target besides its bytes: who has it open, who locks it,
 * which disk a partition lies on. Knows /proc, /sys and leases; must not know how a target is
 * written.
 */
#ifndef GUARD_H
#define GUARD_H

#include "base/base.h"

#define GUARD_WHO 96

/* One line of a file in /sys or /proc, without its newline. */
bool sys_text(const char *path, char *buf, size_t size);
/* The number in a file "dev" of /sys. */
bool sys_dev(const char *path, dev_t *dev);
/* Of a block device or, since a partition has no such entry of its own, of the disk it is on. */
bool sys_block_text(dev_t dev, const char *what, char *buf, size_t size);

/* Whether one is a whole disk and the other a partition of it. */
bool guard_overlap(dev_t a, dev_t b);

/* Whether a file or folder lies in /dev, or is it, where a mistyped name of a device makes a file in memory.
 * File systems that are mounted below it, as on /dev/shm, are made for files and do not count. */
bool guard_in_dev(const char *path, const struct stat *st);

/*
 * Whether the regular file that fd (opened O_RDONLY) refers to is open for writing elsewhere: in a
 * program, through a mapping, by the kernel (loop device, swap), or by writes in flight of a
 * process that is gone. Readers do not count. Asks the kernel for a read lease and gives it back at once;
 * false where leases cannot tell, and where this process itself has the file open for writing.
 */
bool guard_written(int fd, const struct stat *st);
/* "process 12, NAME" into buf: who has the file open for writing; false when nobody is found. */
bool guard_writer(char buf[GUARD_WHO], const struct stat *st);
/* The same of who holds an flock on the file or device. *ended: that process is gone, and writes of
 * its that are in flight hold the lock. */
bool guard_locker(char buf[GUARD_WHO], bool *ended, const struct stat *st);

#endif
