/* SPDX-License-Identifier: MIT */
#include "cli/progress.h"
#include "cli/screen.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
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

static double clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void progress_init(struct progress *p, enum progress_form form, int fd)
{
	*p = (struct progress){.form = form, .fd = fd, .phase = "scan"};
	p->born = p->start = clock_now();
	p->due = INTERVAL; /* what is over at once needs no line, and has no rate yet */
}

/* A line that cannot be shown is not worth stopping for. */
static void put(int fd, const char *s)
{
	ssize_t r = write(fd, s, strlen(s));

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

/* Looks at the clock, and at the rate. */
static void look(struct progress *p, uint64_t done)
{
	rate_look(&p->rate, done, progress_seconds(p));
}

void progress_from(struct progress *p, uint64_t done)
{
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

/* The widest text that fits, between two others. */
static void put_line(const struct progress *p, int fd, const char *before, uint64_t done, unsigned columns,
		     const char *behind)
{
	char a[32], b[32], r[32], t[32], percent[8], line[256], all[300];
	double left = seconds_left(p, done);
	uint64_t share = p->total ? (uint64_t)((double)min_u64(done, p->total) * 100 / (double)p->total)
				  : 0;

	if (done < p->total && share > 99)
		share = 99; /* rounded up */
	size_text(a, done);
	size_text(b, p->total);
	size_text(r, p->rate.bytes < 1e18 ? (uint64_t)p->rate.bytes : 0);
	snprintf(percent, sizeof(percent), "%3u%%", (unsigned)share);
	if (!p->total)
		time_text(t, p->rate.time);
	else if (left < 0)
		snprintf(t, sizeof(t), "-:--");
	else
		time_text(t, left);
	for (int form = 0; form == 0 || (form < 4 && strlen(line) > columns); form++) {
		if (!p->total)
			snprintf(line, sizeof(line), "%s%s  %s/s  %s", form ? "" : "vmdksync  ", a, r, t);
		else if (form < 2)
			snprintf(line, sizeof(line), "%s%s  %s / %s  %s/s  %s left",
				 form ? "" : "vmdksync ", percent, a, b, r, t);
		else if (form == 2)
			snprintf(line, sizeof(line), "%s  %s  %s/s  %s left", percent, a, r, t);
		else
			snprintf(line, sizeof(line), "%s  %s left", percent, t);
	}
	snprintf(all, sizeof(all), "%s%.*s%s", before, (int)columns, line, behind);
	put(fd, all);
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
	put(p->fd, line);
	p->done = done;
}

void progress_phase(struct progress *p, const char *phase, uint64_t done)
{
	p->phase = phase;
	if (p->form == PROGRESS_JSON)
		put_json(p, done, "");
}

void progress_again(struct progress *p, const char *phase, uint64_t total)
{
	p->total = total;
	p->rate.done = 0;
	progress_phase(p, phase, 0);
}

void progress_begin(struct progress *p, const char *phase, uint64_t total)
{
	p->start = clock_now();
	p->due = INTERVAL;
	p->rate = (struct rate){0};
	progress_again(p, phase, total);
}

void progress_last(struct progress *p, int status, const char *error)
{
	char more[128];

	if (p->form != PROGRESS_JSON)
		return;
	snprintf(more, sizeof(more), ",\"end\":true,\"exit\":%d,\"error\":%s%s%s", status,
		 error ? "\"" : "", error ? error : "null", error ? "\"" : "");
	put_json(p, p->done, more);
}

void progress_show(struct progress *p, uint64_t done)
{
	if (progress_seconds(p) < p->due)
		return;
	look(p, done);
	p->due = p->rate.time + INTERVAL;
	if (p->form == PROGRESS_JSON) {
		put_json(p, done, "");
	} else if (p->form == PROGRESS_LINE) {
		/* the last column stays free: a terminal may wrap as soon as it is filled */
		put_line(p, p->fd, "\r", done, screen_columns(p->fd) - 1, ERASE);
		p->shown = true;
	}
}

void progress_say(struct progress *p, int fd, uint64_t done)
{
	progress_clear(p);
	look(p, done);
	put_line(p, fd, "", done, 256, "\n");
}

void progress_end(struct progress *p, uint64_t done)
{
	progress_clear(p);
	look(p, done);
	p->done = done;
}

void progress_clear(struct progress *p)
{
	if (p->shown)
		put(p->fd, "\r" ERASE);
	p->shown = false;
}

double progress_seconds(const struct progress *p)
{
	return clock_now() - p->start;
}
