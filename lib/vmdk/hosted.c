/* SPDX-License-Identifier: MIT */
/*
 * Hosted sparse extents ("KDMV") of Workstation, Fusion, Player, VirtualBox and qemu, plain
 * and compressed (streamOptimized). Knows their header, footer and entries; the walk is tree's,
 * compressed grains and markers are streamopt's and deflate's. Facts: layout.h.
 */
#include "vmdk/file_order.h"
#include "vmdk/deflate.h"
#include "vmdk/layout.h"
#include "vmdk/streamopt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MAX (UINT64_C(1) << 37) /* sectors: 64 TiB */
#define GRAIN_MAX 0x8000u		 /* sectors: 16 MiB */
#define DIR_MAX (UINT64_C(1) << 22)
#define DESCRIPTOR_MAX 2048u /* sectors */

#define MARKS (1u << 20)     /* held where there are no tables: 16 MiB */
#define TAIL_MAX 65536u      /* zeros behind the end marker over which the footer is looked for */

/* -EBADMSG for a field of the header. */
#define bad_header(src, e, fmt, ...)                                                               \
	fail(e, EBADMSG, "%s: " OBJECT("hosted sparse header") ": " fmt, (src)->name, ##__VA_ARGS__)

struct hosted {
	struct tree tree;
	bool zeroed, warned_overhead;
	/* of compressed grains: their markers are counted along with the walk over the tables */
	struct streamopt_shape markers;
	struct streamopt_sums marks;
};

static int hosted_table(struct tree *g, uint64_t i, uint64_t raw, uint64_t *pos, struct err *e)
{
	if (raw < 2)
		return fail(e, EBADMSG, "%s: directory entry %" PRIu64 " is %" PRIu64,
			    g->reader.name, i, raw);
	*pos = raw * SECTOR;
	return 1;
}

static int hosted_grain(struct tree *g, uint64_t n, uint64_t raw, uint64_t *pos, struct err *e)
{
	struct hosted *h = container_of(g, struct hosted, tree);

	if (raw == 1) {
		if (h->zeroed)
			return GRAIN_ZERO;
		return fail(e, EBADMSG,
			    "%s: table entry of grain %" PRIu64
			    " is 1, but the header does not allow zeroed grains",
			    g->reader.name, n);
	}
	*pos = raw * SECTOR;
	if (*pos < g->shape.floor &&
	    warning_once(&h->warned_overhead, e,
			 "%s: grain %" PRIu64 " at file sector %" PRIu64
			 " lies before the first grain of the header (%" PRIu64 ")",
			 g->reader.name, n, raw, g->shape.floor / SECTOR) < 0)
		return -EBADMSG;
	if (g->first && g->shape.compressed && !g->file) { /* in file order hosted_received() does it */
		uint64_t bytes;
		int r = deflate_check_head(g->src, *pos, n * g->shape.grain, g->shape.grain, &bytes, e);

		if (!r)
			r = streamopt_count(&h->marks, g->src, &h->markers, e);
		if (r < 0)
			return r;
	}
	return GRAIN_DATA;
}

/* --- accounts --- */

/*
 * All tables are made with the extent, by every writer that is known (VMware, VirtualBox, qemu), and
 * behind the overhead there are grains and nothing else. But a grain that becomes one of zeros leaves
 * its place behind, for good when it is written again: with redundant tables, which have been
 * compared, that is believed.
 */
static int check_tables(struct tree *g, const struct tree_sums *s, struct err *e)
{
	if (s->tables == g->shape.tables)
		return 0;
	return unbalanced(&g->shape.opts, g->reader.name, e,
			  "directory entry %" PRIu64 " is 0, as are %" PRIu64 " of %" PRIu64
			  ": an extent of this kind has all its tables; it is damaged" HINT ": copy it again",
			  s->missing, g->shape.tables - s->tables, g->shape.tables);
}

static int account_plain(struct tree *g, const struct tree_sums *s, struct err *e)
{
	const struct hosted *h = container_of(g, struct hosted, tree);
	const uint64_t from = g->shape.floor / SECTOR, grain = g->shape.grain / SECTOR;
	uint64_t end = 0, used = s->claimed + s->beyond, spare;
	int r = 0;

	if (g->file) { /* its tables were checked when they had come */
		end = div_up(max_u64(s->data_end, s->end), SECTOR);
	} else {
		r = check_tables(g, s, e);
		if (!r)
			r = account_data_end(g->src, s->end, UINT64_MAX, &end, e);
		end = div_up(end, SECTOR);
	}
	if (r < 0)
		return r;
	used = min_u64(used, end - min_u64(end, from));
	spare = end - min_u64(end, from) - used;
	account_missing(&g->shape.opts, spare * SECTOR);
	if (!spare || (h->zeroed && (g->shape.mirror || spare <= s->zero * grain)))
		return 0;
	return warning(e,
		       "%s: %" PRIu64 " sector%s behind the overhead belong%s to no grain: is it "
		       "damaged? compare its checksum with the original's",
		       g->reader.name, spare, plural(spare), spare == 1 ? "s" : "");
}

/* To read by markers is no way out where the grains that they lead to are not all whole. */
static int check_offer(struct hosted *h, const struct tree_sums *s, struct err *e)
{
	const struct source *src = h->tree.src;
	struct err why = {0};
	int r;

	if (h->tree.shape.opts.unbalanced || src->streaming)
		return 0;
	r = streamopt_check(h->tree.src, &h->markers, &why, e);
	if (r < 0 || !why.set)
		return r;
	return fail(e, EBADMSG,
		    "%s: its grain tables name %" PRIu64 " grain%s, but there are %" PRIu64
		    " in the file, and not all of them are whole: it is damaged" HINT "; copy it again",
		    src->name, s->data, plural(s->data), h->marks.grains);
}

/* Every marker of a grain has its entry, and the other way round. */
static int account_compressed(struct tree *g, const struct tree_sums *s, struct err *e)
{
	struct hosted *h = container_of(g, struct hosted, tree);
	const struct streamopt_sums *m = &h->marks;
	uint64_t behind;
	int r = 0;

	while (!r && !m->ended)
		r = streamopt_count(&h->marks, g->src, &h->markers, e);
	if (r < 0)
		return r;
	/* where a disk ends in the middle of a grain, qemu writes that plain, then compressed: the rest of
	 * the first attempt may remain at the end of its files, which have no end marker */
	if (h->markers.no_end && !m->others && g->shape.size % g->shape.grain && s->data &&
	    m->grains == s->data && m->hash == s->hash &&
	    g->src->size - min_u64(g->src->size, m->pos) < g->shape.grain) {
		if (m->why.set || m->tail)
			account_missing(&g->shape.opts, g->src->size - m->pos);
		return 0;
	}
	if (m->why.set) /* it names the file */
		return g->shape.opts.unbalanced ? warning(e, "%s", m->why.msg)
					  : fail_again(e, EBADMSG, &m->why);
	if (m->grains != s->data || m->hash != s->hash) {
		r = check_offer(h, s, e);
		if (r < 0)
			return r;
	}
	if (m->grains != s->data)
		return unbalanced(&g->shape.opts, g->reader.name, e,
				  "its grain tables name %" PRIu64 " grain%s, but there are %" PRIu64
				  " in the file: it is damaged" HINT "; copy it again, or read it by the "
				  "markers of its grains",
				  s->data, plural(s->data), m->grains);
	if (m->hash != s->hash)
		return unbalanced(&g->shape.opts, g->reader.name, e,
				  "its %" PRIu64
				  " grains are not where its grain tables have them: it is damaged" HINT "; "
				  "copy it again, or read it by the markers of its grains",
				  s->data);
	if (m->tail)
		return streamopt_tail(g->src, &g->shape.opts, m->pos, e);
	/* an end marker may be all that there is, but then the directory precedes it */
	behind = g->src->size - min_u64(g->src->size, h->markers.start);
	if (!s->data && !m->others && behind > SECTOR)
		return unbalanced(&g->shape.opts, g->reader.name, e,
				  "names no grain, but has %" PRIu64
				  " bytes behind its overhead: it is damaged" HINT "; copy it again",
				  behind);
	return 0;
}

/* Counts the markers of a stream; of plain grains it is enough to know where the data end. */
static int hosted_received(struct tree *g, uint64_t from, uint64_t to, struct err *e)
{
	struct hosted *h = container_of(g, struct hosted, tree);
	struct source *src = g->src;
	struct streamopt_sums *m = &h->marks;
	uint64_t end;
	int r = 0;

	if (!g->shape.compressed)
		return 0;
	/* those of a stream stand at the beginning of sectors, and windows do */
	while (!r && !m->ended && max_u64(m->pos, h->markers.start) + MARKER_BYTES <= to)
		r = streamopt_count(m, src, &h->markers, e);
	if (r < 0 || !m->ended || m->tail)
		return r;
	from = max_u64(from, m->pos);
	r = account_data_end(src, from, to, &end, e);
	m->tail = end > from;
	return r;
}

/* The fields that do not say where anything is. */
static int check_kind(const struct source *src, const uint8_t *h, struct err *e)
{
	uint32_t version = le32(h + KDMV_VERSION), flags = le32(h + KDMV_FLAGS);

	if (version < 1 || version > 3)
		return fail(e, ENOTSUP,
			    "%s: hosted sparse version %" PRIu32 " is unknown (1 to 3 are read)",
			    src->name, version);
	if ((flags & KDMV_FLAG_NEWLINES) && memcmp(h + KDMV_NEWLINES, KDMV_NEWLINE_BYTES, 4) != 0)
		return bad_header(src, e, "line ends were changed (bytes 73 to 76): the file went "
				  "through a transfer in text mode");
	if (flags & KDMV_FLAGS_UNKNOWN)
		return fail(e, ENOTSUP,
			    "%s: hosted sparse header: flags 0x%" PRIx32 " ask for unknown features",
			    src->name, flags);
	if (!(flags & KDMV_FLAG_COMPRESSED) != !(flags & KDMV_FLAG_MARKERS))
		return fail(e, ENOTSUP,
			    "%s: hosted sparse header: flags 0x%" PRIx32
			    " ask for compressed grains without markers, or the reverse",
			    src->name, flags);
	if (le16(h + KDMV_COMPRESS) > KDMV_DEFLATE ||
	    ((flags & KDMV_FLAG_COMPRESSED) && le16(h + KDMV_COMPRESS) != KDMV_DEFLATE))
		return fail(e, ENOTSUP, "%s: hosted sparse header: compression %u is unknown",
			    src->name, le16(h + KDMV_COMPRESS));
	return 0;
}

/* Whether f, a header, is the footer of the file whose first sector is h. */
static bool is_footer(const uint8_t *h, const uint8_t *f)
{
	return le32(f) == KDMV_MAGIC && le64(f + KDMV_GD) && le64(f + KDMV_GD) != KDMV_GD_AT_END &&
	       !memcmp(h + KDMV_VERSION, f + KDMV_VERSION, KDMV_DESC - KDMV_VERSION) &&
	       !memcmp(h + KDMV_ENTRIES, f + KDMV_ENTRIES, 4) &&
	       !memcmp(h + KDMV_COMPRESS, f + KDMV_COMPRESS, 2);
}

/*
 * The file ends with a marker, the footer, an end marker (all zero), and possibly more zeros. 1 and
 * the position of the footer, which is read into f; 0 when there is none that can be believed.
 */
static int find_footer(struct source *src, const uint8_t *h, uint8_t *f, uint64_t *pos,
		       struct err *e)
{
	const uint64_t end = src->size / SECTOR * SECTOR;
	const size_t n = (size_t)min_u64(end, TAIL_MAX + 3 * SECTOR);
	uint8_t *tail = malloc(n);
	size_t zeros = 0, at = n;
	int r;

	if (!tail)
		return fail(e, ENOMEM, "out of memory");
	r = source_read(src, end - n, tail, n, "end of the file", e);
	while (!r && at && all_zero(tail + at - SECTOR, SECTOR)) {
		at -= SECTOR;
		zeros++;
	}
	if (!r && at >= 2 * SECTOR && zeros) {
		const uint8_t *marker = tail + at - 2 * SECTOR, *p = tail + at - SECTOR;

		if (is_footer(h, p) && le64(marker + RECORD_LBA) == 1 &&
		    !le32(marker + RECORD_SIZE) && le32(marker + MARKER_TYPE) == MARKER_FOOTER) {
			memcpy(f, p, KDMV_HEADER);
			*pos = end - n + at - SECTOR;
			r = 1;
		}
	}
	free(tail);
	return r;
}

/*
 * Where the directories begin; rgd: NULL where there is none. The one that is not believed may be
 * anywhere.
 */
static int check_directories(const struct source *src, uint64_t gd, const uint64_t *rgd,
			     uint64_t overhead, int copies, struct err *e)
{
	const uint64_t file_sectors = src->size / SECTOR;

	/* a file that is cut short there has no grains, whatever its directories say */
	if (gd > file_sectors && overhead > file_sectors && gd < overhead && overhead < POS_LIMIT / SECTOR)
		return fail_outside(e, src->name, src->size, overhead * SECTOR,
				    OBJECT("hosted sparse header")
				    ": the grain directory at file sector %" PRIu64, gd);
	if (copies != COPY_REDUNDANT && (gd < 1 || gd > file_sectors))
		return fail(e, EBADMSG,
			    "%s: hosted sparse header: the grain directory at file sector %" PRIu64
			    " lies outside the file of %" PRIu64 " bytes%s",
			    src->name, gd, src->size,
			    rgd && *rgd >= 1 && *rgd <= file_sectors
				    ? "; copy it again, or try --dry-run with --force=rgd (reads the "
				      "redundant one)"
				    : "; is it truncated? compare its size with the original's");
	if (!rgd || copies == COPY_PRIMARY)
		return 0;
	if (*rgd < 1 || *rgd > file_sectors || (copies == COPIES_EQUAL && *rgd == gd))
		return fail(e, EBADMSG,
			    "%s: hosted sparse header: redundant grain directory at file sector "
			    "%" PRIu64 ", grain directory at %" PRIu64
			    ", in a file of %" PRIu64 " bytes%s",
			    src->name, *rgd, gd, src->size,
			    copies == COPIES_EQUAL
				    ? "; copy it again, or try --dry-run with --force=gd (reads the latter)"
				    : "");
	return 0;
}

/*
 * A file without footer, or one whose accounts are not to count, is read by its markers if they lead
 * through all of it. 1 when it is to be read so, 0 by its tables, -errno.
 */
static int check_markers(struct source *src, const struct streamopt_shape *shape, bool footless,
			 struct err *e)
{
	struct streamopt_sums sums = {.grains = 0};
	struct err why = {0};
	int r = 0;

	while (!r && !sums.ended)
		r = streamopt_count(&sums, src, shape, e);
	if (r < 0)
		return r;
	if (sums.why.set)
		return footless ? fail_again(e, EBADMSG, &sums.why) : 0;
	if (shape->opts.unbalanced)
		return footless || !sums.tail;
	r = streamopt_check(src, shape, &why, e);
	if (r < 0)
		return r;
	if (why.set)
		return fail_with(e, EBADMSG, FACTS(.code = ERR_DAMAGED),
				 "%s; the footer is missing, too: it is damaged" HINT "; copy it again",
				 why.msg);
	return fail_with(e, EBADMSG, FACTS(.code = ERR_ACCOUNTS),
		    "%s: has no usable footer: it is damaged" HINT "; copy it again, or find its %" PRIu64
		    " grain%s by their markers with --force=accounts",
		    src->name, sums.grains, plural(sums.grains));
}

/* The header, with the directory of the footer where that has it. Sectors, unless a field says
 * otherwise. */
struct head {
	uint8_t bytes[KDMV_HEADER];
	unsigned version;
	uint32_t flags;
	uint64_t capacity, grain, desc, desc_size, rgd, gd, overhead;
	uint64_t entries, tables;    /* of a table; of the directory in use */
	uint64_t footer_at;          /* bytes; 0: it was not needed */
	bool compressed, open_log;   /* open_log: an undo log that was not finished */
	bool footless;               /* the footer that has to be there was not found */
	bool by_markers;             /* how grains are found: by their markers, or by tables */
};

static int read_head(struct source *src, struct head *h, struct err *e)
{
	const uint8_t *p = h->bytes;
	int r = source_read(src, 0, h->bytes, sizeof(h->bytes), "hosted sparse header", e);

	if (!r)
		r = check_kind(src, p, e);
	if (r < 0)
		return r;
	h->version = le32(p + KDMV_VERSION);
	h->flags = le32(p + KDMV_FLAGS);
	h->compressed = h->flags & KDMV_FLAG_COMPRESSED;
	h->capacity = le64(p + KDMV_CAPACITY);
	h->grain = le64(p + KDMV_GRAIN);
	h->desc = le64(p + KDMV_DESC);
	h->desc_size = le64(p + KDMV_DESC_SIZE);
	h->entries = le32(p + KDMV_ENTRIES);
	h->rgd = le64(p + KDMV_RGD);
	h->gd = le64(p + KDMV_GD);
	h->overhead = le64(p + KDMV_OVERHEAD);
	h->open_log = !memcmp(p + UNDO_OPEN_AT, UNDO_OPEN, strlen(UNDO_OPEN));
	if (!h->capacity || h->capacity > CAPACITY_MAX)
		return bad_header(src, e, "capacity of %" PRIu64 " sectors is not from 1 to "
				  "%" PRIu64, h->capacity, CAPACITY_MAX);
	if (!is_pow2(h->grain) || h->grain > GRAIN_MAX)
		return bad_header(src, e, "grain size %" PRIu64 " is not a power of two from 1 to %u "
				  "sectors", h->grain, GRAIN_MAX);
	if (!is_pow2(h->entries) || h->entries < 128 || h->entries > 4096)
		return bad_header(src, e, "%" PRIu64 " entries a grain table are not a power of two "
				  "from 128 to 4096", h->entries);
	h->tables = div_up(h->capacity, h->grain * h->entries);
	if (h->tables > DIR_MAX)
		return fail(e, EFBIG,
			    "%s: hosted sparse header: a directory of %" PRIu64
			    " entries is over the limit of %" PRIu64,
			    src->name, h->tables, DIR_MAX);
	return 0;
}

/* Spools what a stream cannot give in its order, before any of it is released. */
static int prepare_stream(struct source *src, const struct head *h, struct err *e)
{
	uint8_t last;

	/* only its end tells how far an unfinished log can be believed; records are inflated whole */
	if (h->open_log ||
	    (h->compressed && source_window(src) + deflate_record_max(h->grain * SECTOR) >
				      source_room(src))) {
		return source_spool_all(src, h->open_log ? SPOOL_LOG : SPOOL_RECORDS, e);
	}
	/* the descriptor is read later, and may lie further back than the windows reach */
	if (h->desc && h->desc_size && h->desc_size <= DESCRIPTOR_MAX &&
	    h->desc < POS_LIMIT / SECTOR)
		return source_read(src, (h->desc + h->desc_size) * SECTOR - 1, &last, 1,
				   "descriptor", e);
	return 0;
}

/* Where the directory is, or that markers take its place. */
static int find_directory(struct source *src, struct head *h, int copies, struct err *e)
{
	const bool redundant = h->flags & KDMV_FLAG_REDUNDANT;
	uint8_t footer[KDMV_HEADER] = {0};
	int r;

	if (h->compressed && src->streaming) { /* tables behind the grains come too late */
		h->by_markers = (copies == COPY_REDUNDANT ? h->rgd : h->gd) >= h->overhead;
	} else if (h->compressed && h->gd == KDMV_GD_AT_END) {
		r = find_footer(src, h->bytes, footer, &h->footer_at, e);
		if (r < 0)
			return r;
		/* without it the redundant directory can still be asked for */
		h->by_markers = h->footless = !r && !(copies == COPY_REDUNDANT && redundant);
		if (r) { /* it repeats the rest of the header */
			h->rgd = le64(footer + KDMV_RGD);
			h->gd = le64(footer + KDMV_GD);
		}
	}
	if (copies == COPY_REDUNDANT && !redundant)
		return fail(e, EBADMSG, "%s: has no redundant grain directory (flags 0x%" PRIx32 ")",
			    src->name, h->flags);
	return h->by_markers ? 0
			     : check_directories(src, h->gd, redundant ? &h->rgd : NULL, h->overhead,
					 copies, e);
}

static int check_places(const struct source *src, const struct head *h, struct err *e)
{
	const uint64_t file_sectors = src->size / SECTOR;

	if (h->overhead > file_sectors && h->overhead < POS_LIMIT / SECTOR)
		return fail_outside(e, src->name, src->size, h->overhead * SECTOR,
				    OBJECT("hosted sparse header") ": the overhead of %" PRIu64 " sectors",
				    h->overhead);
	if (h->overhead < 1 || h->overhead > file_sectors)
		return bad_header(src, e, "overhead of %" PRIu64 " sectors, in a file of %" PRIu64
				  " bytes", h->overhead, src->size);
	if ((h->desc || h->desc_size) &&
	    (h->desc < 1 || h->desc_size > DESCRIPTOR_MAX || h->desc > file_sectors))
		return bad_header(src, e, "descriptor of %" PRIu64 " sectors at file sector "
				  "%" PRIu64 ", in a file of %" PRIu64 " bytes", h->desc_size,
				  h->desc, src->size);
	return 0;
}

static int warn_unusual(const struct source *src, const struct head *h, struct err *e)
{
	int r = 0;

	if (h->grain < 8 || h->grain > 128)
		r = warning(e, "%s: hosted sparse grain size is %" PRIu64 " sectors (128 is usual)",
			    src->name, h->grain);
	if (!r && h->entries != 512)
		r = warning(e, "%s: %" PRIu64 " entries a grain table (512 is usual)", src->name,
			    h->entries);
	/* of an open undo log the warning below says more */
	if (!r && h->bytes[KDMV_UNCLEAN] && !(h->by_markers && h->open_log && !src->streaming))
		r = warning(e,
			    "%s: the unclean-shutdown flag is set: the file was in use when it was "
			    "copied, or its host crashed",
			    src->name);
	if (!r && h->by_markers && !src->streaming)
		r = warning(e, "%s: %s", src->name,
			    h->open_log   ? "is an undo log that was not finished; it is read up to "
					    "its last whole record"
			    : h->footless ? "has no usable footer; its grains are found by their "
					    "markers"
					  : "its grains are found by their markers, not by its "
					    "tables");
	return r;
}

static struct streamopt_shape marker_shape(const struct head *h, const struct format_opts *o)
{
	const uint64_t gd = le64(h->bytes + KDMV_GD); /* a footer may have another */
	struct streamopt_shape shape = {
		.size = h->capacity * SECTOR,
		.grain = h->grain * SECTOR,
		.start = h->overhead * SECTOR,
		.table_sectors = div_up(h->entries * 4, SECTOR),
		.dir_sectors = div_up(h->tables * 4, SECTOR),
		.marks = MARKS,
		.open_log = h->open_log,
		/* where the header's word on its directory is not believed, it may have lost it */
		.no_end = gd != KDMV_GD_AT_END || o->copies == COPY_REDUNDANT,
		.opts = *o,
		.is_footer = is_footer,
	};

	memcpy(shape.head, h->bytes, sizeof(shape.head));
	return shape;
}

static struct tree_shape table_shape(const struct head *h, const struct format_opts *o)
{
	const uint64_t dir = (o->copies == COPY_REDUNDANT ? h->rgd : h->gd) * SECTOR;
	struct tree_shape shape = {
		.size = h->capacity * SECTOR,
		.grain = h->grain * SECTOR,
		.dir = dir,
		.tables = h->tables,
		.entries = (uint32_t)h->entries,
		.width = 4,
		.area = {{0, KDMV_HEADER, "header"},
			 {dir, dir + h->tables * 4, "grain directory"}},
		.areas = 2,
		.table = hosted_table,
		.grain_at = hosted_grain,
		.account = h->compressed ? account_compressed : account_plain,
		.count_from = h->overhead * SECTOR,
		.compressed = h->compressed,
		.floor = h->overhead * SECTOR,
		.least = h->overhead * SECTOR,
		.received = hosted_received,
		.judge = h->compressed ? NULL : check_tables,
		.opts = *o,
	};

	if (h->desc)
		shape.area[shape.areas++] = (struct tree_area){
			h->desc * SECTOR, (h->desc + h->desc_size) * SECTOR, "descriptor"};
	if (h->footer_at) /* and its marker */
		shape.area[shape.areas++] = (struct tree_area){
			h->footer_at - SECTOR, h->footer_at + KDMV_HEADER, "footer"};
	if ((h->flags & KDMV_FLAG_REDUNDANT) && o->copies == COPIES_EQUAL) {
		shape.mirror = h->rgd * SECTOR;
		shape.area[shape.areas++] =
			(struct tree_area){shape.mirror, shape.mirror + h->tables * 4,
					    "redundant grain directory"};
	}
	return shape;
}

static int open_by_tables(struct reader **out, struct source *src, const struct head *h,
			  const struct streamopt_shape *markers, const struct format_opts *o,
			  struct err *e)
{
	const struct tree_shape shape = table_shape(h, o);
	struct hosted *hosted = calloc(1, sizeof(*hosted));

	if (!hosted)
		return fail(e, ENOMEM, "out of memory");
	hosted->zeroed = h->flags & KDMV_FLAG_ZEROED;
	hosted->markers = *markers;
	return tree_open(out, &hosted->tree, src, &shape, e);
}

int hosted_open(struct reader **out, struct source *src, const struct format_opts *o,
		struct format_facts *facts, struct err *e)
{
	struct head h = {.footer_at = 0};
	struct streamopt_shape markers;
	int r = read_head(src, &h, e);

	if (!r && src->streaming)
		r = prepare_stream(src, &h, e);
	if (!r)
		r = find_directory(src, &h, o->copies, e);
	if (!r)
		r = check_places(src, &h, e);
	if (r < 0)
		return r;
	markers = marker_shape(&h, o);
	if (h.compressed && !src->streaming && !h.open_log &&
	    (h.footless || (o->unbalanced && o->copies != COPY_REDUNDANT))) {
		r = check_markers(src, &markers, h.footless, e);
		h.by_markers = r > 0;
	}
	if (r >= 0)
		r = warn_unusual(src, &h, e);
	if (r < 0)
		return r;
	r = h.by_markers ? streamopt_open(out, src, &markers, e)
			 : open_by_tables(out, src, &h, &markers, o, e);
	if (r < 0)
		return r;
	*facts = (struct format_facts){
		.format = h.compressed ? "streamOptimized" : "hosted sparse",
		.version = h.version,
		.grain = h.grain * SECTOR,
		.descriptor = h.desc * SECTOR,
		.descriptor_size = h.desc ? h.desc_size * SECTOR : 0,
		.open_log = h.open_log,
	};
	return 0;
}
