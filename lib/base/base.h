/* SPDX-License-Identifier: MIT */
/*
 * What every other file of lib/ may use: errors and warnings, checked arithmetic, byte loads, full reads
 * and writes, sizes and names as text. Must not know disks, sources or formats.
 */
#ifndef BASE_H
#define BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define SECTOR 512u
/* Positions in bytes stay below this, so that every sum of two of them fits in off_t. */
#define POS_LIMIT (UINT64_C(1) << 62)

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/*
 * The first message of a failure, and the way out for warnings. The caller owns it and sets warn;
 * text is without program name and newline.
 */
struct err {
	char msg[1024];
	bool set;
	bool strict; /* a warning is a refusal */
	void (*warn)(void *arg, const char *text);
	void *arg;
};

/*
 * Keeps the first message and returns -code: always negative, whatever errno was. A macro, so that
 * who only sees the caller (-fanalyzer) knows that, too.
 */
#define fail(e, code, ...)                                                                         \
	({                                                                                         \
		int fail_code = (code);                                                            \
                                                                                                   \
		fail_text(e, __VA_ARGS__);                                                         \
		fail_code > 0 ? -fail_code : -EIO;                                                 \
	})
void fail_text(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
/* Hands a warning on and returns 0; with e->strict it is a failure, -EBADMSG. */
int warning(struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), cold, warn_unused_result));

/* Warnings, in order. Zeroed before the first use. */
struct warnings {
	char **text; /* owned */
	size_t n;    /* all of them, */
	size_t kept; /* and those for which there was memory: the first */
};
void warnings_add(struct warnings *w, const char *text);
void warnings_free(struct warnings *w);

static inline bool add_ok(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool mul_ok(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

static inline uint64_t div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static inline uint32_t le32(const void *p)
{
	const uint8_t *b = p;

	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint16_t le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint64_t le64(const void *p)
{
	const uint8_t *b = p;

	return le32(b) | (uint64_t)le32(b + 4) << 32;
}

bool all_zero(const void *p, size_t n);

/* Reads n bytes of a file at off, however often the kernel stops short. How many there were: fewer than n
 * only at the end of the file; or -errno. */
ssize_t read_full(int fd, void *buf, size_t n, uint64_t off);
/* The same for writing: 0 when all n bytes are in the file, or -errno; -ENOSPC where the kernel takes no
 * more and does not say why. */
int write_full(int fd, const void *buf, size_t n, uint64_t off);

/* "1.5 GiB" into buf, which it returns. */
const char *size_text(char buf[32], uint64_t bytes);
/* What follows that where every byte counts: " (1610612736 bytes)", or nothing where it said so. */
const char *exact_text(char buf[32], uint64_t bytes);
/* "1 run", but "2 runs". */
static inline const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}
/* How many bytes the UTF-8 character at s has, and *code, which one it is; 0 where that is not UTF-8. */
size_t utf8_len(const char *s, uint32_t *code);
/*
 * A printable copy of a file name: control bytes and bytes that are not UTF-8 become \xNN. The
 * caller frees it; NULL when memory is short.
 */
char *name_text(const char *name);

#endif
