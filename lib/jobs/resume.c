/* SPDX-License-Identifier: MIT */
/* See resume.h. */
#include "jobs/resume.h"
#include "output/guard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define TAIL (1u << 20) /* data before the position that are compared */

struct resume {
	char *path, *name; /* as given; printable */
	bool found, made;  /* was there; was written by us */
	bool failed;       /* it could not be renewed, which was warned of */
	struct checkpoint was, now;
	struct reader *leaf; /* of a stream; or NULL */
	struct err *e;       /* for warnings */
	/* the runs of child in guest bytes [from, ...), of which the first `skip` bytes of data are left out */
	struct reader reader, *child;
	uint64_t from, to, skip;
	bool data; /* zeros are left out */
	pthread_t thread; /* renews the file, so that the issuer need not wait for it */
	bool running;
	pthread_mutex_t lock; /* of these: */
	pthread_cond_t news;
	bool due, ending;
	struct checkpoint next; /* due */
	int result;             /* of renewing, the last failure */
};

/* --- the text ------------------------------------------------------------------------------------ */

size_t checkpoint_text(char buf[CHECKPOINT_MOST], const struct checkpoint *c)
{
	int n = snprintf(buf, CHECKPOINT_MOST,
			 "vmdksync checkpoint 1\n"
			 "input %s %" PRIu64 " %016" PRIx64 "\n"
			 "target %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %08" PRIx64 "\n"
			 "durable %" PRIu64 " restart %" PRIu64 "\n",
			 c->stream ? "stream" : "files", c->size, c->input, c->kind, c->target_size, c->id,
			 c->seq, c->boot, c->durable, c->restart);

	n += snprintf(buf + n, CHECKPOINT_MOST - (size_t)n, "check %08lx\n",
		      crc32(0, (const Bytef *)buf, (uInt)n));
	return (size_t)n;
}

bool checkpoint_parse(struct checkpoint *c, const char *text, size_t n)
{
	char copy[CHECKPOINT_MOST + 1], again[CHECKPOINT_MOST], kind[8];

	*c = (struct checkpoint){.stream = false};
	if (n > CHECKPOINT_MOST)
		return false;
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (sscanf(copy,
		   "vmdksync checkpoint 1\n"
		   "input %7s %" SCNu64 " %" SCNx64 "\n"
		   "target %7s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNx64 "\n"
		   "durable %" SCNu64 " restart %" SCNu64 "\n",
		   kind, &c->size, &c->input, c->kind, &c->target_size, &c->id, &c->seq, &c->boot, &c->durable,
		   &c->restart) != 10)
		return false;
	c->stream = !strcmp(kind, "stream");
	/* what was read leniently has to be as we write it, to the last byte */
	return checkpoint_text(again, c) == n && !memcmp(again, text, n) && c->size && c->size <= POS_LIMIT &&
	       c->durable <= c->size && c->restart % RAW_STEP == 0 && c->restart <= c->durable &&
	       (!c->restart || (c->stream && c->durable - c->restart >= RAW_STEP));
}

/* --- the file ------------------------------------------------------------------------------------ */

/* 1 there is one, 0 there is none. */
static int load(const struct resume *r, struct checkpoint *c, struct err *e)
{
	const int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char text[CHECKPOINT_MOST + 1];
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return 0;
	n = fd < 0 ? -errno : read_full(fd, text, sizeof(text), 0);
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return fail(e, (int)-n, "%s: the checkpoint cannot be read: %s", r->name, strerror((int)-n));
	if (!checkpoint_parse(c, text, (size_t)n))
		return fail(e, EINVAL, "%s: is no checkpoint, or is damaged: name a new file, and begin again "
				       "from the start", r->name);
	return 1;
}

/* A rename that a power failure undoes leaves the checkpoint before, which is as true. */
static int store(const struct resume *r, const struct checkpoint *c)
{
	char text[CHECKPOINT_MOST], *new;
	const size_t n = checkpoint_text(text, c);
	int fd, result;

	if (asprintf(&new, "%s.new", r->path) < 0)
		return -ENOMEM;
	unlink(new); /* of a run that was killed */
	fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	result = fd < 0 ? -errno : write_full(fd, text, n, 0);
	if (!result && fdatasync(fd) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	if (!result && rename(new, r->path) < 0)
		result = -errno;
	if (result)
		unlink(new);
	free(new);
	return result;
}

static void *renew(void *arg)
{
	struct resume *r = arg;
	struct checkpoint c;
	int result;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		while (!r->due && !r->ending)
			pthread_cond_wait(&r->news, &r->lock);
		if (!r->due)
			break;
		r->due = false;
		c = r->next;
		pthread_mutex_unlock(&r->lock);
		result = store(r, &c);
		pthread_mutex_lock(&r->lock);
		if (result < 0)
			r->result = result;
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static void stop(struct resume *r)
{
	if (!r->running)
		return;
	pthread_mutex_lock(&r->lock);
	r->ending = true;
	pthread_cond_signal(&r->news);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	r->running = false;
}

int resume_open(struct resume **out, const char *path, struct err *e)
{
	struct resume *r = calloc(1, sizeof(*r));
	int got = -ENOMEM;

	if (r) {
		pthread_mutex_init(&r->lock, NULL);
		pthread_cond_init(&r->news, NULL);
		r->path = strdup(path);
		r->name = name_text(path);
	}
	if (r && r->path && r->name)
		got = load(r, &r->was, e);
	else
		fail(e, ENOMEM, "out of memory");
	if (got < 0) {
		resume_free(r, false);
		return got;
	}
	r->found = got;
	r->now = r->was;
	*out = r;
	return 0;
}

const struct checkpoint *resume_found(const struct resume *r)
{
	return r && r->found ? &r->was : NULL;
}

const char *resume_name(const struct resume *r)
{
	return r->name;
}

uint64_t resume_reached(const struct resume *r)
{
	return r->now.durable;
}

/* --- of which disk, and onto which --------------------------------------------------------------- */

static uint64_t mix(uint64_t sum, uint64_t v)
{
	sum = (sum ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	return sum ^ sum >> 29;
}

/* Of the files: sizes, times of the last write, CIDs. Names may be written differently. */
static uint64_t input_of(const struct chain *c, uint64_t choices, bool times)
{
	uint64_t sum = choices;

	for (size_t i = 0; i < c->links; i++) {
		const struct image *m = c->link[i];

		sum = mix(sum, m->size);
		if (m->descriptor && m->descriptor->has_cid)
			sum = mix(sum, m->descriptor->cid);
		for (size_t k = 0; k < m->files; k++) {
			const struct image_file *f = &m->file[k];

			sum = mix(sum, (uint64_t)f->st.st_size);
			if (!times || !S_ISREG(f->st.st_mode) || !f->src)
				continue;
			sum = mix(sum, (uint64_t)f->st.st_mtim.tv_sec);
			sum = mix(sum, (uint64_t)f->st.st_mtim.tv_nsec);
		}
	}
	return sum;
}

/*
 * Of files whose times seemed made up when the checkpoint was begun the times do not count: a file that was
 * copied through sshfs a second ago looks so, too, and does not later.
 */
static bool times_tell(const struct chain *c)
{
	for (size_t i = 0; i < c->links; i++)
		for (size_t k = 0; k < c->link[i]->files; k++)
			if (c->link[i]->file[k].src && source_times_made_up(c->link[i]->file[k].src))
				return false;
	return true;
}

static void describe_target(struct checkpoint *c, const struct target *t)
{
	char text[64];

	snprintf(c->kind, sizeof(c->kind), "%s", t->kind);
	c->target_size = t->size;
	c->id = t->device ? t->st.st_rdev : t->st.st_ino;
	if (t->device) {
		if (sys_block_text(t->st.st_rdev, "diskseq", text, sizeof(text)))
			c->seq = strtoull(text, NULL, 10);
		if (sys_text("/proc/sys/kernel/random/boot_id", text, sizeof(text)))
			c->boot = crc32(0, (const Bytef *)text, (uInt)strlen(text));
	} else if (!t->st.st_ino) {
		c->id = crc32(0, (const Bytef *)t->name, (uInt)strlen(t->name));
	}
}

/* A device has another number after the machine was started again: what it holds has to tell then. */
static bool same_target(const struct checkpoint *a, const struct checkpoint *b)
{
	return !strcmp(a->kind, b->kind) && a->target_size == b->target_size &&
	       (a->boot != b->boot || (a->id == b->id && a->seq == b->seq));
}

/* --- runs ---------------------------------------------------------------------------------------- */

static int part_next(struct reader *reader, struct run *run, struct err *e)
{
	struct resume *r = container_of(reader, struct resume, reader);
	int got;

	while ((got = reader_next(r->child, run, e)) > 0 && run->kind != RUN_FENCE) {
		const uint64_t end = run->off + run->len;
		uint64_t skip;

		if (run->off >= r->to)
			return 0;
		if (end <= r->from || (r->data && run->kind == RUN_ZERO))
			continue;
		if (run->off < r->from)
			run_trim_front(run, r->from - run->off);
		run->len = min_u64(run->len, r->to - run->off);
		skip = min_u64(r->skip, run->len);
		r->skip -= skip;
		if (skip == run->len)
			continue;
		if (skip)
			run_trim_front(run, skip);
		break;
	}
	return got;
}

static int part_rewind(struct reader *reader, struct err *e)
{
	return reader_rewind(container_of(reader, struct resume, reader)->child, e);
}

static const struct reader_ops part_ops = {.next = part_next, .rewind = part_rewind};

static struct reader *part(struct resume *r, uint64_t from, uint64_t to, uint64_t skip, bool data)
{
	reader_init(&r->reader, &part_ops, r->child->name, r->child->size);
	r->reader.streaming = r->child->streaming;
	r->from = from;
	r->to = to;
	r->skip = skip;
	r->data = data;
	return &r->reader;
}

struct reader *resume_tap(struct resume *r)
{
	return part(r, r->leaf ? 0 : r->was.durable, UINT64_MAX, 0, false);
}

/* --- what the target holds ------------------------------------------------------------------------ */

static int fail_other(const struct resume *r, const struct target *t, uint64_t off, struct err *e)
{
	return fail(e, EINVAL,
		    "%s: %s does not hold what it says at byte %" PRIu64 ": is it another disk, or was it written "
		    "to since? remove the checkpoint to begin again from the start", r->name, t->name, off);
}

/* The last data before the position, and how much there is before it. */
static int check_files(struct resume *r, struct target *t, const struct pump_opts *pump, uint64_t *skipped,
		       struct err *e)
{
	struct pump_opts quiet = *pump;
	struct verify_result v = {0};
	struct pump_stats stats;
	struct totals sum;
	int result;

	quiet.moved = NULL;
	result = job_scan(part(r, 0, r->was.durable, 0, false), pump, false, &sum, e);
	if (result < 0)
		return result;
	*skipped = sum.data + sum.zero;
	result = job_verify(part(r, 0, r->was.durable, sum.data - min_u64(sum.data, TAIL), true), NULL, t, &quiet,
			    &v, &stats, e);
	if (!result && stats.stopped)
		result = fail(e, EINTR, "%s: stopped by a signal before anything was written", r->name);
	if (!result && v.n)
		result = fail_other(r, t, v.diff[0].off, e);
	verify_free(&v);
	return result < 0 ? result : reader_rewind(r->child, e);
}

/* The first bytes of the stream were written, and made durable, by the run before. */
static int check_stream(struct resume *r, struct source *src, struct target *t, struct err *e)
{
	uint8_t *is, *want;
	size_t n;
	int result;

	if (r->was.durable < RAW_STEP)
		return 0;
	is = malloc(2 * RAW_STEP);
	if (!is)
		return fail(e, ENOMEM, "out of memory");
	want = is + RAW_STEP;
	result = source_head(src, want, RAW_STEP, &n, e);
	if (!result && n < RAW_STEP)
		result = fail(e, EINVAL,
			      "%s: ended after %zu bytes: it has to bring those from byte %" PRIu64 " of the disk "
			      "on ('vmdksync --resume=%s --position' prints that)", src->name, n, r->was.restart,
			      r->name);
	if (!result && !target_look(t, r->was.restart, is, RAW_STEP))
		result = fail(e, EIO, "%s: %" PRIu64 " bytes at byte %" PRIu64 " cannot be read", t->name, RAW_STEP,
			      r->was.restart);
	if (!result && memcmp(is, want, RAW_STEP) != 0)
		result = fail(e, EINVAL,
			      "%s: does not bring what %s holds from byte %" PRIu64 " on: does the sender begin there "
			      "('vmdksync --resume=%s --position' prints it), and is it the same disk?", src->name,
			      t->name, r->was.restart, r->name);
	free(is);
	return result;
}

int resume_check(struct resume *r, struct chain *c, struct target *t, uint64_t choices,
		 const struct pump_opts *pump, uint64_t *skipped, struct err *e)
{
	struct source *piped = c->link[0]->piped;
	struct checkpoint latest;
	int got;

	r->child = c->reader;
	r->leaf = c->reader->streaming;
	r->e = e;
	r->now.stream = r->leaf;
	r->now.size = c->link[0]->size;
	if (!r->leaf) {
		const uint64_t without = input_of(c, choices, false);

		r->now.input = (r->found ? r->was.input != without : times_tell(c))
				       ? input_of(c, choices, true)
				       : without;
	}
	describe_target(&r->now, t);
	*skipped = 0;
	if (!r->found)
		return 0;
	got = load(r, &latest, e);
	if (got < 0)
		return got;
	if (!got || latest.durable != r->was.durable || latest.restart != r->was.restart)
		return fail(e, EBUSY, "%s: was renewed by another vmdksync meanwhile: run again", r->name);
	if (r->was.stream != r->now.stream || r->was.size != r->now.size || r->was.input != r->now.input)
		return fail(e, EINVAL,
			    "%s: is of another input, of one that changed since, or of other options: remove it "
			    "to begin again from the start", r->name);
	if (!same_target(&r->was, &r->now))
		return fail(e, EINVAL, "%s: is of another target than %s: remove it to begin again from the start",
			    r->name, t->name);
	return r->leaf ? check_stream(r, piped, t, e) : check_files(r, t, pump, skipped, e);
}

/* --- while it is written -------------------------------------------------------------------------- */

int resume_begin(struct resume *r, struct err *e)
{
	struct stat st;
	int result;

	if (!r->found) {
		/* it may be the undo log, or the target, by another name */
		if (lstat(r->path, &st) == 0)
			return fail(e, EEXIST, "%s: was made meanwhile: name another file", r->name);
		result = store(r, &r->now);
		if (result < 0)
			return fail(e, -result, "%s: the checkpoint cannot be written: %s", r->name,
				    strerror(-result));
		r->made = true;
	}
	/* where there can be no thread, the issuer renews it */
	r->running = thread_start(&r->thread, renew, r) == 0;
	return 0;
}

static void warn_failed(struct resume *r, int result)
{
	struct err late = {.warn = r->e->warn, .arg = r->e->arg}; /* too late for --strict */

	if (!result || r->failed)
		return;
	r->failed = true;
	if (warning(&late, "%s: the checkpoint cannot be renewed: %s", r->name, strerror(-result)) < 0)
		return;
}

void resume_durable(void *arg, uint64_t off)
{
	struct resume *r = arg;
	int result;

	if (off <= r->now.durable)
		return;
	r->now.durable = off;
	if (r->leaf)
		r->now.restart = raw_restart(r->leaf, off);
	if (r->running) {
		pthread_mutex_lock(&r->lock);
		r->next = r->now;
		r->due = true;
		result = r->result;
		pthread_cond_signal(&r->news);
		pthread_mutex_unlock(&r->lock);
	} else {
		result = store(r, &r->now);
	}
	warn_failed(r, result);
}

void resume_settle(struct resume *r)
{
	stop(r);
	warn_failed(r, r->result);
}

int resume_end(struct resume *r, struct err *e)
{
	int result;

	stop(r);
	result = unlink(r->path) < 0 ? -errno : sync_folder(r->path);
	if (!result || result == -ENOENT)
		return 0;
	return fail(e, -result, "%s: the checkpoint cannot be removed: %s", r->name, strerror(-result));
}

void resume_free(struct resume *r, bool untouched)
{
	if (!r)
		return;
	stop(r);
	if (untouched && r->made)
		unlink(r->path);
	pthread_cond_destroy(&r->news);
	pthread_mutex_destroy(&r->lock);
	free(r->path);
	free(r->name);
	free(r);
}
