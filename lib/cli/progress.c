/* SPDX-License-Identifier: MIT */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL (1.0 / 6)
#define SMOOTH 4.0 /* seconds after which an old rate has lost half of its weight */
/*
 * Behind the line: what is left of a longer one, below it as well, and back to its start. A terminal
 * that is made narrower breaks the line; the cursor stays with its first column, so the next line and
 * this take away all of it.
 */
#define ERASE "\x1b[J\r"

struct progress {
	enum progress_form form;
	int fd;
	char *label;
	const char *phase;
	uint64_t total, done; /* at the last object */
	double born;          /* the clock for machines */
	double start;         /* that for people */
	double due; /* seconds from start; no line before */
	bool shown;
	struct rate rate; /* at the last line */
};

static double clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct progress *progress_new(enum progress_form form, int fd, const char *label, uint64_t total)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->label = strdup(label);
	if (!p->label) {
		free(p);
		return NULL;
	}
	p->form = form;
	p->fd = fd;
	p->total = total;
	p->phase = "scan";
	p->born = p->start = clock_now();
	p->due = INTERVAL; /* what is over at once needs no line, and has no rate yet */
	return p;
}

/* How much of s fits. Columns of a character cannot be known here: those that may be wide are. */
static size_t fit(const char *s, unsigned columns)
{
	size_t n = 0;

	for (unsigned used = 0; s[n]; n++) {
		unsigned char c = (unsigned char)s[n];

		if ((c & 0xc0) == 0x80)
			continue;
		used += c < 0xe1 ? 1 : 2;
		if (used > columns)
			break;
	}
	return n;
}

static unsigned columns_of(int fd)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) < 0 || !w.ws_col)
		return 80;
	return w.ws_col;
}

/* A line that cannot be shown is not worth stopping for. */
static void put(int fd, const char *s, size_t n)
{
	ssize_t r = write(fd, s, n);

	(void)r;
}

static const char *time_text(char buf[32], double seconds)
{
	unsigned s = seconds < 3599999 ? (unsigned)(seconds + 0.5) : 3599999;

	if (s >= 3600)
		snprintf(buf, 32, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(buf, 32, "%u:%02u", s / 60, s % 60);
	return buf;
}

void rate_look(struct rate *r, uint64_t done, double now)
{
	const double dt = now - r->time > 1e-6 ? now - r->time : 1e-6;
	const double latest = done > r->done ? (double)(done - r->done) / dt : 0;
	const double span = now < dt + SMOOTH ? now : dt + SMOOTH;

	/* with a weight of dt / now this is done / now, whatever the looks before were */
	r->bytes += (latest - r->bytes) * (dt < span ? dt / span : 1);
	r->done = done;
	r->time = now;
}

void progress_from(struct progress *p, uint64_t done)
{
	if (p)
		p->rate.done = done;
}

/* Seconds to go, or a negative number when that cannot be said. */
static double seconds_left(const struct progress *p, uint64_t done)
{
	if (p->total && done >= p->total)
		return 0;
	if (!p->total || p->rate.bytes < 1)
		return -1;
	return done < p->total ? (double)(p->total - done) / p->rate.bytes : 0;
}

/* The widest text that fits. */
static size_t line_text(const struct progress *p, char *line, size_t size, uint64_t done, double now,
			unsigned columns)
{
	char a[32], b[32], r[32], t[32], percent[8];
	double left = seconds_left(p, done);
	uint64_t share = p->total ? (uint64_t)((double)min_u64(done, p->total) * 100 / (double)p->total)
				  : 0;

	if (done < p->total && share > 99)
		share = 99; /* rounded up */
	size_text(a, done);
	size_text(b, p->total);
	size_text(r, p->rate.bytes < 1e18 ? (uint64_t)p->rate.bytes : 0);
	snprintf(percent, sizeof(percent), "%3u%%", (unsigned)share);
	if (left < 0)
		snprintf(t, sizeof(t), "-:--");
	else
		time_text(t, left);
	for (int form = 0;; form++) {
		if (!p->total && form == 0)
			snprintf(line, size, "%.256s  %s  %s/s  %s", p->label, a, r, time_text(t, now));
		else if (!p->total)
			snprintf(line, size, "%s  %s/s  %s", a, r, time_text(t, now));
		else if (form == 0)
			snprintf(line, size, "%.256s %s  %s / %s  %s/s  %s left", p->label, percent, a,
				 b, r, t);
		else if (form == 1)
			snprintf(line, size, "%s  %s / %s  %s/s  %s left", percent, a, b, r, t);
		else if (form == 2)
			snprintf(line, size, "%s  %s  %s/s  %s left", percent, a, r, t);
		else
			snprintf(line, size, "%s  %s left", percent, t);
		if (form == 3 || fit(line, columns) == strlen(line))
			return fit(line, columns);
	}
}

/* One object, at once. more: its last members. */
static void put_json(struct progress *p, uint64_t done, const char *more)
{
	char line[512];
	double left = seconds_left(p, done);
	char total[32] = "null", to_go[32] = "null";

	if (p->total)
		snprintf(total, sizeof(total), "%" PRIu64, p->total);
	if (left >= 0 && left < 1e12)
		snprintf(to_go, sizeof(to_go), "%.1f", left);
	snprintf(line, sizeof(line),
		 "{\"bytes\":%" PRIu64 ",\"total\":%s,\"rate\":%.0f,\"seconds\":%.3f,\"left\":%s,"
		 "\"schema\":1,\"phase\":\"%s\"%s}\n",
		 done, total, p->rate.bytes < 1e18 ? p->rate.bytes : 0, clock_now() - p->born, to_go,
		 p->phase, more);
	put(p->fd, line, strlen(line));
	p->done = done;
}

void progress_phase(struct progress *p, const char *phase, uint64_t done)
{
	if (!p)
		return;
	p->phase = phase;
	if (p->form == PROGRESS_JSON)
		put_json(p, done, "");
}

void progress_again(struct progress *p, const char *phase, uint64_t total)
{
	if (!p)
		return;
	p->total = total;
	p->rate.done = 0;
	progress_phase(p, phase, 0);
}

void progress_begin(struct progress *p, const char *phase, uint64_t total)
{
	if (!p)
		return;
	p->start = clock_now();
	p->due = INTERVAL;
	p->rate = (struct rate){0};
	progress_again(p, phase, total);
}

void progress_last(struct progress *p, int status, const char *error)
{
	char more[128];

	if (!p || p->form != PROGRESS_JSON)
		return;
	snprintf(more, sizeof(more), ",\"end\":true,\"exit\":%d,\"error\":%s%s%s", status,
		 error ? "\"" : "", error ? error : "null", error ? "\"" : "");
	put_json(p, p->done, more);
}

void progress_show(struct progress *p, uint64_t done)
{
	char line[512];
	double now;
	size_t n;

	if (!p)
		return;
	now = clock_now() - p->start;
	if (now < p->due)
		return;
	p->due = now + INTERVAL;
	rate_look(&p->rate, done, now);
	if (p->form == PROGRESS_JSON) {
		put_json(p, done, "");
	} else if (p->form == PROGRESS_LINE) {
		/* the last column stays free: a terminal may wrap as soon as it is filled */
		line[0] = '\r';
		n = 1 + line_text(p, line + 1, sizeof(line) - sizeof(ERASE) - 1, done, now,
				  columns_of(p->fd) - 1);
		memcpy(line + n, ERASE, sizeof(ERASE));
		put(p->fd, line, n + strlen(ERASE));
		p->shown = true;
	}
}

void progress_say(struct progress *p, int fd, uint64_t done)
{
	char line[512];
	double now;
	size_t n;

	if (!p)
		return;
	progress_clear(p);
	now = clock_now() - p->start;
	rate_look(&p->rate, done, now);
	n = line_text(p, line, sizeof(line) - 1, done, now, sizeof(line));
	line[n] = '\n';
	put(fd, line, n + 1);
}

void progress_end(struct progress *p, uint64_t done)
{
	if (!p)
		return;
	progress_clear(p);
	rate_look(&p->rate, done, clock_now() - p->start);
	p->done = done;
}

void progress_clear(struct progress *p)
{
	if (!p || !p->shown)
		return;
	put(p->fd, "\r" ERASE, 1 + strlen(ERASE));
	p->shown = false;
}

void progress_free(struct progress *p)
{
	if (!p)
		return;
	free(p->label);
	free(p);
}

double progress_seconds(const struct progress *p)
{
	return p ? clock_now() - p->start : 0;
}
