/* SPDX-License-Identifier: MIT */
/*
 * The answers of an NBD server, from bytes to requests that are done: simple and structured replies,
 * in any order, in parts of any length. Knows the protocol (the NBD project's doc/proto.md); must not
 * know sockets, queues or targets. Called by target_nbd.c. What a server sends is not trusted: nothing
 * is written outside the buffer of the request that it answers.
 */
#ifndef NBD_REPLY_H
#define NBD_REPLY_H

#include "base/base.h"

#define NBD_REQUESTS 64u /* in flight at once; a power of two */
#define NBD_RANGES 16u /* bytes of a read may arrive in any order, but leave no more islands than this */

static inline uint16_t be16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint32_t be32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline uint64_t be64(const void *p)
{
	return (uint64_t)be32(p) << 32 | be32((const uint8_t *)p + 4);
}

struct nbd_request {
	void *owner;       /* the caller's; NULL: the request is free */
	uint64_t cookie;
	uint64_t off, len; /* bytes */
	bool sent;         /* by the caller, all of it: an answer before that is none */
	uint8_t *buf;      /* of a read: len bytes; else NULL */
	struct {
		uint64_t from, to;
	} got[NBD_RANGES]; /* bytes of buf that arrived: disjoint, ascending, no two touch */
	unsigned n_got;
	int err;           /* 0, or the first -errno that a chunk reported */
};

struct nbd_replies {
	struct nbd_request request[NBD_REQUESTS];
	bool structured; /* negotiated */
	/* A request is answered; err: 0 or -errno. The request is free already and may be used again. */
	void (*done)(struct nbd_replies *r, void *owner, uint64_t len, int err);
	/* private to nbd_reply.c */
	uint64_t serial;
	uint8_t head[32];
	unsigned have, want;      /* bytes of head; want: 0 between replies */
	struct nbd_request *into; /* whose chunk this is */
	uint8_t *to;              /* where the next bytes go; NULL: they are dropped */
	uint64_t left;            /* bytes of this chunk */
	bool last;                /* it is the request's last chunk */
};

/* A free request with a cookie of its own; NULL: all are in flight. */
struct nbd_request *nbd_request_new(struct nbd_replies *r, void *owner);
/* Takes n bytes as they arrived. -EPROTO with a message: nothing that the server
 * sends can be understood any more. */
int nbd_replies_take(struct nbd_replies *r, const uint8_t *p, size_t n, struct err *e);
/* Where the next bytes would be copied to, and how many: they can be received there. NULL: nowhere. */
uint8_t *nbd_replies_room(const struct nbd_replies *r, uint64_t *n);
/* n bytes were received there, which is not more than there was room for. */
int nbd_replies_filled(struct nbd_replies *r, uint64_t n, struct err *e);

#endif
