/* SPDX-License-Identifier: MIT */
/*
 * What hosted sparse extents ("KDMV") and undo logs have where: header, footer, flags, records and
 * markers, as they are read (hosted, streamopt, deflate, zerolog) and written (undo). Constants only;
 * all numbers in a file are little-endian. Facts: "Virtual Disk Format 5.0", hosted sparse extents and
 * stream-optimized compressed sparse extents, unless another source is named.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "base/base.h"

#define KDMV_MAGIC 0x564d444bu
#define KDMV_HEADER 512u /* bytes; the footer has as many */

enum { /* byte offsets in the header; amounts and places are sectors */
	KDMV_VERSION = 4,    /* u32 */
	KDMV_FLAGS = 8,      /* u32 */
	KDMV_CAPACITY = 12,  /* u64 */
	KDMV_GRAIN = 20,     /* u64 */
	KDMV_DESC = 28,      /* u64, embedded descriptor; 0: none */
	KDMV_DESC_SIZE = 36, /* u64 */
	KDMV_ENTRIES = 44,   /* u32, of a grain table */
	KDMV_RGD = 48,       /* u64, redundant grain directory */
	KDMV_GD = 56,        /* u64 */
	KDMV_OVERHEAD = 64,  /* u64, before the first grain */
	KDMV_UNCLEAN = 72,   /* u8, set while the file is open for writing */
	KDMV_NEWLINES = 73,  /* KDMV_NEWLINE_BYTES */
	KDMV_COMPRESS = 77,  /* u16, KDMV_DEFLATE or 0 */
};

#define KDMV_NEWLINE_BYTES "\n \r\n" /* a transfer in text mode changes them */
#define KDMV_DEFLATE 1u /* RFC 1950: all known files, where the technote says RFC 1951 */
#define KDMV_GD_AT_END UINT64_MAX /* the footer says where the directory is */

/* The upper half are incompatible flags, of which an unknown one is refused: open-vmdk's vmdk/sparse.c. */
#define KDMV_FLAG_NEWLINES 0x1u
#define KDMV_FLAG_REDUNDANT 0x2u
#define KDMV_FLAG_ZEROED 0x4u /* entry 1 of a table is a grain of zeros: QEMU's block/vmdk.c */
#define KDMV_FLAG_COMPRESSED 0x10000u
#define KDMV_FLAG_MARKERS 0x20000u
#define KDMV_FLAGS_UNKNOWN 0xfffc0000u

enum { /* byte offsets in a record, which begins at a sector: a grain's, or a marker without data */
	RECORD_LBA = 0,   /* u64, disk sector of the grain; of a marker: sectors that follow it */
	RECORD_SIZE = 8,  /* u32, bytes of compressed data; 0: a marker */
	RECORD_HEAD = 12, /* the compressed data */
	MARKER_TYPE = 12, /* u32 */
	MARKER_BYTES = 16,
};

enum { /* of a marker */
	MARKER_END = 0,
	MARKER_TABLE = 1,
	MARKER_DIR = 2,
	MARKER_FOOTER = 3,
	MARKER_PROGRESS = 4, /* open-vmdk; not in the technote */
};

/*
 * Undo logs (undo.h) are our own. One that is being written says so in the header's reserved bytes, until
 * it is finished: then, and only then, an end without an end marker is a torn write and no damage. Until
 * then checksums of the disk as it was stand there, too (u32 each). After each barrier comes a progress
 * marker with its own place, in sectors: all before it is on stable storage, so nothing there can be torn.
 */
#define UNDO_OPEN_AT 128u
#define UNDO_OPEN "vmdksync undo log, not finished\n"
#define UNDO_SAMPLES_AT 192u
#define UNDO_BARRIER_AT 16u
#define UNDO_BARRIER "vmdksync: all before this is durable\n"
#define UNDO_BARRIER_POS 504u /* u64 */

#endif
