/* SPDX-License-Identifier: MIT */
#include "unit.h"
#include "vmdk/zerolog.h"

#include "chain/image.h"
#include "vmdk/undo.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a disk of any size had at byte off before anyone wrote; every fifth 4 KiB are zeros. */
static uint8_t old_byte(uint64_t off)
{
	return off / 4096 % 5 ? (uint8_t)(off * 2654435761u >> 13 ^ off >> 9) | 1 : 0;
}

struct log {
	char *path;
	uint64_t size;
	struct undo *u;
	uint64_t *saved; /* what undo_missing() said, in its order: from and to */
	size_t n;
};

static struct log log_new(uint64_t size)
{
	struct log l = {.size = size};

	close(temp_file(&l.path));
	unlink(l.path);
	return l;
}

static void log_free(struct log *l)
{
	undo_free(l->u);
	unlink(l->path);
	free(l->path);
	free(l->saved);
}

static int log_open(struct log *l, bool append, struct err *e)
{
	const struct undo_opts o = {.append = append, .mode = 0600};

	return undo_open(&l->u, l->path, l->size, &o, e);
}

/* As a job does it. `flip`: the disk has changed since; what is saved again would be wrong. */
static int log_save(struct log *l, uint64_t off, uint64_t len, uint8_t flip, struct err *e)
{
	const uint64_t end = off + len;
	uint64_t from, to;
	int r;

	while (off < end && (r = undo_missing(l->u, off, end - off, &from, &to, e)) != 0) {
		uint8_t *buf;

		if (r < 0)
			return r;
		CHECK(from < to && to <= l->size && to > off && from < end);
		buf = alloc(to - from);
		for (uint64_t i = from; i < to; i++)
			buf[i - from] = old_byte(i) ^ flip;
		l->saved = realloc(l->saved, (l->n + 1) * 2 * sizeof(*l->saved));
		if (!l->saved)
			die("realloc");
		l->saved[l->n * 2] = from;
		l->saved[l->n++ * 2 + 1] = to;
		r = undo_save(l->u, from, to - from, buf, e);
		free(buf);
		if (r < 0)
			return r;
		off = to;
	}
	return 0;
}

static bool was_saved(const struct log *l, uint64_t off)
{
	for (size_t i = 0; i < l->n; i++)
		if (off >= l->saved[i * 2] && off < l->saved[i * 2 + 1])
			return true;
	return false;
}

/* Reads the log and returns how many bytes it has, all of them right ones; -errno. */
static int64_t log_read(const struct log *l, struct err *e)
{
	const struct image_opts o = {0};
	struct image *m;
	struct run run;
	int64_t bytes = 0;
	int r = image_open(&m, l->path, &o, e);

	if (r < 0)
		return r;
	CHECK(m->reader->size == l->size);
	while ((r = reader_next(m->reader, &run, e)) > 0) {
		uint8_t *buf = alloc(run.len);
		bool right = was_saved(l, run.off);

		if (run.kind == RUN_ZERO)
			memset(buf, 0, run.len);
		else
			r = reader_fetch(&run, buf, e);
		for (uint64_t i = 0; right && i < run.len; i++)
			right = buf[i] == old_byte(run.off + i);
		free(buf);
		if (r < 0)
			break;
		CHECK(right);
		bytes += (int64_t)run.len;
	}
	image_free(m);
	return r < 0 ? r : bytes;
}

static int64_t saved_bytes(const struct log *l)
{
	int64_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += (int64_t)(l->saved[i * 2 + 1] - l->saved[i * 2]);
	return n;
}

static off_t file_size(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		die(path);
	return st.st_size;
}

static void test_undo_log(void)
{
	static const uint64_t sizes[] = {512, 4096, 4608, 65536, 2 * MIB + 512, 40 * MIB + 1536,
					 UINT64_C(9) << 40, UINT64_C(62) << 40};

	seed(71);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct log l = log_new(sizes[i]);
		struct err e = {0};

		CHECK(!log_open(&l, false, &e));
		for (unsigned k = 0; k < 300; k++) {
			uint64_t len = 512 * (1 + below(k % 50 ? 40 : 2000));
			uint64_t off = below(sizes[i] / 512) * 512;

			len = min_u64(len, sizes[i] - off);
			CHECK(!log_save(&l, off, len, 0, &e));
			CHECK(!log_save(&l, off, len, 0x80, &e)); /* finds nothing to save */
			if (k % 7 == 0)
				CHECK(!undo_barrier(l.u, &e));
		}
		CHECK(!log_save(&l, sizes[i] - 512, 512, 0, &e));
		CHECK(!undo_barrier(l.u, &e));
		/* not finished: by the markers */
		CHECK(log_read(&l, &e) == saved_bytes(&l));
		CHECK(!undo_finish(l.u, &e));
		CHECK(undo_save(l.u, 0, 512, "", &(struct err){0}) < 0);
		CHECK(log_read(&l, &e) == saved_bytes(&l));
		CHECK_STR(e.msg, "");
		/* finished: what is cut off is missed, whatever it is */
		for (off_t cut = file_size(l.path) - 1, step = 1; cut > 1024; cut -= step, step *= 3) {
			struct err cut_short = {0};
			int64_t got;

			CHECK(!truncate(l.path, cut));
			got = log_read(&l, &cut_short);
			CHECK(got == -EBADMSG || got == saved_bytes(&l)); /* only zeros were lost */
		}
		log_free(&l);
	}
}

/* More tables than are kept in memory, in an order that wants them again and again. */
static void test_undo_tables(void)
{
	struct log l = log_new(UINT64_C(40) << 30);
	struct err e = {0};

	seed(72);
	CHECK(!log_open(&l, false, &e));
	for (unsigned k = 0; k < 3000; k++) {
		/* the same places of memory, for others each time */
		uint64_t table = below(4) + 4096 * below(5);

		CHECK(!log_save(&l, table * 2 * MIB + below(512) * 4096, 512, 0, &e));
	}
	CHECK(!undo_barrier(l.u, &e));
	CHECK(log_read(&l, &e) == saved_bytes(&l));
	undo_free(l.u);
	l.u = NULL;
	CHECK(!log_open(&l, true, &e));
	for (unsigned k = 0; k < 20; k++)
		CHECK(!log_save(&l, k * 4096 * 2 * MIB % l.size, 4096, 0, &e));
	CHECK(!undo_finish(l.u, &e));
	CHECK(log_read(&l, &e) == saved_bytes(&l));
	CHECK_STR(e.msg, "");
	log_free(&l);
}

/* A table is the last thing in a log of more records than a reader holds the places of: half a GiB,
 * and ten seconds. */
static void test_undo_long(void)
{
	struct log l;
	uint8_t *zeros;
	struct err e = {0};
	uint64_t off = 0, from, to;

	if (!getenv("VMDKSYNC_BIG_TESTS"))
		return;
	l = log_new(UINT64_C(40) << 30);
	zeros = calloc(1, MIB);
	CHECK(zeros && !log_open(&l, false, &e));
	for (; off < (UINT64_C(4) << 30) + MIB; off += MIB)
		CHECK(undo_missing(l.u, off, MIB, &from, &to, &e) == 1 && from == off &&
		      to == off + MIB && !undo_save(l.u, off, MIB, zeros, &e));
	CHECK(!undo_save(l.u, UINT64_C(8) << 30, 4096, zeros, &e)); /* table 0 has to go */
	CHECK(!undo_barrier(l.u, &e));
	undo_free(l.u);
	l.u = NULL;
	if (CHECK(!log_open(&l, true, &e))) {
		CHECK(undo_missing(l.u, 0, off, &from, &to, &e) == 0);
		CHECK(!undo_finish(l.u, &e));
	}
	CHECK_STR(e.msg, "");
	free(zeros);
	log_free(&l);
}

/* A log as a crash may leave it: cut anywhere, or with sectors of the last group missing. */
static void test_undo_torn(void)
{
	for (unsigned round = 0; round < 60; round++) {
		struct log l = log_new(3 * MIB + 512);
		struct err e = {0};
		int64_t durable = 0, all;
		off_t synced = 0, end;
		uint8_t zeros[512] = {0};
		int64_t got;
		int fd;

		seed(1000 + round);
		CHECK(!log_open(&l, false, &e));
		for (unsigned k = 0; k < 40; k++) {
			CHECK(!log_save(&l, below(6000) * 512, 512 * (1 + below(20)), 0, &e));
			if (k % 9 == 8) {
				CHECK(!undo_barrier(l.u, &e));
				durable = saved_bytes(&l);
				synced = file_size(l.path);
			}
		}
		/* the barrier brings what is buffered to the file; what it claims is not there yet */
		CHECK(!undo_barrier(l.u, &e));
		undo_free(l.u);
		l.u = NULL;
		all = saved_bytes(&l);
		end = file_size(l.path);
		fd = open(l.path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			die(l.path);
		if (round % 3 == 0) {
			off_t to = synced + (off_t)below((uint64_t)(end - synced) + 1);

			CHECK(!ftruncate(fd, to));
		} else if (end > synced) {
			for (unsigned k = 0; k < 1 + round % 4; k++)
				write_all(fd, zeros, 512,
					  (uint64_t)synced / 512 * 512 +
						  below((uint64_t)(end - synced) / 512) * 512);
		}
		got = log_read(&l, &e);
		CHECK(got >= durable && got <= all);
		CHECK_STR(e.msg, "");
		/* goes on: what is lost was not overwritten, what is there has been */
		CHECK(!log_open(&l, true, &e));
		for (size_t i = 0, n = l.n; i < n && !e.set; i++)
			CHECK(!log_save(&l, l.saved[i * 2], l.saved[i * 2 + 1] - l.saved[i * 2], 0, &e));
		CHECK(!log_save(&l, 0, l.size, 0, &e));
		CHECK(!undo_finish(l.u, &e));
		CHECK(log_read(&l, &e) == (int64_t)l.size);
		CHECK_STR(e.msg, "");
		close(fd);
		log_free(&l);
	}
}

/* Behind a torn record others may be whole, a sector each where the disk was all zero: these do not
 * come back when the log goes on over them. */
static void test_undo_torn_zeros(void)
{
	struct log l = log_new(1 * MIB);
	uint8_t zeros[512] = {0};
	struct err e = {0};
	off_t synced;
	int fd;

	CHECK(!log_open(&l, false, &e));
	CHECK(!log_save(&l, 4096, 512, 0, &e));
	CHECK(!undo_barrier(l.u, &e));
	synced = file_size(l.path);
	for (uint64_t n = 5; n <= 50; n += 5)
		CHECK(!log_save(&l, n * 4096, 512, 0, &e));
	CHECK(!undo_barrier(l.u, &e));
	undo_free(l.u);
	l.u = NULL;
	CHECK(file_size(l.path) == synced + 11 * 512); /* a barrier's mark is the first */
	fd = open(l.path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(l.path);
	write_all(fd, zeros, 512, (uint64_t)synced + 512);
	close(fd);
	CHECK(log_read(&l, &e) == 4096);
	CHECK(!log_open(&l, true, &e));
	CHECK(!log_save(&l, 50 * 4096, 512, 0, &e));
	CHECK(!undo_barrier(l.u, &e));
	undo_free(l.u);
	l.u = NULL;
	CHECK(log_read(&l, &e) == 2 * 4096);
	CHECK_STR(e.msg, "");
	log_free(&l);
}

/* What had been on stable storage and is broken is damage, finished or not. */
static void test_undo_damage(void)
{
	static const unsigned at[] = {0, 8, 12, 600};

	for (unsigned k = 0; k < COUNT(at); k++) {
		struct log l = log_new(1 * MIB);
		struct err e = {0};
		int fd;

		CHECK(!log_open(&l, false, &e));
		for (uint64_t off = 0; off < 20; off++) {
			CHECK(!log_save(&l, off * 5 * 4096 + 4096, 512, 0, &e));
			CHECK(!undo_barrier(l.u, &e));
		}
		CHECK(log_read(&l, &e) == saved_bytes(&l));
		fd = open(l.path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			die(l.path);
		write_all(fd, "\x77\x01\x0f", 3, 65536 + 3 * (4608 + 512) + at[k]);
		close(fd);
		CHECK(log_read(&l, &e) == -EBADMSG);
		log_free(&l);
	}
}

static void test_undo_refuses(void)
{
	struct log l = log_new(1 * MIB);
	struct err e = {0};

	CHECK(log_open(&l, true, &e) == -ENOENT);
	e = (struct err){0};
	CHECK(!log_open(&l, false, &e));
	CHECK(log_open(&(struct log){.path = l.path, .size = l.size}, false, &e) == -EEXIST);
	e = (struct err){0};
	CHECK(log_open(&(struct log){.path = l.path, .size = l.size}, true, &e) == -EBUSY);
	undo_free(l.u);
	l.u = NULL;
	e = (struct err){0};
	CHECK(log_open(&(struct log){.path = l.path, .size = l.size + 512}, true, &e) == -EINVAL);
	e = (struct err){0};
	CHECK(!log_open(&l, true, &e));
	CHECK(!undo_finish(l.u, &e));
	undo_free(l.u);
	l.u = NULL;
	CHECK(log_open(&l, true, &e) == -EALREADY);
	CHECK(strstr(e.msg, "finished"));
	log_free(&l);
	l = log_new((UINT64_C(65) << 40));
	e = (struct err){0};
	CHECK(log_open(&l, false, &e) == -EFBIG);
	CHECK(access(l.path, F_OK) < 0);
	log_free(&l);
}

/* A disk that is full while the log is written. */
static void test_undo_full(void)
{
	struct log l = log_new(64 * MIB);
	struct rlimit was, small;
	struct err e = {0};
	int r = 0;

	signal(SIGXFSZ, SIG_IGN);
	CHECK(!log_open(&l, false, &e));
	if (getrlimit(RLIMIT_FSIZE, &was) < 0)
		die("getrlimit");
	small = was;
	small.rlim_cur = 5 * MIB + 700;
	if (setrlimit(RLIMIT_FSIZE, &small) < 0)
		die("setrlimit");
	for (uint64_t off = 0; !r && off < l.size; off += MIB)
		r = log_save(&l, off, MIB, 0, &e);
	if (!r)
		r = undo_barrier(l.u, &e);
	setrlimit(RLIMIT_FSIZE, &was);
	CHECK(r == -EFBIG);
	CHECK(strstr(e.msg, "writing the undo log at byte"));
	/* there is room again, but something is missing: nothing more may be overwritten */
	CHECK(undo_barrier(l.u, &(struct err){0}) < 0);
	CHECK(undo_finish(l.u, &(struct err){0}) < 0);
	undo_free(l.u);
	l.u = NULL;
	e = (struct err){0};
	CHECK(log_read(&l, &e) > 3 * (int64_t)MIB);
	CHECK(!log_open(&l, true, &e));
	CHECK(!log_save(&l, 0, l.size, 0, &e));
	CHECK(!undo_finish(l.u, &e));
	CHECK(log_read(&l, &e) == (int64_t)l.size);
	CHECK_STR(e.msg, "");
	log_free(&l);
}

/* A fence behind a run of zeros: what was given before it has to be copied before the child is asked. */
static void test_zerolog_fence(void)
{
	const struct run runs[] = {
	    {.off = 0, .len = 4096, .kind = RUN_ZERO},
	    {.kind = RUN_FENCE},
	    {.off = 4096, .len = 4096, .kind = RUN_ZERO},
	    {.off = 8192, .len = 4096, .kind = RUN_ZERO},
	    {.off = 65536, .len = 4096, .kind = RUN_ZERO},
	    {.kind = RUN_FENCE},
	};
	const struct { enum run_kind kind; uint64_t off, len; } want[] = {
	    {RUN_ZERO, 0, 4096},	{RUN_FENCE, 0, 0}, {RUN_ZERO, 4096, 8192},
	    {RUN_ZERO, 65536, 4096}, {RUN_FENCE, 0, 0},
	};
	struct list *l = list_new(1 << 20, runs, COUNT(runs));
	struct err e = {.set = false};
	struct reader *z;
	struct run run;

	l->reader.streaming = &l->reader;
	z = zerolog_over(&l->reader, NULL, 4096);
	for (size_t i = 0; i < COUNT(want); i++) {
		CHECK(reader_next(z, &run, &e) == 1);
		CHECK(run.kind == want[i].kind && run.len == want[i].len);
		CHECK(run.kind == RUN_FENCE || run.off == want[i].off);
	}
	CHECK(reader_next(z, &run, &e) == 0);
	reader_free(z);
}

const struct test undo_tests[] = {
	{"zerolog-fence", test_zerolog_fence},
	{"undo-log", test_undo_log},
	{"undo-tables", test_undo_tables},
	{"undo-long", test_undo_long},
	{"undo-torn", test_undo_torn},
	{"undo-torn-zeros", test_undo_torn_zeros},
	{"undo-damage", test_undo_damage},
	{"undo-refuses", test_undo_refuses},
	{"undo-full", test_undo_full},
	{NULL, NULL},
};
