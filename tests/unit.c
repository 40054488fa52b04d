/*
 * Unit tests of lib/: base, run and its gate, source, stream (input), file order, streamOptimized, chain, queue, pump, undo log,
 * progress.
 * Random tests are seeded: a failure comes back. Usage: unit [NAME...]; scratch files lie in $TMPDIR.
 */
#include "base/bitmap.h"
#include "chain/chain.h"
#include "chain/image.h"
#include "input/stream.h"
#include "cli/progress.h"
#include "output/pump.h"
#include "vmdk/file_order.h"
#include "vmdk/guest_order.h"
#include "vmdk/streamopt.h"
#include "vmdk/undo.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define KIB 1024u
#define MIB (1024u * KIB)

/* --- framework ------------------------------------------------------------------------------ */

static unsigned checks, failures;

/* Prints no more than a screen of them. */
static bool check(bool ok, const char *file, int line, const char *text)
{
	checks++;
	if (!ok && ++failures <= 40)
		printf("# %s:%d: failed: %s\n", file, line, text);
	return ok;
}

#define CHECK(cond) check((cond), __FILE__, __LINE__, #cond)
#define CHECK_STR(a, b) check_str((a), (b), __FILE__, __LINE__)

static void check_str(const char *a, const char *b, const char *file, int line)
{
	if (!check(a && strcmp(a, b) == 0, file, line, "strings are equal"))
		printf("#   \"%s\" instead of \"%s\"\n", a ? a : "(null)", b);
}

/* A test that cannot go on. */
static void __attribute__((noreturn)) die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		die("calloc");
	return p;
}

static uint64_t rng_state;

static void seed(uint64_t s)
{
	rng_state = s * 0x9e3779b97f4a7c15u + 1;
}

static uint64_t rnd(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
	return rnd() % n;
}

static void random_bytes(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rnd();
}

/* An open file that has no name any more; *path, where wanted, keeps it and is the caller's. */
static int temp_file(char **path)
{
	const char *dir = getenv("TMPDIR");
	char *name = NULL;
	int fd;

	if (asprintf(&name, "%s/unit.XXXXXX", dir && *dir ? dir : "/tmp") < 0)
		die("asprintf");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		die(name);
	if (path) {
		*path = name;
	} else {
		unlink(name);
		free(name);
	}
	return fd;
}

static void remove_temp(int fd, char *path)
{
	close(fd);
	unlink(path);
	free(path);
}

static void write_all(int fd, const void *p, size_t n, uint64_t off)
{
	if (pwrite(fd, p, n, (off_t)off) != (ssize_t)n)
		die("pwrite");
}

static void read_all(int fd, void *p, size_t n, uint64_t off)
{
	if (pread(fd, p, n, (off_t)off) != (ssize_t)n)
		die("pread");
}

/* --- a reader over an array of runs ---------------------------------------------------------- */

struct list {
	struct reader reader;
	struct run *run;
	size_t n, i;
	size_t fail_at;  /* next() of this run fails ... */
	int fail_with;   /* ... with this; 0: never */
	bool fetch_fails;
	unsigned *freed; /* counts; may be NULL */
};

/* Byte i of what is packed at pos. */
static uint8_t packed_byte(uint64_t pos, uint64_t i)
{
	return (uint8_t)((pos * 131 + i * 7 + (i >> 8) * 3) % 255 + 1);
}

static int list_next(struct reader *r, struct run *run, struct err *e)
{
	struct list *l = container_of(r, struct list, reader);

	if (l->fail_with && l->i == l->fail_at)
		return fail(e, l->fail_with, "list: told to fail");
	if (l->i == l->n)
		return 0;
	*run = l->run[l->i++];
	return 1;
}

static int list_rewind(struct reader *r, struct err *e)
{
	(void)e;
	container_of(r, struct list, reader)->i = 0;
	return 0;
}

static int list_fetch(struct reader *r, const struct run *run, void *buf, struct err *e)
{
	uint8_t *b = buf;

	if (container_of(r, struct list, reader)->fetch_fails)
		return fail(e, EIO, "list: told not to unpack");
	for (uint64_t i = 0; i < run->len; i++)
		b[i] = packed_byte(run->pos, run->skip + i);
	return 0;
}

static void list_free(struct reader *r)
{
	struct list *l = container_of(r, struct list, reader);

	if (l->freed)
		(*l->freed)++;
	free(l->run);
	free(l);
}

static const struct reader_ops list_ops = {
	.next = list_next, .rewind = list_rewind, .fetch = list_fetch, .free = list_free};
static const struct reader_ops list_ops_no_fetch = {
	.next = list_next, .rewind = list_rewind, .free = list_free};

static struct list *list_new(uint64_t size, const struct run *run, size_t n)
{
	struct list *l = alloc(sizeof(*l));

	reader_init(&l->reader, &list_ops, "list", size);
	l->run = alloc(n * sizeof(*run));
	if (n)
		memcpy(l->run, run, n * sizeof(*run));
	l->n = n;
	for (size_t i = 0; i < n; i++)
		if (l->run[i].kind == RUN_COMPRESSED)
			l->run[i].leaf = &l->reader;
	return l;
}

static struct list *list_one(uint64_t size, struct run run)
{
	return list_new(size, &run, 1);
}

/* --- base ------------------------------------------------------------------------------------ */

static unsigned warnings;
static char last_warning[1100];

static void on_warn(void *arg, const char *text)
{
	CHECK(arg == &warnings);
	warnings++;
	snprintf(last_warning, sizeof(last_warning), "%s", text);
}

static void test_err(void)
{
	struct err e = {.warn = on_warn, .arg = &warnings};
	struct err quiet = {.set = false};
	char big[3000];

	warnings = 0;
	CHECK(warning(&e, "odd %d", 1) == 0);
	CHECK(warnings == 1 && !e.set);
	CHECK_STR(last_warning, "odd 1");
	CHECK(warning(&quiet, "nobody hears") == 0);
	CHECK(!quiet.set);
	CHECK(fail(&e, ENOENT, "first %s", "one") == -ENOENT);
	CHECK(fail(&e, EIO, "second") == -EIO);
	CHECK(e.set);
	CHECK_STR(e.msg, "first one");

	e = (struct err){.warn = on_warn, .arg = &warnings, .strict = true};
	CHECK(warning(&e, "odd %d", 2) == -EBADMSG);
	CHECK(warnings == 1 && e.set);
	CHECK_STR(e.msg, "odd 2 (--strict)");
	CHECK(warning(&e, "odd 3") == -EBADMSG);
	CHECK_STR(e.msg, "odd 2 (--strict)");

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	e = (struct err){.set = false};
	CHECK(fail(&e, EIO, "%s", big) == -EIO);
	CHECK(strlen(e.msg) == sizeof(e.msg) - 1);
}

static void test_arithmetic(void)
{
	uint64_t v;

	CHECK(add_ok(1, 2, &v) && v == 3);
	CHECK(add_ok(UINT64_MAX, 0, &v) && v == UINT64_MAX);
	CHECK(add_ok(UINT64_MAX - 5, 5, &v) && v == UINT64_MAX);
	CHECK(!add_ok(UINT64_MAX, 1, &v));
	CHECK(!add_ok(UINT64_MAX - 5, 6, &v));
	CHECK(mul_ok(0, UINT64_MAX, &v) && v == 0);
	CHECK(mul_ok(UINT32_MAX, UINT32_MAX, &v) && v == UINT64_C(0xfffffffe00000001));
	CHECK(mul_ok(UINT64_MAX, 1, &v) && v == UINT64_MAX);
	CHECK(!mul_ok(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
	CHECK(!mul_ok(UINT64_MAX, 2, &v));
	CHECK(div_up(0, 5) == 0 && div_up(1, 5) == 1 && div_up(5, 5) == 1 && div_up(6, 5) == 2);
	CHECK(div_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
	CHECK(!is_pow2(0) && is_pow2(1) && is_pow2(2) && !is_pow2(3) && !is_pow2(6));
	CHECK(is_pow2(UINT64_C(1) << 63) && !is_pow2(UINT64_MAX));
	CHECK(min_u64(1, UINT64_MAX) == 1 && max_u64(1, UINT64_MAX) == UINT64_MAX);
}

static void test_little_endian(void)
{
	static const uint8_t b[] = {0xff, 0x81, 0x82, 0x83, 0x84, 0xf5, 0xf6, 0xf7, 0xf8};

	CHECK(le16(b) == 0x81ff && le16(b + 1) == 0x8281);
	CHECK(le32(b) == 0x838281ff && le32(b + 5) == 0xf8f7f6f5);
	CHECK(le64(b) == UINT64_C(0xf7f6f584838281ff));
	CHECK(le64(b + 1) == UINT64_C(0xf8f7f6f584838281));
}

static void test_all_zero(void)
{
	uint8_t b[72];

	for (size_t n = 0; n <= 70; n++) {
		memset(b, 0xff, sizeof(b));
		memset(b + 1, 0, n);
		CHECK(all_zero(b + 1, n));
		for (size_t i = 0; i < n; i++) {
			b[1 + i] = i % 2 ? 1 : 0x80;
			CHECK(!all_zero(b + 1, n));
			b[1 + i] = 0;
		}
	}
}

/* Against one byte for each bit, and with words around the map that have to stay as they are. */
static void test_bitmap(void)
{
	enum { BITS = 300, WORDS = 5 };
	uint64_t map[WORDS + 2] = {UINT64_MAX, 0, 0, 0, 0, 0, UINT64_MAX}, *fresh = bitmap_new(BITS);
	bool model[BITS] = {false};

	seed(17);
	for (unsigned round = 0; round < 20000 && failures < 10; round++) {
		uint64_t from = below(BITS + 1), to = from + below(BITS + 1 - from), next = from;
		const bool on = below(2);
		bool ok = true;

		if (below(3))
			to = min_u64(to, from + 3);
		while (next < to && model[next] != on)
			next++;
		CHECK(bitmap_find(map + 1, from, to, on) == next);
		for (uint64_t i = from; i < to; i++) {
			ok = ok && !model[i];
			model[i] = true;
		}
		CHECK(bitmap_set(map + 1, from, to) == ok);
		for (unsigned i = 0; i < BITS; i++)
			CHECK((map[1 + i / 64] >> i % 64 & 1) == model[i]);
		CHECK(map[0] == UINT64_MAX && map[WORDS + 1] == UINT64_MAX);
		if (below(30))
			continue;
		memset(model, 0, sizeof(model));
		memset(map + 1, 0, WORDS * sizeof(*map));
	}
	CHECK(fresh && bitmap_find(fresh, 0, BITS, true) == BITS);
	free(fresh);
	free(bitmap_new(0));
}

static void test_size_text(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} want[] = {
		{0, "0 bytes"},
		{1023, "1023 bytes"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{99 * 1024, "99.0 KiB"},
		{100 * 1024, "100 KiB"},
		{UINT64_C(1) << 20, "1.0 MiB"},
		{UINT64_C(3) << 29, "1.5 GiB"},
		{UINT64_C(1) << 41, "2.0 TiB"},
		{UINT64_C(1) << 50, "1.0 PiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char buf[32];

	for (size_t i = 0; i < COUNT(want); i++) {
		CHECK(size_text(buf, want[i].bytes) == buf);
		CHECK_STR(buf, want[i].text);
	}
}

/* What the kernel does in parts: a file that ends, one that may not grow further, one of /proc. */
static void test_full_io(void)
{
	static uint8_t out[64 * KIB], in[64 * KIB];
	int fd = temp_file(NULL), parts = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	void (*was)(int) = signal(SIGXFSZ, SIG_IGN);
	struct rlimit limit, small;

	random_bytes(out, sizeof(out));
	CHECK(write_full(fd, out, sizeof(out), 5) == 0);
	CHECK(read_full(fd, in, sizeof(in), 5) == (ssize_t)sizeof(in));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	CHECK(read_full(fd, in, sizeof(in), 10) == (ssize_t)sizeof(in) - 5);
	CHECK(memcmp(in, out + 5, sizeof(in) - 5) == 0);
	CHECK(read_full(fd, in, 1, sizeof(out) + 5) == 0);
	CHECK(read_full(fd, in, 0, 0) == 0 && write_full(fd, out, 0, 0) == 0);
	CHECK(read_full(-1, in, 1, 0) == -EBADF && write_full(-1, out, 1, 0) == -EBADF);
	/* the first part goes, the rest is refused */
	getrlimit(RLIMIT_FSIZE, &limit);
	small = (struct rlimit){sizeof(out) + 1000, limit.rlim_max};
	setrlimit(RLIMIT_FSIZE, &small);
	CHECK(write_full(fd, out, sizeof(out), 2000) == -EFBIG);
	setrlimit(RLIMIT_FSIZE, &limit);
	signal(SIGXFSZ, was);
	CHECK(lseek(fd, 0, SEEK_END) == (off_t)sizeof(out) + 1000);
	/* a page at a time */
	if (parts >= 0) {
		CHECK(read_full(parts, in, 2 * 4096, 0) == 2 * 4096);
		close(parts);
	}
	close(fd);
}

static void test_name_text(void)
{
	static const struct {
		const char *name, *text;
	} want[] = {
		{"", ""},
		{"plain file.vmdk", "plain file.vmdk"},
		{"a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"},
		{"\x1b[31m", "\\x1b[31m"},
		{"\x01\x7f", "\\x01\\x7f"},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\xc2\xa0", "\xc2\xa0"},
		{"\xc2\x9b", "\\xc2\\x9b"},                        /* C1: CSI */
		{"\xc0\xaf", "\\xc0\\xaf"},                        /* overlong */
		{"\xc1\xbf", "\\xc1\\xbf"},
		{"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},
		{"\xe0\x9f\xbf", "\\xe0\\x9f\\xbf"},
		{"\xf0\x8f\xbf\xbf", "\\xf0\\x8f\\xbf\\xbf"},
		{"\xe0\xa0\x80", "\xe0\xa0\x80"},                  /* the least of three */
		{"\xf0\x90\x80\x80", "\xf0\x90\x80\x80"},          /* and of four */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"},               /* surrogates */
		{"\xed\xbf\xbf", "\\xed\\xbf\\xbf"},
		{"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},      /* beyond the last */
		{"\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80"},
		{"\xe2\x82", "\\xe2\\x82"},                        /* cut short */
		{"\xe2\x82z", "\\xe2\\x82z"},
		{"\x80z\xff", "\\x80z\\xff"},
		{"\xe2\x80\xae", "\\xe2\\x80\\xae"},               /* bidi */
		{"\xe2\x80\xaa", "\\xe2\\x80\\xaa"},
		{"\xe2\x81\xa6", "\\xe2\\x81\\xa6"},
		{"\xe2\x81\xa9", "\\xe2\\x81\\xa9"},
		{"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},               /* line separator */
		{"\xe2\x80\xa6", "\xe2\x80\xa6"},
	};
	char *all = alloc(256), *text;

	for (size_t i = 0; i < COUNT(want); i++) {
		text = name_text(want[i].name);
		CHECK_STR(text, want[i].text);
		free(text);
	}
	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	text = name_text(all);
	CHECK(text != NULL);
	for (const char *p = text; p && *p; p++)
		CHECK((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
	free(text);
	free(all);
}

/* --- run and gate ---------------------------------------------------------------------------- */

static void test_trim(void)
{
	struct run raw = {.off = 10, .len = 20, .pos = 100, .skip = 5, .kind = RUN_RAW};
	struct run packed = raw, zero = raw;

	packed.kind = RUN_COMPRESSED;
	zero.kind = RUN_ZERO;
	run_trim_front(&raw, 7);
	CHECK(raw.off == 17 && raw.len == 13 && raw.pos == 107 && raw.skip == 5);
	run_trim_front(&packed, 7);
	CHECK(packed.off == 17 && packed.len == 13 && packed.pos == 100 && packed.skip == 12);
	run_trim_front(&zero, 7);
	CHECK(zero.off == 17 && zero.len == 13 && zero.pos == 100 && zero.skip == 5);
	run_trim_front(&zero, 0);
	CHECK(zero.off == 17 && zero.len == 13);
}

static void test_joins(void)
{
	struct source s1, s2;
	static const enum run_kind kinds[] = {RUN_RAW, RUN_COMPRESSED, RUN_ZERO};

	for (size_t ka = 0; ka < 3; ka++)
		for (size_t kb = 0; kb < 3; kb++)
			for (int gap = -1; gap <= 1; gap++)
				for (int jump = -1; jump <= 1; jump++)
					for (int other = 0; other < 2; other++) {
						struct run a = {.off = 10, .len = 5, .pos = 50,
								.kind = kinds[ka], .src = &s1};
						struct run b = {.off = (uint64_t)(15 + gap),
								.len = 5,
								.pos = (uint64_t)(55 + jump),
								.kind = kinds[kb],
								.src = other ? &s2 : &s1};
						bool want = ka == kb && !gap &&
							    (kinds[ka] == RUN_ZERO ||
							     (kinds[ka] == RUN_RAW && !jump &&
							      !other));

						CHECK(run_joins(&a, &b) == want);
					}
}

static void gate_refuses(struct list *l, size_t good)
{
	struct err e = {.set = false};
	struct run run;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < good; i++)
			CHECK(reader_next(&l->reader, &run, &e) == 1);
		CHECK(!e.set);
		CHECK(reader_next(&l->reader, &run, &e) == -EBADMSG);
		CHECK(e.set);
		e.set = false;
		for (int i = 0; i < 3; i++)
			CHECK(reader_next(&l->reader, &run, &e) == 0);
		CHECK(reader_rewind(&l->reader, &e) == 0);
	}
	reader_free(&l->reader);
}

static void test_gate_refuses(void)
{
	static const uint8_t bytes[100];
	struct err e = {.set = false};
	struct source *src;
	struct list *l;

	CHECK(source_memory(&src, "mem", bytes, sizeof(bytes), &e) == 0);
#define BAD(size, ...) gate_refuses(list_one(size, (struct run){__VA_ARGS__}), 0)
	BAD(1000, .off = 5, .len = 0, .kind = RUN_ZERO);
	BAD(0, .off = 0, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 1000, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 1001, .len = 1, .kind = RUN_ZERO);
	BAD(1000, .off = 999, .len = 2, .kind = RUN_ZERO);
	BAD(1000, .off = 0, .len = 1001, .kind = RUN_ZERO);
	BAD(1000, .off = UINT64_MAX, .len = 2, .kind = RUN_ZERO);
	BAD(1000, .off = 2, .len = UINT64_MAX, .kind = RUN_ZERO);
	BAD(1000, .off = UINT64_MAX - 9, .len = 10, .kind = RUN_ZERO);
	BAD(UINT64_MAX, .off = UINT64_MAX - 9, .len = 10, .kind = RUN_ZERO);
	BAD(1000, .len = 10, .kind = RUN_RAW);
	BAD(1000, .len = 10, .pos = 91, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 1, .pos = 100, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 1, .pos = 101, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 101, .pos = 0, .src = src, .kind = RUN_RAW);
	BAD(1000, .len = 10, .pos = UINT64_MAX - 4, .src = src, .kind = RUN_RAW);
#undef BAD
	l = list_one(1000, (struct run){.len = 10, .kind = RUN_COMPRESSED});
	l->run[0].leaf = NULL;
	gate_refuses(l, 0);
	l = list_one(1000, (struct run){.len = 10, .kind = RUN_COMPRESSED});
	l->reader.ops = &list_ops_no_fetch;
	gate_refuses(l, 0);
	/* out of order: overlapping by one byte, the same again, and backwards */
	for (uint64_t off = 0; off < 30; off += off < 20 ? 10 : 9) {
		const struct run two[] = {{.off = 20, .len = 10, .kind = RUN_ZERO},
					  {.off = off, .len = 5, .kind = RUN_ZERO}};

		gate_refuses(list_new(1000, two, 2), 1);
	}
	source_free(src);
}

static void test_gate_passes(void)
{
	static const uint8_t bytes[100];
	struct err e = {.set = false};
	unsigned freed = 0;
	struct source *src;
	struct run run;
	struct list *l;

	CHECK(source_memory(&src, "mem", bytes, sizeof(bytes), &e) == 0);
	{
		const struct run good[] = {
			{.off = 0, .len = 100, .src = src, .kind = RUN_RAW},
			{.off = 100, .len = 1, .pos = 99, .src = src, .kind = RUN_RAW},
			{.off = 200, .len = 50, .pos = 7, .kind = RUN_COMPRESSED},
			{.off = 250, .len = 750, .kind = RUN_ZERO},
		};

		l = list_new(1000, good, COUNT(good));
		l->freed = &freed;
		for (int pass = 0; pass < 3; pass++) {
			for (size_t i = 0; i < COUNT(good); i++) {
				CHECK(reader_next(&l->reader, &run, &e) == 1);
				CHECK(run.off == good[i].off && run.len == good[i].len);
				CHECK(run.kind == good[i].kind && run.pos == good[i].pos);
				if (pass == 1 && i == 1)
					break; /* rewind from the middle */
			}
			if (pass != 1)
				for (int i = 0; i < 3; i++)
					CHECK(reader_next(&l->reader, &run, &e) == 0);
			CHECK(reader_rewind(&l->reader, &e) == 0);
		}
		/* an error of the reader itself is handed on, once */
		l->fail_at = 1;
		l->fail_with = EIO;
		CHECK(reader_next(&l->reader, &run, &e) == 1);
		CHECK(reader_next(&l->reader, &run, &e) == -EIO);
		CHECK(e.set);
		CHECK_STR(e.msg, "list: told to fail");
		CHECK(reader_next(&l->reader, &run, &e) == 0);
	}
	reader_free(&l->reader);
	CHECK(freed == 1);
	reader_free(NULL);
	source_free(src);
}

/* --- source ---------------------------------------------------------------------------------- */

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

/* --- stream ---------------------------------------------------------------------------------- */

struct feed {
	const uint8_t *bytes;
	size_t n, chunk; /* at most so many at a time */
	int fd;
};

static void *feed(void *arg)
{
	struct feed *f = arg;
	size_t pos = 0, n = 1;

	while (pos < f->n) {
		ssize_t put = write(f->fd, f->bytes + pos, n < f->n - pos ? n : f->n - pos);

		if (put < 0)
			break;
		pos += (size_t)put;
		n = n * 7 % f->chunk + 1;
	}
	close(f->fd);
	return NULL;
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
		struct source_opts o = {.window = 32768, .stop = flag_stop, .arg = &stop};
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

/* --- chain ----------------------------------------------------------------------------------- */

#define DISK 200u

struct byte { /* of the model */
	bool have;
	enum run_kind kind;
	uint8_t value;
	uint64_t at; /* RAW: where in its source; COMPRESSED: skip */
	const void *owner; /* RAW: source; COMPRESSED: leaf */
};

static struct byte byte_of(const struct run *run, uint64_t i)
{
	struct byte b = {.have = true, .kind = run->kind};

	if (run->kind == RUN_RAW) {
		b.at = run->pos + i;
		b.owner = run->src;
		b.value = run->src->mem[b.at];
	} else if (run->kind == RUN_COMPRESSED) {
		b.at = run->skip + i;
		b.owner = run->leaf;
		b.value = packed_byte(run->pos, b.at);
	}
	return b;
}

static bool same_byte(const struct byte *a, const struct byte *b)
{
	return a->have == b->have && a->kind == b->kind && a->value == b->value &&
	       a->at == b->at && a->owner == b->owner;
}

/* Random runs; often neighbours, sometimes none. */
static struct list *random_layer(uint64_t size, struct source *src)
{
	struct run run[DISK];
	uint64_t at = below(3) ? below(size + 1) / (1 + below(8)) : 0;
	uint64_t longest = 1 + below(below(2) ? 6 : 80);
	size_t n = 0;

	while (at < size && n < DISK && below(30)) {
		uint64_t len = min_u64(1 + below(longest), size - at);

		run[n] = (struct run){.off = at, .len = len, .kind = (enum run_kind)below(3)};
		if (run[n].kind == RUN_RAW) {
			run[n].src = src;
			run[n].pos = below(src->size - len + 1);
		} else if (run[n].kind == RUN_COMPRESSED) {
			run[n].pos = below(1000);
			run[n].skip = below(10);
		}
		n++;
		at += len + (below(2) ? below(longest * 2) : 0);
	}
	return list_new(size, run, n);
}

/* Walks r and compares: ascending, disjoint, each byte as in the model. */
static void walk(struct reader *r, const struct byte *model, uint64_t size)
{
	struct byte got[DISK] = {{0}};
	struct err e = {.set = false};
	uint64_t at = 0;
	struct run run;
	int rc;

	while ((rc = reader_next(r, &run, &e)) == 1) {
		if (!CHECK(run.len && run.off >= at && run.off + run.len <= size))
			return;
		for (uint64_t i = 0; i < run.len; i++)
			got[run.off + i] = byte_of(&run, i);
		if (run.kind == RUN_COMPRESSED) {
			uint8_t buf[DISK];

			CHECK(reader_fetch(&run, buf, &e) == 0);
			for (uint64_t i = 0; i < run.len; i++)
				CHECK(buf[i] == model[run.off + i].value);
		}
		at = run.off + run.len;
	}
	CHECK(rc == 0 && !e.set);
	for (uint64_t i = 0; i < size; i++)
		CHECK(same_byte(&got[i], &model[i]));
}

static void chains(bool filled, uint64_t with_seed, int rounds)
{
	uint8_t bytes[512];

	seed(with_seed);
	random_bytes(bytes, sizeof(bytes));
	for (int round = 0; round < rounds; round++) {
		size_t n = 1 + below(6);
		struct byte model[DISK] = {{0}};
		struct err e = {.set = false};
		struct reader *layer[6], *r = NULL;
		struct source *src[6];
		uint64_t size = 0, seen = UINT64_MAX;
		unsigned before = failures, freed = 0;

		for (size_t i = 0; i < n; i++) {
			/* mostly of one size; a smaller one hides the end of those beneath */
			uint64_t s = below(4) && size ? size : 1 + below(DISK);
			struct list *l;

			CHECK(source_memory(&src[i], "mem", bytes, sizeof(bytes), &e) == 0);
			l = random_layer(s, src[i]);
			l->freed = &freed;
			layer[i] = &l->reader;
			size = max_u64(size, s);
			seen = min_u64(seen, s);
			for (size_t k = 0; k < l->n; k++)
				for (uint64_t b = 0; b < l->run[k].len; b++)
					if (l->run[k].off + b < seen && !model[l->run[k].off + b].have)
						model[l->run[k].off + b] = byte_of(&l->run[k], b);
		}
		if (!below(4)) /* some layers go on behind the end of the disk */
			size = 1 + below(size);
		CHECK(merge_new(&r, layer, n, size, &e) == 0);
		CHECK(r->size == size);
		if (filled) {
			CHECK(fill_new(&r, r, &e) == 0);
			CHECK(r->size == size);
			for (uint64_t i = 0; i < size; i++)
				if (!model[i].have)
					model[i] = (struct byte){.have = true, .kind = RUN_ZERO};
		}
		if (round % 3 == 0) { /* rewound before, in the middle, and after */
			struct run run;

			for (uint64_t k = below(10); k; k--)
				CHECK(reader_next(r, &run, &e) >= 0);
			CHECK(reader_rewind(r, &e) == 0);
		}
		walk(r, model, size);
		CHECK(reader_rewind(r, &e) == 0);
		walk(r, model, size);
		reader_free(r);
		CHECK(freed == n);
		for (size_t i = 0; i < n; i++)
			source_free(src[i]);
		if (failures != before) {
			printf("# round %d, seed %d\n", round, (int)with_seed);
			return;
		}
	}
}

static void test_merge(void)
{
	chains(false, 4, 15000);
}

static void test_fill(void)
{
	chains(true, 5, 15000);
}

static void test_chain_edges(void)
{
	struct err e = {.set = false};
	struct reader *r = NULL, *layers[2];
	struct list *l;
	struct run run;

	/* nothing in the only layer, and no layer at all */
	layers[0] = &list_new(100, NULL, 0)->reader;
	CHECK(merge_new(&r, layers, 1, 100, &e) == 0);
	CHECK(reader_next(r, &run, &e) == 0);
	CHECK(fill_new(&r, r, &e) == 0);
	CHECK(reader_next(r, &run, &e) == 1 && run.off == 0 && run.len == 100);
	CHECK(run.kind == RUN_ZERO && reader_next(r, &run, &e) == 0);
	reader_free(r);
	CHECK(merge_new(&r, layers, 0, 0, &e) == 0);
	CHECK(r->size == 0 && reader_next(r, &run, &e) == 0);
	CHECK(fill_new(&r, r, &e) == 0);
	CHECK(reader_next(r, &run, &e) == 0);
	reader_free(r);

	/* an error below comes through, of either layer, and nothing after */
	for (int which = 0; which < 2; which++) {
		const struct run two[] = {{.off = 0, .len = 10, .kind = RUN_ZERO},
					  {.off = 50, .len = 10, .kind = RUN_ZERO}};
		int rc;

		for (int i = 0; i < 2; i++) {
			l = list_new(100, two, 2);
			if (i == which)
				l->fail_with = EIO, l->fail_at = 1;
			layers[i] = &l->reader;
		}
		e.set = false;
		CHECK(merge_new(&r, layers, 2, 100, &e) == 0);
		while ((rc = reader_next(r, &run, &e)) > 0)
			CHECK(run.off == 0);
		CHECK(rc == -EIO && e.set);
		CHECK(reader_next(r, &run, &e) == 0);
		reader_free(r);
	}
	l = list_new(100, NULL, 0);
	l->fail_with = EIO;
	e.set = false;
	CHECK(fill_new(&r, &l->reader, &e) == 0);
	CHECK(reader_next(r, &run, &e) == -EIO && e.set);
	reader_free(r);
}

/* --- queue ------------------------------------------------------------------------------------ */

#define TRANSFERS 2000u
#define CELL 4096u

struct queue_test {
	unsigned done;
	int last;
	struct queue *q;
	struct xfer *more; /* put by the callback, which counts down */
	unsigned left;
};

static void on_done(struct xfer *x, int err)
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

static void job_run(struct job *j)
{
	struct job_test *t = container_of(j, struct job_test, xfer.job);

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
			job[i].xfer = (struct xfer){.kind = XFER_JOB, .job.run = job_run,
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

static void job_wait(struct job *j)
{
	struct job_test *t = container_of(j, struct job_test, xfer.job);
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
	job.nap = (unsigned)a[0];
	job.xfer = (struct xfer){.kind = XFER_JOB, .job.run = job_wait, .owner = &t, .done = on_done};
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
	queue_free(q);
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

/* --- pump ------------------------------------------------------------------------------------ */

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
	static const uint32_t looks[] = {1, 512, 4096, PUMP_LOOK_MAX};

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

/* --- markers in batches ---------------------------------------------------------------------- */

#define MARKED 40u /* grains of the disk, a sector each */

/* A sector for each grain of order[], and the end marker; the data are never looked at. */
static struct reader *marked(const unsigned *order, size_t n, size_t limit, uint8_t *file)
{
	const struct streamopt_shape shape = {
		.size = MARKED * SECTOR, .grain = SECTOR, .start = 0, .table_sectors = 1,
		.dir_sectors = 1, .marks = limit,
	};
	struct err e = {.set = false};
	struct reader *r;
	struct source *s;

	memset(file, 0, (n + 1) * SECTOR);
	for (size_t i = 0; i < n; i++) {
		file[i * SECTOR] = (uint8_t)order[i];
		file[i * SECTOR + 8] = 100;
	}
	if (source_memory(&s, "marked", file, (n + 1) * SECTOR, &e) < 0 ||
	    streamopt_open(&r, s, &shape, &e) < 0)
		die(e.msg);
	return r;
}

static void walk_marked(struct reader *r, const unsigned *order, size_t n, size_t stop)
{
	struct err e = {.set = false};
	struct run run;
	size_t got = 0;
	uint64_t at = 0;

	while (got < stop && reader_next(r, &run, &e) > 0) {
		got++;
		CHECK(run.off >= at && run.len == SECTOR && run.pos / SECTOR < n &&
		      order[run.pos / SECTOR] * SECTOR == run.off);
		at = run.off + SECTOR;
	}
	CHECK(got == stop && !e.set);
	if (stop == n)
		CHECK(reader_next(r, &run, &e) == 0 && !e.set);
}

static void test_stream_batches(void)
{
	static const char *const twice = "there twice";
	uint8_t file[(MARKED + 2) * SECTOR];
	unsigned order[MARKED + 1];

	seed(77);
	for (unsigned round = 0; round < 2000; round++) {
		size_t n = below(MARKED + 1), limit = 1 + below(n + 3);
		unsigned kind = round % 4;
		struct reader *r;

		for (unsigned i = 0; i < MARKED; i++)
			order[i] = kind == 2 ? MARKED - 1 - i : i;
		for (unsigned i = 0; kind >= 3 && i < MARKED; i++) {
			unsigned j = i + (unsigned)below(MARKED - i), x = order[i];

			order[i] = order[j];
			order[j] = x;
		}
		if (kind == 1 && n > 2) { /* in order but for two neighbours */
			size_t i = below(n - 1);
			unsigned x = order[i];

			order[i] = order[i + 1];
			order[i + 1] = x;
		}
		r = marked(order, n, limit, file);
		walk_marked(r, order, n, n ? below(n) : 0);
		for (unsigned again = 0; again < 2; again++) {
			struct err e = {.set = false};

			CHECK(reader_rewind(r, &e) == 0);
			walk_marked(r, order, n, n);
		}
		reader_free(r);
		if (!n)
			continue;
		/* one of them twice is never let through, wherever the two fall */
		order[n] = order[below(n)];
		r = marked(order, n + 1, limit, file);
		for (unsigned again = 0; again < 2; again++) {
			struct err e = {.set = false};
			struct run run;
			int got;

			do
				got = reader_next(r, &run, &e);
			while (got > 0);
			CHECK(got == -EBADMSG && (strstr(e.msg, twice) || again));
			e.set = false;
			CHECK(reader_rewind(r, &e) == 0);
		}
		reader_free(r);
	}
}

/* --- undo log -------------------------------------------------------------------------------- */

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

/* The first look, however fast it was, must not weigh more than its time. */
static void test_rate(void)
{
	struct rate r = {0};
	uint64_t done = 64 * MIB; /* at once, into a cache */

	rate_look(&r, done, 0.2);
	CHECK(r.bytes > 300.0 * MIB);
	for (int i = 2; i <= 15; i++) {
		done += MIB / 5;
		rate_look(&r, done, 0.2 * i);
		CHECK(r.bytes < (double)done / (0.2 * i) * 1.001);
	}
	/* what is steady is told as it is, from the first seconds on, and later what it is now */
	r = (struct rate){0};
	for (int i = 1; i <= 100; i++) {
		rate_look(&r, (uint64_t)i * MIB, 0.2 * i);
		CHECK(r.bytes > 4.99 * MIB && r.bytes < 5.01 * MIB);
	}
	for (int i = 101; i <= 250; i++)
		rate_look(&r, 100 * MIB, 0.2 * i);
	CHECK(r.bytes < 0.1 * MIB);
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

/* --- progress -------------------------------------------------------------------------------- */

/* What is said when so much is done, but for the rate, which nobody can foresee. */
static void test_progress(void)
{
	static const struct {
		uint64_t done, total;
		const char *begin, *end;
	} want[] = {
		/* all that is there, and all but a byte, as far as a double can tell them apart */
		{UINT64_C(1) << 60, UINT64_C(1) << 60, "disk 100%  1.0 EiB / 1.0 EiB  ", "/s  0:00 left\n"},
		{(UINT64_C(1) << 60) - 1, UINT64_C(1) << 60, "disk  99%  1.0 EiB / 1.0 EiB  ",
		 "/s  0:00 left\n"},
		/* more than there should be */
		{2000, 1000, "disk 100%  2.0 KiB / 1000 bytes  ", "/s  0:00 left\n"},
		/* years, and nobody knows how many */
		{1000, UINT64_C(1) << 62, "disk   0%  1000 bytes / 4.0 EiB  ", "/s  999:59:59 left\n"},
		{0, 1000, "disk   0%  0 bytes / 1000 bytes  0 bytes", "/s  -:-- left\n"},
		{1000, 0, "disk  1000 bytes  ", "/s  0:00\n"},
	};
	int fd[2];

	/* where memory was short */
	progress_show(NULL, 1);
	progress_say(NULL, -1, 1);
	progress_clear(NULL);
	progress_end(NULL, 1);
	CHECK(progress_seconds(NULL) == 0);
	if (pipe(fd))
		die("pipe");
	for (size_t i = 0; i < COUNT(want); i++) {
		struct progress *p = progress_new(PROGRESS_LINE, -1, "disk", want[i].total);
		const size_t begin = strlen(want[i].begin), end = strlen(want[i].end);
		char line[600];
		ssize_t n;

		progress_say(p, fd[1], want[i].done);
		n = read(fd[0], line, sizeof(line) - 1);
		line[n > 0 ? n : 0] = '\0';
		CHECK(n >= (ssize_t)(begin + end) && !memcmp(line, want[i].begin, begin));
		CHECK_STR(n > (ssize_t)end ? line + n - end : line, want[i].end);
		progress_free(p);
	}
	close(fd[0]);
	close(fd[1]);
}

/* --- file order ------------------------------------------------------------------------------ */

#define ORDER_DISK (192 * KIB)
#define ORDER_FILE (640 * KIB)
#define ORDER_GRAINS (ORDER_DISK / SECTOR)
#define ORDER_TABLES 64u
#define ORDER_HELD 64u

/* An extent like no other: whatever the shape is, and wherever everything lies. */
struct order {
	struct tree_shape shape;
	uint8_t file[ORDER_FILE], model[ORDER_DISK], disk[ORDER_DISK], written[ORDER_DISK];
	uint64_t end;                  /* of the file */
	uint64_t table[ORDER_TABLES];  /* where each is, 0: nowhere */
	uint64_t grain[ORDER_GRAINS];  /* the same; 1: zeros */
	struct run held[ORDER_HELD];   /* of a stream: not fetched before they have to be */
	unsigned helds;
};

static int order_table(struct tree *g, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e)
{
	(void)g, (void)i, (void)e;
	*pos = raw * SECTOR;
	return 1;
}

static int order_grain(struct tree *g, uint64_t n, uint64_t raw, bool first, uint64_t *pos,
		       struct err *e)
{
	(void)g, (void)n, (void)first, (void)e;
	*pos = raw * SECTOR;
	return raw == 1 ? GRAIN_ZERO : GRAIN_DATA;
}

static void order_entry(struct order *o, uint64_t at, uint64_t i, uint64_t value)
{
	for (unsigned k = 0; k < o->shape.width; k++)
		o->file[at + i * o->shape.width + k] = (uint8_t)(value >> 8 * k);
}

static uint64_t order_len(const struct order *o, uint64_t grain)
{
	return min_u64(o->shape.grain, o->shape.size - grain * o->shape.grain);
}

/* layout: tables in front of all grains, behind them, each before its grains with the last one first,
 * or anything anywhere. */
static void order_make(struct order *o, unsigned layout)
{
	struct tree_shape *s = &o->shape;
	static uint32_t item[ORDER_TABLES + ORDER_GRAINS]; /* grains, and tables with the high bit */
	const uint32_t table = UINT32_C(1) << 31;
	uint64_t grains, n = 0, used = 1 + below(8), at;

	memset(o, 0, sizeof(*o));
	s->width = below(2) ? 4 : 8;
	s->entries = 16u << below(4);
	s->grain = (uint64_t)SECTOR << below(6);
	s->size = (1 + below(min_u64(ORDER_GRAINS, ORDER_TABLES * s->entries * s->grain / SECTOR))) *
		  SECTOR;
	grains = div_up(s->size, s->grain);
	s->tables = div_up(grains, s->entries);
	s->dir = SECTOR;
	s->area[0] = (struct tree_area){0, SECTOR, "header"};
	s->area[1] = (struct tree_area){SECTOR, SECTOR + s->tables * s->width, "directory"};
	s->areas = 2;
	s->floor = div_up(s->area[1].end, SECTOR) * SECTOR;
	s->table = order_table;
	s->grain_at = order_grain;
	random_bytes(o->file, sizeof(o->file));
	memset(o->file + s->dir, 0, s->tables * s->width);
	for (uint64_t t = s->tables; t-- > 0;) {
		item[n++] = (uint32_t)t | table;
		for (uint64_t g = t * s->entries; g < min_u64(grains, (t + 1) * s->entries); g++) {
			o->grain[g] = below(8) >= used ? 0 : below(9) ? 2 : 1;
			if (o->grain[g] == 2)
				item[n++] = (uint32_t)g;
		}
	}
	for (uint64_t i = 0, tables = 0; layout < 2 && i < n; i++)
		if (item[i] & table) { /* to the front; the rest in any order */
			uint32_t x = item[i];

			item[i] = item[tables];
			item[tables++] = x;
		}
	for (uint64_t i = 0; layout == 1 && i < n / 2; i++) {
		uint32_t x = item[i];

		item[i] = item[n - 1 - i];
		item[n - 1 - i] = x;
	}
	for (uint64_t i = 0; layout == 3 && i < n; i++) {
		uint64_t k = i + below(n - i);
		uint32_t x = item[i];

		item[i] = item[k];
		item[k] = x;
	}
	at = s->floor;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t g = item[i], len;

		at += below(5) ? 0 : below(9) * SECTOR;
		if (g & table) {
			g &= ~table;
			len = s->entries * s->width;
			o->table[g] = at;
			memset(o->file + at, 0, len);
			order_entry(o, s->dir, g, at / SECTOR);
		} else {
			len = order_len(o, g);
			o->grain[g] = at;
		}
		o->end = at + len;
		at = div_up(at + len, SECTOR) * SECTOR;
	}
	for (uint64_t g = 0; g < grains; g++) {
		uint8_t *to = o->model + g * s->grain;

		if (!o->grain[g])
			memset(to, 0x5a, order_len(o, g));
		else
			order_entry(o, o->table[g / s->entries], g % s->entries,
				    o->grain[g] == 1 ? 1 : o->grain[g] / SECTOR);
		if (o->grain[g] > 1)
			memcpy(to, o->file + o->grain[g], order_len(o, g));
	}
	if (!o->end)
		o->end = s->area[1].end;
	CHECK(at <= ORDER_FILE);
}

static int order_fetch(struct order *o, struct err *e)
{
	int r = 0;

	while (!r && o->helds) {
		const struct run *run = &o->held[--o->helds];

		r = reader_fetch(run, o->disk + run->off, e);
	}
	return r;
}

/* Applies what src brings to disk[], as the pump does; *queued: in file order. */
static int order_apply(struct order *o, struct source *src, bool *queued, struct err *e)
{
	struct tree *g = alloc(sizeof(*g));
	struct run run;
	int r = src->streaming ? file_order_open(g, src, &o->shape, e)
			     : guest_order_open(g, src, &o->shape, e);

	if (r < 0) {
		free(g);
		source_free(src);
		return r;
	}
	*queued = g->file;
	o->helds = 0;
	memset(o->disk, 0x5a, sizeof(o->disk));
	memset(o->written, 0, sizeof(o->written));
	while (r >= 0 && (r = reader_next(&g->reader, &run, e)) > 0) {
		if (run.kind == RUN_FENCE) {
			r = order_fetch(o, e);
			continue;
		}
		CHECK(all_zero(o->written + run.off, run.len)); /* nothing is given twice */
		memset(o->written + run.off, 1, run.len);
		if (run.kind == RUN_ZERO) {
			memset(o->disk + run.off, 0, run.len);
		} else if (run.kind == RUN_RAW) {
			r = source_read(run.src, run.pos, o->disk + run.off, run.len, "data", e);
		} else {
			o->held[o->helds++] = run;
			if (o->helds == ORDER_HELD)
				r = order_fetch(o, e);
		}
	}
	if (order_fetch(o, e) < 0)
		r = -EBADMSG;
	reader_free(&g->reader);
	return r;
}

/* The bytes before `size` come through a pipe. */
static int order_pipe(struct order *o, uint64_t size, bool *queued, struct err *e)
{
	struct feed f = {.bytes = o->file, .n = size, .chunk = 5000 + below(60000)};
	const struct source_opts opts = {.window = (size_t)32768 << below(3)};
	struct source *src = NULL;
	char path[32];
	pthread_t thread;
	int fd[2], r;

	if (pipe(fd) < 0)
		die("pipe");
	f.fd = fd[1];
	if (pthread_create(&thread, NULL, feed, &f))
		die("pthread_create");
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	r = source_open_any(&src, path, &opts, e);
	close(fd[0]);
	if (CHECK(r == 0))
		r = order_apply(o, src, queued, e);
	pthread_join(thread, NULL);
	return r;
}

/* A leaf whose tables are larger than a window: an error, and no bitmap that is too small. */
static void test_window_claim(void)
{
	static uint8_t bytes[256 * KIB];
	struct feed f = {.bytes = bytes, .n = sizeof(bytes), .chunk = 4096};
	const struct source_opts opts = {.window = 32768};
	const struct tree_shape shape = {
		.size = MIB,
		.grain = SECTOR,
		.dir = SECTOR,
		.tables = 1,
		.entries = 8192,
		.width = 8,
		.area = {{0, SECTOR, "header"}},
		.areas = 1,
		.table = order_table,
		.grain_at = order_grain,
	};
	struct tree *g = alloc(sizeof(*g));
	struct err e = {.set = false};
	struct source *src = NULL;
	char path[32];
	pthread_t thread;
	int fd[2];

	signal(SIGPIPE, SIG_IGN); /* the pipe is closed while it is being filled */
	if (pipe(fd) < 0)
		die("pipe");
	f.fd = fd[1];
	if (pthread_create(&thread, NULL, feed, &f))
		die("pthread_create");
	snprintf(path, sizeof(path), "/dev/fd/%d", fd[0]);
	if (CHECK(source_open_any(&src, path, &opts, &e) == 0)) {
		close(fd[0]);
		CHECK(file_order_open(g, src, &shape, &e) == -EFBIG);
		CHECK(strstr(e.msg, "a grain table of 65536 bytes is larger than a window of 32768"));
		source_free(src);
	}
	pthread_join(thread, NULL);
	signal(SIGPIPE, SIG_DFL);
	free(g);
}

/* Of a file that was cut there, all grains are there of which the table and they themselves came whole. */
static void order_cut(struct order *o, uint64_t cut)
{
	bool queued = false;
	struct err e = {.set = false};
	int r = order_pipe(o, cut, &queued, &e);

	CHECK((r < 0) == (cut < o->end) && e.set == (r < 0));
	if (!queued)
		return;
	for (uint64_t g = 0; g * o->shape.grain < o->shape.size; g++) {
		uint64_t table = o->table[g / o->shape.entries], at = g * o->shape.grain;
		uint64_t len = order_len(o, g);

		for (uint64_t i = at; i < at + len; i++)
			if (o->disk[i] != 0x5a && !CHECK(o->disk[i] == o->model[i]))
				return;
		if (o->grain[g] && table + o->shape.entries * o->shape.width <= cut &&
		    (o->grain[g] == 1 || o->grain[g] + len <= cut))
			CHECK(!memcmp(o->disk + at, o->model + at, len));
	}
}

static void test_file_order(void)
{
	struct order *o = alloc(sizeof(*o));
	unsigned in_order = 0;

	signal(SIGPIPE, SIG_IGN);
	seed(55);
	for (unsigned round = 0; round < 300 && failures < 10; round++) {
		struct err e = {.set = false};
		bool queued = false;
		struct source *src;

		order_make(o, round % 4);
		o->shape.memory = below(2) ? 0 : 4100 + below(1000);
		o->shape.promised = below(2) ? o->end : 0;
		if (source_memory(&src, "file", o->file, o->end, &e) < 0)
			die(e.msg);
		CHECK(order_apply(o, src, &queued, &e) == 0 && !queued);
		CHECK(!memcmp(o->disk, o->model, o->shape.size));
		CHECK(order_pipe(o, o->end, &queued, &e) == 0);
		CHECK(!memcmp(o->disk, o->model, o->shape.size));
		in_order += queued;
		order_cut(o, below(o->end + SECTOR) + 1);
		CHECK_STR(e.msg, "");
	}
	CHECK(in_order > 100);
	free(o);
	signal(SIGPIPE, SIG_DFL);
}

/* --- a server that says nothing --------------------------------------------------------------- */

#define NBD_SIZE (1u << 20)

static void nbd_say(int fd, const void *p, size_t n)
{
	if (write(fd, p, n) != (ssize_t)n)
		_exit(1);
}

/* Shakes hands on one connection, and answers no request. */
static void nbd_serve(int listening)
{
	static const uint8_t greeting[18] = "NBDMAGICIHAVEOPT\0\3";
	static const uint8_t reply[] = {0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0};
	static const uint8_t unsupported[] = {8, 0x80, 0, 0, 1, 0, 0, 0, 0};
	static const uint8_t info[] = {7, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0,
				       0, 0, 0, 0, 0, NBD_SIZE >> 16, 0, 0, 0, 5};
	static const uint8_t ack[] = {7, 0, 0, 0, 1, 0, 0, 0, 0};
	int fd = accept(listening, NULL, NULL);
	uint8_t buf[256];

	nbd_say(fd, greeting, sizeof(greeting));
	if (read(fd, buf, 4) != 4 || recv(fd, buf, 16, MSG_WAITALL) != 16)
		_exit(1);
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, unsupported, sizeof(unsupported));
	if (recv(fd, buf, 24, MSG_WAITALL) != 24)
		_exit(1);
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, info, sizeof(info));
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, ack, sizeof(ack));
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	_exit(0);
}

static void test_nbd_silence(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/vmdksync.XXXXXX", uri[128];
	const struct target_opts o = {.need = NBD_SIZE, .silence = 1};

	if (!mkdtemp(dir))
		die("mkdtemp");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/s", dir);
	for (unsigned in_line = 0; in_line < 2; in_line++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
		struct err e = {.set = false};
		struct target *t = NULL;
		struct queue *q = NULL;
		uint8_t buf[SECTOR];
		struct queue_test seen = {.last = 12345};
		struct xfer x[3];
		pid_t pid;

		if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1) || (pid = fork()) < 0)
			die("a server");
		if (!pid)
			nbd_serve(fd);
		CHECK(target_open(&t, uri, &o, &e) == 0);
		CHECK(queue_new(&q, 4, in_line, &e) == 0);
		CHECK(t->size == NBD_SIZE && t->rereads && !target_can_zero(t));
		for (unsigned i = 0; i < 3; i++) {
			x[i] = (struct xfer){.kind = i == 2 ? XFER_WRITE : XFER_READ, .buf = buf,
					     .len = SECTOR, .off = i * SECTOR, .owner = &seen,
					     .done = on_done};
			target_put(t, q, &x[i]);
		}
		while (queue_busy(q))
			CHECK(queue_wait(q, 1) >= 0);
		CHECK(seen.done == 3 && seen.last == -ETIMEDOUT);
		CHECK_STR(target_why(t, -ETIMEDOUT), "the server has not answered for 1 seconds");
		/* nothing is sent any more */
		target_put(t, q, &x[0]);
		CHECK(queue_wait(q, 1) == 1 && seen.done == 4 && seen.last == -ETIMEDOUT);
		queue_free(q);
		target_free(t);
		close(fd);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		unlink(addr.sun_path);
	}
	rmdir(dir);
}

/* --- all of it ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*test)(void);
} tests[] = {
	{"err", test_err},
	{"arithmetic", test_arithmetic},
	{"little-endian", test_little_endian},
	{"all-zero", test_all_zero},
	{"bitmap", test_bitmap},
	{"size-text", test_size_text},
	{"full-io", test_full_io},
	{"name-text", test_name_text},
	{"run-trim", test_trim},
	{"run-joins", test_joins},
	{"rate", test_rate},
	{"gate-refuses", test_gate_refuses},
	{"gate-passes", test_gate_passes},
	{"source-memory", test_source_memory},
	{"source-file", test_source_file},
	{"source-holes", test_source_holes},
	{"stream", test_stream_input},
	{"stream-stop", test_stream_stop},
	{"stream-batches", test_stream_batches},
	{"file-order", test_file_order},
	{"window-claim", test_window_claim},
	{"merge", test_merge},
	{"fill", test_fill},
	{"chain-edges", test_chain_edges},
	{"queue-many", test_queue_many},
	{"queue-errors", test_queue_errors},
	{"queue-jobs", test_queue_jobs},
	{"queue-bell", test_queue_bell},
	{"nbd-silence", test_nbd_silence},
	{"pump", test_pump},
	{"pump-nothing", test_pump_nothing},
	{"pump-reader-error", test_pump_reader_error},
	{"pump-fetch-error", test_pump_fetch_error},
	{"pump-stop", test_pump_stop},
	{"pump-consumer", test_pump_consumer},
	{"pump-streaming", test_pump_passing},
	{"pump-direct-refused", test_pump_direct_refused},
	{"pump-source-shrinks", test_pump_source_shrinks},
	{"pump-write-error", test_pump_write_error},
	{"undo-log", test_undo_log},
	{"undo-tables", test_undo_tables},
	{"undo-long", test_undo_long},
	{"undo-torn", test_undo_torn},
	{"undo-torn-zeros", test_undo_torn_zeros},
	{"undo-damage", test_undo_damage},
	{"undo-refuses", test_undo_refuses},
	{"undo-full", test_undo_full},
	{"progress", test_progress},
};

static bool chosen(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc == 1;
}

int main(int argc, char **argv)
{
	unsigned n = 0;

	for (size_t i = 0; i < COUNT(tests); i++) {
		unsigned before = failures;

		if (!chosen(tests[i].name, argc, argv))
			continue;
		tests[i].test();
		printf("%s %u - %s\n", failures == before ? "ok" : "not ok", ++n, tests[i].name);
		fflush(stdout);
	}
	printf("1..%u\n# %u checks, %u failed\n", n, checks, failures);
	return failures || !n;
}
