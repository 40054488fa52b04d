/* SPDX-License-Identifier: MIT */
/*
 * The connection to an NBD server, up to the moment when requests can be sent: connecting, and the
 * handshake (fixed newstyle, NBD_OPT_GO). Knows sockets and the protocol (the NBD project's
 * doc/proto.md); must not know requests, queues or targets. Called by target_nbd.c. It waits, but
 * never longer than `silence`.
 */
#ifndef NBD_LINK_H
#define NBD_LINK_H

#include "output/nbd_uri.h"

#define NBD_BLOCK_MOST (64u << 10) /* the protocol's limit of the minimum block size */
#define NBD_REQUEST_MOST (32u << 20) /* bytes; what the protocol has servers take */
#define NBD_REPLY_MOST (64u << 10) /* bytes of an option's reply that are taken */

struct nbd_link {
	/* set by the caller */
	const char *name; /* printable; of the target */
	unsigned silence; /* seconds */
	bool (*stop)(void *arg); /* asked after a signal; NULL: never */
	void *arg;
	/* what nbd_connect() finds */
	int sock;        /* the caller closes it; -1 at first */
	uint64_t size;   /* of the export, bytes */
	uint32_t block;  /* what requests align to, at least a sector */
	uint64_t most;   /* bytes of a request, a multiple of block */
	uint16_t flags;  /* transmission flags */
	bool structured; /* replies may be */
	uint8_t in[NBD_REPLY_MOST];
};

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

/* -errno: no server, not one that is understood, or one that refuses. */
int nbd_connect(struct nbd_link *n, const struct nbd_uri *u, struct err *e);

#endif
