/*
 * Room 3: one image, whatever it is: told by its first bytes, never by its name. Must not know
 * targets or rings.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include "format.h"

struct image {
	struct reader *reader;   /* owned; taken by whoever sets it to NULL */
	struct format_facts facts;
	char *name;              /* printable; owned */
	struct stat st;          /* of the file */
};

/* -EBADMSG damaged, -ENOTSUP known and not read, or -errno. */
int image_open(struct image **out, const char *path, const struct format_opts *o, struct err *e);
/* NULL-safe. */
void image_free(struct image *m);

#endif
