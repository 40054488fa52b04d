/* See source.h. */
#include "source.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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
	s->fd = -1;
	*out = s;
	return 0;
}

static const char *type_text(mode_t mode)
{
	return S_ISDIR(mode)	 ? "a directory"
	       : S_ISFIFO(mode)	 ? "a FIFO"
	       : S_ISSOCK(mode)	 ? "a socket"
	       : S_ISCHR(mode)	 ? "a character device"
				 : "no regular file";
}

int source_open(struct source **out, const char *path, struct err *e)
{
	struct source *s = NULL;
	int r = source_new(&s, path, e);

	if (r < 0)
		return r;
	/* O_NONBLOCK: a FIFO without a writer must not hang us before we can refuse it */
	s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (s->fd < 0 || fstat(s->fd, &s->st) < 0) {
		r = fail(e, errno, "%s: %s", s->name, strerror(errno));
		goto bad;
	}
	if (S_ISBLK(s->st.st_mode)) {
		if (ioctl(s->fd, BLKGETSIZE64, &s->size) < 0) {
			r = fail(e, errno, "%s: size of the device: %s", s->name, strerror(errno));
			goto bad;
		}
	} else if (S_ISREG(s->st.st_mode)) {
		s->size = (uint64_t)s->st.st_size;
	} else {
		r = fail(e, EINVAL, "%s: is %s, no image can be read from it", s->name,
			 type_text(s->st.st_mode));
		goto bad;
	}
	if (s->size > POS_LIMIT) {
		r = fail(e, EFBIG, "%s: %llu bytes are more than can be addressed", s->name,
			 (unsigned long long)s->size);
		goto bad;
	}
	*out = s;
	return 0;
bad:
	source_free(s);
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
	if (s->fd >= 0)
		close(s->fd);
	free(s->name);
	free(s);
}

int source_read(struct source *s, uint64_t off, void *buf, size_t n, const char *what,
		struct err *e)
{
	size_t done = 0;

	if (off > s->size || n > s->size - off)
		return fail(e, EBADMSG,
			    "%s: %s lies outside the file (bytes %llu to %llu of %llu)", s->name,
			    what, (unsigned long long)off, (unsigned long long)(off + n),
			    (unsigned long long)s->size);
	if (s->mem) {
		memcpy(buf, s->mem + off, n);
		return 0;
	}
	while (done < n) {
		ssize_t got = pread(s->fd, (char *)buf + done, n - done, (off_t)(off + done));

		if (got > 0)
			done += (size_t)got;
		else if (got == 0)
			return fail(e, EBADMSG,
				    "%s: %s at byte %llu: the file became shorter while it was read",
				    s->name, what, (unsigned long long)(off + done));
		else if (errno != EINTR)
			return fail(e, errno, "%s: reading %s at byte %llu: %s", s->name, what,
				    (unsigned long long)(off + done), strerror(errno));
	}
	return 0;
}

bool source_is_hole(struct source *s, uint64_t off, uint64_t n)
{
	off_t data, hole;

	if (s->fd < 0 || !S_ISREG(s->st.st_mode) || off >= s->size)
		return false;
	if (off < s->since || off >= s->hole) {
		data = lseek(s->fd, (off_t)off, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			data = (off_t)s->size;
		hole = data < 0 ? -1 : lseek(s->fd, data, SEEK_HOLE);
		if (data >= 0 && hole < 0) /* no data up to the end of the file */
			hole = (off_t)s->size;
		if (data < 0) { /* no such knowledge here: all is data */
			data = 0;
			hole = (off_t)s->size;
		}
		s->since = min_u64(off, (uint64_t)data);
		s->data = (uint64_t)data;
		s->hole = max_u64((uint64_t)hole, s->data);
		if (s->hole == s->data)
			s->hole = s->size;
	}
	return off < s->data && n <= s->data - off;
}

uint64_t source_stretch(struct source *s, uint64_t off, bool *hole)
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
