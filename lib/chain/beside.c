/* SPDX-License-Identifier: MIT */
#include "chain/beside.h"
#include "vmdk/descriptor.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ENTRIES_MAX 8192u /* names of a folder that are looked at, */
#define TEXTS_MAX 512u    /* and small .vmdk files that are read */
#define TEXT_MAX 65536u   /* bytes; a descriptor with one extent has about 500 */

struct search {
	const struct stat *st;
	const struct lookup_opts *o;
	struct source *src; /* found: */
	char *where;
	struct descriptor *d;
	bool several;
	unsigned texts;
};

static bool is_text(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_size > 0 && st->st_size <= TEXT_MAX;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* The descriptor in src, if its only extent is the file; else NULL. */
static struct descriptor *parse(const struct search *s, struct source *src, const char *path)
{
	struct err quiet = {.set = false};
	struct descriptor *d = NULL;
	char *text = malloc(TEXT_MAX);

	if (text && is_text(&src->st) && src->size <= TEXT_MAX &&
	    !source_read(src, 0, text, src->size, "descriptor", &quiet) &&
	    descriptor_looks_like(text, src->size))
		descriptor_parse(&d, src->name, text, src->size, false, &quiet);
	free(text);
	if (d && (d->extents != 1 || !d->extent[0].file ||
		  !lookup_leads_to(path, d->extent[0].file, s->o, s->st))) {
		descriptor_free(d);
		d = NULL;
	}
	return d;
}

static void forget(struct source *src, char *path, struct descriptor *d)
{
	source_free(src);
	free(path);
	descriptor_free(d);
}

/* Takes all of them over. */
static void keep(struct search *s, struct source *src, char *path, struct descriptor *d)
{
	if (s->src && (s->d->cid != d->cid || s->d->parent_cid != d->parent_cid ||
		       !same_text(s->d->parent_hint, d->parent_hint)))
		s->several = true;
	if (s->src && strcmp(s->where, path) < 0) { /* whatever order readdir() has */
		forget(src, path, d);
		return;
	}
	forget(s->src, s->where, s->d);
	s->src = src;
	s->where = path;
	s->d = d;
}

/* Looks at one file of the folder. */
static int try_file(struct search *s, const char *dir, const char *name, struct err *e)
{
	struct err quiet = {.set = false};
	struct source *src = NULL;
	struct descriptor *d;
	struct stat st;
	char *path = path_in(dir, name);

	if (!path)
		return fail(e, ENOMEM, "out of memory");
	/* stat() first: opening a device or a FIFO may do something */
	if (stat(path, &st) < 0 || !is_text(&st) ||
	    (s->o->confine ? source_open_beneath(&src, dir, name, &quiet)
			   : source_open(&src, path, &quiet)) < 0)
		src = NULL;
	d = src ? parse(s, src, path) : NULL;
	s->texts += src != NULL;
	if (d)
		keep(s, src, path, d);
	else
		forget(src, path, NULL);
	return 0;
}

static int try_folder(struct search *s, const char *dir, struct err *e)
{
	DIR *list = opendir(dir);
	const struct dirent *entry;
	int r = 0;

	for (unsigned i = 0; list && !r && i < ENTRIES_MAX && s->texts < TEXTS_MAX &&
			     (entry = readdir(list)); i++) {
		size_t n = strlen(entry->d_name);

		if (n > 5 && !strcasecmp(entry->d_name + n - 5, ".vmdk"))
			r = try_file(s, dir, entry->d_name, e);
	}
	if (list)
		closedir(list);
	return r;
}

/* host-000001-delta.vmdk has host-000001.vmdk as its descriptor, nearly always: then the folder need
 * not be read. */
static int try_usual(struct search *s, const char *dir, const char *file, struct err *e)
{
	const char *dash = strrchr(file, '-'), *dot = strrchr(file, '.');
	char *name;
	int r;

	if (!dash || dash == file || !dot || dot < dash || strcasecmp(dot, ".vmdk"))
		return 0;
	if (asprintf(&name, "%.*s%s", (int)(dash - file), file, dot) < 0)
		return fail(e, ENOMEM, "out of memory");
	r = try_file(s, dir, name, e);
	free(name);
	return r;
}

int beside_find(struct source **src, char **where, const char *path, const struct stat *st,
		const struct lookup_opts *o, struct err *e)
{
	struct search s = {.st = st, .o = o};
	const char *slash = strrchr(path, '/');
	char *dir = path_folder(path);
	int r;

	*src = NULL;
	*where = NULL;
	if (!dir)
		return fail(e, ENOMEM, "out of memory");
	r = try_usual(&s, dir, slash ? slash + 1 : path, e);
	if (!r && !s.src)
		r = try_folder(&s, dir, e);
	for (size_t i = 0; !r && !s.src && i < o->searches; i++)
		r = try_folder(&s, o->search[i], e);
	free(dir);
	descriptor_free(s.d);
	if (r < 0 || !s.src || s.several) {
		source_free(s.src);
		free(s.where);
		return r;
	}
	*src = s.src;
	*where = s.where;
	return 1;
}
