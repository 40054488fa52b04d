/* SPDX-License-Identifier: MIT */
/*
 * The answers of an NBD server. The first byte says whether structured replies were negotiated, the
 * second into how many bytes what arrives is cut; then a list of requests is made, and the rest are
 * the bytes of the server. Nothing may be written outside the buffer of a request that is in flight,
 * and no request ends twice.
 */
#include "fuzz.h"
#include "output/nbd_reply.h"

#include <stdlib.h>
#include <string.h>

#define REQUESTS 8u
#define BYTES 512u

struct owner {
	struct nbd_replies *r;
	bool ended;
	uint8_t *buf; /* of exactly that size, so that a sanitizer sees what is too much */
};

static void need(bool ok)
{
	if (!ok)
		abort();
}

static void on_done(struct nbd_replies *r, void *owner, uint64_t len, int err)
{
	struct owner *o = owner;

	need(o->r == r && !o->ended && len == BYTES && err <= 0);
	o->ended = true;
	free(o->buf); /* nothing may follow */
	o->buf = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_replies *r = calloc(1, sizeof(*r));
	struct owner owner[REQUESTS] = {0};
	struct err e = {.set = false};
	size_t step;
	int ret = 0;

	need(r);
	if (size < 3) {
		free(r);
		return -1;
	}
	r->structured = data[0] & 1;
	r->done = on_done;
	step = 1 + data[1];
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct nbd_request *q = nbd_request_new(r, &owner[i]);

		owner[i].r = r;
		need(q && q->cookie == 64 * (i + 1) + i);
		q->off = i * BYTES;
		q->len = BYTES;
		q->sent = i < REQUESTS - 1;
		if (data[2] & 1 << i) {
			owner[i].buf = malloc(BYTES);
			need(owner[i].buf);
			q->buf = owner[i].buf;
		}
	}
	data += 3;
	size -= 3;
	while (!ret && size) {
		size_t n = min_u64(step, size);
		uint64_t room;
		uint8_t *to = nbd_replies_room(r, &room);

		if (to && step % 2) { /* as received at its place */
			n = min_u64(n, room);
			memcpy(to, data, n);
			ret = nbd_replies_filled(r, n, &e);
		} else {
			ret = nbd_replies_take(r, data, n, &e);
		}
		data += n;
		size -= n;
	}
	need(!ret || (ret < 0 && e.set));
	for (unsigned i = 0; i < REQUESTS; i++)
		free(owner[i].buf);
	free(r);
	return 0;
}
