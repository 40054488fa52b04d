/* SPDX-License-Identifier: MIT */
/*
 * Who keeps the bytes of a file or device: the kernel, or a program on its behalf (FUSE).
 * Knows file systems, loop devices and sysfs; must not know targets.
 *
 * A promise of the kernel's own file systems and drivers is believed, one that a program makes on
 * their behalf is not. QEMU's FUSE export answers 0 to a punched hole and discards nothing, and up
 * to version 9 it loses data when two writes are in flight; nbdfuse makes a trim of a punched hole,
 * which promises nothing, and no zeros of FALLOC_FL_ZERO_RANGE. FUSE has no way for a server to say
 * which of these it means. (NBD and SCSI have: a server that offers to write zeros has to do it.)
 */
#ifndef SERVED_H
#define SERVED_H

#include "base/base.h"

/*
 * NULL: the kernel keeps the bytes. Otherwise how a program does, or may do, as text for people; what
 * cannot be found out is taken for a program, which costs time and room but never bytes. fd is the
 * open file or block device, st what fstat() says of it.
 */
const char *served_by(int fd, const struct stat *st);

#endif
