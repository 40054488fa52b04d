/* SPDX-License-Identifier: MIT */
/* See flight.h. The numbers below were measured; the commit that changes one says against what. */
#include "output/flight_slot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define DEPTH 256u
#define SUBMIT_AT 32u /* transfers put before the kernel hears of them, */
#define SUBMIT_BYTES (2u * BIG) /* or so many bytes */
#define SMALL_AT_ONCE 16u /* small transfers waited for together: each wait is a system call */
#define FLUSH_EACH 500 /* milliseconds between flushes while bytes arrive */

/* Slots by the size of their buffers. Neighbours of cold source or target that are just too large for
 * a small one need many more than could be had with BIG each. Zeroing needs none; a stop has to wait
 * for what is in flight, which takes a device its time, and a server next to none. */
static const struct {
	uint32_t bytes, slots;
} class_of[CLASSES] = {
	{SMALL, 160}, {4 * SMALL, 40}, {BIG, 16}, {0, 32},
};
#define ZEROING_SLOW 2u /* of a device, see ZERO_MOST */

void flight_fail(struct flight *f, int r)
{
	if (!f->failed)
		f->failed = r;
}

int flight_failed(const struct flight *f)
{
	return f->failed;
}

uint64_t flight_align(const struct target *t, const struct pump_opts *o)
{
	return max_u64(max_u64(t->block, t->cached), o->look);
}

void flight_moved(struct flight *f, uint64_t bytes)
{
	if (f->o->moved)
		f->o->moved(f->o->arg, bytes);
}

void slot_release(struct slot *s)
{
	struct flight *f = s->flight;

	s->state = FREE;
	s->next = f->free[s->class];
	f->free[s->class] = s;
}

/* --- transfers ----------------------------------------------------------------------------------- */

static void wait_queue(struct flight *f, unsigned min)
{
	int r;

	f->queued = 0;
	f->queued_bytes = 0;
	r = queue_wait(f->q, min);
	if (r < 0)
		flight_fail(f, fail(f->e, -r, "io_uring: %s", strerror(-r)));
}

/* Lets the queue work until at least `min` callbacks have run, or nothing is left in flight. */
static void wait_for(struct flight *f, unsigned min)
{
	struct xfer *x;

	wait_queue(f, min);
	while (f->refused && queue_busy(f->q))
		wait_queue(f, queue_busy(f->q));
	while ((x = f->refused)) {
		f->refused = x->next;
		target_put(f->t, f->q, x);
	}
}

struct xfer *slot_xfer(struct slot *s, uint8_t *buf, uint64_t len, uint64_t off,
			      void (*done)(struct xfer *, int))
{
	struct xfer *x = &s->xfer[s->waiting++];

	*x = (struct xfer){.kind = s->state == WRITE ? XFER_WRITE : XFER_READ,
			   .buf = buf,
			   .len = len,
			   .off = off,
			   .owner = s,
			   .done = done};
	s->flight->queued++;
	s->flight->queued_bytes += len;
	return x;
}

static void put_later(struct flight *f, struct xfer *x)
{
	x->next = f->refused;
	f->refused = x;
}

void flight_put(struct flight *f, struct xfer *x, bool direct)
{
	x->direct = direct && !f->stats->refused;
	if (direct && f->refused)
		put_later(f, x);
	else
		target_put(f->t, f->q, x);
}

void slot_put(struct slot *s, bool direct, uint8_t *buf, uint64_t len, uint64_t off,
		       void (*done)(struct xfer *, int))
{
	flight_put(s->flight, slot_xfer(s, buf, len, off, done), direct);
}

/*
 * Where the kernel refuses a direct transfer though it gave us a descriptor for such, this one and all
 * others go through the page cache. Those wait until nothing is in flight: on a device, direct and
 * buffered writes of one page would disturb each other. Whether it was so.
 */
bool slot_again_buffered(struct xfer *x, int err)
{
	struct flight *f = ((struct slot *)x->owner)->flight;

	if (!x->direct || f->t->aligned || (err != -EINVAL && err != -EOPNOTSUPP))
		return false;
	f->stats->refused = -err;
	x->direct = false;
	put_later(f, x);
	return true;
}

/* Ends the flight: name could not be read. */
static void read_failed(struct flight *f, const char *name, const struct xfer *x, int err)
{
	const bool target = name == f->t->name;

	flight_fail(f, fail_with(f->e, err == -ENODATA ? EBADMSG : -err,
			    FACTS(.code = err == -ENODATA ? ERR_CHANGED : ERR_BY_ERRNO,
				  AT_BYTE(x->off + x->done_len)),
			    "%s: reading %" PRIu64 " bytes at byte %" PRIu64 ": %s", name,
			    x->len - x->done_len, x->off + x->done_len,
			    err == -ENODATA ? SOURCE_SHORTER
			    : target	    ? target_why(f->t, err)
					    : strerror(-err)));
}

bool slot_all_read(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (slot_again_buffered(x, err))
		return false;
	if (err)
		read_failed(s->flight, s->flight->t->name, x, err);
	return !--s->waiting;
}

/* --- fill ---------------------------------------------------------------------------------------- */

/* Everything that belongs to the batch has been read. */
static void arrived(struct slot *s)
{
	struct flight *f = s->flight;
	int r = 1;

	if (!f->failed && f->o->ready) {
		const struct batch_view view = {
		    .run = s->b.run,
		    .runs = s->b.runs,
		    .off = s->b.off,
		    .data = s->buf ? s->buf + (s->b.off - s->from) : NULL,
		    .old_off = s->old_from,
		    .old_end = s->old_to,
		    .old = s->old,
		};

		r = f->o->ready(f->o->consumer, &view, f->e);
		if (r < 0)
			flight_fail(f, r);
	}
	if (f->failed) {
		slot_release(s);
	} else if (r == 0) {
		for (unsigned i = 0; i < s->b.runs; i++)
			flight_moved(f, s->b.run[i].len);
		slot_release(s);
	} else if (f->o->barrier) {
		s->state = HELD;
		f->held++;
	} else {
		slot_write(s);
	}
}

static const struct run *run_at(const struct slot *s, const uint8_t *buf)
{
	uint64_t off = s->from + (uint64_t)(buf - s->buf);
	unsigned i = 0;

	while (i + 1 < s->b.runs && s->b.run[i + 1].off <= off)
		i++;
	return &s->b.run[i];
}

static void fill_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (err)
		read_failed(s->flight, run_at(s, x->buf)->src->name, x, err);
	if (--s->waiting == 0)
		arrived(s);
}

static void look_done(struct xfer *x, int err)
{
	if (slot_all_read(x, err))
		arrived(x->owner);
}

/* Reads what the target holds where the batch belongs. */
static void look(struct slot *s)
{
	const struct flight *f = s->flight;
	const struct target *t = f->t;
	uint64_t align = f->o->look;
	bool direct = t->past_cache && (f->o->compare ? f->o->past_cache : s->b.direct);

	if (direct || t->aligned)
		align = max_u64(align, t->block);
	s->old_from = round_down(s->b.off, align);
	s->old_to = min_u64(round_up(s->b.end, align), t->size);
	if (s->old_to % t->block)
		direct = false;
	slot_put(s, direct, s->old, s->old_to - s->old_from, s->old_from, look_done);
}

static void keep_text(void *arg, const char *text)
{
	struct fetch *f = arg;

	if (!f->text)
		f->text = strdup(text);
}

static void fetch_run(struct xfer *x)
{
	struct fetch *f = container_of(x, struct fetch, xfer);
	struct err e = {.strict = f->slot->flight->e->strict, .warn = keep_text, .arg = f};

	f->result = reader_fetch(f->run, f->buf, &e);
	if (f->result < 0)
		f->why = err_copy(&e);
}

static void fetch_done(struct xfer *x, int err)
{
	struct fetch *f = container_of(x, struct fetch, xfer);
	struct slot *s = f->slot;
	struct err *e = s->flight->e;

	(void)err;
	if (f->result < 0)
		flight_fail(s->flight, err_pass(e, f->result, f->why));
	else if (f->text && e->warn)
		e->warn(e->arg, f->text);
	free(f->why);
	free(f->text);
	if (--s->waiting == 0)
		arrived(s);
}

/* Has run i inflated, here where no other thread may. */
static int fetch(struct slot *s, unsigned i, uint8_t *buf)
{
	struct flight *f = s->flight;

	if (f->fetch_here)
		return reader_fetch(&s->b.run[i], buf, f->e);
	s->fetch[i] = (struct fetch){
	    .xfer = {.kind = XFER_JOB, .run = fetch_run, .done = fetch_done},
	    .slot = s,
	    .run = &s->b.run[i],
	    .buf = buf,
	};
	s->waiting++;
	queue_put(f->q, &s->fetch[i].xfer);
	return 0;
}

/* Brings the runs to their places in the buffer. */
static void fill_batch(struct slot *s)
{
	struct flight *f = s->flight;

	s->state = FILL;
	if (f->o->look)
		look(s);
	for (unsigned i = 0; !f->failed && i < s->b.runs; i++) {
		const struct run *run = &s->b.run[i];
		uint8_t *buf = s->buf ? s->buf + (run->off - s->from) : NULL;
		int r = 0;

		if (run->kind == RUN_ZERO) {
			if (!f->o->compare && !s->b.zeros)
				memset(buf, 0, run->len);
		} else if (run->kind == RUN_COMPRESSED) {
			r = fetch(s, i, buf);
		} else if (run->src->fd < 0) {
			r = source_read(run->src, run->pos, buf, run->len, "data", f->e);
		} else {
			struct xfer *x = slot_xfer(s, buf, run->len, run->pos, fill_done);

			x->fd = run->src->fd;
			queue_put(f->q, x);
		}
		if (r < 0)
			flight_fail(f, r);
	}
	if (!s->waiting)
		arrived(s);
}

/* --- preread ------------------------------------------------------------------------------------- */

static void preread_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (!slot_all_read(x, err))
		return;
	if (s->flight->failed)
		slot_release(s);
	else
		fill_batch(s);
}

/* Reads what the batch leaves of blocks of the target and lies in between, and nothing else: where that
 * cannot be read, bytes to be written should not be what is to blame. */
static void preread(struct slot *s)
{
	const struct target *t = s->flight->t;
	const uint64_t align = max_u64(t->block, t->memory); /* s->buf has it, not every block in it */
	uint64_t from = 0, to = 0;

	s->state = PREREAD;
	for (unsigned i = 0; i <= s->b.runs; i++) {
		uint64_t a, b;

		slot_gap_before(s, i, &a, &b);
		if (a == b)
			continue;
		a = s->from + round_down(a - s->from, align);
		if (from < to && a > to) {
			slot_put(s, true, s->buf + (from - s->from), to - from, from,
				   preread_done);
			from = to;
		}
		if (from == to)
			from = a;
		to = round_up(b, t->block);
	}
	if (from < to)
		slot_put(s, true, s->buf + (from - s->from), to - from, from, preread_done);
	if (!s->waiting)
		fill_batch(s);
}

/* --- flush --------------------------------------------------------------------------------------- */

static void flush_done(struct xfer *x, int err)
{
	struct flight *f = x->owner;

	f->flushing = false;
	if (!err && f->o->durable && f->flush_taken)
		f->o->durable(f->o->durable_arg, f->flush_taken);
	if (err)
		flight_fail(f, fail(f->e, -err, "%s: %s: %s", f->t->name,
					 f->t->aligned ? "flush" : "fdatasync", target_why(f->t, err)));
}

static void put_flush(struct flight *f, bool in_line)
{
	f->flushing = true;
	f->flush_taken = f->taken;
	for (unsigned i = 0; i < f->slots; i++)
		if (f->slot[i].state != FREE)
			f->flush_taken = min_u64(f->flush_taken, f->slot[i].b.off);
	f->flush = (struct xfer){
	    .kind = XFER_FLUSH, .in_line = in_line, .owner = f, .done = flush_done};
	target_put(f->t, f->q, &f->flush);
}

/* Whoever sends over a network is slower than the disk: what is durable when the last byte arrives need
 * not be waited for then. */
static void flush_meanwhile(struct flight *f)
{
	const struct pump_opts *o = f->o;
	const int64_t each = o->flush_each ? o->flush_each : FLUSH_EACH, now = clock_ms();

	if (!f->flushed)
		f->flushed = now;
	if (f->failed || f->flushing || (!f->stats->begun && !o->durable) || now - f->flushed < each)
		return;
	f->flushed = now;
	put_flush(f, false);
}

/* --- launch -------------------------------------------------------------------------------------- */

static bool busy(const struct flight *f)
{
	return queue_busy(f->q) || f->refused;
}

/* Waits until about so many transfers are done with. */
static void go_on(struct flight *f, unsigned min)
{
	if (busy(f))
		wait_for(f, min);
	else if (f->held)
		flight_write_held(f);
}

/* Whether something in flight touches a block that [from, to) touches. */
static bool in_flight(const struct flight *f, uint64_t from, uint64_t to)
{
	from = round_down(from, f->align);
	to = round_up(to, f->align);
	if (from >= f->reach)
		return false;
	for (unsigned i = 0; i < f->slots; i++)
		if (f->slot[i].state != FREE && f->slot[i].from < to && from < f->slot[i].to)
			return true;
	return false;
}

static struct slot *fresh_slot(struct flight *f, enum slot_class c)
{
	const unsigned k = --f->fresh[c].slots;
	struct slot *s = &f->slot[f->slots++];

	s->flight = f;
	s->class = c;
	if (!class_of[c].bytes)
		return s;
	s->buf = f->fresh[c].memory + k * f->fresh[c].bytes;
	s->old = f->o->look ? s->buf + class_of[c].bytes : NULL;
	return s;
}

/* A free slot for so many bytes; NULL: one has to be waited for. */
static struct slot *take_slot(struct flight *f, const struct batch *b, uint64_t bytes)
{
	enum slot_class c = IS_SMALL;
	struct slot *s;

	if (b->zeros && !f->o->look)
		c = IS_ZEROING;
	else
		while (class_of[c].bytes < bytes)
			c++;
	s = f->free[c];
	if (s)
		f->free[c] = s->next;
	else if (f->fresh[c].slots)
		s = fresh_slot(f, c);
	return s;
}

void flight_launch(struct flight *f, const struct batch *b)
{
	const uint64_t from = b->direct ? round_down(b->off, f->t->block) : b->off;
	const uint64_t to = b->direct ? round_up(b->end, f->t->block) : b->end;
	struct slot *s = NULL;

	while (!f->failed && (in_flight(f, from, to) || !(s = take_slot(f, b, to - from))))
		go_on(f, to - from > SMALL ? 1 : SMALL_AT_ONCE);
	if (!s)
		return;
	f->reach = max_u64(f->reach, round_up(to, f->align));
	s->from = from;
	s->to = to;
	memcpy(&s->b, b, offsetof(struct batch, run) + b->runs * sizeof(*b->run));
	if (f->o->look || b->zeros)
		fill_batch(s);
	else
		preread(s);
	f->taken = b->end;
	if (f->o->durable)
		flush_meanwhile(f);
	if (f->queued >= SUBMIT_AT || f->queued_bytes >= SUBMIT_BYTES)
		wait_for(f, 0);
}

void flight_taken(struct flight *f, uint64_t off)
{
	f->taken = off;
}

/* --- all of them --------------------------------------------------------------------------------- */

void flight_fence(struct flight *f)
{
	unsigned i = 0;

	while (i < f->slots)
		if (f->slot[i].state == PREREAD && busy(f))
			wait_for(f, 1);
		else
			i++;
	while (queue_jobs(f->q))
		wait_for(f, 1);
	flush_meanwhile(f);
	wait_for(f, 0); /* the next bytes may be long in coming */
}

void flight_drain(struct flight *f)
{
	while (busy(f) || f->held)
		go_on(f, 1);
}

int flight_flush(struct flight *f)
{
	if (f->failed)
		f->taken = 0; /* some of it was not written */
	f->failed = 0;
	put_flush(f, true); /* there is nothing to do meanwhile */
	while (busy(f))
		wait_for(f, 1);
	return f->failed;
}

int flight_new(struct flight **out, struct target *t, const struct pump_opts *o, bool fetch_here,
	       struct pump_stats *stats, struct err *e)
{
	struct flight *f = calloc(1, sizeof(*f));
	/* what is looked at takes as much memory again, and a little before and behind: then there
	 * are half as many */
	const unsigned share = o->look ? 2 : 1;
	const size_t around = 2 * round_up(max_u64(max_u64(o->look, t->block), t->memory), PAGE);
	uint8_t *buf;

	if (!f)
		return fail(e, ENOMEM, "out of memory");
	for (unsigned c = 0; c < CLASSES; c++) {
		f->fresh[c].slots = max_u64(class_of[c].slots / share, 1);
		if (c == IS_ZEROING && !t->aligned)
			f->fresh[c].slots = ZEROING_SLOW;
		if (class_of[c].bytes)
			f->fresh[c].bytes = class_of[c].bytes * (size_t)share + (o->look ? around : 0);
		f->memory_size += f->fresh[c].slots * f->fresh[c].bytes;
	}
	/* pages that no batch ever needs are never touched, and cost nothing */
	buf = mmap(NULL, f->memory_size + ZERO_MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED || queue_new(&f->q, DEPTH, o->in_line, e) < 0) {
		if (buf != MAP_FAILED)
			munmap(buf, f->memory_size + ZERO_MOST);
		free(f);
		return fail(e, ENOMEM, "out of memory");
	}
	/* fewer and larger runs for the device; a few percent to a quarter of the time */
	madvise(buf, f->memory_size, MADV_HUGEPAGE);
	f->memory = buf;
	for (unsigned c = 0; c < CLASSES; c++) {
		f->fresh[c].memory = buf;
		buf += f->fresh[c].slots * f->fresh[c].bytes;
	}
	f->zeros = buf;
	f->fetch_here = fetch_here;
	f->t = t;
	f->o = o;
	f->stats = stats;
	stats->ring = queue_kind(f->q);
	f->e = e;
	f->align = flight_align(t, o);
	*out = f;
	return 0;
}

void flight_free(struct flight *f)
{
	if (!f)
		return;
	munmap(f->memory, f->memory_size + ZERO_MOST);
	queue_free(f->q);
	free(f);
}
