/* SPDX-License-Identifier: MIT */
/*
 * vmdksync: writes the allocated grains of VMware snapshot deltas onto a disk.
 *
 * main, which job runs, exit status; the only file that prints or exits. Joins options, jobs and progress.
 * Must not know formats, the queue, or the words of a report.
 */
#include "cli/card.h"
#include "cli/members.h"
#include "cli/picture.h"
#include "cli/say.h"
#include "jobs/checks.h"
#include "jobs/disks.h"
#include "jobs/facts.h"
#include "output/nbd_uri.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

/* help: what may help against an error, or NULL. */
static void complain(struct work *w, const char *text, const char *help)
{
	progress_clear(&w->progress);
	fprintf(stderr, "vmdksync: %s%s%s\n", text, help ? "; " : "", help ? help : "");
}

/* A warning that cannot be kept is counted all the same. */
static void on_warning(void *arg, const char *text)
{
	struct work *w = arg;

	warnings_add(&w->warnings, text);
	if (w->o->quiet)
		return;
	progress_clear(&w->progress);
	fprintf(stderr, screen_of(STDERR_FILENO).colour ? "vmdksync: \x1b[33mwarning:\x1b[0m %s\n" : "vmdksync: warning: %s\n", text);
}

/* What people are told. It needs no memory: where that is short it has to be told all the same that the
 * target was written to. */
static char said_room[1 << 20];
static struct text said = {.s = said_room, .room = sizeof(said_room), .fixed = true};

static void show(void)
{
	fputs(said.s, stderr);
	said.s[0] = '\0';
	said.len = 0;
	said.failed = false;
}

static bool on_stop(void *arg)
{
	(void)arg;
	return stop_signal != 0;
}

/* Where a stream begins that goes on with one that broke off. */
static uint64_t stream_from(const struct work *w)
{
	const struct checkpoint *c = resume_found(w->resume);

	return c ? c->restart : 0;
}

/* Of a stream of known length the bytes received count; there is nothing else to compare them with. */
static uint64_t shown_done(const struct work *w)
{
	const struct source *s = w->chain->link[0]->piped;

	return w->by_stream && s ? stream_from(w) + source_received(s) : w->done;
}

static void on_moved(void *arg, uint64_t bytes)
{
	struct work *w = arg;

	w->done += bytes;
	progress_show(&w->progress, shown_done(w));
	if (asked) {
		asked = 0;
		progress_say(&w->progress, STDERR_FILENO, shown_done(w));
	}
}

static void on_syncing(void *arg)
{
	struct work *w = arg;

	progress_phase(&w->progress, "sync", shown_done(w));
}

/* Standard output gets all of it or nothing. */
static int put(char *text, struct err *e)
{
	int r = text ? 0 : fail(e, ENOMEM, "out of memory");

	if (text && (fputs(text, stdout) == EOF || fflush(stdout)))
		r = fail(e, EIO, "standard output: %s", strerror(errno));
	free(text);
	return r;
}

/* The same, part by part. */
static int put_part(void *arg, const char *text, size_t n, struct err *e)
{
	(void)arg;
	if (stop_signal && !e->set)
		return fail(e, EINTR, "stopped by a signal: the list is not complete");
	if (ferror(stdout) || fwrite(text, 1, n, stdout) != n || fflush(stdout))
		return fail(e, EIO, "standard output: %s", strerror(errno));
	return 0;
}

/* Compares; for a read-back, past the page cache. */
static int verify(struct work *w, struct pump_opts opts, struct err *e)
{
	struct pump_stats stats = {.stopped = false};
	int r = 0;

	w->done = 0;
	w->by_stream = false;
	if (w->o->read_back) {
		progress_again(&w->progress, "verify", w->stats.written + w->stats.zeroed);
		target_forget(w->target);
		opts.past_cache = true;
		if (!w->sums)
			r = reader_rewind(w->chain->reader, e);
	}
	if (!r)
		r = job_verify(w->chain->reader, w->sums, w->target, &opts, &w->differences, &stats, e);
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
		.image.text_only = o->descriptors,
		.image.format.remember = o->memory,
		.image.format.fill = o->full,
		.image.plain = o->raw,
		.image.force_plain = o->force & FORCE_RAW,
		.image.source = {.spool = o->spool,
				 .spool_first = o->spool_first || o->info || o->map,
				 .stream.plain = o->raw && !o->raw_gzip,
				 .stream.expect = o->expect,
				 .stream.stop = on_stop},
		.parents = o->chain || o->full || o->verify || o->map,
		.alone = o->full && o->placed && !o->base,
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
static int check_inputs(void *arg, struct err *e)
{
	const struct work *w = arg;

	return w->o->force & FORCE_CHANGED ? 0 : chain_unchanged(w->chain, e);
}

/* A stream is read once, in file order. */
static int check_streams(const struct work *w, struct err *e)
{
	const struct chain *c = w->chain;
	const struct options *o = w->o;

	for (size_t i = 0; i < c->links; i++) {
		const struct image *m = c->link[i];

		if (w->resume && m->piped && !m->raw)
			return fail(e, EINVAL,
				    "%s: a VMDK from a stream cannot be resumed, as its grains come in any order: "
				    "run it from the start without --resume, which is safe, or read its file where "
				    "it lies (sshfs, NFS)", m->name);
		if (!m->reader || !m->reader->streaming)
			continue;
		if (o->full && !o->base && descriptor_has_parent(m->descriptor))
			return fail(e, EINVAL,
				    "%s: has a parent, whose bytes belong into its gaps: --full of a pipe "
				    "is for a disk without one; name the file, or copy it here first",
				    m->name);
		if (c->links > 1 || o->chain || o->verify)
			return fail(e, EINVAL,
				    "%s: what comes through a pipe is written alone, and without "
				    "--chain and --verify" HINT "; --spool-first makes a file of it", m->name);
	}
	return 0;
}

/* A plain disk from a stream goes on where the checkpoint says; a loss is at most what a window holds. */
static int open_resumed(struct work *w, struct chain_opts *opts, struct err *e)
{
	const struct checkpoint *c = resume_found(w->resume);

	opts->image.source.stream.window = RAW_STEP;
	if (!c || !c->stream)
		return 0;
	if (!w->o->raw || c->size != w->o->expect)
		return fail(e, EINVAL, "%s: is of a raw disk of %" PRIu64 " bytes from a stream (--raw "
				       "--expect-size=%" PRIu64 "): remove it to begin again from the start",
			    resume_name(w->resume), c->size, c->size);
	opts->image.from = c->restart;
	opts->image.source.stream.expect -= c->restart;
	return 0;
}

/* Opens what is to be read, looks at all of its metadata, and makes one reader of it. */
static int open_chain(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	struct chain_opts opts = chain_options(o);
	struct totals ignored;
	struct chain *c;
	size_t n;
	int r = w->resume ? open_resumed(w, &opts, e) : 0;

	if (!r)
		r = chain_open(&w->chain, o->inputs, o->n_inputs, &opts, e);
	if (!r)
		r = check_streams(w, e);
	if (r < 0)
		return r;
	c = w->chain;
	/* where a whole disk was not asked for, what is there is compared, and the last line says so */
	if (c->incomplete && (o->chain || o->full || (c->incomplete != -ENODATA && c->incomplete != -ENOENT)))
		return fail_again(e, -c->incomplete, &c->why);
	if (c->incomplete == -ENOENT)
		r = warning(e, "%s", c->why.msg);
	n = o->chain ? c->links - 1 : c->links;
	if (!n)
		return fail(e, EINVAL, "%s: has no parent" HINT "; use --full to write it",
			    c->link[0]->name);
	/* one after the other: what a first walk needs is not needed by all of them at once */
	for (size_t i = 0; !r && n > 1 && i < n; i++)
		r = job_scan(c->link[i]->reader, pump, false, &ignored, e);
	w->applied = n;
	/* a plain disk has no gaps to be filled */
	w->whole = (o->raw && !o->placed) || o->full || ((o->verify || o->map) && !o->chain && !c->incomplete);
	if (!r)
		r = chain_read(c, 0, n, w->whole && !o->raw, e);
	if (r < 0 || c->reader->streaming)
		return r;
	r = job_scan(c->reader, pump, o->dry_run || (o->spool_first && !o->map), &w->totals, e);
	return r < 0 || o->map ? r : check_inputs(w, e);
}

/* A run that goes on goes on with its undo log, too. */
static bool appends(const struct work *w)
{
	return w->o->undo_append || resume_found(w->resume);
}

/* A new undo log saves what is new for old then. */
static int warn_repeated(struct work *w, struct err *e)
{
	w->warned_repeated = true;
	return warning(e,
		       "%s: already holds nearly all of this delta: was it applied before? The new undo "
		       "log does not roll back to the state before that", w->target->name);
}

/* What the target holds before the first write. */
static int look(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	struct chain_opts opts = chain_options(o);
	const struct base_opts base = {
	    .named = o->base, .chain = o->chain, .force = o->force & FORCE_BASE};
	int r;

	if (w->whole || o->raw || o->create) {
		snprintf(w->look.why, sizeof(w->look.why), "--full, --raw and --create expect nothing of TARGET");
		return 0;
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
		r = job_check_base(&w->look, w->target->name, &base, e);
	if (!r && o->undo && !appends(w) && LOOK_NEARLY_ALL(w->look.own_same, w->look.own))
		r = warn_repeated(w, e);
	return r;
}

struct infos {
	struct info **info;
	size_t n;
	bool listed; /* found in a folder, where one that cannot be read does not hide the others */
};

static int add_infos(struct infos *all, const char *name, const struct options *o, struct err *e)
{
	const struct pump_opts pump = {.stop = on_stop};
	const struct chain_opts opts = chain_options(o);
	struct disks disks;
	int r = disks_find(&disks, name, &opts.image, e);

	all->listed |= disks.listed;
	for (size_t i = 0; !r && i < disks.n; i++) {
		struct info **more = realloc(all->info, (all->n + 1) * sizeof(*more));
		struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};

		if (!more) {
			r = fail(e, ENOMEM, "out of memory");
			break;
		}
		all->info = more;
		r = info_open(&all->info[all->n], disks.path[i], &opts, &pump, &mine);
		all->n += !r;
		if (r < 0 && disks.listed && r != -EINTR && (all->n || i + 1 < disks.n))
			r = warning(e, "%s", mine.msg);
		else if (r < 0)
			r = fail_again(e, -r, &mine);
	}
	disks_free(&disks);
	return r;
}

static int info(const struct options *o, struct err *e)
{
	struct report_how how = {.o = o, .screen = screen_of(STDOUT_FILENO)};
	struct infos all = {0};
	int r = 0;

	for (size_t i = 0; !r && i < o->n_inputs; i++)
		r = add_infos(&all, o->inputs[i], o, e);
	how.commands = all.listed || all.n == 1;
	if (!r)
		r = put(report_info(all.info, all.n, &how), e);
	for (size_t i = 0; i < all.n; i++)
		info_free(all.info[i]);
	free(all.info);
	return r;
}

static int map(struct work *w, struct err *e)
{
	struct report_out out = {.put = put_part, .arg = w};
	const struct screen screen = screen_of(STDOUT_FILENO);
	int r;

	if (screen.terminal && !w->o->json && !w->o->map_list)
		return picture_map(w->chain, &screen, &out, check_inputs, e);
	r = report_map(w, &out, check_inputs, e);
	w->told = out.begun;
	return r;
}

static int open_target(struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct target_opts opts = {.read_only = o->dry_run || o->verify,
					 .create = o->create && !resume_found(w->resume),
					 .force_busy = o->force & FORCE_BUSY,
					 .stop = on_stop};

	return job_open_target(&w->target, o->target, &opts, w->chain, o->force & FORCE_RAW, e);
}

/* A rollback onto another disk, or onto one that was written to since, destroys what is there. */
static int check_logs(struct work *w, struct err *e)
{
	const struct options *o = w->o;
	int r;

	if (o->verify || o->full || o->create || o->force & FORCE_DISK)
		return 0;
	r = job_check_logs(w->chain, w->target, &w->log_checked, &w->places, e);
	if (o->verbose) {
		say_logs(&said, w);
		show();
	}
	return r;
}

static int open_undo(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	struct log_opts log = {.path = o->undo,
			       .append = appends(w),
			       .force_room = o->force & FORCE_ROOM,
			       .force_disk = o->force & FORCE_DISK};
	char most[32], there[32];
	int r;

	log.name = w->undo_name = name_text(o->undo);
	r = log.name ? job_check_log(&log, w->chain, w->target, &w->totals, &w->room, e)
		     : fail(e, ENOMEM, "out of memory");
	if (w->room.known && o->verbose)
		fprintf(stderr, "vmdksync: %s: may need up to %s; %s are free there\n", log.name,
			size_text(most, w->room.most), size_text(there, w->room.free));
	if (r < 0 || o->dry_run)
		return r;
	r = job_open_log(&w->undo, &log, w->chain, w->target, pump, &w->stats, e);
	w->undone = w->undo_finished = r > 0;
	return r < 0 ? r : 0;
}

/* Of the options, what changes the runs. */
static uint64_t choices(const struct options *o)
{
	const unsigned force = o->force & (FORCE_GD | FORCE_RGD | FORCE_SIZE | FORCE_ACCOUNTS);

	return (o->full ? 1 : 0) | (o->chain ? 2 : 0) | (o->raw ? 4 : 0) | (uint64_t)force << 8 |
	       (o->placed ? (o->offset + 1) << 24 : 0);
}

/* All that has to be right before the first write; what is read is open. */
static int prepare(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	int r = open_target(w, e);

	if (!r)
		r = job_check_kinds(w->chain, w->target,
				    !o->verify && !o->full && !o->chain && !o->create, e);
	if (!r)
		r = check_logs(w, e);
	if (!r && w->resume)
		r = resume_check(w->resume, w->chain, w->target, choices(o), pump, &w->done, e);
	if (!r && !o->verify)
		r = look(w, pump, e);
	if (!r && o->undo)
		r = open_undo(w, pump, e);
	if (!r && w->chain->reader->streaming && o->dry_run)
		r = job_scan(w->chain->reader, pump, true, &w->totals, e);
	if (!r && o->dry_run)
		r = check_inputs(w, e);
	return r;
}

static int apply(struct work *w, const struct pump_opts *pump, struct err *e)
{
	const struct options *o = w->o;
	struct reader *runs = w->resume ? resume_tap(w->resume) : w->chain->reader;
	struct pump_opts opts = *pump;
	int r = w->resume ? resume_begin(w->resume, e) : 0;

	if (w->resume) {
		opts.durable = resume_durable;
		opts.durable_arg = w->resume;
		opts.flush_each = runs->streaming ? 250 : 0;
	}
	if (!r && o->read_back && runs->streaming)
		r = sums_new(&w->sums, runs, o->spool, e);
	if (!r)
		r = job_apply(runs, w->target, &opts, w->undo, w->sums, &w->stats, e);
	if (w->resume)
		resume_settle(w->resume);
	if (!r && w->stats.repeated && !appends(w) && !w->warned_repeated) {
		struct err late = {.warn = e->warn, .arg = e->arg}; /* too late for --strict */

		r = warn_repeated(w, &late);
	}
	if (w->chain->reader->streaming) /* nobody knew before */
		w->totals = (struct totals){
		    .runs = w->stats.runs, .data = w->stats.written, .zero = w->stats.zeroed};
	if (!r && !w->stats.stopped)
		r = check_inputs(w, e);
	if (!r && o->read_back && !w->stats.stopped) {
		r = verify(w, *pump, e);
		/* a stream was compared by its checksums */
		if (!r && !w->sums && !w->stats.stopped)
			r = check_inputs(w, e);
	}
	/* last of all: a run that failed before can be resumed with --undo-append */
	if (!r && w->undo && !w->stats.stopped) {
		r = undo_finish(w->undo, e);
		w->undo_finished = !r;
	}
	if (!r && w->resume && !w->stats.stopped)
		r = resume_end(w->resume, e);
	return r;
}

static void start_progress(struct work *w)
{
	const struct options *o = w->o;
	enum progress_form form = o->progress >= 0	  ? (enum progress_form)o->progress
				  : isatty(STDERR_FILENO) ? PROGRESS_LINE
							  : PROGRESS_NONE;

	if (o->quiet && form == PROGRESS_LINE)
		form = PROGRESS_NONE;
	w->by_stream = w->chain->reader->streaming && o->expect;
	w->progress.form = form;
	progress_begin(&w->progress, o->verify ? "verify" : "write",
		       w->by_stream ? o->expect : w->totals.data + w->totals.zero);
	/* what a stream has brought already is none of it */
	progress_from(&w->progress, w->by_stream ? stream_from(w) : w->done);
}

/* What a script gives its sender. */
static int position(const struct work *w, struct err *e)
{
	const struct checkpoint *c = resume_found(w->resume);

	if (c && !c->stream)
		return fail(e, EINVAL, "%s: is of files, which are read where they lie: the same command goes on by "
				       "itself", resume_name(w->resume));
	return put(report_position(w, stream_from(w)), e);
}

/* A name for an undo log that is free, and its room; NULL where none is needed, or can be had. */
static const char *propose_log(struct work *w)
{
	static char name[32] = "undo.vmdk";
	struct log_opts log = {.path = name, .name = name, .force_room = true};
	struct err quiet = {.set = false};

	if (w->o->undo || w->whole || w->o->create || w->chain->reader->streaming || w->chain->link[0]->undo)
		return NULL;
	for (int i = 2; access(name, F_OK) == 0; i++)
		if (i > 99 || snprintf(name, sizeof(name), "undo-%d.vmdk", i) < 0)
			return NULL;
	job_check_log(&log, w->chain, w->target, &w->totals, &w->room, &quiet);
	return name;
}

static void show_card(struct work *w)
{
	const struct screen screen = screen_of(STDERR_FILENO);

	if (w->o->quiet)
		return;
	card_show(&said, w, propose_log(w), &screen);
	show();
}

static int run(struct work *w, struct err *e)
{
	const struct options *o = w->o;
	const struct pump_opts pump = {
	    .in_line = o->in_line, .stop = on_stop, .moved = on_moved, .syncing = on_syncing, .arg = w};
	struct err mine = {.strict = e->strict, .warn = e->warn, .arg = e->arg};
	int r;

	progress_begin(&w->progress, "scan", 0);
	if (o->info)
		return info(o, e);
	r = o->resume ? resume_open(&w->resume, o->resume, e) : 0;
	if (r < 0 || o->position)
		return r < 0 ? r : position(w, e);
	r = open_chain(w, &pump, &mine);
	if (r == -ENOTSUP && o->target && job_is_vmdk(o->target) &&
	    !job_is_vmdk(o->inputs[o->n_inputs - 1]))
		return fail_with(e, -r, &mine.facts,
				 "%s" HINT "; the last name is a VMDK, but TARGET comes last: swapped?",
				 mine.msg);
	if (r == -ENOENT && o->target && nbd_uri_like(o->inputs[0]))
		return fail_with(e, -r, &mine.facts,
				 "%s" HINT "; an NBD server can only be TARGET, which comes last: swapped?",
				 mine.msg);
	if (r < 0)
		return fail_again(e, -r, &mine);
	if (o->map)
		return map(w, e);
	r = prepare(w, &pump, e);
	if (!r && w->undone && w->resume)
		r = resume_end(w->resume, e);
	if (r < 0 || w->undone || w->stats.stopped)
		return r;
	if (o->verbose)
		say_facts(&said, w);
	show();
	if (o->dry_run) {
		show_card(w);
		return 0;
	}
	start_progress(w);
	if (o->verify) {
		r = verify(w, pump, e);
		progress_end(&w->progress, w->done);
		return r < 0 || w->stats.stopped ? r : check_inputs(w, e);
	}
	r = apply(w, &pump, e);
	progress_end(&w->progress, shown_done(w));
	if (o->verbose) {
		say_details(&said, w);
		show();
	}
	return r;
}

/* Results on standard output; what differs on standard error as well. */
static int put_result(const struct work *w, struct err *e)
{
	const struct verify_result *v = &w->differences;
	int r = 0;

	if (w->o->json)
		r = put(report_result(w), e);
	else if (v->n)
		r = put(report_differences(w), e);
	if (v->n) {
		say_different(&said, w);
		show();
	}
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

static void catch_signals(bool lists)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	struct sigaction ask = {.sa_handler = on_asked, .sa_flags = SA_RESTART};

	/* a second signal kills; a write beyond the size limit is an error like others */
	on_end(SIGINT, &act);
	on_end(SIGTERM, &act);
	on_end(SIGHUP, &act);
	sigaction(SIGUSR1, &ask, NULL);
	signal(SIGXFSZ, SIG_IGN);
	/* Nobody listens any more: a list ends there, in silence like other programs' lists. What we say
	 * of the end of others may bring the next. */
	act.sa_flags = 0;
	if (!lists)
		sigaction(SIGPIPE, &act, NULL);
}

/* A failure on standard output, for programs. Where that is what failed nothing more is tried. */
static void put_failure(const struct work *w, const struct err *e, enum exit_status status, const char *help)
{
	static char room[32768]; /* what has a limit fits, however much of it has to be escaped */
	struct text whole = {0}, fixed = {.s = room, .room = sizeof(room), .fixed = true};
	struct err ignored = {.set = false};
	char *text;

	if (!w->o->json || w->told || ferror(stdout))
		return;
	report_failure(&whole, w, e, status, help);
	text = text_take(&whole);
	if (text) {
		put(text, &ignored);
		return;
	}
	report_failure(&fixed, w, e, status, help);
	fputs(room, stdout);
	fflush(stdout);
}

static enum exit_status finish(struct work *w, int r, struct err *e)
{
	const char *help = (r == -EACCES || r == -EPERM) && geteuid() ? "run it as root" : NULL;
	const struct options *o = w->o;
	enum exit_status failed = w->stats.begun ? BEGUN : UNTOUCHED;
	enum exit_status status = r < 0 || w->stats.stopped ? failed
				  : w->differences.n	    ? DIFFERENT
							    : DONE;

	if (r < 0)
		complain(w, e->msg, help);
	else if (w->stats.stopped)
		fail(e, EINTR, "%s: stopped by a signal", w->target->name);
	say_end(&said, w, r);
	show();
	if (!r && w->target && !w->stats.stopped && put_result(w, e) < 0) {
		complain(w, e->msg, NULL);
		if (status == DONE)
			status = failed;
	}
	if (status == DONE && (o->verify || o->read_back) && !o->quiet && !w->undone) {
		say_equal(&said, w);
		show();
	}
	if (status == UNTOUCHED || status == BEGUN)
		put_failure(w, e, status, help);
	return status;
}

static void clean_up(struct work *w, enum exit_status status)
{
	const struct options *o = w->o;

	look_free(&w->look);
	verify_free(&w->differences);
	sums_free(w->sums);
	if (w->undo && !w->stats.begun && !appends(w) && status != DONE)
		unlink(o->undo); /* it holds nothing, and would stand in the way of the next run */
	if (w->target && w->target->created && !o->dry_run && status == UNTOUCHED)
		unlink(o->target); /* the same */
	resume_free(w->resume, status == UNTOUCHED);
	undo_free(w->undo);
	free(w->undo_name);
	target_free(w->target);
	chain_free(w->chain);
	warnings_free(&w->warnings);
	free(o->search);
	free(o->again);
}

static char *version_text(void)
{
	char with[256], *text;

	return asprintf(&text, "vmdksync " VERSION "\n%s\n", job_versions(with, sizeof(with))) < 0 ? NULL : text;
}

int main(int argc, char **argv)
{
	struct options o;
	struct work w = {.o = &o};
	struct err e = {.warn = on_warning, .arg = &w};
	enum exit_status status;
	int r;

	if (!fill_standard())
		return UNTOUCHED;
	r = options_parse(&o, argc, argv, &e);
	progress_init(&w.progress, o.progress == PROGRESS_JSON ? PROGRESS_JSON : PROGRESS_NONE, o.progress_fd);
	if (r < 0) {
		fprintf(stderr, "vmdksync: %s\nTry 'vmdksync --help'.\n", e.msg);
		put_failure(&w, &e, UNTOUCHED, "'vmdksync --help' lists the options");
		status = UNTOUCHED;
	} else if (o.help || o.version) {
		r = put(o.help ? options_help() : version_text(), &e);
		if (r < 0)
			complain(&w, e.msg, NULL);
		status = r < 0 ? UNTOUCHED : DONE;
	} else {
		e.strict = o.strict;
		raise_open_files();
#ifdef M_MMAP_THRESHOLD
		/* what is large goes back to the system when it is freed, whichever thread had it */
		mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
		catch_signals(o.info || o.map);
		status = finish(&w, run(&w, &e), &e);
	}
	progress_last(&w.progress, (int)status, status > DIFFERENT ? e.facts.code : NULL);
	clean_up(&w, status);
	return status;
}
