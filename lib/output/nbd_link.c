/* SPDX-License-Identifier: MIT */
#include "output/nbd_link.h"
#include "output/nbd_reply.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The handshake. */
#define MAGIC UINT64_C(0x4e42444d41474943)        /* NBDMAGIC */
#define MAGIC_OPTION UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define MAGIC_OLD UINT64_C(0x00420281861253)
#define MAGIC_REPLY UINT64_C(0x3e889045565a9)
enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 }; /* flags of server and client */
enum { OPT_GO = 7, OPT_STRUCTURED_REPLY = 8 };
enum { REP_ACK = 1, REP_INFO = 3 };
#define REP_ERR (UINT32_C(1) << 31)
#define REP_ERR_UNSUP (REP_ERR + 1)
#define REP_ERR_TLS_REQD (REP_ERR + 5)
#define REP_ERR_UNKNOWN (REP_ERR + 6)
enum { INFO_EXPORT = 0, INFO_BLOCK_SIZE = 3 };

/* Of a Unix socket, whose usual 208 KiB hold a fifth of a request: client and server then wake each other
 * several times for each. The kernel doubles it, and gives at least 416 KiB; more gains nothing. TCP finds
 * its size by itself. */
#define SEND_BUFFER (512 << 10)

/* --- the handshake ------------------------------------------------------------------------------- */

static int lost(const struct nbd_link *n, ssize_t did, struct err *e)
{
	if (!did)
		return fail(e, ECONNRESET, "%s: the server closed the connection during the handshake",
			    n->name);
	return fail(e, errno, "%s: the connection to the server is lost (%s)", n->name,
		    strerror(errno));
}

/* A signal that is none to stop for interrupts as well. */
static int interrupted(const struct nbd_link *n, struct err *e)
{
	return n->stop && n->stop(n->arg)
		       ? fail(e, EINTR, "%s: stopped by a signal before anything was written", n->name)
		       : 0;
}

/* Until the socket can be read or written. A signal just before a call that waits interrupts nothing, so
 * one is looked for now and then. */
static int await(struct nbd_link *n, short events, struct err *e)
{
	struct pollfd p = {.fd = n->sock, .events = events};

	for (unsigned i = 0; i < 4 * n->silence; i++) {
		int r = interrupted(n, e);

		if (r < 0)
			return r;
		r = poll(&p, 1, 250);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return lost(n, -1, e);
	}
	return fail(e, ETIMEDOUT, "%s: the server has not answered for %u seconds", n->name, n->silence);
}

/* Sends or receives all of it. */
static int move(struct nbd_link *n, short events, void *buf, size_t len, struct err *e)
{
	uint8_t *p = buf;

	while (len) {
		int r = await(n, events, e);
		ssize_t did;

		if (r < 0)
			return r;
		did = events == POLLIN ? recv(n->sock, p, len, MSG_DONTWAIT)
				       : send(n->sock, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (did < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (did <= 0)
			return lost(n, did, e);
		p += did;
		len -= (size_t)did;
	}
	return 0;
}

static int give_option(struct nbd_link *n, uint32_t option, uint8_t *data, size_t len,
		       struct err *e)
{
	uint8_t head[16];
	int r;

	put64(head, MAGIC_OPTION);
	put32(head + 8, option);
	put32(head + 12, (uint32_t)len);
	r = move(n, POLLOUT, head, sizeof(head), e);
	return r < 0 ? r : move(n, POLLOUT, data, len, e);
}

static int no_reply(const struct nbd_link *n, struct err *e)
{
	return fail(e, EPROTO, "%s: the server's reply to an option is not of the NBD protocol", n->name);
}

/* The next reply to an option; its data lies in n->in. */
static int get_reply(struct nbd_link *n, uint32_t option, uint32_t *type, uint32_t *len, struct err *e)
{
	uint8_t head[20];
	int r = move(n, POLLIN, head, sizeof(head), e);

	if (r < 0)
		return r;
	*type = be32(head + 12);
	*len = be32(head + 16);
	if (be64(head) != MAGIC_REPLY || be32(head + 8) != option || *len > NBD_REPLY_MOST)
		return no_reply(n, e);
	return move(n, POLLIN, n->in, *len, e);
}

static int greet(struct nbd_link *n, struct err *e)
{
	uint8_t head[18], flags[4];
	int r = move(n, POLLIN, head, 8, e);

	if (r < 0)
		return r;
	if (be64(head) != MAGIC)
		return fail(e, EPROTO, "%s: is not an NBD server (its first bytes are %02x %02x %02x %02x)",
			    n->name, head[0], head[1], head[2], head[3]);
	r = move(n, POLLIN, head + 8, 10, e); /* an older server sends more */
	if (r < 0)
		return r;
	if (be64(head + 8) != MAGIC_OPTION)
		return fail(e, ENOTSUP, be64(head + 8) == MAGIC_OLD
						? "%s: the server speaks the oldstyle NBD handshake, which "
						  "is not supported"
						: "%s: the server speaks an unknown NBD handshake",
			    n->name);
	if (!(be16(head + 16) & FIXED_NEWSTYLE))
		return fail(e, ENOTSUP, "%s: the server does not speak the fixed newstyle NBD handshake",
			    n->name);
	put32(flags, FIXED_NEWSTYLE | (be16(head + 16) & NO_ZEROES));
	return move(n, POLLOUT, flags, sizeof(flags), e);
}

static int refused(const struct nbd_link *n, const char *export, uint32_t type, uint32_t len, struct err *e)
{
	char said[201] = "", *name = name_text(export), *text;
	int r;

	memcpy(said, n->in, min_u64(len, sizeof(said) - 1));
	text = clean_text(said);
	if (!name || !text)
		r = fail(e, ENOMEM, "out of memory");
	else if (type == REP_ERR_TLS_REQD)
		r = fail(e, ENOTSUP, "%s: the server requires TLS, which is not supported: use a Unix "
				     "socket, or a tunnel (ssh -L)", n->name);
	else if (type == REP_ERR_UNKNOWN)
		r = fail(e, ENOENT, "%s: the server has no export named '%s'%s%s", n->name, name,
			 *text ? "; it says: " : "", text);
	else if (type == REP_ERR_UNSUP)
		r = fail(e, ENOTSUP, "%s: the server is too old: it does not support NBD_OPT_GO",
			 n->name);
	else
		r = fail(e, EACCES, "%s: the server refused the export '%s' (0x%08x)%s%s", n->name, name,
			 type, *text ? "; it says: " : "", text);
	free(name);
	free(text);
	return r;
}

/* The smallest block and the largest request. */
static int take_blocks(struct nbd_link *n, const uint8_t *p, struct err *e)
{
	const uint32_t least = be32(p), most = be32(p + 8);

	if (!is_pow2(least) || least > NBD_BLOCK_MOST)
		return fail(e, ENOTSUP, "%s: the server's minimum block size of %u bytes is not a power of "
					"two up to %u", n->name, least, NBD_BLOCK_MOST);
	n->block = (uint32_t)max_u64(least, SECTOR);
	n->most = min_u64(most, NBD_REQUEST_MOST) & ~((uint64_t)n->block - 1);
	if (!n->most)
		return fail(e, ENOTSUP, "%s: the server takes no more than %u bytes at once, which is less "
					"than a block of %u", n->name, most, n->block);
	return 0;
}

static int go(struct nbd_link *n, const char *export, struct err *e)
{
	const size_t len = strlen(export);
	uint8_t data[NBD_EXPORT_MAX + 8];
	bool known = false;
	uint32_t type, got;
	int r;

	put32(data, (uint32_t)len);
	memcpy(data + 4, export, len);
	put16(data + 4 + len, 1);
	put16(data + 6 + len, INFO_BLOCK_SIZE);
	r = give_option(n, OPT_GO, data, len + 8, e);
	while (r >= 0 && (r = get_reply(n, OPT_GO, &type, &got, e)) >= 0) {
		if (type == REP_ACK)
			break;
		if (type & REP_ERR)
			return refused(n, export, type, got, e);
		if (type != REP_INFO || got < 2)
			return no_reply(n, e);
		if (be16(n->in) == INFO_EXPORT && got == 12) {
			n->size = be64(n->in + 2);
			n->flags = be16(n->in + 10);
			known = true;
		} else if (be16(n->in) == INFO_BLOCK_SIZE && got == 14) {
			r = take_blocks(n, n->in + 2, e);
		}
	}
	if (r >= 0 && !known)
		return fail(e, EPROTO, "%s: the server did not say how large the export is", n->name);
	return r;
}

static int shake_hands(struct nbd_link *n, const char *export, struct err *e)
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
	n->structured = type == REP_ACK;
	return go(n, export, e);
}

/* --- connecting ---------------------------------------------------------------------------------- */

static void set(int fd, int level, int option, int value)
{
	setsockopt(fd, level, option, &value, sizeof(value)); /* without it the connection works, too */
}

/* A socket that gives up to connect after a while, and TCP that notices when the other end is gone. */
static int new_socket(const struct nbd_link *n, int family, int protocol)
{
	const struct timeval limit = {.tv_sec = n->silence};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (family == AF_UNIX) {
		set(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER);
		return fd;
	}
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 20);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)n->silence * 1000);
	return fd;
}

static int connect_to(struct nbd_link *n, const struct sockaddr *addr, socklen_t len, struct err *e)
{
	int r = interrupted(n, e), code = 0;
	socklen_t size = sizeof(code);

	if (r < 0 || connect(n->sock, addr, len) == 0)
		return r;
	code = errno;
	if (code == EINTR) { /* it goes on all the same */
		r = await(n, POLLOUT, e);
		if (r < 0)
			return r;
		if (getsockopt(n->sock, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
			code = ETIMEDOUT;
	}
	if (code == EINPROGRESS || code == EAGAIN)
		code = ETIMEDOUT;
	return -code;
}

/* The socket or the addresses of the host, one of which takes us. */
static int find_server(struct nbd_link *n, const struct nbd_uri *u, const struct addrinfo *list,
		       struct err *e)
{
	int r = -EHOSTUNREACH;

	for (const struct addrinfo *a = list; a && r < 0 && r != -EINTR; a = a->ai_next) {
		if (n->sock >= 0)
			close(n->sock);
		n->sock = new_socket(n, a->ai_family, a->ai_protocol);
		r = n->sock < 0 ? -errno : connect_to(n, a->ai_addr, a->ai_addrlen, e);
	}
	if (r < 0)
		return fail_with(e, -r, FACTS(.code = ERR_CONNECTION), "%s: cannot connect to %s%s: %s",
				 n->name, u->socket ? "the socket" : "port ", u->socket ? "" : u->port,
				 strerror(-r));
	return 0;
}

static int connect_unix(struct nbd_link *n, const struct nbd_uri *u, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const struct addrinfo list = {.ai_family = AF_UNIX, .ai_addr = (struct sockaddr *)&addr,
				      .ai_addrlen = sizeof(addr)};

	if (strlen(u->socket) >= sizeof(addr.sun_path))
		return fail(e, EINVAL, "%s: the path of the socket is longer than %zu bytes", n->name,
			    sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, u->socket, strlen(u->socket) + 1);
	return find_server(n, u, &list, e);
}

static int connect_tcp(struct nbd_link *n, const struct nbd_uri *u, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list;
	int r = getaddrinfo(u->host, u->port, &hints, &list);

	if (r)
		return fail(e, EHOSTUNREACH, "%s: the host is not known: %s", n->name, gai_strerror(r));
	r = find_server(n, u, list, e);
	freeaddrinfo(list);
	return r;
}

int nbd_connect(struct nbd_link *n, const struct nbd_uri *u, struct err *e)
{
	int r;

	n->sock = -1;
	n->block = SECTOR;
	n->most = NBD_REQUEST_MOST;
	r = u->socket ? connect_unix(n, u, e) : connect_tcp(n, u, e);
	return r < 0 ? r : shake_hands(n, u->export, e);
}
