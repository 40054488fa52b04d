/* SPDX-License-Identifier: MIT */
/* See target.h: what all kinds of targets have in common. */
#include "output/nbd_uri.h"
#include "output/target.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct identity identity_of(const struct stat *st)
{
	return (struct identity){.dev = st->st_dev,
				 .ino = st->st_ino,
				 .rdev = st->st_rdev,
				 .device = S_ISBLK(st->st_mode)};
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

bool target_is(const struct target *t, const struct stat *st)
{
	const struct identity *id = &t->id;

	return id->ino && ((id->dev == st->st_dev && id->ino == st->st_ino) ||
			   (id->device && S_ISBLK(st->st_mode) && id->rdev == st->st_rdev));
}

void target_put(struct target *t, struct queue *q, struct xfer *x)
{
	t->ops->put(t, q, x);
}

bool target_can_zero(const struct target *t)
{
	return t->ops->can_zero(t);
}

bool target_zero_unsupported(struct target *t, const struct xfer *x, int err)
{
	return t->ops->zero_unsupported(t, x, err);
}

bool target_written(struct target *t, uint64_t off, uint64_t len)
{
	return !t->ops->written || t->ops->written(t, off, len);
}

uint64_t target_range(struct target *t, uint64_t off, bool *hole)
{
	*hole = false;
	return t->ops->range ? t->ops->range(t, off, hole) : UINT64_MAX;
}

bool target_look(struct target *t, uint64_t off, void *buf, size_t n)
{
	return t->ops->look(t, off, buf, n);
}

void target_hint(struct target *t, uint64_t off, uint64_t len)
{
	if (t->ops->hint)
		t->ops->hint(t, off, len);
}

void target_forget(struct target *t)
{
	if (t->ops->forget)
		t->ops->forget(t);
}

bool target_in_memory(const struct target *t)
{
	return t->ops->in_memory && t->ops->in_memory(t);
}

bool target_room(const struct target *t, uint64_t *bytes)
{
	return t->ops->room && t->ops->room(t, bytes);
}

const char *target_why(const struct target *t, int err)
{
	const char *why = t->ops->why ? t->ops->why(t, err) : NULL;

	return why ? why : strerror(-err);
}

int target_sync_name(struct target *t, struct err *e)
{
	return t->ops->sync_name ? t->ops->sync_name(t, e) : 0;
}
