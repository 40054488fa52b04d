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
	uint32_t cid, parent_cid;
	char *hint;
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

/* Takes src and path over. */
static void keep(struct search *s, struct source *src, char *path, struct descriptor *d)
{
	if (s->src && (s->cid != d->cid || s->parent_cid != d->parent_cid ||
		       !same_text(s->hint, d->parent_hint)))
		s->several = true;
	if (s->src && strcmp(s->where, path) < 0) { /* whatever order readdir() has */
		source_free(src);
		free(path);
		return;
	}
	source_free(s->src);
	free(s->where);
	free(s->hint);
	s->src = src;
	s->where = path;
	s->cid = d->cid;
	s->parent_cid = d->parent_cid;
	s->hint = d->parent_hint;
	d->parent_hint = NULL;
}

/* Looks at one file of the folder. */
static int try_file(struct search *s, const char *dir, bool here, const char *name, struct err *e)
{
	struct err quiet = {.set = false};
	struct source *src = NULL;
	struct descriptor *d;
	struct stat st;
	char *path;

	if (asprintf(&path, "%s%s%s", here ? "" : dir, here ? "" : "/", name) < 0)
		return fail(e, ENOMEM, "out of memory");
	/* stat() first: opening a device or a FIFO may do something */
	if (stat(path, &st) < 0 || !is_text(&st) ||
	    (s->o->confine ? source_open_beneath(&src, *dir ? dir : "/", name, &quiet)
			   : source_open(&src, path, &quiet)) < 0)
		src = NULL;
	d = src ? parse(s, src, path) : NULL;
	s->texts += src != NULL;
	if (d) {
		keep(s, src, path, d);
	} else {
		source_free(src);
		free(path);
	}
	descriptor_free(d);
	return 0;
}

/* dir: "" is the root. here: paths are written without it. */
static int try_folder(struct search *s, const char *dir, bool here, struct err *e)
{
	DIR *list = opendir(*dir ? dir : "/");
	const struct dirent *entry;
	int r = 0;

	for (unsigned i = 0; list && !r && i < ENTRIES_MAX && s->texts < TEXTS_MAX &&
			     (entry = readdir(list)); i++) {
		size_t n = strlen(entry->d_name);

		if (n > 5 && !strcasecmp(entry->d_name + n - 5, ".vmdk"))
			r = try_file(s, dir, here, entry->d_name, e);
	}
	if (list)
		closedir(list);
	return r;
}

/* host-000001-delta.vmdk has host-000001.vmdk as its descriptor, nearly always: then the folder need
 * not be read. */
static int try_usual(struct search *s, const char *dir, bool here, const char *file, struct err *e)
{
	const char *dash = strrchr(file, '-'), *dot = strrchr(file, '.');
	char *name;
	int r;

	if (!dash || dash == file || !dot || dot < dash || strcasecmp(dot, ".vmdk"))
		return 0;
	if (asprintf(&name, "%.*s%s", (int)(dash - file), file, dot) < 0)
		return fail(e, ENOMEM, "out of memory");
	r = try_file(s, dir, here, name, e);
	free(name);
	return r;
}

int beside_find(struct source **src, char **where, const char *path, const struct stat *st,
		const struct lookup_opts *o, struct err *e)
{
	struct search s = {.st = st, .o = o};
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	int r;

	*src = NULL;
	*where = NULL;
	if (!dir)
		return fail(e, ENOMEM, "out of memory");
	r = try_usual(&s, dir, !slash, slash ? slash + 1 : path, e);
	if (!r && !s.src)
		r = try_folder(&s, dir, !slash, e);
	for (size_t i = 0; !r && !s.src && i < o->searches; i++)
		r = try_folder(&s, o->search[i], false, e);
	free(dir);
	free(s.hint);
	if (r < 0 || !s.src || s.several) {
		source_free(s.src);
		free(s.where);
		return r;
	}
	*src = s.src;
	*where = s.where;
	return 1;
}
