/* SPDX-License-Identifier: MIT */
/* See jobs.h: the walk before the first write. */
#include "jobs/jobs.h"
#include "output/queue.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS 16u
#define SLOTS_BYTES (UINT64_C(32) << 20) /* in all of them, but there is always one */

struct inflating;

struct slot {
	struct xfer xfer;
	struct inflating *all;
	struct slot *next; /* free */
	struct run run;
	uint8_t *buf; /* owned */
	uint64_t room;
	int result;
	struct err *why; /* of the failure; NULL: memory was short */
	char *text; /* a warning */
};

/* Compressed grains on their way through the workers. Zeroed before the first use. */
struct inflating {
	struct queue *queue;
	struct slot slot[SLOTS], *free;
	unsigned slots; /* in use so far, or free */
	int result;     /* the first failure */
	struct err *e;
};

/* On the thread of a worker, which must not call e->warn. */
static void keep_text(void *arg, const char *text)
{
	struct slot *s = arg;

	if (!s->text)
		s->text = strdup(text);
}

static void inflate_run(struct xfer *x)
{
	struct slot *s = container_of(x, struct slot, xfer);
	struct err e = {.strict = s->all->e->strict, .warn = keep_text, .arg = s};

	s->result = reader_fetch(&s->run, s->buf, &e);
	if (s->result < 0)
		s->why = err_copy(&e);
}

static void inflate_done(struct xfer *x, int err)
{
	struct slot *s = container_of(x, struct slot, xfer);
	struct inflating *u = s->all;

	(void)err;
	if (s->result < 0 && !u->result)
		u->result = err_pass(u->e, s->result, s->why);
	else if (s->text && !u->result && u->e->warn)
		u->e->warn(u->e->arg, s->text);
	free(s->why);
	free(s->text);
	s->why = NULL;
	s->text = NULL;
	s->next = u->free;
	u->free = s;
}

/* A slot with room for so many bytes; NULL when memory is short. */
static struct slot *take_slot(struct inflating *u, uint64_t len)
{
	struct slot *s;

	if (!u->free && u->slots && (u->slots == SLOTS || (u->slots + 1) * len > SLOTS_BYTES))
		queue_wait(u->queue, 1);
	s = u->free;
	if (s)
		u->free = s->next;
	else
		s = &u->slot[u->slots++];
	if (s->room < len) {
		free(s->buf);
		s->buf = malloc(len);
		s->room = s->buf ? len : 0;
	}
	return s->buf ? s : NULL;
}

/* In a stream the bytes are gone once the next run is asked for: waits. */
static int inflate_one(struct inflating *u, const struct run *run, bool stream, struct err *e)
{
	struct slot *s;

	if (!u->queue && queue_new(&u->queue, 1, true, e) < 0)
		return -ENOMEM;
	s = take_slot(u, run->len);
	if (!s)
		return fail(e, ENOMEM, "out of memory");
	s->run = *run;
	s->all = u;
	s->xfer = (struct xfer){.kind = XFER_JOB, .run = inflate_run, .done = inflate_done};
	queue_put(u->queue, &s->xfer);
	while (stream && queue_busy(u->queue))
		queue_wait(u->queue, 1);
	return u->result;
}

static int inflate_end(struct inflating *u, int result)
{
	while (u->queue && queue_busy(u->queue))
		queue_wait(u->queue, 1);
	queue_free(u->queue);
	for (unsigned i = 0; i < u->slots; i++)
		free(u->slot[i].buf);
	return result < 0 ? result : u->result;
}

int job_scan(struct reader *r, const struct pump_opts *o, bool inflates, struct totals *t,
	     struct err *e)
{
	struct inflating u = {.e = e};
	struct run run;
	int got, result = 0;

	*t = (struct totals){0};
	while ((got = reader_next(r, &run, e)) > 0) {
		if (o->stop && o->stop(o->arg)) {
			result = fail(e, EINTR, "%s: stopped by a signal before anything was written",
				      r->name);
			break;
		}
		if (run.kind == RUN_FENCE) /* nothing of it is still in use */
			continue;
		t->runs++;
		*(run.kind == RUN_ZERO ? &t->zero : &t->data) += run.len;
		t->end = run.off + run.len;
		/* a stream that needs no threads has no compressed grains */
		if (inflates && run.kind == RUN_COMPRESSED && (!r->streaming || r->streaming->threads))
			result = inflate_one(&u, &run, r->streaming, e);
		if (result < 0)
			break;
	}
	result = inflate_end(&u, result < 0 ? result : got);
	return result < 0 || r->streaming ? result : reader_rewind(r, e);
}
