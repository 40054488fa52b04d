/* SPDX-License-Identifier: MIT */
/* See table.h. */
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXED 43 /* columns of all cells but name and kind, with what is between them */

struct row {
	char *name;
	const char *kind;
	char size[32], holds[32], cid[16];
	const char *checked; /* whether the child names this CID */
};

/* Whether link number k is the one that its child was made from. */
static const char *checked(const struct chain *c, size_t k)
{
	const struct descriptor *d = c->link[k]->descriptor, *child = k ? c->link[k - 1]->descriptor : NULL;

	if (!k)
		return "";
	return d && d->has_cid && descriptor_has_parent(child) && child->parent_cid == d->cid ? "yes" : "no";
}

static void fill(struct row *row, const struct info *i, size_t k, unsigned names, struct text *t)
{
	const struct image *m = i->chain->link[k];
	struct text name = {0};

	screen_name(&name, m->name, names);
	row->name = text_take(&name);
	t->failed |= !row->name;
	row->kind = m->facts.format;
	size_text(row->size, m->size);
	size_text(row->holds, i->layer[k].data);
	snprintf(row->cid, sizeof(row->cid), "-");
	if (m->descriptor && m->descriptor->has_cid)
		snprintf(row->cid, sizeof(row->cid), "%08" PRIx32, m->descriptor->cid);
	row->checked = checked(i->chain, k);
}

static void put_row(struct text *t, const struct row *r, int names, int kinds, bool narrow)
{
	if (narrow)
		text_printf(t, "  %s\n    %s, holds %s\n    CID %s%s%s\n", r->name, r->kind, r->holds, r->cid, *r->checked ? ", checked: " : "", r->checked);
	else
		text_printf(t, "  %-*s  %-*s  %9s  %9s  %-8s%s%s\n", names + (int)strlen(r->name) -
			    (int)screen_width(r->name), r->name, kinds, r->kind, r->size, r->holds, r->cid,
			    *r->checked ? "  " : "", r->checked);
}

void table_chain(struct text *t, const struct info *i, const struct screen *s)
{
	struct row head = {.name = "image", .kind = "kind", .size = "size", .holds = "holds", .cid = "CID",
			   .checked = "checked"};
	const size_t n = i->chain->links;
	struct row *row = calloc(n, sizeof(*row));
	unsigned kinds = 4, names = 5;
	bool narrow = s->terminal && s->columns < FIXED + 25;
	char size[32], exact[32], data[32];

	if (!row) {
		t->failed = true;
		return;
	}
	for (size_t k = 0; k < n; k++) {
		const char *kind = i->chain->link[k]->facts.format;

		kinds = (unsigned)max_u64(kinds, kind ? strlen(kind) : 0);
	}
	for (size_t k = 0; k < n; k++) {
		fill(&row[k], i, k, !s->terminal ? UINT32_MAX : s->columns - (narrow ? 3 : FIXED + kinds), t);
		names = row[k].name ? (unsigned)max_u64(names, screen_width(row[k].name)) : names;
	}
	text_printf(t, "%s: %s%s, holds %s", i->chain->link[0]->name, size_text(size, i->chain->link[0]->size),
		    narrow ? "" : exact_text(exact, i->chain->link[0]->size), size_text(data, i->disk.data));
	if (narrow)
		text_add(t, "\n", 1);
	else
		text_printf(t, " in %" PRIu64 " run%s\n", i->disk.runs, plural(i->disk.runs));
	if (!narrow)
		put_row(t, &head, (int)names, (int)kinds, false);
	for (size_t k = 0; k < n && !t->failed; k++)
		put_row(t, &row[k], (int)names, (int)kinds, narrow);
	for (size_t k = 0; k < n; k++)
		free(row[k].name);
	free(row);
}

void table_command(struct text *t, const struct info *i)
{
	const struct chain *c = i->chain;
	const struct image *top = c->link[0];

	if (top->piped)
		return;
	text_printf(t, "  next: vmdksync ");
	if (top->undo)
		screen_word(t, top->path);
	else if (!c->incomplete && c->links == 1 && !descriptor_has_parent(top->descriptor)) {
		text_printf(t, "--full --create ");
		screen_word(t, top->path);
		text_printf(t, " NEW.raw\n");
		return;
	} else {
		text_printf(t, "--dry-run %s", c->incomplete ? "" : "--chain ");
		screen_word(t, top->path);
	}
	text_printf(t, " TARGET\n");
}
