/* SPDX-License-Identifier: MIT */
/*
 * The leaf openers, one for each format, and what leaves share for their accounts. Each opener takes
 * the source over when it succeeds, checks its header whole, and gives a reader of the extent's runs,
 * the extent beginning at guest byte 0. -EBADMSG: damaged; -ENOTSUP: valid, but not ours; or -errno.
 * Called by image.
 */
#ifndef FORMAT_H
#define FORMAT_H

#include "run/run.h"

struct format_opts {
	/* which of the two copies of hosted metadata is believed without comparing them */
	enum { COPIES_EQUAL, COPY_PRIMARY, COPY_REDUNDANT } copies;
	/* bytes of memory for grains that a stream references before they are received; 0: the usual */
	uint64_t remember;
	/* a reader that is streaming gives what no grain holds as zeros */
	bool fill;
	/* files whose accounts do not balance are accepted; compressed ones are read by their markers */
	bool unbalanced;
	/* The first walk of a file adds the bytes that belong to no header, table, grain or known
	 * padding. It has to outlive the reader; NULL: nobody asks. */
	uint64_t *unaccounted;
};

struct format_facts {
	const char *format; /* name for people */
	unsigned version;
	uint64_t grain;     /* bytes */
	uint64_t descriptor, descriptor_size; /* where one is embedded, bytes; 0: nowhere */
	bool open_log;      /* an undo log that was not finished */
};

/* Summed up over grains (guest byte, byte of the file) it tells whether two sets of them are equal, in
 * whatever order they come. */
static inline uint64_t account_hash(uint64_t off, uint64_t pos)
{
	uint64_t x = off / SECTOR * UINT64_C(0x9e3779b97f4a7c15) + pos / SECTOR;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline void account_missing(const struct format_opts *o, uint64_t bytes)
{
	if (o->unaccounted)
		*o->unaccounted += bytes;
}

/* What does not balance: a refusal, or a warning where the caller accepts it. */
#define unbalanced(o, name, e, fmt, ...)                                                           \
	((o)->unbalanced ? warning(e, "%s: " fmt, name, ##__VA_ARGS__)                             \
			 : fail_with(e, EBADMSG, FACTS(.code = ERR_ACCOUNTS),                              \
				     "%s: " fmt HINT "; --force=accounts skips this check", name,   \
				     ##__VA_ARGS__))

/* What a file of `is` bytes should have, but `least` are needed for that. */
#define fail_outside(e, name, is, least, fmt, ...)                                                 \
	fail_with(e, EBADMSG, TRUNCATED(is, least),                                                \
		  "%s: " fmt " lies outside the file of %" PRIu64 " bytes" HINT                    \
		  ": is it truncated? expected at least %" PRIu64 " bytes",                        \
		  name, ##__VA_ARGS__, is, least)

/* Where the data in file bytes [from, to) end, but not behind the end of the file: from *end on all are zeros. */
int account_data_end(struct source *src, uint64_t from, uint64_t to, uint64_t *end, struct err *e);

int cowd_open(struct reader **out, struct source *src, const struct format_opts *o,
	      struct format_facts *facts, struct err *e);
int hosted_open(struct reader **out, struct source *src, const struct format_opts *o,
		struct format_facts *facts, struct err *e);
int sesparse_open(struct reader **out, struct source *src, const struct format_opts *o,
		  struct format_facts *facts, struct err *e);
/* `size` bytes of src from byte `at` on, raw; holes of the file are zeros. */
int flat_open(struct reader **out, struct source *src, uint64_t at, uint64_t size, struct err *e);
/*
 * The bytes of a stream, as they are: a plain disk of `size` bytes, of which the stream brings those from
 * `from` on, a multiple of 1 MiB. 4 KiB of zeros are found, and are ZERO runs where 64 KiB or more of them
 * follow each other. A stream that is shorter, or longer, is an error at its end.
 */
int raw_open(struct reader **out, struct source *src, uint64_t from, uint64_t size, struct err *e);
/*
 * Of such a reader: where another stream has to begin, a multiple of RAW_STEP, so that its first RAW_STEP bytes
 * lie before guest byte `end`, which was given already, and tell whether it is the right one: they are not
 * all alike, nor as those before them, if a few steps back there are such. 0 where there is no whole step yet.
 */
#define RAW_STEP (UINT64_C(1) << 20)
uint64_t raw_restart(const struct reader *r, uint64_t end);
/* A disk of `size` zeros. name: printable, has to outlive the reader. */
int zero_open(struct reader **out, const char *name, uint64_t size, struct err *e);

#endif
