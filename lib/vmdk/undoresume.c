/* SPDX-License-Identifier: MIT */
/*
 * See undo.h: which disk an undo log is of, and how an unfinished log is resumed.
 */
#include "vmdk/undolog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* --- which disk it is of ------------------------------------------------------------------------- */

/* Where disks differ that are of one size: at both ends (tables of partitions, labels of volumes), at
 * 1 MiB (the first partition), and here and there. */
uint64_t undo_sample_grain(const struct undo *u, unsigned i)
{
	const uint64_t last = div_up(u->size, u->grain) - 1, k = i % SAMPLES_TOGETHER;

	switch (i / SAMPLES_TOGETHER) {
	case 0:
		return min_u64(k, last);
	case 1:
		return min_u64((1 << 20) / u->grain + k, last);
	case 2:
		return last - min_u64(k, last);
	default:
		return last * k / SAMPLES_TOGETHER;
	}
}

/* A grain as the log has it. */
static int load_saved(struct undo *u, uint32_t sector, uint8_t *grain, struct err *e)
{
	const uint64_t at = (uint64_t)sector * SECTOR;
	uint8_t record[RECORD_HEAD + GRAIN_MOST + STORED_HEAD + STORED_TAIL];
	ssize_t got = read_full(u->fd, record, sizeof(record), at);
	uLongf len = (uLongf)u->grain;
	int r = Z_DATA_ERROR;
	uint32_t bytes;

	if (got < 0)
		return fail(e, (int)-got, "%s: reading the undo log at byte %" PRIu64 ": %s", u->name, at,
			    strerror((int)-got));
	bytes = got > (ssize_t)RECORD_HEAD ? le32(record + RECORD_SIZE) : UINT32_MAX;
	if (bytes <= (size_t)got - RECORD_HEAD)
		r = uncompress(grain, &len, record + RECORD_HEAD, bytes);
	if (r == Z_MEM_ERROR)
		return fail(e, ENOMEM, "out of memory");
	if (r != Z_OK || len != u->grain)
		return fail(e, EBADMSG, "%s: what it saved is damaged at byte %" PRIu64, u->name, at);
	return 0;
}

/* The checksum of a grain as it was before anything was overwritten; 0 where nobody can read it. */
static int take_sample(struct undo *u, uint64_t n, uint32_t *sum, struct err *e)
{
	const struct undo_opts *o = &u->opts;
	const uint64_t off = n * u->grain;
	uint8_t grain[GRAIN_MOST] = {0};
	uint32_t *entry;
	int r = undo_find_entry(u, n, false, &entry, e);

	*sum = 0;
	if (!r && entry && *entry)
		r = load_saved(u, *entry, grain, e);
	else if (!r && !(o->look &&
			 o->look(o->arg, off, grain, (size_t)min_u64(u->grain, u->size - off))))
		return 0;
	if (r < 0)
		return r;
	*sum = undo_sample_sum(grain, u->grain);
	return 0;
}

int undo_take_samples(struct undo *u, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; !r && i < UNDO_SAMPLES; i++)
		r = take_sample(u, undo_sample_grain(u, i), &u->sample[i], e);
	return r;
}

/* The first grain from *n on, and before `end`, that is not saved: 1, 0 where none was found, -errno. */
static int next_unsaved(struct undo *u, uint64_t *n, uint64_t end, struct err *e)
{
	uint64_t last = UINT64_MAX;
	unsigned tables = 0;

	for (; *n < end; ++*n) {
		uint32_t *entry;
		int r;

		if (*n / UNDO_TABLE != last && tables++ == TABLES_TRIED)
			return 0;
		last = *n / UNDO_TABLE;
		r = undo_find_entry(u, *n, false, &entry, e);
		if (r < 0)
			return r;
		if (!entry || !*entry)
			return 1;
	}
	return 0;
}

/*
 * The samples of a finished log are those by which a rollback knows the disk: of grains that were not
 * saved, so not overwritten either. Where one was, the next grain behind it that was not takes its
 * place.
 */
int undo_list_unsaved(struct undo *u, struct err *e)
{
	const uint64_t grains = div_up(u->size, u->grain);
	struct undo_sample sample[UNDO_SAMPLES];
	uint64_t behind = 0;
	int r;

	for (unsigned i = 0; i < UNDO_SAMPLES; i++) {
		const uint64_t place = undo_sample_grain(u, i);
		uint64_t n = place;

		if (i % SAMPLES_TOGETHER == 0)
			behind = 0;
		if (i / SAMPLES_TOGETHER != 2) /* those at the end of the disk go backwards */
			n = max_u64(n, behind);
		sample[i] = (struct undo_sample){n, 0};
		r = next_unsaved(u, &n, grains, e);
		if (r < 0)
			return r;
		if (!r)
			continue;
		behind = n + 1;
		sample[i].grain = n;
		sample[i].sum = n == place ? u->sample[i] : 0;
		if (!sample[i].sum)
			r = take_sample(u, n, &sample[i].sum, e);
		if (r < 0)
			return r;
	}
	if (!undo_note_samples(u->desc, (size_t)DESC_SECTORS * SECTOR, sample))
		return 0;
	r = undo_flush(u, e);
	return r < 0 ? r : undo_write_at(u, u->desc, (size_t)DESC_SECTORS * SECTOR, SECTOR, e);
}

int undo_check_samples(struct undo *u, struct err *e)
{
	for (unsigned i = 0; i < UNDO_SAMPLES; i++) {
		const uint64_t n = undo_sample_grain(u, i);
		uint32_t sum;
		int r = take_sample(u, n, &sum, e);

		if (r < 0)
			return r;
		if (sum && u->sample[i] && sum != u->sample[i])
			return fail_with(e, EINVAL, FACTS(.code = ERR_WRONG_DISK, AT_BYTE(n * u->grain)),
				    "%s: is the log of another disk, or %s was written to without it "
				    "since: bytes %" PRIu64 " to %" PRIu64
				    " are not as they were, and were not saved",
				    u->name, u->opts.disk ? u->opts.disk : "this one", n * u->grain,
				    min_u64((n + 1) * u->grain, u->size) - 1);
	}
	return 0;
}

/* Devices have other names after a restart, so a name proves nothing; but it may make one think. */
static int check_name(struct undo *u, const struct undo_note *note, struct err *e)
{
	if (!note || !u->opts.disk || !strncmp(note->disk, u->opts.disk, strlen(note->disk)))
		return 0;
	return warning(e, "%s: was begun for %s, and is resumed with %s", u->name, note->disk,
		       u->opts.disk);
}

int undo_read_note(struct undo *u, struct err *e)
{
	const size_t room = (size_t)DESC_SECTORS * SECTOR;
	struct undo_note *note;
	ssize_t got = read_full(u->fd, u->desc, room, SECTOR);
	int r;

	if (got < 0)
		return fail(e, (int)-got, "%s: %s", u->name, strerror((int)-got));
	r = undo_note_parse(&note, u->desc, (size_t)got, e);
	if (r < 0)
		return r;
	u->listed = note && note->sampled && !note->damaged && got == (ssize_t)room;
	r = check_name(u, note, e);
	undo_note_free(note);
	return r;
}

/* --- resuming ------------------------------------------------------------------------------------ */

static int check_head(struct undo *u, struct err *e)
{
	uint8_t want[SECTOR], is[SECTOR];
	ssize_t got = read_full(u->fd, is, sizeof(is), 0);

	if (got < 0)
		return fail(e, (int)-got, "%s: %s", u->name, strerror((int)-got));
	for (unsigned i = 0; i < UNDO_SAMPLES; i++)
		u->sample[i] = le32(is + UNDO_SAMPLES_AT + 4 * i);
	undo_make_header(u, want, KDMV_GD_AT_END, true);
	if (got == (ssize_t)sizeof(is) && !memcmp(is, want, sizeof(is)))
		return 0;
	undo_make_header(u, want, KDMV_GD_AT_END, false);
	if (got == (ssize_t)sizeof(is) && !memcmp(is, want, sizeof(is)))
		return fail(e, EALREADY,
			    "%s: is a finished undo log: its run is complete, and there is nothing "
			    "to resume",
			    u->name);
	return fail(e, EINVAL, "%s: is not an unfinished undo log of a disk of %" PRIu64 " bytes", u->name,
		    u->size);
}

static int open_reader(struct reader **reader, const char *path, struct err *e)
{
	/* one that was interrupted in its first record goes on, too */
	const struct format_opts opts = {.copies = COPIES_EQUAL, .unbalanced = true};
	struct format_facts facts;
	struct source *src = NULL;
	int r = source_open(&src, path, e);

	if (!r)
		r = hosted_open(reader, src, &opts, &facts, e);
	if (r < 0)
		source_free(src);
	return r;
}

/* Reads back what is saved, and takes off what was not written whole. */
int undo_resume(struct undo *u, const char *path, struct err *e)
{
	struct err quiet = {0};
	struct reader *reader = NULL;
	uint64_t last = 0, end = OVERHEAD * SECTOR;
	uint8_t head[RECORD_HEAD];
	struct run run;
	int r = check_head(u, e);

	if (r < 0)
		return r;
	r = open_reader(&reader, path, &quiet);
	while (!r && (r = reader_next(reader, &run, &quiet)) > 0) {
		last = max_u64(last, run.pos);
		r = 0;
	}
	if (!r && last) {
		if (read_full(u->fd, head, sizeof(head), last) != (ssize_t)sizeof(head))
			r = fail(&quiet, EIO, "%s: became shorter", u->name);
		end = last + sectors_of(RECORD_HEAD + le32(head + RECORD_SIZE)) * SECTOR;
	}
	if (!r && ftruncate(u->fd, (off_t)end) < 0)
		r = fail(&quiet, errno, "%s: %s", u->name, strerror(errno));
	/* now that it is known where tables may go that have no room in memory; a reader that knew the
	 * file before would look for more than there is */
	u->end = end;
	reader_free(reader);
	reader = NULL;
	if (!r)
		r = open_reader(&reader, path, &quiet);
	while (!r && (r = reader_next(reader, &run, &quiet)) > 0)
		r = undo_set_entry(u, run.off / u->grain, run.pos / SECTOR, &quiet);
	reader_free(reader);
	if (r < 0)
		return fail_again(e, -r, &quiet);
	/* what was read may come from the page cache of a machine that did not crash */
	u->unsynced = true;
	return undo_barrier(u, e);
}

/* Whether a crash left no more of it than a part of its head, or of the room for that: then nothing
 * has been overwritten yet. */
bool undo_hardly_begun(const struct undo *u)
{
	const size_t head = (size_t)OVERHEAD * SECTOR;
	uint8_t *buf = malloc(head + 1);
	ssize_t got = buf ? read_full(u->fd, buf, head + 1, 0) : -1;
	bool yes = got >= 0 && (size_t)got <= head && all_zero(buf, (size_t)got);

	if (!yes && got >= (ssize_t)SECTOR && (size_t)got < head)
		yes = !memcmp(buf + UNDO_OPEN_AT, UNDO_OPEN, strlen(UNDO_OPEN));
	free(buf);
	return yes;
}
