/* SPDX-License-Identifier: MIT */
#include "jobs/jobs.h"

#include <string.h>

struct apply {
	struct undo *undo;
	struct sums *sums;
	uint64_t changed;       /* bytes that TARGET did not hold already, in whole sectors */
	uint64_t data, present; /* bytes that are not zeros, and those of them that it held */
};

/* Saves what the batch will overwrite, and what else is in the same grains of the log. */
static int save_old(struct apply *a, const struct batch_view *b, struct err *e)
{
	const struct run *last = &b->run[b->runs - 1];
	uint64_t off = b->off, end = last->off + last->len, from, to;
	int r = 0;

	while (off < end && (r = undo_missing(a->undo, off, end - off, &from, &to, e)) > 0) {
		r = undo_save(a->undo, from, to - from, b->old + (from - b->old_off), e);
		if (r < 0)
			break;
		off = to;
	}
	return r;
}

/* How much of the batch TARGET holds already. */
static void count_present(struct apply *a, const struct batch_view *b)
{
	for (unsigned i = 0; i < b->runs; i++) {
		const struct run *run = &b->run[i];
		const uint8_t *old = b->old + (run->off - b->old_off);
		const uint8_t *new = run->kind == RUN_ZERO ? NULL
							     : b->data + (run->off - b->off);

		for (uint64_t at = 0; at < run->len; at += SECTOR) {
			size_t n = (size_t)min_u64(SECTOR, run->len - at);
			bool zeros = !new || all_zero(new + at, n);
			bool same = zeros ? all_zero(old + at, n) : !memcmp(old + at, new + at, n);

			a->changed += same ? 0 : n;
			a->data += zeros ? 0 : n;
			a->present += same && !zeros ? n : 0;
		}
	}
}

static int on_ready(void *arg, const struct batch_view *b, struct err *e)
{
	struct apply *a = arg;
	int r = a->undo ? save_old(a, b, e) : 0;

	if (a->undo)
		count_present(a, b);
	if (r >= 0 && a->sums)
		r = sums_add(a->sums, b, e);
	return r < 0 ? r : 1;
}

static int on_barrier(void *arg, struct err *e)
{
	struct apply *a = arg;

	return undo_barrier(a->undo, e);
}

int job_apply(struct reader *r, struct target *t, const struct pump_opts *o, struct undo *undo,
	      struct sums *sums, struct pump_stats *stats, struct err *e)
{
	struct apply apply = {.undo = undo, .sums = sums};
	struct pump_opts opts = *o;
	int result, sync;

	if (undo) {
		opts.barrier = on_barrier;
		opts.look = undo_grain(undo);
	}
	opts.ready = undo || sums ? on_ready : NULL;
	opts.consumer = &apply;
	result = pump_run(sums ? sums_tap(sums) : r, t, &opts, stats, e);
	if (undo) { /* holes that stay zeros are not seen by on_ready() */
		const uint64_t all = stats->written + stats->zeroed;

		stats->present = all - min_u64(all, apply.changed);
		stats->repeated = LOOK_NEARLY_ALL(apply.present, apply.data);
	}
	sync = target_sync_name(t, e);
	stats->synced &= !sync;
	return result < 0 ? result : sync;
}
