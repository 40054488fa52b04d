/*
 * vmdksync: writes the allocated grains of VMware snapshot deltas onto a disk.
 *
 * Options, messages and exit status; the only file that prints or exits. Joins the jobs to the
 * progress line. Must not know leaf formats, the ring or the pump's insides.
 */
#include "chain/chain.h"
#include "base/hints.h"
#include "jobs/jobs.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "input/source.h"
#include "output/target.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "unknown"
#endif

enum exit_status { DONE = 0, DIFFERENT = 1, UNTOUCHED = 2, BEGUN = 3 };

static volatile sig_atomic_t stop_signal, asked;

static void on_signal(int sig)
{
	stop_signal = sig;
}

static void on_asked(int sig)
{
	asked = sig;
}

static struct progress *progress;
static bool quiet;

static void complain(const char *text)
{
	progress_clear(progress);
	fprintf(stderr, "vmdksync: %s\n", text);
}

/* The same of a failure, and what may help against it. */
static void complain_of(int code, const char *text)
{
	progress_clear(progress);
	fprintf(stderr, "vmdksync: %s%s\n", text,
		(code == -EACCES || code == -EPERM) && geteuid() ? "; run it as root" : "");
}

/* A warning that cannot be kept is counted all the same. */
static void on_warning(void *arg, const char *text)
{
	struct warnings *w = arg;

	warnings_add(w, text);
	if (quiet)
		return;
	progress_clear(progress);
	fprintf(stderr, "vmdksync: warning: %s\n", text);
}

static struct identity identify(const struct stat *st)
{
	return (struct identity){.dev = st->st_dev,
				 .ino = st->st_ino,
				 .rdev = st->st_rdev,
				 .device = S_ISBLK(st->st_mode)};
}

struct work {
	const struct options *o;
	struct warnings warnings;
	struct chain *chain;
	struct target *target;
	struct undo *undo;
	char *undo_name; /* printable */
	bool warned_repeated;
	size_t applied; /* links of the chain that are written, the newest */
	struct look look;
	bool by_stream;  /* progress is what came of a stream */
	bool undone;     /* --undo-append: the log is finished, and so is the apply */
	struct totals totals;
	struct pump_stats stats;
	struct verify_result differences;
	struct sums *sums; /* of what passes, for a read-back */
	uint64_t done;
	bool whole; /* every byte of the disk is read */
};

static bool on_stop(void *arg)
{
	(void)arg;
	return stop_signal != 0;
}

/* Of a stream of known length what came counts; there is nothing else to compare it with. */
static uint64_t shown_done(const struct work *w)
{
	const struct source *s = w->chain->link[0]->piped;

	return w->by_stream && s ? source_came(s) : w->done;
}

static void on_moved(void *arg, uint64_t bytes)
{
	struct work *w = arg;

	w->done += bytes;
	progress_show(progress, shown_done(w));
	if (asked) {
		asked = 0;
		progress_say(progress, STDERR_FILENO, shown_done(w));
	}
}

/* "; 2 warnings" into buf, or nothing where there were none. */
static const char *warnings_text(char buf[32], const struct work *w)
{
	buf[0] = '\0';
	if (w->warnings.n)
		snprintf(buf, 32, "; %zu warning%s", w->warnings.n, plural(w->warnings.n));
	return buf;
}

/* Bytes of the files that nothing names, as far as they were walked. */
static uint64_t unaccounted(const struct work *w)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < w->chain->links; i++)
		bytes += w->chain->link[i]->unaccounted;
	return bytes;
}

/* "; 64.0 KiB unaccounted for" into buf, or nothing. */
static const char *unaccounted_text(char buf[64], const struct work *w)
{
	const uint64_t bytes = unaccounted(w);
	char size[32];

	buf[0] = '\0';
	if (bytes)
		snprintf(buf, 64, "; %s unaccounted for", size_text(size, bytes));
	return buf;
}

static void say_image(const struct image *m)
{
	char disk[32];

	fprintf(stderr,
		"vmdksync: %s: %s version %u, disk of %s (%" PRIu64 " sector%s), grains of %" PRIu64
		" bytes\n",
		m->name, m->facts.format, m->facts.version, size_text(disk, m->size),
		m->size / SECTOR, plural(m->size / SECTOR), m->facts.grain);
}

static void say_plan(const struct work *w)
{
	char data[32], data_exact[32], zero[32], zero_exact[32];

	if (w->chain->reader->passing && !w->o->dry_run)
		return; /* nobody knows yet */
	fprintf(stderr,
		"vmdksync: %s: %s of data%s and %s of zeros%s in %" PRIu64 " run%s\n",
		w->target->name, size_text(data, w->totals.data),
		exact_text(data_exact, w->totals.data), size_text(zero, w->totals.zero),
		exact_text(zero_exact, w->totals.zero), w->totals.runs, plural(w->totals.runs));
}

/* What was seen of the target before the first write. */
static void say_look(const struct work *w)
{
	const struct look *l = &w->look;
	const char *target = w->target->name, *delta = w->chain->link[0]->name;

	if (w->o->verify || !w->o->verbose)
		return;
	if (l->why)
		fprintf(stderr, "vmdksync: %s: not compared with the parents of %s: %s\n", target,
			delta, l->why);
	else if (!l->differ)
		fprintf(stderr, "vmdksync: %s: holds what the parents of %s hold (%u sample%s)\n",
			target, delta, l->reads, plural(l->reads));
}

/* Where that is most of the delta, it was applied before. */
static void say_present(const struct work *w)
{
	const struct look *l = &w->look;
	const uint64_t all = w->stats.written + w->stats.zeroed;

	if (w->undo && all && (w->stats.present >= all / 2 || w->o->verbose))
		fprintf(stderr,
			"vmdksync: %s: already held %" PRIu64 " of %" PRIu64 " bytes of this delta\n",
			w->target->name, w->stats.present, all);
	else if (!w->undo && l->own && l->own_same > l->own / 2)
		fprintf(stderr, "vmdksync: %s: already %s about %u %% of this delta\n", w->target->name,
			w->o->dry_run ? "holds" : "held", 100 * l->own_same / l->own);
}

static void say_piped(const struct work *w)
{
	char came[32], spooled[32];

	for (size_t i = 0; i < w->chain->links; i++) {
		const struct source *s = w->chain->link[i]->piped;

		if (s)
			fprintf(stderr,
				"vmdksync: %s: %s came (%" PRIu64 " bytes%s), %s spooled (%" PRIu64
				" bytes)%s%s\n",
				w->chain->link[i]->name, size_text(came, source_came(s)),
				source_came(s),
				source_is_gzip(s) ? ", unpacked" : "",
				size_text(spooled, s->spooled), s->spooled, s->spooled ? ": " : "",
				s->spooled ? spool_reason_text(s) : "");
	}
}

static void say_writes(const struct work *w)
{
	const struct target *t = w->target;

	if (w->stats.refused)
		fprintf(stderr,
			"vmdksync: %s: direct I/O was refused (%s); written through the page cache\n",
			t->name, strerror(w->stats.refused));
	fprintf(stderr, "vmdksync: %s: %s, %s, %" PRIu64 " write%s\n", t->name, w->stats.ring,
		!t->past_cache || w->stats.refused ? "buffered"
		: t->served			  ? "direct"
						  : "direct where allocated",
		w->stats.writes, plural(w->stats.writes));
}

static void say_kept_open(const struct work *w)
{
	for (size_t i = 0; w->chain && i < w->chain->links; i++)
		if (w->chain->link[i]->piped && source_kept_open(w->chain->link[i]->piped))
			fprintf(stderr,
				"vmdksync: %s: all bytes expected came, but the sender kept the pipe "
				"open; it was not waited for\n", w->chain->link[i]->name);
}

static void say_summary(const struct work *w)
{
	char data[32], zero[32], rate[32], warned[32], spare[64];
	double seconds = progress_seconds(progress);
	uint64_t bytes = w->stats.written + w->stats.zeroed;

	fprintf(stderr,
		"vmdksync: %s: %s written, %s zeroed, in %" PRIu64 " run%s; %.1f s, %s/s; on stable "
		"storage%s%s\n",
		w->target->name, size_text(data, w->stats.written),
		size_text(zero, w->stats.zeroed), w->stats.runs, plural(w->stats.runs), seconds,
		size_text(rate, seconds > 0.001 ? (uint64_t)((double)bytes / seconds) : bytes),
		unaccounted_text(spare, w), warnings_text(warned, w));
	say_present(w);
	if (w->undo)
		fprintf(stderr, "vmdksync: %s: 'vmdksync %s %s' brings back what was there\n",
			w->undo_name, w->undo_name, w->target->name);
}

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

static bool is_vmdk(const char *path)
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
	return fail(e, EINVAL, "%s: begins as %s does, not as a raw disk%s%s", name, kind->name, attach,
		    too_small ? "" : " (--force=raw writes over the bytes of the image file itself)");
}

/* Somebody who is used to qemu-img commit names the base, which may be an image as well. */
static int check_raw(const struct work *w, struct err *e)
{
	struct image_kind kind;
	uint8_t head[SECTOR];

	if (w->o->force & FORCE_RAW || !target_look(w->target, 0, head, sizeof(head)) ||
	    !image_looks_like(head, sizeof(head), &kind))
		return 0;
	return fail_image(w->target->name, &kind, false, e);
}

/* An image is usually smaller than its disk: its kind says more than its size. */
static int fail_small(const struct work *w, const struct image_kind *kind, struct err *e)
{
	char *name = name_text(w->o->target);
	int r = name ? fail_image(name, kind, true, e) : fail(e, ENOMEM, "out of memory");

	free(name);
	return r;
}

/* What a delta is not of, and a delta that is none. */
static int check_kinds(const struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct chain *c = w->chain;
	struct stat st;
	char disk[64];
	int r = 0;

	if (w->target->device && fstat(w->target->fd, &st) == 0 &&
	    hint_partition(disk, sizeof(disk), st.st_rdev))
		r = warning(e, "%s: is a partition, but a delta is of a whole disk: is %s meant?",
			    w->target->name, disk);
	if (o->verify || o->full || o->chain || o->create)
		return r;
	for (size_t i = 0; !r && i < c->links; i++) {
		const struct image *m = c->link[i];
		const struct descriptor *d = m->descriptor;

		/* an undo log names no parent */
		if (d && d->has_cid && !m->undo && !descriptor_has_parent(d))
			r = warning(e,
				    "%s: is a whole disk, not a delta (the CID of its parent is "
				    "ffffffff): all that it holds is written over %s; its zeros are not, "
				    "without %s", m->name, w->target->name,
				    m->piped ? "--spool-first --full" : "--full");
	}
	return r;
}

static int open_target(struct work *w, struct err *e)
{
	const struct chain *c = w->chain;
	struct target_opts opts = {
	    .need = c->link[0]->size,
	    .read_only = w->o->dry_run || w->o->verify,
	    .create = w->o->create,
	    .force_busy = w->o->force & FORCE_BUSY,
	};
	struct image_kind kind;
	struct identity *inputs;
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	const char **names;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < c->links; i++)
		n += c->link[i]->files;
	inputs = calloc(n, sizeof(*inputs));
	names = calloc(n, sizeof(*names));
	for (size_t i = 0; inputs && names && i < c->links; i++)
		for (size_t k = 0; k < c->link[i]->files; k++) {
			inputs[opts.n_inputs] = identify(&c->link[i]->file[k].st);
			names[opts.n_inputs++] = c->link[i]->file[k].name;
		}
	opts.inputs = inputs;
	opts.input_names = names;
	r = inputs && names ? target_open(&w->target, w->o->target, &opts, &mine)
			    : fail(&mine, ENOMEM, "out of memory");
	free(inputs);
	free(names);
	if (r == -ENOSPC && !(w->o->force & FORCE_RAW) && kind_of(w->o->target, &kind))
		return fail_small(w, &kind, e);
	return r < 0 ? fail(e, -r, "%s", mine.msg) : check_raw(w, e);
}

/* Standard output gets all of it or nothing. */
static int put(char *text, struct err *e)
{
	int r = text ? 0 : -EIO;

	if (text && (fputs(text, stdout) == EOF || fflush(stdout)))
		r = fail(e, EIO, "standard output: %s", strerror(errno));
	free(text);
	return r;
}

/* The same, part by part. */
static int put_part(void *arg, const char *text, size_t n, struct err *e)
{
	(void)arg;
	if (stop_signal)
		return fail(e, EINTR, "stopped by a signal: the list is not complete");
	if (fwrite(text, 1, n, stdout) != n || fflush(stdout))
		return fail(e, EIO, "standard output: %s", strerror(errno));
	return 0;
}

static int say_result(const struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct verify_result *v = &w->differences;
	const struct result result = {
		.base_checked = !w->look.why && !w->look.differ,
		.present = w->undo ? &w->stats.present : NULL,
	    .job = o->verify ? "verify" : o->dry_run ? "dry-run" : "apply",
	    .chain = w->chain,
	    .target = w->target->name,
	    .totals = &w->totals,
	    .unaccounted = unaccounted(w),
	    .stats = o->verify || o->dry_run ? NULL : &w->stats,
	    .differences = o->verify || o->read_back ? v : NULL,
	    .max_ranges = o->max_ranges,
	    .whole = w->whole,
	    .warnings = &w->warnings,
	    .seconds = progress_seconds(progress),
	};
	char text[32], exact[32];
	int r = 0;

	if (o->json)
		r = put(report_result(&result, e), e);
	else if (v->n)
		r = put(report_differences(&result, e), e);
	if (v->n)
		fprintf(stderr,
			"vmdksync: %s: DIFFERENT from %s: %s%zu range%s, %s%s\n", w->target->name,
			w->chain->link[0]->name, v->more ? "more than " : "", v->n, plural(v->n),
			size_text(text, v->bytes), exact_text(exact, v->bytes));
	return r;
}

static void say_equal(const struct work *w)
{
	uint64_t all = w->o->read_back ? w->stats.written + w->stats.zeroed
				       : w->totals.data + w->totals.zero;
	char text[32], exact[32], warned[32], spare[64];

	/* a read-back follows a summary, which counted them */
	fprintf(stderr, "vmdksync: %s: equal to %s: %s%s, %.1f %% of the disk; %.1f s%s%s\n",
		w->target->name, w->chain->link[0]->name, size_text(text, all),
		exact_text(exact, all), 100.0 * (double)all / (double)w->chain->link[0]->size,
		progress_seconds(progress), w->o->read_back ? "" : unaccounted_text(spare, w),
		w->o->read_back ? "" : warnings_text(warned, w));
}

/* Compares; for a read-back, past the page cache. */
static int verify(struct work *w, struct pump_opts opts, struct err *e)
{
	struct pump_stats stats = {.stopped = false};
	int r = 0;

	w->done = 0;
	if (w->by_stream)
		progress_again(progress, w->stats.written + w->stats.zeroed);
	w->by_stream = false;
	if (w->o->read_back) {
		target_forget(w->target);
		opts.past_cache = true;
		if (!w->sums)
			r = reader_rewind(w->chain->reader, e);
	}
	if (w->sums)
		r = job_verify_sums(w->sums, w->target, &opts, &w->differences, &stats, e);
	else if (!r)
		r = job_verify(w->chain->reader, w->target, &opts, &w->differences, &stats, e);
	w->stats.stopped |= stats.stopped;
	return r;
}

static struct chain_opts chain_options(const struct options *o)
{
	return (struct chain_opts){
		.image.format.copies = o->force & FORCE_GD    ? COPY_PRIMARY
				       : o->force & FORCE_RGD ? COPY_REDUNDANT
							      : COPIES_EQUAL,
		.image.format.unbalanced = o->force & FORCE_ACCOUNTS,
		.image.lookup = {o->search, o->searches, o->confine},
		.image.placed = o->placed,
		.image.offset = o->offset,
		.image.base_unread = o->chain,
		.image.format.remember = o->memory,
		.image.source = {.spool = o->spool,
				 .spool_first = o->spool_first || o->info || o->map,
				 .expect = o->expect,
				 .stop = on_stop},
		.parents = o->chain || o->full || o->verify || o->map,
		/* else it is compared with the target, and not written */
		.base = o->full || o->verify || o->info || o->map ? o->base : NULL,
		.found = o->chain || o->full || o->info,
		.image.force_size = o->force & FORCE_SIZE,
		.force_cid = o->force & FORCE_CID,
		.force_size = o->force & FORCE_SIZE,
		.force_changed = o->force & FORCE_CHANGED,
	};
}

/* Each time when all was read that has to be right together. */
static int check_inputs(struct work *w, struct err *e)
{
	return w->o->force & FORCE_CHANGED ? 0 : chain_unchanged(w->chain, e);
}

/* Opens what is to be read, looks at all of its metadata, and makes one reader of it. */
static int open_chain(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	const struct chain_opts opts = chain_options(o);
	struct totals ignored;
	struct chain *c;
	size_t n;
	int r = chain_open(&w->chain, o->inputs, o->n_inputs, &opts, e);

	if (r < 0)
		return r;
	c = w->chain;
	/* what passes can be looked at only once, and in its own order */
	for (size_t i = 0; i < c->links; i++)
		if (c->link[i]->reader && c->link[i]->reader->passing &&
		    (c->links > 1 || o->chain || o->full || o->verify))
			return fail(e, EINVAL,
				    "%s: what comes through a pipe is written alone, and without "
				    "--chain, --full and --verify; --spool-first makes a file of it",
				    c->link[i]->name);
	/* where a whole disk was not asked for, what is there is compared, and the last line says so */
	if (c->lacks && (o->chain || o->full || (c->lacks_code != ENODATA && c->lacks_code != ENOENT)))
		return fail(e, c->lacks_code, "%s", c->lacks);
	if (c->lacks && c->lacks_code == ENOENT)
		r = warning(e, "%s", c->lacks);
	n = o->chain ? c->links - 1 : c->links;
	if (!n)
		return fail(e, EINVAL, "%s: has no parent, and nothing is above it: --full writes it",
			    c->link[0]->name);
	/* one after the other: what a first walk needs is not needed by all of them at once */
	for (size_t i = 0; !r && n > 1 && i < n; i++)
		r = job_scan(c->link[i]->reader, pump, false, &ignored, e);
	w->applied = n;
	w->whole = o->full || ((o->verify || o->map) && !o->chain && !c->lacks);
	if (!r)
		r = chain_read(c, 0, n, w->whole, e);
	if (r < 0 || c->reader->passing)
		return r;
	r = job_scan(c->reader, pump, o->dry_run || (o->spool_first && !o->map), &w->totals, e);
	return r < 0 || o->map ? r : check_inputs(w, e);
}

/* A frozen chain does not change, so whoever holds a copy of its base holds the same bytes. */
static int check_base(struct work *w, struct err *e)
{
	const struct look *l = &w->look;
	const char *target = w->target->name;
	const uint64_t first = l->at.off, last = l->at.off + l->at.len - 1;
	const char *what = l->base ? "is it another disk, or was it written to since it was copied?"
			   : w->o->chain ? "apply it first"
					 : "apply it first, or use --chain";

	if (l->why && w->o->base)
		return warning(e, "%s: was not compared with --base: %s", target, l->why);
	if (l->why || !l->differ)
		return 0;
	if (w->o->force & FORCE_BASE)
		return warning(e, "%s: does not hold %s: %u of %u samples differ, bytes %" PRIu64
				  " to %" PRIu64 " first", target, l->name, l->differ, l->of, first, last);
	return fail(e, EINVAL,
		    "%s: does not hold %s: %s (%u of %u samples differ, bytes %" PRIu64 " to %" PRIu64
		    " first; --force=base skips this check)",
		    target, l->name, what, l->differ, l->of, first, last);
}

/* A new undo log saves what is new for old then. */
static int warn_repeated(struct work *w, struct err *e)
{
	w->warned_repeated = true;
	return warning(e,
		       "%s: already holds nearly all of this delta: was it applied before? The new undo "
		       "log does not lead back to the state before that", w->target->name);
}

/* What the target holds before the first write. */
static int look(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	struct chain_opts opts = chain_options(o);
	int r;

	if (w->whole || o->create) {
		w->look.why = strdup("--full and --create expect nothing of TARGET");
		return w->look.why ? 0 : fail(e, ENOMEM, "out of memory");
	}
	opts.base = o->base;
	opts.parents = opts.found = true;
	opts.image.base_unread = true;
	/* nobody asked for the parents: no name leads elsewhere, none is taken that does not fit */
	if (!o->chain)
		opts.image.lookup.confine = true;
	if (!o->base)
		opts.force_cid = opts.force_size = false;
	r = job_look(&w->look, w->chain, w->applied, w->target, &opts, pump, e);
	if (!r)
		r = check_base(w, e);
	if (!r && o->undo && !o->undo_append && LOOK_NEARLY_ALL(w->look.own_same, w->look.own))
		r = warn_repeated(w, e);
	return r;
}

/* A rollback onto another disk, or onto one that was written to since, destroys what is there. */
static int check_disk(const struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct chain *c = w->chain;
	bool logs = false;
	size_t places;
	int r = 0;

	if (o->verify || o->full || o->create || o->force & FORCE_DISK)
		return 0;
	for (size_t i = 0; !r && i < c->links; i++) {
		const struct undo_note *u = c->link[i]->undo;

		if (!u)
			continue;
		logs |= u->sampled;
		if (u->damaged)
			r = fail(e, EBADMSG,
				 "%s: its list of checksums is damaged, so it cannot be told whether %s "
				 "is its disk (--force=disk skips this check)", c->link[i]->name, w->target->name);
		else if (!u->sampled && o->verbose)
			fprintf(stderr,
				"vmdksync: %s: has no checksums of its disk (a log of version 1.0.0): "
				"whether that is %s was not checked\n",
				c->link[i]->name, w->target->name);
		if (o->verbose && strcmp(u->disk, w->target->name) != 0)
			fprintf(stderr, "vmdksync: %s: was made for %s, and goes onto %s\n",
				c->link[i]->name, u->disk, w->target->name);
	}
	if (!r && logs)
		r = job_check_undo(c, w->target, &places, e);
	if (!r && logs && o->verbose)
		fprintf(stderr, "vmdksync: %s: %zu place%s that the undo log does not hold %s as they "
			"were\n", w->target->name, places, plural(places), places == 1 ? "is" : "are");
	return r;
}

/* The log must be none of the files we work on; a name that is new is. */
static int check_undo(struct work *w, struct err *e)
{
	const char *name = w->undo_name;
	struct stat st, target;

	if (lstat(w->o->undo, &st) < 0)
		return 0; /* undo_open() says more */
	if (fstat(w->target->fd, &target) < 0 ||
	    (stat(w->o->undo, &st) < 0 && w->o->undo_append))
		return fail(e, errno, "%s: %s", name, strerror(errno));
	if ((st.st_dev == target.st_dev && st.st_ino == target.st_ino) ||
	    (S_ISBLK(st.st_mode) && S_ISBLK(target.st_mode) && st.st_rdev == target.st_rdev))
		return fail(e, EINVAL, "%s: is the target, and cannot be the undo log", name);
	for (size_t i = 0; i < w->chain->links; i++)
		for (size_t k = 0; k < w->chain->link[i]->files; k++) {
			const struct image_file *f = &w->chain->link[i]->file[k];

			if (st.st_dev == f->st.st_dev && st.st_ino == f->st.st_ino)
				return fail(e, EINVAL,
					    "%s: is one of the inputs (%s), and cannot be the undo log",
					    name, f->name);
		}
	return w->o->undo_append
		       ? 0
		       : fail(e, EEXIST,
			      "%s: exists already; an undo log is a new file (--undo-append goes on "
			      "with one that was not finished)", name);
}

/* Before the first write, what the log may need: it cannot grow where its disk is full. */
static int check_room(const struct work *w, struct err *e)
{
	struct reader *reader = w->chain->reader;
	const uint64_t size = reader->size, grain = undo_grain_of(size);
	const char *slash = strrchr(w->o->undo, '/');
	uint64_t grains, tables, least, most, room;
	char a[32], b[32], *dir;
	struct statvfs fs;
	struct stat st;
	int r;

	if (reader->passing)
		return 0; /* nobody knows yet */
	dir = slash ? strndup(w->o->undo, (size_t)(slash - w->o->undo) + 1) : strdup(".");
	if (!dir)
		return fail(e, ENOMEM, "out of memory");
	r = statvfs(dir, &fs);
	free(dir);
	if (r < 0 || !fs.f_blocks)
		return 0;
	room = (uint64_t)(geteuid() ? fs.f_bavail : fs.f_bfree) * fs.f_frsize;
	if (w->o->undo_append && stat(w->o->undo, &st) == 0)
		room += (uint64_t)st.st_blocks * 512;
	grains = min_u64((w->totals.data + w->totals.zero) / grain + 2 * w->totals.runs,
			 div_up(size, grain));
	undo_room(size, grains, min_u64(grains, div_up(size, grain * UNDO_TABLE)), &least, &most);
	if (room < most) {
		r = job_touched(reader, grain, UNDO_TABLE, &grains, &tables, e);
		if (r < 0)
			return r;
		undo_room(size, grains, tables, &least, &most);
	}
	if (w->o->verbose || w->o->dry_run)
		fprintf(stderr, "vmdksync: %s: may need up to %s; %s are free there\n", w->undo_name,
			size_text(a, most), size_text(b, room));
	if (room < least && !(w->o->force & FORCE_ROOM))
		return fail(e, ENOSPC,
			    "%s: needs %s at the least, but only %s are free there: make room, or name a "
			    "file on another disk (--force=room tries it)", w->undo_name,
			    size_text(a, least), size_text(b, room));
	if (room < most)
		return warning(e, "%s: may need up to %s, but only %s are free there; where it finds no "
				  "room the run ends", w->undo_name, size_text(a, most),
			       size_text(b, room));
	return 0;
}

static bool on_look(void *arg, uint64_t off, void *buf, size_t n)
{
	return target_look(arg, off, buf, n);
}

/* A finished log, as where a run was killed at its very end: is TARGET its disk, and is all done? */
static int check_finished(struct work *w, const struct pump_opts *pump, const char *why, struct err *e)
{
	const struct image_opts opts = {.format.copies = COPIES_EQUAL};
	struct image *log = NULL;
	struct chain one = {.link = &log, .links = 1};
	size_t places;
	int r = 0;

	if (w->chain->reader->passing)
		return fail(e, EALREADY, "%s; whether %s holds all of it is told for a file, or with "
					 "--spool-first", why, w->target->name);
	if (!(w->o->force & FORCE_DISK)) {
		r = image_open(&log, w->o->undo, &opts, e);
		if (!r && log->undo && !log->undo->damaged)
			r = job_check_undo(&one, w->target, &places, e);
		image_free(log);
	}
	if (!r)
		r = job_verify(w->chain->reader, w->target, pump, &w->differences, &w->stats, e);
	if (!r && !w->stats.stopped && w->differences.n)
		r = fail(e, EALREADY, "%s, but %s does not hold what %s does (%" PRIu64 " bytes differ): "
				      "name another file for its log", why, w->target->name,
			 w->chain->link[0]->name, w->differences.bytes);
	verify_free(&w->differences);
	w->differences = (struct verify_result){0};
	w->undone = !r && !w->stats.stopped;
	return r;
}

static int open_undo(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct undo_opts opts = {.append = w->o->undo_append,
				       .mode = 0600,
				       .disk = w->target->name,
				       .disk_in_memory = target_in_memory(w->target),
				       .applied = w->chain->link[0]->name,
				       .look = on_look,
				       .arg = w->target};
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	int r;

	w->undo_name = name_text(w->o->undo);
	r = w->undo_name ? check_undo(w, e) : fail(e, ENOMEM, "out of memory");
	if (!r)
		r = check_room(w, e);
	if (r < 0 || w->o->dry_run)
		return r;
	r = undo_open(&w->undo, w->o->undo, w->chain->reader->size, &opts, &mine);
	if (r == -EALREADY)
		return check_finished(w, pump, mine.msg, e);
	return r < 0 ? fail(e, -r, "%s", mine.msg) : 0;
}

/* What a user does when it went wrong. */
static void say_next_step(const struct work *w)
{
	if (w->undo)
		fprintf(stderr,
			"; running again with --undo-append is safe, and 'vmdksync %s %s' brings "
			"back what was there\n",
			w->undo_name, w->target->name);
	else
		fprintf(stderr, "; running again is safe\n");
}

static int info(const struct options *o, struct err *e)
{
	const struct pump_opts pump = {.stop = on_stop};
	const struct chain_opts opts = chain_options(o);
	struct info **all = calloc(o->n_inputs, sizeof(struct info *));
	int r = all ? 0 : fail(e, ENOMEM, "out of memory");

	for (size_t i = 0; !r && i < o->n_inputs; i++)
		r = info_open(&all[i], o->inputs[i], &opts, &pump, e);
	if (!r)
		r = put(report_info(all, o->n_inputs, o->json, e), e);
	for (size_t i = 0; all && i < o->n_inputs; i++)
		info_free(all[i]);
	free(all);
	return r;
}

static int check_map(void *arg, struct err *e)
{
	return check_inputs(arg, e);
}

static int map(struct work *w, struct err *e)
{
	const struct report_out out = {.put = put_part, .arg = w};

	return report_map(w->chain, w->o->json, &out, check_map, e);
}

static int run(struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct pump_opts pump = {
	    .in_line = o->in_line, .stop = on_stop, .moved = on_moved, .arg = w};
	enum progress_form form = o->progress >= 0	  ? (enum progress_form)o->progress
				  : isatty(STDERR_FILENO) ? PROGRESS_LINE
							  : PROGRESS_NONE;
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	char size[32], exact[32], warned[32], spare[64];
	int r;

	if (o->info)
		return info(o, e);
	r = open_chain(w, &pump, &mine);
	if (r == -ENOTSUP && o->target && is_vmdk(o->target) &&
	    !is_vmdk(o->inputs[o->n_inputs - 1]))
		return fail(e, -r, "%s; the last name is a VMDK, but TARGET comes last: swapped?",
			    mine.msg);
	if (r < 0)
		return fail(e, -r, "%s", mine.msg);
	if (!r && o->map)
		return map(w, e);
	if (!r)
		r = open_target(w, e);
	if (!r)
		r = check_kinds(w, e);
	if (!r)
		r = check_disk(w, e);
	if (!r && !o->verify)
		r = look(w, &pump, e);
	if (!r && o->undo)
		r = open_undo(w, &pump, e);
	if (!r && w->chain->reader->passing && o->dry_run)
		r = job_scan(w->chain->reader, &pump, true, &w->totals, e);
	if (!r && o->dry_run)
		r = check_inputs(w, e);
	if (r < 0 || w->undone || w->stats.stopped)
		return r;
	if (o->verbose || o->dry_run) {
		for (size_t i = 0; i < w->chain->links; i++)
			say_image(w->chain->link[i]);
		say_plan(w);
		say_look(w);
	}
	if (o->verbose && w->target->served)
		fprintf(stderr, "vmdksync: %s: %s: one transfer in flight, zeros as bytes\n",
			w->target->name, w->target->served);
	if (o->dry_run) {
		say_piped(w);
		say_present(w);
		fprintf(stderr, "vmdksync: %s: %s %s%s; dry run, nothing was written%s%s%s\n",
			w->target->name, w->target->created ? "would have" : "has",
			size_text(size, w->target->size),
			exact_text(exact, w->target->size),
			w->target->read_only ? "; it is read-only, so it could not be" : "",
			unaccounted_text(spare, w), warnings_text(warned, w));
		return 0;
	}
	if (quiet && form == PROGRESS_LINE)
		form = PROGRESS_NONE;
	w->by_stream = w->chain->reader->passing && o->expect;
	progress = progress_new(form, o->progress_fd, "vmdksync",
				w->by_stream ? o->expect : w->totals.data + w->totals.zero);
	if (o->verify) {
		r = verify(w, pump, e);
		progress_end(progress, w->done);
		return r < 0 || w->stats.stopped ? r : check_inputs(w, e);
	}
	if (o->read_back && w->chain->reader->passing)
		r = sums_new(&w->sums, w->chain->reader, o->spool, e);
	if (!r)
		r = job_apply(w->chain->reader, w->target, &pump, w->undo, w->sums, &w->stats, e);
	if (!r && w->stats.repeated && !o->undo_append && !w->warned_repeated) {
		struct err late = {.warn = e->warn, .arg = e->arg}; /* too late for --strict */

		r = warn_repeated(w, &late);
	}
	if (w->chain->reader->passing) /* nobody knew before */
		w->totals = (struct totals){
		    .runs = w->stats.runs, .data = w->stats.written, .zero = w->stats.zeroed};
	if (!r && !w->stats.stopped)
		r = check_inputs(w, e);
	if (!r && o->read_back && !w->stats.stopped) {
		r = verify(w, pump, e);
		/* what passed by was compared by its checksums */
		if (!r && !w->sums && !w->stats.stopped)
			r = check_inputs(w, e);
	}
	/* last of all: a run that failed before can be resumed with --undo-append */
	if (!r && w->undo && !w->stats.stopped)
		r = undo_finish(w->undo, e);
	progress_end(progress, shown_done(w));
	if (o->verbose)
		say_piped(w);
	if (o->verbose)
		say_writes(w);
	return r;
}

/* A split disk of a few TiB has more extents than the usual 1024. */
static void raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit); /* it may fail: there are fewer then */
	}
}

/*
 * A standard descriptor that is closed would be given to the next file that is opened, and messages
 * would be written into it. What fills it can neither be read from 0 nor written to at 1 and 2, so
 * that both still fail. False: not even that can be opened.
 */
static bool fill_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int filler = fd;

		if (fcntl(fd, F_GETFD) < 0) {
			filler = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
			if (filler < 0) /* a root without /dev */
				filler = open("/", O_PATH);
		}
		if (filler != fd)
			return false;
	}
	return true;
}

/* What was ignored at the start, as nohup and a shell's & do, stays ignored. */
static void on_end(int sig, const struct sigaction *act)
{
	struct sigaction was;

	if (sigaction(sig, NULL, &was) < 0 || was.sa_handler != SIG_IGN)
		sigaction(sig, act, NULL);
}

int main(int argc, char **argv)
{
	struct options o;
	struct work w = {.o = &o};
	struct err e = {.warn = on_warning, .arg = &w.warnings};
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	struct sigaction ask = {.sa_handler = on_asked, .sa_flags = SA_RESTART};
	enum exit_status status;
	char warned[32], room[32];
	struct statvfs fs;
	int r;

	if (!fill_standard())
		return UNTOUCHED;
	r = options_parse(&o, argc, argv, &e);
	if (r < 0) {
		complain(e.msg);
		fputs("Try 'vmdksync --help'.\n", stderr);
	} else if (o.help || o.version) {
		r = put(o.help ? options_help() : strdup("vmdksync " VERSION "\n"), &e);
		if (r < 0)
			complain(e.set ? e.msg : "out of memory");
	}
	if (r || o.help || o.version) {
		free(o.search);
		warnings_free(&w.warnings);
		return r ? UNTOUCHED : DONE;
	}
	quiet = o.quiet;
	e.strict = o.strict;
	raise_open_files();
#ifdef M_MMAP_THRESHOLD
	/* what is large goes back to the system when it is freed, whichever thread had it */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
	/* a second signal kills; a write beyond the size limit is an error like others */
	on_end(SIGINT, &act);
	on_end(SIGTERM, &act);
	on_end(SIGHUP, &act);
	sigaction(SIGUSR1, &ask, NULL);
	/* Nobody listens any more: a list ends there, in silence like other programs' lists. What we say
	 * of the end of others may bring the next. */
	act.sa_flags = 0;
	if (!o.info && !o.map)
		sigaction(SIGPIPE, &act, NULL);
	signal(SIGXFSZ, SIG_IGN);

	r = run(&w, &e);
	status = r < 0 || w.stats.stopped ? w.stats.begun ? BEGUN : UNTOUCHED
		 : w.differences.n	  ? DIFFERENT
					  : DONE;
	if (r < 0)
		complain_of(r, e.msg);
	if (!r && !o.quiet)
		say_kept_open(&w);
	if (o.verify && w.stats.stopped)
		fprintf(stderr,
			"vmdksync: %s: stopped by a signal after %" PRIu64 " of %" PRIu64
			" bytes were compared\n",
			w.target->name, w.done, w.totals.data + w.totals.zero);
	else if (w.stats.stopped || (r < 0 && w.stats.begun)) {
		if (w.chain->reader->passing)
			fprintf(stderr,
				"vmdksync: %s: %s after %" PRIu64 " bytes, the last of them before byte "
				"%" PRIu64 "%s",
				w.target->name, w.stats.stopped ? "stopped by a signal" : "gave up",
				w.stats.written + w.stats.zeroed, w.stats.reached,
				w.stats.synced ? ", are on stable storage" : "");
		else
			fprintf(stderr,
				"vmdksync: %s: %s after %" PRIu64 " of %" PRIu64 " bytes",
				w.target->name, w.stats.stopped ? "stopped by a signal" : "gave up",
				w.stats.written + w.stats.zeroed, w.totals.data + w.totals.zero);
		if (r == -ENOSPC && !w.undo && !w.target->device &&
		    fstatvfs(w.target->fd, &fs) == 0)
			fprintf(stderr, "; %s are free there",
				size_text(room, (uint64_t)fs.f_bavail * fs.f_frsize));
		say_next_step(&w);
	} else if (!r && w.undone && !o.quiet)
		fprintf(stderr,
			"vmdksync: %s: holds all of it already, and %s is finished: nothing was left to "
			"do%s\n", w.target->name, w.undo_name, warnings_text(warned, &w));
	else if (!r && w.target && !o.quiet && !o.dry_run && !o.verify)
		say_summary(&w);
	if (!r && w.target && !w.stats.stopped && say_result(&w, &e) < 0) {
		complain(e.msg);
		if (status == DONE)
			status = w.stats.begun ? BEGUN : UNTOUCHED;
	}
	if (status == DONE && (o.verify || o.read_back) && !o.quiet && !w.undone)
		say_equal(&w);
	look_free(&w.look);
	verify_free(&w.differences);
	sums_free(w.sums);
	progress_free(progress);
	if (w.undo && !w.stats.begun && !o.undo_append && status != DONE)
		unlink(o.undo); /* it holds nothing, and would stand in the way of the next run */
	if (w.target && w.target->created && !o.dry_run && status == UNTOUCHED)
		unlink(o.target); /* the same */
	undo_free(w.undo);
	free(w.undo_name);
	target_free(w.target);
	chain_free(w.chain);
	warnings_free(&w.warnings);
	free(o.search);
	return status;
}
