/* SPDX-License-Identifier: MIT */
#include "chain/lookup.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool leads_up(const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && !memcmp(path, "..", 2))
			return true;
		path += n + (path[n] == '/');
	}
	return false;
}

int lookup_begin(struct lookup *l, const char *of, const char *name, const char *file,
		 const struct lookup_opts *o, struct err *e)
{
	bool drive = (isalpha((unsigned char)file[0]) && file[1] == ':') ||
		     !strncmp(file, "\\\\", 2);
	bool windows = drive || !strchr(file, '/');
	const char *slash;

	*l = (struct lookup){.name = name, .o = o, .drive = drive};
	l->folder = path_folder(of);
	l->plain = strdup(file);
	l->shown = name_text(file);
	if (!l->folder || !l->plain || !l->shown)
		return fail(e, ENOMEM, "out of memory");
	for (char *p = l->plain; windows && *p; p++)
		if (*p == '\\')
			*p = '/';
	slash = strrchr(l->plain, '/');
	l->last = slash ? slash + 1 : l->plain;
	if (drive && !slash) /* "C:disk.vmdk" */
		l->last = l->plain + 2;
	l->outside = drive || l->plain[0] == '/' || leads_up(l->plain);
	return 0;
}

struct place {
	const char *dir, *file;
};

/* What a step tries; false: nothing. */
static bool find_place(const struct lookup *l, size_t step, struct place *p)
{
	*p = (struct place){l->folder, l->last};
	if (step == 0) {
		p->file = l->plain;
		return !l->outside;
	}
	if (step == 1)
		return *l->last && (l->outside || l->last != l->plain);
	if (step < l->o->searches + 2) {
		p->dir = l->o->search[step - 2];
		return *l->last;
	}
	if (l->plain[0] == '/')
		p->dir = ".";
	p->file = l->plain;
	return l->outside && !l->drive;
}

/* A link beside the descriptor was put there by the user; a device that only the descriptor names is not
 * even opened. */
static int check_device(const struct lookup *l, const char *path, struct err *e)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
		return 0;
	return fail(e, ENOTSUP,
		    "%s: names a block device, which is not opened: %s" HINT " (--base names the device of a "
		    "base)", l->name, l->shown);
}

/* 1 opened, 0 not there, -errno. */
static int open_place(const struct lookup *l, const struct place *p, struct source **src,
		      char **path, struct err *e)
{
	struct err mine = {.set = false};
	int r = 0;

	*path = path_in(p->dir, p->file);
	if (!*path)
		return fail(e, ENOMEM, "out of memory");
	if (l->step > l->o->searches + 2) /* the name as it is, which leads outside */
		r = check_device(l, *path, e);
	if (!r) {
		r = l->o->confine ? source_open_beneath(src, p->dir, p->file, &mine)
				  : source_open(src, *path, &mine);
		if (!r)
			return 1;
		r = r == -ENOENT || r == -ENOTDIR
			    ? 0
			    : fail_because(e, -r, &mine, "%s: names a file that cannot be read: ", l->name);
	}
	free(*path);
	*path = NULL;
	return r;
}

/* A name that leads outside was found nearer by, but leads to something as well: which of the two is
 * meant is a guess. */
static int check_literal(const struct lookup *l, const struct source *src, struct err *e)
{
	struct place p;
	struct stat st;
	char *path, *shown;
	int r;

	if (!find_place(l, l->o->searches + 2, &p) || l->o->confine)
		return 0;
	path = path_in(p.dir, p.file);
	if (!path)
		return fail(e, ENOMEM, "out of memory");
	if (stat(path, &st) < 0 || same_file(&st, &src->st)) {
		free(path);
		return 0;
	}
	shown = name_text(path);
	free(path);
	r = warning(e, "%s: names %s, which is there as well, but %s is taken", l->name,
		    shown ? shown : "?", src->name);
	free(shown);
	return r;
}

int lookup_next(struct lookup *l, struct source **src, char **path, struct err *e)
{
	const size_t last = l->o->searches + 2;
	struct place p;
	int r = 0;

	*src = NULL;
	*path = NULL;
	while (!r && l->step <= last) {
		if (!find_place(l, l->step++, &p))
			continue;
		if (l->step > last && l->o->confine)
			return fail(e, EXDEV,
				    "%s: names a file outside its folder, which --confine forbids: "
				    "%s",
				    l->name, l->shown);
		r = open_place(l, &p, src, path, e);
	}
	if (r <= 0)
		return r;
	if (l->outside && l->step > last)
		r = warning(e, "%s: names a file outside its folder, which is followed: %s",
			    l->name, (*src)->name);
	else
		r = check_literal(l, *src, e);
	if (!r)
		return 1;
	source_free(*src);
	free(*path);
	*src = NULL;
	*path = NULL;
	return r;
}

void lookup_end(struct lookup *l)
{
	free(l->folder);
	free(l->plain);
	free(l->shown);
}

bool lookup_leads_to(const char *of, const char *file, const struct lookup_opts *o,
		     const struct stat *st)
{
	struct err quiet = {.set = false};
	bool found = false, same = false;
	struct lookup l;

	if (!lookup_begin(&l, of, "", file, o, &quiet)) {
		for (size_t step = 0; !found && step < o->searches + 2; step++) {
			struct place p;
			struct stat its;
			char *path;

			if (!find_place(&l, step, &p))
				continue;
			path = path_in(p.dir, p.file);
			found = path && stat(path, &its) == 0;
			same = found && same_file(&its, st);
			free(path);
		}
	}
	lookup_end(&l);
	return same;
}
