/* SPDX-License-Identifier: MIT */
/* What the files of the unit tests share. A test is a function and a row in the table of its file. */
#ifndef UNIT_H
#define UNIT_H

#include "input/source.h"
#include "output/queue.h"
#include "run/run.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define KIB 1024u
#define MIB (1024u * KIB)

struct test {
	const char *name;
	void (*run)(void);
};

extern const struct test base_tests[];
extern const struct test run_tests[];
extern const struct test input_tests[];
extern const struct test chain_tests[];
extern const struct test queue_tests[];
extern const struct test pump_tests[];
extern const struct test nbd_tests[];
extern const struct test file_order_tests[];
extern const struct test streamopt_tests[];
extern const struct test undo_tests[];
extern const struct test resume_tests[];
extern const struct test cli_tests[];

extern unsigned checks, failures;

/* Prints no more than a screen of them. */
bool check(bool ok, const char *file, int line, const char *text);

#define CHECK(cond) check((cond), __FILE__, __LINE__, #cond)
#define CHECK_STR(a, b) check_str((a), (b), __FILE__, __LINE__)

void check_str(const char *a, const char *b, const char *file, int line);

/* A test that cannot go on. */
void __attribute__((noreturn)) die(const char *what);

void *alloc(size_t n);

void seed(uint64_t s);
uint64_t rnd(void);
uint64_t below(uint64_t n);
void random_bytes(uint8_t *p, size_t n);

/* An open file that has no name any more; *path, where wanted, keeps it and is the caller's. */
int temp_file(char **path);
void remove_temp(int fd, char *path);
void write_all(int fd, const void *p, size_t n, uint64_t off);
void read_all(int fd, void *p, size_t n, uint64_t off);

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
uint8_t packed_byte(uint64_t pos, uint64_t i);

extern const struct reader_ops list_ops_no_fetch;

struct list *list_new(uint64_t size, const struct run *run, size_t n);
struct list *list_one(uint64_t size, struct run run);

/* --- a thread that fills a pipe, and one that counts transfers --------------------------------- */

struct feed {
	const uint8_t *bytes;
	size_t n, chunk; /* at most so many at a time */
	int fd;
};

void *feed(void *arg);

struct queue_test {
	unsigned done;
	int last;
	struct queue *q;
	struct xfer *more; /* put by the callback, which counts down */
	unsigned left;
};

void on_done(struct xfer *x, int err);

#endif
