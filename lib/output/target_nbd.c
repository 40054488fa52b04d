/*
 * See target.h: the export of an NBD server, by a client of our own. The protocol is the NBD project's
 * doc/proto.md: fixed newstyle handshake, NBD_OPT_GO, one connection. What the server answers is taken
 * apart by nbd_reply.c.
 *
 * Transfers wait in a list until a request is free, are cut where the server takes no more at once, and
 * sent in that order. All socket calls after the handshake are non-blocking; the queue waits for an
 * epoll descriptor that has the socket and a timer in it. What ends the connection ends every transfer:
 * the first reason is kept, and target_why() tells it.
 */
#include "output/nbd_reply.h"
#include "output/nbd_uri.h"
#include "output/target.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SILENCE 60u /* seconds without an answer, in the handshake and while requests are in flight, */
#define SILENCE_FLUSH 900u /* and while a flush is: a server may have to write out a large cache */
#define REQUEST_MOST (32u << 20) /* bytes; what the protocol has servers take */
#define BLOCK_MOST (64u << 10)   /* the protocol's limit of the minimum block size */
#define RECEIVE (128u << 10)
#define IOVS 64

/* The handshake. */
#define MAGIC UINT64_C(0x4e42444d41474943)        /* NBDMAGIC */
#define MAGIC_OPTION UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define MAGIC_OLD UINT64_C(0x00420281861253)
#define MAGIC_REPLY UINT64_C(0x3e889045565a9)
#define REPLY_MOST (64u << 10) /* bytes of an option's reply */
enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 }; /* flags of server and client */
enum { OPT_GO = 7, OPT_STRUCTURED_REPLY = 8 };
enum { REP_ACK = 1, REP_INFO = 3 };
#define REP_ERR (UINT32_C(1) << 31)
#define REP_ERR_UNSUP (REP_ERR + 1)
#define REP_ERR_TLS_REQD (REP_ERR + 5)
#define REP_ERR_UNKNOWN (REP_ERR + 6)
enum { INFO_EXPORT = 0, INFO_BLOCK_SIZE = 3 };
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
	int sock, timer;
	unsigned silence; /* seconds */
	bool transmission; /* the handshake is over */
	bool (*stop)(void *arg);
	void *arg;
	uint16_t flags;
	uint64_t most;    /* bytes of a request */
	bool no_zero;     /* WRITE_ZEROES was refused */
	struct nbd_replies replies;
	struct queue *queue;       /* whose transfers these are */
	struct xfer *head, **tail; /* not or only partly made into requests */
	uint64_t asked;            /* bytes of the head that are in requests */
	struct outgoing out[NBD_REQUESTS]; /* a ring: requests that are not yet sent */
	unsigned first, n_out;
	uint64_t sent;             /* bytes of the first of them */
	bool want_room;            /* epoll waits until the socket takes more */
	unsigned flying, flushes;  /* requests without an answer, and the flushes among them */
	int64_t heard;             /* the last answer, seconds */
	int dead;                  /* 0, or the -errno the connection ended with */
	struct err why;
	struct queue *own;         /* for what is read at once */
	uint8_t in[RECEIVE];
};

static struct nbd *nbd_of(const struct target *t)
{
	return container_of(t, struct nbd, t);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

static int64_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
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

static uint16_t command_of(const struct xfer *x)
{
	switch (x->kind) {
	case XFER_READ:
		return CMD_READ;
	case XFER_WRITE:
		return CMD_WRITE;
	case XFER_ZERO:
		return CMD_WRITE_ZEROES;
	default:
		return CMD_FLUSH;
	}
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
	if (n->dead)
		return;
	n->dead = code;
	shutdown(n->sock, SHUT_RDWR); /* so that whoever waits for it wakes up */
}

/* Ends all that was put, but for what the callbacks put. */
static void end_all(struct nbd *n)
{
	struct xfer *x = n->head, *next;
	uint64_t asked = n->asked;

	n->head = NULL;
	n->tail = &n->head;
	n->asked = 0;
	n->n_out = 0;
	for (unsigned i = 0; i < NBD_REQUESTS; i++) {
		struct nbd_request *q = &n->replies.request[i];
		struct xfer *owner = q->owner;

		if (owner) {
			q->owner = NULL;
			on_done(&n->replies, owner, q->len, n->dead);
		}
	}
	for (; x; x = next, asked = 0) {
		next = x->next;
		end_part(n, x, x->len - asked, n->dead);
	}
}

/* Makes requests of what waits, while there are free ones. */
static void ask(struct nbd *n)
{
	while (n->head && n->flying < NBD_REQUESTS) {
		struct xfer *x = n->head;
		const uint64_t off = x->off + n->asked, len = min_u64(x->len - n->asked, n->most);
		struct nbd_request *q = nbd_request_new(&n->replies, x);
		struct outgoing *o = &n->out[(n->first + n->n_out++) % NBD_REQUESTS];

		q->off = off;
		q->len = len;
		if (x->kind == XFER_READ)
			q->buf = (uint8_t *)x->buf + n->asked;
		o->request = q;
		o->data = x->kind == XFER_WRITE ? (const uint8_t *)x->buf + n->asked : NULL;
		o->len = o->data ? len : 0;
		fill_header(o->header, command_of(x), q->cookie, x->kind == XFER_FLUSH ? 0 : off, len);
		if (!n->flying++)
			n->heard = seconds();
		n->flushes += x->kind == XFER_FLUSH;
		n->asked += len;
		if (n->asked == x->len) {
			n->head = x->next;
			if (!n->head)
				n->tail = &n->head;
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
	if (epoll_ctl(n->peer.fd, EPOLL_CTL_MOD, n->sock, &ev) < 0)
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
	while (!n->dead && n->n_out) {
		struct iovec iov[IOVS];
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = gather(n, iov)};
		ssize_t did = sendmsg(n->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

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
	if (!n->dead)
		wait_for_room(n, false);
}

/* All that is there. Whether anything was. */
static bool receive(struct nbd *n)
{
	bool any = false;

	while (!n->dead) {
		struct iovec iov[2];
		uint64_t room, got;
		uint8_t *to = nbd_replies_room(&n->replies, &room);
		int r = 0;
		ssize_t did;

		iov[0] = (struct iovec){to, (size_t)room};
		iov[1] = (struct iovec){n->in, sizeof(n->in)};
		did = readv(n->sock, iov, 2);
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
		n->heard = seconds();
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
	const unsigned limit = n->flushes ? max_u64(n->silence, SILENCE_FLUSH) : n->silence;
	uint64_t rings;

	if (read(n->timer, &rings, sizeof(rings)) < 0 && errno != EAGAIN && errno != EINTR)
		die(n, fail(&n->why, errno, "timer: %s", strerror(errno)));
	if (n->flying && seconds() - n->heard > limit)
		die(n, fail(&n->why, ETIMEDOUT, "the server has not answered for %u seconds", limit));
}

static void on_work(struct peer *p, struct queue *q, bool ready)
{
	struct nbd *n = container_of(p, struct nbd, peer);

	n->queue = q;
	if (ready && !receive(n))
		check_time(n);
	if (!n->dead) {
		ask(n);
		send_requests(n);
	}
	if (n->dead)
		end_all(n);
}

static void on_broke(struct peer *p, struct queue *q, int err)
{
	struct nbd *n = container_of(p, struct nbd, peer);

	n->queue = q;
	die(n, fail(&n->why, -err, "io_uring: %s", strerror(-err)));
	end_all(n);
}

/* --- the operations ------------------------------------------------------------------------------ */

static void nbd_put(struct target *t, struct queue *q, struct xfer *x)
{
	struct nbd *n = nbd_of(t);

	x->next = NULL;
	*n->tail = x;
	n->tail = &x->next;
	queue_put_peer(q, x, &n->peer);
}

static bool nbd_can_zero(const struct target *t)
{
	const struct nbd *n = nbd_of(t);

	return n->flags & FLAG_WRITE_ZEROES && !n->no_zero;
}

static bool nbd_zero_unsupported(struct target *t, const struct xfer *x, int err)
{
	(void)x;
	if (err != -EOPNOTSUPP)
		return false;
	nbd_of(t)->no_zero = t->rereads = true;
	return true;
}

static bool nbd_written(struct target *t, uint64_t off, uint64_t len)
{
	(void)t, (void)off, (void)len;
	return true;
}

static uint64_t nbd_stretch(struct target *t, uint64_t off, bool *hole)
{
	(void)t, (void)off;
	*hole = false;
	return UINT64_MAX;
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

static void nbd_hint(struct target *t, uint64_t off, uint64_t len)
{
	(void)t, (void)off, (void)len;
}

static void nbd_forget(struct target *t)
{
	(void)t; /* what the server caches is its business */
}

static bool nbd_in_memory(const struct target *t)
{
	(void)t;
	return false;
}

static bool nbd_room(const struct target *t, uint64_t *bytes)
{
	(void)t, (void)bytes;
	return false;
}

static int nbd_sync_name(struct target *t, struct err *e)
{
	(void)t, (void)e;
	return 0;
}

static const char *nbd_why(const struct target *t, int err)
{
	const struct nbd *n = nbd_of(t);

	return n->dead == err && n->why.set ? n->why.msg : NULL;
}

static void nbd_free(struct target *t)
{
	struct nbd *n = nbd_of(t);
	uint8_t header[REQUEST_BYTES];

	if (n->transmission && !n->dead && !n->flying) {
		fill_header(header, CMD_DISC, 0, 0, 0);
		if (send(n->sock, header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			/* then it learns of it when the socket is closed */
		}
	}
	queue_free(n->own);
	if (n->peer.fd >= 0)
		close(n->peer.fd);
	if (n->timer >= 0)
		close(n->timer);
	if (n->sock >= 0)
		close(n->sock);
	free(n);
}

static const struct target_ops nbd_ops = {
	.put = nbd_put,
	.can_zero = nbd_can_zero,
	.zero_unsupported = nbd_zero_unsupported,
	.written = nbd_written,
	.stretch = nbd_stretch,
	.look = nbd_look,
	.hint = nbd_hint,
	.forget = nbd_forget,
	.in_memory = nbd_in_memory,
	.room = nbd_room,
	.sync_name = nbd_sync_name,
	.why = nbd_why,
	.free = nbd_free,
};

/* --- the handshake ------------------------------------------------------------------------------- */

static int lost(const struct nbd *n, ssize_t did, struct err *e)
{
	if (!did)
		return fail(e, ECONNRESET, "%s: the server closed the connection during the handshake",
			    n->t.name);
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return fail(e, ETIMEDOUT, "%s: the server has not answered for %u seconds", n->t.name,
			    n->silence);
	return fail(e, errno, "%s: the connection to the server is lost (%s)", n->t.name,
		    strerror(errno));
}

/* A signal that is none to stop for interrupts as well. */
static int interrupted(const struct nbd *n, struct err *e)
{
	return n->stop && n->stop(n->arg)
		       ? fail(e, EINTR, "%s: stopped by a signal before anything was written", n->t.name)
		       : 0;
}

static int get(struct nbd *n, void *buf, size_t len, struct err *e)
{
	uint8_t *p = buf;
	int r = 0;

	while (!r && len) {
		ssize_t did = recv(n->sock, p, len, 0);

		if (did < 0 && errno == EINTR) {
			r = interrupted(n, e);
			continue;
		}
		if (did <= 0)
			return lost(n, did, e);
		p += did;
		len -= (size_t)did;
	}
	return r;
}

static int give(struct nbd *n, const void *buf, size_t len, struct err *e)
{
	const uint8_t *p = buf;
	int r = 0;

	while (!r && len) {
		ssize_t did = send(n->sock, p, len, MSG_NOSIGNAL);

		if (did < 0 && errno == EINTR) {
			r = interrupted(n, e);
			continue;
		}
		if (did < 0)
			return lost(n, did, e);
		p += did;
		len -= (size_t)did;
	}
	return r;
}

static int give_option(struct nbd *n, uint32_t option, const uint8_t *data, size_t len, struct err *e)
{
	uint8_t head[16];
	int r;

	put64(head, MAGIC_OPTION);
	put32(head + 8, option);
	put32(head + 12, (uint32_t)len);
	r = give(n, head, sizeof(head), e);
	return r < 0 || !len ? r : give(n, data, len, e);
}

/* The next reply to an option; its data lies in n->in. */
static int get_reply(struct nbd *n, uint32_t option, uint32_t *type, uint32_t *len, struct err *e)
{
	uint8_t head[20];
	int r = get(n, head, sizeof(head), e);

	if (r < 0)
		return r;
	*type = be32(head + 12);
	*len = be32(head + 16);
	if (be64(head) != MAGIC_REPLY || be32(head + 8) != option || *len > REPLY_MOST)
		return fail(e, EPROTO, "%s: the server's reply to an option is not of the NBD protocol",
			    n->t.name);
	return get(n, n->in, *len, e);
}

static int greet(struct nbd *n, struct err *e)
{
	uint8_t head[18], flags[4];
	int r = get(n, head, 8, e);

	if (r < 0)
		return r;
	if (be64(head) != MAGIC)
		return fail(e, EPROTO, "%s: is not an NBD server (its first bytes are %02x %02x %02x %02x)",
			    n->t.name, head[0], head[1], head[2], head[3]);
	r = get(n, head + 8, 8, e);
	if (r < 0)
		return r;
	if (be64(head + 8) != MAGIC_OPTION)
		return fail(e, ENOTSUP, be64(head + 8) == MAGIC_OLD
						? "%s: the server speaks the oldstyle NBD handshake, which "
						  "is not supported"
						: "%s: the server speaks an unknown NBD handshake",
			    n->t.name);
	r = get(n, head + 16, 2, e);
	if (r < 0)
		return r;
	if (!(be16(head + 16) & FIXED_NEWSTYLE))
		return fail(e, ENOTSUP, "%s: the server does not speak the fixed newstyle NBD handshake",
			    n->t.name);
	put32(flags, FIXED_NEWSTYLE | (be16(head + 16) & NO_ZEROES));
	return give(n, flags, sizeof(flags), e);
}

static int refused(const struct nbd *n, const char *export, uint32_t type, uint32_t len, struct err *e)
{
	char *name = name_text(export), *text;
	int r;

	text = strndup((const char *)n->in, min_u64(len, 200));
	if (text) {
		char *clean = name_text(text);

		free(text);
		text = clean;
	}
	if (!name || !text)
		r = fail(e, ENOMEM, "out of memory");
	else if (type == REP_ERR_TLS_REQD)
		r = fail(e, ENOTSUP, "%s: the server requires TLS, which is not supported: use a Unix "
				     "socket, or a tunnel (ssh -L)", n->t.name);
	else if (type == REP_ERR_UNKNOWN)
		r = fail(e, ENOENT, "%s: the server has no export named '%s'%s%s", n->t.name, name,
			 *text ? "; it says: " : "", text);
	else if (type == REP_ERR_UNSUP)
		r = fail(e, ENOTSUP, "%s: the server is too old: it does not support NBD_OPT_GO",
			 n->t.name);
	else
		r = fail(e, EACCES, "%s: the server refused the export '%s' (0x%08x)%s%s", n->t.name, name,
			 type, *text ? "; it says: " : "", text);
	free(name);
	free(text);
	return r;
}

/* The smallest block and the largest request. */
static int take_blocks(struct nbd *n, const uint8_t *p, struct err *e)
{
	const uint32_t least = be32(p), most = be32(p + 8);

	if (!is_pow2(least) || least > BLOCK_MOST)
		return fail(e, ENOTSUP, "%s: the server's minimum block size of %u bytes is not a power of "
					"two up to %u", n->t.name, least, BLOCK_MOST);
	n->t.block = (uint32_t)max_u64(least, SECTOR);
	n->most = min_u64(most, REQUEST_MOST) & ~((uint64_t)n->t.block - 1);
	if (!n->most)
		return fail(e, ENOTSUP, "%s: the server takes no more than %u bytes at once, which is less "
					"than a block of %u", n->t.name, most, n->t.block);
	return 0;
}

static int go(struct nbd *n, const char *export, struct err *e)
{
	const size_t len = strlen(export);
	uint8_t *data = malloc(len + 8);
	bool known = false;
	uint32_t type, got;
	int r;

	if (!data)
		return fail(e, ENOMEM, "out of memory");
	put32(data, (uint32_t)len);
	memcpy(data + 4, export, len);
	put16(data + 4 + len, 1);
	put16(data + 6 + len, INFO_BLOCK_SIZE);
	r = give_option(n, OPT_GO, data, len + 8, e);
	free(data);
	while (r >= 0 && (r = get_reply(n, OPT_GO, &type, &got, e)) >= 0) {
		if (type == REP_ACK)
			break;
		if (type & REP_ERR)
			return refused(n, export, type, got, e);
		if (type != REP_INFO || got < 2)
			return fail(e, EPROTO, "%s: the server's reply to an option is not of the NBD "
					       "protocol", n->t.name);
		if (be16(n->in) == INFO_EXPORT && got == 12) {
			n->t.size = be64(n->in + 2);
			n->flags = be16(n->in + 10);
			known = true;
		} else if (be16(n->in) == INFO_BLOCK_SIZE && got == 14) {
			r = take_blocks(n, n->in + 2, e);
		}
	}
	if (r >= 0 && !known)
		return fail(e, EPROTO, "%s: the server did not say how large the export is", n->t.name);
	return r;
}

static int shake_hands(struct nbd *n, const char *export, struct err *e)
{
	uint32_t type, len;
	int r = greet(n, e);

	if (!r)
		r = give_option(n, OPT_STRUCTURED_REPLY, NULL, 0, e);
	if (!r)
		r = get_reply(n, OPT_STRUCTURED_REPLY, &type, &len, e);
	if (r < 0)
		return r;
	if (type == REP_ERR_TLS_REQD)
		return refused(n, export, type, len, e);
	n->replies.structured = type == REP_ACK;
	return go(n, export, e);
}

/* --- opening ------------------------------------------------------------------------------------- */

static void set(int fd, int level, int option, int value)
{
	/* without it the connection works, too */
	if (setsockopt(fd, level, option, &value, sizeof(value)) < 0)
		return;
}

/* A socket that gives up after a while, and TCP that notices when the other end is gone. */
static int new_socket(const struct nbd *n, int family, int protocol)
{
	const struct timeval limit = {.tv_sec = n->silence};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (family == AF_UNIX)
		return fd;
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 20);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)n->silence * 1000);
	return fd;
}

static int connect_to(struct nbd *n, const struct sockaddr *addr, socklen_t len, struct err *e)
{
	struct pollfd p = {.fd = n->sock, .events = POLLOUT};
	int r, code = 0;
	socklen_t size = sizeof(code);

	if (connect(n->sock, addr, len) == 0)
		return 0;
	code = errno;
	if (code == EINTR) { /* it goes on all the same */
		r = interrupted(n, e);
		if (r < 0)
			return r;
		if (poll(&p, 1, (int)n->silence * 1000) <= 0 ||
		    getsockopt(n->sock, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
			code = ETIMEDOUT;
	}
	if (code == EINPROGRESS || code == EAGAIN)
		code = ETIMEDOUT;
	return -code;
}

static int connect_unix(struct nbd *n, const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return fail(e, EINVAL, "%s: the path of the socket is longer than %zu bytes", n->t.name,
			    sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	n->sock = new_socket(n, AF_UNIX, 0);
	if (n->sock < 0)
		return fail(e, errno, "%s: %s", n->t.name, strerror(errno));
	r = connect_to(n, (const struct sockaddr *)&addr, sizeof(addr), e);
	return r < 0 ? fail(e, -r, "%s: cannot connect to the socket: %s", n->t.name, strerror(-r)) : 0;
}

static int connect_tcp(struct nbd *n, const struct nbd_uri *u, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list, *a;
	int r = getaddrinfo(u->host, u->port, &hints, &list);

	if (r)
		return fail(e, EHOSTUNREACH, "%s: the host is not known: %s", n->t.name, gai_strerror(r));
	r = -EHOSTUNREACH;
	for (a = list; a && r < 0 && r != -EINTR; a = a->ai_next) {
		if (n->sock >= 0)
			close(n->sock);
		n->sock = new_socket(n, a->ai_family, a->ai_protocol);
		r = n->sock < 0 ? -errno : connect_to(n, a->ai_addr, a->ai_addrlen, e);
	}
	freeaddrinfo(list);
	return r < 0 ? fail(e, -r, "%s: cannot connect to port %s: %s", n->t.name, u->port, strerror(-r))
		     : 0;
}

/* The queue waits for one descriptor: the socket, and a timer that rings now and then. */
static int watch(struct nbd *n, struct err *e)
{
	const struct itimerspec each = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
	struct epoll_event in = {.events = EPOLLIN};
	int flags = fcntl(n->sock, F_GETFL);

	n->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	n->peer.fd = epoll_create1(EPOLL_CLOEXEC);
	if (n->timer < 0 || n->peer.fd < 0 || flags < 0 ||
	    fcntl(n->sock, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    timerfd_settime(n->timer, 0, &each, NULL) < 0 ||
	    epoll_ctl(n->peer.fd, EPOLL_CTL_ADD, n->sock, &in) < 0 ||
	    epoll_ctl(n->peer.fd, EPOLL_CTL_ADD, n->timer, &in) < 0)
		return fail(e, errno, "%s: %s", n->t.name, strerror(errno));
	return 0;
}

static int check_export(struct nbd *n, const struct target_opts *o, struct err *e)
{
	struct target *t = &n->t;

	t->read_only = n->flags & FLAG_READ_ONLY;
	if (t->read_only && !o->read_only)
		return fail(e, EROFS, "%s: the server allows reading only", t->name);
	if (!(n->flags & FLAG_FLUSH) && !o->read_only)
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
	n->sock = n->timer = n->peer.fd = -1;
	n->tail = &n->head;
	n->silence = o->silence ? o->silence : SILENCE;
	n->most = REQUEST_MOST;
	n->stop = o->stop;
	n->arg = o->arg;
	n->replies.done = on_done;
	n->peer.work = on_work;
	n->peer.broke = on_broke;
	n->t = (struct target){.ops = &nbd_ops, .kind = "nbd", .past_cache = true, .aligned = true,
			       .block = SECTOR, .memory = SECTOR, .name = name_text(uri)};
	r = n->t.name ? nbd_uri_parse(&u, uri, n->t.name, e) : fail(e, ENOMEM, "out of memory");
	if (!r && o->create)
		r = fail(e, EINVAL, "%s: --create makes files only; make the export first", n->t.name);
	if (!r)
		r = u.socket ? connect_unix(n, u.socket, e) : connect_tcp(n, &u, e);
	if (!r)
		r = shake_hands(n, u.export, e);
	n->transmission = !r;
	if (!r)
		r = check_export(n, o, e);
	if (!r)
		r = watch(n, e);
	nbd_uri_free(&u);
	if (r < 0) {
		target_free(&n->t);
		return r;
	}
	n->t.cached = n->t.block;
	n->t.thin = true;
	n->t.rereads = !(n->flags & FLAG_WRITE_ZEROES);
	*out = &n->t;
	return 0;
}
