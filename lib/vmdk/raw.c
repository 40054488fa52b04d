/* SPDX-License-Identifier: MIT */
/*
 * A plain disk from a stream: its bytes in their order, window by window. Knows positions and zeros; must not
 * know gzip or targets. Called by image. A file with a plain disk is read by flat.
 */
#include "vmdk/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096u           /* zeros are looked for in such steps */
#define WORTH (64u * 1024)    /* fewer zeros in the midst of data are sent as data */

#define STEPS 4096u           /* the last ones, which are remembered: more than are on their way */
#define STEPS_BACK 8u         /* for one that tells more than the last */

struct raw {
	struct reader reader;
	struct source *src; /* owned; streaming */
	uint64_t from;      /* guest byte of the first byte received */
	/* bytes of the stream */
	uint64_t total;
	uint64_t at, low, have; /* next to be given; of the window in work: where it begins, and ends */
	bool fence;             /* due before the next window */
	/* what samples say of the RAW_STEP bytes in work, and of the ones before */
	uint64_t sum, last_sum, first;
	bool alike;
	bool telling[STEPS];    /* see raw_restart() */
};

/* Samples of the bytes that were received just now. */
static void sample(struct raw *w)
{
	size_t n;
	const uint8_t *window = source_at(w->src, w->low, &n);

	for (uint64_t pos = w->low; pos + BLOCK <= w->have; pos += BLOCK) {
		const uint64_t off = w->from + pos, v = le64(window + (pos - w->low));

		if (off % RAW_STEP == 0) {
			w->sum = 0;
			w->first = v;
			w->alike = true;
		}
		w->alike &= v == w->first;
		w->sum = (w->sum ^ v) * UINT64_C(0x9e3779b97f4a7c15);
		w->sum ^= w->sum >> 29;
		if ((off + BLOCK) % RAW_STEP == 0) {
			w->telling[off / RAW_STEP % STEPS] = !w->alike && w->sum != w->last_sum;
			w->last_sum = w->sum;
		}
	}
}

/* Bytes of zeros at pos, in whole blocks or to the end of the window. */
static uint64_t zeros_at(const struct raw *w, const uint8_t *window, uint64_t pos)
{
	const uint64_t first = pos;

	while (pos < w->have) {
		const uint64_t n = min_u64(BLOCK - pos % BLOCK, w->have - pos);

		if (!all_zero(window + (pos - w->low), (size_t)n))
			break;
		pos += n;
	}
	return pos - first;
}

/* Zeros at the edges of a window may go on in the next one. */
static bool are_run(const struct raw *w, uint64_t pos, uint64_t zeros)
{
	return zeros >= WORTH || (zeros && (pos == w->low || pos + zeros == w->have));
}

static void give(struct raw *w, struct run *run)
{
	size_t n;
	const uint8_t *window = source_at(w->src, w->low, &n);
	uint64_t end = w->at, zeros = zeros_at(w, window, end);

	*run = (struct run){.off = w->from + w->at, .kind = RUN_ZERO};
	if (are_run(w, end, zeros)) {
		end += zeros;
	} else {
		run->kind = RUN_COMPRESSED;
		run->leaf = &w->reader;
		run->pos = w->at;
		do {
			end = min_u64(end + zeros + BLOCK - (end + zeros) % BLOCK, w->have);
			zeros = zeros_at(w, window, end);
		} while (end < w->have && !are_run(w, end, zeros));
	}
	run->len = end - w->at;
	w->at = end;
}

/* All of the disk was given, or the stream has ended. 0 or -errno. */
static int finish(struct raw *w, struct err *e)
{
	const uint64_t size = w->reader.size;
	uint64_t have = w->have;
	char text[32];
	int r = 0;

	if (w->at == w->total)
		r = source_ahead(w->src, w->total + 1, &have, e);
	if (!r && have > w->total)
		return fail_with(e, EBADMSG, FACTS(.code = ERR_WRONG_SIZE, SIZES(have, size)),
					"%s: has more than the %" PRIu64 " bytes expected: is it another disk, "
					"or did it grow? What follows byte %" PRIu64 " was not written",
			    w->src->name, size, size);
	if (!r)
		r = source_error(w->src, e);
	if (!r && w->at < w->total)
		r = fail_with(e, EBADMSG, TRUNCATED(w->from + w->at, size),
			      "%s: ended after %" PRIu64 " of %" PRIu64 " bytes: %" PRIu64
			      " (%s) are missing" HINT ": did the sender fail?", w->src->name, w->from + w->at,
			 size, w->total - w->at, size_text(text, w->total - w->at));
	if (!r) {
		uint64_t ignored;

		r = source_finish(w->src, &ignored, e);
	}
	return r;
}

static int raw_next(struct reader *reader, struct run *run, struct err *e)
{
	struct raw *w = container_of(reader, struct raw, reader);
	const uint64_t window = source_window(w->src);
	int r;

	if (w->at == w->have && w->fence) {
		w->fence = false;
		*run = (struct run){.kind = RUN_FENCE};
		return 1;
	}
	if (w->at == w->have) {
		const uint64_t end = min_u64(w->total, w->at - w->at % window + window);

		if (w->at == w->total || w->at % window) /* a window that is not full is the last */
			return finish(w, e);
		source_release(w->src, w->at);
		w->low = w->at;
		r = source_ahead(w->src, end, &w->have, e);
		if (r < 0)
			return r;
		w->have = min_u64(w->have, end);
		if (w->have == w->at)
			return finish(w, e);
		sample(w);
	}
	give(w, run);
	w->fence = true;
	return 1;
}

static int raw_fetch(struct reader *reader, const struct run *run, void *buf, struct err *e)
{
	struct raw *w = container_of(reader, struct raw, reader);
	uint64_t pos = run->pos + run->skip;
	uint8_t *to = buf;
	size_t here;

	(void)e;
	for (uint64_t left = run->len; left; left -= here, pos += here, to += here) {
		const uint8_t *p = source_at(w->src, pos, &here);

		here = (size_t)min_u64(here, left);
		memcpy(to, p, here);
	}
	return 0;
}

static void raw_free(struct reader *reader)
{
	struct raw *w = container_of(reader, struct raw, reader);

	source_free(w->src);
	free(w);
}

static const struct reader_ops raw_ops = {
	.next = raw_next,
	.fetch = raw_fetch,
	.free = raw_free,
};

int raw_open(struct reader **out, struct source *src, uint64_t from, uint64_t size, struct err *e)
{
	struct raw *w = calloc(1, sizeof(*w));

	if (!w)
		return fail(e, ENOMEM, "out of memory");
	reader_init(&w->reader, &raw_ops, src->name, size);
	w->reader.streaming = &w->reader;
	w->src = src;
	w->from = from;
	w->total = size - from;
	*out = &w->reader;
	return 0;
}

uint64_t raw_restart(const struct reader *r, uint64_t end)
{
	const struct raw *w = container_of(r, const struct raw, reader);
	const uint64_t first = w->from / RAW_STEP, last = end / RAW_STEP;

	if (last <= first)
		return w->from;
	for (uint64_t i = last; i-- > first && last - i <= STEPS_BACK;)
		if (w->telling[i % STEPS])
			return i * RAW_STEP;
	return (last - 1) * RAW_STEP;
}
