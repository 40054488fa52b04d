/* SPDX-License-Identifier: MIT */
#include "input/stream.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

/* Larger ones do not stay in the processor's cache, smaller ones leave less to be sorted. */
#define WINDOW (2u << 20)
#define WINDOWS 12u
/* what is not inflated yet */
#define COMPRESSED_WINDOW (256u << 10)
#define COMPRESSED_WINDOWS 8u
#define PIPE_SIZE (1 << 20)
/* A window that was never used costs more than to wait a little for one that was: where a host has to
 * give its pages, that takes ten times as long as to fill it. Three are always needed: one is written
 * out of, one is looked through, one is filled. */
#define FRESH_FROM 3u
#define FRESH_WAIT 5 /* milliseconds */
#define ASK_STOP 100 /* milliseconds between questions whether to go on waiting, or to quit */

struct stream {
	const char *name;
	uint8_t *memory;
	size_t window;
	unsigned windows;
	bool (*stop)(void *arg);
	void *arg;
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* of these: */
	pthread_cond_t grown, freed;
	uint64_t low, have;
	/* Where in memory window number k is: place[k % windows]. Free places, last used on top: what
	 * was never needed is never touched, and what was used just now is still in the cache. */
	unsigned place[WINDOWS], free[WINDOWS], frees;
	unsigned used; /* places from this one on never were */
	uint64_t want; /* how much has to be there before anyone is woken */
	bool end, quit;
	uint64_t expect; /* see stream_opts */
	int64_t complete; /* when that had come, milliseconds; 0: it has not */
	bool cut; /* the end was not waited for: what comes later does not count */
	struct err e; /* why it ended; the thread's own, as is failed, until `end` is set */
	int failed;

	/* 1 to n bytes into buf; 0: no more come; -errno, with f->e */
	ssize_t (*fill)(struct stream *f, uint8_t *buf, size_t n);
	/* from a descriptor */
	int fd;
	int aside[2];    /* a pipe of our own, -1: there is none */
	size_t in_aside; /* bytes in it */
	/* from gzip */
	struct stream *compressed;
	uint64_t compressed_at;
	z_stream z;
	bool between;   /* members; others look, too */
};

/* --- a descriptor --- */

static bool told_to_quit(void *arg)
{
	struct stream *f = arg;
	bool quit;

	pthread_mutex_lock(&f->lock);
	quit = f->quit;
	pthread_mutex_unlock(&f->lock);
	return quit;
}

/*
 * A reader of a pipe keeps out its writer while the bytes are copied, and the other way round. So the
 * pages are moved into a pipe of our own, which takes no time, and the bytes are copied from there
 * while the next ones come. As read(2).
 */
static ssize_t read_aside(struct stream *f, uint8_t *buf, size_t n)
{
	ssize_t got;

	if (!f->in_aside) {
		got = splice(f->fd, NULL, f->aside[1], NULL, PIPE_SIZE,
			     SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (got <= 0)
			return got;
		f->in_aside = (size_t)got;
	}
	got = read(f->aside[0], buf, n);
	if (got > 0)
		f->in_aside -= (size_t)got;
	return got;
}

static ssize_t fill_read(struct stream *f, uint8_t *buf, size_t n)
{
	struct pollfd p = {.fd = f->fd, .events = POLLIN};
	ssize_t got;

	do {
		while (!f->in_aside && poll(&p, 1, ASK_STOP) <= 0)
			if (told_to_quit(f))
				return 0;
		got = f->aside[0] < 0 ? read(f->fd, buf, n) : read_aside(f, buf, n);
	} while (got < 0 && (errno == EINTR || errno == EAGAIN));
	return got < 0 ? fail(&f->e, errno, "%s: reading at byte %" PRIu64 ": %s", f->name, f->have,
			      strerror(errno))
		       : got;
}

/* --- gzip: RFC 1952, members one behind the other --- */

/* What is wrong is said when all bytes before it are on their way. */
static ssize_t fill_inflate(struct stream *f, uint8_t *buf, size_t n)
{
	z_stream *z = &f->z;

	z->next_out = buf;
	z->avail_out = (uInt)n;
	while (z->avail_out && !f->failed) {
		uint64_t have;
		size_t here;
		int r;

		stream_release(f->compressed, f->compressed_at);
		r = stream_ask_stop(f->compressed, &f->e); /* there may always be more */
		if (!r)
			r = stream_wait(f->compressed, f->compressed_at + 1, &have, &f->e);
		if (r < 0)
			return 0; /* told to quit */
		if (have == f->compressed_at)
			break;
		z->next_in = (z_const Bytef *)stream_at(f->compressed, f->compressed_at, &here);
		z->avail_in = (uInt)here;
		if (f->between) {
			/* what tapes and block devices put behind a file */
			while (z->avail_in && !*z->next_in) {
				z->next_in++;
				z->avail_in--;
			}
			f->compressed_at += here - z->avail_in;
			if (!z->avail_in)
				continue;
			if (*z->next_in != 0x1f) {
				f->failed = fail(&f->e, EBADMSG, "%s: there is something else behind the "
						 "gzip data, at byte %" PRIu64, f->name, f->compressed_at);
				break;
			}
			here = z->avail_in;
			__atomic_store_n(&f->between, false, __ATOMIC_RELAXED);
			inflateReset(z);
		}
		r = inflate(z, Z_NO_FLUSH);
		f->compressed_at += here - z->avail_in;
		if (r == Z_STREAM_END)
			__atomic_store_n(&f->between, true, __ATOMIC_RELAXED);
		else if (r == Z_MEM_ERROR)
			f->failed = fail(&f->e, ENOMEM, "out of memory");
		else if (r != Z_OK && r != Z_BUF_ERROR)
			f->failed = fail(&f->e, EBADMSG, "%s: the gzip data is damaged near its byte %" PRIu64
					 " (%" PRIu64 " bytes uncompressed): %s", f->name, f->compressed_at,
					 f->have + n - z->avail_out, z->msg ? z->msg : "unknown compression");
		/* what is there goes on its way at once */
		if (!z->avail_in && z->avail_out < n)
			break;
	}
	if (z->avail_out < n)
		return (ssize_t)(n - z->avail_out);
	if (f->failed)
		return f->failed;
	/* nothing was received, so nothing more will be */
	if (stream_error(f->compressed, &f->e) < 0)
		return -EIO;
	if (!f->between)
		return fail_with(&f->e, EBADMSG, FACTS(.code = ERR_TRUNCATED),
				 "%s: the gzip data ends in the middle, after %" PRIu64
			    " byte%s (%" PRIu64 " uncompressed): it is truncated", f->name,
			    f->compressed_at, plural(f->compressed_at), f->have);
	return 0;
}

/* --- the windows --- */

static uint8_t *address(const struct stream *f, uint64_t off)
{
	return f->memory + f->place[off / f->window % f->windows] * f->window + off % f->window;
}

static struct timespec from_now(long milliseconds)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += milliseconds * 1000000L;
	t.tv_sec += t.tv_nsec / 1000000000L;
	t.tv_nsec %= 1000000000L;
	return t;
}

/* A place for the next window. The lock is held, but while it waits. */
static void take_place(struct stream *f)
{
	const struct timespec until = from_now(FRESH_WAIT);
	unsigned place;
	int r = 0;

	while (f->used >= FRESH_FROM && f->free[f->frees - 1] >= f->used && !r && !f->quit)
		r = pthread_cond_timedwait(&f->freed, &f->lock, &until);
	place = f->free[--f->frees];
	f->place[f->have / f->window % f->windows] = place;
	if (place >= f->used)
		f->used = place + 1;
}

static void *work(void *arg)
{
	struct stream *f = arg;
	const uint64_t room = stream_room(f);

	for (;;) {
		uint64_t in_window, n;
		ssize_t got;

		pthread_mutex_lock(&f->lock);
		while (f->have == f->low + room && !f->quit)
			pthread_cond_wait(&f->freed, &f->lock);
		in_window = f->have % f->window;
		if (!in_window && !f->quit)
			take_place(f);
		n = f->quit ? 0 : min_u64(f->window - in_window, f->low + room - f->have);
		pthread_mutex_unlock(&f->lock);

		got = n ? f->fill(f, address(f, f->have), (size_t)n) : 0;

		pthread_mutex_lock(&f->lock);
		if (got > 0 && !f->cut)
			f->have += (uint64_t)got;
		if (got < 0)
			f->failed = (int)got;
		f->end = got <= 0;
		if (f->end || f->have >= f->want)
			pthread_cond_signal(&f->grown);
		pthread_mutex_unlock(&f->lock);
		if (got <= 0)
			return NULL;
	}
}

bool stream_gzip(const struct stream *f)
{
	return f->compressed != NULL;
}

size_t stream_window(const struct stream *f)
{
	return f->window;
}

uint64_t stream_room(const struct stream *f)
{
	return (uint64_t)f->window * f->windows;
}

uint64_t stream_low(const struct stream *f)
{
	/* only the thread that waits changes it; others look at bytes that are held */
	return __atomic_load_n(&f->low, __ATOMIC_RELAXED);
}

bool stream_kept_open(const struct stream *f)
{
	return f->cut;
}

int stream_ask_stop(struct stream *f, struct err *e)
{
	return f->stop && f->stop(f->arg) ? fail(e, EINTR, "%s: stopped", f->name) : 0;
}

/* All that was expected was received long ago, and the sender does not end. The lock is held. */
static bool out_of_patience(struct stream *f)
{
	const bool whole = !f->compressed || __atomic_load_n(&f->between, __ATOMIC_RELAXED);
	int64_t now;

	if (!f->expect || f->have < f->expect || !whole) {
		f->complete = 0;
		return false;
	}
	now = clock_ms();
	if (!f->complete)
		f->complete = now;
	return now - f->complete >= STREAM_PATIENCE * 1000;
}

int stream_wait(struct stream *f, uint64_t end, uint64_t *have, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&f->lock);
	assert(f->end || end <= f->low + stream_room(f)); /* or it would wait for ever */
	while (!f->cut && f->have < end && !f->end && !r) {
		struct timespec until;

		if (out_of_patience(f)) {
			f->cut = f->quit = true;
			break;
		}
		f->want = end;
		pthread_mutex_unlock(&f->lock);
		r = stream_ask_stop(f, e);
		pthread_mutex_lock(&f->lock);
		if (r || f->have >= end || f->end)
			break;
		until = from_now(ASK_STOP);
		pthread_cond_timedwait(&f->grown, &f->lock, &until);
	}
	*have = f->have;
	pthread_mutex_unlock(&f->lock);
	return r;
}

const uint8_t *stream_at(struct stream *f, uint64_t off, size_t *n)
{
	const uint8_t *at;

	pthread_mutex_lock(&f->lock);
	*n = (size_t)min_u64(f->have - off, f->window - off % f->window);
	at = address(f, off);
	pthread_mutex_unlock(&f->lock);
	return at;
}

void stream_release(struct stream *f, uint64_t off)
{
	off -= off % f->window;
	if (off <= f->low)
		return;
	pthread_mutex_lock(&f->lock);
	assert(off <= f->have); /* a window that was never filled has no place to give back */
	for (uint64_t low = f->low; low < off; low += f->window)
		f->free[f->frees++] = f->place[low / f->window % f->windows];
	__atomic_store_n(&f->low, off, __ATOMIC_RELAXED);
	pthread_cond_signal(&f->freed);
	pthread_mutex_unlock(&f->lock);
}

int stream_error(struct stream *f, struct err *e)
{
	int failed;

	pthread_mutex_lock(&f->lock);
	failed = f->end && !f->cut ? f->failed : 0;
	pthread_mutex_unlock(&f->lock);
	return failed < 0 ? fail_again(e, -failed, &f->e) : 0;
}

static int start(struct stream *f, struct err *e)
{
	pthread_condattr_t attr;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->grown, &attr);
	pthread_cond_init(&f->freed, &attr);
	pthread_condattr_destroy(&attr);
	r = thread_start(&f->thread, work, f);
	f->running = !r;
	return r ? fail(e, r, "no thread can be made: %s", strerror(r)) : 0;
}

static struct stream *stream_new(const char *name, size_t window, unsigned windows)
{
	struct stream *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fd = f->aside[0] = f->aside[1] = -1;
	f->name = name;
	f->window = window;
	f->windows = windows;
	assert(windows <= WINDOWS);
	/* pages that no byte ever reaches cost nothing */
	f->memory = mmap(NULL, window * windows, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->memory == MAP_FAILED) {
		free(f);
		return NULL;
	}
	for (; f->frees < windows; f->frees++)
		f->free[f->frees] = windows - 1 - f->frees;
	/* a tenth of the time that a sequential delta takes */
	madvise(f->memory, window * windows, MADV_HUGEPAGE);
	return f;
}

void stream_free(struct stream *f)
{
	if (!f)
		return;
	if (f->running) {
		pthread_mutex_lock(&f->lock);
		f->quit = true;
		pthread_cond_signal(&f->freed);
		pthread_mutex_unlock(&f->lock);
		pthread_join(f->thread, NULL);
		pthread_mutex_destroy(&f->lock);
		pthread_cond_destroy(&f->grown);
		pthread_cond_destroy(&f->freed);
	}
	stream_free(f->compressed);
	inflateEnd(&f->z); /* which looks whether it is initialized */
	if (f->fd >= 0)
		close(f->fd);
	for (int i = 0; i < 2 && f->aside[i] >= 0; i++)
		close(f->aside[i]);
	munmap(f->memory, f->window * f->windows);
	free(f);
}

/* The first bytes, at most n, as far as there are as many. */
static int sniff(uint8_t *buf, size_t n, size_t *got, int fd, const char *name,
		 const struct stream_opts *o, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t r = 1;

	for (*got = 0; r && *got < n; *got += r > 0 ? (size_t)r : 0) {
		do {
			if (o->stop && o->stop(o->arg))
				return fail(e, EINTR, "%s: stopped", name);
		} while (poll(&p, 1, ASK_STOP) <= 0);
		r = read(fd, buf + *got, n - *got);
		if (r < 0 && errno != EINTR && errno != EAGAIN)
			return fail(e, errno, "%s: %s", name, strerror(errno));
	}
	return 0;
}

int stream_start(struct stream **out, int fd, const char *name, const struct stream_opts *o,
		struct err *e)
{
	const size_t window = o->window ? o->window : WINDOW;
	const unsigned windows = o->windows ? o->windows : WINDOWS;
	struct stream *f = NULL, *g;
	uint8_t head[2];
	size_t heads;
	bool gzip;
	int r;

	fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE); /* fewer turns; where it cannot be had it is slower */
	r = sniff(head, sizeof(head), &heads, fd, name, o, e);
	gzip = !o->plain && heads == 2 && head[0] == 0x1f && head[1] == 0x8b;
	if (!r)
		f = stream_new(name, gzip ? COMPRESSED_WINDOW : window, gzip ? COMPRESSED_WINDOWS : windows);
	if (!f) {
		close(fd);
		return r < 0 ? r : fail(e, ENOMEM, "out of memory");
	}
	f->fd = fd;
	f->fill = fill_read;
	/* where there is none it is slower; only pages of a pipe are moved and not copied */
	if (fcntl(fd, F_GETPIPE_SZ) > 0 && pipe2(f->aside, O_CLOEXEC) == 0)
		fcntl(f->aside[0], F_SETPIPE_SZ, PIPE_SIZE);
	else
		f->aside[0] = f->aside[1] = -1;
	if (heads)
		take_place(f);
	memcpy(address(f, 0), head, heads);
	f->have = heads;
	if (gzip) {
		g = stream_new(name, window, windows);
		if (!g || inflateInit2(&g->z, 15 + 16) != Z_OK) {
			stream_free(g);
			stream_free(f);
			return fail(e, ENOMEM, "out of memory");
		}
		f->stop = told_to_quit;
		f->arg = g;
		g->compressed = f;
		g->fill = fill_inflate;
		f = g;
	}
	f->stop = o->stop;
	f->arg = o->arg;
	f->expect = o->expect;
	r = gzip ? start(f->compressed, e) : 0;
	if (!r)
		r = start(f, e);
	if (r < 0) {
		stream_free(f);
		return r;
	}
	*out = f;
	return 0;
}
