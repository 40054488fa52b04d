/* SPDX-License-Identifier: MIT */
/*
 * limit - how fast this machine could do it: the yard-stick for `make bench`, not a tool.
 *
 *	limit direct|buffered DELTA TARGET	gather writes out of the mapped file, in guest order,
 *						1 MiB or 64 pieces each, 128 in flight (buffered: one
 *						by one); fdatasync
 *	limit oneflight DELTA TARGET		one direct pwritev of at most 256 sectors at a time,
 *						a piece for each grain, no sync: what the closest peer
 *						does
 *	limit pergrain DELTA TARGET		one read and one write a grain; fdatasync
 *	limit bytes DELTA			prints the bytes of all grains, zeros included
 *	limit need DELTA			prints the bytes of the 4 KiB blocks that hold data grains
 *	limit inflate N FILE			N threads inflate the grains of a streamOptimized file into
 *						nowhere; prints bytes unpacked
 *	limit drain				reads standard input and drops it
 *	limit cold FILE...			drops files from the page cache
 *	limit time OUT COMMAND...		runs it; OUT gets seconds, user, system, peak KiB, status
 *
 * DELTA: COWD, hosted sparse or SEsparse. It checks only what keeps it inside the mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define SECTOR 512u
#define WINDOW 64u
#define PIECES 64u
#define BATCH (1u << 20)
#define DEPTH 128u
#define BLOCK_MAX 4096u
#define ZERO_WORTH 65536u

struct delta {
	const uint8_t *map;
	uint64_t size, disk; /* bytes: of the file, of the disk */
	char format;	     /* c h s */
	uint64_t grain, entries, tables, dir, width;
	uint64_t gts, gtsize, data; /* SEsparse */
};

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "limit: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
	exit(2);
}

static uint64_t get(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static const uint8_t *at(const struct delta *d, uint64_t off, uint64_t n)
{
	errno = 0;
	if (off > d->size || n > d->size - off)
		die("points outside the file");
	return d->map + off;
}

static void open_delta(struct delta *d, const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	const uint8_t *h;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	d->size = (uint64_t)st.st_size;
	d->map = mmap(NULL, d->size, PROT_READ, MAP_SHARED, fd, 0);
	if (d->map == MAP_FAILED)
		die(path);
	h = at(d, 0, 2048);
	if (!memcmp(h, "COWD", 4)) {
		d->format = 'c';
		d->disk = get(h + 12, 4) * SECTOR;
		d->grain = get(h + 16, 4) * SECTOR;
		d->dir = get(h + 20, 4) * SECTOR;
		d->tables = get(h + 24, 4);
		d->entries = 4096;
		d->width = 4;
	} else if (!memcmp(h, "KDMV", 4)) {
		d->format = 'h';
		d->disk = get(h + 12, 8) * SECTOR;
		d->grain = get(h + 20, 8) * SECTOR;
		d->entries = get(h + 44, 4);
		d->dir = get(h + 56, 8) * SECTOR;
		d->width = 4;
	} else if (get(h, 4) == 0xcafebabe) {
		d->format = 's';
		d->disk = get(h + 16, 8) * SECTOR;
		d->grain = get(h + 24, 8) * SECTOR;
		d->gtsize = get(h + 32, 8) * SECTOR;
		d->entries = d->gtsize / 8;
		d->dir = get(h + 128, 8) * SECTOR;
		d->gts = get(h + 144, 8) * SECTOR;
		d->data = get(h + 192, 8) * SECTOR;
		d->width = 8;
	} else {
		die("unknown format");
	}
	errno = 0;
	if (!d->grain || !d->entries || !d->disk)
		die("bad header");
	if (!d->tables) {
		uint64_t grains = (d->disk + d->grain - 1) / d->grain;

		d->tables = (grains + d->entries - 1) / d->entries;
	}
	close(fd);
}

/* Where table t lies, 0: nowhere. */
static uint64_t table_pos(const struct delta *d, uint64_t t)
{
	uint64_t v = get(at(d, d->dir + t * d->width, d->width), (unsigned)d->width);

	if (d->format == 's')
		return v ? d->gts + (v & UINT32_MAX) * d->gtsize : 0;
	return v * SECTOR;
}

enum { NONE, ZERO, DATA };

static int grain_of(const struct delta *d, const uint8_t *p, uint64_t *pos)
{
	uint64_t v = get(p, (unsigned)d->width);

	if (d->format != 's') {
		*pos = v * SECTOR;
		return !v ? NONE : v == 1 ? ZERO : DATA;
	}
	*pos = d->data + ((v & 0xfffffffffff) << 12 | (v >> 48 & 0xfff)) * d->grain;
	return !(v >> 60) ? NONE : v >> 60 == 3 ? DATA : ZERO;
}

/* Gives every grain, in guest order. */
typedef void grain_fn(void *arg, int kind, uint64_t off, uint64_t len, const uint8_t *from);

static void each_grain(const struct delta *d, grain_fn *fn, void *arg)
{
	uint64_t pos[WINDOW], index[WINDOW], t = 0, from;

	while (t < d->tables) {
		unsigned n = 0;

		for (; n < WINDOW && t < d->tables; t++) {
			pos[n] = table_pos(d, t);
			if (!pos[n])
				continue;
			at(d, pos[n], d->entries * d->width);
			madvise((void *)((uintptr_t)(d->map + pos[n]) & ~(uintptr_t)4095),
				d->entries * d->width + 4096, MADV_WILLNEED);
			index[n++] = t;
		}
		for (unsigned i = 0; i < n; i++) {
			const uint8_t *p = d->map + pos[i];

			for (uint64_t k = 0; k < d->entries; k++, p += d->width) {
				int kind = grain_of(d, p, &from);
				uint64_t off = (index[i] * d->entries + k) * d->grain, len;

				if (kind == NONE || off >= d->disk)
					continue;
				len = lesser(d->grain, d->disk - off);
				fn(arg, kind, off, len, kind == DATA ? at(d, from, len) : NULL);
			}
		}
	}
}

/* --- the target --- */

struct target {
	int fd;
	bool direct, device;
	uint64_t block; /* direct writes align to it */
};

static void open_target(struct target *t, const char *path, bool direct)
{
	struct stat st;
	int sector = SECTOR;

	t->fd = open(path, O_RDWR | (direct ? O_DIRECT : 0));
	if (t->fd < 0 || fstat(t->fd, &st))
		die(path);
	t->direct = direct;
	t->device = S_ISBLK(st.st_mode);
	if (t->device && ioctl(t->fd, BLKSSZGET, &sector))
		die(path);
	t->block = direct ? (uint64_t)sector : 1;
	errno = 0;
	if (t->block > BLOCK_MAX)
		die("sectors are too large");
}

static void done(const struct target *t)
{
	if (fdatasync(t->fd))
		die("fdatasync");
}

/* --- direct, buffered --- */

struct piece {
	uint64_t off, len;
	const uint8_t *from;
};

struct batch {
	unsigned n;
	uint64_t from, end; /* guest bytes; block aligned when direct */
	struct piece piece[PIECES + BLOCK_MAX / SECTOR];
	struct iovec iov[PIECES + BLOCK_MAX / SECTOR];
	uint8_t *buf; /* for what has to be read, overlaid and written back */
	unsigned reads;
	struct batch *next;
};

struct writer {
	struct target t;
	struct io_uring ring;
	struct batch batch[DEPTH], *free, *open;
	uint64_t zero, zero_end;
};

static struct io_uring_sqe *entry(struct writer *w)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring);

	if (!sqe) {
		io_uring_submit(&w->ring);
		sqe = io_uring_get_sqe(&w->ring);
	}
	if (!sqe)
		die("no room in the ring");
	return sqe;
}

static void overlay(struct writer *w, struct batch *b)
{
	struct io_uring_sqe *sqe = entry(w);

	for (unsigned i = 0; i < b->n; i++)
		memcpy(b->buf + (b->piece[i].off - b->from), b->piece[i].from, b->piece[i].len);
	io_uring_prep_write(sqe, w->t.fd, b->buf, (unsigned)(b->end - b->from), b->from);
	io_uring_sqe_set_data(sqe, b);
}

static void complete(struct writer *w, struct io_uring_cqe *cqe)
{
	struct batch *b = io_uring_cqe_get_data(cqe);
	int res = cqe->res;

	io_uring_cqe_seen(&w->ring, cqe);
	errno = res < 0 ? -res : EIO;
	if (b->reads) {
		if (res != (int)w->t.block)
			die("read");
		if (!--b->reads)
			overlay(w, b);
		return;
	}
	if (res != (int)(b->end - b->from))
		die("write");
	b->next = w->free;
	w->free = b;
}

static void reap(struct writer *w, bool wait)
{
	struct io_uring_cqe *cqe;

	if (wait) {
		int r = io_uring_submit_and_wait(&w->ring, 1);

		if (r < 0 && r != -EINTR) {
			errno = -r;
			die("io_uring");
		}
	}
	while (!io_uring_peek_cqe(&w->ring, &cqe))
		complete(w, cqe);
}

/* The blocks that the batch covers only in part. */
static void read_edges(struct writer *w, struct batch *b)
{
	const uint64_t block = w->t.block;
	uint64_t last = UINT64_MAX;

	if (!b->buf)
		b->buf = mmap(NULL, 2 * BATCH, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->buf == MAP_FAILED)
		die("mmap");
	for (unsigned i = 0; i <= b->n; i++) {
		uint64_t a = i ? b->piece[i - 1].off + b->piece[i - 1].len : b->from;
		uint64_t z = i < b->n ? b->piece[i].off : b->end;
		struct io_uring_sqe *sqe;

		if (a == z || a / block * block == last)
			continue;
		last = a / block * block;
		sqe = entry(w);
		io_uring_prep_read(sqe, w->t.fd, b->buf + (last - b->from), (unsigned)block, last);
		io_uring_sqe_set_data(sqe, b);
		b->reads++;
	}
	if (!b->reads)
		overlay(w, b);
}

static void launch(struct writer *w)
{
	const uint64_t block = w->t.block;
	struct batch *b = w->open;
	struct io_uring_sqe *sqe;

	w->open = NULL;
	if (!b)
		return;
	for (unsigned i = 0; i < b->n; i++)
		b->iov[i] = (struct iovec){(void *)(uintptr_t)b->piece[i].from, b->piece[i].len};
	if (!w->t.direct) {
		if (pwritev(w->t.fd, b->iov, (int)b->n, (off_t)b->from) !=
		    (ssize_t)(b->end - b->from))
			die("write");
		b->next = w->free;
		w->free = b;
		return;
	}
	b->from = b->from / block * block;
	b->end = (b->end + block - 1) / block * block;
	if (block > SECTOR) {
		read_edges(w, b);
	} else {
		sqe = entry(w);
		io_uring_prep_writev(sqe, w->t.fd, b->iov, b->n, b->from);
		io_uring_sqe_set_data(sqe, b);
	}
	if (io_uring_sq_ready(&w->ring) >= 32)
		io_uring_submit(&w->ring);
	reap(w, false);
}

static void put_bytes(struct writer *w, uint64_t off, uint64_t len, const uint8_t *from)
{
	struct batch *b = w->open;
	struct piece *last;

	/* goes on, or lies in the block in which the last one ends */
	if (b && b->end != off && off / w->t.block > (b->end - 1) / w->t.block)
		launch(w);
	else if (b && !(off % w->t.block) && (off - b->from >= BATCH || b->n >= PIECES))
		launch(w);
	b = w->open;
	if (!b) {
		while (!w->free)
			reap(w, true);
		b = w->open = w->free;
		w->free = b->next;
		b->n = 0;
		b->from = off;
	}
	last = b->n ? &b->piece[b->n - 1] : NULL;
	if (last && last->off + last->len == off && last->from + last->len == from)
		last->len += len;
	else
		b->piece[b->n++] = (struct piece){off, len, from};
	b->end = off + len;
}

static void put_zeros(struct writer *w, uint64_t off, uint64_t end)
{
	static const uint8_t zeros[ZERO_WORTH] __attribute__((aligned(4096)));

	for (uint64_t n; off < end; off += n) {
		n = lesser(end - off, sizeof(zeros));
		put_bytes(w, off, n, zeros);
	}
}

/* Short stretches, and what is no whole block of theirs, go as bytes. */
static void zero_flush(struct writer *w)
{
	const uint64_t block = w->t.device ? w->t.block : BLOCK_MAX;
	uint64_t off = w->zero, end = w->zero_end;
	uint64_t a = (off + block - 1) / block * block, z = end / block * block, range[2];

	w->zero = w->zero_end = 0;
	if (z < a || z - a < ZERO_WORTH)
		a = z = end;
	put_zeros(w, off, a);
	if (a < z && fallocate(w->t.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)a,
			       (off_t)(z - a))) {
		range[0] = a;
		range[1] = z - a;
		if (!w->t.device || ioctl(w->t.fd, BLKZEROOUT, range))
			die("zero range");
	}
	put_zeros(w, z, end);
}

static void put_grain(void *arg, int kind, uint64_t off, uint64_t len, const uint8_t *from)
{
	struct writer *w = arg;

	if (w->zero_end && (kind != ZERO || w->zero_end != off))
		zero_flush(w);
	if (kind != ZERO) {
		put_bytes(w, off, len, from);
		return;
	}
	if (!w->zero_end)
		w->zero = off;
	w->zero_end = off + len;
}

static void fast(const struct delta *d, const char *path, bool direct)
{
	static struct writer w;

	open_target(&w.t, path, direct);
	errno = 0;
	if (io_uring_queue_init(4 * DEPTH, &w.ring, 0) < 0)
		die("no io_uring");
	for (unsigned i = 0; i < DEPTH; i++) {
		w.batch[i].next = w.free;
		w.free = &w.batch[i];
	}
	each_grain(d, put_grain, &w);
	zero_flush(&w);
	launch(&w);
	for (unsigned free = 0; free < DEPTH;) {
		free = 0;
		for (struct batch *b = w.free; b; b = b->next)
			free++;
		if (free < DEPTH)
			reap(&w, true);
	}
	done(&w.t);
}

/* --- what others do --- */

struct one {
	struct target t;
	uint64_t off, end;
	struct iovec iov[256];
	unsigned n;
	uint8_t *buf;
};

static void one_flush(struct one *o)
{
	if (o->n && pwritev(o->t.fd, o->iov, (int)o->n, (off_t)o->off) != (ssize_t)(o->end - o->off))
		die("write");
	o->n = 0;
}

static void one_grain(void *arg, int kind, uint64_t off, uint64_t len, const uint8_t *from)
{
	struct one *o = arg;

	if (kind == ZERO)
		from = o->buf;
	while (len) {
		uint64_t n = lesser(len, 256 * SECTOR);

		if (o->n && (o->end != off || off + n - o->off > 256 * SECTOR))
			one_flush(o);
		if (!o->n)
			o->off = off;
		o->iov[o->n++] = (struct iovec){(void *)(uintptr_t)from, n};
		o->end = off + n;
		off += n;
		len -= n;
		from += kind == ZERO ? 0 : n;
	}
}

struct per {
	struct target t;
	int fd;
	const struct delta *d;
	uint8_t *buf;
};

static void per_grain(void *arg, int kind, uint64_t off, uint64_t len, const uint8_t *from)
{
	struct per *p = arg;

	if (kind == ZERO)
		memset(p->buf, 0, len);
	else if (pread(p->fd, p->buf, len, from - p->d->map) != (ssize_t)len)
		die("read");
	if (pwrite(p->t.fd, p->buf, len, (off_t)off) != (ssize_t)len)
		die("write");
}

static uint8_t *page_buf(uint64_t n)
{
	uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void slow(const struct delta *d, const char *mode, const char *delta, const char *path)
{
	if (!strcmp(mode, "oneflight")) {
		struct one o = {.buf = page_buf(256 * SECTOR)};

		open_target(&o.t, path, true);
		each_grain(d, one_grain, &o);
		one_flush(&o);
	} else {
		struct per p = {.d = d, .fd = open(delta, O_RDONLY), .buf = page_buf(d->grain)};

		if (p.fd < 0)
			die(delta);
		open_target(&p.t, path, false);
		each_grain(d, per_grain, &p);
		done(&p.t);
	}
}

/* --- the rest --- */

struct need {
	uint64_t next, need, bytes;
};

static void need_grain(void *arg, int kind, uint64_t off, uint64_t len, const uint8_t *from)
{
	struct need *n = arg;
	uint64_t a = off / 4096, z = (off + len + 4095) / 4096;

	(void)from;
	n->bytes += len;
	if (kind != DATA)
		return;
	if (a < n->next)
		a = n->next;
	if (z > a)
		n->need += (z - a) * 4096;
	n->next = z > n->next ? z : n->next;
}

struct share {
	struct delta *d;
	uint64_t *pos, grains;
	uint64_t first, step, out;
};

static void *inflate_share(void *arg)
{
	struct share *s = arg;
	uint8_t *buf = malloc(s->d->grain + SECTOR);
	z_stream z = {0};

	if (!buf || inflateInit(&z) != Z_OK)
		die("out of memory");
	for (uint64_t i = s->first; i < s->grains; i += s->step) {
		uint64_t n = get(s->d->map + s->pos[i] + 8, 4);

		inflateReset(&z);
		z.next_in = (Bytef *)(uintptr_t)(s->d->map + s->pos[i] + 12);
		z.avail_in = (uInt)n;
		z.next_out = buf;
		z.avail_out = (uInt)(s->d->grain + SECTOR);
		if (inflate(&z, Z_FINISH) != Z_STREAM_END)
			die("inflate");
		s->out += z.total_out;
	}
	inflateEnd(&z);
	free(buf);
	return NULL;
}

static void inflate_all(const char *path, unsigned threads)
{
	struct delta d = {0};
	struct share all = {.d = &d}, share[64];
	pthread_t id[64];
	uint64_t pos, room = 0;

	open_delta(&d, path);
	for (pos = get(d.map + 64, 8) * SECTOR; pos + SECTOR <= d.size;) {
		uint64_t n = get(d.map + pos + 8, 4), what = get(d.map + pos, 8);

		if (!n && !get(d.map + pos + 12, 4))
			break;
		if (n) {
			at(&d, pos, n + 12);
			if (all.grains == room) {
				room = room ? room * 2 : 1024;
				all.pos = realloc(all.pos, room * sizeof(*all.pos));
			}
			if (!all.pos)
				die("out of memory");
			all.pos[all.grains++] = pos;
		}
		pos += n ? (n + 12 + SECTOR - 1) / SECTOR * SECTOR : (1 + what) * SECTOR;
	}
	errno = 0;
	if (!threads || threads > 64)
		die("1 to 64 threads");
	for (unsigned i = 0; i < threads; i++) {
		share[i] = all;
		share[i].first = i;
		share[i].step = threads;
		if (pthread_create(&id[i], NULL, inflate_share, &share[i]))
			die("thread");
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(id[i], NULL);
		all.out += share[i].out;
	}
	printf("%llu\n", (unsigned long long)all.out);
	free(all.pos);
}

static void drain(void)
{
	uint8_t *buf = page_buf(1 << 20);
	ssize_t n;

	fcntl(0, F_SETPIPE_SZ, 1 << 20);
	while ((n = read(0, buf, 1 << 20)) > 0)
		;
	if (n < 0)
		die("read");
}

static void cold(char **path)
{
	for (; *path; path++) {
		int fd = open(*path, O_RDONLY);

		if (fd < 0 || fdatasync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
			die(*path);
		close(fd);
	}
}

static int timed(const char *out, char **command)
{
	struct timespec a, b;
	struct rusage u;
	int status;
	pid_t pid;
	FILE *f;

	clock_gettime(CLOCK_MONOTONIC, &a);
	pid = vfork();
	if (pid == 0) {
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &u) != pid)
		die(command[0]);
	clock_gettime(CLOCK_MONOTONIC, &b);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	f = fopen(out, "w");
	if (!f)
		die(out);
	fprintf(f, "%.6f %.6f %.6f %ld %d\n",
		(double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
		(double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6,
		(double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6, u.ru_maxrss, status);
	return fclose(f) ? 2 : status;
}

int main(int argc, char **argv)
{
	struct delta d = {0};

	if (argc > 3 && !strcmp(argv[1], "time"))
		return timed(argv[2], argv + 3);
	if (argc == 4 && !strcmp(argv[1], "inflate")) {
		inflate_all(argv[3], (unsigned)atoi(argv[2]));
	} else if (argc == 2 && !strcmp(argv[1], "drain")) {
		drain();
	} else if (argc > 2 && !strcmp(argv[1], "cold")) {
		cold(argv + 2);
	} else if (argc == 3 && (!strcmp(argv[1], "need") || !strcmp(argv[1], "bytes"))) {
		struct need n = {0};

		open_delta(&d, argv[2]);
		each_grain(&d, need_grain, &n);
		printf("%llu\n", (unsigned long long)(argv[1][0] == 'n' ? n.need : n.bytes));
	} else if (argc == 4 && (!strcmp(argv[1], "direct") || !strcmp(argv[1], "buffered"))) {
		open_delta(&d, argv[2]);
		fast(&d, argv[3], argv[1][0] == 'd');
	} else if (argc == 4 && (!strcmp(argv[1], "oneflight") || !strcmp(argv[1], "pergrain"))) {
		open_delta(&d, argv[2]);
		slow(&d, argv[1], argv[2], argv[3]);
	} else {
		errno = 0;
		die("see the top of limit.c");
	}
	return 0;
}
