/* SPDX-License-Identifier: MIT */
/*
 * Facts for people about the machine and the target, which decide nothing: versions, what a disk begins
 * with, what a device is. Knows magic numbers and sysfs; must not print. Called by vmdksync.c.
 */
#ifndef FACTS_H
#define FACTS_H

#include "output/target.h"

/* "liburing 2.3, zlib 1.2.13, Linux 6.1.0 (io_uring)" into buf: what this was built with and runs on. */
const char *job_versions(char *buf, size_t size);

#endif
