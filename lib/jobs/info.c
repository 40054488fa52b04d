/* SPDX-License-Identifier: MIT */
#include "jobs/info.h"

#include <stdlib.h>

static void collect(void *arg, const char *text)
{
	warnings_add(arg, text);
}

static int look(struct info *i, const char *path, struct chain_opts o, const struct pump_opts *pump,
		struct err *e)
{
	struct chain *c;
	int r;

	o.parents = true;
	o.image.base_unread = false;
	r = chain_open(&i->chain, &path, 1, &o, e);
	if (r < 0)
		return r;
	c = i->chain;
	if (o.image.text_only)
		return chain_unchanged(c, e);
	i->layer = calloc(c->links, sizeof(*i->layer));
	if (!i->layer)
		return fail(e, ENOMEM, "out of memory");
	for (size_t k = 0; !r && k < c->links; k++)
		r = job_scan(c->link[k]->reader, pump, false, &i->layer[k], e);
	if (!r)
		r = chain_read(c, 0, c->links, false, e);
	if (!r)
		r = job_scan(c->reader, pump, false, &i->disk, e);
	return r < 0 || o.force_changed ? r : chain_unchanged(c, e);
}

int info_open(struct info **out, const char *path, const struct chain_opts *o,
	      const struct pump_opts *pump, struct err *e)
{
	struct info *i = calloc(1, sizeof(*i));
	struct err mine = {.strict = e->strict, .warn = collect};
	int r;

	if (!i)
		return fail(e, ENOMEM, "out of memory");
	mine.arg = &i->warnings;
	r = look(i, path, *o, pump, &mine);
	if (r < 0)
		fail_again(e, -r, &mine);
	else if (i->warnings.kept != i->warnings.n)
		r = fail(e, ENOMEM, "out of memory");
	if (r < 0) {
		info_free(i);
		return r;
	}
	if (i->chain->reader)
		reader_free(i->chain->reader);
	i->chain->reader = NULL;
	*out = i;
	return 0;
}

void info_free(struct info *i)
{
	if (!i)
		return;
	chain_free(i->chain);
	warnings_free(&i->warnings);
	free(i->layer);
	free(i);
}

/* --- families ------------------------------------------------------------------------------------ */

/* Where m stands in the chain of i; links when nowhere. */
static size_t place_of(const struct info *i, const struct image *m)
{
	size_t k = 0;

	while (k < i->chain->links && !same_file(&i->chain->link[k]->file[0].st, &m->file[0].st))
		k++;
	return k;
}

static bool is_machine(struct info *const *info, size_t n, size_t which)
{
	const struct image *top = info[which]->chain->link[0];

	for (size_t i = 0; i < n; i++) {
		size_t k = place_of(info[i], top);

		/* a parent of another, or given twice */
		if (k < info[i]->chain->links && (k > 0 || i < which))
			return false;
	}
	return true;
}

/* Counts the layers of a machine: those that are its own, and those that no machine before had. */
static void add_layers(struct family *f, struct info *const *info, size_t n, size_t which)
{
	const struct chain *c = info[which]->chain;

	for (size_t k = 0; k < c->links; k++) {
		bool before = false, shared = false;

		for (size_t i = 0; i < n; i++) {
			if (i == which || !info[i]->machine ||
			    place_of(info[i], c->link[k]) == info[i]->chain->links)
				continue;
			shared = true;
			before |= i < which;
		}
		if (!before)
			*(shared ? &f->shared : &f->own) += info[which]->layer[k].data;
	}
}

struct family *info_families(size_t *families, struct info *const *info, size_t n)
{
	struct family *f = calloc(n + 1, sizeof(*f));

	*families = 0;
	for (size_t i = 0; f && i < n; i++)
		info[i]->machine = is_machine(info, n, i);
	for (size_t i = 0; f && i < n; i++) {
		const struct chain *c = info[i]->chain;
		const struct image *base = c->link[c->links - 1];
		size_t k = 0;

		if (!info[i]->machine)
			continue;
		while (k < *families && !same_file(&f[k].base->file[0].st, &base->file[0].st))
			k++;
		if (k == *families)
			f[(*families)++].base = base;
		f[k].machines++;
		f[k].provisioned += c->link[0]->size;
		f[k].thin += info[i]->disk.data;
		add_layers(&f[k], info, n, i);
	}
	return f;
}
