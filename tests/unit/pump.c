/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "output/pump.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define TARGET_SIZE (6 * MIB + 1234)
#define SOURCE_SIZE (5 * MIB)

struct bench { /* a target file, its model, and what runs are made of */
	char *path, *src_path;
	int fd, src_fd;
	uint8_t *old, *model, *now;
	uint8_t *bytes; /* of both sources */
	struct source *mem, *file;
	struct run run[4000];
	size_t n;
	uint64_t data, zero; /* in runs, bytes */
};

static void bench_init(struct bench *b, bool sparse)
{
	struct err e = {.set = false};

	memset(b, 0, sizeof(*b));
	b->old = alloc(TARGET_SIZE);
	b->model = alloc(TARGET_SIZE);
	b->now = alloc(TARGET_SIZE);
	b->bytes = alloc(SOURCE_SIZE);
	random_bytes(b->bytes, SOURCE_SIZE);
	b->fd = temp_file(&b->path);
	b->src_fd = temp_file(&b->src_path);
	write_all(b->src_fd, b->bytes, SOURCE_SIZE, 0);
	if (ftruncate(b->fd, TARGET_SIZE))
		die("ftruncate");
	if (sparse) {
		for (int i = 0; i < 10; i++) {
			uint64_t off = below(TARGET_SIZE), n = 1 + below(200 * KIB);

			n = min_u64(n, TARGET_SIZE - off);
			random_bytes(b->old + off, n);
			write_all(b->fd, b->old + off, n, off);
		}
	} else {
		random_bytes(b->old, TARGET_SIZE);
		write_all(b->fd, b->old, TARGET_SIZE, 0);
	}
	if (fsync(b->fd) || fsync(b->src_fd))
		die("fsync");
	CHECK(source_memory(&b->mem, "mem", b->bytes, SOURCE_SIZE, &e) == 0);
	CHECK(source_open(&b->file, b->src_path, &e) == 0);
	if (e.set)
		die(e.msg);
}

static void bench_free(struct bench *b)
{
	source_free(b->mem);
	source_free(b->file);
	remove_temp(b->fd, b->path);
	remove_temp(b->src_fd, b->src_path);
	free(b->old);
	free(b->model);
	free(b->now);
	free(b->bytes);
}

static void bench_runs(struct bench *b, uint64_t unit, bool dense)
{
	uint64_t at = below(3) * unit;

	b->n = 0;
	b->data = b->zero = 0;
	while (at < TARGET_SIZE && b->n < COUNT(b->run)) {
		static const uint64_t most[] = {4, 64, 1024, 3000};
		uint64_t len = unit * (1 + below(most[below(100) < 95 ? below(2) : 2 + below(2)]));
		struct run *run = &b->run[b->n];

		len = min_u64(len, TARGET_SIZE - at);
		*run = (struct run){.off = at, .len = len, .kind = (enum run_kind)below(3)};
		if (run->kind == RUN_RAW) {
			run->src = below(4) ? b->file : b->mem;
			run->pos = below(SOURCE_SIZE - len + 1);
			if (b->n && below(2) && run[-1].kind == RUN_RAW &&
			    run[-1].src == run->src &&
			    run[-1].pos + run[-1].len + len <= SOURCE_SIZE)
				run->pos = run[-1].pos + run[-1].len;
		} else if (run->kind == RUN_COMPRESSED) {
			run->pos = below(1000);
			run->skip = below(3) * unit;
		}
		*(run->kind == RUN_ZERO ? &b->zero : &b->data) += len;
		b->n++;
		at += len + (dense && below(4) ? 0 : unit * below(below(10) ? 8 : 300));
	}
}

/* Applies the first n runs to the model. */
static void bench_model(struct bench *b, size_t n)
{
	memcpy(b->model, b->old, TARGET_SIZE);
	for (size_t i = 0; i < n; i++) {
		const struct run *run = &b->run[i];
		uint8_t *p = b->model + run->off;

		if (run->kind == RUN_RAW)
			memcpy(p, b->bytes + run->pos, run->len);
		else if (run->kind == RUN_ZERO)
			memset(p, 0, run->len);
		else
			for (uint64_t k = 0; k < run->len; k++)
				p[k] = packed_byte(run->pos, run->skip + k);
	}
}

static void bench_now(struct bench *b)
{
	struct stat st;

	CHECK(fstat(b->fd, &st) == 0 && st.st_size == TARGET_SIZE);
	read_all(b->fd, b->now, TARGET_SIZE, 0);
}

struct watch {
	uint64_t moved;
	unsigned asked, stop_at; /* 0: never */
};

static bool on_stop(void *arg)
{
	struct watch *w = arg;

	return ++w->asked == w->stop_at || (w->stop_at && w->asked > w->stop_at);
}

static void on_moved(void *arg, uint64_t bytes)
{
	((struct watch *)arg)->moved += bytes;
}

/* Opens the target and pumps; l is freed. */
static int bench_pump_with(struct bench *b, struct list *l, const struct pump_opts *o,
			   struct pump_stats *stats, struct err *e)
{
	const struct target_opts to = {.need = TARGET_SIZE};
	struct target *t = NULL;
	int r = target_open(&t, b->path, &to, e);

	if (!CHECK(r == 0))
		die(e->msg);
	memset(stats, 0xff, sizeof(*stats));
	r = pump_run(&l->reader, t, o, stats, e);
	CHECK((r < 0) == e->set);
	target_free(t);
	reader_free(&l->reader);
	return r;
}

static int bench_pump(struct bench *b, struct list *l, bool in_line, struct watch *w,
		      struct pump_stats *stats, struct err *e)
{
	const struct pump_opts o = {.in_line = in_line, .stop = w ? on_stop : NULL,
				    .moved = w ? on_moved : NULL, .arg = w};

	return bench_pump_with(b, l, &o, stats, e);
}

static void test_pump(void)
{
	static const uint64_t units[] = {512, 4096, 1, 512};
	static struct bench b;

	for (unsigned i = 0; i < 16; i++) {
		bool sparse = i & 1, in_line = i & 2;
		struct err e = {.set = false};
		struct watch w = {0};
		struct pump_stats s;
		int r;

		seed(100 + i);
		bench_init(&b, sparse);
		bench_runs(&b, units[i / 4], i & 4);
		bench_model(&b, b.n);
		r = bench_pump(&b, list_new(TARGET_SIZE, b.run, b.n), in_line, i % 5 ? &w : NULL,
			       &s, &e);
		CHECK(r == 0);
		bench_now(&b);
		if (!CHECK(!memcmp(b.now, b.model, TARGET_SIZE)))
			printf("# pump round %u\n", i);
		CHECK(s.begun && !s.stopped && s.runs == b.n);
		CHECK(s.written == b.data && s.zeroed == b.zero);
		CHECK(!in_line || !strcmp(s.ring, "in line"));
		if (i % 5)
			CHECK(w.moved == b.data + b.zero && w.asked == b.n + 1);
		bench_free(&b);
	}
}

static void test_pump_nothing(void)
{
	static struct bench b;
	struct err e = {.set = false};
	struct pump_stats s;
	struct list *l;

	seed(200);
	bench_init(&b, false);
	CHECK(bench_pump(&b, list_new(TARGET_SIZE, NULL, 0), false, NULL, &s, &e) == 0);
	CHECK(!s.begun && !s.stopped && !s.runs && !s.written && !s.zeroed && !s.writes);
	l = list_new(TARGET_SIZE, NULL, 0);
	l->fail_with = EIO;
	CHECK(bench_pump(&b, l, false, NULL, &s, &e) == -EIO);
	CHECK(!s.begun && !s.stopped && !s.writes);
	bench_now(&b);
	CHECK(!memcmp(b.now, b.old, TARGET_SIZE));
	bench_free(&b);
}

/* After an error at run k nothing behind it has changed; before it each byte is old or new. */
static void check_prefix(struct bench *b, size_t k, const struct pump_stats *s)
{
	uint64_t wrong = 0, changed = 0;

	bench_model(b, k);
	bench_now(b);
	for (size_t i = 0; i < TARGET_SIZE; i++) {
		wrong += b->now[i] != b->old[i] && b->now[i] != b->model[i];
		changed += b->now[i] != b->old[i];
	}
	CHECK(wrong == 0);
	CHECK(!changed || s->begun);
	CHECK(!s->begun || k > 0);
}

static void test_pump_reader_error(void)
{
	static struct bench b;

	for (unsigned i = 0; i < 8; i++) {
		struct err e = {.set = false};
		struct pump_stats s;
		struct list *l;

		seed(300 + i);
		bench_init(&b, i & 1);
		bench_runs(&b, 512, i & 4);
		l = list_new(TARGET_SIZE, b.run, b.n);
		l->fail_at = i < 2 ? 0 : i < 4 ? 1 : b.n / 2;
		l->fail_with = i < 6 ? EIO : EBADMSG;
		CHECK(bench_pump(&b, l, i & 2, NULL, &s, &e) == (i < 6 ? -EIO : -EBADMSG));
		CHECK_STR(e.msg, "list: told to fail");
		check_prefix(&b, i < 2 ? 0 : i < 4 ? 1 : b.n / 2, &s);
		bench_free(&b);
	}
}

static void test_pump_fetch_error(void)
{
	static struct bench b;

	for (unsigned i = 0; i < 2; i++) {
		struct err e = {.set = false};
		struct pump_stats s;
		struct list *l;

		seed(400 + i);
		bench_init(&b, false);
		bench_runs(&b, 512, true);
		l = list_new(TARGET_SIZE, b.run, b.n);
		l->fetch_fails = true;
		CHECK(bench_pump(&b, l, i, NULL, &s, &e) == -EIO);
		CHECK_STR(e.msg, "list: told not to unpack");
		check_prefix(&b, b.n, &s);
		bench_free(&b);
	}
}

static void test_pump_stop(void)
{
	static struct bench b;

	for (unsigned i = 0; i < 8; i++) {
		struct err e = {.set = false};
		struct watch w = {.stop_at = 1};
		struct pump_stats s;

		seed(500 + i);
		bench_init(&b, i & 1);
		bench_runs(&b, 512, i & 4);
		w.stop_at = i < 2 ? 1 : (unsigned)(2 + below(b.n - 1));
		CHECK(bench_pump(&b, list_new(TARGET_SIZE, b.run, b.n), i & 2, &w, &s, &e) == 0);
		CHECK(s.stopped && s.runs == w.stop_at - 1);
		CHECK(s.begun == (w.stop_at > 1));
		/* what was taken is there, whole */
		bench_model(&b, s.runs);
		bench_now(&b);
		CHECK(!memcmp(b.now, b.model, TARGET_SIZE));
		CHECK(w.moved == s.written + s.zeroed);
		bench_free(&b);
	}
}

/* What a consumer is shown, and when: with bench.model as it shall be, bench.old as it was. */
struct consumer {
	struct bench *b;
	struct run held[4000]; /* said 1 to since the last barrier */
	size_t n_held, barriers;
	uint64_t seen;         /* bytes of runs */
	uint32_t look;
	size_t fail_at;        /* the barrier that fails; 0: none does */
	bool compare;
};

static int on_ready(void *arg, const struct batch_view *v, struct err *e)
{
	struct consumer *c = arg;
	const struct bench *b = c->b;

	(void)e;
	CHECK(v->runs > 0 && v->off == v->run[0].off);
	CHECK(v->old_off % c->look == 0 && v->old_off <= v->off);
	CHECK(v->old_end % c->look == 0 || v->old_end == TARGET_SIZE);
	for (unsigned i = 0; i < v->runs; i++) {
		const struct run *run = &v->run[i];
		const uint8_t *old = v->old + (run->off - v->old_off);

		CHECK(run->off + run->len <= v->old_end);
		CHECK(!memcmp(old, b->old + run->off, run->len));
		if (run->kind != RUN_ZERO)
			CHECK(!memcmp(v->data + (run->off - v->off), b->model + run->off,
				      run->len));
		c->seen += run->len;
		if (!c->compare && CHECK(c->n_held < COUNT(c->held)))
			c->held[c->n_held++] = *run;
	}
	return !c->compare;
}

static int on_barrier(void *arg, struct err *e)
{
	struct consumer *c = arg;
	static uint8_t now[TARGET_SIZE];

	/* nothing of what was said 1 to stands in the target yet */
	for (size_t i = 0; i < c->n_held; i++) {
		const struct run *run = &c->held[i];

		read_all(c->b->fd, now, run->len, run->off);
		CHECK(!memcmp(now, c->b->old + run->off, run->len));
	}
	c->n_held = 0;
	if (++c->barriers == c->fail_at)
		return fail(e, EDQUOT, "no more");
	return 0;
}

static void test_pump_consumer(void)
{
	static struct bench b;
	static struct consumer c;
	static const uint32_t looks[] = {1, 512, 4096, (64 * KIB)};

	for (unsigned i = 0; i < 32; i++) {
		struct err e = {.set = false};
		struct pump_opts o = {.in_line = i & 2, .ready = on_ready, .barrier = on_barrier,
				      .look = looks[i / 4 % 4], .compare = i >= 24, .consumer = &c};
		struct pump_stats s;
		uint64_t holes = 0;
		int r;

		seed(600 + i);
		bench_init(&b, i & 1);
		bench_runs(&b, 512, i & 4);
		bench_model(&b, b.n);
		c = (struct consumer){.b = &b, .look = o.look, .compare = o.compare,
				      .fail_at = i >= 16 && i < 20 ? 2 : 0};
		r = bench_pump_with(&b, list_new(TARGET_SIZE, b.run, b.n), &o, &s, &e);
		bench_now(&b);
		if (c.fail_at && c.barriers == 2) {
			/* what the second one held back was not written */
			CHECK(r == -EDQUOT && s.written + s.zeroed < b.data + b.zero);
		} else if (o.compare) {
			CHECK(r == 0 && !c.barriers && !s.begun && !s.writes);
			CHECK(!memcmp(b.now, b.old, TARGET_SIZE));
		} else {
			CHECK(r == 0 && c.barriers && !c.n_held);
			CHECK(!memcmp(b.now, b.model, TARGET_SIZE));
			CHECK(s.written == b.data && s.zeroed == b.zero);
		}
		/* zeros where there is a hole are all that nobody is shown */
		holes = b.data + b.zero - c.seen;
		CHECK(c.fail_at || holes <= b.zero);
		CHECK(c.fail_at || (i & 1) || !holes);
		bench_free(&b);
	}
}

struct durable {
	struct bench *b;
	uint64_t off;   /* what was said last */
	unsigned calls;
};

/* What lies before is in the target by now, as it shall be. */
static void on_durable(void *arg, uint64_t off)
{
	struct durable *d = arg;
	static uint8_t now[TARGET_SIZE];

	CHECK(off >= d->off && off <= TARGET_SIZE);
	d->off = off;
	d->calls++;
	read_all(d->b->fd, now, off, 0);
	CHECK(!memcmp(now, d->b->model, off));
}

static void test_pump_durable(void)
{
	static struct bench b;
	static struct consumer c;

	for (unsigned i = 0; i < 24; i++) {
		struct err e = {.set = false};
		struct durable d = {.b = &b};
		struct watch w = {.stop_at = i % 3 ? 0 : 100};
		struct pump_opts o = {.in_line = i & 2, .durable = on_durable, .durable_arg = &d,
				      .flush_each = 1, .stop = on_stop, .moved = on_moved, .arg = &w};
		struct pump_stats s;
		const struct run *last;

		seed(1100 + i);
		bench_init(&b, i & 1);
		bench_runs(&b, i & 4 ? 512 : 1, i & 8);
		bench_model(&b, b.n);
		if (i >= 16) { /* runs that are held back for a barrier */
			o.ready = on_ready;
			o.barrier = on_barrier;
			o.look = 4096;
			o.consumer = &c;
			c = (struct consumer){.b = &b, .look = o.look};
		}
		CHECK(bench_pump_with(&b, list_new(TARGET_SIZE, b.run, b.n), &o, &s, &e) == 0);
		last = &b.run[s.runs - 1];
		CHECK(d.calls && d.off == last->off + last->len);
		bench_free(&b);
	}
}

/* Where a write fails nothing behind it is said to be durable. */
static void test_pump_durable_error(void)
{
	for (unsigned i = 0; i < 8; i++) {
		static struct bench b;
		struct err e = {.set = false};
		struct durable d = {.b = &b};
		const struct pump_opts o = {.in_line = i & 1, .durable = on_durable, .durable_arg = &d,
					    .flush_each = 1};
		struct pump_stats s;
		struct list *l;
		const struct run *last;

		seed(1200 + i);
		bench_init(&b, i & 2);
		bench_runs(&b, 512, true);
		bench_model(&b, b.n);
		l = list_new(TARGET_SIZE, b.run, b.n);
		l->fail_at = below(b.n);
		l->fail_with = EIO;
		last = &b.run[l->fail_at ? l->fail_at - 1 : 0];
		CHECK(bench_pump_with(&b, l, &o, &s, &e) == -EIO);
		CHECK(d.off <= last->off + last->len);
		bench_free(&b);
	}
}

#define PASS_WINDOW (256u * KIB)
#define PASS_WINDOWS 23u
#define PASS_RUNS 4u

/* A stream, as mean as it may be: once it is asked again after a fence nothing before that can be
 * fetched. */
struct passer {
	struct reader reader;
	struct bench *b;
	uint8_t memory[PASS_WINDOW];
	unsigned window, at; /* the one in work, and its next run */
	bool fenced;
};

static int passer_next(struct reader *r, struct run *run, struct err *e)
{
	struct passer *p = container_of(r, struct passer, reader);
	const bool ragged = p->window & 1;
	uint64_t in = p->at * (PASS_WINDOW / PASS_RUNS);

	(void)e;
	if (p->at == PASS_RUNS && !p->fenced) {
		p->fenced = true;
		*run = (struct run){.kind = RUN_FENCE};
		return 1;
	}
	if (p->at == PASS_RUNS) {
		if (++p->window == PASS_WINDOWS)
			return 0;
		p->at = 0;
		p->fenced = false;
		return passer_next(r, run, e);
	}
	if (!p->at)
		random_bytes(p->memory, PASS_WINDOW);
	p->at++;
	in += ragged ? 512 : 0;
	*run = (struct run){
		.off = p->window * 7 % PASS_WINDOWS * (uint64_t)PASS_WINDOW + in,
		.len = PASS_WINDOW / PASS_RUNS - (ragged ? 1024 : 0),
		.skip = p->window * (uint64_t)PASS_WINDOW + in,
		.kind = RUN_COMPRESSED,
		.leaf = r,
	};
	memcpy(p->b->model + run->off, p->memory + in, run->len);
	return 1;
}

static int passer_fetch(struct reader *r, const struct run *run, void *buf, struct err *e)
{
	const struct passer *p = container_of(r, struct passer, reader);

	if (run->skip / PASS_WINDOW != p->window)
		return fail(e, EBADMSG, "fetched too late");
	memcpy(buf, p->memory + run->skip % PASS_WINDOW, run->len);
	return 0;
}

static void passer_free(struct reader *r)
{
	(void)r;
}

static const struct reader_ops passer_ops = {
	.next = passer_next, .fetch = passer_fetch, .free = passer_free,
};

static void test_pump_passing(void)
{
	const struct target_opts to = {.need = TARGET_SIZE};
	static struct bench b;

	for (unsigned i = 0; i < 12; i++) {
		const struct pump_opts o = {.in_line = i % 3 == 2};
		static struct passer p;
		struct err e = {.set = false};
		struct target *t = NULL;
		struct pump_stats s;

		seed(800 + i);
		bench_init(&b, false);
		memcpy(b.model, b.old, TARGET_SIZE);
		p = (struct passer){.b = &b};
		reader_init(&p.reader, &passer_ops, "streaming", TARGET_SIZE);
		p.reader.streaming = &p.reader;
		p.reader.threads = i & 1;
		if (target_open(&t, b.path, &to, &e) < 0)
			die(e.msg);
		if (t->past_cache) /* there are blocks to read for their rest, on any disk */
			t->block = 4096;
		CHECK(pump_run(&p.reader, t, &o, &s, &e) == 0);
		CHECK_STR(e.msg, "");
		target_free(t);
		bench_now(&b);
		CHECK(!memcmp(b.now, b.model, TARGET_SIZE));
		bench_free(&b);
	}
}

/* The kernel refuses direct I/O that is not aligned to the blocks of the disk, and takes the rest. The
 * page cache takes what was refused. */
static void test_pump_direct_refused(void)
{
	const struct target_opts to = {.need = TARGET_SIZE};
	static struct bench b;
	unsigned refused = 0;

	for (unsigned i = 0; i < 16; i++) {
		const struct pump_opts o = {.in_line = i & 1, .look = i & 4 ? 4096 : 0};
		struct err e = {.set = false};
		struct target *t = NULL;
		struct pump_stats s;
		struct list *l;

		seed(900 + i);
		bench_init(&b, false);
		bench_runs(&b, i & 8 ? 64 : 192, i & 2);
		bench_model(&b, b.n);
		if (target_open(&t, b.path, &to, &e) < 0)
			die(e.msg);
		if (!t->past_cache) {
			target_free(t);
			bench_free(&b);
			return;
		}
		t->block = 64;
		l = list_new(TARGET_SIZE, b.run, b.n);
		CHECK(pump_run(&l->reader, t, &o, &s, &e) == 0);
		CHECK_STR(e.msg, "");
		CHECK(s.written == b.data && s.zeroed == b.zero);
		CHECK(!s.refused || s.refused == EINVAL);
		refused += s.refused != 0;
		bench_now(&b);
		if (!CHECK(!memcmp(b.now, b.model, TARGET_SIZE)))
			printf("# refused round %u\n", i);
		target_free(t);
		reader_free(&l->reader);
		bench_free(&b);
	}
	/* some file systems, in memory, take it all */
	CHECK(!refused || refused == 16);
}

static void test_pump_source_shrinks(void)
{
	static struct bench b;

	for (unsigned i = 0; i < 8; i++) {
		struct err e = {.set = false};
		struct pump_stats s;

		seed(600 + i);
		bench_init(&b, i & 1);
		bench_runs(&b, i & 4 ? 16 * KIB : 512, true);
		if (ftruncate(b.src_fd, SOURCE_SIZE / 4))
			die("ftruncate");
		alarm(120);
		CHECK(bench_pump(&b, list_new(TARGET_SIZE, b.run, b.n), i & 2, NULL, &s, &e) ==
		      -EBADMSG);
		alarm(0);
		CHECK(strstr(e.msg, "shorter") && strstr(e.msg, b.src_path));
		check_prefix(&b, b.n, &s);
		bench_free(&b);
	}
}

/* In a child, for the limit cannot be raised again by everyone. */
static void test_pump_write_error(void)
{
	static struct bench b;

	for (unsigned i = 0; i < 2; i++) {
		const struct rlimit limit = {.rlim_cur = 2 * MIB, .rlim_max = 2 * MIB};
		int status = 0;
		pid_t pid;

		seed(700 + i);
		bench_init(&b, true);
		bench_runs(&b, 512, true);
		/* beyond the limit, in a hole: cannot be done in place */
		if (ftruncate(b.fd, 0) || ftruncate(b.fd, TARGET_SIZE))
			die("ftruncate");
		memset(b.old, 0, TARGET_SIZE);
		fflush(stdout);
		pid = fork();
		if (pid < 0)
			die("fork");
		if (!pid) {
			unsigned before = failures;
			struct err e = {.set = false};
			struct pump_stats s;

			signal(SIGXFSZ, SIG_IGN);
			if (setrlimit(RLIMIT_FSIZE, &limit))
				die("setrlimit");
			CHECK(bench_pump(&b, list_new(TARGET_SIZE, b.run, b.n), i, NULL, &s, &e) ==
			      -EFBIG);
			CHECK(strstr(e.msg, b.path) && strstr(e.msg, "at byte "));
			CHECK(s.begun && s.written < b.data);
			fflush(stdout);
			_exit(failures != before);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		bench_now(&b);
		CHECK(all_zero(b.now + 2 * MIB, TARGET_SIZE - 2 * MIB));
		/* and without the limit all is well again */
		if (!failures) {
			struct err e = {.set = false};
			struct pump_stats s;

			bench_model(&b, b.n);
			CHECK(bench_pump(&b, list_new(TARGET_SIZE, b.run, b.n), i, NULL, &s, &e) ==
			      0);
			bench_now(&b);
			CHECK(!memcmp(b.now, b.model, TARGET_SIZE));
		}
		bench_free(&b);
	}
}

const struct test pump_tests[] = {
	{"pump", test_pump},
	{"pump-nothing", test_pump_nothing},
	{"pump-reader-error", test_pump_reader_error},
	{"pump-fetch-error", test_pump_fetch_error},
	{"pump-stop", test_pump_stop},
	{"pump-consumer", test_pump_consumer},
	{"pump-durable", test_pump_durable},
	{"pump-durable-error", test_pump_durable_error},
	{"pump-streaming", test_pump_passing},
	{"pump-direct-refused", test_pump_direct_refused},
	{"pump-source-shrinks", test_pump_source_shrinks},
	{"pump-write-error", test_pump_write_error},
	{NULL, NULL},
};
