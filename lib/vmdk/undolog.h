/* SPDX-License-Identifier: MIT */
/*
 * Private to undo.c, which writes an undo log, and undoresume.c, which resumes one.
 */
#ifndef UNDOLOG_H
#define UNDOLOG_H

#include "vmdk/layout.h"
#include "vmdk/undo.h"
#include "vmdk/undonote.h"

/* Small, so that a scattered sector costs one of these and not 64 KiB; doubled until the directory
 * has no more entries than readers take. */
#define GRAIN_LEAST 4096u
#define GRAIN_MOST 32768u
#define TABLES_MAX (UINT64_C(1) << 22)
#define TABLE_SECTORS (UNDO_TABLE * 4 / SECTOR)
#define OVERHEAD 128u /* sectors before the first marker */
#define DESC_SECTORS 20u
#define CACHED 4096u /* tables in memory: a table has one place there, by its number */
#define BUFFER (1u << 20)
#define STORED_HEAD 7u  /* two bytes of zlib, five of a stored block */
#define STORED_TAIL 4u  /* Adler-32 */
#define SAMPLES_TOGETHER 16u
/* Tables that are read to find a grain that was not saved. */
#define TABLES_TRIED 64u
#define SECTORS_MAX UINT32_MAX /* of the log: what an entry of a table can say */

struct table {
	uint64_t number; /* UINT64_MAX: none */
	bool dirty;
	uint32_t entry[UNDO_TABLE]; /* file sector of each grain's marker, 0: not saved */
};

struct undo {
	char *name;
	int fd;
	uint64_t size, grain, tables;
	uint32_t *dir;       /* file sector of each table that has left the cache; 0: none */
	struct table *cache; /* CACHED of them */
	uint8_t *buf;        /* BUFFER bytes, of which `used` are to be appended at `end` */
	size_t used;
	uint64_t end;
	uint8_t *zeros;      /* a grain of zeros, compressed */
	uint32_t zeros_len;
	bool unsynced;       /* something was appended after the last barrier */
	bool want_mark;      /* the next record comes behind a barrier, and says so */
	uint32_t sample[UNDO_SAMPLES]; /* checksums of the disk as it was; 0: not known */
	char *desc;               /* the descriptor: DESC_SECTORS, and a NUL */
	bool listed;              /* it has a list of samples */
	struct undo_opts opts;
	int failed;
};

static inline void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static inline uint64_t sectors_of(uint64_t bytes)
{
	return div_up(bytes, SECTOR);
}

/* undo.c */

int undo_write_at(struct undo *u, const void *buf, size_t n, uint64_t off, struct err *e);
int undo_flush(struct undo *u, struct err *e);
int undo_find_entry(struct undo *u, uint64_t grain, bool make, uint32_t **entry, struct err *e);
int undo_set_entry(struct undo *u, uint64_t grain, uint64_t sector, struct err *e);
void undo_make_header(const struct undo *u, uint8_t *h, uint64_t dir, bool open);

/* undoresume.c */

uint64_t undo_sample_grain(const struct undo *u, unsigned i);
int undo_take_samples(struct undo *u, struct err *e);
int undo_check_samples(struct undo *u, struct err *e);
int undo_list_unsaved(struct undo *u, struct err *e);
int undo_read_note(struct undo *u, struct err *e);
int undo_resume(struct undo *u, const char *path, struct err *e);
bool undo_hardly_begun(const struct undo *u);

#endif
