/* SPDX-License-Identifier: MIT */
/*
 * One image: an extent, detected from its first bytes and never from its name, or a text descriptor
 * with its extents side by side. Must not know targets or queues. Called by chain.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include "vmdk/descriptor.h"
#include "vmdk/format.h"
#include "chain/lookup.h"
#include "vmdk/undonote.h"

struct image_file { /* one that was opened */
	char *name; /* printable */
	struct stat st;
	const struct source *src; /* the reader's, or `text`; NULL where none is left */
	const struct descriptor_extent *extent; /* for which it was; NULL: for none of a descriptor's */
};

struct image {
	struct reader *reader;         /* owned; NULL once a chain has taken it, and see below */
	uint64_t size;                 /* of the disk, bytes */
	struct format_facts facts;     /* of the first extent that is no zeros */
	bool raw;                      /* no VMDK, but the raw base of one */
	struct descriptor *descriptor; /* owned; NULL where there is none */
	bool found;                    /* the descriptor is another file, that was not named (beside.h) */
	struct undo_note *undo;        /* owned; NULL: it is no undo log */
	char *name;                    /* printable; owned */
	char *path;                    /* as it was opened, or that of the descriptor found; owned */
	struct source *text;           /* of a descriptor; owned; or NULL */
	struct source *piped;          /* a stream, or what was spooled of it; the reader's; or NULL */
	uint64_t unaccounted;          /* bytes of its files, known once their metadata was walked: see
					* format_opts */
	struct image_file *file;       /* owned; the image itself first, then its extents, or the
					* descriptor found */
	size_t files;
};

struct image_opts {
	struct format_opts format;
	struct lookup_opts lookup;
	struct source_opts source; /* of image_open() */
	bool placed;               /* an extent without descriptor belongs at `offset`, bytes */
	uint64_t offset;
	bool plain;                /* no VMDK, but a plain disk; of a stream, source.stream.expect says its size,
				    * less what it leaves out, the first `from` bytes */
	bool force_plain;          /* though it begins as an image does */
	uint64_t from;
	bool force_size;           /* a descriptor found that says another size than the extent is not
				    * taken for its descriptor; else that is refused */
	bool text_only;            /* descriptors only: extents are not opened, and there is no reader */
	bool base_unread;          /* where files of a disk without parent are missing it has no reader,
				    * which is no failure: nobody will read it */
};

/* "-" is standard input. -EBADMSG damaged, -ENOTSUP known and not read, or -errno. */
int image_open(struct image **out, const char *path, const struct image_opts *o, struct err *e);
/* Of what is open already; path says where. Takes src over, also when it fails. */
int image_from(struct image **out, struct source *src, const char *path,
	       const struct image_opts *o, struct err *e);
struct image_kind {
	const char *name;   /* "a qcow2 image" */
	const char *driver; /* what qemu-nbd calls it; NULL: it reads none of these */
	bool vmdk;
};
/* Whether a disk begins as a VMDK does, another image, or an archive. n: bytes of head. */
bool image_looks_like(const void *head, size_t n, struct image_kind *kind);
/* The same as image_open() for what is a VMDK; all else, and every device, is a raw disk. */
int image_open_base(struct image **out, const char *path, const struct image_opts *o,
		    struct err *e);
/* NULL-safe. */
void image_free(struct image *m);

#endif
