/* SPDX-License-Identifier: MIT */
/*
 * A checkpoint: a small file that says up to where an apply is durable, of which input and onto which target,
 * so that the same command goes on there. Knows chains, targets and that file; must not know options, nor
 * print. Called by vmdksync.c. All numbers are bytes.
 *
 * The file is one line each of what it is, the input, the target, the position, and a checksum. It is replaced
 * as a whole, never written to.
 */
#ifndef RESUME_H
#define RESUME_H

#include "jobs/jobs.h"

struct checkpoint {
	bool stream;         /* the input: a plain disk from a stream; else files in guest order */
	uint64_t size;       /* of the disk */
	uint64_t input;      /* checksum of what tells its files; 0 for a stream */
	char kind[8];        /* the target: see struct target */
	uint64_t target_size;
	uint64_t id;         /* inode of a file, number of a device, checksum of an NBD URI */
	uint64_t seq, boot;  /* of a device: the kernel's number of this use of it, since which start */
	uint64_t durable;    /* all before this guest byte is on stable storage */
	uint64_t restart;    /* a stream has to begin here; else 0 */
};

#define CHECKPOINT_MOST 512u /* bytes of the file */

/* The text into buf; its length. */
size_t checkpoint_text(char buf[CHECKPOINT_MOST], const struct checkpoint *c);
/* false: is none, or damaged. */
bool checkpoint_parse(struct checkpoint *c, const char *text, size_t n);

struct resume;

/* Reads the checkpoint where there is one; -EINVAL: FILE is something else, or damaged. */
int resume_open(struct resume **out, const char *path, struct err *e);
/* What it said; NULL where there was none. */
const struct checkpoint *resume_found(const struct resume *r);
/* Of the file; printable. */
const char *resume_name(const struct resume *r);
/* Up to where all is durable by now. */
uint64_t resume_reached(const struct resume *r);
/*
 * Before the first write, with the target locked: whether the checkpoint found is of this input and target,
 * and target holds what it says. choices: of the options, what changes the runs. Of a stream the first bytes
 * are compared with what the target holds there; of files the last bytes before the position. c->reader is
 * rewound. *skipped: bytes of the runs before the position. -EINVAL; -errno.
 */
int resume_check(struct resume *r, struct chain *c, struct target *t, uint64_t choices,
		 const struct pump_opts *pump, uint64_t *skipped, struct err *e);
/* Writes the first checkpoint, unless one was found. -EEXIST: the file was made meanwhile. */
int resume_begin(struct resume *r, struct err *e);
/* Gives the runs of c->reader from the position on. */
struct reader *resume_tap(struct resume *r);
/* A pump_opts.durable: has the checkpoint renewed, by a thread. What fails is warned of once, by e of
 * resume_check(). */
void resume_durable(void *r, uint64_t off);
/* Nothing more is written: the file says what is durable. */
void resume_settle(struct resume *r);
/* All is durable: removes the checkpoint. */
int resume_end(struct resume *r, struct err *e);
/* NULL-safe. untouched: the target is as it was, and a checkpoint that was made since is removed. */
void resume_free(struct resume *r, bool untouched);

#endif
