/* SPDX-License-Identifier: MIT */
/*
 * SEsparse, the delta of ESXi since 6.5 ("-sesparse.vmdk"). Knows its two headers and its entries; must
 * not know in which order its tree is walked. Called by image.c, see format.h. VMware has published
 * nothing: the facts are those of QEMU's block/vmdk.c and of the message of the commit that added it; what
 * is not listed there is refused, but for reserved1 = 0x200, which files from the field have (OpenNebula
 * one-swap, sesparse.c).
 */
#include "vmdk/file_order.h"

#include <inttypes.h>
#include <stdlib.h>

#define HEADER 512u
#define VERSION_2_1 UINT64_C(0x0000000200000001)
#define VOLATILE_MAGIC UINT64_C(0x00000000cafecafe)
#define GRAIN 8u       /* sectors */
#define TABLE 64u      /* sectors */
#define ENTRIES 4096u  /* of a table */
#define CAPACITY_MAX (UINT64_C(1) << 37) /* sectors: 64 TiB */
#define SECTOR_MAX (UINT64_C(1) << 53)   /* file sectors */
#define GD_MAX (UINT64_C(1) << 17)       /* sectors */

enum { /* byte offsets in the constant header */
	AT_VERSION = 8,
	AT_CAPACITY = 16,
	AT_GRAIN = 24,
	AT_TABLE = 32,
	AT_FLAGS = 40,
	AT_RESERVED1 = 48,
	AT_RESERVED2 = 56,
	AT_AREAS = 80, /* offset and size of each */
	AT_PAD = 208,
};

enum { /* in the volatile header */
	AT_V_FREE_GT = 8,
	AT_V_REPLAY = 24,
	AT_V_PAD = 32,
};

enum { VOLATILE, JOURNAL_HEADER, JOURNAL, GD, GT, FREE_BITMAP, BACKMAP, GRAINS, AREAS };

struct area {
	const char *what;
	uint64_t at, size; /* sectors */
};

struct map { /* of grains */
	struct area area;
	uint64_t (*count)(const uint8_t *p, size_t n);
	uint64_t used, end; /* of what was read of it: how much is in use, and nothing behind this byte */
};

/* -EBADMSG for a field of the header. */
#define bad_header(src, e, fmt, ...)                                                               \
	fail(e, EBADMSG, "%s: " OBJECT("SEsparse header") ": " fmt, (src)->name, ##__VA_ARGS__)

struct sesparse {
	struct tree tree;
	uint64_t gt, gt_count; /* first sector of the tables, and how many have room */
	uint64_t free_gt;
	struct map bitmap, backmap;
	bool warned_free, warned_maps;
};

static int sesparse_table(struct tree *t, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e)
{
	struct sesparse *s = container_of(t, struct sesparse, tree);
	uint64_t index = raw & 0xffffffff;

	if (raw >> 32 != 0x10000000)
		return fail(e, EBADMSG,
			    "%s: directory entry %" PRIu64 " is 0x%016" PRIx64
			    ", which is not a table of any known kind",
			    t->reader.name, i, raw);
	if (index >= s->gt_count)
		return fail(e, EBADMSG,
			    "%s: directory entry %" PRIu64 " names table %" PRIu64
			    ", but there is room for %" PRIu64,
			    t->reader.name, i, index, s->gt_count);
	if (index >= s->free_gt &&
	    warning_once(&s->warned_free, e,
			 "%s: directory entry %" PRIu64 " names table %" PRIu64
			 ", which the header calls unused (from %" PRIu64 " on): copied from a running VM?",
			 t->reader.name, i, index, s->free_gt) < 0)
		return -EBADMSG;
	*pos = (s->gt + index * TABLE) * SECTOR;
	return 1;
}

static int sesparse_grain(struct tree *t, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e)
{
	uint64_t index;

	switch (raw >> 60) {
	case 1: /* unmapped by the guest: reads as zeros, not as the parent */
	case 2:
		return GRAIN_ZERO;
	case 3:
		/* the low 12 bits of the index stand above the rest */
		index = (raw >> 48 & 0xfff) | (raw & 0x0000ffffffffffff) << 12;
		if (index > (SECTOR_MAX - t->shape.floor / SECTOR) / GRAIN)
			return fail(e, EBADMSG,
				    "%s: grain %" PRIu64 " has index %" PRIu64
				    ", far outside the file of %" PRIu64 " bytes",
				    t->reader.name, n, index, t->src->size);
		*pos = t->shape.floor + index * GRAIN * SECTOR;
		return GRAIN_DATA;
	default: /* 0 too: an unallocated entry is 0 as a whole */
		return fail(e, EBADMSG,
			    "%s: table entry of grain %" PRIu64 " is 0x%016" PRIx64
			    ", which is not an entry of any known kind",
			    t->reader.name, n, raw);
	}
}

/* Its numbers are possible; where it is read it lies inside the file. */
static int check_area(const struct source *src, const struct area *a, bool is_read, struct err *e)
{
	if (a->at >= SECTOR_MAX || a->size >= SECTOR_MAX || (is_read && (!a->at || !a->size)))
		return bad_header(src, e, "the %s of %" PRIu64 " sector%s at file sector %" PRIu64
				  " is out of range", a->what, a->size, plural(a->size), a->at);
	if (!is_read || a->at + a->size <= src->size / SECTOR)
		return 0;
	return fail_outside(e, src->name, src->size, (a->at + a->size) * SECTOR,
			    OBJECT("SEsparse header") ": the %s of %" PRIu64 " sector%s at file sector %" PRIu64,
			    a->what, a->size, plural(a->size), a->at);
}

/* Where every file that anyone has seen has the areas that come first. */
static int check_usual(const struct source *src, const struct area *a, struct err *e)
{
	static const uint64_t at[] = {1, 2, 2048, 4096}, size[] = {1, 2, 2048};

	for (size_t i = VOLATILE; i <= GD; i++)
		if (a[i].at != at[i])
			return warning(e, "%s: SEsparse header: the %s lies at %" PRIu64 " (%" PRIu64
					  " is usual)", src->name, a[i].what, a[i].at, at[i]);
	for (size_t i = VOLATILE; i <= JOURNAL; i++)
		if (a[i].size != size[i])
			return warning(e, "%s: SEsparse header: the sectors of the %s are %" PRIu64
					  " (%" PRIu64 " is usual)", src->name, a[i].what, a[i].size,
				       size[i]);
	return 0;
}

/* As if each area had been laid out behind the one before. */
static int check_gaps(const struct source *src, const struct area *a, size_t n, struct err *e)
{
	for (size_t i = 1; i < n; i++)
		if (a[i].at != a[i - 1].at + a[i - 1].size)
			return warning(e,
				       "%s: SEsparse header: the %s at file sector %" PRIu64
				       " does not follow the %s, which ends at %" PRIu64,
				       src->name, a[i].what, a[i].at, a[i - 1].what,
				       a[i - 1].at + a[i - 1].size);
	return 0;
}

static bool areas_overlap(const struct area *a, const struct area *b)
{
	return a->at < b->at + b->size && b->at < a->at + a->size;
}

/* The fields that do not say where anything is. */
static int check_kind(const struct source *src, const uint8_t *h, struct err *e)
{
	static const struct {
		size_t at;
		uint64_t want;
		const char *what;
	} fixed[] = {
		{AT_VERSION, VERSION_2_1, "version"},
		{AT_GRAIN, GRAIN, "grain size"},
		{AT_TABLE, TABLE, "grain table size"},
		{AT_FLAGS, 0, "flags"},
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		if (le64(h + fixed[i].at) != fixed[i].want)
			return fail(e, ENOTSUP,
				    "%s: SEsparse header: %s is 0x%" PRIx64 ", only 0x%" PRIx64
				    " is known",
				    src->name, fixed[i].what, le64(h + fixed[i].at), fixed[i].want);
	if (le64(h + AT_RESERVED1) != 0 && le64(h + AT_RESERVED1) != 0x200)
		return fail(e, ENOTSUP,
			    "%s: SEsparse header: reserved field 1 is 0x%" PRIx64
			    ", only 0 and 0x200 are known",
			    src->name, le64(h + AT_RESERVED1));
	for (size_t at = AT_RESERVED2; at < AT_AREAS; at += 8)
		if (le64(h + at))
			return fail(e, ENOTSUP,
				    "%s: SEsparse header: reserved field %zu is 0x%" PRIx64
				    ", only 0 is known",
				    src->name, (at - AT_RESERVED1) / 8 + 1, le64(h + at));
	if (!all_zero(h + AT_PAD, HEADER - AT_PAD))
		return fail(e, ENOTSUP,
			    "%s: SEsparse header: bytes %u to %u are not zero", src->name, AT_PAD,
			    HEADER - 1);
	return 0;
}

static int check_volatile(struct source *src, uint64_t at, uint64_t *free_gt, struct err *e)
{
	uint8_t v[HEADER];
	int r = source_read(src, at * SECTOR, v, sizeof(v), "SEsparse volatile header", e);

	if (r < 0)
		return r;
	if (le64(v) != VOLATILE_MAGIC)
		return fail(e, EBADMSG,
			    "%s: SEsparse volatile header at file sector %" PRIu64
			    " begins with 0x%" PRIx64 ", not 0x%" PRIx64,
			    src->name, at, le64(v), VOLATILE_MAGIC);
	if (le64(v + AT_V_REPLAY))
		return fail(e, ENOTSUP,
			    "%s: the SEsparse journal has to be replayed (%" PRIu64
			    ") before anyone can read the file" HINT ": power the VM off cleanly on the ESXi "
			    "host, or consolidate its snapshots, and copy the file again",
			    src->name, le64(v + AT_V_REPLAY));
	if (!all_zero(v + AT_V_PAD, HEADER - AT_V_PAD))
		return fail(e, ENOTSUP,
			    "%s: SEsparse volatile header: bytes %u to %u are not zero", src->name,
			    AT_V_PAD, HEADER - 1);
	*free_gt = le64(v + AT_V_FREE_GT);
	return 0;
}

/* Directory entries that no grain of the disk needs: 0 in a sane file. */
static int check_beyond(struct source *src, const struct area *gd, uint64_t tables, struct err *e)
{
	const uint64_t at = gd->at * SECTOR + tables * 8;
	uint64_t end;
	int r = account_data_end(src, at, (gd->at + gd->size) * SECTOR, &end, e);

	if (r < 0 || end == at)
		return r;
	return warning(e,
		       "%s: the grain directory has entries for tables beyond the end of the disk; they are "
		       "ignored",
		       src->name);
}

/* --- accounts --- */

#define MAP_AT_ONCE 65536u /* bytes */

static uint64_t count_bits(const uint8_t *p, size_t n)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < n; i += 8)
		bits += (unsigned)__builtin_popcountll(le64(p + i));
	return bits;
}

static uint64_t count_entries(const uint8_t *p, size_t n)
{
	uint64_t used = 0;

	for (size_t i = 0; i < n; i += 8)
		used += le64(p + i) != 0;
	return used;
}

/* Adds what lies in file bytes [from, to). */
static int count_map(struct source *src, struct map *m, uint64_t from, uint64_t to, struct err *e)
{
	const uint64_t at = m->area.at * SECTOR;
	uint8_t buf[MAP_AT_ONCE];
	int r = 0;

	from = max_u64(from, at);
	to = min_u64(to, min_u64(at + m->area.size * SECTOR, src->size));
	while (!r && from < to && to - from >= 8) {
		size_t n = (size_t)min_u64(sizeof(buf), (to - from) / 8 * 8);
		bool hole = source_is_hole(src, from, n);

		if (!hole)
			r = source_read(src, from, buf, n, m->area.what, e);
		from += n;
		if (r < 0 || hole || all_zero(buf, n))
			continue;
		m->used += m->count(buf, n);
		m->end = from - at;
		for (; all_zero(buf + n - 8, 8); n -= 8)
			m->end -= 8;
	}
	return r;
}

static int sesparse_received(struct tree *t, uint64_t from, uint64_t to, struct err *e)
{
	struct sesparse *x = container_of(t, struct sesparse, tree);
	int r = count_map(t->src, &x->bitmap, from, to, e);

	return r < 0 ? r : count_map(t->src, &x->backmap, from, to, e);
}

/* Whether both maps say the same as the tables. A grain of zeros, and one that was unmapped, may have
 * kept its place or have given it back. */
static int check_maps(struct tree *t, const struct tree_sums *s, struct err *e)
{
	struct sesparse *x = container_of(t, struct sesparse, tree);
	const uint64_t most = s->data + s->zero;
	const struct map *m = &x->bitmap;

	if (m->used >= s->data && m->used <= most)
		m = &x->backmap;
	if (m->used >= s->data && m->used <= most)
		return 0;
	x->warned_maps = true;
	return warning(e,
		       "%s: its grain tables name %" PRIu64 " grain%s, its %s %" PRIu64
		       ": is it damaged? compare its checksum with the original's",
		       t->reader.name, s->data, plural(s->data), m->area.what, m->used);
}

/* Of a stream: all maps come before the grains. */
static int sesparse_judge(struct tree *t, const struct tree_sums *s, struct err *e)
{
	struct sesparse *x = container_of(t, struct sesparse, tree);
	/* those of unmapped grains, and one, may stand behind */
	const uint64_t most = s->zero + 1 + (s->data ? ((s->end - t->shape.floor) / SECTOR + GRAIN - 1) / GRAIN : 0);

	if (x->bitmap.end > div_up(most, 64) * 8 || x->backmap.end > most * 8)
		return warning(e,
			       "%s: its free bitmap or its backmap name grains behind all that its grain "
			       "tables name: is it damaged? compare its checksum with the original's",
			       t->reader.name);
	return check_maps(t, s, e);
}

/*
 * One file of ESXi is known: as many bits, and as many entries of the backmap, as there are grains, and
 * one grain more at the end of the file.
 */
static int sesparse_account(struct tree *t, const struct tree_sums *s, struct err *e)
{
	struct sesparse *x = container_of(t, struct sesparse, tree);
	const uint64_t sectors = div_up(t->src->size, SECTOR);
	const uint64_t room = sectors - min_u64(sectors, t->shape.floor / SECTOR);
	/* the last one may be cut short, but a part of one may also be padding */
	const uint64_t grains = div_up(room, GRAIN), whole = room / GRAIN;
	const uint64_t most = s->data + s->zero;
	int r = 0;

	account_missing(&t->shape.opts, whole > most + 1 ? (whole - most - 1) * GRAIN * SECTOR : 0);
	if (!t->file) { /* of a stream both are counted and judged */
		/* how bits stand in a byte nobody needs to know: the end is rounded up */
		r = count_map(t->src, &x->bitmap, 0,
			      x->bitmap.area.at * SECTOR + div_up(grains, 64 * SECTOR) * 8 * SECTOR, e);
		if (!r)
			r = count_map(t->src, &x->backmap, 0,
				      x->backmap.area.at * SECTOR + div_up(grains, SECTOR) * 8 * SECTOR, e);
		if (!r)
			r = check_maps(t, s, e);
	}
	if (r < 0)
		return r;
	/* one warning for one damage */
	if (x->warned_maps)
		return 0;
	if (grains < s->data || whole > most + 1)
		return warning(e,
			       "%s: its grain tables name %" PRIu64
			       " grain%s, but there is room for %" PRIu64
			       " in the file: is it damaged? compare its checksum with the original's",
			       t->reader.name, s->data, plural(s->data), grains);
	return 0;
}

/* Where the header has its areas, a[AREAS]. */
static int check_layout(struct source *src, const uint8_t *h, struct area *a, uint64_t tables,
			struct err *e)
{
	static const char *const what[] = {
		"volatile header", "journal header", "journal", "grain directory",
		"area of the grain tables", "free bitmap", "backmap", "area of the grains",
	};
	const struct area *vol = &a[VOLATILE], *gd = &a[GD], *gt = &a[GT], *grains = &a[GRAINS];
	int r = 0;

	for (size_t i = 0; i < AREAS; i++)
		a[i] = (struct area){what[i], le64(h + AT_AREAS + 16 * i),
				     le64(h + AT_AREAS + 16 * i + 8)};
	for (size_t i = 0; !r && i < AREAS; i++)
		r = check_area(src, &a[i], i == VOLATILE || i == GD || i == GT, e);
	if (r < 0)
		return r;
	if (gd->size > GD_MAX || gd->size * SECTOR / 8 < tables)
		return bad_header(src, e, "a grain directory of %" PRIu64 " sector%s, but %" PRIu64
				  " tables need %" PRIu64, gd->size, plural(gd->size), tables,
				  div_up(tables * 8, SECTOR));
	if (grains->at < gt->at + gt->size)
		return bad_header(src, e, "the grains begin at file sector %" PRIu64 ", before the "
				  "tables end (%" PRIu64 ")", grains->at, gt->at + gt->size);
	if (grains->at < gd->at + gd->size || grains->at < vol->at + vol->size)
		return bad_header(src, e, "the grains begin at file sector %" PRIu64 ", inside "
				  "other metadata", grains->at);
	if (areas_overlap(gt, gd) || areas_overlap(gt, vol))
		return bad_header(src, e, "the area of the grain tables at file sector %" PRIu64 " "
				  "overlaps the %s", gt->at,
				  areas_overlap(gt, gd) ? gd->what : vol->what);
	r = check_usual(src, a, e);
	if (!r)
		r = check_gaps(src, a + GD, AREAS - GD, e);
	return r < 0 ? r : check_beyond(src, gd, tables, e);
}

int sesparse_open(struct reader **out, struct source *src, const struct format_opts *o,
		  struct format_facts *facts, struct err *e)
{
	uint8_t h[HEADER];
	uint64_t capacity, tables, free_gt = 0;
	struct area a[AREAS];
	const struct area *vol = &a[VOLATILE], *gd = &a[GD], *gt = &a[GT], *grains = &a[GRAINS];
	struct tree_shape shape;
	struct sesparse *s;
	int r;

	r = source_read(src, 0, h, sizeof(h), "SEsparse header", e);
	if (!r)
		r = check_kind(src, h, e);
	if (r < 0)
		return r;
	capacity = le64(h + AT_CAPACITY);
	if (!capacity || capacity > CAPACITY_MAX)
		return bad_header(src, e, "capacity of %" PRIu64 " sectors is not from 1 to "
				  "%" PRIu64, capacity, CAPACITY_MAX);
	tables = div_up(capacity, (uint64_t)ENTRIES * GRAIN);
	r = check_layout(src, h, a, tables, e);
	if (!r)
		r = check_volatile(src, vol->at, &free_gt, e);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return fail(e, ENOMEM, "out of memory");
	s->gt = gt->at;
	s->gt_count = gt->size / TABLE;
	s->free_gt = free_gt;
	s->bitmap = (struct map){a[FREE_BITMAP], count_bits, 0, 0};
	s->backmap = (struct map){a[BACKMAP], count_entries, 0, 0};
	shape = (struct tree_shape){
		.size = capacity * SECTOR,
		.grain = (uint64_t)GRAIN * SECTOR,
		.dir = gd->at * SECTOR,
		.tables = tables,
		.entries = ENTRIES,
		.width = 8,
		/* one bit for a grain, where the areas let it */
		.unit = (gd->at | gd->size | gt->at | grains->at) % GRAIN ? 1 : GRAIN,
		.area = {{0, HEADER, "header"},
			 {vol->at * SECTOR, (vol->at + vol->size) * SECTOR, vol->what},
			 {gd->at * SECTOR, (gd->at + gd->size) * SECTOR, gd->what}},
		.areas = 3,
		.floor = grains->at * SECTOR,
		.least = max_u64(gd->at + gd->size, gt->at + gt->size) * SECTOR,
		.opts = *o,
		.table = sesparse_table,
		.grain_at = sesparse_grain,
		.received = sesparse_received,
		.judge = sesparse_judge,
		.account = sesparse_account,
	};
	*facts = (struct format_facts){.format = "SEsparse", .version = 2, .grain = shape.grain};
	return tree_open(out, &s->tree, src, &shape, e);
}
