/* SPDX-License-Identifier: MIT */
/*
 * Input: a file, a block device, a stream, or memory (for tests). Must not know runs or formats. Opened by
 * chain/image.c, read by leaf readers and by the pump. All offsets and lengths are bytes.
 *
 * A pipe or a socket (plain, or gzip, which is inflated) is a stream: it is read once. While a source is
 * `streaming` it holds the last windows of its stream, and source_read() finds there what has not been
 * released. To ask for bytes behind all windows spools the whole rest: an unlinked sparse file with the
 * same offsets takes it, and the source is a file like others from then on.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "input/stream.h"

/* What tells whether a file was written to. */
struct source_stamp {
	uint64_t size;
	int64_t mtime, ctime; /* seconds, */
	uint32_t mtime_ns, ctime_ns;
	bool made_up; /* the times are those of the clock when they are asked for */
};

/* A file that ends before it should. Where its host is gone sshfs may give the end of the file, not an error. */
#define SOURCE_SHORTER                                                                             \
	"the file became shorter while it was read, or the connection to its host was lost"

/* Why bytes of a stream were spooled; see spool_reason_text(). */
enum spool_reason { SPOOL_NONE, SPOOL_ASKED, SPOOL_TABLES, SPOOL_MEMORY, SPOOL_AHEAD, SPOOL_LOG, SPOOL_RECORDS };

struct source {
	char *name;    /* printable; for messages */
	uint64_t size; /* bytes */
	int fd;        /* positioned reads may be sent to it directly; -1: only source_read() */
	struct stat st;
	bool streaming;  /* see above; size is more than any file has until the end has come */
	bool piped;    /* is streaming, or was */
	uint64_t spooled; /* data bytes that went to the spool, */
	enum spool_reason spool_reason; /* and why, the last time */
	/* private to source.c */
	struct source_stamp stamp; /* when it was opened; */
	int stamp_fd;              /* of what; -1: of nothing */
	const uint8_t *mem;
	uint64_t data, hole; /* what SEEK_DATA and SEEK_HOLE last said: data in [data, hole) */
	uint64_t since;      /* and no data in [since, data) */
	struct stream *flow;
	const char *spool_dir;
	int spool;
	uint64_t spool_end;
	uint64_t expect;
};

struct source_opts {
	const char *spool; /* folder of the spool, has to outlive the source; NULL: $TMPDIR, else /var/tmp */
	bool spool_first;  /* take in everything before anything is looked at */
	struct stream_opts stream; /* window: 32 KiB at least, which file_order.c relies on */
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
/* Whether its times are those of the clock whenever it is asked, and tell nothing. */
bool source_times_made_up(const struct source *s);
/* Whether the range is known to be a hole of the file: it reads as zeros. */
bool source_is_hole(struct source *s, uint64_t off, uint64_t n);
/* Where the range of data, or the hole, that begins at off < size ends; *hole says which it is. */
uint64_t source_range(struct source *s, uint64_t off, bool *hole);
/* The range will be read soon. */
void source_hint(struct source *s, uint64_t off, uint64_t n);
/* The first bytes, at most `most`; *n: how many there are. A stream is waited for until it has as many, or
 * ends; bytes behind the expected ones do not count. */
int source_head(struct source *s, void *buf, size_t most, size_t *n, struct err *e);

/* --- for readers of a stream, in file order --- */

bool source_is_gzip(const struct source *s);
/* Whether all expected bytes were received, but no end: the sender kept the pipe open. */
bool source_kept_open(const struct source *s);
/* Whether path is one of the names of standard input. */
bool source_is_stdin(const char *path);
size_t source_window(const struct source *s);
/* Bytes that are held at once, from the beginning of a window on. */
uint64_t source_room(const struct source *s);
/* Bytes received so far. */
uint64_t source_received(const struct source *s);
/* The size of the stream where it is known, else a number that none reaches. */
uint64_t source_limit(const struct source *s);
/* Waits until the bytes before `end` are received, or the stream ends; end lies no further than
 * source_room() behind the last release. *have: how many bytes were received so far. -EINTR. */
int source_ahead(struct source *s, uint64_t end, uint64_t *have, struct err *e);
/* Where byte `off`, received and not released, lies in memory; *n: how many bytes follow there. */
const uint8_t *source_at(struct source *s, uint64_t off, size_t *n);
/* The bytes before `off` are not needed any more, unless they were spooled. Only whole windows are freed. */
void source_release(struct source *s, uint64_t off);
/* Receives and releases everything before `end`. *have as above: less than end where the stream ends. */
int source_skip(struct source *s, uint64_t end, uint64_t *have, struct err *e);
/* Copies held bytes into the spool, where source_read() finds them after they were released. */
int source_spool(struct source *s, uint64_t off, size_t n, enum spool_reason why, struct err *e);
/* Everything that is held, and still to come, goes into the spool; the source is streaming no more.
 * -errno only when the spool or the memory fails: an early end shows in size, and in
 * source_finish(). */
int source_spool_rest(struct source *s, enum spool_reason why, struct err *e);
/* The same, and checks the end, as source_finish(). */
int source_spool_all(struct source *s, enum spool_reason why, struct err *e);
/* For people: "tables behind their grains". NULL where nothing was spooled. */
const char *spool_reason_text(const struct source *s);
/* Reads to the end, however much it is. -errno when the stream broke off, or is shorter than it was
 * expected to be. *size: bytes received in all. Does nothing for files. */
int source_finish(struct source *s, uint64_t *size, struct err *e);
/* Why a stream that came to its end ended: 0 as it should, or -errno. */
int source_error(const struct source *s, struct err *e);
/* -EBADMSG: the stream is truncated in the middle of `what`; it needs at least `need` bytes. */
int source_short(struct source *s, const char *what, uint64_t need, struct err *e);

#endif
