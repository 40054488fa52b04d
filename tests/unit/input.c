/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "input/stream.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static void refused(struct source *s, uint64_t off, size_t n)
{
	struct err e = {.set = false};
	uint8_t buf[64];

	CHECK(source_read(s, off, buf, n, "thing", &e) == -EBADMSG);
	CHECK(e.set && strstr(e.msg, "thing") && strstr(e.msg, s->name));
}

static void edges(struct source *s, const uint8_t *want, size_t size)
{
	struct err e = {.set = false};
	uint8_t buf[64];

	for (size_t n = 0; n <= sizeof(buf); n += 32) {
		memset(buf, 0xaa, sizeof(buf));
		CHECK(source_read(s, 0, buf, n, "thing", &e) == 0);
		CHECK(!memcmp(buf, want, n) && (n == sizeof(buf) || buf[n] == 0xaa));
		CHECK(source_read(s, size - n, buf, n, "thing", &e) == 0);
		CHECK(!memcmp(buf, want + size - n, n));
	}
	CHECK(!e.set);
	refused(s, size, 1);
	refused(s, size + 1, 0);
	refused(s, size - 1, 2);
	refused(s, size - 63, 64);
	refused(s, UINT64_MAX, 1);
	refused(s, UINT64_MAX, 0);
	refused(s, UINT64_MAX - 9, 10);
}

static void test_source_memory(void)
{
	struct err e = {.set = false};
	uint8_t bytes[200];
	struct source *s;

	seed(1);
	random_bytes(bytes, sizeof(bytes));
	CHECK(source_memory(&s, "a\nb", bytes, sizeof(bytes), &e) == 0);
	CHECK_STR(s->name, "a\\x0ab");
	CHECK(s->fd < 0 && s->size == sizeof(bytes));
	edges(s, bytes, sizeof(bytes));
	CHECK(!source_is_hole(s, 0, 100));
	source_hint(s, 0, 100);
	source_free(s);
	source_free(NULL);
}

static void test_source_file(void)
{
	struct err e = {.set = false};
	uint8_t bytes[5000];
	struct source *s = NULL;
	char *path;
	int fd = temp_file(&path);

	seed(2);
	random_bytes(bytes, sizeof(bytes));
	write_all(fd, bytes, sizeof(bytes), 0);
	CHECK(source_open(&s, path, &e) == 0);
	if (!s)
		die(e.msg);
	CHECK(s->fd >= 0 && s->size == sizeof(bytes));
	/* some kernels' rings answer EAGAIN for ever to such a descriptor */
	CHECK(!(fcntl(s->fd, F_GETFL) & O_NONBLOCK));
	edges(s, bytes, sizeof(bytes));
	source_hint(s, 0, 4096);
	if (ftruncate(fd, 4000))
		die("ftruncate");
	CHECK(source_read(s, 3990, bytes, 10, "tail", &e) == 0);
	CHECK(source_read(s, 3990, bytes, 20, "tail", &e) == -EBADMSG);
	CHECK(e.set && strstr(e.msg, "tail") && strstr(e.msg, "shorter"));
	source_free(s);
	remove_temp(fd, path);

	e.set = false;
	CHECK(source_open(&s, "/nonexistent/file", &e) == -ENOENT && e.set);
	e.set = false;
	CHECK(source_open(&s, "/", &e) == -EINVAL && strstr(e.msg, "a directory"));
	e.set = false;
	CHECK(source_open(&s, "/dev/null", &e) == -EINVAL && strstr(e.msg, "character device"));
}

static void test_source_holes(void)
{
	static const struct {
		uint64_t off, len;
	} data[] = {{MIB, 64 * KIB}, {2 * MIB, 4 * KIB}, {2 * MIB + 64 * KIB, 128 * KIB}};
	const uint64_t size = 4 * MIB;
	uint8_t *buf = alloc(size);
	struct err e = {.set = false};
	struct source *s = NULL;
	unsigned holes = 0;
	char *path;
	int fd = temp_file(&path);

	if (ftruncate(fd, (off_t)size))
		die("ftruncate");
	memset(buf, 1, size);
	for (size_t i = 0; i < COUNT(data); i++)
		write_all(fd, buf, data[i].len, data[i].off);
	memset(buf, 0, size);
	CHECK(source_open(&s, path, &e) == 0);
	if (lseek(fd, 0, SEEK_DATA) == 0) {
		printf("# no holes on this file system\n");
		goto out;
	}
	CHECK(source_is_hole(s, 0, MIB));
	CHECK(!source_is_hole(s, 0, MIB + 1));
	CHECK(!source_is_hole(s, MIB, 1));
	CHECK(source_is_hole(s, 3 * MIB, MIB));
	CHECK(!source_is_hole(s, 3 * MIB, MIB + 1));
	CHECK(!source_is_hole(s, size, 1));
	CHECK(!source_is_hole(s, UINT64_MAX, 1));
	seed(3);
	for (int i = 0; i < 5000; i++) {
		uint64_t off = below(size), len = 1 + below(i % 2 ? size - off : 512);
		bool want = off + len <= size;

		for (size_t k = 0; k < COUNT(data); k++)
			want &= off + len <= data[k].off || off >= data[k].off + data[k].len;
		/* "known to be": never a false yes; and a no would be dull */
		if (source_is_hole(s, off, len)) {
			CHECK(want);
			holes++;
		} else {
			CHECK(!want);
		}
	}
	CHECK(holes > 100);
out:
	source_free(s);
	remove_temp(fd, path);
	free(buf);
}

/* What comes of the bytes sent is the beginning of `want`; how much, and how it ended. */
static int flow(const uint8_t *bytes, size_t n, const uint8_t *want, size_t size,
		const struct stream_opts *o, uint64_t *have, struct err *e)
{
	struct feed f = {.bytes = bytes, .n = n, .chunk = 1 + below(700)};
	struct stream *flow = NULL;
	uint64_t checked = 0;
	pthread_t thread;
	int fd[2], r;

	if (pipe(fd) < 0)
		die("pipe");
	f.fd = fd[1];
	if (pthread_create(&thread, NULL, feed, &f))
		die("pthread_create");
	CHECK(stream_start(&flow, fd[0], "pipe", o, e) == 0);
	for (;;) {
		/* as far as can be asked for, or a little */
		const uint64_t low = stream_low(flow), most = low + stream_room(flow);
		const uint64_t end = min_u64(most, below(3) ? checked + 1 + below(300) : most);

		CHECK(stream_wait(flow, end, have, e) == 0);
		if (!CHECK(*have <= size && *have <= most))
			break;
		/* nothing that is held has changed, wherever the windows begin */
		for (uint64_t pos = low + below(*have - low + 1); pos < *have;) {
			size_t here;
			const uint8_t *p = stream_at(flow, pos, &here);

			if (!CHECK(here && !memcmp(p, want + pos, min_u64(here, *have - pos))))
				break;
			pos += here;
		}
		if (*have < end)
			break;
		checked = *have;
		stream_release(flow, checked == most ? most : low + below(checked - low + 1));
		CHECK(stream_low(flow) % stream_window(flow) == 0);
	}
	r = stream_error(flow, e);
	stream_free(flow);
	pthread_join(thread, NULL);
	return r;
}

/* Adds a member of n bytes. */
static size_t gzip_add(uint8_t *to, size_t room, const uint8_t *from, size_t n)
{
	z_stream z = {.next_in = (z_const Bytef *)from, .avail_in = (uInt)n, .next_out = to,
		      .avail_out = (uInt)room};

	if (deflateInit2(&z, (int)below(10), Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
	    deflate(&z, Z_FINISH) != Z_STREAM_END)
		die("deflate");
	deflateEnd(&z);
	return room - z.avail_out;
}

static void test_stream_input(void)
{
	enum { SIZE = 30000, ROOM = 100000 };
	static uint8_t want[SIZE], packed[ROOM];
	struct stream_opts o = {.windows = 0};
	struct err e = {.set = false};
	uint64_t have;
	size_t n;

	signal(SIGPIPE, SIG_IGN); /* who has seen enough lets go */
	seed(31);
	random_bytes(want, sizeof(want));
	memset(want + 5000, 0, 5000);
	want[0] = 'x';
	for (int round = 0; round < 40; round++) {
		const size_t size = round < 3 ? (size_t)round : 1 + below(SIZE);
		size_t done = 0;

		o.window = (size_t)64 << below(8);
		o.windows = 3 + below(4);
		CHECK(flow(want, size, want, size, &o, &have, &e) == 0 && have == size);
		/* members of any length, also of none, zeros behind them */
		n = gzip_add(packed, ROOM, want, 0);
		while (done < size) {
			size_t part = below((unsigned)(size - done) + 1);

			n += gzip_add(packed + n, ROOM - n, want + done, part);
			done += part;
		}
		CHECK(flow(packed, n, want, size, &o, &have, &e) == 0 && have == size);
		memset(packed + n, 0, 1000);
		CHECK(flow(packed, n + below(1000), want, size, &o, &have, &e) == 0 && have == size);
		CHECK(!e.set);
		/* all that came before what is wrong is there */
		memcpy(packed + n, "garbage", 7);
		CHECK(flow(packed, n + 1 + below(7), want, size, &o, &have, &e) < 0 && have == size);
		CHECK(strstr(e.msg, "there is something else behind the gzip data"));
		e = (struct err){0};
		CHECK(flow(packed, n - 1 - below(8), want, size, &o, &have, &e) < 0 && have <= size);
		CHECK(strstr(e.msg, "the gzip data ends in the middle"));
		e = (struct err){0};
	}
	signal(SIGPIPE, SIG_DFL);
}

/* Sends the same bytes again and again: `chunk` times, or until nobody wants them. */
static void *feed_on(void *arg)
{
	struct feed *f = arg;
	size_t left = f->chunk;

	while (write(f->fd, f->bytes, f->n) > 0 && --left)
		;
	close(f->fd);
	return NULL;
}

static bool flag_stop(void *arg)
{
	return __atomic_load_n((bool *)arg, __ATOMIC_RELAXED);
}

/* A sender that is always faster than we are keeps nobody from stopping. */
static void test_stream_stop(void)
{
	enum { SIZE = 32768 };
	static uint8_t bytes[SIZE];

	signal(SIGPIPE, SIG_IGN);
	seed(32);
	for (int what = 0; what < 3; what++) {
		struct feed f = {.bytes = bytes, .n = SIZE, .chunk = 6};
		struct err e = {.set = false};
		bool stop = false;
		struct source_opts o = {.stream = {.window = 32768, .stop = flag_stop, .arg = &stop}};
		struct source *s = NULL;
		char path[32];
		pthread_t thread;
		uint64_t have;
		int fd[2];

		random_bytes(bytes, SIZE);
		if (what == 2) { /* gzip in which there is nothing, without end */
			f.chunk = 0;
			for (f.n = 0; f.n < SIZE - 100;)
				f.n += gzip_add(bytes + f.n, SIZE - f.n, bytes, 0);
		}
		if (pipe(fd) < 0)
			die("pipe");
		f.fd = fd[1];
		if (pthread_create(&thread, NULL, feed_on, &f))
			die("pthread_create");
		snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
		CHECK(source_open_any(&s, path, &o, &e) == 0);
		close(fd[0]);
		alarm(60); /* it was waited for ever */
		if (what < 2) { /* all of it is there, and its end is known */
			CHECK(source_ahead(s, SIZE, &have, &e) == 0 && have >= SIZE);
			source_release(s, SIZE);
			CHECK(source_ahead(s, 7 * SIZE, &have, &e) == 0 && have == 6 * SIZE);
		}
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		CHECK((what == 0   ? source_spool_rest(s, SPOOL_ASKED, &e)
		       : what == 1 ? source_skip(s, UINT64_MAX, &have, &e)
				   : source_ahead(s, 1, &have, &e)) == -EINTR);
		source_free(s);
		pthread_join(thread, NULL);
		alarm(0);
	}
	signal(SIGPIPE, SIG_DFL);
}

const struct test input_tests[] = {
	{"source-memory", test_source_memory},
	{"source-file", test_source_file},
	{"source-holes", test_source_holes},
	{"stream", test_stream_input},
	{"stream-stop", test_stream_stop},
	{NULL, NULL},
};
