/* SPDX-License-Identifier: MIT */
/* See card.h. */
#include "cli/card.h"
#include "cli/say.h"
#include "input/source.h"
#include "jobs/facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOW (UINT64_C(100) << 20) /* bytes a second: a disk that turns, or 1 Gbit/s */
#define FAST (UINT64_C(1000) << 20)

struct rows {
	struct text *t;
	const struct screen *s;
	struct text row; /* that is built */
};

static void end_row(struct rows *r, const char *label)
{
	char *text = text_take(&r->row);

	if (text)
		screen_row(r->t, r->s, label, text);
	r->t->failed |= !text;
	free(text);
}

static void show_target(struct rows *r, const struct work *w)
{
	struct target *t = w->target;
	char size[32], exact[32], device[512], users[600];

	job_device_text(device, sizeof(device), t);
	job_users_text(users, sizeof(users), t);
	text_printf(&r->row, "%s: %s%s%s%s", t->name,
		    t->device ? "block device" : !strcmp(t->kind, "nbd") ? "NBD export"
		    : t->created ? "new sparse file" : t->thick ? "raw file" : "sparse raw file",
		    *device ? " (" : "", device, *device ? ")" : "");
	text_printf(&r->row, ", %s%s", size_text(size, t->size), exact_text(exact, t->size));
	end_row(r, "target");
	if (t->created)
		return;
	text_printf(&r->row, "holds %s%s%s%s", job_content(t), *users ? "; " : "", users,
		    t->read_only ? "; it is read-only and cannot be written" : "");
	end_row(r, "");
}

static void show_chain(struct rows *r, const struct work *w)
{
	for (size_t i = 0; i < w->chain->links; i++) {
		const struct image *m = w->chain->link[i];

		text_printf(&r->row, "%s: %s, grains of %" PRIu64 " bytes%s", m->name, m->facts.format,
			    m->facts.grain, i >= w->applied && !w->whole ? "; not written" : "");
		if (m->found)
			text_printf(&r->row, "; its descriptor is %s", m->file[m->files - 1].name);
		else if (!m->descriptor && !m->piped && !m->raw)
			text_printf(&r->row, "; no descriptor found, so its parent is not known");
		end_row(r, i ? "" : "chain");
	}
}

static void show_disk(struct rows *r, const struct work *w)
{
	char size[32], data[32], exact[32], zero[32], none[32];

	text_printf(&r->row, "%s%s", size_text(size, w->chain->link[0]->size),
		    exact_text(exact, w->chain->link[0]->size));
	end_row(r, "disk");
	say_totals(&r->row, &w->totals);
	if (report_unaccounted(w))
		text_printf(&r->row, "; %s unaccounted for", size_text(none, report_unaccounted(w)));
	end_row(r, "write");
	for (size_t i = 0; i < w->chain->links; i++) {
		const struct source *s = w->chain->link[i]->piped;

		if (!s)
			continue;
		text_printf(&r->row, "%s%s received%s; %s spooled%s%s", size_text(data, source_received(s)),
			    exact_text(exact, source_received(s)), source_is_gzip(s) ? ", uncompressed" : "",
			    size_text(zero, s->spooled), s->spooled ? ": " : "",
			    s->spooled ? spool_reason_text(s) : "");
		end_row(r, "pipe");
	}
}

/* What samples of the target showed. */
static void show_look(struct rows *r, const struct work *w)
{
	const struct look *l = &w->look;

	if (*l->why)
		text_printf(&r->row, "not compared with the target: %s", l->why);
	else if (l->differ)
		text_printf(&r->row, "%u of %u samples differ from %s", l->differ, l->of, l->name);
	else
		text_printf(&r->row, "the target holds it, by %u sample%s", l->reads, plural(l->reads));
	end_row(r, "parent");
	if (!l->own)
		return;
	text_printf(&r->row, "the target holds about %u %% of the delta's data already, by %u sample%s",
		    100 * l->own_same / l->own, l->own, plural(l->own));
	end_row(r, "present");
}

static const char *duration(char buf[32], uint64_t bytes, uint64_t rate)
{
	const uint64_t s = div_up(bytes, rate);

	if (s < 120)
		snprintf(buf, 32, "%" PRIu64 " s", s);
	else
		snprintf(buf, 32, "%" PRIu64 " min", div_up(s, 60));
	return buf;
}

static void show_cost(struct rows *r, const struct work *w, const char *log)
{
	char a[32], b[32];

	if (w->room.known) {
		text_printf(&r->row, "%s: may need up to %s; %s are free there",
			    w->undo_name ? w->undo_name : log, size_text(a, w->room.most),
			    size_text(b, w->room.free));
		end_row(r, "undo");
	}
	text_printf(&r->row, "about %s at 100 MiB/s", duration(a, w->totals.data, SLOW));
	text_printf(&r->row, ", %s at 1000 MiB/s: the slower of reading and writing counts",
		    duration(b, w->totals.data, FAST));
	end_row(r, "time");
}

/* On a line of its own, as it is to be copied. */
static void show_next(struct text *t, const struct work *w, const char *log)
{
	const struct options *o = w->o;

	text_printf(t, "Next:\n  ");
	screen_word(t, o->program);
	if (!o->undo && w->room.known && w->room.most < w->room.free)
		text_printf(t, " --undo=%s", log);
	text_printf(t, "%s\n", o->again);
}

void card_show(struct text *t, const struct work *w, const char *log, const struct screen *s)
{
	struct rows r = {.t = t, .s = s};

	show_target(&r, w);
	show_chain(&r, w);
	show_disk(&r, w);
	show_look(&r, w);
	show_cost(&r, w, log);
	say_dry_run(t, w);
	if (!w->target->read_only)
		show_next(t, w, log);
}
