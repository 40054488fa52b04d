/* SPDX-License-Identifier: MIT */
/*
 * The text descriptor of a VMDK, stand-alone or embedded. Knows its lines; must not know files, chains
 * or the contents of extents. Called by image and beside. Facts: "Virtual Disk Format 5.0".
 */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include "base/base.h"

#define DESCRIPTOR_BYTES (1u << 20)
#define DESCRIPTOR_LINE 4096u
#define DESCRIPTOR_EXTENTS 4096u
#define DESCRIPTOR_NO_PARENT UINT32_C(0xffffffff)

enum extent_type {
	EXTENT_FLAT,
	EXTENT_VMFS,
	EXTENT_SPARSE,
	EXTENT_VMFSSPARSE,
	EXTENT_SESPARSE,
	EXTENT_ZERO,
};

struct descriptor_extent {
	enum extent_type type;
	uint64_t sectors;
	uint64_t offset; /* sectors into the file; 0 unless FLAT */
	char *file;	 /* for open(2): UTF-8, or the bytes as they were; NULL for ZERO */
	unsigned line;
};

struct descriptor {
	uint32_t cid;
	uint32_t parent_cid; /* DESCRIPTOR_NO_PARENT also when there is no such line */
	bool has_cid;
	char *create_type; /* NULL if none */
	char *parent_hint; /* no quotes, UTF-8 like extent->file; else raw; NULL if none or empty */
	char *encoding;	   /* NULL if none */
	struct descriptor_extent *extent; /* in the order of the disk */
	size_t extents;			  /* 0 only when embedded, and then rarely */
	uint64_t sectors;		  /* of the disk: below POS_LIMIT / SECTOR */
};

/*
 * Takes every line in or refuses them all, since an extent skipped would move those behind it. text
 * needs no NUL and is not kept; name is printable. An embedded one ends at its first NUL, and its
 * extents may have size 0; where there is nothing but zeros and blanks it is none at all: 0 with
 * *out = NULL. -EBADMSG damaged, -ENOTSUP known and not read, -EFBIG over a limit, -ENOMEM; *out is
 * NULL then.
 */
int descriptor_parse(struct descriptor **out, const char *name, const char *text, size_t len,
		     bool embedded, struct err *e);
/* NULL-safe. */
void descriptor_free(struct descriptor *d);
/* Whether the first bytes of a file are those of a stand-alone descriptor. */
bool descriptor_looks_like(const void *head, size_t n);
/* d: NULL has none. */
bool descriptor_has_parent(const struct descriptor *d);

#endif
