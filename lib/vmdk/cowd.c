/* SPDX-License-Identifier: MIT */
/*
 * COWD, the vmfsSparse delta of ESX(i) ("-delta.vmdk"). Knows its header and its entries; must not know in
 * which order its tree is walked. Called by image.c, see format.h. Facts: "Virtual Disk Format 5.0" (ESX
 * Server sparse extents); the size of a grain table (always 4096 entries) and entry 1 as zeros also from
 * QEMU's block/vmdk.c and Xen Orchestra's VhdEsxiCowd.mjs.
 */
#include "vmdk/file_order.h"

#include <inttypes.h>
#include <stdlib.h>

#define HEADER 2048u
#define ENTRIES 4096u
#define GRAIN_MAX 2048u /* sectors */

enum { /* byte offsets in the header */
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_FLAGS = 8,
	AT_CAPACITY = 12,
	AT_GRAIN = 16,
	AT_GD = 20,
	AT_GD_ENTRIES = 24,
	AT_FREE = 28,
	AT_UNCLEAN = 1648,
};

/* -EBADMSG for a field of the header. */
#define bad_header(src, e, fmt, ...)                                                               \
	fail(e, EBADMSG, "%s: COWD header: " fmt, (src)->name, ##__VA_ARGS__)

struct cowd {
	struct tree tree;
	bool warned_one, warned_free;
};

/* Where an entry leads to: grain or table n. */
static int locate(struct tree *g, const char *entry, const char *what, uint64_t n, uint64_t raw,
		  uint64_t *pos, struct err *e)
{
	struct cowd *c = container_of(g, struct cowd, tree);
	const uint64_t used = g->shape.promised / SECTOR;

	if (raw < g->shape.floor / SECTOR)
		return fail(e, EBADMSG,
			    "%s: %s %" PRIu64 " is %" PRIu64
			    ", which lies inside the header or the directory",
			    g->reader.name, entry, n, raw);
	*pos = raw * SECTOR;
	if (raw < used)
		return 0;
	return warning_once(&c->warned_free, e,
			    "%s: %s %" PRIu64 " at file sector %" PRIu64
			    " lies beyond the last sector in use by the header (%" PRIu64
			    "): copied from a running VM, or after a crash?",
			    g->reader.name, what, n, raw, used);
}

static int cowd_table(struct tree *g, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e)
{
	int r = locate(g, "directory entry", "grain table", i, raw, pos, e);

	return r < 0 ? r : 1;
}

static int cowd_grain(struct tree *g, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e)
{
	struct cowd *c = container_of(g, struct cowd, tree);
	int r;

	/* Sector 1 lies in the header and can be no grain. Writers that use 1 at all mean zeros by it, as
	 * in hosted disks; qemu-img copies the header there. */
	if (raw == 1)
		r = warning_once(&c->warned_one, e, "%s: grain %" PRIu64 " has table entry 1: read as zeros",
				 g->reader.name, n);
	else
		r = locate(g, "table entry of grain", "grain", n, raw, pos, e);
	return r < 0 ? r : raw == 1 ? GRAIN_ZERO : GRAIN_DATA;
}

/*
 * Sectors are given out one after the other, so all before the free one are in use. Behind it the file
 * may hold anything: it grows in steps of 16 MiB. A grain that became one of zeros may leave its
 * sectors behind.
 */
static int cowd_account(struct tree *g, const struct tree_sums *s, struct err *e)
{
	struct cowd *c = container_of(g, struct cowd, tree);
	const uint64_t promised = g->shape.promised / SECTOR, end = min_u64(promised, g->src->size / SECTOR);
	const uint64_t used = s->claimed + s->beyond;

	if (c->warned_free)
		return 0;
	account_missing(&g->shape.opts, end > used ? (end - used) * SECTOR : 0);
	if (promised <= used + s->zero * (g->shape.grain / SECTOR))
		return 0;
	return warning(e,
		       "%s: %" PRIu64 " of the %" PRIu64
		       " sectors in use by the header belong to no table and no grain: is it damaged? "
		       "compare its checksum with the original's",
		       g->reader.name, promised - used, promised);
}

/* The fields that do not say where anything is. */
static int check_kind(const struct source *src, const uint8_t *h, struct err *e)
{
	const uint32_t version = le32(h + AT_VERSION), grain = le32(h + AT_GRAIN);

	if (version == 2 || version == 3)
		return fail(e, ENOTSUP,
			    "%s: COWD version %" PRIu32
			    " is a disk of VMware Workstation 2 or 3, not an ESX delta" HINT "; convert it "
			    "with vmware-vdiskmanager first",
			    src->name, version);
	if (version != 1)
		return fail(e, ENOTSUP, "%s: COWD version %" PRIu32 " is unknown (1 is read)",
			    src->name, version);
	if (le32(h + AT_FLAGS) != 3)
		return fail(e, ENOTSUP,
			    "%s: COWD flags 0x%" PRIx32 " are not those of an ESX delta (0x3)",
			    src->name, le32(h + AT_FLAGS));
	if (!le32(h + AT_CAPACITY))
		return bad_header(src, e, "capacity is 0 sectors");
	if (!is_pow2(grain) || grain > GRAIN_MAX)
		return bad_header(src, e, "grain size %" PRIu32 " is not a power of two from 1 to %u "
				  "sectors", grain, GRAIN_MAX);
	return 0;
}

/* The directory has an entry for each of so many tables, or one more. */
static int check_directory(const struct source *src, const uint8_t *h, uint64_t tables, struct err *e)
{
	const uint64_t capacity = le32(h + AT_CAPACITY), entries = le32(h + AT_GD_ENTRIES);

	if (entries == tables || entries == tables + 1)
		return le32(h + AT_GD) >= HEADER / SECTOR
			       ? 0
			       : bad_header(src, e, "the grain directory at file sector %" PRIu32
					    " lies inside the header", le32(h + AT_GD));
	if (entries == div_up(capacity, UINT64_C(512) * le32(h + AT_GRAIN)))
		return fail(e, ENOTSUP,
			    "%s: a hosted COW disk of VMware 2 (%" PRIu64
			    " directory entries), not an ESX delta; convert it with "
			    "vmware-vdiskmanager first",
			    src->name, entries);
	return bad_header(src, e, "%" PRIu64 " directory entries, but %" PRIu64 " sector%s need%s "
			  "%" PRIu64, entries, capacity, plural(capacity), capacity == 1 ? "s" : "",
			  tables);
}

/* Values that are possible, but not those of ESX; and an entry of the directory too many. */
static int check_usual(struct source *src, const uint8_t *h, uint64_t tables, struct err *e)
{
	const uint64_t gd = le32(h + AT_GD), entries = le32(h + AT_GD_ENTRIES);
	uint8_t extra[4];
	int r = 0;

	if (le32(h + AT_GRAIN) != 1)
		r = warning(e, "%s: COWD grain size is %" PRIu32 " sectors (ESX uses 1)", src->name,
			    le32(h + AT_GRAIN));
	if (!r && gd != HEADER / SECTOR)
		r = warning(e,
			    "%s: COWD header: the grain directory lies at file sector %" PRIu64
			    " (%u is usual)",
			    src->name, gd, HEADER / SECTOR);
	if (!r && le32(h + AT_UNCLEAN))
		r = warning(e,
			    "%s: the unclean-shutdown flag is set: the file was in use when it was "
			    "copied, or its host crashed",
			    src->name);
	/* one that does not lie inside the file is refused later */
	if (r < 0 || entries == tables || gd + div_up(entries * 4, SECTOR) > src->size / SECTOR)
		return r;
	r = source_read(src, gd * SECTOR + tables * 4, extra, sizeof(extra), "grain directory", e);
	if (!r && le32(extra))
		r = warning(e,
			    "%s: the grain directory has an entry for a table beyond the end of the "
			    "disk; it is ignored",
			    src->name);
	return r;
}

int cowd_open(struct reader **out, struct source *src, const struct format_opts *o,
	      struct format_facts *facts, struct err *e)
{
	uint8_t h[HEADER];
	uint64_t capacity, grain, gd, gd_end, tables;
	struct tree_shape shape;
	struct cowd *c;
	int r;

	r = source_read(src, 0, h, sizeof(h), "COWD header", e);
	if (!r)
		r = check_kind(src, h, e);
	if (r < 0)
		return r;
	capacity = le32(h + AT_CAPACITY);
	grain = le32(h + AT_GRAIN);
	tables = div_up(capacity, ENTRIES * grain);
	r = check_directory(src, h, tables, e);
	if (!r)
		r = check_usual(src, h, tables, e);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return fail(e, ENOMEM, "out of memory");
	gd = (uint64_t)le32(h + AT_GD) * SECTOR;
	gd_end = gd + (uint64_t)le32(h + AT_GD_ENTRIES) * 4;
	shape = (struct tree_shape){
		.size = capacity * SECTOR,
		.grain = grain * SECTOR,
		.dir = gd,
		.tables = tables,
		.entries = ENTRIES,
		.width = 4,
		.area = {{0, HEADER, "header"}, {gd, gd_end, "grain directory"}},
		.areas = 2,
		.floor = div_up(gd_end, SECTOR) * SECTOR,
		.least = gd_end,
		.promised = (uint64_t)le32(h + AT_FREE) * SECTOR, /* what it calls never used begins there */
		.opts = *o,
		.table = cowd_table,
		.grain_at = cowd_grain,
		.account = cowd_account,
	};
	*facts = (struct format_facts){.format = "COWD", .version = 1, .grain = shape.grain};
	return tree_open(out, &c->tree, src, &shape, e);
}
