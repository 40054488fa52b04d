/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRANSFERS 2000u
#define CELL 4096u

void on_done(struct xfer *x, int err)
{
	struct queue_test *t = x->owner;

	CHECK(err || x->done_len == x->len);
	t->done++;
	t->last = err;
	if (t->left) {
		t->left--;
		queue_put(t->q, t->more ? t->more : x);
	}
}

static void queue_many(unsigned depth, bool in_line)
{
	static struct xfer x[TRANSFERS];
	uint8_t *want = alloc((size_t)TRANSFERS * CELL), *got = alloc((size_t)TRANSFERS * CELL);
	struct queue_test t = {0};
	struct err e = {.set = false};
	struct queue *q = NULL;
	unsigned order[TRANSFERS];
	int fd = temp_file(NULL);

	seed(6 + depth);
	random_bytes(want, (size_t)TRANSFERS * CELL);
	CHECK(queue_new(&q, depth, in_line, &e) == 0);
	CHECK(!in_line || strcmp(queue_kind(q), "in line") == 0);
	CHECK(queue_busy(q) == 0 && queue_wait(q, 0) == 0 && queue_wait(q, 5) == 0);
	for (unsigned i = 0; i < TRANSFERS; i++) {
		unsigned k = (unsigned)below(i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	/* reads of what was written before are mixed into the writes */
	for (unsigned i = 0; i < 2 * TRANSFERS; i++) {
		bool writing = i < TRANSFERS;
		unsigned cell = order[i % TRANSFERS];
		size_t from = cell % 97, len = CELL - from - cell % 89;
		int ran;

		if (i == TRANSFERS) { /* all of it is there before it is read */
			while (queue_busy(q))
				CHECK(queue_wait(q, 1) >= 0);
			CHECK(t.done == TRANSFERS);
		}
		x[cell] = (struct xfer){.fd = fd, .kind = writing ? XFER_WRITE : XFER_READ,
					.buf = (writing ? want : got) + (size_t)cell * CELL + from,
					.len = len, .off = (uint64_t)cell * CELL + from,
					.owner = &t, .done = on_done};
		queue_put(q, &x[cell]);
		CHECK(queue_busy(q) == i + 1 - t.done);
		if (below(3) == 0) {
			unsigned min = (unsigned)below(depth * 2), busy = queue_busy(q);
			unsigned before = t.done;

			ran = queue_wait(q, min);
			CHECK(ran >= (int)min_u64(min, busy) && t.done - before == (unsigned)ran);
			CHECK(queue_busy(q) == busy - (unsigned)ran);
		}
		if (t.last)
			break;
	}
	while (queue_busy(q))
		CHECK(queue_wait(q, 1) >= 1);
	CHECK(t.done == 2 * TRANSFERS && t.last == 0);
	for (unsigned cell = 0; cell < TRANSFERS; cell++) {
		size_t from = cell % 97, len = CELL - from - cell % 89;

		CHECK(!memcmp(want + (size_t)cell * CELL + from, got + (size_t)cell * CELL + from,
			      len));
	}
	queue_free(q);
	close(fd);
	free(want);
	free(got);
}

static void test_queue_many(void)
{
	static const unsigned depth[] = {1, 4, 64};

	for (size_t i = 0; i < COUNT(depth); i++) {
		queue_many(depth[i], false);
		queue_many(depth[i], true);
	}
}

/* One transfer; returns what its callback was told. */
static int one(struct queue *q, struct xfer x)
{
	struct queue_test t = {.last = 12345};

	x.owner = &t;
	x.done = on_done;
	queue_put(q, &x);
	CHECK(t.done == 0 && queue_busy(q) == 1); /* callbacks run in queue_wait() only */
	CHECK(queue_wait(q, 1) == 1);
	CHECK(t.done == 1 && queue_busy(q) == 0);
	return t.last;
}

static void test_queue_errors(void)
{
	for (int in_line = 0; in_line < 2; in_line++) {
		struct err e = {.set = false};
		struct queue *q = NULL;
		uint8_t buf[100] = {7};
		int fd = temp_file(NULL), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		struct queue_test t = {.left = 500};
		struct xfer x, y;

		CHECK(queue_new(&q, 4, in_line, &e) == 0);
		CHECK(one(q, (struct xfer){.fd = fd, .kind = XFER_WRITE, .buf = buf, .len = 100}) ==
		      0);
		CHECK(one(q, (struct xfer){.fd = fd, .buf = buf, .len = 100}) == 0);
		CHECK(one(q, (struct xfer){.fd = fd, .buf = buf, .len = 100, .off = 1}) ==
		      -ENODATA);
		CHECK(one(q, (struct xfer){.fd = fd, .buf = buf, .len = 1, .off = 100}) ==
		      -ENODATA);
		CHECK(one(q, (struct xfer){.fd = -1, .buf = buf, .len = 1}) == -EBADF);
		CHECK(one(q, (struct xfer){.fd = null, .kind = XFER_WRITE, .buf = buf, .len = 1}) ==
		      -EBADF);
		CHECK(one(q, (struct xfer){.fd = null, .buf = buf, .len = 1}) == -ENODATA);
		CHECK(one(q, (struct xfer){.fd = fd, .buf = buf, .len = 0}) == 0);
		CHECK(one(q, (struct xfer){.fd = fd, .kind = XFER_FLUSH}) == 0);
		CHECK(one(q, (struct xfer){.fd = null, .kind = XFER_FLUSH}) == -EINVAL);
		CHECK(one(q, (struct xfer){.fd = -1, .kind = XFER_FLUSH}) == -EBADF);

		CHECK(one(q, (struct xfer){.kind = XFER_ZERO, .fd = fd, .mode = FALLOC_FL_ZERO_RANGE,
					   .len = 50}) == 0 ||
		      one(q, (struct xfer){.kind = XFER_ZERO, .fd = fd, .mode = FALLOC_FL_ZERO_RANGE,
					   .len = 50}) == -EOPNOTSUPP);
		CHECK(one(q, (struct xfer){.kind = XFER_ZERO, .fd = fd, .len = 0}) == -EINVAL);

		/* a callback puts the same transfer again, 500 times */
		t.q = q;
		x = (struct xfer){.fd = fd, .buf = buf, .len = 10, .owner = &t, .done = on_done};
		queue_put(q, &x);
		while (queue_busy(q))
			CHECK(queue_wait(q, 1) >= 1);
		CHECK(t.done == 501 && t.last == 0 && t.left == 0);

		/* and another one, once, which is waited for as well */
		t = (struct queue_test){.q = q, .more = &y, .left = 1};
		y = x;
		queue_put(q, &x);
		CHECK(queue_wait(q, 2) == 2);
		CHECK(t.done == 2 && queue_busy(q) == 0);
		queue_free(q);
		close(fd);
		close(null);
	}
	queue_free(NULL);
}

struct job_test {
	struct xfer xfer;
	unsigned nap;
	bool ran;
};

static void job_run(struct xfer *x)
{
	struct job_test *t = container_of(x, struct job_test, xfer);

	usleep(t->nap);
	t->ran = true;
}

/* Jobs beside transfers: one wait is for both. */
static void test_queue_jobs(void)
{
	enum { JOBS = 300 };
	static struct job_test job[JOBS];
	static struct xfer read[JOBS];

	for (int in_line = 0; in_line < 2; in_line++) {
		struct queue_test t = {.last = 0}, u = {.last = 0};
		struct err e = {.set = false};
		struct queue *q = NULL;
		uint8_t buf[8] = {0};
		int fd = temp_file(NULL);

		seed(77);
		write_all(fd, buf, sizeof(buf), 0);
		CHECK(queue_new(&q, 8, in_line, &e) == 0);
		memset(job, 0, sizeof(job));
		for (unsigned i = 0; i < JOBS; i++) {
			unsigned done = t.done + u.done;

			job[i].nap = below(4) ? 0 : (unsigned)below(900);
			job[i].xfer = (struct xfer){.kind = XFER_JOB, .run = job_run,
						    .owner = &t, .done = on_done};
			queue_put(q, &job[i].xfer);
			if (below(2)) {
				read[i] = (struct xfer){.fd = fd, .buf = buf, .len = 8, .owner = &u,
							.done = on_done, .in_line = below(2)};
				queue_put(q, &read[i]);
			}
			CHECK(queue_jobs(q) == i + 1 - t.done);
			if (!below(4)) {
				unsigned busy = queue_busy(q), min = (unsigned)below(6);
				int ran = queue_wait(q, min);

				CHECK(ran >= (int)min_u64(min, busy));
				CHECK(t.done + u.done - done == (unsigned)ran);
			}
		}
		while (queue_busy(q))
			CHECK(queue_wait(q, 1) >= 1);
		CHECK(t.done == JOBS && !t.last && !u.last && !queue_jobs(q));
		for (unsigned i = 0; i < JOBS; i++)
			CHECK(job[i].ran);
		queue_free(q);
		close(fd);
	}
}

static void job_wait(struct xfer *x)
{
	struct job_test *t = container_of(x, struct job_test, xfer);
	char c;

	while (read((int)t->nap, &c, 1) < 0 && errno == EINTR)
		;
	t->ran = true;
}

/* What is ready does not wait for a job, and nobody waits for the bell of jobs that are done. */
static void test_queue_bell(void)
{
	struct queue_test t = {.last = 0}, u = {.last = 0}, v = {.last = 0};
	struct xfer slow, here, last[3];
	struct job_test job = {.ran = false};
	struct err e = {.set = false};
	struct queue *q = NULL;
	uint8_t buf[8] = {0};
	int fd = temp_file(NULL), a[2], b[2];

	write_all(fd, buf, sizeof(buf), 0);
	CHECK(queue_new(&q, 8, false, &e) == 0);
	CHECK(pipe(a) == 0 && pipe(b) == 0);
	if (strcmp(queue_kind(q), "in line") == 0)
		goto out; /* a read of the pipe would be waited for, and there is no bell */
	job.nap = (unsigned)a[0];
	job.xfer = (struct xfer){.kind = XFER_JOB, .run = job_wait, .owner = &t, .done = on_done};
	slow = (struct xfer){.fd = b[0], .buf = buf, .len = 1, .owner = &u, .done = on_done};
	queue_put(q, &job.xfer);
	queue_put(q, &slow);
	CHECK(queue_wait(q, 0) == 0);
	/* made in line, thrice in a row from its own callback: the job and the read still wait */
	v.q = q;
	v.left = 2;
	here = (struct xfer){.fd = fd, .buf = buf, .len = 8, .in_line = true, .owner = &v, .done = on_done};
	queue_put(q, &here);
	alarm(60);
	CHECK(queue_wait(q, 3) == 3 && v.done == 3 && !t.done && !u.done);
	/* the bell has been put when the read ends, and is still put when the job has */
	CHECK(write(b[1], "", 1) == 1 && queue_wait(q, 1) == 1 && u.done == 1);
	CHECK(write(a[1], "", 1) == 1 && queue_wait(q, 1) == 1 && t.done == 1);
	for (unsigned i = 0; i < 3; i++) {
		last[i] = (struct xfer){.fd = fd, .buf = buf, .len = 8, .owner = &u, .done = on_done};
		queue_put(q, &last[i]);
	}
	CHECK(queue_wait(q, 100) == 3 && !queue_busy(q));
	alarm(0);
out:
	queue_free(q);
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

const struct test queue_tests[] = {
	{"queue-many", test_queue_many},
	{"queue-errors", test_queue_errors},
	{"queue-jobs", test_queue_jobs},
	{"queue-bell", test_queue_bell},
	{NULL, NULL},
};
