/* SPDX-License-Identifier: MIT */
/*
 * A pipe or a socket, plain or gzip, in a few windows of memory. Knows descriptors and gzip; must not know
 * runs, formats, or the spool. Called by source.c. All numbers are bytes.
 *
 * A thread of its own reads (for gzip a second one inflates), so the sender never waits while a window is
 * free. Received bytes from `low` on, a multiple of the window, are held until they are released. One
 * thread waits and releases; others may look at received bytes.
 */
#ifndef INPUT_STREAM_H
#define INPUT_STREAM_H

#include "base/base.h"

struct stream;

#define STREAM_PATIENCE 10

struct stream_opts {
	size_t window;    /* power of two; 0: the usual size */
	unsigned windows; /* 0: the usual number, which is the largest */
	/* Bytes, inflated, after which the end is waited for STREAM_PATIENCE seconds and no longer, of gzip only
	 * once its trailer was received; 0: not known. */
	uint64_t expect;
	bool plain; /* bytes as they are: what begins as gzip does is not inflated */
	/* Asked while waiting: true gives up, with -EINTR. NULL: never. */
	bool (*stop)(void *arg);
	void *arg;
};

/* Reads fd from where it stands; it is closed by stream_free(), or when this fails. Waits for the
 * first bytes, which tell gzip. name: printable, has to outlive it. -errno. */
int stream_start(struct stream **out, int fd, const char *name, const struct stream_opts *o,
		struct err *e);
/* NULL-safe. Ends the threads, whatever they wait for. */
void stream_free(struct stream *f);

bool stream_gzip(const struct stream *f);
size_t stream_window(const struct stream *f);
/* Bytes that can be held at once. */
uint64_t stream_room(const struct stream *f);
uint64_t stream_low(const struct stream *f);

/*
 * Waits until the bytes before `end` <= low + room have arrived, or no more will. *have: how many
 * have, in all. Where bytes are missing then, stream_error() tells why. -EINTR.
 */
int stream_wait(struct stream *f, uint64_t end, uint64_t *have, struct err *e);
/* Whether it did not end by itself, see expect. */
bool stream_kept_open(const struct stream *f);
/* Asks stop() without waiting: -EINTR. */
int stream_ask_stop(struct stream *f, struct err *e);
/* Where byte `off` stands, low <= off < have; *n: how many of those that have arrived follow it
 * without a break. */
const uint8_t *stream_at(struct stream *f, uint64_t off, size_t *n);
/* Windows that end before or at `off` <= have may be filled anew. */
void stream_release(struct stream *f, uint64_t off);
/* To be asked when all has arrived that will: 0 when it ended as it should, or -errno: reading
 * failed, or the gzip data is cut or damaged. */
int stream_error(struct stream *f, struct err *e);

#endif
