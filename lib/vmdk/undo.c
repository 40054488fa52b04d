/* SPDX-License-Identifier: MIT */
/*
 * See undo.h. Facts: "Virtual Disk Format 5.0" (stream-optimized compressed sparse extents); the
 * footer's place and what readers ask of it from QEMU's block/vmdk.c and 7-Zip's VmdkHandler.cpp;
 * stored blocks from RFC 1950 and RFC 1951.
 */
#include "vmdk/undolog.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <zlib.h>

/* --- bytes to the file --------------------------------------------------------------------------- */

int undo_write_at(struct undo *u, const void *buf, size_t n, uint64_t off, struct err *e)
{
	const int r = u->failed ? 0 : write_full(u->fd, buf, n, off);

	if (r < 0)
		u->failed = fail_with(e, -r, FACTS(AT_BYTE(off)),
				      "%s: writing the undo log at byte %" PRIu64 ": %s", u->name, off,
				      strerror(-r));
	return u->failed;
}

int undo_flush(struct undo *u, struct err *e)
{
	int r = u->used ? undo_write_at(u, u->buf, u->used, u->end, e) : u->failed;

	if (!r) {
		u->end += u->used;
		u->used = 0;
	}
	return r;
}

static int sync_file(struct undo *u, struct err *e)
{
	int r = undo_flush(u, e);

	while (!r && fdatasync(u->fd) < 0)
		if (errno != EINTR)
			r = u->failed = fail(e, errno, "%s: fdatasync of the undo log: %s", u->name,
					     strerror(errno));
	return r;
}

/* Room for whole sectors at the end of the file, all zero; *sector tells where. */
static int reserve(struct undo *u, uint64_t sectors, uint8_t **p, uint64_t *sector, struct err *e)
{
	const size_t n = (size_t)(sectors * SECTOR);
	int r = u->failed;

	if (!r && n > BUFFER - u->used)
		r = undo_flush(u, e);
	if (r < 0)
		return r;
	*sector = (u->end + u->used) / SECTOR;
	if (*sector + sectors > SECTORS_MAX)
		return u->failed = fail(e, EFBIG, "%s: an undo log cannot grow beyond 2 TiB",
					u->name);
	*p = u->buf + u->used;
	memset(*p, 0, n);
	u->used += n;
	u->unsynced = true;
	return 0;
}

static int put_marker(struct undo *u, uint32_t type, uint64_t sectors, uint8_t **body,
		      uint64_t *sector, struct err *e)
{
	int r = reserve(u, 1 + sectors, body, sector, e);

	if (r < 0)
		return r;
	put64(*body + RECORD_LBA, sectors);
	put32(*body + MARKER_TYPE, type);
	*body += SECTOR;
	++*sector;
	return 0;
}

/* --- tables -------------------------------------------------------------------------------------- */

/* Gives a table its place in the file, or brings it there again. */
static int write_table(struct undo *u, struct table *t, struct err *e)
{
	uint8_t bytes[TABLE_SECTORS * SECTOR], *p = bytes;
	uint64_t sector;
	int r = 0;

	if (!t->dirty)
		return 0;
	if (!u->dir[t->number]) {
		r = put_marker(u, MARKER_TABLE, TABLE_SECTORS, &p, &sector, e);
		if (!r)
			u->dir[t->number] = (uint32_t)sector;
	}
	for (unsigned i = 0; i < UNDO_TABLE; i++)
		put32(p + 4 * i, t->entry[i]);
	if (p == bytes)
		r = undo_flush(u, e);
	if (!r && p == bytes)
		r = undo_write_at(u, bytes, sizeof(bytes), (uint64_t)u->dir[t->number] * SECTOR, e);
	t->dirty = r < 0;
	return r;
}

static int read_table(struct undo *u, struct table *t, struct err *e)
{
	const uint64_t at = (uint64_t)u->dir[t->number] * SECTOR;
	uint8_t bytes[TABLE_SECTORS * SECTOR];
	ssize_t got;
	int r = undo_flush(u, e);

	if (r < 0)
		return r;
	got = read_full(u->fd, bytes, sizeof(bytes), at);
	if (got != (ssize_t)sizeof(bytes))
		return u->failed = fail(e, got < 0 ? (int)-got : EIO,
					"%s: reading the undo log at byte %" PRIu64 ": %s", u->name,
					at, got < 0 ? strerror((int)-got) : "it became shorter");
	for (unsigned i = 0; i < UNDO_TABLE; i++)
		t->entry[i] = le32(bytes + 4 * i);
	return 0;
}

/* The entry of a grain; *entry NULL where its table does not exist and none is to be made. */
int undo_find_entry(struct undo *u, uint64_t grain, bool make, uint32_t **entry, struct err *e)
{
	const uint64_t number = grain / UNDO_TABLE;
	struct table *t = &u->cache[number % CACHED];
	int r = u->failed;

	*entry = NULL;
	if (!r && t->number != number) {
		if (!make && !u->dir[number])
			return 0;
		if (t->number != UINT64_MAX)
			r = write_table(u, t, e);
		if (r < 0)
			return r;
		t->number = number;
		t->dirty = false;
		if (u->dir[number])
			r = read_table(u, t, e);
		else
			memset(t->entry, 0, sizeof(t->entry));
	}
	if (!r)
		*entry = &t->entry[grain % UNDO_TABLE];
	return r;
}

int undo_set_entry(struct undo *u, uint64_t grain, uint64_t sector, struct err *e)
{
	uint32_t *entry;
	int r = undo_find_entry(u, grain, true, &entry, e);

	if (r < 0)
		return r;
	*entry = (uint32_t)sector;
	u->cache[grain / UNDO_TABLE % CACHED].dirty = true;
	return 0;
}

/* --- saving -------------------------------------------------------------------------------------- */

int undo_missing(struct undo *u, uint64_t off, uint64_t len, uint64_t *from, uint64_t *to,
		 struct err *e)
{
	const uint64_t end = div_up(min_u64(off + len, u->size), u->grain);
	uint64_t first = UINT64_MAX, n;

	for (n = off / u->grain; n < end; n++) {
		uint32_t *entry;
		int r = undo_find_entry(u, n, false, &entry, e);

		if (r < 0)
			return r;
		if (entry && *entry) {
			if (first != UINT64_MAX)
				break;
		} else if (first == UINT64_MAX) {
			first = n;
		}
	}
	if (first == UINT64_MAX)
		return 0;
	*from = first * u->grain;
	*to = min_u64(n * u->grain, u->size);
	return 1;
}

/* Says that all before it is on stable storage: what is broken there is no torn end. */
static int put_barrier_mark(struct undo *u, struct err *e)
{
	uint64_t sector;
	uint8_t *p;
	int r = reserve(u, 1, &p, &sector, e);

	if (r < 0)
		return r;
	put32(p + MARKER_TYPE, MARKER_PROGRESS);
	memcpy(p + UNDO_BARRIER_AT, UNDO_BARRIER, strlen(UNDO_BARRIER));
	put64(p + UNDO_BARRIER_POS, sector);
	u->want_mark = false;
	return 0;
}

/* The last grain of the disk is stored whole, with zeros behind the disk's end: all readers take
 * that. */
static int save_grain(struct undo *u, uint64_t n, const uint8_t *old, size_t len, struct err *e)
{
	const bool zeros = all_zero(old, len);
	const uint32_t bytes =
		zeros ? u->zeros_len : (uint32_t)u->grain + STORED_HEAD + STORED_TAIL;
	uint64_t sector;
	uint32_t sum;
	uint8_t *p;
	int r = u->want_mark ? put_barrier_mark(u, e) : 0;

	if (!r)
		r = reserve(u, sectors_of(RECORD_HEAD + bytes), &p, &sector, e);
	if (r < 0)
		return r;
	put64(p + RECORD_LBA, n * u->grain / SECTOR);
	put32(p + RECORD_SIZE, bytes);
	p += RECORD_HEAD;
	if (zeros) {
		memcpy(p, u->zeros, bytes);
	} else {
		p[0] = 0x78; /* deflate, window of 32 KiB */
		p[1] = 0x01;
		p[2] = 0x01; /* last block, stored */
		p[3] = (uint8_t)u->grain;
		p[4] = (uint8_t)(u->grain >> 8);
		p[5] = (uint8_t)~p[3];
		p[6] = (uint8_t)~p[4];
		memcpy(p + STORED_HEAD, old, len);
		sum = (uint32_t)adler32(1, p + STORED_HEAD, (uInt)u->grain);
		for (unsigned i = 0; i < STORED_TAIL; i++)
			p[STORED_HEAD + u->grain + i] = (uint8_t)(sum >> (24 - 8 * i));
	}
	return undo_set_entry(u, n, sector, e);
}

int undo_save(struct undo *u, uint64_t off, uint64_t len, const void *old, struct err *e)
{
	const uint8_t *p = old;
	int r = u->failed;

	while (!r && len) {
		const uint64_t n = off / u->grain, bytes = min_u64(u->grain, len);
		uint32_t *entry;

		r = undo_find_entry(u, n, false, &entry, e);
		if (!r && !(entry && *entry))
			r = save_grain(u, n, p, (size_t)bytes, e);
		off += bytes;
		p += bytes;
		len -= bytes;
	}
	return r;
}

int undo_barrier(struct undo *u, struct err *e)
{
	int r;

	if (!u->unsynced)
		return u->failed;
	r = sync_file(u, e);
	if (!r) {
		u->unsynced = false;
		u->want_mark = true;
	}
	return r;
}

/* --- head and end -------------------------------------------------------------------------------- */

void undo_make_header(const struct undo *u, uint8_t *h, uint64_t dir, bool open)
{
	memset(h, 0, SECTOR);
	put32(h, KDMV_MAGIC);
	put32(h + KDMV_VERSION, 3);
	put32(h + KDMV_FLAGS, KDMV_FLAG_NEWLINES | KDMV_FLAG_COMPRESSED | KDMV_FLAG_MARKERS);
	put64(h + KDMV_CAPACITY, u->size / SECTOR);
	put64(h + KDMV_GRAIN, u->grain / SECTOR);
	put64(h + KDMV_DESC, 1);
	put64(h + KDMV_DESC_SIZE, DESC_SECTORS);
	put32(h + KDMV_ENTRIES, UNDO_TABLE);
	put64(h + KDMV_GD, dir);
	put64(h + KDMV_OVERHEAD, OVERHEAD);
	h[KDMV_UNCLEAN] = open;
	memcpy(h + KDMV_NEWLINES, KDMV_NEWLINE_BYTES, strlen(KDMV_NEWLINE_BYTES));
	h[KDMV_COMPRESS] = KDMV_DEFLATE;
	if (!open)
		return;
	memcpy(h + UNDO_OPEN_AT, UNDO_OPEN, strlen(UNDO_OPEN));
	for (unsigned i = 0; i < UNDO_SAMPLES; i++)
		put32(h + UNDO_SAMPLES_AT + 4 * i, u->sample[i]);
}

/*
 * No parent is named: 7-Zip reads no file that has one, and the parent of the log is the disk as
 * the apply left it, which has no descriptor.
 */
static int put_head(struct undo *u, struct err *e)
{
	const size_t room = (size_t)DESC_SECTORS * SECTOR;
	const uint64_t sectors = u->size / SECTOR;
	const uint32_t cid = (uint32_t)crc32(crc32(0, NULL, 0), (const Bytef *)u->name,
					     (uInt)strlen(u->name)) & 0x7fffffff;
	struct undo_sample sample[UNDO_SAMPLES];
	uint64_t sector;
	uint8_t *p;
	int n, r = reserve(u, OVERHEAD, &p, &sector, e);

	if (r < 0)
		return r;
	undo_make_header(u, p, KDMV_GD_AT_END, true);
	n = undo_note_head(u->desc, room, u->opts.disk ? u->opts.disk : "the disk",
			   u->opts.applied ? u->opts.applied : "a delta");
	snprintf(u->desc + n, room - (size_t)n,
		 "version=1\n"
		 "CID=%08" PRIx32 "\n"
		 "parentCID=ffffffff\n"
		 "createType=\"streamOptimized\"\n"
		 "\n"
		 "# Extent description\n"
		 "RDONLY %" PRIu64 " SPARSE \"undo.vmdk\"\n"
		 "\n"
		 "# The Disk Data Base\n"
		 "#DDB\n"
		 "\n"
		 "ddb.virtualHWVersion = \"4\"\n"
		 "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
		 "ddb.geometry.heads = \"255\"\n"
		 "ddb.geometry.sectors = \"63\"\n"
		 "ddb.adapterType = \"lsilogic\"\n",
		 cid, sectors, sectors / (255 * 63));
	for (unsigned i = 0; i < UNDO_SAMPLES; i++)
		sample[i] = (struct undo_sample){undo_sample_grain(u, i), u->sample[i]};
	u->listed = undo_note_samples(u->desc, room, sample);
	memcpy(p + SECTOR, u->desc, room);
	return sync_file(u, e);
}

int undo_finish(struct undo *u, struct err *e)
{
	const uint64_t dir_sectors = sectors_of(u->tables * 4);
	uint8_t *p, head[SECTOR];
	uint64_t dir, at;
	int r = u->failed;

	/* whole lines of what is there may be exchanged at any time: old and new ones are true */
	if (!r && u->listed)
		r = undo_list_unsaved(u, e);
	for (unsigned i = 0; !r && i < CACHED; i++)
		if (u->cache[i].number != UINT64_MAX)
			r = write_table(u, &u->cache[i], e);
	/* a marker knows how many sectors follow it, but they need not fit the buffer at once */
	if (!r)
		r = put_marker(u, MARKER_DIR, 0, &p, &dir, e);
	if (r)
		return r;
	put64(p - SECTOR + RECORD_LBA, dir_sectors);
	for (uint64_t i = 0; i < u->tables; i++) {
		if (i % (SECTOR / 4) == 0)
			r = reserve(u, 1, &p, &at, e);
		if (r < 0)
			return r;
		put32(p + i % (SECTOR / 4) * 4, u->dir[i]);
	}
	r = put_marker(u, MARKER_FOOTER, 1, &p, &at, e);
	if (r < 0)
		return r;
	undo_make_header(u, p, dir, false);
	r = reserve(u, 1, &p, &at, e); /* the end marker is all zero */
	if (!r)
		r = sync_file(u, e);
	/* complete now, and from here on a log that was cut short is damaged */
	undo_make_header(u, head, KDMV_GD_AT_END, false);
	if (!r)
		r = undo_write_at(u, head, sizeof(head), 0, e);
	if (!r)
		r = sync_file(u, e);
	if (!r)
		u->failed = -EINVAL;
	return r;
}

/* --- opening ------------------------------------------------------------------------------------- */

/* A disk outlives the power, and its log has to. */
static int check_place(const struct undo *u, struct err *e)
{
	struct statfs fs;

	if (fstatfs(u->fd, &fs) < 0 || ((uint32_t)fs.f_type != TMPFS_MAGIC && (uint32_t)fs.f_type != RAMFS_MAGIC))
		return 0;
	return warning(e, "%s: lies in memory, and is lost when the power fails", u->name);
}

static int open_file(struct undo *u, const char *path, const struct undo_opts *o, struct err *e)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOCTTY | (o->append ? O_NONBLOCK : O_CREAT | O_EXCL);
	int r;

	u->fd = open(path, flags, o->mode);
	if (u->fd < 0 && errno == EEXIST)
		return fail(e, EEXIST,
			    "%s: exists already" HINT "; an undo log is a new file (--undo-append resumes "
			    "with an unfinished one)",
			    u->name);
	if (u->fd < 0)
		return fail(e, errno, "%s: cannot be opened as undo log: %s", u->name,
			    strerror(errno));
	if (flock(u->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return fail(e, EBUSY,
			    "%s: another vmdksync writes this undo log" HINT ": wait for it, or name another file",
			    u->name);
	r = o->disk_in_memory ? 0 : check_place(u, e);
	if (r < 0) {
		/* nothing is in it yet */
	} else if (o->append && !undo_hardly_begun(u)) {
		r = undo_resume(u, path, e);
		if (!r)
			r = undo_check_samples(u, e);
		if (!r)
			r = undo_read_note(u, e);
	} else {
		r = undo_take_samples(u, e);
		if (!r)
			r = put_head(u, e);
	}
	/* the name has to survive, too, or a crash leaves a changed target and no log */
	if (!r && (r = sync_folder(path)) < 0)
		fail(e, -r, "%s: fsync of its directory: %s", u->name, strerror(-r));
	if (r < 0 && !o->append)
		unlink(path);
	return r;
}

static int make_zeros(struct undo *u)
{
	uint8_t *grain = calloc(1, u->grain);
	uLongf len = compressBound((uLong)u->grain);
	int r = Z_MEM_ERROR;

	u->zeros = malloc(len);
	if (grain && u->zeros)
		r = compress2(u->zeros, &len, grain, (uLong)u->grain, Z_BEST_COMPRESSION);
	free(grain);
	u->zeros_len = (uint32_t)len;
	return r == Z_OK ? 0 : -ENOMEM;
}

uint64_t undo_grain_of(uint64_t size)
{
	uint64_t grain = GRAIN_LEAST;

	while (grain < GRAIN_MOST && div_up(size, grain * UNDO_TABLE) > TABLES_MAX)
		grain *= 2;
	return grain;
}

void undo_room(uint64_t size, uint64_t grains, uint64_t tables, uint64_t *least, uint64_t *most)
{
	const uint64_t grain = undo_grain_of(size);
	const uint64_t record = sectors_of(RECORD_HEAD + grain + STORED_HEAD + STORED_TAIL);
	/* head, directory and its marker, footer and its marker, end marker */
	const uint64_t fixed =
		OVERHEAD + sectors_of(div_up(size, grain * UNDO_TABLE) * 4) + 4 + tables * (1 + TABLE_SECTORS);

	*least = (fixed + grains) * SECTOR;
	/* a mark for each barrier: one grain or more */
	*most = (fixed + grains * (record + 1)) * SECTOR;
}

int undo_open(struct undo **out, const char *path, uint64_t size, const struct undo_opts *o,
	      struct err *e)
{
	struct undo *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return fail(e, ENOMEM, "out of memory");
	u->fd = -1;
	u->size = size;
	u->name = name_text(path);
	u->grain = undo_grain_of(size);
	u->tables = div_up(size, u->grain * UNDO_TABLE);
	if (!size || size % SECTOR || u->tables > TABLES_MAX) {
		r = fail(e, EFBIG, "%s: no undo log can be made of a disk of %" PRIu64 " bytes",
			 u->name ? u->name : "", size);
		undo_free(u);
		return r;
	}
	u->opts = *o;
	u->desc = calloc(1, (size_t)DESC_SECTORS * SECTOR + 1);
	u->dir = calloc(u->tables, sizeof(*u->dir));
	u->cache = malloc(CACHED * sizeof(*u->cache));
	u->buf = malloc(BUFFER);
	if (!u->name || !u->desc || !u->dir || !u->cache || !u->buf || make_zeros(u) < 0) {
		undo_free(u);
		return fail(e, ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < CACHED; i++)
		u->cache[i].number = UINT64_MAX;
	r = open_file(u, path, o, e);
	if (r < 0) {
		undo_free(u);
		return r;
	}
	*out = u;
	return 0;
}

void undo_free(struct undo *u)
{
	if (!u)
		return;
	if (u->fd >= 0)
		close(u->fd);
	free(u->desc);
	free(u->dir);
	free(u->cache);
	free(u->buf);
	free(u->zeros);
	free(u->name);
	free(u);
}

uint32_t undo_grain(const struct undo *u)
{
	return (uint32_t)u->grain;
}
