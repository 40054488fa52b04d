/* SPDX-License-Identifier: MIT */
/*
 * What every other file of lib/ may use: errors and warnings, checked arithmetic, byte loads, full reads
 * and writes, sizes and names as text, paths. Must not know disks, sources or formats.
 */
#ifndef BASE_H
#define BASE_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define SECTOR 512u
/* Positions in bytes stay below this, so that every sum of two of them fits in off_t. */
#define POS_LIMIT (UINT64_C(1) << 62)

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* What kind of failure it is, for programs: the words of --json. They are an interface: the manual lists
 * them, and new ones are only added. */
#define ERR_ACCOUNTS "accounts"
#define ERR_BUSY "busy"
#define ERR_CHANGED "changed"
#define ERR_CONFINED "confined"
#define ERR_CONNECTION "connection"
#define ERR_DAMAGED "damaged"
#define ERR_EXISTS "exists"
#define ERR_FINISHED "finished"
#define ERR_IO "io"
#define ERR_MEMORY "memory"
#define ERR_MISSING_PARENT "missing_parent"
#define ERR_NO_SPACE "no_space"
#define ERR_NOT_A_DISK "not_a_disk"
#define ERR_NOT_FOUND "not_found"
#define ERR_PERMISSION "permission"
#define ERR_STOPPED "stopped"
#define ERR_STRICT "strict"
#define ERR_TOO_LARGE "too_large"
#define ERR_TOO_SMALL "too_small"
#define ERR_TRUNCATED "truncated"
#define ERR_UNSUPPORTED "unsupported"
#define ERR_USAGE "usage"
#define ERR_WRONG_DISK "wrong_disk"
#define ERR_WRONG_ORDER "wrong_order"
#define ERR_WRONG_PARENT "wrong_parent"
#define ERR_WRONG_SIZE "wrong_size"
#define ERR_BY_ERRNO NULL /* what the errno says */

/* Numbers that are in the text as well, in bytes. */
struct err_facts {
	const char *code; /* one of these words */
	bool placed, sized; /* whether offset is known; whether have and need are */
	uint64_t offset;
	uint64_t have, need;
	const char *force; /* the word of --force=WORD that skips the check, and more; NULL: that which
			    * the format names, if any */
};
#define FACTS(...) (&(const struct err_facts){__VA_ARGS__})
#define SIZES(is, should_be) .sized = true, .have = (is), .need = (should_be)
#define AT_BYTE(off) .placed = true, .offset = (off)
#define TRUNCATED(is, least) FACTS(.code = ERR_TRUNCATED, SIZES(is, least))

/* Marks in a format, which do not reach the text: behind HINT stands what to do next, with the
 * punctuation before it; OBJECT() surrounds the part of the file that is at fault. */
#define HINT "\v"
#define OBJECT(format) "\016" format "\017"

struct err_part { /* of msg */
	uint16_t at, len;
};

/*
 * The first message of a failure, and the way out for warnings. The caller owns it and sets warn;
 * text is without program name and newline.
 */
struct err {
	char msg[1024];
	bool set;
	bool strict; /* a warning is a refusal */
	struct err_facts facts; /* complete once it is set */
	struct err_part file, object, hint; /* of no bytes: not known */
	void (*warn)(void *arg, const char *text);
	void *arg;
};

/*
 * Keeps the first message and returns -code: always negative, whatever errno was. A macro, so that
 * who only sees the caller (-fanalyzer) knows that, too. A format that begins with "%s: " begins with
 * the printable name of the file it is about.
 */
#define fail(e, code, ...) fail_with(e, code, NULL, __VA_ARGS__)
/* facts: FACTS(...), or NULL. */
#define fail_with(e, code, facts, ...)                                                             \
	({                                                                                         \
		int fail_code = (code);                                                            \
                                                                                                   \
		fail_text(e, fail_code, facts, __VA_ARGS__);                                       \
		fail_code > 0 ? -fail_code : -EIO;                                                 \
	})
/* Hands on what another struct err has, as it is, or behind a text. */
#define fail_again(e, code, cause) fail_because(e, code, cause, "%s", "")
#define fail_because(e, code, cause, ...)                                                          \
	({                                                                                         \
		int fail_code = (code);                                                            \
                                                                                                   \
		fail_cause(e, fail_code, cause, __VA_ARGS__);                                      \
		fail_code > 0 ? -fail_code : -EIO;                                                 \
	})
void fail_text(struct err *e, int code, const struct err_facts *facts, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));
void fail_cause(struct err *e, int code, const struct err *cause, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));
/* What a thread of its own met, on its way to the one that counts: NULL when memory is short, which
 * err_pass() takes. It returns code, which is negative. */
struct err *err_copy(const struct err *e);
int err_pass(struct err *e, int code, const struct err *copy);
/* Hands a warning on and returns 0; with e->strict it is a failure, -EBADMSG. */
int warning(struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), cold, warn_unused_result));
/* The same, but for the first time only, which *said keeps. */
#define warning_once(said, e, ...) (*(said) ? 0 : (*(said) = true, warning(e, __VA_ARGS__)))

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
/* Milliseconds of a clock that is never set. */
int64_t clock_ms(void);
/* A thread that gets no signals: they are for the one that waits. 0 or an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);
/* For qsort(3) and bsearch(3), of structs whose first member, an uint64_t, is what they are sorted by. */
int by_first_u64(const void *a, const void *b);

/* Reads n bytes of a file at off, however often the kernel stops short. How many there were: fewer than n
 * only at the end of the file; or -errno. */
ssize_t read_full(int fd, void *buf, size_t n, uint64_t off);
/* The same for writing: 0 when all n bytes are in the file, or -errno; -ENOSPC where the kernel takes no
 * more and does not say why. */
int write_full(int fd, const void *buf, size_t n, uint64_t off);

/* fsync of the folder of a file, so that its name is durable; some file systems cannot, and need not.
 * 0 or -errno. */
int sync_folder(const char *path);

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
 * A printable copy of a file name: control bytes and bytes that are not UTF-8 become \xNN, and so does the
 * backslash of a name that has such an escape itself. The caller frees it; NULL when memory is short.
 */
char *name_text(const char *name);
/* The same of a text that may have such escapes already: they stay. */
char *clean_text(const char *text);
/* The folder that a path leads into, "." where it names none; and the path of a file in a folder, without a
 * "." that says nothing. The caller frees them; NULL when memory is short. */
char *path_folder(const char *path);
char *path_in(const char *dir, const char *file);

#endif
