/* See pump.h. The numbers below were measured; the commit that changes one says against what. */
#include "output/pump.h"
#include "output/workers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BIG (1024u * 1024) /* largest single write */
#define SMALL (64u * 1024)
/* Of a target that a program serves: the kernel cuts a larger write, and has the parts in flight at
 * once. FUSE takes 32 pages at least, a loop device 128. */
#define SERVED_MOST (128u * 1024)
#define ZERO_MOST (16u * BIG) /* zeroed by one call: each may take a second on a slow device */
/* Slots by the size of their buffers. Neighbours of cold source or target that are just too large for
 * a small one need many more than could be had with BIG each. */
enum slot_class { IS_SMALL, IS_MIDDLE, IS_BIG, CLASSES };
static const struct {
	uint32_t bytes, slots;
} class_of[CLASSES] = {
	{SMALL, 160}, {4 * SMALL, 40}, {BIG, 8},
};
#define SLOTS (160u + 40u + 8u)
#define PIECES 64u /* runs in one batch */
#define RING_DEPTH 256u
#define SUBMIT_AT 32u /* transfers queued before the kernel hears of them, */
#define SMALL_AT_ONCE 16u /* small transfers waited for together: each wait is a system call */
#define SUBMIT_BYTES (4u * BIG) /* or so many bytes */
#define ZERO_WORTH                                                                                 \
	(64u * 1024) /* shorter stretches of zeros are sent as bytes where nothing is              \
		      * thin: a system call each costs more */
#define PAGE 4096u
#define ASK_EACH (64u * BIG) /* guest bytes of one run, after which opts->stop is asked again */
#define SYNC_EACH 500000000 /* nanoseconds between syncs while bytes arrive */
#define BRIDGE (16u * 1024) /* compare: a gap up to this is read over rather than made two reads   \
			     */

/* Neighbouring runs on their way. Between two of them may lie a gap inside one block of the target, or
 * inside one page of a file; that, and what a ragged end leaves of a block, is read first. Where the
 * consumer looks at the target it has been read anyway. */
struct batch {
	struct run piece[PIECES];
	unsigned pieces;
	uint64_t off, end; /* guest bytes from the first piece to the last */
	bool direct;
	bool zeros; /* one piece, zeros, for the zero ladder */
};

enum slot_state { FREE, PREREAD, FILL, HELD, WRITE };

/* A packed run that another thread unpacks. */
struct fetch {
	struct job job;
	struct slot *slot;
	const struct run *run;
	uint8_t *buf;
	int result;
	char *text; /* of the failure, or a warning */
};

struct slot {
	struct pump *pump;
	enum slot_class class;
	enum slot_state state;
	uint8_t *buf;	   /* stands for guest byte `from` on */
	uint64_t from, to; /* what the write covers; block aligned when direct */
	uint8_t *old; /* where the consumer wants to look at the target: guest byte old_from on */
	uint64_t old_from, old_to;
	unsigned waiting; /* transfers of this state in flight */
	struct slot *next; /* free */
	struct batch b;
	struct xfer xfer[PIECES + 2];
	struct fetch fetch[PIECES];
};

struct pump {
	struct target *t;
	struct ring *ring; /* reads, and direct writes */
	struct ring *line; /* buffered writes: the kernel would hand them to one worker, which is
			    * slower than to make them here. All transfers of a target that a program
			    * serves: here they are made one by one */
	struct workers *workers; /* NULL: nothing packed was seen yet, or there are none */
	bool no_workers;
	struct err *e;
	const struct pump_opts *o;
	struct pump_stats *stats;
	int failed;
	uint64_t align;	    /* two writes in flight never share a stretch of this size */
	uint64_t most;	    /* largest single write, power of two */
	uint64_t direct_to; /* direct writes end here at the latest */
	unsigned queued;    /* transfers the kernel has not heard of */
	uint64_t queued_bytes;
	uint64_t reach; /* aligned end of all that ever was in flight */
	struct xfer *refused; /* direct transfers to be made through the page cache */
	struct xfer sync;
	bool syncing; /* it is in flight */
	int64_t synced; /* when it was put, nanoseconds */
	struct batch open;  /* being gathered */
	struct slot slot[SLOTS];
	unsigned slots; /* that were ever used: the others are never touched, which costs memory and time */
	struct slot *free[CLASSES]; /* of those; last used on top */
	struct {
		unsigned slots; /* still to be used the first time */
		size_t bytes;   /* of the buffers of each */
		uint8_t *memory;
	} fresh[CLASSES];
	unsigned held; /* slots that wait for the barrier */
	uint8_t *memory;
	size_t memory_size;
};

static uint64_t down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static uint64_t up(uint64_t v, uint64_t align)
{
	return down(v + align - 1, align);
}

static void set_failed(struct pump *p, int r)
{
	if (!p->failed)
		p->failed = r;
}

static void moved(struct pump *p, uint64_t bytes)
{
	if (p->o->moved)
		p->o->moved(p->o->arg, bytes);
}

static void release(struct slot *s)
{
	struct pump *p = s->pump;

	s->state = FREE;
	s->next = p->free[s->class];
	p->free[s->class] = s;
}

static void put_refused(struct pump *p);

/* Lets the rings work until at least `min` callbacks have run, or nothing is left in flight. */
static void wait_for(struct pump *p, unsigned min)
{
	int ran = ring_wait(p->line, 0), r;

	/* who unpacks is never long about it, and always slower than what is written meanwhile; to be
	 * woken for each grain costs a twentieth of the time */
	if (workers_busy(p->workers)) {
		workers_wait(p->workers, min && !ran ? (workers_busy(p->workers) + 3) / 4 : 0);
		min = 0;
	}
	p->queued = 0;
	p->queued_bytes = 0;
	r = ring_wait(p->ring, ran < (int)min ? min - (unsigned)ran : 0);
	if (r < 0)
		set_failed(p, fail(p->e, -r, "I/O ring: %s", strerror(-r)));
	ring_wait(p->line, 0);
	if (p->refused)
		put_refused(p);
}

static struct xfer *prepare(struct slot *s, int fd, uint8_t *buf, uint64_t len, uint64_t off,
			    void (*done)(struct xfer *, int))
{
	/* all transfers of a state are put before one of them is done: this one is free */
	struct xfer *x = &s->xfer[s->waiting++];

	*x = (struct xfer){.fd = fd,
			   .write = s->state == WRITE,
			   .buf = buf,
			   .len = (size_t)len,
			   .off = off,
			   .owner = s,
			   .done = done};
	return x;
}

static void put(struct ring *ring, struct slot *s, int fd, uint8_t *buf, uint64_t len, uint64_t off,
		void (*done)(struct xfer *, int))
{
	ring_put(ring, prepare(s, fd, buf, len, off, done));
	s->pump->queued++;
	s->pump->queued_bytes += len;
}

static void put_later(struct pump *p, struct xfer *x)
{
	x->next = p->refused;
	p->refused = x;
}

/* A read or write of the target. */
static void put_target(struct slot *s, bool direct, uint8_t *buf, uint64_t len, uint64_t off,
		       void (*done)(struct xfer *, int))
{
	struct pump *p = s->pump;
	bool buffered_write = !direct && s->state == WRITE;

	if (direct && !p->stats->refused)
		put(p->t->served ? p->line : p->ring, s, p->t->direct, buf, len, off, done);
	else if (direct && p->refused)
		put_later(p, prepare(s, p->t->fd, buf, len, off, done));
	else
		put(direct || buffered_write || p->t->served ? p->line : p->ring, s, p->t->fd, buf,
		    len, off, done);
}

/*
 * Where the kernel refuses a direct transfer though it gave us a descriptor for such, this one and all
 * others go through the page cache. Those wait until nothing is in flight: on a device, direct and
 * buffered writes of one page would disturb each other. Whether it was so.
 */
static bool again_buffered(struct xfer *x, int err)
{
	struct slot *s = x->owner;
	struct pump *p = s->pump;

	if (x->fd != p->t->direct || (err != -EINVAL && err != -EOPNOTSUPP))
		return false;
	p->stats->refused = -err;
	x->fd = p->t->fd;
	put_later(p, x);
	return true;
}

static void put_refused(struct pump *p)
{
	struct xfer *x;
	int r;

	while (ring_busy(p->ring)) {
		r = ring_wait(p->ring, ring_busy(p->ring));
		if (r < 0)
			set_failed(p, fail(p->e, -r, "I/O ring: %s", strerror(-r)));
	}
	while ((x = p->refused)) {
		p->refused = x->next;
		ring_put(p->line, x);
	}
}

static void write_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;
	struct pump *p = s->pump;
	uint64_t data = 0, zero = 0;

	if (again_buffered(x, err))
		return;
	s->waiting--;
	if (err) {
		set_failed(p, fail(p->e, -err, "%s: writing %llu bytes at byte %llu: %s",
				   p->t->name, (unsigned long long)(x->len - x->done_len),
				   (unsigned long long)(x->off + x->done_len), strerror(-err)));
	} else {
		for (unsigned i = 0; i < s->b.pieces; i++)
			*(s->b.piece[i].kind == RUN_ZERO ? &zero : &data) += s->b.piece[i].len;
		p->stats->reached = max_u64(p->stats->reached, s->b.end);
		p->stats->written += data;
		p->stats->zeroed += zero;
		moved(p, data + zero);
	}
	release(s);
}

/* What lies before piece i, or with i == pieces behind the last one, inside what is written. */
static void gap_before(const struct slot *s, unsigned i, uint64_t *a, uint64_t *b)
{
	*a = i ? s->b.piece[i - 1].off + s->b.piece[i - 1].len : s->from;
	*b = i < s->b.pieces ? s->b.piece[i].off : s->to;
}

/* Where the target has been looked at, all around the pieces is known. */
static void fill_gaps(struct slot *s)
{
	for (unsigned i = 0; i <= s->b.pieces; i++) {
		uint64_t a, b;

		gap_before(s, i, &a, &b);
		if (a < b)
			memcpy(s->buf + (a - s->from), s->old + (a - s->old_from), b - a);
	}
}

/* The batch stands whole in its buffer. */
static void write_batch(struct slot *s)
{
	struct pump *p = s->pump;
	int r = 0;

	if (p->failed) {
		release(s);
		return;
	}
	s->state = WRITE;
	p->stats->begun = true;
	if (p->o->look)
		fill_gaps(s);
	if (s->b.zeros) {
		r = target_zero(p->t, s->b.off, s->b.end - s->b.off, p->e);
		if (r == 0)
			memset(s->buf + (s->b.off - s->from), 0, s->b.end - s->b.off);
	}
	if (r < 0) {
		set_failed(p, r);
		release(s);
	} else if (r > 0) {
		p->stats->zeroed += s->b.end - s->b.off;
		moved(p, s->b.end - s->b.off);
		release(s);
	} else {
		p->stats->writes++;
		put_target(s, s->b.direct, s->buf, s->to - s->from, s->from, write_done);
	}
}

/* The consumer makes safe what has to be safe, then all that was held back for it is written. */
static void write_held(struct pump *p)
{
	int r = p->failed ? 0 : p->o->barrier(p->o->arg, p->e);

	if (r < 0)
		set_failed(p, r);
	p->held = 0;
	for (unsigned i = 0; i < p->slots; i++)
		if (p->slot[i].state == HELD)
			write_batch(&p->slot[i]);
}

static bool busy(const struct pump *p)
{
	return ring_busy(p->ring) || ring_busy(p->line) || workers_busy(p->workers);
}

/* Waits until about so many transfers are done with. */
static void go_on(struct pump *p, unsigned min)
{
	if (busy(p))
		wait_for(p, min);
	else if (p->held)
		write_held(p);
}

/* Everything that belongs to the batch has been read. */
static void arrived(struct slot *s)
{
	struct pump *p = s->pump;
	int r = 1;

	if (!p->failed && p->o->ready) {
		const struct batch_view view = {
		    .piece = s->b.piece,
		    .pieces = s->b.pieces,
		    .off = s->b.off,
		    .data = s->buf + (s->b.off - s->from),
		    .old_off = s->old_from,
		    .old_end = s->old_to,
		    .old = s->old,
		};

		r = p->o->ready(p->o->arg, &view, p->e);
		if (r < 0)
			set_failed(p, r);
	}
	if (p->failed) {
		release(s);
	} else if (r == 0) {
		for (unsigned i = 0; i < s->b.pieces; i++)
			moved(p, s->b.piece[i].len);
		release(s);
	} else if (p->o->barrier) {
		s->state = HELD;
		p->held++;
	} else {
		write_batch(s);
	}
}

static const struct run *piece_at(const struct slot *s, const uint8_t *buf)
{
	uint64_t off = s->from + (uint64_t)(buf - s->buf);
	unsigned i = 0;

	while (i + 1 < s->b.pieces && s->b.piece[i + 1].off <= off)
		i++;
	return &s->b.piece[i];
}

static void read_failed(struct pump *p, const char *name, const struct xfer *x, int err)
{
	set_failed(
	    p,
	    fail(p->e, err == -ENODATA ? EBADMSG : -err, "%s: reading %llu bytes at byte %llu: %s",
		 name, (unsigned long long)(x->len - x->done_len),
		 (unsigned long long)(x->off + x->done_len),
		 err == -ENODATA ? "the file became shorter while it was read" : strerror(-err)));
}

static void fill_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (err)
		read_failed(s->pump, piece_at(s, x->buf)->src->name, x, err);
	if (--s->waiting == 0)
		arrived(s);
}

static void look_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (again_buffered(x, err))
		return;
	if (err)
		read_failed(s->pump, s->pump->t->name, x, err);
	if (--s->waiting == 0)
		arrived(s);
}

/* Reads what the target holds where the batch belongs. */
static void look(struct slot *s)
{
	struct pump *p = s->pump;
	const struct target *t = p->t;
	uint64_t align = p->o->look;
	bool direct = t->direct >= 0 && (p->o->compare ? p->o->past_cache : s->b.direct);

	if (direct)
		align = max_u64(align, t->block);
	s->old_from = down(s->b.off, align);
	s->old_to = min_u64(up(s->b.end, align), t->size);
	if (s->old_to % t->block)
		direct = false;
	put_target(s, direct, s->old, s->old_to - s->old_from, s->old_from, look_done);
}

static void keep_text(void *arg, const char *text)
{
	struct fetch *f = arg;

	if (!f->text)
		f->text = strdup(text);
}

static void fetch_run(struct job *j)
{
	struct fetch *f = container_of(j, struct fetch, job);
	struct err e = {.strict = f->slot->pump->e->strict, .warn = keep_text, .arg = f};

	f->result = reader_fetch(f->run, f->buf, &e);
	if (f->result < 0) {
		free(f->text);
		f->text = strdup(e.msg);
	}
}

static void fetch_done(struct job *j)
{
	struct fetch *f = container_of(j, struct fetch, job);
	struct slot *s = f->slot;
	struct err *e = s->pump->e;

	if (f->result < 0)
		set_failed(s->pump, fail(e, -f->result, "%s", f->text ? f->text : "out of memory"));
	else if (f->text && e->warn)
		e->warn(e->arg, f->text);
	free(f->text);
	if (--s->waiting == 0)
		arrived(s);
}

/* Has a packed piece unpacked, here where nobody else can. */
static int fetch(struct slot *s, unsigned i, uint8_t *buf)
{
	struct pump *p = s->pump;

	if (!p->workers && !p->no_workers && workers_new(&p->workers) < 0)
		p->no_workers = true;
	if (p->no_workers)
		return reader_fetch(&s->b.piece[i], buf, p->e);
	s->fetch[i] = (struct fetch){
	    .job = {.run = fetch_run, .done = fetch_done},
	    .slot = s,
	    .run = &s->b.piece[i],
	    .buf = buf,
	};
	s->waiting++;
	workers_put(p->workers, &s->fetch[i].job);
	return 0;
}

/* Brings the pieces to their places in the buffer. */
static void fill_batch(struct slot *s)
{
	struct pump *p = s->pump;

	s->state = FILL;
	if (p->o->look)
		look(s);
	for (unsigned i = 0; !p->failed && i < s->b.pieces; i++) {
		const struct run *run = &s->b.piece[i];
		uint8_t *buf = s->buf + (run->off - s->from);
		int r = 0;

		if (run->kind == RUN_ZERO) {
			if (!p->o->compare && !s->b.zeros)
				memset(buf, 0, run->len);
		} else if (run->kind == RUN_PACKED)
			r = fetch(s, i, buf);
		else if (run->src->fd < 0)
			r = source_read(run->src, run->pos, buf, run->len, "data", p->e);
		else
			put(p->ring, s, run->src->fd, buf, run->len, run->pos, fill_done);
		if (r < 0)
			set_failed(p, r);
	}
	if (!s->waiting)
		arrived(s);
}

static void preread_done(struct xfer *x, int err)
{
	struct slot *s = x->owner;

	if (again_buffered(x, err))
		return;
	if (err)
		read_failed(s->pump, s->pump->t->name, x, err);
	if (--s->waiting)
		return;
	if (s->pump->failed)
		release(s);
	else
		fill_batch(s);
}

/* Reads what the batch leaves of blocks of the target and lies in between, and nothing else: where that
 * cannot be read, bytes to be written should not be what is to blame. */
static void preread(struct slot *s)
{
	const struct pump *p = s->pump;
	const struct target *t = p->t;
	const uint64_t align = max_u64(t->block, t->memory); /* s->buf has it, not every block in it */
	uint64_t from = 0, to = 0;

	s->state = PREREAD;
	for (unsigned i = 0; i <= s->b.pieces; i++) {
		uint64_t a, b;

		gap_before(s, i, &a, &b);
		if (a == b)
			continue;
		a = s->from + down(a - s->from, align);
		if (from < to && a > to) {
			put_target(s, true, s->buf + (from - s->from), to - from, from,
				   preread_done);
			from = to;
		}
		if (from == to)
			from = a;
		to = up(b, t->block);
	}
	if (from < to)
		put_target(s, true, s->buf + (from - s->from), to - from, from, preread_done);
	if (!s->waiting)
		fill_batch(s);
}

/* Whether something in flight touches an aligned stretch that [from, to) touches. */
static bool in_flight(const struct pump *p, uint64_t from, uint64_t to)
{
	from = down(from, p->align);
	to = up(to, p->align);
	if (from >= p->reach)
		return false;
	for (unsigned i = 0; i < p->slots; i++)
		if (p->slot[i].state != FREE && p->slot[i].from < to && from < p->slot[i].to)
			return true;
	return false;
}

static struct slot *fresh_slot(struct pump *p, enum slot_class c)
{
	const unsigned k = --p->fresh[c].slots;
	struct slot *s = &p->slot[p->slots++];

	s->pump = p;
	s->class = c;
	s->buf = p->fresh[c].memory + k * p->fresh[c].bytes;
	s->old = p->o->look ? s->buf + class_of[c].bytes : NULL;
	return s;
}

/* A free slot for so many bytes; NULL: one has to be waited for. */
static struct slot *take_slot(struct pump *p, uint64_t bytes)
{
	enum slot_class c = IS_SMALL;
	struct slot *s;

	while (class_of[c].bytes < bytes)
		c++;
	s = p->free[c];
	if (s)
		p->free[c] = s->next;
	else if (p->fresh[c].slots)
		s = fresh_slot(p, c);
	return s;
}

/* Sends the open batch on its way. */
static void launch(struct pump *p)
{
	struct batch *b = &p->open;
	uint64_t from, to;
	struct slot *s = NULL;

	if (!b->pieces)
		return;
	from = b->direct ? down(b->off, p->t->block) : b->off;
	to = b->direct ? up(b->end, p->t->block) : b->end;
	while (!p->failed && (in_flight(p, from, to) || !(s = take_slot(p, to - from))))
		go_on(p, to - from > SMALL ? 1 : SMALL_AT_ONCE);
	if (!s)
		return;
	p->reach = max_u64(p->reach, up(to, p->align));
	s->from = from;
	s->to = to;
	memcpy(s->b.piece, b->piece, b->pieces * sizeof(*b->piece));
	s->b.pieces = b->pieces;
	s->b.off = b->off;
	s->b.end = b->end;
	s->b.direct = b->direct;
	s->b.zeros = b->zeros;
	b->pieces = 0;
	if (p->o->look)
		fill_batch(s);
	else
		preread(s);
	if (p->queued >= SUBMIT_AT || p->queued_bytes >= SUBMIT_BYTES || ring_busy(p->line))
		wait_for(p, 0);
}

/* Whether the caller wants nothing more to be taken. */
static bool stopping(struct pump *p)
{
	if (!p->stats->stopped && p->o->stop && p->o->stop(p->o->arg))
		p->stats->stopped = true;
	return p->failed || p->stats->stopped;
}

/* The same in the middle of a run that goes on from `before` to `off`. */
static bool stopping_at(struct pump *p, uint64_t before, uint64_t off)
{
	return p->failed || p->stats->stopped ||
	       (before / ASK_EACH != off / ASK_EACH && stopping(p));
}

/* Whether a piece may follow what the open batch has. */
static bool follows(struct pump *p, const struct batch *b, const struct run *piece,
		    bool direct, bool zeros)
{
	if (zeros || b->zeros || b->direct != direct || b->off / p->most != piece->off / p->most)
		return false;
	if (piece->off == b->end)
		return true;
	if (piece->off < b->end)
		return false;
	if (p->o->compare)
		return piece->off - b->end <= BRIDGE;
	/* two batches would have to wait for each other */
	if (down(piece->off, p->align) >= up(b->end, p->align))
		return false;
	return p->o->look || (direct && target_written(p->t, b->end, piece->off - b->end));
}

/* Adds a run to the open batch, or begins a new one. Nothing is cut but at multiples of p->most, so a
 * cut never lies inside a block. zeros: for the zero ladder, a batch of its own. */
static void gather(struct pump *p, struct run run, bool zeros)
{
	const uint64_t block = p->t->block;
	struct batch *b = &p->open;

	for (;;) {
		uint64_t n = min_u64(run.len, down(run.off, p->most) + p->most - run.off);
		uint64_t from = down(run.off, block), to = up(run.off + n, block);
		/* into what is not written yet each direct write allocates by itself: for a large
		 * one that still costs less than the page cache does */
		bool direct = !p->o->compare && p->t->direct >= 0 && to <= p->direct_to &&
			      (n == BIG || target_written(p->t, from, to - from));
		struct run piece = run;

		piece.len = n;
		if (b->pieces && !follows(p, b, &piece, direct, zeros))
			launch(p);
		if (b->pieces && run_joins(&b->piece[b->pieces - 1], &piece)) {
			b->piece[b->pieces - 1].len += n;
		} else {
			if (b->pieces == PIECES)
				launch(p);
			if (p->failed)
				return;
			if (!b->pieces) {
				b->off = piece.off;
				b->direct = direct;
				b->zeros = zeros;
			}
			b->piece[b->pieces++] = piece;
		}
		b->end = piece.off + n;
		if (n == run.len || stopping_at(p, run.off, run.off + n))
			return;
		run_trim_front(&run, n);
	}
}

/* Zeros of the run that are sent, or looked at, piece by piece, but for what is a hole of the
 * target. */
static void gather_zeros(struct pump *p, const struct run *run, uint64_t off, uint64_t end,
			 bool ladder)
{
	while (off < end) {
		bool hole;
		uint64_t stop = min_u64(target_stretch(p->t, off, &hole), end);

		if (hole) {
			p->stats->zeroed += stop - off;
			moved(p, stop - off);
		} else {
			gather(p,
			       (struct run){.off = off,
					    .len = stop - off,
					    .kind = RUN_ZERO,
					    .layer = run->layer},
			       ladder);
		}
		if (stopping_at(p, off, stop))
			return;
		off = stop;
	}
}

/* Has [off, end), whole blocks, zeroed by the kernel: call by call, so that a stop is heard between
 * two of them. Returns where it ended: before end where zeros have to be sent, or on a stop. */
static uint64_t zero_by_calls(struct pump *p, uint64_t off, uint64_t end)
{
	while (!p->failed && in_flight(p, off, end))
		go_on(p, 1);
	while (off < end && !p->failed && !p->stats->stopped) {
		uint64_t n = min_u64(down(off, ZERO_MOST) + ZERO_MOST, end) - off;
		int r;

		p->stats->begun = true;
		r = target_zero(p->t, off, n, p->e);
		if (r < 0)
			set_failed(p, r);
		if (r <= 0)
			break;
		p->stats->zeroed += n;
		moved(p, n);
		off += n;
		if (off < end)
			stopping(p);
	}
	return off;
}

static void zero(struct pump *p, const struct run *run)
{
	uint64_t end = run->off + run->len;
	uint64_t a = min_u64(up(run->off, p->align), end), b = max_u64(down(end, p->align), a);

	if (p->o->compare || a == b || (p->t->thick && b - a < ZERO_WORTH) ||
	    (p->t->served && !p->t->created)) {
		gather_zeros(p, run, run->off, end, false);
		return;
	}
	gather_zeros(p, run, run->off, a, false);
	if (p->o->look) {
		gather_zeros(p, run, a, b, true);
	} else {
		a = zero_by_calls(p, a, b);
		if (p->failed || p->stats->stopped)
			return;
		gather_zeros(p, run, a, b, false);
	}
	gather_zeros(p, run, b, end, false);
}

static struct pump *pump_new(struct target *t, const struct pump_opts *o, struct pump_stats *stats,
			     struct err *e)
{
	struct pump *p = calloc(1, sizeof(*p));
	/* what is looked at takes as much memory again, and a little before and behind: then there
	 * are half as many */
	const unsigned share = o->look ? 2 : 1;
	const size_t around = 2 * up(max_u64(max_u64(o->look, t->block), t->memory), PAGE);
	uint8_t *buf;

	if (!p)
		return NULL;
	for (unsigned c = 0; c < CLASSES; c++) {
		p->fresh[c].slots = class_of[c].slots / share;
		p->fresh[c].bytes = class_of[c].bytes * (size_t)share + (o->look ? around : 0);
		p->memory_size += p->fresh[c].slots * p->fresh[c].bytes;
	}
	/* pages that no batch ever needs are never touched, and cost nothing */
	p->memory =
	    mmap(NULL, p->memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED) {
		free(p);
		return NULL;
	}
	/* fewer and larger pieces for the device; a few percent to a quarter of the time */
	madvise(p->memory, p->memory_size, MADV_HUGEPAGE);
	buf = p->memory;
	for (unsigned c = 0; c < CLASSES; c++) {
		p->fresh[c].memory = buf;
		buf += p->fresh[c].slots * p->fresh[c].bytes;
	}
	p->t = t;
	p->o = o;
	p->e = e;
	p->stats = stats;
	p->align = max_u64(max_u64(t->block, t->cached), o->look);
	p->most = t->served ? SERVED_MOST : BIG;
	p->direct_to = down(t->size, t->block);
	return p;
}

static void pump_free(struct pump *p)
{
	munmap(p->memory, p->memory_size);
	ring_free(p->ring);
	ring_free(p->line);
	workers_free(p->workers);
	free(p);
}

static void sync_done(struct xfer *x, int err)
{
	struct pump *p = x->owner;

	p->syncing = false;
	if (err)
		set_failed(p, fail(p->e, -err, "%s: fdatasync: %s", p->t->name, strerror(-err)));
}

/* Whoever sends over a network is slower than the disk: what is durable when the last byte arrives need
 * not be waited for then. */
static void sync_meanwhile(struct pump *p)
{
	struct timespec ts;
	int64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
	if (!p->synced)
		p->synced = now;
	if (p->failed || p->syncing || !p->stats->begun || now - p->synced < SYNC_EACH)
		return;
	p->syncing = true;
	p->synced = now;
	p->sync = (struct xfer){.fd = p->t->fd, .sync = true, .owner = p, .done = sync_done};
	ring_put(p->t->served ? p->line : p->ring, &p->sync);
}

/* Every run so far is copied when this returns: written out, or in a buffer of ours. */
static void fence(struct pump *p)
{
	unsigned i = 0;

	if (!p->failed)
		launch(p);
	while (i < p->slots)
		if (p->slot[i].state == PREREAD && busy(p))
			wait_for(p, 1);
		else
			i++;
	while (workers_busy(p->workers))
		wait_for(p, 1);
	sync_meanwhile(p);
	wait_for(p, 0); /* the next bytes may be long in coming */
}

int pump_run(struct reader *r, struct target *t, const struct pump_opts *o,
	     struct pump_stats *stats, struct err *e)
{
	struct pump *p = pump_new(t, o, stats, e);
	struct run run;
	int got, broken = 0;

	*stats = (struct pump_stats){0};
	if (!p)
		return fail(e, ENOMEM, "out of memory");
	got = ring_new(&p->ring, RING_DEPTH, o->in_line, e);
	if (!got)
		got = ring_new(&p->line, 1, true, e);
	if (got < 0) {
		pump_free(p);
		return got;
	}
	stats->ring = ring_kind(p->ring);
	if (r->passing)
		p->no_workers = !r->passing->threads; /* it can be asked by one only */
	while (!stopping(p)) {
		got = reader_next(r, &run, e);
		/* what came before on a pipe that broke off is written */
		if (got < 0 && r->passing)
			broken = got;
		else if (got < 0)
			set_failed(p, got);
		if (got <= 0)
			break;
		if (run.kind == RUN_FENCE) {
			fence(p);
			continue;
		}
		stats->runs++;
		if (run.kind == RUN_ZERO)
			zero(p, &run);
		else
			gather(p, run, false);
	}
	if (!p->failed)
		launch(p);
	while (busy(p) || p->held)
		go_on(p, 1);
	if (broken == -EINTR && o->stop && o->stop(o->arg)) {
		stats->stopped = true;
		e->set = e->set && p->failed; /* that it stopped hides no failure of what follows */
	} else if (broken)
		set_failed(p, broken);
	got = p->failed;
	pump_free(p);
	return got;
}
