/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "base/bitmap.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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

/* What a part of the message says. */
static const char *part_text(const struct err *e, struct err_part part)
{
	static char text[sizeof(e->msg)];

	snprintf(text, sizeof(text), "%.*s", part.len, e->msg + part.at);
	return text;
}

static void test_err_facts(void)
{
	struct err e = {.set = false}, outer = {.set = false}, *copy;
	char big[2000];

	CHECK(fail_with(&e, EBADMSG, TRUNCATED(10, 20),
			"%s: " OBJECT("table %d") " ends" HINT ": is it short? (--force=size)", "f.vmdk", 7) ==
	      -EBADMSG);
	CHECK_STR(e.msg, "f.vmdk: table 7 ends: is it short? (--force=size)");
	CHECK_STR(part_text(&e, e.file), "f.vmdk");
	CHECK_STR(part_text(&e, e.object), "table 7");
	CHECK_STR(part_text(&e, e.hint), ": is it short? (--force=size)");
	CHECK_STR(e.facts.code, "truncated");
	CHECK(e.facts.sized && !e.facts.placed);
	CHECK(e.facts.have == 10 && e.facts.need == 20 && !strncmp(e.facts.force, "size)", 5));
	CHECK(fail_because(&outer, EIO, &e, "%s: its parent: ", "child") == -EIO);
	CHECK_STR(outer.msg, "child: its parent: f.vmdk: table 7 ends: is it short? (--force=size)");
	CHECK_STR(part_text(&outer, outer.file), "f.vmdk");
	CHECK_STR(part_text(&outer, outer.object), "table 7");
	CHECK_STR(part_text(&outer, outer.hint), ": is it short? (--force=size)");
	CHECK_STR(outer.facts.code, "truncated");
	CHECK(outer.facts.need == 20);

	/* the errno says which code; the format, not what is put into it, says which word */
	e = (struct err){.set = false};
	CHECK(fail(&e, EBUSY, "%s: is in use", "--force=raw") == -EBUSY);
	CHECK_STR(e.facts.code, "busy");
	CHECK(!e.facts.force && !e.hint.len && !e.object.len);
	e = (struct err){.set = false};
	CHECK(fail_with(&e, EBUSY, FACTS(.force = "busy", AT_BYTE(5)), "taken") == -EBUSY);
	CHECK(!e.file.len && e.facts.placed && e.facts.offset == 5);
	CHECK_STR(e.facts.force, "busy");
	e = (struct err){.set = false};
	CHECK(fail(&e, ENOLCK, "odd") == -ENOLCK);
	CHECK_STR(e.facts.code, "io");
	copy = err_copy(&e);
	outer = (struct err){.set = false};
	CHECK(err_pass(&outer, -ENOLCK, copy) == -ENOLCK);
	CHECK_STR(outer.msg, "odd");
	free(copy);
	outer = (struct err){.set = false};
	CHECK(err_pass(&outer, -EIO, NULL) == -EIO);
	CHECK_STR(outer.msg, "out of memory");

	/* no part lies outside the text */
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	e = (struct err){.set = false};
	CHECK(fail(&e, EIO, "%s: " OBJECT("thing") HINT "; do it", big) == -EIO);
	CHECK(strlen(e.msg) == sizeof(e.msg) - 1 && e.file.len == sizeof(e.msg) - 1 && !e.hint.len);
	e = (struct err){.set = false};
	CHECK(fail(&e, EIO, "%s: " OBJECT("thing") HINT "; do it", "f") == -EIO);
	for (size_t n = 900; n < sizeof(e.msg); n++) {
		outer = (struct err){.set = false};
		CHECK(fail_because(&outer, EIO, &e, "%.*s", (int)n, big) == -EIO);
		CHECK(outer.file.at + outer.file.len <= strlen(outer.msg));
		CHECK(outer.object.at + outer.object.len <= strlen(outer.msg));
		CHECK(outer.hint.at + outer.hint.len <= strlen(outer.msg));
	}
	warnings = 0;
	e = (struct err){.warn = on_warn, .arg = &warnings};
	CHECK(warning(&e, "%s: " OBJECT("thing") " is odd" HINT "; look", "f") == 0);
	CHECK_STR(last_warning, "f: thing is odd; look");
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
		{"a\\x0ab", "a\\x5cx0ab"},                        /* what looks like an escape */
		{"C:\\xfile\\x0A\\x", "C:\\xfile\\x0A\\x"},
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

static void test_paths(void)
{
	static const struct {
		const char *path, *folder, *file;
	} cases[] = {
		{"a", ".", "a"},	  {"./-", ".", "-"}, {"d/a", "d", "a"},
		{"../d/a", "../d", "a"}, {"/a", "/", "a"},   {"/d/a", "/d", "a"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		char *folder = path_folder(cases[i].path), *path = path_in(cases[i].folder, cases[i].file);

		CHECK_STR(folder, cases[i].folder);
		CHECK_STR(path, cases[i].path);
		free(folder);
		free(path);
	}
}

const struct test base_tests[] = {
	{"err", test_err},
	{"err-facts", test_err_facts},
	{"arithmetic", test_arithmetic},
	{"little-endian", test_little_endian},
	{"all-zero", test_all_zero},
	{"bitmap", test_bitmap},
	{"size-text", test_size_text},
	{"full-io", test_full_io},
	{"name-text", test_name_text},
	{"paths", test_paths},
	{NULL, NULL},
};
