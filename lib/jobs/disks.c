/* SPDX-License-Identifier: MIT */
/* See disks.h. */
#include "jobs/disks.h"
#include "jobs/checks.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define ENTRIES_MAX 8192u /* names of a folder that are looked at */
#define VMX_MAX 1048576   /* bytes; usual ones have a few thousand */

struct node {
	char *path;
	struct image *m;
};

struct folder {
	struct node *node;
	size_t n;
};

static const char *last_part(const char *name)
{
	const char *part = name;

	for (; *name; name++)
		if (*name == '/' || *name == '\\')
			part = name + 1;
	return part;
}

static bool ends_in(const char *name, const char *end)
{
	const size_t n = strlen(name), m = strlen(end);

	return n > m && !strcasecmp(name + n - m, end);
}

static int add(struct disks *d, const char *path, struct err *e)
{
	char **more = realloc(d->path, (d->n + 1) * sizeof(*more));

	if (!more)
		return fail(e, ENOMEM, "out of memory");
	d->path = more;
	d->path[d->n] = strdup(path);
	return d->path[d->n++] ? 0 : fail(e, ENOMEM, "out of memory");
}

/* --- a folder ------------------------------------------------------------------------------------ */

static int is_vmdk_name(const struct dirent *de)
{
	return ends_in(de->d_name, ".vmdk");
}

static bool is_extent(const struct folder *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct descriptor *d = f->node[i].m ? f->node[i].m->descriptor : NULL;

		for (size_t k = 0; d && k < d->extents; k++)
			if (d->extent[k].file && f->node[i].path != path &&
			    !strcasecmp(last_part(d->extent[k].file), last_part(path)))
				return true;
	}
	return false;
}

static bool is_parent(const struct folder *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct image *m = f->node[i].m;

		if (m && m->descriptor && m->descriptor->parent_hint && f->node[i].path != path &&
		    !strcasecmp(last_part(m->descriptor->parent_hint), last_part(path)))
			return true;
	}
	return false;
}

/* Descriptors first, as they say which of the other files are their extents. */
static int open_all(struct folder *f, const char *dir, struct dirent **list, size_t n,
		    const struct image_opts *o, struct err *e)
{
	struct image_opts opts = *o;
	struct stat st;

	f->node = calloc(n + 1, sizeof(*f->node));
	if (!f->node)
		return fail(e, ENOMEM, "out of memory");
	opts.text_only = true;
	for (size_t i = 0; i < n && i < ENTRIES_MAX; i++) {
		struct err quiet = {.set = false};
		struct node *node = &f->node[f->n];

		if (asprintf(&node->path, "%s/%s", dir, list[i]->d_name) < 0)
			return fail(e, ENOMEM, "out of memory");
		f->n++;
		/* stat() first: opening a device or a FIFO may do something */
		if (stat(node->path, &st) == 0 && S_ISREG(st.st_mode) &&
		    image_open(&node->m, node->path, &opts, &quiet) < 0)
			node->m = NULL;
	}
	opts.text_only = false;
	opts.base_unread = true;
	for (size_t i = 0; i < f->n; i++) {
		struct err quiet = {.set = false};
		struct node *node = &f->node[i];

		if (!node->m && job_is_vmdk(node->path) && !is_extent(f, node->path) &&
		    image_open(&node->m, node->path, &opts, &quiet) < 0)
			node->m = NULL;
	}
	return 0;
}

static int of_folder(struct disks *d, const char *name, const struct image_opts *o, struct err *e)
{
	struct dirent **list = NULL;
	struct folder f = {0};
	char *shown = name_text(name), *dir = strdup(name);
	int n = scandir(name, &list, is_vmdk_name, alphasort), r = 0;

	if (n < 0)
		r = fail(e, errno, "%s: %s", shown ? shown : "?", strerror(errno));
	else if (!shown || !dir)
		r = fail(e, ENOMEM, "out of memory");
	for (size_t k = dir ? strlen(dir) : 0; k > 1 && dir[k - 1] == '/'; k--)
		dir[k - 1] = '\0';
	if (!r)
		r = open_all(&f, dir, list, (size_t)n, o, e);
	for (size_t i = 0; !r && i < f.n; i++)
		if (f.node[i].m && !is_parent(&f, f.node[i].path) && !is_extent(&f, f.node[i].path))
			r = add(d, f.node[i].path, e);
	if (!r && !d->n)
		r = fail(e, ENOENT, "%s: holds no VMDK that can be read; name a file to see why", shown);
	for (size_t i = 0; i < f.n; i++) {
		image_free(f.node[i].m);
		free(f.node[i].path);
	}
	free(f.node);
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	free(dir);
	free(shown);
	return r;
}

/* --- a .vmx file --------------------------------------------------------------------------------- */

/* Where the disk of a line lies: beside the .vmx file by its last part, else as it is called. */
static char *place_of(const char *vmx, const char *file, bool confine)
{
	const char *slash = strrchr(vmx, '/');
	struct stat st;
	char *path;

	if (asprintf(&path, "%.*s%s", slash ? (int)(slash - vmx) + 1 : 0, vmx, last_part(file)) < 0)
		return NULL;
	if (stat(path, &st) < 0 && !confine && file[0] == '/' && stat(file, &st) == 0) {
		free(path);
		path = strdup(file);
	}
	return path;
}

static int of_vmx(struct disks *d, const char *name, const struct image_opts *o, struct err *e)
{
	FILE *f = fopen(name, "re");
	char *line = NULL, *shown = name_text(name);
	char bus[16], file[1024];
	size_t room = 0;
	int r = shown ? 0 : fail(e, ENOMEM, "out of memory");

	if (!r && !f)
		r = fail(e, errno, "%s: %s", shown, strerror(errno));
	while (!r && f && ftell(f) < VMX_MAX && getline(&line, &room, f) > 0) {
		char *path;

		if (sscanf(line, " %15[a-zA-Z]%*u:%*u.fileName = \"%1023[^\"\n]\"", bus, file) != 2 ||
		    !ends_in(file, ".vmdk"))
			continue;
		path = place_of(name, file, o->lookup.confine);
		r = path ? add(d, path, e) : fail(e, ENOMEM, "out of memory");
		free(path);
	}
	if (!r && !d->n)
		r = fail(e, ENOENT, "%s: names no disk", shown);
	free(line);
	free(shown);
	if (f)
		fclose(f);
	return r;
}

int disks_find(struct disks *d, const char *name, const struct image_opts *o, struct err *e)
{
	struct stat st;

	*d = (struct disks){.listed = true};
	if (stat(name, &st) == 0 && S_ISDIR(st.st_mode))
		return of_folder(d, name, o, e);
	if (stat(name, &st) == 0 && S_ISREG(st.st_mode) && ends_in(name, ".vmx"))
		return of_vmx(d, name, o, e);
	d->listed = false;
	return add(d, name, e);
}

void disks_free(struct disks *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->path[i]);
	free(d->path);
	*d = (struct disks){0};
}
