/* SPDX-License-Identifier: MIT */
/* See target.h: files and block devices. */
#include "base/hints.h"
#include "output/extents.h"
#include "output/guard.h"
#include "output/served.h"
#include "output/target.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define UNSURE_BLOCK 4096 /* no disk asks for more */
#define CACHED_MAX (64u << 10)
#define HELD_TRIES 20
#define HELD_PAUSE_US 25000

struct file {
	struct target t;
	int fd;     /* buffered */
	int direct; /* the same thing opened O_DIRECT, or -1 where that cannot be had; where it is there it
		     * holds O_EXCL and the locks, so it stays open to the end */
	int dir;    /* where a created file lies, or -1 */
};

static struct file *file_of(const struct target *t)
{
	return container_of(t, struct file, t);
}

static uint64_t queue_number(dev_t dev, const char *what)
{
	char buf[32];

	return sys_block_text(dev, what, buf, sizeof(buf)) ? strtoull(buf, NULL, 10) : 0;
}

/* Whether what was opened is what stood there when its name was looked at; t->st says how it is now. */
static bool is_still(struct target *t, int fd)
{
	struct stat is;

	if (fstat(fd, &is) < 0 || !same_file(&is, &t->st) || is.st_rdev != t->st.st_rdev ||
	    (is.st_mode & S_IFMT) != (t->st.st_mode & S_IFMT))
		return false;
	t->st = is;
	return true;
}

static bool leads_to(const char *path, const struct stat *st)
{
	struct stat other;

	return stat(path, &other) == 0 && same_file(&other, st);
}

/* A terminal cannot be asked without opening it, which may already do something to a line. */
static bool is_terminal(dev_t rdev)
{
	unsigned m = major(rdev);
	char path[64], link[PATH_MAX];
	ssize_t n;

	if (m == 4 || m == 5 || (m >= 136 && m <= 143)) /* consoles, serial lines, pts */
		return true;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", m, minor(rdev));
	n = readlink(path, link, sizeof(link));
	return n >= 4 && memcmp(link + n - 4, "/tty", 4) == 0;
}

static int check_type(const struct target *t, struct err *e)
{
	const mode_t m = t->st.st_mode;

	if (S_ISREG(m) || S_ISBLK(m))
		return 0;
	return fail(e, S_ISDIR(m) ? EISDIR : ENOTBLK, "%s: is %s", t->name,
		    S_ISDIR(m) ? "a directory"
		    : S_ISFIFO(m) ? "a FIFO"
		    : S_ISSOCK(m) ? "a socket"
		    : !S_ISCHR(m) ? "neither a file nor a block device"
		    : is_terminal(t->st.st_rdev) ? "a terminal" : "a character device, not a disk");
}

static int check_inputs(const struct target *t, const struct target_opts *o, struct err *e)
{
	for (size_t i = 0; i < o->n_inputs; i++) {
		const struct stat *in = o->inputs[i].st;
		const bool device = S_ISBLK(in->st_mode);
		char file[PATH_MAX];

		if (same_disk(in, &t->st))
			return fail(e, EINVAL, "%s: is one of the inputs (%s)", t->name,
				    o->inputs[i].name);
		if (t->device && device && guard_overlap(t->st.st_rdev, in->st_rdev))
			return fail(e, EINVAL,
				    "%s: shares its bytes with one of the inputs (%s): one is a partition "
				    "of the other", t->name, o->inputs[i].name);
		if (!t->device && device &&
		    sys_block_text(in->st_rdev, "loop/backing_file", file, sizeof(file)) &&
		    leads_to(file, &t->st))
			return fail(e, EINVAL, "%s: is what an input, the loop device %s, reads",
				    t->name, o->inputs[i].name);
	}
	return 0;
}

/* An input that is written through a loop device over it, or through a partition of one. */
static int check_loop(const struct target *t, const struct target_opts *o, struct err *e)
{
	struct loop_info64 info;
	struct stat over = {0};

	if (ioctl(file_of(t)->fd, LOOP_GET_STATUS64, &info) < 0)
		return 0; /* it is none */
	over.st_dev = info.lo_device;
	over.st_ino = info.lo_inode;
	over.st_rdev = info.lo_rdevice;
	over.st_mode = info.lo_rdevice ? S_IFBLK : S_IFREG;
	for (size_t i = 0; i < o->n_inputs; i++)
		if (same_disk(o->inputs[i].st, &over))
			return fail(e, EINVAL, "%s: is a loop device over one of the inputs (%s)",
				    t->name, o->inputs[i].name);
	return 0;
}

/* The loop device over a file. */
static bool backs_loop(const struct stat *st, char *name, size_t size, dev_t *loop)
{
	DIR *d = opendir("/sys/block");
	struct dirent *de;
	bool found = false;

	*loop = 0;
	while (d && !found && (de = readdir(d))) {
		char path[sizeof(de->d_name) + 64], file[PATH_MAX];

		if (strncmp(de->d_name, "loop", 4))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", de->d_name);
		found = sys_text(path, file, sizeof(file)) && leads_to(file, st);
		snprintf(path, sizeof(path), "/sys/block/%s/dev", de->d_name);
		if (found)
			sys_dev(path, loop);
		snprintf(name, size, "%s", de->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

/* udev, or a run that is refused, holds a shared lock for moments: one refusal says little. */
static bool take_flock(int fd, bool shared)
{
	for (int tries = HELD_TRIES; tries; tries--) {
		if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 ||
		    errno != EWOULDBLOCK)
			return true; /* or no such locks here */
		usleep(HELD_PAUSE_US);
	}
	return false;
}

static struct flock qemu_bytes(short type, off_t start, off_t len)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

/*
 * QEMU locks byte 100 + n where it uses permission n, and 200 + n where it grants that to nobody
 * else: 0 read, 1 write, 2 write unchanged, 3 resize.
 */
static bool qemu_holds(int fd)
{
	struct flock used = qemu_bytes(F_WRLCK, 100, 8), denied = qemu_bytes(F_WRLCK, 200, 8);

	return (fcntl(fd, F_OFD_GETLK, &used) == 0 && used.l_type != F_UNLCK) ||
	       (fcntl(fd, F_OFD_GETLK, &denied) == 0 && denied.l_type != F_UNLCK);
}

static void keep_qemu_away(int fd)
{
	struct flock used = qemu_bytes(F_RDLCK, 101, 1), denied = qemu_bytes(F_RDLCK, 200, 4);

	/* file systems without locks have no QEMU that looks at them either */
	fcntl(fd, F_OFD_SETLK, &used);
	fcntl(fd, F_OFD_SETLK, &denied);
}

static int fail_locked(const struct target *t, struct err *e)
{
	char who[GUARD_WHO];
	bool ended;

	if (!guard_locker(who, &ended, &t->st))
		return fail_with(e, EBUSY, FACTS(.force = "busy"),
				 "%s: is locked by another program (another vmdksync?), or by the last "
				 "writes of one that has ended" HINT ": wait for it, or stop it", t->name);
	return fail_with(e, EBUSY, FACTS(.force = "busy"), "%s: is locked by %s" HINT "%s", t->name, who,
		    ended ? ", which has ended: its last writes are in flight, wait for them"
			  : ": wait for it, or stop it");
}

/* Refuses where another program holds it in one of the ways that are known. A lock that is got
 * stays with fd. */
static int check_holders(const struct target *t, int fd, bool shared, struct err *e)
{
	char users[512], name[256];
	dev_t loop;

	if (!take_flock(fd, shared))
		return fail_locked(t, e);
	if (qemu_holds(fd))
		return fail_with(e, EBUSY, FACTS(.force = "busy"),
				 "%s: is held by QEMU (a running VM?)" HINT ": stop it first", t->name);
	if (!t->device && !t->created && backs_loop(&t->st, name, sizeof(name), &loop)) {
		if (!*hint_users(users, sizeof(users), loop))
			snprintf(users, sizeof(users), ": detach it first (losetup -d /dev/%s)", name);
		return fail_with(e, EBUSY, FACTS(.force = "busy"),
				 "%s: is in use by a loop device, /dev/%s" HINT "%s", t->name, name, users);
	}
	return 0;
}

/*
 * Before the file is opened for writing, which would count as well. Closing a file may take a
 * moment longer than the program that had it, and an NFS server lets go of files that it caches.
 */
static int check_writers(struct target *t, const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY), r = 0;
	char who[GUARD_WHO];

	/* where it cannot be opened, to open it for writing tells why */
	if (fd < 0 || !is_still(t, fd))
		goto out;
	for (int tries = 20; !r && guard_written(fd, &t->st); tries--) {
		r = check_holders(t, fd, true, e);
		flock(fd, LOCK_UN);
		if (!r && !tries)
			r = fail(e, EBUSY,
				 "%s: is open for writing elsewhere (%s)" HINT "; stop that, or wait for it "
				 "(--force=busy skips this check)", t->name,
				 guard_writer(who, &t->st) ? who : "no process found: the kernel, another "
							       "container, or writes in flight");
		else if (!r)
			usleep(50000);
	}
out:
	if (fd >= 0)
		close(fd);
	return r;
}

static int open_failed(const struct target *t, int code, const struct target_opts *o, struct err *e)
{
	char users[512];

	switch (code) {
	case EBUSY:
		return fail_with(e, EBUSY, FACTS(.force = "busy"),
				 "%s: is mounted or in use by another program" HINT "%s", t->name,
				 hint_users(users, sizeof(users), t->st.st_rdev));
	case EAGAIN: /* someone has a lease on it */
	case ETXTBSY:
		return fail(e, EBUSY, "%s: is in use by another program", t->name);
	case EROFS:
		return fail(e, EROFS, "%s: is read-only: %s", t->name, strerror(code));
	default:
		return fail(e, code, "%s: cannot be opened%s: %s", t->name,
			    o->read_only ? "" : " for writing", strerror(code));
	}
}

/* A run that was just killed holds a device until the last of its writes is done. */
static int open_patiently(const char *path, int flags)
{
	for (int tries = HELD_TRIES;;) {
		int fd = open(path, flags);

		if (fd >= 0 || errno != EBUSY || !--tries)
			return fd;
		usleep(HELD_PAUSE_US);
	}
}

static int open_existing(struct target *t, const char *path, const struct target_opts *o,
			 struct err *e)
{
	int flags = (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	char hint[PATH_MAX], *dir;
	int r, ro = 0;

	if (stat(path, &t->st) < 0) {
		if (errno != ENOENT)
			return fail(e, errno, "%s: %s", t->name, strerror(errno));
		if (strncmp(path, "/dev/", 5) == 0)
			return fail(e, ENOENT, "%s: there is no device of that name", t->name);
		if (hint_volume(hint, sizeof(hint), path))
			return fail(e, ENOENT, "%s: %s", t->name, hint);
		dir = path_folder(path);
		r = dir ? access(dir, F_OK) : 0;
		free(dir);
		return fail(e, ENOENT, "%s: does not exist" HINT "%s", t->name,
			    r == 0 ? " (--create makes a new file)"
				   : ", nor does its folder (lsblk lists the devices)");
	}
	r = check_type(t, e);
	if (r < 0)
		return r;
	t->device = S_ISBLK(t->st.st_mode);
	if (!t->device && guard_in_dev(path, &t->st))
		return fail(e, ENOTBLK,
			    "%s: is a file in memory, made by a mistyped name of a device" HINT "; remove it "
			    "and name the device (lsblk lists them)", t->name);
	r = check_inputs(t, o, e);
	if (r < 0)
		return r;
	/* root may write all the same, but whoever took the bits away meant it */
	if (!o->read_only && !(t->st.st_mode & 0222))
		return fail(e, EROFS, "%s: is read-only (mode %04o)", t->name,
			    (unsigned)t->st.st_mode & 07777);
	t->read_only = !(t->st.st_mode & 0222) || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0;
	if (!t->device && !o->force_busy) {
		r = check_writers(t, path, e);
		if (r < 0)
			return r;
	}
	if (!t->device)
		flags |= O_NONBLOCK; /* a FIFO may have come in its place */
	else if (!o->force_busy)
		flags |= O_EXCL;
	file_of(t)->fd = open_patiently(path, flags | (t->device ? O_DIRECT : 0));
	if (file_of(t)->fd < 0 && errno == EINVAL)
		file_of(t)->fd = open_patiently(path, flags);
	if (file_of(t)->fd < 0)
		return open_failed(t, errno, o, e);
	if (!is_still(t, file_of(t)->fd))
		return fail(e, EBUSY, "%s: was replaced while it was being opened", t->name);
	if (!t->device) {
		/* or the ring answers EAGAIN where it could wait */
		if (fcntl(file_of(t)->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
			return fail(e, errno, "%s: %s", t->name, strerror(errno));
		return 0;
	}
	if (ioctl(file_of(t)->fd, BLKROGET, &ro) == 0 && ro) {
		if (!o->read_only)
			return fail(e, EROFS, "%s: is a read-only device", t->name);
		t->read_only = true;
	}
	return check_loop(t, o, e);
}

static int make_file(struct target *t, const char *path, const struct target_opts *o, struct err *e)
{
	static const char exists[] = "exists already; --create makes new files only";
	struct stat st;
	int fd;

	if (o->read_only) {
		/* a dry run leaves nothing behind, so its file has no name */
		if (lstat(path, &st) == 0)
			return fail(e, EEXIST, "%s: %s", t->name, exists);
		if (faccessat(file_of(t)->dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
			return fail(e, errno, "%s: cannot be made: %s", t->name, strerror(errno));
		fd = memfd_create("vmdksync", MFD_CLOEXEC);
	} else {
		fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOCTTY, 0666);
	}
	if (fd < 0 && errno == EEXIST)
		return fail(e, EEXIST, "%s: %s", t->name, exists);
	if (fd < 0)
		return fail(e, errno, "%s: cannot be made: %s", t->name, strerror(errno));
	file_of(t)->fd = fd;
	t->created = true;
	if (ftruncate(fd, (off_t)o->need) < 0)
		return fail(e, errno, "%s: a file of %" PRIu64 " bytes cannot be made: %s", t->name,
			    o->need, strerror(errno));
	return 0;
}

static int open_new(struct target *t, const char *path, const struct target_opts *o, struct err *e)
{
	char *dir, hint[PATH_MAX];
	struct stat folder;
	int r;

	if (hint_volume(hint, sizeof(hint), path))
		return fail(e, EINVAL, "%s: %s (./ before it makes a file of that name)", t->name, hint);
	if (!o->need || o->need > POS_LIMIT)
		return fail(e, EINVAL, "%s: --create needs the size of the disk, not %" PRIu64 " "
			    "bytes", t->name, o->need);
	dir = path_folder(path);
	if (!dir)
		return fail(e, ENOMEM, "out of memory");
	file_of(t)->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file_of(t)->dir < 0 || fstat(file_of(t)->dir, &folder) < 0)
		r = fail(e, errno, "%s: its directory cannot be opened: %s", t->name,
			 strerror(errno));
	else if (guard_in_dev(dir, &folder)) /* a mistyped name of a device */
		r = fail(e, EINVAL, "%s: --create makes no files under /dev", t->name);
	else
		r = make_file(t, path, o, e);
	free(dir);
	if (r < 0)
		return r;
	if (fstat(file_of(t)->fd, &t->st) < 0)
		return fail(e, errno, "%s: %s", t->name, strerror(errno));
	return 0;
}

static int check_size(struct target *t, const struct target_opts *o, struct err *e)
{
	uint64_t slack;
	int r;

	if (!t->device)
		t->size = (uint64_t)t->st.st_size;
	else if (ioctl(file_of(t)->fd, BLKGETSIZE64, &t->size) < 0)
		return fail(e, errno, "%s: size of the device: %s", t->name, strerror(errno));
	r = target_check_size(t, o, e);
	if (r < 0)
		return r;
	/* a guest leaves some blocks alone; small files get no slack to be thin in */
	slack = min_u64(1 << 20, t->size / 64);
	t->thick = t->device || (!t->created && (uint64_t)t->st.st_blocks * 512 + slack >= t->size);
	return 0;
}

/*
 * The description that has O_EXCL and the locks is the direct one, because only its writes may go on
 * when the program is gone. Buffered ones belong to one of its threads, which keeps all of its
 * files open until they are done.
 */
static int check_busy(const struct target *t, const struct target_opts *o, struct err *e)
{
	const int fd = file_of(t)->direct >= 0 ? file_of(t)->direct : file_of(t)->fd;
	int r;

	if (o->force_busy) {
		/* no locks that could get into the way of a QEMU already there */
		take_flock(fd, o->read_only);
		return 0;
	}
	r = check_holders(t, fd, o->read_only, e);
	if (!r && !o->read_only)
		keep_qemu_away(fd);
	return r;
}

/* What direct transfers must align to; false where there are none. */
static bool find_alignment(struct target *t)
{
	uint64_t block = 0, memory = 0;
	int sector;

	if (t->device) {
		if (ioctl(file_of(t)->fd, BLKSSZGET, &sector) == 0 && sector > 0)
			block = (uint64_t)sector;
	} else {
#ifdef STATX_DIOALIGN
		struct statx sx;

		if (statx(file_of(t)->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
		    (sx.stx_mask & STATX_DIOALIGN)) {
			if (!sx.stx_dio_offset_align)
				return false;
			block = sx.stx_dio_offset_align;
			memory = sx.stx_dio_mem_align;
		}
#endif
		if (!block)
			block = queue_number(t->st.st_dev, "queue/logical_block_size");
	}
	if (!block)
		block = UNSURE_BLOCK;
	block = max_u64(block, SECTOR);
	memory = max_u64(memory ? memory : block, SECTOR);
	/* who reads whole blocks has room for as much around what it wants */
	if (!is_pow2(block) || !is_pow2(memory) || (block | memory) > 64 << 10)
		return false;
	t->block = (uint32_t)block;
	t->memory = (uint32_t)memory;
	return true;
}

/* The same file opened once more: through the descriptor, as the name may mean another by now. */
static int open_again(struct target *t, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_of(t)->fd);
	fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || is_still(t, fd))
		return fd;
	close(fd);
	return -1;
}

/*
 * Of a device, what was opened first is the direct one, as it has O_EXCL. A direct write that is in
 * flight keeps its description open when the program is killed, and so what that description holds.
 */
static void open_direct(struct target *t, bool read_only)
{
	const int mode = read_only ? O_RDONLY : O_RDWR;
	int fd = find_alignment(t) ? open_again(t, mode | (t->device ? 0 : O_DIRECT)) : -1;

	if (!t->device) {
		file_of(t)->direct = fd;
	} else if (fd >= 0 && fcntl(file_of(t)->fd, F_GETFL) & O_DIRECT) {
		file_of(t)->direct = file_of(t)->fd;
		file_of(t)->fd = fd;
	} else {
		if (fd >= 0)
			close(fd);
		fcntl(file_of(t)->fd, F_SETFL, 0);
	}
	t->past_cache = file_of(t)->direct >= 0;
}

/*
 * st_blksize is the block of the file system where that is larger than a page (XFS with blocks of 64
 * KiB), and the page cache then writes no less. Elsewhere it may be advice: the transfer size of NFS,
 * the record of ZFS, the stripe of a RAID, megabytes in each case, and 1 on FUSE. The page cache knows
 * no blocks above 64 KiB, so nothing larger is needed; and as much as that costs little there.
 */
static uint32_t find_cached(const struct target *t)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = max_u64(t->block, page);

	if (t->device || t->served) /* writes one by one share nothing */
		return t->block;
	while (unit < CACHED_MAX && unit < (uint64_t)t->st.st_blksize)
		unit *= 2;
	return (uint32_t)unit;
}

/*
 * dm-thin, for one, discards, and has no other way to make zeros than to write them. The rule (see
 * served.h): a promise of the kernel's own file systems and drivers is believed, one that a program makes
 * on their behalf is not.
 */
static void plan_zeroing(struct target *t)
{
	t->thin = t->device ? queue_number(t->st.st_rdev, "queue/discard_max_bytes") > 0
			    : !t->thick && !t->served;
	t->rereads = t->device && t->thin && !t->served &&
		     !queue_number(t->st.st_rdev, "queue/write_zeroes_max_bytes");
	if (!t->served)
		t->zero_ways = FALLOC_FL_ZERO_RANGE | (t->thin ? FALLOC_FL_PUNCH_HOLE : 0);
}

static bool in_memory(const struct target *t)
{
	struct statfs fs;

	return !t->device && fstatfs(file_of(t)->fd, &fs) == 0 &&
	       ((uint32_t)fs.f_type == TMPFS_MAGIC || (uint32_t)fs.f_type == RAMFS_MAGIC);
}

/* --- the operations ------------------------------------------------------------------------------ */

static void file_free(struct target *t)
{
	struct file *f = file_of(t);

	if (f->fd >= 0)
		close(f->fd);
	if (f->direct >= 0) /* last: it holds what keeps others away */
		close(f->direct);
	if (f->dir >= 0)
		close(f->dir);
	free(t->extents);
	free(f);
}

static bool file_look(struct target *t, uint64_t off, void *buf, size_t n)
{
	return read_full(file_of(t)->fd, buf, n, off) == (ssize_t)n;
}

static void file_put(struct target *t, struct queue *q, struct xfer *x)
{
	x->fd = x->direct ? file_of(t)->direct : file_of(t)->fd;
	/* A buffered write would be handed to one kernel worker, which is slower than to make it here. A
	 * file system zeroes a range in no time; a device may have to write all of it. */
	x->in_line |= t->served || (x->kind == XFER_WRITE && !x->direct) ||
		     (x->kind == XFER_ZERO && !t->device);
	queue_put(q, x);
}

static void file_advise(const struct target *t, uint64_t off, uint64_t len, int advice)
{
	posix_fadvise(file_of(t)->fd, (off_t)off, (off_t)len, advice);
}

static bool file_room(const struct target *t, uint64_t *bytes)
{
	struct statvfs fs;

	if (t->device || fstatvfs(file_of(t)->fd, &fs) < 0)
		return false;
	*bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return true;
}

static int file_sync_name(const struct target *t, struct err *e)
{
	int r = file_of(t)->dir < 0 ? 0 : fsync(file_of(t)->dir);

	if (r < 0 && errno != EINVAL) /* some file systems cannot, and need not */
		return fail(e, errno, "%s: fsync of its directory: %s", t->name, strerror(errno));
	return 0;
}

static const struct target_ops file_ops = {
	.put = file_put,
	.look = file_look,
	.free = file_free,
	.advise = file_advise,
	.room = file_room,
	.sync_name = file_sync_name,
};

/* --- opening ------------------------------------------------------------------------------------- */

int target_file_open(struct target **out, const char *path, const struct target_opts *o,
		     struct err *e)
{
	struct file *f = calloc(1, sizeof(*f));
	struct target *t;
	int r;

	if (!f)
		return fail(e, ENOMEM, "out of memory");
	t = &f->t;
	f->fd = f->direct = f->dir = -1;
	t->ops = &file_ops;
	t->block = t->memory = SECTOR;
	t->name = name_text(path);
	if (!t->name)
		r = fail(e, ENOMEM, "out of memory");
	else
		r = o->create ? open_new(t, path, o, e) : open_existing(t, path, o, e);
	if (r == 0)
		r = check_size(t, o, e);
	if (r == 0) {
		open_direct(t, o->read_only);
		r = check_busy(t, o, e);
	}
	if (r == 0) {
		t->served = served_by(f->fd, &t->st);
		if (!t->device && !t->served)
			t->extents = extents_new(f->fd);
		if (!t->device && !t->served && !t->extents)
			r = fail(e, ENOMEM, "out of memory");
	}
	if (r < 0) {
		if (t->created && !o->read_only)
			unlink(path);
		target_free(t);
		return r;
	}
	t->kind = t->device ? "device" : "file";
	t->in_memory = in_memory(t);
	t->cached = find_cached(t);
	plan_zeroing(t);
	*out = t;
	return 0;
}
