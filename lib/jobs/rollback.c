/* SPDX-License-Identifier: MIT */
#include "chain/chain.h"
#include "jobs/jobs.h"

#include <inttypes.h>
#include <stdlib.h>

struct place { /* that a log has a checksum of */
	uint64_t off;
	uint32_t len, sum; /* len: a grain of the log; of the disk's last one a part may be missing */
	const struct image *log;
	bool held; /* it will be written, or was by a run before this */
};

static size_t collect(struct place *p, const struct chain *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->links; i++) {
		const struct image *m = c->link[i];

		if (!m->undo || m->undo->damaged || m->facts.grain > UINT32_MAX)
			continue;
		for (size_t k = 0; k < UNDO_SAMPLES; k++) {
			const struct undo_sample *s = &m->undo->sample[k];

			if (s->sum && s->grain <= (m->size - 1) / m->facts.grain)
				p[n++] = (struct place){.off = s->grain * m->facts.grain,
							.len = (uint32_t)m->facts.grain,
							.sum = s->sum,
							.log = m};
		}
	}
	qsort(p, n, sizeof(*p), by_first_u64);
	return n;
}

static int mark_held(struct place *p, size_t n, struct reader *r, struct err *e)
{
	struct run run;
	size_t i = 0;
	int got;

	while ((got = reader_next(r, &run, e)) > 0) {
		while (i < n && p[i].off + p[i].len <= run.off)
			i++;
		for (size_t k = i; k < n && p[k].off < run.off + run.len; k++)
			p[k].held |= p[k].off + p[k].len > run.off;
	}
	return got < 0 ? got : reader_rewind(r, e);
}

static int check_place(const struct place *p, struct target *t, uint8_t *buf, struct err *e)
{
	const uint64_t n = min_u64(p->len, p->log->size - p->off);

	for (uint64_t i = n; i < p->len; i++)
		buf[i] = 0;
	if (!target_look(t, p->off, buf, n))
		return fail(e, EIO, "%s: reading at byte %" PRIu64 ": it cannot be compared with %s" HINT
				    " (--force=disk skips this check)", t->name, p->off, p->log->name);
	if (undo_sample_sum(buf, p->len) == p->sum)
		return 0;
	return fail_with(e, EINVAL, FACTS(.code = ERR_WRONG_DISK, AT_BYTE(p->off)),
		    "%s: is the undo log of another disk (it was made for %s), or %s was written to "
		    "since: bytes %" PRIu64 " to %" PRIu64 " are not as they were, and it does not "
		    "hold them" HINT " (--force=disk skips this check)",
		    p->log->name, p->log->undo->disk, t->name, p->off, p->off + n - 1);
}

int job_check_undo(const struct chain *c, struct target *t, size_t *places, struct err *e)
{
	struct place *p = calloc(c->links * UNDO_SAMPLES, sizeof(*p));
	bool walk = c->links > 1;
	uint8_t *buf = NULL;
	uint32_t most = 0;
	size_t n;
	int r = 0;

	*places = 0;
	if (!p)
		return fail(e, ENOMEM, "out of memory");
	n = collect(p, c);
	for (size_t i = 0; i < n; i++) {
		most = p[i].len > most ? p[i].len : most;
		walk |= !p[i].log->undo->finished; /* a finished one lists what it does not hold */
	}
	buf = malloc(most + 1);
	if (!buf)
		r = fail(e, ENOMEM, "out of memory");
	if (!r && n && walk)
		r = mark_held(p, n, c->reader, e);
	for (size_t i = 0; !r && i < n; i++) {
		if (p[i].held)
			continue;
		r = check_place(&p[i], t, buf, e);
		++*places;
	}
	free(buf);
	free(p);
	return r;
}

/* Counts the blocks of the given size that a run touches, and none of them twice. */
static void touch(const struct run *run, uint64_t size, uint64_t *next, uint64_t *n)
{
	const uint64_t first = max_u64(run->off / size, *next), end = div_up(run->off + run->len, size);

	*n += end - min_u64(end, first);
	*next = max_u64(*next, end);
}

int job_touched(struct reader *r, uint64_t grain, uint64_t table, uint64_t *grains, uint64_t *tables,
		struct err *e)
{
	uint64_t next_grain = 0, next_table = 0;
	struct run run;
	int got;

	*grains = *tables = 0;
	while ((got = reader_next(r, &run, e)) > 0) {
		touch(&run, grain, &next_grain, grains);
		touch(&run, grain * table, &next_table, tables);
	}
	return got < 0 ? got : reader_rewind(r, e);
}
