/* SPDX-License-Identifier: MIT */
/* See flight.h: what becomes of a batch once it stands whole in its buffer. */
#include "output/flight_slot.h"

#include <inttypes.h>
#include <string.h>

/* --- write --------------------------------------------------------------------------------------- */

static void written(struct slot *s)
{
	struct flight *f = s->flight;
	uint64_t data = 0, zero = 0;

	for (unsigned i = 0; i < s->b.runs; i++)
		*(s->b.run[i].kind == RUN_ZERO ? &zero : &data) += s->b.run[i].len;
	f->stats->reached = max_u64(f->stats->reached, s->b.end);
	f->stats->written += data;
	f->stats->zeroed += zero;
	flight_moved(f, data + zero);
	slot_release(s);
}

/* A file that cannot grow is no input that is too large. */
#define WRITE_FACTS(err, off)                                                                     \
	FACTS(.code = (err) == -EFBIG ? ERR_NO_SPACE : ERR_BY_ERRNO, AT_BYTE(off))

static void write_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;
	struct flight *f = s->flight;

	if (slot_again_buffered(x, err))
		return;
	if (err) {
		s->bad = true;
		flight_fail(f, fail_with(f->e, -err, WRITE_FACTS(err, x->off + x->done_len),
					 "%s: %s %" PRIu64 " bytes at byte %" PRIu64 ": %s", f->t->name,
					 x->kind == XFER_ZERO ? "zeroing" : "writing",
					 x->len - x->done_len, x->off + x->done_len,
					 target_why(f->t, err)));
	}
	if (--s->waiting)
		return;
	if (s->bad)
		slot_release(s);
	else
		written(s);
}

bool flight_direct(struct flight *f, uint64_t off, uint64_t len)
{
	const uint64_t from = round_down(off, f->t->block), to = round_up(off + len, f->t->block);

	return f->t->past_cache && to <= round_down(f->t->size, f->t->block) &&
	       (len == BIG || target_written(f->t, from, to - from));
}

static void zero_done(struct xfer *x, int err)
{
	struct flight *f = ((struct slot *)x->owner)->flight;

	if (!err || !target_zero_unsupported(f->t, x, err)) {
		write_done(x, err);
	} else if (f->t->zero_ways) {
		target_put(f->t, f->q, x);
	} else { /* nobody makes them */
		x->kind = XFER_WRITE;
		x->in_line = false;
		x->buf = f->zeros;
		x->done = write_done;
		f->stats->writes++;
		flight_put(f, x, flight_direct(f, x->off, x->len));
	}
}

void slot_gap_before(const struct slot *s, unsigned i, uint64_t *a, uint64_t *b)
{
	*a = i ? s->b.run[i - 1].off + s->b.run[i - 1].len : s->from;
	*b = i < s->b.runs ? s->b.run[i].off : s->to;
}

/* Where the target has been looked at, all around the runs is known. */
static void fill_gaps(struct slot *s)
{
	for (unsigned i = 0; i <= s->b.runs; i++) {
		uint64_t a, b;

		slot_gap_before(s, i, &a, &b);
		if (a < b)
			memcpy(s->buf + (a - s->from), s->old + (a - s->old_from), b - a);
	}
}

/* The end of the range of SMALL that off lies in. */
static uint64_t small_end(const struct slot *s, uint64_t off)
{
	return min_u64(round_down(off, SMALL) + SMALL, s->to);
}

static uint32_t small_bit(const struct slot *s, uint64_t off)
{
	return UINT32_C(1) << (off / SMALL - s->from / SMALL);
}

/* Which ranges are zeros, of those that share no block with a write in flight. */
static void find_zeros(struct slot *s)
{
	const struct target *t = s->flight->t;
	const uint64_t align = s->flight->align;

	s->zero = 0;
	if (s->b.zeros || (!t->rereads && !(t->thin && t->zero_ways)))
		return;
	if (s->b.direct && s->from % t->memory) /* no part of it could be transferred by itself */
		return;
	for (uint64_t off = s->from, end; off < s->to; off = end) {
		end = small_end(s, off);
		if (round_down(off, align) == off && round_down(end, align) == end &&
		    all_zero(s->buf + (off - s->from), end - off))
			s->zero |= small_bit(s, off);
	}
}

/* Where the ranges end that are, or are not, zeros as the one at off. */
static uint64_t same_until(const struct slot *s, uint64_t off, bool *zeros)
{
	*zeros = s->b.zeros || s->zero & small_bit(s, off);
	if (s->b.zeros)
		return s->to;
	do
		off = small_end(s, off);
	while (off < s->to && *zeros == !!(s->zero & small_bit(s, off)));
	return off;
}

/* Data are written; zeros are made by the kernel or the server. there: the target holds those already. */
static void write_parts(struct slot *s, bool there)
{
	struct flight *f = s->flight;

	s->state = WRITE;
	s->bad = false;
	for (uint64_t off = s->from, end; off < s->to; off = end) {
		struct xfer *x;
		bool zeros;

		end = same_until(s, off, &zeros);
		if (zeros && there)
			continue;
		f->stats->begun = true;
		if (zeros) {
			x = slot_xfer(s, NULL, end - off, off, zero_done);
			x->kind = XFER_ZERO;
			target_put(f->t, f->q, x);
		} else {
			f->stats->writes++;
			slot_put(s, s->b.direct, s->buf + (off - s->from), end - off, off, write_done);
		}
	}
	if (!s->waiting)
		written(s);
}

/* s->buf has the old data of the target in place of the zeros: where those are not zeros, zeros are
 * written. */
static void zeros_read(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (!slot_all_read(x, err))
		return;
	if (s->flight->failed) {
		slot_release(s);
		return;
	}
	for (uint64_t off = s->from, end; off < s->to; off = end) {
		uint8_t *buf = s->buf + (off - s->from);

		end = small_end(s, off);
		if (!(s->zero & small_bit(s, off)) || all_zero(buf, end - off))
			continue;
		memset(buf, 0, end - off);
		s->zero &= ~small_bit(s, off);
	}
	write_parts(s, true);
}

/* Before a target is given zeros that would take room in it: does it hold them already? */
static void check_zeros(struct slot *s)
{
	const bool looked = s->flight->o->look;

	s->state = CHECK;
	for (uint64_t off = s->from, end; off < s->to; off = end) {
		bool zeros;

		end = looked ? small_end(s, off) : same_until(s, off, &zeros);
		if (!(s->zero & small_bit(s, off)))
			continue;
		if (!looked)
			slot_put(s, s->b.direct, s->buf + (off - s->from), end - off, off, zeros_read);
		else if (off < s->old_from || end > s->old_to ||
			 !all_zero(s->old + (off - s->old_from), end - off))
			s->zero &= ~small_bit(s, off);
	}
	if (!s->waiting)
		write_parts(s, true);
}

void slot_write(struct slot *s)
{
	struct flight *f = s->flight;

	if (f->failed) {
		slot_release(s);
		return;
	}
	if (f->o->look)
		fill_gaps(s);
	find_zeros(s);
	if (s->zero && f->t->rereads)
		check_zeros(s);
	else
		write_parts(s, false);
}

void flight_write_held(struct flight *f)
{
	int r = f->failed ? 0 : f->o->barrier(f->o->consumer, f->e);

	if (r < 0)
		flight_fail(f, r);
	f->held = 0;
	for (unsigned i = 0; i < f->slots; i++)
		if (f->slot[i].state == HELD)
			slot_write(&f->slot[i]);
}
