/* SPDX-License-Identifier: MIT */
/*
 * See target.h: the export of an NBD server, by a client of our own. The protocol is the NBD project's
 * doc/proto.md: fixed newstyle handshake, NBD_OPT_GO, one connection. nbd_reply.c parses the
 * answers.
 *
 * Transfers wait in a list until a request is free, are cut where the server takes no more at once, and
 * sent in that order. All socket calls after the handshake are non-blocking; the queue waits for an
 * epoll descriptor that has the socket and a timer in it. What ends the connection ends every transfer:
 * the first reason is kept, and target_why() tells it.
 */
#include "output/nbd_link.h"
#include "output/nbd_reply.h"
#include "output/target.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define SILENCE 60u /* seconds without an answer, in the handshake and while requests are in flight, */
#define SILENCE_FLUSH 900u /* and while a flush is: a server may have to write out a large cache */
#define RECEIVE (128u << 10)
#define IOVS 64

enum { FLAG_READ_ONLY = 1 << 1, FLAG_FLUSH = 1 << 2, FLAG_WRITE_ZEROES = 1 << 6 };

/* Requests. */
#define REQUEST_MAGIC 0x25609513u
#define REQUEST_BYTES 28u
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2, CMD_FLUSH = 3, CMD_WRITE_ZEROES = 6 };

struct outgoing {
	struct nbd_request *request;
	uint8_t header[REQUEST_BYTES];
	const uint8_t *data; /* of a write */
	uint64_t len;
};

struct nbd {
	struct target t;
	struct peer peer; /* its fd is that of epoll */
	struct nbd_link link;
	int timer;
	bool transmission; /* the handshake is over */
	struct nbd_replies replies;
	struct queue *queue;       /* whose transfers these are */
	struct xfer_list waiting;  /* not or only partly made into requests */
	uint64_t asked;            /* bytes of the head that are in requests */
	struct outgoing out[NBD_REQUESTS]; /* a ring: requests that are not yet sent */
	unsigned first, n_out;
	uint64_t sent;             /* bytes of the first of them */
	bool want_room;            /* epoll waits until the socket takes more */
	unsigned flying, flushes;  /* requests without an answer, and the flushes among them */
	int64_t heard;             /* the last answer, milliseconds */
	struct err why;
	struct queue *own;         /* for what is read at once */
	uint8_t in[RECEIVE];
};

static struct nbd *nbd_of(const struct target *t)
{
	return container_of(t, struct nbd, t);
}

/* --- transfers ----------------------------------------------------------------------------------- */

static void fill_header(uint8_t *h, uint16_t command, uint64_t cookie, uint64_t off, uint64_t len)
{
	put32(h, REQUEST_MAGIC);
	put16(h + 4, 0); /* no flags: WRITE_ZEROES may make holes */
	put16(h + 6, command);
	put64(h + 8, cookie);
	put64(h + 16, off);
	put32(h + 24, (uint32_t)len);
}

/* So many bytes of a transfer are done with. */
static void end_part(struct nbd *n, struct xfer *x, uint64_t len, int err)
{
	if (err && !x->res)
		x->res = err;
	x->done_len += len;
	if (x->done_len < x->len)
		return;
	if (x->res)
		x->done_len = 0; /* which of its parts failed does not matter */
	queue_done(n->queue, x, x->res);
}

static void on_done(struct nbd_replies *r, void *owner, uint64_t len, int err)
{
	struct nbd *n = container_of(r, struct nbd, replies);
	struct xfer *x = owner;

	n->flying--;
	n->flushes -= x->kind == XFER_FLUSH;
	end_part(n, x, len, err);
}

/* The connection is of no more use: nothing is sent or received any more. */
static void die(struct nbd *n, int code)
{
	if (n->t.dead)
		return;
	n->t.dead = code;
	shutdown(n->link.sock, SHUT_RDWR); /* so that whoever waits for it wakes up */
}

/* Ends all that was put, but for what the callbacks put. */
static void end_all(struct nbd *n)
{
	struct xfer *x = xfer_take_all(&n->waiting), *next;
	uint64_t asked = n->asked;

	n->asked = 0;
	n->n_out = 0;
	for (unsigned i = 0; i < NBD_REQUESTS; i++) {
		struct nbd_request *q = &n->replies.request[i];
		struct xfer *owner = q->owner;

		if (owner) {
			q->owner = NULL;
			on_done(&n->replies, owner, q->len, n->t.dead);
		}
	}
	for (; x; x = next, asked = 0) {
		next = x->next;
		end_part(n, x, x->len - asked, n->t.dead);
	}
}

/* Makes requests of what waits, while there are free ones. */
static void ask(struct nbd *n)
{
	static const uint16_t command[] = {[XFER_READ] = CMD_READ, [XFER_WRITE] = CMD_WRITE,
					   [XFER_ZERO] = CMD_WRITE_ZEROES, [XFER_FLUSH] = CMD_FLUSH};

	while (n->waiting.head && n->flying < NBD_REQUESTS) {
		struct xfer *x = n->waiting.head;
		const uint64_t off = x->off + n->asked, len = min_u64(x->len - n->asked, n->link.most);
		struct nbd_request *q = nbd_request_new(&n->replies, x);
		struct outgoing *o = &n->out[(n->first + n->n_out++) % NBD_REQUESTS];

		q->off = off;
		q->len = len;
		if (x->kind == XFER_READ)
			q->buf = (uint8_t *)x->buf + n->asked;
		o->request = q;
		o->data = x->kind == XFER_WRITE ? (const uint8_t *)x->buf + n->asked : NULL;
		o->len = o->data ? len : 0;
		fill_header(o->header, command[x->kind], q->cookie, x->kind == XFER_FLUSH ? 0 : off, len);
		if (!n->flying++)
			n->heard = clock_ms();
		n->flushes += x->kind == XFER_FLUSH;
		n->asked += len;
		if (n->asked == x->len) {
			xfer_take(&n->waiting);
			n->asked = 0;
		}
	}
}

static void wait_for_room(struct nbd *n, bool want)
{
	struct epoll_event ev = {.events = EPOLLIN | (want ? EPOLLOUT : 0)};

	if (want == n->want_room)
		return;
	n->want_room = want;
	if (epoll_ctl(n->peer.fd, EPOLL_CTL_MOD, n->link.sock, &ev) < 0)
		die(n, fail(&n->why, errno, "epoll: %s", strerror(errno)));
}

/* What of the requests is not sent yet, into iov. How many entries. */
static size_t gather(const struct nbd *n, struct iovec *iov)
{
	uint64_t skip = n->sent;
	size_t k = 0;

	for (unsigned i = 0; i < n->n_out && k + 2 <= IOVS; i++) {
		const struct outgoing *o = &n->out[(n->first + i) % NBD_REQUESTS];

		if (skip < REQUEST_BYTES) {
			iov[k++] = (struct iovec){(void *)(uintptr_t)(o->header + skip),
						  REQUEST_BYTES - skip};
			skip = 0;
		} else {
			skip -= REQUEST_BYTES;
		}
		if (o->len)
			iov[k++] = (struct iovec){(void *)(uintptr_t)(o->data + skip),
						  (size_t)(o->len - skip)};
		skip = 0;
	}
	return k;
}

static void send_requests(struct nbd *n)
{
	while (!n->t.dead && n->n_out) {
		struct iovec iov[IOVS];
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = gather(n, iov)};
		ssize_t did = sendmsg(n->link.sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0 && errno == EAGAIN) {
			wait_for_room(n, true);
			return;
		}
		if (did < 0) {
			die(n, fail(&n->why, errno, "the connection to the server is lost (%s)",
				    strerror(errno)));
			return;
		}
		n->sent += (uint64_t)did;
		while (n->n_out && n->sent >= REQUEST_BYTES + n->out[n->first].len) {
			n->sent -= REQUEST_BYTES + n->out[n->first].len;
			n->out[n->first].request->sent = true;
			n->first = (n->first + 1) % NBD_REQUESTS;
			n->n_out--;
		}
	}
	if (!n->t.dead)
		wait_for_room(n, false);
}

/* All that is there. Whether anything was. */
static bool receive(struct nbd *n)
{
	bool any = false;

	while (!n->t.dead) {
		uint64_t room, got;
		uint8_t *to = nbd_replies_room(&n->replies, &room);
		struct iovec iov[] = {{to, (size_t)room}, {n->in, sizeof(n->in)}};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
		ssize_t did = recvmsg(n->link.sock, &msg, MSG_DONTWAIT);
		int r = 0;

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0 && errno == EAGAIN)
			break;
		if (did <= 0) {
			die(n, did < 0 ? fail(&n->why, errno, "the connection to the server is lost (%s)",
					      strerror(errno))
				       : fail(&n->why, ECONNRESET, "the server closed the connection"));
			break;
		}
		any = true;
		n->heard = clock_ms();
		got = (uint64_t)did;
		if (room)
			r = nbd_replies_filled(&n->replies, min_u64(got, room), &n->why);
		if (!r && got > room)
			r = nbd_replies_take(&n->replies, n->in, got - room, &n->why);
		if (r < 0)
			die(n, r);
		if (got < room + sizeof(n->in))
			break;
	}
	return any;
}

/* The timer rings each second. */
static void check_time(struct nbd *n)
{
	const unsigned limit = n->flushes ? max_u64(n->link.silence, SILENCE_FLUSH) : n->link.silence;
	uint64_t rings;

	if (read(n->timer, &rings, sizeof(rings)) < 0 && errno != EAGAIN && errno != EINTR)
		die(n, fail(&n->why, errno, "timer: %s", strerror(errno)));
	if (n->flying && clock_ms() - n->heard > limit * INT64_C(1000))
		die(n, fail(&n->why, ETIMEDOUT, "the server has not answered for %u seconds", limit));
}

static void on_work(struct peer *p, struct queue *q, int ready)
{
	struct nbd *n = container_of(p, struct nbd, peer);

	n->queue = q;
	if (ready < 0)
		die(n, fail(&n->why, -ready, "io_uring: %s", strerror(-ready)));
	else if (ready && !receive(n))
		check_time(n);
	if (!n->t.dead) {
		ask(n);
		send_requests(n);
	}
	if (n->t.dead)
		end_all(n);
}

/* --- the operations ------------------------------------------------------------------------------ */

static void nbd_put(struct target *t, struct queue *q, struct xfer *x)
{
	struct nbd *n = nbd_of(t);

	xfer_append(&n->waiting, x);
	queue_put_peer(q, x, &n->peer);
}

static void look_done(struct xfer *x, int err)
{
	*(int *)x->owner = err;
}

/* Whole blocks are read, whatever is wanted of them. */
static bool nbd_look(struct target *t, uint64_t off, void *buf, size_t len)
{
	struct nbd *n = nbd_of(t);
	const uint64_t block = t->block, from = off & ~(block - 1);
	const uint64_t to = min_u64((off + len + block - 1) & ~(block - 1), t->size);
	struct err quiet = {.set = false};
	uint8_t *all;
	int result = 1;
	struct xfer x = {.kind = XFER_READ, .len = to - from, .off = from, .owner = &result,
			 .done = look_done};

	if (off > t->size || len > t->size - off || (!n->own && queue_new(&n->own, 1, true, &quiet) < 0))
		return false;
	all = x.buf = malloc(to - from + 1);
	if (!all)
		return false;
	nbd_put(t, n->own, &x);
	while (result > 0)
		queue_wait(n->own, 1);
	if (!result)
		memcpy(buf, all + (off - from), len);
	free(all);
	return !result;
}

static void nbd_free(struct target *t)
{
	struct nbd *n = nbd_of(t);
	uint8_t header[REQUEST_BYTES];

	if (n->transmission && !n->t.dead && !n->flying) {
		fill_header(header, CMD_DISC, 0, 0, 0);
		/* or it learns of it when the socket is closed */
		send(n->link.sock, header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	queue_free(n->own);
	if (n->peer.fd >= 0)
		close(n->peer.fd);
	if (n->timer >= 0)
		close(n->timer);
	if (n->link.sock >= 0)
		close(n->link.sock);
	free(n);
}

static const struct target_ops nbd_ops = {
	.put = nbd_put,
	.look = nbd_look,
	.free = nbd_free,
};

/* --- opening ------------------------------------------------------------------------------------- */

/* The queue waits for one descriptor: the socket, and a timer that rings now and then. */
static int watch(struct nbd *n, struct err *e)
{
	const struct itimerspec each = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
	struct epoll_event in = {.events = EPOLLIN};

	n->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	n->peer.fd = epoll_create1(EPOLL_CLOEXEC);
	if (n->timer < 0 || n->peer.fd < 0 || timerfd_settime(n->timer, 0, &each, NULL) < 0 ||
	    epoll_ctl(n->peer.fd, EPOLL_CTL_ADD, n->link.sock, &in) < 0 ||
	    epoll_ctl(n->peer.fd, EPOLL_CTL_ADD, n->timer, &in) < 0)
		return fail(e, errno, "%s: %s", n->t.name, strerror(errno));
	return 0;
}

static int check_export(struct nbd *n, const struct target_opts *o, struct err *e)
{
	struct target *t = &n->t;

	t->read_only = n->link.flags & FLAG_READ_ONLY;
	if (t->read_only && !o->read_only)
		return fail(e, EROFS, "%s: the server allows reading only", t->name);
	if (!(n->link.flags & FLAG_FLUSH) && !o->read_only)
		return fail(e, ENOTSUP, "%s: the server cannot flush, so nobody would know when all is on "
					"stable storage", t->name);
	if (t->size > POS_LIMIT)
		return fail(e, EFBIG, "%s: the server says that the export has %llu bytes", t->name,
			    (unsigned long long)t->size);
	if (t->block > SECTOR)
		t->size &= ~((uint64_t)t->block - 1); /* the rest cannot be written */
	return target_check_size(t, o, e);
}

int target_nbd_open(struct target **out, const char *uri, const struct target_opts *o, struct err *e)
{
	struct nbd *n = calloc(1, sizeof(*n));
	struct nbd_uri u = {0};
	int r;

	if (!n)
		return fail(e, ENOMEM, "out of memory");
	n->link.sock = n->timer = n->peer.fd = -1;
	n->link.silence = o->silence ? o->silence : SILENCE;
	n->link.stop = o->stop;
	n->link.arg = o->arg;
	n->replies.done = on_done;
	n->peer.work = on_work;
	n->t = (struct target){.ops = &nbd_ops, .kind = "nbd", .past_cache = true, .aligned = true,
			       .memory = SECTOR, .why = n->why.msg, .name = name_text(uri)};
	n->link.name = n->t.name;
	r = n->t.name ? nbd_uri_parse(&u, uri, n->t.name, e) : fail(e, ENOMEM, "out of memory");
	if (!r && o->create)
		r = fail(e, EINVAL, "%s: --create makes files only; make the export first", n->t.name);
	if (!r)
		r = nbd_connect(&n->link, &u, e);
	n->transmission = !r;
	n->t.size = n->link.size;
	n->t.block = n->t.cached = n->link.block;
	n->replies.structured = n->link.structured;
	if (!r)
		r = check_export(n, o, e);
	if (!r)
		r = watch(n, e);
	nbd_uri_free(&u);
	if (r < 0) {
		target_free(&n->t);
		return r;
	}
	n->t.thin = true;
	n->t.zero_ways = n->link.flags & FLAG_WRITE_ZEROES ? FALLOC_FL_ZERO_RANGE : 0;
	n->t.rereads = !n->t.zero_ways;
	*out = &n->t;
	return 0;
}
