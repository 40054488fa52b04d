/* SPDX-License-Identifier: MIT */
#include "output/nbd_reply.h"

#include <inttypes.h>
#include <string.h>

#define SIMPLE_MAGIC 0x67446698u
#define SIMPLE_BYTES 16u
#define CHUNK_MAGIC 0x668e33efu
#define CHUNK_BYTES 20u
#define CHUNK_DONE 1u /* flag */
#define ERROR_MOST (4096u + 64) /* bytes of an error chunk: the text and what may surround it */

enum chunk_type { CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_HOLE = 2, CHUNK_ERROR = 1 << 15 };

struct nbd_request *nbd_request_new(struct nbd_replies *r, void *owner)
{
	for (unsigned i = 0; i < NBD_REQUESTS; i++) {
		struct nbd_request *q = &r->request[i];

		if (q->owner)
			continue;
		*q = (struct nbd_request){.owner = owner, .cookie = ++r->serial * NBD_REQUESTS + i};
		return q;
	}
	return NULL;
}

static struct nbd_request *find(struct nbd_replies *r, uint64_t cookie)
{
	struct nbd_request *q = &r->request[cookie % NBD_REQUESTS];

	return q->owner && q->sent && q->cookie == cookie ? q : NULL;
}

/* The protocol has its own numbers, and says that unknown ones mean EINVAL. */
static int code_of(uint32_t error)
{
	static const int known[] = {[1] = EPERM, [5] = EIO, [12] = ENOMEM, [28] = ENOSPC,
				    [75] = EOVERFLOW, [95] = EOPNOTSUPP, [108] = ESHUTDOWN};

	return error < sizeof(known) / sizeof(*known) && known[error] ? -known[error] : -EINVAL;
}

static void finish(struct nbd_replies *r, struct nbd_request *q, int err)
{
	void *owner = q->owner;

	q->owner = NULL;
	r->done(r, owner, q->len, err);
}

/* A whole reply, or chunk, has been taken. */
static int end_chunk(struct nbd_replies *r, struct err *e)
{
	struct nbd_request *q = r->into;

	r->have = r->want = 0;
	r->into = NULL;
	if (!r->last)
		return 0;
	if (!q->err && q->buf && (q->n_got != 1 || q->got[0].to - q->got[0].from != q->len))
		return fail(e, EPROTO,
			    "the server did not answer all of %" PRIu64 " bytes that were read at byte %"
			    PRIu64, q->len, q->off);
	finish(r, q, q->err);
	return 0;
}

/* Takes note of n bytes at off, which have to lie in what the request asked for and to be missing. */
static int add_range(struct nbd_request *q, uint64_t off, uint64_t n, struct err *e)
{
	const uint64_t from = off - q->off, to = from + n;
	unsigned i = 0; /* the first range behind them */
	bool before, behind;

	if (!q->buf || !n || off < q->off || n > q->len || from > q->len - n)
		return fail(e, EPROTO, "the server answered bytes (%" PRIu64 " at byte %" PRIu64 ") that "
				       "were not asked for", n, off);
	while (i < q->n_got && q->got[i].from < to)
		i++;
	if (i && q->got[i - 1].to > from)
		return fail(e, EPROTO, "the server answered bytes (%" PRIu64 " at byte %" PRIu64 ") twice",
			    n, off);
	before = i && q->got[i - 1].to == from;
	behind = i < q->n_got && q->got[i].from == to;
	if (before && behind) {
		q->got[i - 1].to = q->got[i].to;
		memmove(&q->got[i], &q->got[i + 1], (--q->n_got - i) * sizeof(*q->got));
	} else if (before) {
		q->got[i - 1].to = to;
	} else if (behind) {
		q->got[i].from = from;
	} else if (q->n_got == NBD_RANGES) {
		return fail(e, EPROTO, "the server answered a read in too many pieces, out of order");
	} else {
		memmove(&q->got[i + 1], &q->got[i], (q->n_got++ - i) * sizeof(*q->got));
		q->got[i].from = from;
		q->got[i].to = to;
	}
	return 0;
}

/* n bytes follow. */
static int begin_bytes(struct nbd_replies *r, uint8_t *to, uint64_t n, struct err *e)
{
	r->to = to;
	r->left = n;
	return n ? 0 : end_chunk(r, e);
}

static int take_simple(struct nbd_replies *r, struct err *e)
{
	const uint32_t error = be32(r->head + 4);
	struct nbd_request *q = r->into;

	r->last = true;
	if (error) {
		q->err = code_of(error);
		return end_chunk(r, e);
	}
	if (!q->buf)
		return end_chunk(r, e);
	if (r->structured)
		return fail(e, EPROTO, "the server answered a read by a simple reply");
	q->got[0].from = 0;
	q->got[0].to = q->len;
	q->n_got = 1;
	return begin_bytes(r, q->buf, q->len, e);
}

/* The header of a chunk is there: what else belongs to it? */
static int take_chunk(struct nbd_replies *r, struct err *e)
{
	const unsigned type = be16(r->head + 6);
	const uint32_t n = be32(r->head + 16);

	r->last = be16(r->head + 4) & CHUNK_DONE;
	if (type == CHUNK_NONE && n == 0 && r->last)
		return end_chunk(r, e);
	if (type == CHUNK_DATA && n > 8)
		r->want = CHUNK_BYTES + 8;
	else if (type == CHUNK_HOLE && n == 12)
		r->want = CHUNK_BYTES + 12;
	else if (type & CHUNK_ERROR && n >= 6 && n <= ERROR_MOST)
		r->want = CHUNK_BYTES + 6;
	else
		return fail(e, EPROTO, "the server sent a chunk of type %u and %u bytes", type, n);
	return 0;
}

/* What belongs to it is there, too. */
static int take_payload(struct nbd_replies *r, struct err *e)
{
	const unsigned type = be16(r->head + 6);
	const uint32_t n = be32(r->head + 16);
	const uint8_t *p = r->head + CHUNK_BYTES;
	struct nbd_request *q = r->into;
	uint64_t len;
	int err;

	if (type & CHUNK_ERROR) {
		if (!be32(p) || be16(p + 4) > n - 6)
			return fail(e, EPROTO, "the server sent an error that makes no sense");
		err = code_of(be32(p));
		q->err = q->err ? q->err : err;
		return begin_bytes(r, NULL, n - 6, e); /* text for people, and an offset */
	}
	len = type == CHUNK_DATA ? n - 8 : be32(p + 8);
	err = add_range(q, be64(p), len, e);
	if (err < 0)
		return err;
	if (type == CHUNK_DATA)
		return begin_bytes(r, q->buf + (be64(p) - q->off), len, e);
	memset(q->buf + (be64(p) - q->off), 0, len);
	return end_chunk(r, e);
}

/* As many bytes of the head are there as were wanted. */
static int take_head(struct nbd_replies *r, struct err *e)
{
	const uint32_t magic = be32(r->head);
	const bool simple = magic == SIMPLE_MAGIC;

	if (r->have == 4) {
		r->want = simple ? SIMPLE_BYTES : CHUNK_BYTES;
		if (simple || (magic == CHUNK_MAGIC && r->structured))
			return 0;
		return fail(e, EPROTO, "the server's answer begins with 0x%08x, as no NBD reply does",
			    magic);
	}
	if (!r->into)
		r->into = find(r, be64(r->head + 8));
	if (!r->into)
		return fail(e, EPROTO, "the server answered a request that was not made");
	if (simple)
		return take_simple(r, e);
	return r->have == CHUNK_BYTES ? take_chunk(r, e) : take_payload(r, e);
}

int nbd_replies_take(struct nbd_replies *r, const uint8_t *p, size_t n, struct err *e)
{
	int ret = 0;

	while (!ret && n) {
		uint64_t k;

		if (r->left) {
			k = min_u64(r->left, n);
			if (r->to)
				memcpy(r->to, p, k);
			ret = nbd_replies_filled(r, k, e);
		} else {
			if (!r->want)
				r->want = 4;
			k = min_u64(r->want - r->have, n);
			memcpy(r->head + r->have, p, k);
			r->have += (unsigned)k;
			if (r->have == r->want)
				ret = take_head(r, e);
		}
		p += k;
		n -= k;
	}
	return ret;
}

uint8_t *nbd_replies_room(const struct nbd_replies *r, uint64_t *n)
{
	*n = r->to ? r->left : 0;
	return *n ? r->to : NULL;
}

int nbd_replies_filled(struct nbd_replies *r, uint64_t n, struct err *e)
{
	if (r->to)
		r->to += n;
	r->left -= n;
	return r->left ? 0 : end_chunk(r, e);
}
