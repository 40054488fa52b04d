/* SPDX-License-Identifier: MIT */
/*
 * See queue.h. Of io_uring: one list, in the order of queue_put(). Its first `offered` transfers lie in
 * the submission queue, the kernel has not taken them yet; from `fresh` on nobody has seen them. What
 * the kernel took has left the list and is counted in `flying`. offered + flying never exceeds depth,
 * so neither queue of io_uring can overflow. A transfer made in line is in `made` until its
 * callback runs.
 */
#include "output/queue.h"
#include "output/workers.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct queue {
	bool in_line; /* there is no io_uring */
	bool tired;   /* the kernel asked for a pause: EAGAIN, EBUSY */
	int broken;   /* 0 or the -errno io_uring died of */
	unsigned depth;
	unsigned busy, jobs, offered, flying;
	unsigned ran; /* callbacks, since queue_wait() was called */
	struct xfer_list list, made;
	struct xfer *fresh;
	struct io_uring uring;
	struct workers *workers;
	struct xfer bell; /* reads the eventfd of the workers, so that io_uring waits for them too */
	bool bell_put;
	uint64_t rung; /* what it reads */
	struct peer *peer;   /* NULL: none yet */
	unsigned peer_busy;  /* its transfers */
	bool peer_fresh;     /* it has some that it has not heard of */
	struct xfer poll;    /* waits for its fd, by io_uring */
	bool poll_put;
};

static void append_fresh(struct queue *q, struct xfer *x)
{
	xfer_append(&q->list, x);
	if (!q->fresh)
		q->fresh = x;
}

static void finish(struct queue *q, struct xfer *x, int err)
{
	q->busy--;
	q->ran++;
	x->done(x, err);
}

/* Those that callbacks put have to wait for the next call: this ends. */
static void finish_all(struct queue *q, struct xfer *x)
{
	struct xfer *next;

	for (; x; x = next) {
		next = x->next;
		q->jobs -= x->kind == XFER_JOB;
		finish(q, x, x->res);
	}
}

/* Takes note of what a call moved, or -errno. Returns 0 or -errno when x is finished, 1 when it has
 * to be tried again. */
static int moved(struct xfer *x, ssize_t res)
{
	if (res == -EAGAIN || res == -EINTR)
		return 1;
	if (res < 0)
		return (int)res;
	if (x->kind == XFER_ZERO || x->kind == XFER_FLUSH || x->kind == XFER_POLL) {
		x->done_len = x->len;
		return 0;
	}
	x->done_len += (uint64_t)res;
	if (x->done_len >= x->len)
		return 0;
	if (!res)
		return x->kind == XFER_WRITE ? -ENOSPC : -ENODATA;
	return 1;
}

static ssize_t call(const struct xfer *x)
{
	char *buf = (char *)x->buf + x->done_len;
	const size_t len = (size_t)(x->len - x->done_len);
	const off_t off = (off_t)(x->off + x->done_len);

	switch (x->kind) {
	case XFER_READ:
		return pread(x->fd, buf, len, off);
	case XFER_WRITE:
		return pwrite(x->fd, buf, len, off);
	case XFER_ZERO:
		return fallocate(x->fd, x->mode, (off_t)x->off, (off_t)x->len);
	default:
		return fdatasync(x->fd);
	}
}

static int transfer_in_line(struct xfer *x)
{
	struct pollfd p = {.fd = x->fd, .events = x->kind == XFER_WRITE ? POLLOUT : POLLIN};
	int rc;

	do {
		ssize_t res = call(x);

		if (res < 0)
			res = -errno;
		if (res == -EAGAIN)
			poll(&p, 1, -1);
		rc = moved(x, res);
	} while (rc > 0);
	return rc;
}

/* --- io_uring ------------------------------------------------------------------------------------ */

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

static bool start_uring(struct queue *q)
{
	if (io_uring_queue_init(q->depth, &q->uring, 0) < 0)
		return false;
	/* of Linux 5.6, as is the youngest operation that is put here */
	if (q->uring.features & IORING_FEAT_RW_CUR_POS && enters(&q->uring))
		return true;
	io_uring_queue_exit(&q->uring);
	return false;
}

static void prepare(struct io_uring_sqe *sqe, struct xfer *x)
{
	char *buf = (char *)x->buf + x->done_len;
	const unsigned len = (unsigned)(x->len - x->done_len);
	const uint64_t off = x->off + x->done_len;

	switch (x->kind) {
	case XFER_READ:
		io_uring_prep_read(sqe, x->fd, buf, len, off);
		break;
	case XFER_WRITE:
		io_uring_prep_write(sqe, x->fd, buf, len, off);
		break;
	case XFER_ZERO:
		io_uring_prep_fallocate(sqe, x->fd, x->mode, (off_t)x->off, (off_t)x->len);
		break;
	case XFER_POLL:
		io_uring_prep_poll_add(sqe, x->fd, POLLIN);
		break;
	default:
		io_uring_prep_fsync(sqe, x->fd, IORING_FSYNC_DATASYNC);
	}
	io_uring_sqe_set_data(sqe, x);
}

/* Hands over what fits and waits for up to `want` completions, in one system call or none. Fewer
 * may be there afterwards; the caller looks and comes again. */
static void submit(struct queue *q, unsigned want)
{
	struct io_uring_sqe *sqe;
	unsigned held;
	int rc;

	if (q->broken)
		return;
	while (q->fresh && q->offered + q->flying < q->depth) {
		sqe = io_uring_get_sqe(&q->uring);
		if (!sqe)
			break;
		prepare(sqe, q->fresh);
		q->fresh = q->fresh->next;
		q->offered++;
	}
	if (!want && !q->offered)
		return;
	/* a bell that nobody is going to ring is not waited for, nor a peer that has nothing to do */
	held = q->offered + q->flying;
	if (held && q->bell_put && !q->jobs)
		held--;
	if (held && q->poll_put && !q->peer_busy)
		held--;
	want = (unsigned)min_u64(want, held);
	rc = io_uring_submit_and_wait(&q->uring, want);
	/* The kernel takes entries in order, and may take some and still report an error. */
	while (q->offered > io_uring_sq_ready(&q->uring)) {
		xfer_take(&q->list);
		q->offered--;
		q->flying++;
	}
	if (rc == -EAGAIN || rc == -EBUSY)
		q->tired = true;
	else if (rc < 0 && rc != -EINTR)
		q->broken = rc;
}

/* Runs the callbacks of what io_uring has completed. They only put, so this ends. */
static void reap(struct queue *q)
{
	struct io_uring_cqe *cqe;

	while (q->flying && !io_uring_peek_cqe(&q->uring, &cqe)) {
		struct xfer *x = io_uring_cqe_get_data(cqe);
		int res = cqe->res, rc;

		io_uring_cqe_seen(&q->uring, cqe);
		q->flying--;
		rc = moved(x, res);
		if (rc > 0) {
			q->tired |= res == -EAGAIN;
			append_fresh(q, x);
		} else if (x == &q->bell) {
			q->bell_put = false;
		} else if (x == &q->poll) {
			q->poll_put = false;
			q->peer->work(q->peer, q, rc < 0 ? rc : 1);
		} else {
			finish(q, x, rc);
		}
	}
}

/* io_uring is of no more use: waits for what the kernel still holds, for it uses the buffers, and
 * fails the rest. */
static int give_up(struct queue *q)
{
	struct xfer *x;

	if (q->bell_put)
		workers_ring(q->workers);
	while (q->flying) {
		unsigned flying = q->flying;

		reap(q);
		if (q->flying == flying)
			nap();
	}
	while (q->jobs) {
		if (!workers_want(q->workers, q->jobs))
			workers_sleep(q->workers);
		finish_all(q, workers_take(q->workers));
	}
	q->offered = 0;
	while ((x = xfer_take(&q->list))) {
		if (x == &q->bell)
			q->bell_put = false;
		else if (x == &q->poll)
			q->poll_put = false;
		else
			finish(q, x, q->broken);
	}
	q->fresh = NULL;
	while (q->peer_busy)
		q->peer->work(q->peer, q, q->broken);
	q->peer_fresh = false;
	return q->broken;
}

/* --- the peer ------------------------------------------------------------------------------------ */

void queue_put_peer(struct queue *q, struct xfer *x, struct peer *p)
{
	x->done_len = 0;
	x->res = 0;
	q->peer = p;
	q->busy++;
	q->peer_busy++;
	q->peer_fresh = true;
}

void queue_done(struct queue *q, struct xfer *x, int err)
{
	q->peer_busy--;
	finish(q, x, err);
}

/* Has it send what was put. What its callbacks put waits for the next call: this ends. */
static void peer_send(struct queue *q)
{
	if (q->peer_fresh) {
		q->peer_fresh = false;
		q->peer->work(q->peer, q, 0);
	}
}

/* Without io_uring. jobs: the bell of the workers is waited for as well. */
static void sleep_in_line(struct queue *q, bool jobs, bool block)
{
	struct pollfd p[2] = {{.fd = q->peer_busy ? q->peer->fd : -1, .events = POLLIN},
			      {.fd = jobs ? workers_bell(q->workers) : -1, .events = POLLIN}};

	if ((!q->peer_busy && !jobs) || poll(p, 2, block ? -1 : 0) <= 0)
		return;
	if (p[1].revents)
		workers_sleep(q->workers);
	if (p[0].revents)
		q->peer->work(q->peer, q, 1);
}

/* Sleeps until something has finished: one of the jobs that run, or one of io_uring's. A job is short
 * and slower than what is written meanwhile: to be woken for each of them costs a twentieth of the
 * time of a streamOptimized image. */
static void sleep_for(struct queue *q, unsigned want)
{
	bool jobs;

	if (q->made.head)
		want = 0; /* callbacks are ready to run */
	if (q->jobs || q->peer_busy)
		want = want != 0; /* the bell rings for many, one poll may end many */
	if (want && q->jobs)
		want = !workers_want(q->workers, (q->jobs + 3) / 4);
	jobs = want && q->jobs;
	if (q->in_line) {
		sleep_in_line(q, jobs, want);
		return;
	}
	if (q->peer_busy && !q->poll_put) {
		q->poll = (struct xfer){.kind = XFER_POLL, .fd = q->peer->fd};
		q->poll_put = true;
		append_fresh(q, &q->poll);
	}
	if (jobs && !q->bell_put) {
		q->bell = (struct xfer){.kind = XFER_READ, .fd = workers_bell(q->workers),
					.buf = &q->rung, .len = sizeof(q->rung)};
		q->bell_put = true;
		append_fresh(q, &q->bell);
	}
	submit(q, want);
}

/* --- the queue ----------------------------------------------------------------------------------- */

int queue_new(struct queue **out, unsigned depth, bool in_line, struct err *e)
{
	struct queue *q = calloc(1, sizeof(*q));

	if (q)
		q->workers = workers_new();
	if (!q || !q->workers) {
		free(q);
		return fail(e, ENOMEM, "out of memory");
	}
	q->depth = depth + 2; /* the bell, and the peer */
	q->in_line = in_line || !start_uring(q);
	*out = q;
	return 0;
}

void queue_free(struct queue *q)
{
	if (!q)
		return;
	while ((q->bell_put || q->poll_put) && !q->broken) {
		if (q->bell_put)
			workers_ring(q->workers);
		submit(q, 1);
		reap(q);
	}
	if (!q->in_line)
		io_uring_queue_exit(&q->uring);
	workers_free(q->workers);
	free(q);
}

#ifndef LIBURING
#define LIBURING "of an unknown version"
#endif

const char *queue_library(void)
{
	return "liburing " LIBURING;
}

const char *queue_kind(const struct queue *q)
{
	return q->in_line ? "in line" : "io_uring";
}

unsigned queue_busy(const struct queue *q)
{
	return q->busy;
}

unsigned queue_jobs(const struct queue *q)
{
	return q->jobs;
}

void queue_put(struct queue *q, struct xfer *x)
{
	x->done_len = 0;
	x->res = 0;
	q->busy++;
	if (x->kind == XFER_JOB) {
		q->jobs++;
		workers_put(q->workers, x);
	} else if (q->in_line || x->in_line) {
		x->res = transfer_in_line(x);
		xfer_append(&q->made, x);
	} else {
		append_fresh(q, x);
	}
}

int queue_wait(struct queue *q, unsigned min)
{
	q->ran = 0;
	do {
		const unsigned before = q->ran;

		finish_all(q, xfer_take_all(&q->made));
		if (q->jobs)
			finish_all(q, workers_take(q->workers));
		peer_send(q);
		sleep_for(q, q->ran < min ? min - q->ran : 0);
		if (q->broken)
			return give_up(q);
		if (!q->in_line)
			reap(q);
		if (q->tired && q->ran == before && q->ran < min)
			nap();
		q->tired = false;
	} while (q->ran < min && q->busy);
	/* what the callbacks put should be under way while the caller thinks */
	if (q->fresh)
		submit(q, 0);
	peer_send(q);
	return (int)q->ran;
}
