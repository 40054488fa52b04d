/* See source.h. */
#include "source.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
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

/* O_NONBLOCK: a FIFO without a writer must not hang us before we can refuse it */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* Takes fd over, which is -errno where it could not be opened. */
static int source_fd(struct source **out, const char *path, int fd, struct err *e)
{
	struct source *s = NULL;
	int r = source_new(&s, path, e);

	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	s->fd = fd;
	if (fd < 0) {
		r = fd == -EXDEV ? fail(e, EXDEV, "%s: leads out of its folder, which --confine "
						  "forbids", s->name)
				 : fail(e, -fd, "%s: %s", s->name, strerror(-fd));
		goto bad;
	}
	if (fstat(s->fd, &s->st) < 0) {
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

int source_open(struct source **out, const char *path, struct err *e)
{
	int fd = open(path, OPEN_FLAGS);

	return source_fd(out, path, fd < 0 ? -errno : fd, e);
}

/* For kernels without openat2, and stricter: no symbolic link is followed at all. The file's
 * descriptor or -errno. */
static int walk_beneath(int dir, const char *file)
{
	char part[NAME_MAX + 1];
	int at = dup(dir), next;
	struct stat st;

	if (at < 0)
		return -errno;
	for (;;) {
		size_t n = strcspn(file, "/");
		bool last = !file[n];

		if (n > NAME_MAX || (n == 2 && !memcmp(file, "..", 2))) {
			close(at);
			return n > NAME_MAX ? -ENAMETOOLONG : -EXDEV;
		}
		memcpy(part, file, n);
		part[n] = '\0';
		next = openat(at, n ? part : ".",
			      O_NOFOLLOW | (last ? OPEN_FLAGS : O_PATH | O_CLOEXEC));
		if (next < 0)
			next = errno == ELOOP ? -EXDEV : -errno;
		else if (!last && fstat(next, &st) == 0 && S_ISLNK(st.st_mode)) {
			close(next);
			next = -EXDEV;
		}
		close(at);
		if (last || next < 0)
			return next;
		at = next;
		file += n + 1;
	}
}

static int open_beneath(const char *dir, const char *file)
{
	struct open_how how = {.flags = OPEN_FLAGS,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	int at, fd;

	if (*file == '/')
		return -EXDEV;
	at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, at, file, &how, sizeof(how));
	if (fd < 0)
		fd = -errno;
	if (fd == -ENOSYS || fd == -EPERM || fd == -EINVAL || fd == -E2BIG)
		fd = walk_beneath(at, file);
	close(at);
	return fd;
}

int source_open_beneath(struct source **out, const char *dir, const char *file, struct err *e)
{
	int fd = open_beneath(dir, file), r;
	char *path;

	if (!strcmp(dir, ".") || !strcmp(dir, "/"))
		r = asprintf(&path, "%s%s", *dir == '/' ? dir : "", file);
	else
		r = asprintf(&path, "%s/%s", dir, file);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return fail(e, ENOMEM, "out of memory");
	}
	r = source_fd(out, path, fd, e);
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
