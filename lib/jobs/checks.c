/* SPDX-License-Identifier: MIT */
#include "jobs/checks.h"
#include "base/hints.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- the target ---------------------------------------------------------------------------------- */

/* Whether a file begins as an image; without opening anything but a regular file. */
static bool kind_of(const char *path, struct image_kind *kind)
{
	uint8_t head[SECTOR];
	struct stat st;
	bool yes = false;
	int fd;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0 && pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head))
		yes = image_looks_like(head, sizeof(head), kind);
	if (fd >= 0)
		close(fd);
	return yes;
}

bool job_is_vmdk(const char *path)
{
	struct image_kind kind;

	return kind_of(path, &kind) && kind.vmdk;
}

/* --force=raw is offered only where nothing else is in its way. */
static int fail_image(const char *name, const struct image_kind *kind, bool too_small, struct err *e)
{
	char attach[1024] = "";

	if (kind->driver && !kind->vmdk)
		snprintf(attach, sizeof(attach),
			 "; attach it ('modprobe nbd; qemu-nbd -f %s -c /dev/nbd0 %.512s') and name "
			 "/dev/nbd0", kind->driver, name);
	return fail_with(e, EINVAL, FACTS(.code = ERR_NOT_A_DISK, .force = too_small ? NULL : "raw"),
			 "%s: begins as %s does, not as a raw disk" HINT "%s%s", name, kind->name, attach,
			 too_small ? "" : " (--force=raw writes over the bytes of the image file itself)");
}

/* Somebody who is used to qemu-img commit names the base, which may be an image as well. */
static int check_raw(struct target *t, struct err *e)
{
	struct image_kind kind;
	uint8_t head[SECTOR];

	if (!target_look(t, 0, head, sizeof(head)) || !image_looks_like(head, sizeof(head), &kind))
		return 0;
	return fail_image(t->name, &kind, false, e);
}

/* An image is usually smaller than its disk: its kind says more than its size. */
static int fail_small(const char *path, const struct image_kind *kind, struct err *e)
{
	char *name = name_text(path);
	int r = name ? fail_image(name, kind, true, e) : fail(e, ENOMEM, "out of memory");

	free(name);
	return r;
}

int job_open_target(struct target **out, const char *path, const struct target_opts *how,
		    const struct chain *c, bool force_raw, struct err *e)
{
	struct target_opts opts = *how;
	struct image_kind kind;
	struct target_input *inputs;
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	size_t n = 0;
	int r;

	for (size_t i = 0; i < c->links; i++)
		n += c->link[i]->files;
	inputs = calloc(n, sizeof(*inputs));
	for (size_t i = 0; inputs && i < c->links; i++)
		for (size_t k = 0; k < c->link[i]->files; k++) {
			const struct image_file *f = &c->link[i]->file[k];

			inputs[opts.n_inputs++] = (struct target_input){&f->st, f->name};
		}
	opts.need = c->link[0]->size;
	opts.inputs = inputs;
	r = inputs ? target_open(out, path, &opts, &mine) : fail(&mine, ENOMEM, "out of memory");
	free(inputs);
	if (r == -ENOSPC && !force_raw && kind_of(path, &kind))
		return fail_small(path, &kind, e);
	if (r < 0)
		return fail_again(e, -r, &mine);
	return force_raw ? 0 : check_raw(*out, e);
}

int job_check_kinds(const struct chain *c, const struct target *t, bool deltas, struct err *e)
{
	char disk[64];
	int r = 0;

	if (t->device && hint_partition(disk, sizeof(disk), t->st.st_rdev))
		r = warning(e, "%s: is a partition, but a %s is of a whole disk: is %s meant?", t->name,
			    c->link[0]->raw ? "base" : "delta", disk);
	for (size_t i = 0; !r && deltas && i < c->links; i++) {
		const struct image *m = c->link[i];
		const struct descriptor *d = m->descriptor;

		/* an undo log names no parent */
		if (d && d->has_cid && !m->undo && !descriptor_has_parent(d))
			r = warning(e,
				    "%s: is a whole disk, not a delta (the CID of its parent is "
				    "ffffffff): all that it holds is written over %s; its zeros are not, "
				    "without --full", m->name, t->name);
	}
	return r;
}

/* A frozen chain does not change, so whoever holds a copy of its base holds the same bytes. */
int job_check_base(const struct look *l, const char *target, const struct base_opts *o, struct err *e)
{
	const uint64_t first = l->at.off, last = l->at.off + l->at.len - 1;
	const char *what = l->base ? "is it another disk, or was it written to since it was copied?"
			   : o->chain ? "apply it first"
					 : "apply it first, or use --chain";

	if (*l->why && o->named)
		return warning(e, "%s: was not compared with --base: %s", target, l->why);
	if (*l->why || !l->differ)
		return 0;
	if (o->force)
		return warning(e, "%s: does not hold %s: %u of %u samples differ, bytes %" PRIu64
				  " to %" PRIu64 " first", target, l->name, l->differ, l->of, first, last);
	return fail_with(e, EINVAL,
		    FACTS(.code = l->base ? ERR_WRONG_DISK : ERR_WRONG_ORDER, AT_BYTE(first)),
		    "%s: does not hold %s" HINT ": %s (%u of %u samples differ, bytes %" PRIu64 " to %" PRIu64
		    " first; --force=base skips this check)",
		    target, l->name, what, l->differ, l->of, first, last);
}

/* --- undo logs ----------------------------------------------------------------------------------- */

/* A rollback onto another disk, or onto one that was written to since, destroys what is there. */
int job_check_logs(const struct chain *c, struct target *t, bool *checked, size_t *places, struct err *e)
{
	bool logs = false;
	int r = 0;

	*checked = false;
	for (size_t i = 0; !r && i < c->links; i++) {
		const struct undo_note *u = c->link[i]->undo;

		if (!u)
			continue;
		logs |= u->sampled;
		if (u->damaged)
			r = fail(e, EBADMSG,
				 "%s: its list of checksums is damaged, so it cannot be told whether %s "
				 "is its disk" HINT " (--force=disk skips this check)", c->link[i]->name,
				 t->name);
	}
	if (!r && logs)
		r = job_check_undo(c, t, places, e);
	*checked = !r && logs;
	return r;
}

/* The log must be none of the files we work on; a name that is new is. */
static int check_name(const struct log_opts *o, const struct chain *c, const struct target *t, struct err *e)
{
	const char *name = o->name;
	struct stat st;

	if (lstat(o->path, &st) < 0)
		return 0; /* undo_open() says more */
	if (stat(o->path, &st) < 0 && o->append)
		return fail(e, errno, "%s: %s", name, strerror(errno));
	if (target_is(t, &st))
		return fail(e, EINVAL, "%s: is the target, and cannot be the undo log", name);
	for (size_t i = 0; i < c->links; i++)
		for (size_t k = 0; k < c->link[i]->files; k++) {
			const struct image_file *f = &c->link[i]->file[k];

			if (same_file(&st, &f->st))
				return fail(e, EINVAL,
					    "%s: is one of the inputs (%s), and cannot be the undo log",
					    name, f->name);
		}
	return o->append
		       ? 0
		       : fail(e, EEXIST,
			      "%s: exists already" HINT "; an undo log is a new file (--undo-append resumes "
			      "with an unfinished one)", name);
}

/* Before the first write, what the log may need: it cannot grow where its disk is full. */
static int check_room(const struct log_opts *o, struct reader *reader, const struct totals *sum,
		      struct log_room *told, struct err *e)
{
	const uint64_t size = reader->size, grain = undo_grain_of(size);
	uint64_t grains, tables, least, most, room;
	char a[32], b[32], *dir;
	struct statvfs fs;
	struct stat st;
	int r;

	if (reader->streaming)
		return 0; /* nobody knows yet */
	dir = path_folder(o->path);
	if (!dir)
		return fail(e, ENOMEM, "out of memory");
	r = statvfs(dir, &fs);
	free(dir);
	if (r < 0 || !fs.f_blocks)
		return 0;
	room = (uint64_t)(geteuid() ? fs.f_bavail : fs.f_bfree) * fs.f_frsize;
	if (o->append && stat(o->path, &st) == 0)
		room += (uint64_t)st.st_blocks * 512;
	grains = min_u64((sum->data + sum->zero) / grain + 2 * sum->runs,
			 div_up(size, grain));
	undo_room(size, grains, min_u64(grains, div_up(size, grain * UNDO_TABLE)), &least, &most);
	if (room < most) {
		r = job_touched(reader, grain, UNDO_TABLE, &grains, &tables, e);
		if (r < 0)
			return r;
		undo_room(size, grains, tables, &least, &most);
	}
	*told = (struct log_room){.known = true, .most = most, .free = room};
	if (room < least && !(o->force_room))
		return fail_with(e, ENOSPC, FACTS(SIZES(room, least)),
			    "%s: needs %s at the least, but only %s are free there" HINT ": make room, or name a "
			    "file on another disk (--force=room skips this check)", o->name,
			    size_text(a, least), size_text(b, room));
	if (room < most)
		return warning(e, "%s: may need up to %s, but only %s are free there; where it finds no "
				  "room the run ends", o->name, size_text(a, most),
			       size_text(b, room));
	return 0;
}

/* A finished log, as where a run was killed at its very end: is TARGET its disk, and is all done? */
static int check_finished(const struct log_opts *o, struct chain *c, struct target *t,
			  const struct pump_opts *pump, const char *why, struct pump_stats *stats,
			  struct err *e)
{
	const struct image_opts opts = {.format.copies = COPIES_EQUAL};
	struct verify_result v = {0};
	struct chain one = {.links = 1};
	size_t places;
	int r = 0;

	if (c->reader->streaming)
		return fail_with(e, EALREADY, FACTS(.code = ERR_FINISHED),
				 "%s" HINT "; whether %s holds all of it is told for a file, or with --spool-first",
				 why, t->name);
	if (!o->force_disk) {
		r = image_open(&one.link[0], o->path, &opts, e);
		if (!r && one.link[0]->undo && !one.link[0]->undo->damaged)
			r = job_check_undo(&one, t, &places, e);
		image_free(one.link[0]);
	}
	if (!r)
		r = job_verify(c->reader, NULL, t, pump, &v, stats, e);
	if (!r && !stats->stopped && v.n)
		r = fail(e, EALREADY, "%s, but %s does not hold what %s does (%" PRIu64 " bytes differ)" HINT ": "
				      "name another file for its log", why, t->name, c->link[0]->name,
			 v.bytes);
	verify_free(&v);
	return r;
}

static bool on_look(void *arg, uint64_t off, void *buf, size_t n)
{
	return target_look(arg, off, buf, n);
}

int job_check_log(const struct log_opts *o, const struct chain *c, const struct target *t,
		  const struct totals *sum, struct log_room *room, struct err *e)
{
	int r = check_name(o, c, t, e);

	*room = (struct log_room){.known = false};
	return r < 0 ? r : check_room(o, c->reader, sum, room, e);
}

int job_open_log(struct undo **out, const struct log_opts *o, struct chain *c, struct target *t,
		 const struct pump_opts *pump, struct pump_stats *stats, struct err *e)
{
	const struct undo_opts opts = {.append = o->append,
				       .mode = 0600,
				       .disk = t->name,
				       .disk_in_memory = t->in_memory,
				       .applied = c->link[0]->name,
				       .look = on_look,
				       .arg = t};
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	int r = undo_open(out, o->path, c->reader->size, &opts, &mine);

	if (r == -EALREADY) {
		r = check_finished(o, c, t, pump, mine.msg, stats, e);
		return r < 0 || stats->stopped ? r : 1;
	}
	return r < 0 ? fail_again(e, -r, &mine) : 0;
}
