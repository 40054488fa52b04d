/* SPDX-License-Identifier: MIT */
/* See target.h: what all kinds of targets have in common. */
#include "output/extents.h"
#include "output/nbd_uri.h"
#include "output/target.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool same_disk(const struct stat *a, const struct stat *b)
{
	return same_file(a, b) ||
	       (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev);
}

int target_open(struct target **out, const char *path, const struct target_opts *o, struct err *e)
{
	/* a file may be called anything */
	if (nbd_uri_like(path) && access(path, F_OK) < 0)
		return target_nbd_open(out, path, o, e);
	return target_file_open(out, path, o, e);
}

int target_check_size(const struct target *t, const struct target_opts *o, struct err *e)
{
	if (t->size >= o->need)
		return 0;
	return fail_with(e, ENOSPC, FACTS(.code = ERR_TOO_SMALL, SIZES(t->size, o->need)),
			 "%s: has %" PRIu64 " byte%s, the disk needs %" PRIu64, t->name,
			 t->size, plural(t->size), o->need);
}

void target_free(struct target *t)
{
	if (!t)
		return;
	free(t->name);
	t->ops->free(t);
}

static bool of_server(const struct target *t)
{
	return !t->st.st_mode;
}

bool target_is(const struct target *t, const struct stat *st)
{
	return !of_server(t) && same_disk(&t->st, st);
}

void target_put(struct target *t, struct queue *q, struct xfer *x)
{
	/*
	 * Punching a device is write-zeroes that may unmap and fails where zeros are not certain.
	 * BLKDISCARD promises nothing about what is read afterwards and is no way. The written extents
	 * in the cache are left as they are: to take a zeroed range for written costs time at worst, and
	 * in guest order nobody comes back to it.
	 */
	if (x->kind == XFER_ZERO)
		x->mode = FALLOC_FL_KEEP_SIZE | (t->zero_ways & FALLOC_FL_PUNCH_HOLE
							 ? FALLOC_FL_PUNCH_HOLE
							 : FALLOC_FL_ZERO_RANGE);
	t->ops->put(t, q, x);
}

bool target_zero_unsupported(struct target *t, const struct xfer *x, int err)
{
	if (err != -EOPNOTSUPP && err != -ENOSYS && err != -ENOTTY && err != -ENODEV &&
	    !(t->device && err == -EINVAL))
		return false;
	t->zero_ways &= ~x->mode;
	t->rereads |= of_server(t); /* it may have zeros where they take no room */
	return true;
}

bool target_written(struct target *t, uint64_t off, uint64_t len)
{
	return !t->extents || extents_written(t->extents, off, len);
}

uint64_t target_range(struct target *t, uint64_t off, bool *hole)
{
	*hole = false;
	return t->extents ? extents_range(t->extents, off, hole) : UINT64_MAX;
}

bool target_look(struct target *t, uint64_t off, void *buf, size_t n)
{
	return t->ops->look(t, off, buf, n);
}

void target_hint(struct target *t, uint64_t off, uint64_t len)
{
	if (t->ops->advise)
		t->ops->advise(t, off, len, POSIX_FADV_WILLNEED);
}

void target_forget(struct target *t)
{
	if (t->extents)
		extents_forget(t->extents);
	if (t->ops->advise)
		t->ops->advise(t, 0, 0, POSIX_FADV_DONTNEED);
}

bool target_room(const struct target *t, uint64_t *bytes)
{
	return t->ops->room && t->ops->room(t, bytes);
}

const char *target_why(const struct target *t, int err)
{
	return err == t->dead ? t->why : strerror(-err);
}

int target_sync_name(struct target *t, struct err *e)
{
	return t->ops->sync_name ? t->ops->sync_name(t, e) : 0;
}
