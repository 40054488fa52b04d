/* SPDX-License-Identifier: MIT */
/*
 * Facts for people about the machine and the target, which decide nothing: versions, what a disk begins
 * with, what a device is. Knows magic numbers and sysfs; must not print. Called by vmdksync.c and card.
 */
#ifndef FACTS_H
#define FACTS_H

#include "output/target.h"

/* "liburing 2.3, zlib 1.2.13, Linux 6.1.0 (io_uring)" into buf: what this was built with and runs on. */
const char *job_versions(char *buf, size_t size);
/* What a device is: its model, its LVM name, the file of a loop device; "" where nothing is known. */
const char *job_device_text(char *buf, size_t size, const struct target *t);
/* What the first bytes of the target say: "a GPT partition table", "an ext2, ext3 or ext4 file system",
 * "zeros", "data of an unknown kind". */
const char *job_content(struct target *t);
/* Who uses the device, as hint_users(), or "not mounted"; "" of anything else. */
const char *job_users_text(char *buf, size_t size, const struct target *t);

#endif
