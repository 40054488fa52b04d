/*
 * Room 1: bytes in. A file, a block device, or memory (for tests). Knows descriptors and positions;
 * must not know runs or formats. All offsets and lengths are bytes.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "base.h"

#include <sys/stat.h>

struct source {
	char *name;    /* printable; for messages */
	uint64_t size; /* bytes */
	int fd;        /* positioned reads may be sent to it directly; -1: only source_read() */
	struct stat st;
	/* private to source.c */
	const uint8_t *mem;
	uint64_t data, hole; /* what SEEK_DATA and SEEK_HOLE last said: data in [data, hole) */
	uint64_t since;      /* and no data in [since, data) */
};

/* Opens a regular file or a block device for reading. Anything else is refused without being waited
 * for. -errno. */
int source_open(struct source **out, const char *path, struct err *e);
/* The same for dir/file; -EXDEV when anything in `file`, a symbolic link too, leads out of dir. */
int source_open_beneath(struct source **out, const char *dir, const char *file, struct err *e);
/* Over the caller's memory, which has to outlive it. */
int source_memory(struct source **out, const char *name, const void *mem, uint64_t size,
		  struct err *e);
/* NULL-safe. */
void source_free(struct source *s);
/* Exactly n bytes at off. -EBADMSG when they do not all lie inside the file, or -errno; `what` names
 * the object in the message. */
int source_read(struct source *s, uint64_t off, void *buf, size_t n, const char *what,
		struct err *e);
/* Whether the range is known to be a hole of the file: it reads as zeros. */
bool source_is_hole(struct source *s, uint64_t off, uint64_t n);
/* Where the stretch of data, or of hole, that begins at off < size ends; *hole says which it is. */
uint64_t source_stretch(struct source *s, uint64_t off, bool *hole);
/* The range will be read soon. */
void source_hint(struct source *s, uint64_t off, uint64_t n);

#endif
