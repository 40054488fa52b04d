/*
 * One queue, in the order of ring_put(). Its first `offered` transfers lie in the submission queue,
 * the kernel has not taken them yet; from `fresh` on nobody has seen them. What the kernel took has
 * left the queue and is counted in `flying`. offered + flying never passes depth, so neither queue
 * of io_uring can overflow. In line, ours holds what is finished and waits for its callback.
 */
#include "output/ring.h"

#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct ring {
	bool in_line;
	bool tired;  /* the kernel asked for a pause: EAGAIN, EBUSY */
	int broken;  /* 0 or the -errno io_uring died of */
	unsigned depth;
	unsigned busy, offered, flying;
	struct xfer *head, **tail, *fresh;
	struct io_uring uring;
};

static void append(struct ring *r, struct xfer *x)
{
	x->next = NULL;
	*r->tail = x;
	r->tail = &x->next;
	if (!r->fresh)
		r->fresh = x;
}

static struct xfer *take(struct ring *r)
{
	struct xfer *x = r->head;

	r->head = x->next;
	if (!r->head)
		r->tail = &r->head;
	if (r->fresh == x)
		r->fresh = r->head;
	return x;
}

static void finish(struct ring *r, struct xfer *x, int err)
{
	r->busy--;
	x->done(x, err);
}

/* Takes note of what a call moved, or -errno. Returns 0 or -errno when x is finished, 1 when it has
 * to be tried again. */
static int moved(struct xfer *x, ssize_t res)
{
	if (res == -EAGAIN || res == -EINTR)
		return 1;
	if (res < 0)
		return (int)res;
	x->done_len += (size_t)res;
	if (x->done_len >= x->len)
		return 0;
	if (!res)
		return x->write ? -ENOSPC : -ENODATA;
	return 1;
}

static int transfer_in_line(struct xfer *x)
{
	struct pollfd p = {.fd = x->fd, .events = x->write ? POLLOUT : POLLIN};
	int rc;

	do {
		char *buf = (char *)x->buf + x->done_len;
		size_t len = x->len - x->done_len;
		off_t off = (off_t)(x->off + x->done_len);
		ssize_t res = x->sync    ? fdatasync(x->fd)
			      : x->write ? pwrite(x->fd, buf, len, off)
					 : pread(x->fd, buf, len, off);

		if (res < 0)
			res = -errno;
		if (res == -EAGAIN)
			poll(&p, 1, -1);
		rc = moved(x, res);
	} while (rc > 0);
	return rc;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

#define PROBE_TRIES 100 /* each after a millisecond */

/* A seccomp filter may allow io_uring_setup and refuse io_uring_enter: tells by a transfer of nothing. */
static bool enters(struct io_uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(uring);
	struct io_uring_cqe *cqe;

	if (!sqe)
		return false;
	io_uring_prep_nop(sqe);
	for (unsigned i = 0; i < PROBE_TRIES; i++) {
		int rc = io_uring_submit_and_wait(uring, 1);

		if (io_uring_peek_cqe(uring, &cqe) == 0) {
			io_uring_cqe_seen(uring, cqe);
			return true;
		}
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			return false;
		nap();
	}
	return false;
}

static bool start_uring(struct ring *r)
{
	struct io_uring_probe *probe;
	bool able;

	if (io_uring_queue_init(r->depth, &r->uring, 0) < 0)
		return false;
	probe = io_uring_get_probe_ring(&r->uring);
	able = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
	       io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
	       io_uring_opcode_supported(probe, IORING_OP_WRITEV) &&
	       io_uring_opcode_supported(probe, IORING_OP_FSYNC);
	if (probe)
		io_uring_free_probe(probe);
	able = able && enters(&r->uring);
	if (!able)
		io_uring_queue_exit(&r->uring);
	return able;
}

int ring_new(struct ring **out, unsigned depth, bool in_line, struct err *e)
{
	struct ring *r = calloc(1, sizeof(*r));

	if (!r)
		return fail(e, ENOMEM, "no memory for the I/O ring");
	r->depth = depth ? depth : 1;
	r->tail = &r->head;
	r->in_line = in_line || !start_uring(r);
	*out = r;
	return 0;
}

void ring_free(struct ring *r)
{
	if (r && !r->in_line)
		io_uring_queue_exit(&r->uring);
	free(r);
}

const char *ring_kind(const struct ring *r)
{
	return r->in_line ? "in line" : "io_uring";
}

unsigned ring_busy(const struct ring *r)
{
	return r->busy;
}

void ring_put(struct ring *r, struct xfer *x)
{
	x->done_len = 0;
	x->res = 0;
	r->busy++;
	if (r->in_line)
		x->res = transfer_in_line(x);
	append(r, x);
}

static void prepare(struct io_uring_sqe *sqe, struct xfer *x)
{
	char *buf = (char *)x->buf + x->done_len;
	unsigned len = (unsigned)(x->len - x->done_len);
	uint64_t off = x->off + x->done_len;

	if (x->sync)
		io_uring_prep_fsync(sqe, x->fd, IORING_FSYNC_DATASYNC);
	else if (x->write)
		io_uring_prep_write(sqe, x->fd, buf, len, off);
	else
		io_uring_prep_read(sqe, x->fd, buf, len, off);
	io_uring_sqe_set_data(sqe, x);
}

/* Hands over what fits and waits for up to `want` completions, in one system call or none. Fewer
 * may be there afterwards; the caller looks and comes again. */
static void submit(struct ring *r, unsigned want)
{
	struct io_uring_sqe *sqe;
	int rc;

	if (r->broken)
		return;
	while (r->fresh && r->offered + r->flying < r->depth) {
		sqe = io_uring_get_sqe(&r->uring);
		if (!sqe)
			break;
		prepare(sqe, r->fresh);
		r->fresh = r->fresh->next;
		r->offered++;
	}
	if (!want && !r->offered)
		return;
	want = (unsigned)min_u64(want, r->offered + r->flying);
	rc = io_uring_submit_and_wait(&r->uring, want);
	/* The kernel takes entries in order, and may take some and still report an error. */
	while (r->offered > io_uring_sq_ready(&r->uring)) {
		take(r);
		r->offered--;
		r->flying++;
	}
	if (rc == -EAGAIN || rc == -EBUSY)
		r->tired = true;
	else if (rc < 0 && rc != -EINTR)
		r->broken = rc;
}

/* Runs the callbacks of what has completed. They only queue, so this ends. */
static unsigned reap(struct ring *r)
{
	struct io_uring_cqe *cqe;
	unsigned ran = 0;

	while (r->flying && !io_uring_peek_cqe(&r->uring, &cqe)) {
		struct xfer *x = io_uring_cqe_get_data(cqe);
		int res = cqe->res, rc;

		io_uring_cqe_seen(&r->uring, cqe);
		r->flying--;
		rc = moved(x, res);
		if (rc > 0) {
			r->tired |= res == -EAGAIN;
			append(r, x);
			continue;
		}
		finish(r, x, rc);
		ran++;
	}
	return ran;
}

/* The ring is of no more use: waits for what the kernel still holds, for it uses the buffers, and
 * fails the rest. */
static int give_up(struct ring *r)
{
	while (r->flying)
		if (!reap(r))
			nap();
	r->offered = 0;
	while (r->head)
		finish(r, take(r), r->broken);
	return r->broken;
}

static int wait_in_line(struct ring *r, unsigned min)
{
	/* Callbacks that put more must not keep us here for ever. */
	uint64_t most = max_u64(min, r->busy);
	unsigned ran = 0;

	while (r->head && ran < most) {
		struct xfer *x = take(r);

		finish(r, x, x->res);
		ran++;
	}
	return (int)ran;
}

int ring_wait(struct ring *r, unsigned min)
{
	unsigned ran = 0;

	if (r->in_line)
		return wait_in_line(r, min);
	do {
		unsigned n;

		submit(r, ran < min ? min - ran : 0);
		if (r->broken)
			return give_up(r);
		n = reap(r);
		ran += n;
		if (r->tired && !n && ran < min)
			nap();
		r->tired = false;
	} while (ran < min && r->busy);
	/* What the callbacks put should be under way while the caller thinks. */
	if (r->fresh)
		submit(r, 0);
	return (int)ran;
}
