/* See progress.h. */
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL (1.0 / 6)
#define SMOOTH 4.0 /* seconds after which an old rate has lost half of its weight */
#define ERASE "\x1b[K"

struct progress {
	int fd;
	char *label;
	uint64_t total;
	double start;
	double due; /* seconds from start; no line before */
	bool shown;
	/* at the last line */
	uint64_t done;
	double time, rate;
};

static double clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct progress *progress_new(int fd, const char *label, uint64_t total)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->label = strdup(label);
	if (!p->label) {
		free(p);
		return NULL;
	}
	p->fd = fd;
	p->total = total;
	p->start = clock_now();
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

static void smooth_rate(struct progress *p, uint64_t done, double now)
{
	double dt = now - p->time;
	double latest = done > p->done ? (double)(done - p->done) / dt : 0;

	if (p->time > 0)
		p->rate += (latest - p->rate) * dt / (dt + SMOOTH);
	else
		p->rate = latest;
	p->done = done;
	p->time = now;
}

void progress_show(struct progress *p, uint64_t done)
{
	char line[512], a[32], b[32], r[32], t[32];
	double now;
	size_t n;

	if (!p)
		return;
	now = clock_now() - p->start;
	if (now < p->due)
		return;
	p->due = now + INTERVAL;
	smooth_rate(p, done, now);
	size_text(a, done);
	size_text(r, p->rate < 1e18 ? (uint64_t)p->rate : 0);
	if (p->total) {
		unsigned percent =
		    (unsigned)((double)min_u64(done, p->total) * 100 / (double)p->total);
		double left = done < p->total ? (double)(p->total - done) : 0;

		if (done < p->total && percent > 99)
			percent = 99; /* rounded up */
		snprintf(line, sizeof(line), "\r%.256s %3u%%  %s / %s  %s/s  %s left", p->label,
			 percent, a, size_text(b, p->total), r,
			 p->rate >= 1 ? time_text(t, left / p->rate) : "-:--");
	} else {
		snprintf(line, sizeof(line), "\r%.256s  %s  %s/s  %s", p->label, a, r,
			 time_text(t, now));
	}
	/* the last column stays free: a terminal may wrap as soon as it is filled */
	n = 1 + fit(line + 1, columns_of(p->fd) - 1);
	n = min_u64(n, sizeof(line) - sizeof(ERASE));
	memcpy(line + n, ERASE, sizeof(ERASE));
	put(p->fd, line, n + strlen(ERASE));
	p->shown = true;
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
