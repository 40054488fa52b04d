/* SPDX-License-Identifier: MIT */
/*
 * What the system knows about a name or a device that did not work, for messages. Knows /proc, /sys and
 * the volume names of other programs; decides nothing.
 */
#ifndef HINTS_H
#define HINTS_H

#include "base/base.h"

/* The user of a block device, as " (mounted on /mnt): unmount it first"; "" where that is not known. */
const char *hint_users(char *buf, size_t size, dev_t dev);
/* The whole disk of a partition, as "/dev/sda"; false where dev is none. */
bool hint_partition(char *buf, size_t size, dev_t dev);
/* Where path is no file name, but a volume of Proxmox, Ceph, LVM or NBD: what it is, and how to get at
 * its device. False where it is none of these. */
bool hint_volume(char *buf, size_t size, const char *path);
/* The one of n words that somebody may have meant, or NULL; each word begins a struct of `stride`
 * bytes with a pointer to it. */
const char *hint_word(const char *typed, const void *words, size_t n, size_t stride);

#endif
