/* SPDX-License-Identifier: MIT */
#include "cli/report.h"
#include "cli/members.h"
#include "cli/table.h"
#include "input/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB 1073741824.0

static char *take(struct text *t)
{
	if (!t->failed)
		text_add(t, "\n", t->len && t->s[t->len - 1] != '\n');
	return text_take(t);
}

/* --- info ---------------------------------------------------------------------------------------- */

static uint64_t on_disk(const struct stat *st)
{
	return S_ISREG(st->st_mode) ? (uint64_t)st->st_blocks * 512 : 0;
}

static void json_cid(struct text *t, const char *key, bool has, uint32_t cid)
{
	char hex[9];

	snprintf(hex, sizeof(hex), "%08" PRIx32, cid);
	json_string(t, key, has ? hex : NULL);
}

static void json_totals(struct text *t, const struct totals *sum, uint64_t size)
{
	json_number(t, "data", sum->data);
	json_number(t, "zero", sum->zero);
	json_number(t, "unallocated", size - min_u64(size, sum->data + sum->zero));
	json_number(t, "runs", sum->runs);
}

static void json_undo(struct text *t, const struct undo_note *u)
{
	if (!u) {
		json_string(t, "undo", NULL);
		return;
	}
	json_open(t, "undo", '{');
	json_name(t, "disk", u->disk);
	json_string(t, "time", u->time);
	json_name(t, "applied", u->applied);
	json_bool(t, "finished", u->finished);
	json_close(t, '}');
}

static const char *extent_word(enum extent_type type)
{
	static const char *const word[] = {
		[EXTENT_FLAT] = "FLAT",		    [EXTENT_VMFS] = "VMFS",
		[EXTENT_SPARSE] = "SPARSE",	    [EXTENT_VMFSSPARSE] = "VMFSSPARSE",
		[EXTENT_SESPARSE] = "SESPARSE",	    [EXTENT_ZERO] = "ZERO",
	};

	return word[type];
}

/* What a descriptor names, as bytes. */
static void json_named(struct text *t, const char *key, const char *raw)
{
	char *name = raw ? name_text(raw) : NULL;

	t->failed |= raw && !name;
	json_name(t, key, name);
	free(name);
}

static void json_extents(struct text *t, const struct descriptor *d)
{
	json_open(t, "extents", '[');
	for (size_t i = 0; i < d->extents; i++) {
		json_open(t, NULL, '{');
		json_string(t, "type", extent_word(d->extent[i].type));
		json_number(t, "size", d->extent[i].sectors * SECTOR);
		json_number(t, "offset", d->extent[i].offset * SECTOR);
		json_named(t, "file", d->extent[i].file);
		json_close(t, '}');
	}
	json_close(t, ']');
}

static void json_files(struct text *t, const struct image *m)
{
	json_open(t, "files", '[');
	for (size_t i = 0; i < m->files; i++) {
		json_open(t, NULL, '{');
		json_name(t, "name", m->file[i].name);
		json_number(t, "size", (uint64_t)m->file[i].st.st_size);
		json_number(t, "allocated", on_disk(&m->file[i].st));
		json_close(t, '}');
	}
	json_close(t, ']');
}

/* sum: NULL where only the descriptor was read. */
static void json_layer(struct text *t, const struct image *m, const struct totals *sum)
{
	const struct descriptor *d = m->descriptor;

	json_open(t, NULL, '{');
	json_name(t, "name", m->name);
	if (sum) {
		json_string(t, "format", m->facts.format);
		json_number(t, "version", m->facts.version);
	}
	json_string(t, "create_type", d ? d->create_type : NULL);
	json_number(t, "size", m->size);
	if (sum) {
		json_number(t, "grain", m->facts.grain);
		json_totals(t, sum, m->size);
		json_number(t, "unaccounted", m->unaccounted);
	}
	json_cid(t, "cid", d && d->has_cid, d ? d->cid : 0);
	json_cid(t, "parent_cid", descriptor_has_parent(d), d ? d->parent_cid : 0);
	json_named(t, "parent_hint", d ? d->parent_hint : NULL);
	if (sum) {
		json_undo(t, m->undo);
		json_files(t, m);
	} else {
		json_extents(t, d);
	}
	json_close(t, '}');
}

static void json_info(struct text *t, const struct info *i)
{
	const struct chain *c = i->chain;

	json_open(t, NULL, '{');
	json_name(t, "name", c->link[0]->name);
	json_number(t, "size", c->link[0]->size);
	json_bool(t, "complete", !c->incomplete);
	json_string(t, "incomplete_reason", c->incomplete ? c->why.msg : NULL);
	if (i->layer)
		json_totals(t, &i->disk, c->link[0]->size);
	json_open(t, "chain", '[');
	for (size_t k = 0; k < c->links; k++)
		json_layer(t, c->link[k], i->layer ? &i->layer[k] : NULL);
	json_close(t, ']');
	json_warnings(t, &i->warnings);
	json_close(t, '}');
}

static void json_family(struct text *t, const struct family *f)
{
	json_open(t, NULL, '{');
	json_name(t, "base", f->base->name);
	json_number(t, "machines", f->machines);
	json_number(t, "provisioned", f->provisioned);
	json_number(t, "thin", f->thin);
	json_number(t, "shared", f->shared);
	json_number(t, "own", f->own);
	json_number(t, "linked", f->shared + f->own);
	json_number(t, "saved", f->thin - min_u64(f->thin, f->shared + f->own));
	json_close(t, '}');
}

/* sum: NULL where only the descriptor was read. */
static void text_layer(struct text *t, const struct image *m, const struct totals *sum, int depth)
{
	const struct descriptor *d = m->descriptor;
	char size[32], exact[32], data[32], zero[32], none[32];

	text_printf(t, "%*s%s: %s", 2 * depth, "", m->name,
		    sum ? m->facts.format : d && d->create_type ? d->create_type : "VMDK");
	if (sum && m->facts.version) /* flat has none */
		text_printf(t, " version %u", m->facts.version);
	depth = 2 * depth + 2;
	text_printf(t, "\n%*sdisk    %s%s", depth, "", size_text(size, m->size), exact_text(exact, m->size));
	if (sum)
		text_printf(t, ", grains of %" PRIu64 " bytes\n%*sholds   %s of data, %s of zeros, in %" PRIu64
			       " run%s; %s unallocated", m->facts.grain, depth, "", size_text(data, sum->data),
			    size_text(zero, sum->zero), sum->runs, plural(sum->runs),
			    size_text(none, m->size - min_u64(m->size, sum->data + sum->zero)));
	text_add(t, "\n", 1);
	if (d && d->has_cid)
		text_printf(t, "%*sCID     %08" PRIx32 "\n", depth, "", d->cid);
	for (size_t i = 0; sum && i < m->files; i++)
		text_printf(t, "%*sfile    %s: %s, %s on disk\n", depth, "", m->file[i].name,
			    size_text(size, (uint64_t)m->file[i].st.st_size),
			    size_text(data, on_disk(&m->file[i].st)));
	for (size_t i = 0; !sum && i < d->extents; i++) {
		char *file = d->extent[i].file ? name_text(d->extent[i].file) : NULL;

		text_printf(t, "%*sextent  %s, %s%s%s\n", depth, "", extent_word(d->extent[i].type),
			    size_text(size, d->extent[i].sectors * SECTOR), file ? ": " : "",
			    file ? file : "");
		t->failed |= d->extent[i].file && !file;
		free(file);
	}
	if (descriptor_has_parent(d))
		text_printf(t, "%*sparent  CID %08" PRIx32 ", %s\n", depth, "", d->parent_cid,
			    d->parent_hint ? d->parent_hint : "not named");
}

/* What the table has no room for, of those links that have any. */
static void text_notes(struct text *t, const struct image *m)
{
	char size[32], exact[32];

	if (m->unaccounted)
		text_printf(t, "  %s: %s%s of its files unaccounted for\n", m->name,
			    size_text(size, m->unaccounted), exact_text(exact, m->unaccounted));
	if (m->undo)
		text_printf(t, "  undo log of %s, begun %s, to apply %s; %s\n", m->undo->disk,
			    m->undo->time ? m->undo->time : "at an unknown time",
			    m->undo->applied ? m->undo->applied : "an unknown delta",
			    m->undo->finished ? "finished" : "not finished");
}

static void text_info(struct text *t, const struct info *i, const struct report_how *how)
{
	const struct chain *c = i->chain;

	if (i->layer)
		table_chain(t, i, &how->screen);
	for (size_t k = 0; k < c->links; k++) {
		if (!i->layer || how->o->verbose)
			text_layer(t, c->link[k], i->layer ? &i->layer[k] : NULL, (int)k);
		text_notes(t, c->link[k]);
	}
	if (c->incomplete)
		text_printf(t, "  incomplete: %s\n", c->why.msg);
	for (size_t k = 0; k < i->warnings.kept; k++)
		text_printf(t, "  warning: %s\n", i->warnings.text[k]);
	if (how->commands && i->layer)
		table_command(t, i);
}

static void text_family(struct text *t, const char *base, const struct family *f, int width)
{
	uint64_t linked = f->shared + f->own;

	text_printf(t, "%-*s  %8zu  %11.2f  %11.2f  %11.2f  %11.2f  %11.2f  %11.2f\n", width,
		    base, f->machines, (double)f->provisioned / GIB, (double)f->thin / GIB,
		    (double)f->shared / GIB, (double)f->own / GIB, (double)linked / GIB,
		    (double)(f->thin - min_u64(f->thin, linked)) / GIB);
}

static void text_families(struct text *t, const struct family *f, size_t n)
{
	struct family all = {.base = NULL};
	int width = (int)strlen("base, in GiB");
	bool table = false;

	for (size_t i = 0; i < n; i++) {
		table |= f[i].machines > 1;
		width = (int)max_u64((uint64_t)width, strlen(f[i].base->name));
		all.machines += f[i].machines;
		all.provisioned += f[i].provisioned;
		all.thin += f[i].thin;
		all.shared += f[i].shared;
		all.own += f[i].own;
	}
	if (!table)
		return;
	text_printf(t, "\n%-*s  %8s  %11s  %11s  %11s  %11s  %11s  %11s\n", width,
		    "base, in GiB", "machines", "provisioned", "thin", "shared base", "own deltas",
		    "linked", "saved");
	for (size_t i = 0; i < n; i++)
		text_family(t, f[i].base->name, &f[i], width);
	if (n > 1)
		text_family(t, "all", &all, width);
}

char *report_info(struct info *const *info, size_t n, const struct report_how *how)
{
	struct text t = {0};
	size_t families;
	struct family *f = info_families(&families, info, info[0]->layer ? n : 0);

	if (!f)
		return NULL;
	if (how->o->json) {
		json_head(&t, how->o);
		json_open(&t, "images", '[');
		for (size_t i = 0; i < n; i++)
			json_info(&t, info[i]);
		json_close(&t, ']');
		json_open(&t, "families", '[');
		for (size_t i = 0; i < families; i++)
			json_family(&t, &f[i]);
		json_close(&t, ']');
		json_end(&t, NULL, NULL, 0, NULL);
	} else {
		for (size_t i = 0; i < n; i++)
			text_info(&t, info[i], how);
		text_families(&t, f, families);
	}
	free(f);
	return take(&t);
}

/* --- map ----------------------------------------------------------------------------------------- */

static const char *file_of(const struct run *run)
{
	return run->kind == RUN_RAW	 ? run->src->name
	       : run->kind == RUN_COMPRESSED ? run->leaf->name
					 : NULL;
}

static void json_run(struct text *t, const struct chain *c, const struct run *run)
{
	bool gap = run->layer == LAYER_NONE;

	text_add(t, "\n", t->len > 0);
	json_open(t, NULL, '{');
	json_number(t, "start", run->off);
	json_number(t, "length", run->len);
	if (!gap)
		json_number(t, "depth", run->layer);
	json_name(t, "layer", gap ? NULL : c->link[run->layer]->name);
	json_bool(t, "present", !gap);
	json_bool(t, "data", run->kind != RUN_ZERO);
	json_bool(t, "zero", run->kind == RUN_ZERO);
	if (run->kind != RUN_ZERO) {
		json_name(t, "file", file_of(run));
		json_bool(t, "compressed", run->kind == RUN_COMPRESSED);
	}
	if (run->kind == RUN_RAW)
		json_number(t, "offset", run->pos);
	json_close(t, '}');
}

static void text_run(struct text *t, const struct chain *c, const struct run *run)
{
	text_printf(t, "%-14" PRIu64 "  %-14" PRIu64 "  ", run->off, run->len);
	if (run->kind == RUN_RAW)
		text_printf(t, "%-14" PRIu64 "  ", run->pos);
	else
		text_printf(t, "%-14s  ", run->kind == RUN_COMPRESSED ? "compressed"
					  : run->layer == LAYER_NONE ? "nothing"
								     : "zeros");
	if (run->layer != LAYER_NONE)
		text_printf(t, "%s", run->kind == RUN_ZERO ? c->link[run->layer]->name
							   : file_of(run));
	text_add(t, "\n", 1);
}

static bool goes_on(const struct run *a, const struct run *b)
{
	if (a->kind == RUN_COMPRESSED)
		return b->kind == RUN_COMPRESSED && a->leaf == b->leaf && a->off + a->len == b->off;
	return run_joins(a, b);
}

#define PART (64u * 1024) /* of a map that is held in memory */

/* Hands on what there is, but for the last byte, which tells whether a comma is due. */
static int put_part(struct text *t, struct report_out *out, struct err *e)
{
	int r;

	if (t->failed)
		return fail(e, ENOMEM, "out of memory");
	out->begun = true;
	r = out->put(out->arg, t->s, t->len - 1, e);
	t->s[0] = t->s[t->len - 1];
	t->len = 1;
	return r;
}

static int put_run(struct text *t, const struct chain *c, const struct run *run, bool json,
		   struct report_out *out, struct err *e)
{
	if (json)
		json_run(t, c, run);
	else
		text_run(t, c, run);
	return t->failed || t->len > PART ? put_part(t, out, e) : 0;
}

static void map_begin(struct text *t, const struct work *w)
{
	const struct image *m = w->chain->link[0];

	if (!w->o->json) {
		text_printf(t, "%-14s  %-14s  %-14s  %s\n", "offset", "length", "in file at", "file");
		return;
	}
	json_head(t, w->o);
	json_number(t, "size", m->size);
	json_chain(t, w->chain);
	json_open(t, "map", '[');
}

/* r: what it came to. Nothing was written, so the exit status of a failure is 2. */
static int map_end(struct text *t, const struct work *w, struct report_out *out, int r, struct err *e)
{
	char *text;

	if (w->o->json && !t->failed) {
		json_close(t, ']');
		json_warnings(t, &w->warnings);
		json_end(t, w, r < 0 ? e : NULL, 2, NULL);
	} else if (r < 0) {
		free(text_take(t));
		return r;
	}
	text = take(t);
	if (!text)
		return r < 0 ? r : fail(e, ENOMEM, "out of memory");
	out->begun = true;
	if (r < 0)
		out->put(out->arg, text, strlen(text), e);
	else
		r = out->put(out->arg, text, strlen(text), e);
	free(text);
	return r;
}

int report_map(const struct work *w, struct report_out *out, int (*last)(void *arg, struct err *e),
	       struct err *e)
{
	const struct chain *c = w->chain;
	struct run before = {0}, run;
	struct text t = {0};
	int r = 0, got;

	map_begin(&t, w);
	do {
		got = reader_next(c->reader, &run, e);
		if (got > 0 && before.len && goes_on(&before, &run)) {
			before.len += run.len;
			continue;
		}
		if (got >= 0 && before.len)
			r = put_run(&t, c, &before, w->o->json, out, e);
		before = run;
	} while (!r && got > 0);
	if (!r)
		r = got;
	if (!r)
		r = last(out->arg, e);
	return map_end(&t, w, out, r, e);
}

/* --- what was done ------------------------------------------------------------------------------- */

static const char *layer_name(const struct work *w, const struct difference *d)
{
	return d->layer == LAYER_NONE ? NULL : w->chain->link[d->layer]->name;
}

char *report_differences(const struct work *w)
{
	const struct verify_result *v = &w->differences;
	struct text t = {0};

	for (size_t i = 0; i < v->n && i < w->o->max_ranges; i++) {
		const struct difference *d = &v->diff[i];
		const char *layer = layer_name(w, d);

		text_printf(&t, "%s: bytes %" PRIu64 " to %" PRIu64 " differ (%" PRIu64
				" from sector %" PRIu64 " on); expected: %s%s%s\n",
			    w->target->name, d->off, d->off + d->len - 1, d->len, d->off / SECTOR,
			    d->zero ? "zeros" : "", d->zero && layer ? " of " : "",
			    layer ? layer : "");
	}
	if (v->n > w->o->max_ranges)
		text_printf(&t, "%s: and %s%zu more range%s\n", w->target->name, v->more ? "at least " : "",
			    v->n - (size_t)w->o->max_ranges, plural(v->n - w->o->max_ranges));
	return take(&t);
}

static void json_differences(struct text *t, const struct work *w)
{
	const struct verify_result *v = &w->differences;

	json_bool(t, "equal", !v->n);
	json_number(t, "different", v->bytes);
	json_number(t, "ranges", v->n);
	json_bool(t, "more_ranges", v->more || v->n > w->o->max_ranges);
	json_open(t, "differences", '[');
	for (size_t i = 0; i < v->n && i < w->o->max_ranges; i++) {
		json_open(t, NULL, '{');
		json_number(t, "start", v->diff[i].off);
		json_number(t, "length", v->diff[i].len);
		json_bool(t, "zero", v->diff[i].zero);
		json_name(t, "layer", layer_name(w, &v->diff[i]));
		json_close(t, '}');
	}
	json_close(t, ']');
}

/* What was received through pipes, and spooled of it. */
static void json_piped(struct text *t, const struct chain *c)
{
	const char *reason = NULL;
	uint64_t received = 0, spooled = 0;
	bool piped = false;

	for (size_t i = 0; i < c->links; i++) {
		const struct source *s = c->link[i]->piped;

		if (!s)
			continue;
		piped = true;
		received += s->size;
		spooled += s->spooled;
		reason = reason ? reason : spool_reason_text(s);
	}
	json_known(t, "received", piped, received);
	json_open(t, "spooled", '{');
	json_number(t, "bytes", spooled);
	json_string(t, "reason", reason);
	json_close(t, '}');
}

uint64_t report_unaccounted(const struct work *w)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < w->chain->links; i++)
		bytes += w->chain->link[i]->unaccounted;
	return bytes;
}

char *report_result(const struct work *w)
{
	const struct options *o = w->o;
	struct text t = {0};

	json_head(&t, o);
	json_target(&t, w);
	json_number(&t, "size", w->chain->link[0]->size);
	json_chain(&t, w->chain);
	json_bool(&t, "full_disk", w->whole && !o->placed);
	json_totals(&t, &w->totals, w->chain->link[0]->size);
	json_number(&t, "unaccounted", report_unaccounted(w));
	if (!o->verify && !o->dry_run) {
		json_number(&t, "written", w->stats.written);
		json_number(&t, "zeroed", w->stats.zeroed);
		json_number(&t, "writes", w->stats.writes);
		if (o->resume)
			json_number(&t, "resumed_at", resume_found(w->resume) ? resume_found(w->resume)->durable : 0);
	}
	if (o->verify)
		json_string(&t, "base_checked", NULL);
	else
		json_bool(&t, "base_checked", !*w->look.why && !w->look.differ);
	json_known(&t, "already_present", w->undo, w->stats.present);
	json_log(&t, w);
	json_piped(&t, w->chain);
	if (o->verify || o->read_back)
		json_differences(&t, w);
	json_warnings(&t, &w->warnings);
	json_number(&t, "milliseconds", (uint64_t)(progress_seconds(&w->progress) * 1000));
	json_end(&t, w, NULL, 0, NULL);
	return take(&t);
}
