/* SPDX-License-Identifier: MIT */
#include "cli/say.h"
#include "input/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The end of a last line. */
static void say_rest(struct text *t, const struct work *w)
{
	const uint64_t unaccounted = report_unaccounted(w);
	char size[32];

	if (unaccounted)
		text_printf(t, "; %s unaccounted for", size_text(size, unaccounted));
	if (w->warnings.n)
		text_printf(t, "; %zu warning%s", w->warnings.n, plural(w->warnings.n));
	text_add(t, "\n", 1);
}

static void say_image(struct text *t, const struct image *m)
{
	char disk[32];

	text_printf(t,
		"vmdksync: %s: %s version %u, disk of %s (%" PRIu64 " sector%s), grains of %" PRIu64
		" bytes\n",
		m->name, m->facts.format, m->facts.version, size_text(disk, m->size),
		m->size / SECTOR, plural(m->size / SECTOR), m->facts.grain);
}

void say_totals(struct text *t, const struct totals *sum)
{
	char data[32], data_exact[32], zero[32], zero_exact[32];

	text_printf(t, "%s of data%s and %s of zeros%s in %" PRIu64 " run%s", size_text(data, sum->data),
		    exact_text(data_exact, sum->data), size_text(zero, sum->zero),
		    exact_text(zero_exact, sum->zero), sum->runs, plural(sum->runs));
}

static void say_plan(struct text *t, const struct work *w)
{
	if (w->chain->reader->streaming)
		return; /* nobody knows yet */
	text_printf(t, "vmdksync: %s: ", w->target->name);
	say_totals(t, &w->totals);
	text_add(t, "\n", 1);
}

/* What was seen of the target before the first write. */
static void say_look(struct text *t, const struct work *w)
{
	const struct look *l = &w->look;
	const char *target = w->target->name, *delta = w->chain->link[0]->name;

	if (w->o->verify)
		return;
	if (*l->why)
		text_printf(t, "vmdksync: %s: not compared with the parents of %s: %s\n", target,
			delta, l->why);
	else if (!l->differ)
		text_printf(t, "vmdksync: %s: holds what the parents of %s hold (%u sample%s)\n",
			target, delta, l->reads, plural(l->reads));
}

/* Where that is most of the delta, it was applied before. */
static void say_present(struct text *t, const struct work *w)
{
	const struct look *l = &w->look;
	const uint64_t all = w->stats.written + w->stats.zeroed;

	if (w->undo && all && (w->stats.present >= all / 2 || w->o->verbose))
		text_printf(t,
			"vmdksync: %s: already held %" PRIu64 " of %" PRIu64 " bytes of this delta\n",
			w->target->name, w->stats.present, all);
	else if (!w->undo && l->own && l->own_same > l->own / 2)
		text_printf(t, "vmdksync: %s: already held about %u %% of this delta\n", w->target->name,
			100 * l->own_same / l->own);
}

static void say_piped(struct text *t, const struct work *w)
{
	char came[32], spooled[32];

	for (size_t i = 0; i < w->chain->links; i++) {
		const struct source *s = w->chain->link[i]->piped;

		if (s)
			text_printf(t,
				"vmdksync: %s: %s received (%" PRIu64 " bytes%s), %s spooled (%" PRIu64
				" bytes)%s%s\n",
				w->chain->link[i]->name, size_text(came, source_received(s)),
				source_received(s),
				source_is_gzip(s) ? ", uncompressed" : "",
				size_text(spooled, s->spooled), s->spooled, s->spooled ? ": " : "",
				s->spooled ? spool_reason_text(s) : "");
	}
}

static void say_writes(struct text *t, const struct work *w)
{
	if (w->stats.refused)
		text_printf(t,
			"vmdksync: %s: direct I/O was refused (%s); written through the page cache\n",
			w->target->name, strerror(w->stats.refused));
	text_printf(t, "vmdksync: %s: %s, %s, %" PRIu64 " write%s\n", w->target->name, w->stats.ring,
		w->target->aligned ? "NBD"
		: !w->target->past_cache || w->stats.refused ? "buffered"
		: w->target->served		  ? "direct"
						  : "direct where allocated",
		w->stats.writes, plural(w->stats.writes));
}

void say_logs(struct text *t, const struct work *w)
{
	const char *target = w->target->name;

	for (size_t i = 0; i < w->chain->links; i++) {
		const struct undo_note *u = w->chain->link[i]->undo;
		const char *name = w->chain->link[i]->name;

		if (u && !u->damaged && !u->sampled)
			text_printf(t, "vmdksync: %s: has no checksums of its disk (a log of version 1.0.0): "
				       "whether that is %s was not checked\n", name, target);
		if (u && strcmp(u->disk, target) != 0)
			text_printf(t, "vmdksync: %s: was made for %s, and goes onto %s\n", name, u->disk,
				    target);
	}
	if (w->log_checked)
		text_printf(t, "vmdksync: %s: %zu place%s that the undo log does not hold %s as they "
			       "were\n", target, w->places, plural(w->places), w->places == 1 ? "is" : "are");
}

void say_facts(struct text *t, const struct work *w)
{
	for (size_t i = 0; i < w->chain->links; i++)
		say_image(t, w->chain->link[i]);
	say_plan(t, w);
	say_look(t, w);
	if (w->target->served)
		text_printf(t, "vmdksync: %s: %s: one transfer in flight, zeros as bytes\n",
			    w->target->name, w->target->served);
}

void say_dry_run(struct text *t, const struct work *w)
{
	text_printf(t, "vmdksync: %s: dry run, nothing was written%s", w->target->name,
		    w->target->read_only ? "; it is read-only, so it could not be" : "");
	say_rest(t, w);
}

void say_details(struct text *t, const struct work *w)
{
	say_piped(t, w);
	say_writes(t, w);
}

static void say_kept_open(struct text *t, const struct work *w)
{
	for (size_t i = 0; w->chain && i < w->chain->links; i++)
		if (w->chain->link[i]->piped && source_kept_open(w->chain->link[i]->piped))
			text_printf(t,
				"vmdksync: %s: all expected bytes were received, but the sender kept the pipe "
				"open; it was not waited for\n", w->chain->link[i]->name);
}

static void say_summary(struct text *t, const struct work *w)
{
	char data[32], zero[32], rate[32];
	double seconds = progress_seconds(&w->progress);
	uint64_t bytes = w->stats.written + w->stats.zeroed;

	text_printf(t,
		"vmdksync: %s: %s written, %s zeroed, in %" PRIu64 " run%s; %.1f s, %s/s",
		w->target->name, size_text(data, w->stats.written),
		size_text(zero, w->stats.zeroed), w->stats.runs, plural(w->stats.runs), seconds,
		size_text(rate, seconds > 0.001 ? (uint64_t)((double)bytes / seconds) : bytes));
	if (resume_found(w->resume))
		text_printf(t, "; resumed at byte %" PRIu64, resume_found(w->resume)->durable);
	text_printf(t, "; on stable storage");
	say_rest(t, w);
	say_present(t, w);
	if (w->undo)
		text_printf(t, "vmdksync: %s: 'vmdksync %s %s' rolls back\n",
			w->undo_name, w->undo_name, w->target->name);
}

/* What a user does when it went wrong. */
static void say_next_step(struct text *t, const struct work *w)
{
	if (w->resume && w->chain->reader->streaming)
		text_printf(t, "; 'vmdksync --resume=%s --position' prints where the sender has to begin",
			    resume_name(w->resume));
	else if (w->resume)
		text_printf(t, "; the same command goes on at byte %" PRIu64, resume_reached(w->resume));
	else
		text_printf(t, "; running again %sis safe", w->undo ? "with --undo-append " : "");
	if (w->undo)
		text_printf(t, "%s 'vmdksync %s %s' brings back what was there", w->resume ? ";" : ", and",
			    w->undo_name, w->target->name);
	text_printf(t, "\n");
}

static void say_broken_off(struct text *t, const struct work *w, int r)
{
	const char *how = w->stats.stopped ? "stopped by a signal" : "gave up";
	const uint64_t done = w->stats.written + w->stats.zeroed;
	uint64_t bytes;
	char room[32];

	if (!w->stats.begun) {
		text_printf(t, "vmdksync: %s: %s before anything was written; running again is safe\n",
			    w->target->name, how);
		return;
	}
	text_printf(t, "vmdksync: %s: %s after %" PRIu64, w->target->name, how, done);
	if (w->chain->reader->streaming)
		text_printf(t, " bytes, the last of them before byte %" PRIu64 "%s", w->stats.reached,
			    w->stats.synced ? ", are on stable storage" : "");
	else
		text_printf(t, " of %" PRIu64 " bytes", w->totals.data + w->totals.zero);
	if (r == -ENOSPC && !w->undo && target_room(w->target, &bytes))
		text_printf(t, "; %s are free there", size_text(room, bytes));
	say_next_step(t, w);
}

void say_end(struct text *t, const struct work *w, int r)
{
	const struct options *o = w->o;

	if (!r && !o->quiet)
		say_kept_open(t, w);
	if (o->verify && w->stats.stopped)
		text_printf(t, "vmdksync: %s: stopped by a signal after %" PRIu64 " of %" PRIu64
			       " bytes were compared\n",
			    w->target->name, w->done, w->totals.data + w->totals.zero);
	else if (w->stats.stopped || (r < 0 && w->stats.begun))
		say_broken_off(t, w, r);
	else if (!r && w->undone && !o->quiet) {
		text_printf(t, "vmdksync: %s: holds all of it already, and %s is finished: nothing was left to "
			       "do", w->target->name, w->undo_name);
		say_rest(t, w);
	} else if (!r && w->target && !o->quiet && !o->dry_run && !o->verify)
		say_summary(t, w);
}

void say_different(struct text *t, const struct work *w)
{
	const struct verify_result *v = &w->differences;
	const bool colour = screen_of(STDERR_FILENO).colour;
	char text[32], exact[32];

	text_printf(t, "vmdksync: %s: %sDIFFERENT%s from %s: %s%zu range%s, %s%s\n", w->target->name,
		    colour ? "\x1b[31m" : "", colour ? "\x1b[0m" : "", w->chain->link[0]->name, v->more ? "more than " : "", v->n, plural(v->n),
		    size_text(text, v->bytes), exact_text(exact, v->bytes));
}

void say_equal(struct text *t, const struct work *w)
{
	uint64_t all = w->o->read_back ? w->stats.written + w->stats.zeroed
				       : w->totals.data + w->totals.zero;
	char text[32], exact[32];

	text_printf(t, "vmdksync: %s: equal to %s: %s%s, %.1f %% of the disk; %.1f s",
		w->target->name, w->chain->link[0]->name, size_text(text, all),
		exact_text(exact, all), 100.0 * (double)all / (double)w->chain->link[0]->size,
		progress_seconds(&w->progress));
	if (w->o->read_back) /* behind a summary, which told the rest */
		text_add(t, "\n", 1);
	else
		say_rest(t, w);
}
