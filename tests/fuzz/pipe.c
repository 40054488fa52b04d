/* SPDX-License-Identifier: MIT */
/*
 * Any extent through a pipe, and the same as a file: where both ways come to their end, the disk is
 * the same. The first two bytes choose the window, the memory, whether all is taken in first, and who
 * applies the runs: one at a time as they come, or as the pump does it, which gathers them, and
 * fetches them at a fence at the latest. A third thing that they choose is whether gaps become zeros.
 */
#include "fuzz.h"
#include "chain/image.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_MAX (1u << 20)
#define INPUT_MAX (1u << 19) /* fits a pipe, so that nobody has to write while we read */
#define RUNS_MAX 20000u
#define UNTOUCHED 0x5a

static void need(bool ok)
{
	if (!ok)
		abort();
}

static int apply_run(const struct run *run, uint8_t *disk, struct err *e)
{
	if (run->kind == RUN_ZERO)
		memset(disk + run->off, 0, run->len);
	else if (run->kind == RUN_COMPRESSED)
		return reader_fetch(run, disk + run->off, e);
	else
		return source_read(run->src, run->pos, disk + run->off, run->len, "data", e);
	return 0;
}

/* --- as the pump does it --- */

#define STRETCHES 64u

struct pump {
	uint8_t *disk;
	struct run run[STRETCHES];
	unsigned runs, room;
	struct err e;
	int failed;
};

static void launch(struct pump *p)
{
	for (unsigned i = 0; i < p->runs; i++)
		if (!p->failed)
			p->failed = apply_run(&p->run[i], p->disk, &p->e);
	p->runs = 0;
}

/* 0, 1 when there are too many runs, -errno. */
static int pump(struct reader *r, unsigned room, uint8_t *disk, struct err *e)
{
	struct pump *p = calloc(1, sizeof(*p));
	struct run run;
	unsigned runs = 0;
	int got = 0;

	need(p);
	p->disk = disk;
	p->room = room;
	while (!p->failed && runs++ < RUNS_MAX) {
		if (p->runs == p->room)
			launch(p);
		got = reader_next(r, &run, e);
		if (got <= 0)
			break;
		if (run.kind == RUN_FENCE) {
			launch(p);
			sched_yield(); /* who reads has the time to fill what is released too early */
			continue;
		}
		need(run.len && run.off <= r->size && run.len <= r->size - run.off);
		p->run[p->runs++] = run;
	}
	launch(p);
	need(!p->failed || p->e.set);
	got = got < 0 ? got : p->failed ? p->failed : got;
	e->set |= p->e.set;
	free(p);
	return got;
}

/* Applies the image at path to disk[]; gather: 0, or so many runs are held back as the pump does. 0 or
 * -errno; *size is the disk's. */
static int apply(const char *path, const struct image_opts *o, unsigned gather, uint8_t *disk,
		 uint64_t *size)
{
	struct err e = {.set = false};
	struct image *m;
	struct run run;
	unsigned runs = 0;
	int r = image_open(&m, path, o, &e);

	*size = 0;
	if (r < 0) {
		need(e.set);
		return r;
	}
	if (m->reader && m->reader->size <= DISK_MAX) {
		*size = m->reader->size;
		if (o->format.fill && !m->reader->streaming) /* else the reader gives the gaps */
			memset(disk, 0, *size);
		if (gather)
			r = pump(m->reader, gather, disk, &e);
		while (!gather && runs++ < RUNS_MAX && (r = reader_next(m->reader, &run, &e)) > 0) {
			if (run.kind == RUN_FENCE)
				continue;
			need(run.len && run.off <= *size && run.len <= *size - run.off);
			r = apply_run(&run, disk, &e);
			if (r < 0)
				break;
		}
		need(r >= 0 || e.set);
		if (r > 0)
			*size = 0; /* too many to be worth the time */
	}
	image_free(m);
	return r;
}

/* A stream whose tables come at the end: through a pipe its markers say what there is, in a file the
 * tables do, which may name fewer of the grains. */
static bool by_markers(const uint8_t *data, size_t size)
{
	return size >= 64 && !memcmp(data, "KDMV", 4) && le64(data + 56) == UINT64_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t memory[] = {0, 1, 3000, 12000};
	static uint8_t *piped, *filed;
	struct image_opts o = {.source = {.spool = "/dev/shm"}};
	uint64_t piped_size, filed_size;
	char path[64];
	int ends[2], fd, by_pipe, by_file;
	unsigned gather;

	if (size < 2 || size > INPUT_MAX)
		return -1;
	if (!piped) {
		piped = malloc(DISK_MAX);
		filed = malloc(DISK_MAX);
		need(piped && filed);
	}
	memset(piped, UNTOUCHED, DISK_MAX);
	memset(filed, UNTOUCHED, DISK_MAX);
	o.source.stream.window = (size_t)32768 << data[0] % 3;
	o.format.remember = memory[data[0] / 3 % 4];
	o.format.fill = data[0] / 12 & 1;
	o.source.spool_first = data[1] == 1;
	gather = data[1] & 2 ? 1 + data[1] / 4 : 0;
	data += 2;
	size -= 2;

	need(!pipe2(ends, O_CLOEXEC) && fcntl(ends[1], F_SETPIPE_SZ, 2 * INPUT_MAX) > 0);
	need(write(ends[1], data, size) == (ssize_t)size);
	close(ends[1]);
	need(dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
	close(ends[0]);
	by_pipe = apply("-", &o, gather, piped, &piped_size);

	fd = memfd_create("fuzz", MFD_CLOEXEC);
	need(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	o = (struct image_opts){.format.fill = o.format.fill};
	by_file = apply(path, &o, 0, filed, &filed_size);
	close(fd);

	if (by_pipe || by_file || !piped_size || !filed_size)
		return 0;
	need(piped_size == filed_size);
	if (by_markers(data, size)) {
		for (size_t i = 0; i < filed_size; i++)
			need(filed[i] == (o.format.fill ? 0 : UNTOUCHED) || filed[i] == piped[i]);
	} else {
		need(!memcmp(piped, filed, piped_size));
	}
	return 0;
}
