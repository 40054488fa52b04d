/* SPDX-License-Identifier: MIT */
#include "input/source.h"
#include "input/beneath.h"
#include "input/spool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

static int source_new(struct source **out, const char *name, struct err *e)
{
	struct source *s = calloc(1, sizeof(*s));

	if (s)
		s->name = name_text(name);
	if (!s || !s->name) {
		free(s);
		return fail(e, ENOMEM, "out of memory");
	}
	s->fd = s->spool = s->stamp_fd = -1;
	*out = s;
	return 0;
}

static int no_image(const struct source *s, mode_t mode, struct err *e)
{
	return fail(e, EINVAL, "%s: is %s, no image can be read from it", s->name,
		    S_ISDIR(mode)    ? "a directory"
		    : S_ISFIFO(mode) ? "a FIFO"
		    : S_ISSOCK(mode) ? "a socket"
		    : S_ISCHR(mode)  ? "a character device"
				     : "no regular file");
}

/*
 * QEMU's FUSE export says of every file that it was read and written just now, whenever it is asked. Of
 * a file that is really written only two of these times move.
 */
static bool made_up(int fd, const struct statx *sx)
{
	const struct statx_timestamp *m = &sx->stx_mtime;
	const int64_t now = time(NULL);
	struct statfs fs;

	return !memcmp(m, &sx->stx_atime, sizeof(*m)) && !memcmp(m, &sx->stx_ctime, sizeof(*m)) &&
	       !m->tv_nsec && m->tv_sec >= now - 2 && m->tv_sec <= now + 2 && fstatfs(fd, &fs) == 0 &&
	       fs.f_type == FUSE_SUPER_MAGIC;
}

/* Asks the server of a network file system, too. */
static int take_stamp(int fd, struct source_stamp *t)
{
	struct statx sx;
	struct stat st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &sx) == 0) {
		*t = (struct source_stamp){sx.stx_size, sx.stx_mtime.tv_sec, sx.stx_ctime.tv_sec,
					   sx.stx_mtime.tv_nsec, sx.stx_ctime.tv_nsec,
					   made_up(fd, &sx)};
		return 0;
	}
	if ((errno != ENOSYS && errno != EPERM && errno != EINVAL) || fstat(fd, &st) < 0)
		return -errno;
	*t = (struct source_stamp){(uint64_t)st.st_size, st.st_mtim.tv_sec, st.st_ctim.tv_sec,
				   (uint32_t)st.st_mtim.tv_nsec, (uint32_t)st.st_ctim.tv_nsec, false};
	return 0;
}

int source_unchanged(const struct source *s, struct err *e)
{
	const struct source_stamp *was = &s->stamp;
	struct source_stamp now;
	int r;

	if (s->stamp_fd < 0)
		return 0;
	r = take_stamp(s->stamp_fd, &now);
	if (r < 0)
		return fail(e, -r, "%s: whether it was changed while it was read: %s", s->name,
			    strerror(-r));
	if (now.size == was->size &&
	    ((now.made_up && was->made_up) ||
	     (now.mtime == was->mtime && now.mtime_ns == was->mtime_ns &&
	      now.ctime == was->ctime && now.ctime_ns == was->ctime_ns)))
		return 0;
	return fail(e, ESTALE,
		    "%s: changed while it was read" HINT ": is it still being copied, or is the VM still "
		    "running? (--force=changed accepts it)", s->name);
}

bool source_times_made_up(const struct source *s)
{
	return s->stamp.made_up;
}

/* Whether it is read once. A regular file that stands at its beginning is like any other, but for gzip. */
static bool is_stream(int fd, const struct stat *st, const struct source_opts *o)
{
	uint8_t head[2];

	if (!S_ISREG(st->st_mode))
		return !S_ISBLK(st->st_mode) && !S_ISDIR(st->st_mode);
	return lseek(fd, 0, SEEK_CUR) != 0 ||
	       (!o->stream.plain && pread(fd, head, 2, 0) == 2 && head[0] == 0x1f && head[1] == 0x8b);
}

static int begin_stream(struct source *s, const struct source_opts *o, struct err *e)
{
	const int fd = s->fd;
	int r;

	if (isatty(fd))
		return fail(e, EINVAL, "%s: is a terminal; send the delta through a pipe", s->name);
	s->spool_dir = spool_folder(o->spool);
	s->streaming = s->piped = true;
	/* the stream closes fd no sooner than the source is freed */
	if (S_ISREG(s->st.st_mode) && take_stamp(fd, &s->stamp) == 0)
		s->stamp_fd = fd;
	s->expect = o->stream.expect;
	s->size = s->expect ? s->expect : POS_LIMIT;
	s->fd = -1;
	r = stream_start(&s->flow, fd, s->name, &o->stream, e);
	return r < 0 || !o->spool_first ? r : source_spool_all(s, SPOOL_ASKED, e);
}

/* What it is, and how large. o: it may be a stream. */
static int look_at(struct source *s, const struct source_opts *o, struct err *e)
{
	int r = fstat(s->fd, &s->st) < 0 ? -errno : 0, flags;

	if (!r && o && is_stream(s->fd, &s->st, o))
		return begin_stream(s, o, e);
	if (!r && !S_ISREG(s->st.st_mode) && !S_ISBLK(s->st.st_mode))
		return no_image(s, s->st.st_mode, e);
	if (!r && S_ISBLK(s->st.st_mode)) {
		if (ioctl(s->fd, BLKGETSIZE64, &s->size) < 0)
			return fail(e, errno, "%s: size of the device: %s", s->name, strerror(errno));
	} else if (!r) {
		r = take_stamp(s->fd, &s->stamp);
		s->stamp_fd = s->fd;
		s->size = (uint64_t)s->st.st_size;
	}
	if (s->size > POS_LIMIT)
		return fail(e, EFBIG, "%s: %" PRIu64 " bytes are more than can be addressed",
			    s->name, s->size);
	/* or the ring answers EAGAIN where it could wait */
	flags = fcntl(s->fd, F_GETFL);
	if (!r && (flags & O_NONBLOCK) && fcntl(s->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		r = -errno;
	return r < 0 ? fail(e, -r, "%s: %s", s->name, strerror(-r)) : 0;
}

/* Takes fd over, which is -errno where it could not be opened; -ENOTSUP: `st` tells why. */
static int source_fd(struct source **out, const char *path, int fd, const struct stat *st,
		     const struct source_opts *o, struct err *e)
{
	struct source *s = NULL;
	int r = source_new(&s, path, e);

	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	s->fd = fd;
	if (fd >= 0)
		r = look_at(s, o, e);
	else if (fd == -ENOTSUP && st->st_mode && !S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		r = no_image(s, st->st_mode, e);
	else if (fd == -EXDEV)
		r = fail(e, EXDEV, "%s: leads out of its folder, which --confine forbids", s->name);
	else
		r = fail(e, -fd, "%s: %s", s->name, strerror(-fd));
	if (r < 0)
		source_free(s);
	else
		*out = s;
	return r;
}

int source_open(struct source **out, const char *path, struct err *e)
{
	struct stat st = {0};

	return source_fd(out, path, open_path(path, false, &st), &st, NULL, e);
}

int source_open_beneath(struct source **out, const char *dir, const char *file, struct err *e)
{
	char *path = path_in(dir, file);
	struct stat st = {0};
	int r;

	if (!path)
		return fail(e, ENOMEM, "out of memory");
	r = source_fd(out, path, open_beneath(dir, file, &st), &st, NULL, e);
	free(path);
	return r;
}

int source_memory(struct source **out, const char *name, const void *mem, uint64_t size,
		  struct err *e)
{
	int r = source_new(out, name, e);

	if (r < 0)
		return r;
	(*out)->mem = mem;
	(*out)->size = size;
	return 0;
}

void source_free(struct source *s)
{
	if (!s)
		return;
	stream_free(s->flow);
	if (s->spool >= 0)
		close(s->spool);
	if (s->fd >= 0 && s->fd != s->spool)
		close(s->fd);
	free(s->name);
	free(s);
}

static int outside(const struct source *s, uint64_t off, size_t n, const char *what, struct err *e)
{
	return fail_with(e, EBADMSG, TRUNCATED(s->size, off + n), "%s: " OBJECT("%s") " lies outside the "
			 "file (bytes %" PRIu64 " to %" PRIu64 " of %" PRIu64 ")" HINT ": is it "
			 "truncated? expected at least %" PRIu64 " bytes", s->name, what, off, off + n,
			 s->size, off + n);
}

static int read_fd(const struct source *s, int fd, uint64_t off, void *buf, size_t n,
		   const char *what, struct err *e)
{
	const ssize_t got = read_full(fd, buf, n, off);

	if (got < 0)
		return fail_with(e, (int)-got, FACTS(AT_BYTE(off)),
				 "%s: reading " OBJECT("%s") " at byte %" PRIu64 ": %s", s->name, what,
				 off, strerror((int)-got));
	if ((size_t)got < n)
		return fail_with(e, EBADMSG, FACTS(.code = ERR_CHANGED, AT_BYTE(off + (size_t)got)),
				 "%s: " OBJECT("%s") " at byte %" PRIu64 ": %s", s->name, what,
				 off + (size_t)got, SOURCE_SHORTER);
	return 0;
}

static int wait_for(struct source *s, uint64_t end, uint64_t *have, struct err *e)
{
	int r = stream_wait(s->flow, end, have, e);

	if (!r && *have < end) /* that was all */
		__atomic_store_n(&s->size, *have, __ATOMIC_RELAXED);
	return r;
}

static int read_streaming(struct source *s, uint64_t off, uint8_t *buf, size_t n, const char *what,
			struct err *e)
{
	const uint64_t low = stream_low(s->flow);
	uint64_t have;
	int r;

	/* what was spooled may go on in what is still in memory */
	if (s->spool >= 0 && off < low) {
		size_t gone = (size_t)min_u64(n, low - off);

		r = read_fd(s, s->spool, off, buf, gone, what, e);
		if (r || gone == n)
			return r;
		off += gone;
		buf += gone;
		n -= gone;
	}
	if (off < low)
		return fail(e, EBADMSG, "%s: %s at byte %" PRIu64 " has passed already", s->name,
			    what, off);
	r = wait_for(s, off + n, &have, e);
	if (r < 0)
		return r;
	if (have < off + n)
		return source_short(s, what, off + n, e);
	while (n) {
		size_t here;
		const uint8_t *p = source_at(s, off, &here);

		if (here > n)
			here = n;
		memcpy(buf, p, here);
		buf += here;
		off += here;
		n -= here;
	}
	return 0;
}

int source_read(struct source *s, uint64_t off, void *buf, size_t n, const char *what,
		struct err *e)
{
	/* one thread waits for more bytes while others read those received */
	const uint64_t size = __atomic_load_n(&s->size, __ATOMIC_RELAXED);
	int r;

	if (off > size || n > size - off)
		return outside(s, off, n, what, e);
	if (s->mem) {
		memcpy(buf, s->mem + off, n);
		return 0;
	}
	if (s->streaming && off + n > stream_low(s->flow) + stream_room(s->flow)) {
		r = source_spool_all(s, SPOOL_AHEAD, e);
		if (r < 0)
			return r;
		if (off > s->size || n > s->size - off)
			return outside(s, off, n, what, e);
	}
	return s->streaming ? read_streaming(s, off, buf, n, what, e)
			  : read_fd(s, s->fd, off, buf, n, what, e);
}

int source_head(struct source *s, void *buf, size_t most, size_t *n, struct err *e)
{
	uint64_t have = s->size;
	int r = s->streaming ? stream_wait(s->flow, min_u64(most, stream_room(s->flow)), &have, e) : 0;

	if (!r && s->streaming && have < most) /* why it ends here */
		r = stream_error(s->flow, e);
	*n = (size_t)min_u64(most, min_u64(have, s->size));
	return r < 0 ? r : source_read(s, 0, buf, *n, "first bytes", e);
}

/* Whether the file still is as long as it was. */
static bool source_is_whole(const struct source *s)
{
	struct stat st;

	return fstat(s->fd, &st) == 0 &&
	       (!S_ISREG(st.st_mode) || (uint64_t)st.st_size >= s->size);
}

bool source_is_hole(struct source *s, uint64_t off, uint64_t n)
{
	if (s->fd < 0 || !S_ISREG(s->st.st_mode) || off >= s->size)
		return false;
	if (!s->hole && lseek(s->fd, 0, SEEK_HOLE) >= (off_t)s->size)
		s->hole = s->size; /* there is none: never ask again */
	if (off < s->since || off >= s->hole) {
		const off_t data = lseek(s->fd, (off_t)off, SEEK_DATA);
		const off_t hole = data < 0 ? -1 : lseek(s->fd, data, SEEK_HOLE);

		s->since = off;
		s->data = s->hole = s->size;
		if (data >= 0)
			s->data = (uint64_t)data;
		else if (errno != ENXIO || !source_is_whole(s))
			/* no such knowledge here, or the file became shorter, which to read says: all is data */
			s->since = s->data = 0;
		if (hole > data)
			s->hole = (uint64_t)hole;
	}
	return off < s->data && n <= s->data - off;
}

uint64_t source_range(struct source *s, uint64_t off, bool *hole)
{
	*hole = source_is_hole(s, off, 1);
	if (s->fd < 0 || !S_ISREG(s->st.st_mode))
		return s->size;
	return *hole ? s->data : min_u64(s->hole, s->size);
}

void source_hint(struct source *s, uint64_t off, uint64_t n)
{
	if (s->fd >= 0)
		posix_fadvise(s->fd, (off_t)off, (off_t)n, POSIX_FADV_WILLNEED);
}

/* --- streams ------------------------------------------------------------------------------------- */

bool source_is_stdin(const char *path)
{
	static const char *const name[] = {"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"};

	for (size_t i = 0; i < sizeof(name) / sizeof(*name); i++)
		if (!strcmp(path, name[i]))
			return true;
	return false;
}

/* What cannot be read has been closed: main() puts something write-only there. */
static int standard_input(void)
{
	if ((fcntl(STDIN_FILENO, F_GETFL) & O_ACCMODE) == O_WRONLY) {
		errno = EBADF;
		return -1;
	}
	return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
}

int source_open_any(struct source **out, const char *path, const struct source_opts *o,
		    struct err *e)
{
	const bool standard = source_is_stdin(path);
	const uint64_t expect = o->stream.expect;
	struct source *s;
	struct stat st = {0};
	/* to open a FIFO like this does not wait for its writer; to read from it does */
	int fd = standard ? standard_input() : open_path(path, true, &st), r;

	if (fd < 0 && standard)
		return fail(e, errno, "standard input: is closed (%s)", strerror(errno));
	r = source_fd(&s, standard ? "standard input" : path, fd, &st,
		      standard || S_ISFIFO(st.st_mode) ? o : NULL, e);
	if (r < 0)
		return r;
	if (!s->piped && expect && s->size != expect) {
		r = fail_with(e, EBADMSG,
			      FACTS(.code = s->size < expect ? ERR_TRUNCATED : ERR_WRONG_SIZE,
				    SIZES(s->size, expect)),
			      "%s: has %" PRIu64 " byte%s, but %" PRIu64 " were expected",
			      s->name, s->size, plural(s->size), expect);
		source_free(s);
		return r;
	}
	*out = s;
	return 0;
}

bool source_is_gzip(const struct source *s)
{
	return s->flow && stream_gzip(s->flow);
}

bool source_kept_open(const struct source *s)
{
	return s->flow && stream_kept_open(s->flow);
}

uint64_t source_limit(const struct source *s)
{
	return s->expect ? s->expect : POS_LIMIT;
}

uint64_t source_received(const struct source *s)
{
	uint64_t have = s->size;

	if (s->streaming)
		stream_wait(s->flow, 0, &have, NULL); /* which is nothing to wait for */
	return have;
}

size_t source_window(const struct source *s)
{
	return stream_window(s->flow);
}

uint64_t source_room(const struct source *s)
{
	return stream_room(s->flow);
}

int source_ahead(struct source *s, uint64_t end, uint64_t *have, struct err *e)
{
	/* asked here, too: where the sender is always faster than we are nobody waits */
	int r = stream_ask_stop(s->flow, e);

	return r < 0 ? r : wait_for(s, end, have, e);
}

const uint8_t *source_at(struct source *s, uint64_t off, size_t *n)
{
	return stream_at(s->flow, off, n);
}

void source_release(struct source *s, uint64_t off)
{
	stream_release(s->flow, off);
}

int source_skip(struct source *s, uint64_t end, uint64_t *have, struct err *e)
{
	const uint64_t window = stream_window(s->flow);
	int r;

	for (;;) {
		uint64_t to = min_u64(end, stream_low(s->flow) + window);

		r = source_ahead(s, to, have, e);
		if (r < 0 || *have < to || to == end)
			return r;
		source_release(s, to);
	}
}

int source_spool(struct source *s, uint64_t off, size_t n, enum spool_reason why, struct err *e)
{
	int r = s->spool < 0 ? spool_open(s->spool_dir, s->name, e) : 0;

	if (r < 0)
		return r;
	if (s->spool < 0)
		s->spool = r;
	s->spool_reason = why;
	/* so that a hole at the end is there, too */
	if (off + n > s->spool_end) {
		s->spool_end = off + n;
		if (ftruncate(s->spool, (off_t)s->spool_end) < 0)
			return fail(e, errno, "%s: the spool in %s: %s", s->name, s->spool_dir,
				    strerror(errno));
	}
	for (size_t here; n; off += here, n -= here) {
		const uint8_t *p = source_at(s, off, &here);

		here = here < n ? here : n;
		r = spool_write(s->spool, p, here, off, &s->spooled);
		if (r < 0)
			return fail(e, -r, "%s: the spool in %s cannot take %zu more bytes after "
				    "%" PRIu64 ": %s" HINT "; --spool names another folder", s->name,
				    s->spool_dir, here, s->spooled, strerror(-r));
	}
	return 0;
}

int source_spool_rest(struct source *s, enum spool_reason why, struct err *e)
{
	const uint64_t window = stream_window(s->flow);
	uint64_t have = 0;
	int r = source_spool(s, 0, 0, why, e); /* it is there even if nothing follows */

	while (!r) {
		uint64_t low = stream_low(s->flow), to = low + window;

		r = source_ahead(s, to, &have, e);
		if (r < 0)
			return r;
		r = source_spool(s, low, (size_t)(min_u64(have, to) - low), why, e);
		if (have < to)
			break;
		source_release(s, to);
	}
	if (r < 0)
		return r;
	if (fstat(s->spool, &s->st) < 0)
		return fail(e, errno, "%s: the spool: %s", s->name, strerror(errno));
	s->size = have;
	s->streaming = false;
	s->fd = s->spool;
	return 0;
}

int source_spool_all(struct source *s, enum spool_reason why, struct err *e)
{
	uint64_t size;
	int r = source_spool_rest(s, why, e);

	return r < 0 ? r : source_finish(s, &size, e);
}

const char *spool_reason_text(const struct source *s)
{
	static const char *const text[] = {
		[SPOOL_ASKED] = "--spool-first",
		[SPOOL_TABLES] = "tables behind their grains",
		[SPOOL_MEMORY] = "more pending grains than --memory allows",
		[SPOOL_AHEAD] = "metadata far behind the header",
		[SPOOL_LOG] = "an unfinished undo log",
		[SPOOL_RECORDS] = "compressed grains larger than a window",
	};

	return s->spooled ? text[s->spool_reason] : NULL;
}

int source_finish(struct source *s, uint64_t *size, struct err *e)
{
	int r = 0;

	*size = s->size;
	if (!s->piped)
		return 0;
	if (s->streaming)
		r = source_skip(s, UINT64_MAX, size, e);
	s->size = *size;
	if (!r)
		r = stream_error(s->flow, e);
	if (!r && s->expect && *size < s->expect)
		r = source_short(s, "the file", s->expect, e);
	if (!r && s->expect && *size > s->expect)
		r = warning(e, "%s: %" PRIu64 " bytes were received, but %" PRIu64 " %s expected: did the "
			    "file grow while it was sent?", s->name, *size, s->expect,
			    s->expect == 1 ? "was" : "were");
	return r;
}

int source_error(const struct source *s, struct err *e)
{
	return s->flow ? stream_error(s->flow, e) : 0;
}

int source_short(struct source *s, const char *what, uint64_t need, struct err *e)
{
	int r = source_error(s, e);

	need = max_u64(need, s->expect);
	return r < 0 ? r
		     : fail_with(e, EBADMSG, TRUNCATED(s->size, need),
				 "%s: ends after %" PRIu64 " byte%s, in the middle of " OBJECT("%s") ": "
			    "expected at least %" PRIu64 " bytes", s->name, s->size, plural(s->size),
			    what, need);
}
