/* SPDX-License-Identifier: MIT */
/*
 * Finds the files that a descriptor names: its parent, or its extents. Knows path names and folders;
 * must not know the contents of files. Called by image, chain and beside.
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "input/source.h"

struct lookup_opts {
	const char *const *search; /* folders in which a name's last part is looked for, too */
	size_t searches;
	bool confine;              /* nothing outside the naming descriptor's folder and those above,
				    * nor through a symbolic link that leads out of them */
};

struct lookup {
	const char *name;   /* of the descriptor, printable */
	const struct lookup_opts *o;
	char *shown;        /* the file as it is called, printable */
	/* private */
	char *folder;       /* of the descriptor */
	char *plain;        /* the file, with slashes */
	const char *last;   /* its last part */
	bool outside;       /* of the descriptor's folder, as it is called */
	bool drive;         /* it begins with a Windows drive or share */
	size_t step;
};

/* of: the path of the descriptor. name and o have to outlive it. file: as the descriptor has it, in UTF-8.
 * -ENOMEM; lookup_end() is due in any case. */
int lookup_begin(struct lookup *l, const char *of, const char *name, const char *file,
		 const struct lookup_opts *o, struct err *e);
/*
 * Opens the next file that is there, in this order: as it is called, if that is inside the
 * descriptor's folder; its last part beside the descriptor; its last part in each search folder; as
 * it is called, anywhere, with a warning. 1 and *src, *path (the caller frees both); 0 no more;
 * -errno: one is there, but cannot be read or must not be.
 */
int lookup_next(struct lookup *l, struct source **src, char **path, struct err *e);
void lookup_end(struct lookup *l);
/* Whether a name in the descriptor `of` leads to the file `st`, without opening anything. Only what a
 * confined lookup may find counts. */
bool lookup_leads_to(const char *of, const char *file, const struct lookup_opts *o,
		     const struct stat *st);

#endif
