/* SPDX-License-Identifier: MIT */
/* See members.h. */
#include "cli/members.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_head(struct text *t, const struct options *o)
{
	json_open(t, NULL, '{');
	json_number(t, "schema", JSON_SCHEMA);
	json_string(t, "job", o->position  ? "position"
			      : o->info	   ? "info"
			      : o->map	   ? "map"
			      : o->verify  ? "verify"
			      : o->dry_run ? "dry-run"
					   : "apply");
}

void json_target(struct text *t, const struct work *w)
{
	char *name = w->target || !w->o->target || t->fixed ? NULL : name_text(w->o->target);

	if (!w->target && !name) {
		json_string(t, "target", NULL);
		return;
	}
	json_open(t, "target", '{');
	json_name(t, "name", name ? name : w->target->name);
	json_string(t, "kind", name ? NULL : w->target->kind);
	json_known(t, "size", !name, name ? 0 : w->target->size);
	json_close(t, '}');
	free(name);
}

void json_chain(struct text *t, const struct chain *c)
{
	bool exact = true;

	json_open(t, "chain", '[');
	for (size_t i = 0; i < c->links; i++) {
		json_string(t, NULL, c->link[i]->name);
		exact &= json_is_exact(c->link[i]->name);
	}
	json_close(t, ']');
	if (exact)
		return;
	json_open(t, "chain_hex", '[');
	for (size_t i = 0; i < c->links; i++)
		json_hex(t, NULL, c->link[i]->name);
	json_close(t, ']');
}

void json_log(struct text *t, const struct work *w)
{
	if (!w->undo_name) {
		json_string(t, "undo", NULL);
		return;
	}
	json_open(t, "undo", '{');
	json_name(t, "name", w->undo_name);
	json_bool(t, "finished", w->undo_finished);
	json_close(t, '}');
}

void json_warnings(struct text *t, const struct warnings *w)
{
	json_open(t, "warnings", '[');
	for (size_t i = 0; i < w->kept; i++)
		json_string(t, NULL, w->text[i]);
	json_close(t, ']');
	t->failed |= w->kept != w->n;
}

char *report_position(const struct work *w, uint64_t at)
{
	struct text t = {0};

	if (w->o->json) {
		json_head(&t, w->o);
		json_number(&t, "position", at);
		json_end(&t, w, NULL, 0, NULL);
	} else {
		text_printf(&t, "%" PRIu64, at);
	}
	text_add(&t, "\n", 1);
	return text_take(&t);
}

/* --- failures ------------------------------------------------------------------------------------ */

struct part {
	char text[sizeof(((struct err *)0)->msg)];
};

static char *cut(struct part *to, const struct err *e, size_t at, size_t len)
{
	memcpy(to->text, e->msg + at, len);
	to->text[len] = '\0';
	return to->text;
}

/* The punctuation between a message and its hint belongs to neither. */
static const char *hint_text(struct part *to, const struct err *e)
{
	char *s = cut(to, e, e->hint.at, e->hint.len), *end = s + strlen(s);
	const bool brackets = !strncmp(s, " (", 2);

	s += strspn(s, " ;:,(");
	if (brackets && end > s && end[-1] == ')')
		end[-1] = '\0';
	return s;
}

static const char *next_step(const struct work *w)
{
	return w->undo ? "running again with --undo-append is safe, and the undo log rolls back"
		       : "running again is safe";
}

static void json_hint(struct text *t, const struct work *w, const struct err *e, const char *help)
{
	const char *step = w->stats.begun ? next_step(w) : NULL;
	struct part own;
	char all[sizeof(own) + 256] = "";
	const char *const hints[] = {hint_text(&own, e), help, step};

	for (size_t i = 0; i < sizeof(hints) / sizeof(*hints); i++)
		if (hints[i] && *hints[i])
			snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", *all ? "; " : "",
				 hints[i]);
	json_string(t, "hint", *all ? all : NULL);
}

static void json_error(struct text *t, const struct work *w, const struct err *e, int status, const char *help)
{
	const struct err_facts *f = &e->facts;
	struct part part;
	char force[16];

	json_open(t, "error", '{');
	json_string(t, "code", f->code);
	json_number(t, "exit", (uint64_t)status);
	json_string(t, "message", cut(&part, e, 0, e->hint.len ? e->hint.at : strlen(e->msg)));
	json_name(t, "file", e->file.len ? cut(&part, e, e->file.at, e->file.len) : NULL);
	json_string(t, "object", e->object.len ? cut(&part, e, e->object.at, e->object.len) : NULL);
	json_known(t, "offset", f->placed, f->offset);
	json_known(t, "have", f->sized, f->have);
	json_known(t, "need", f->sized, f->need);
	json_hint(t, w, e, help);
	if (f->force)
		snprintf(force, sizeof(force), "%.*s", (int)strspn(f->force, "abcdefghijklmnopqrstuvwxyz"),
			 f->force);
	json_string(t, "force", f->force ? force : NULL);
	json_close(t, '}');
}

void json_end(struct text *t, const struct work *w, const struct err *e, int status, const char *help)
{
	if (e)
		json_error(t, w, e, status, help);
	else
		json_string(t, "error", NULL);
	json_close(t, '}');
}

void report_failure(struct text *t, const struct work *w, const struct err *e, int status, const char *help)
{
	json_head(t, w->o);
	json_target(t, w);
	json_number(t, "written", w->stats.written);
	json_number(t, "zeroed", w->stats.zeroed);
	json_log(t, w);
	if (!t->fixed)
		json_warnings(t, &w->warnings);
	json_end(t, w, e, status, help);
	text_add(t, "\n", 1);
}
