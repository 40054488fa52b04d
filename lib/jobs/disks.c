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

#define ENTRIES_MAX 8192  /* names of a folder that are looked at */
#define VMX_MAX 1048576   /* bytes; usual ones have a few thousand */

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

/* Takes path over; NULL: memory was short. */
static int add(struct disks *d, char *path, struct err *e)
{
	char **more = path ? realloc(d->path, (d->n + 1) * sizeof(*more)) : NULL;

	if (!more) {
		free(path);
		return fail(e, ENOMEM, "out of memory");
	}
	d->path = more;
	d->path[d->n++] = path;
	return 0;
}

/* --- a folder ------------------------------------------------------------------------------------ */

static int is_vmdk_name(const struct dirent *de)
{
	return ends_in(de->d_name, ".vmdk");
}

static bool is_same_name(const char *a, const char *b)
{
	return a && !strcasecmp(last_part(a), last_part(b));
}

/* Whether the descriptor of another names it as an extent, or as its parent. m: of each path, or NULL. */
static bool is_named(const struct disks *d, struct image *const *m, size_t which, bool as_parent)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct descriptor *other = m[i] && i != which ? m[i]->descriptor : NULL;

		if (other && as_parent && is_same_name(other->parent_hint, d->path[which]))
			return true;
		for (size_t k = 0; other && k < other->extents; k++)
			if (is_same_name(other->extent[k].file, d->path[which]))
				return true;
	}
	return false;
}

/* Descriptors first, as they say which of the other files are their extents. */
static void open_all(const struct disks *d, struct image **m, const struct image_opts *o)
{
	struct image_opts opts = *o;
	struct stat st;

	opts.base_unread = true;
	for (int pass = 0; pass < 2; pass++) {
		opts.text_only = !pass;
		for (size_t i = 0; i < d->n; i++) {
			struct err quiet = {.set = false};

			/* stat() first: opening a device or a FIFO may do something */
			if (m[i] || stat(d->path[i], &st) < 0 || !S_ISREG(st.st_mode) ||
			    (pass && (!job_is_vmdk(d->path[i]) || is_named(d, m, i, false))))
				continue;
			if (image_open(&m[i], d->path[i], &opts, &quiet) < 0)
				m[i] = NULL;
		}
	}
}

/* Leaves those that are neither extents nor parents of others. */
static int keep_newest(struct disks *d, const struct image_opts *o, struct err *e)
{
	struct image **m = calloc(d->n + 1, sizeof(struct image *));
	const size_t n = d->n;
	size_t kept = 0;

	if (!m)
		return fail(e, ENOMEM, "out of memory");
	open_all(d, m, o);
	for (size_t i = 0; i < n; i++) {
		if (m[i] && !is_named(d, m, i, true))
			d->path[kept++] = d->path[i];
		else
			free(d->path[i]);
	}
	d->n = kept;
	for (size_t i = 0; i < n; i++)
		image_free(m[i]);
	free(m);
	return 0;
}

static int of_folder(struct disks *d, const char *name, const struct image_opts *o, struct err *e)
{
	struct dirent **list = NULL;
	char *shown = name_text(name), *path;
	int n = scandir(name, &list, is_vmdk_name, alphasort), r = 0;
	size_t len = strlen(name);

	if (n < 0)
		r = fail(e, errno, "%s: %s", shown ? shown : "?", strerror(errno));
	while (len > 1 && name[len - 1] == '/')
		len--;
	for (int i = 0; !r && i < n && i < ENTRIES_MAX; i++)
		r = add(d, asprintf(&path, "%.*s/%s", (int)len, name, list[i]->d_name) < 0 ? NULL : path, e);
	if (!r)
		r = keep_newest(d, o, e);
	if (!r && !d->n)
		r = fail(e, ENOENT, "%s: holds no VMDK that can be read; name a file to see why",
			 shown ? shown : "?");
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
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
		if (sscanf(line, " %15[a-zA-Z]%*u:%*u.fileName = \"%1023[^\"\n]\"", bus, file) != 2 ||
		    !ends_in(file, ".vmdk"))
			continue;
		r = add(d, place_of(name, file, o->lookup.confine), e);
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
	return add(d, strdup(name), e);
}

void disks_free(struct disks *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->path[i]);
	free(d->path);
	*d = (struct disks){0};
}
