/*
 * Room 3: one image, whatever it is: an extent, told by its first bytes and never by its name, or a
 * text descriptor with its extents side by side. Must not know targets or rings.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include "descriptor.h"
#include "format.h"

struct image_file { /* one that was opened */
	char *name; /* printable */
	struct stat st;
};

struct image {
	struct reader *reader;         /* owned */
	struct format_facts facts;     /* of the first extent that is no zeros */
	struct descriptor *descriptor; /* owned; NULL where there is none */
	char *name;                    /* printable; owned */
	struct image_file *file;       /* owned; what a target must not be */
	size_t files;
};

struct image_opts {
	struct format_opts format;
	const char *const *search; /* folders where extents are looked for, too */
	size_t searches;
	bool placed;               /* an extent without descriptor belongs at `offset`, bytes */
	uint64_t offset;
};

/* -EBADMSG damaged, -ENOTSUP known and not read, or -errno. */
int image_open(struct image **out, const char *path, const struct image_opts *o, struct err *e);
/* NULL-safe. */
void image_free(struct image *m);

#endif
