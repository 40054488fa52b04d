/* SPDX-License-Identifier: MIT */
#include "run/run.h"

#include <inttypes.h>

void reader_init(struct reader *r, const struct reader_ops *ops, const char *name, uint64_t size)
{
	*r = (struct reader){.ops = ops, .name = name, .size = size};
}

int reader_next(struct reader *r, struct run *run, struct err *e)
{
	int got;

	if (r->ended)
		return 0;
	*run = (struct run){0};
	got = r->ops->next(r, run, e);
	if (got <= 0) {
		r->ended = true;
		return got;
	}
	if (run->kind == RUN_FENCE && r->streaming)
		return 1;
	if (run->kind == RUN_FENCE || run->len == 0 || (!r->streaming && run->off < r->at) || run->off > r->size ||
	    run->len > r->size - run->off)
		got = fail(e, EBADMSG, "%s: a run of %" PRIu64 " bytes at %" PRIu64 " is empty, out of "
			   "order or outside the disk of %" PRIu64 " bytes", r->name, run->len, run->off,
			   r->size);
	else if (run->kind == RUN_RAW &&
		 (!run->src || run->pos > run->src->size || run->len > run->src->size - run->pos))
		got = fail(e, EBADMSG, "%s: the bytes of the run at %" PRIu64 " lie outside their "
			   "file", r->name, run->off);
	else if (run->kind == RUN_COMPRESSED && (!run->leaf || !run->leaf->ops->fetch))
		got = fail(e, EBADMSG, "%s: the run at %" PRIu64 " cannot be decompressed", r->name,
			   run->off);
	if (got < 0) {
		r->ended = true;
		return got;
	}
	r->at = run->off + run->len;
	return 1;
}

int reader_rewind(struct reader *r, struct err *e)
{
	r->at = 0;
	r->ended = false;
	return r->ops->rewind(r, e);
}

int reader_fetch(const struct run *run, void *buf, struct err *e)
{
	return run->leaf->ops->fetch(run->leaf, run, buf, e);
}

void reader_free(struct reader *r)
{
	if (r)
		r->ops->free(r);
}
