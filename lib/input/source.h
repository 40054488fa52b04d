/*
 * Room 1: bytes in. A file, a block device, a pipe, or memory (for tests). Knows descriptors and
 * positions; must not know runs or formats. All offsets and lengths are bytes.
 *
 * What comes through a pipe or a socket (plain, or gzip, which is unpacked) passes once. A source
 * that is `passing` holds the last windows of it: source_read() finds there what has not been
 * released. It moves on only as far as room is; whoever asks for more makes it take everything that
 * is still to come into the spool, an unlinked sparse file with the same offsets, and the source is
 * a file like others from then on.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "base/base.h"

#include <sys/stat.h>

/* What tells whether a file was written to. */
struct source_stamp {
	uint64_t size;
	int64_t mtime, ctime; /* seconds, */
	uint32_t mtime_ns, ctime_ns;
	bool made_up; /* the times are those of the clock when they are asked for */
};

/* Why bytes of a stream were spooled; see spool_reason_text(). */
enum spool_reason { SPOOL_NONE, SPOOL_ASKED, SPOOL_TABLES, SPOOL_MEMORY, SPOOL_AHEAD, SPOOL_LOG, SPOOL_RECORDS };

struct source {
	char *name;    /* printable; for messages */
	uint64_t size; /* bytes */
	int fd;        /* positioned reads may be sent to it directly; -1: only source_read() */
	struct stat st;
	bool passing;  /* see above; size is more than any file has until the end has come */
	bool piped;    /* is passing, or was */
	uint64_t spooled; /* data bytes that went to the spool, */
	enum spool_reason spool_reason; /* and why, the last time */
	/* private to source.c */
	struct source_stamp stamp; /* when it was opened; */
	int stamp_fd;              /* of what; -1: of nothing */
	const uint8_t *mem;
	uint64_t data, hole; /* what SEEK_DATA and SEEK_HOLE last said: data in [data, hole) */
	uint64_t since;      /* and no data in [since, data) */
	struct stream *flow;
	char *spool_dir;
	int spool;
	uint64_t spool_end;
	uint64_t expect;
};

struct source_opts {
	const char *spool; /* folder of the spool; NULL: $TMPDIR, else /var/tmp */
	bool spool_first;  /* take in everything before anything is looked at */
	uint64_t expect;   /* bytes that have to come, unpacked; 0: not known */
	/* asked while waiting for a pipe: true gives up, with -EINTR. NULL: never. */
	bool (*stop)(void *arg);
	void *arg;
	size_t window; /* for tests, see stream.h; 32 KiB at least, which file_order.c relies on */
};

/* Opens a regular file or a block device for reading. Anything else is refused without being waited
 * for. -errno. */
int source_open(struct source **out, const char *path, struct err *e);
/* As source_open(), but "-" (standard input), a FIFO and a socket will do, too. */
int source_open_any(struct source **out, const char *path, const struct source_opts *o,
		    struct err *e);
/* The same as source_open() for dir/file; -EXDEV when anything in `file`, a symbolic link too, leads out of dir. */
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
/* Whether a regular file still is as it was when it was opened, by its size, mtime and ctime: to be asked
 * when all was read. 0; -ESTALE; -errno. Devices and pipes always are. */
int source_unchanged(const struct source *s, struct err *e);
/* Whether the range is known to be a hole of the file: it reads as zeros. */
bool source_is_hole(struct source *s, uint64_t off, uint64_t n);
/* Where the stretch of data, or of hole, that begins at off < size ends; *hole says which it is. */
uint64_t source_stretch(struct source *s, uint64_t off, bool *hole);
/* The range will be read soon. */
void source_hint(struct source *s, uint64_t off, uint64_t n);
/* How many bytes there are, at most `most`; on a pipe waits for as many, or for the end. -errno where
 * that is no end but a failure. */
int source_some(struct source *s, size_t most, size_t *n, struct err *e);

/* The rest is for who reads a passing source in file order. */

bool source_is_gzip(const struct source *s);
/* Whether the sender had sent what was expected, and kept the pipe open: that was not waited for. */
bool source_kept_open(const struct source *s);
/* Whether that is standard input under one of its names. */
bool source_is_stdin(const char *path);
size_t source_window(const struct source *s);
/* Bytes that are held at once, from the beginning of the window on that something lies in: what has
 * to be there as a whole may begin at the end of that window. */
uint64_t source_room(const struct source *s);
/* Bytes that have come in all. */
uint64_t source_came(const struct source *s);
/* No byte from here on can come, as far as anyone has said. */
uint64_t source_limit(const struct source *s);
/* Waits until the bytes before `end` have come, or no more will; end lies no further than all windows
 * behind the last release. *have: how many have come in all. -EINTR. */
int source_ahead(struct source *s, uint64_t end, uint64_t *have, struct err *e);
/* Where byte `off` stands, which has come and is not released; *n: how many follow without a break. */
const uint8_t *source_at(struct source *s, uint64_t off, size_t *n);
/* Nothing before `off` will be asked for, but what was spooled. Only whole windows go. */
void source_release(struct source *s, uint64_t off);
/* Bytes [off, end) pass, whether they are wanted or not. *have as above: less than end when there are
 * no more. */
int source_skip(struct source *s, uint64_t end, uint64_t *have, struct err *e);
/* Copies held bytes into the spool, where source_read() finds them after they were released. */
int source_spool(struct source *s, uint64_t off, size_t n, enum spool_reason why, struct err *e);
/* Everything that is held, and still to come, goes into the spool; the source is passing no more.
 * -errno only when the spool or the memory fails: an early end shows in size, and in
 * source_finish(). */
int source_spool_rest(struct source *s, enum spool_reason why, struct err *e);
/* The same, and checks the end, as source_finish(). */
int source_spool_all(struct source *s, enum spool_reason why, struct err *e);
/* For people: "tables behind their grains". NULL where nothing was spooled. */
const char *spool_reason_text(const struct source *s);
/* Reads to the end, however much it is. -errno when the stream broke off, or is shorter than it was
 * expected to be. *size: what came in all. Does nothing for files. */
int source_finish(struct source *s, uint64_t *size, struct err *e);
/* -EBADMSG: it ended after s->size bytes, in the middle of `what`; at least `need` had to come. */
int source_short(struct source *s, const char *what, uint64_t need, struct err *e);

#endif
