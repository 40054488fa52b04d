/*
 * Room 4: what the system knows about a target besides its bytes: who has it open, who locks it,
 * which disk a partition lies on. Knows /proc and /sys; must not know how a target is
 * written.
 */
#ifndef GUARD_H
#define GUARD_H

#include "base.h"

#include <sys/stat.h>
#include <sys/types.h>

#define GUARD_WHO 96

/* One line of a file in /sys or /proc, without its newline. */
bool sys_text(const char *path, char *buf, size_t size);
/* Of a block device or, since a partition has no such entry of its own, of the disk it is on. */
bool sys_block_text(dev_t dev, const char *what, char *buf, size_t size);

/* "process 12, NAME" into buf: who holds an flock on the file or device; says so where that process
 * has ended. False when nobody is found. */
bool guard_locker(char buf[GUARD_WHO], const struct stat *st);

#endif
