/* SPDX-License-Identifier: MIT */
#include "vmdk/tree.h"
#include "vmdk/deflate.h"

#include <inttypes.h>
#include <stdlib.h>

/* --- sums --- */

static void count_place(struct tree *t, uint64_t from, uint64_t to)
{
	struct tree_sums *s = &t->sums;

	to = div_up(to, SECTOR) * SECTOR;
	s->end = max_u64(s->end, to);
	from = max_u64(from, t->shape.count_from) / SECTOR;
	if (from < to / SECTOR)
		s->claimed += to / SECTOR - from;
}

void tree_reset_sums(struct tree *t)
{
	t->sums = (struct tree_sums){.missing = UINT64_MAX};
	for (size_t i = 0; i < t->shape.areas; i++)
		count_place(t, t->shape.area[i].at, t->shape.area[i].end);
}

void tree_count(struct tree *t, const struct tree_scan *scan, const struct tree_span *span)
{
	struct tree_sums *s = &t->sums;

	if (span->pos == TREE_ZEROS) {
		s->zero += scan->grains;
		return;
	}
	s->data += scan->grains;
	count_place(t, span->pos, span->pos + (t->shape.compressed ? SECTOR : span->len));
	if (t->shape.compressed)
		s->hash += account_hash(span->off, span->pos);
	else
		s->beyond += (scan->grains * t->shape.grain - span->len) / SECTOR;
}

int tree_overlap(const struct tree *t, const char *what, uint64_t n, uint64_t at, uint64_t end,
		 struct err *e)
{
	const uint64_t unit = t->shape.unit * SECTOR;

	for (size_t i = 0; i < t->shape.areas; i++)
		if (at < div_up(t->shape.area[i].end, unit) * unit &&
		    end > t->shape.area[i].at / unit * unit)
			return fail_with(e, EBADMSG, FACTS(AT_BYTE(at)),
				    "%s: " OBJECT("%s %" PRIu64) " at file sector %" PRIu64 " lies inside the %s",
				    t->reader.name, what, n, at / SECTOR, t->shape.area[i].what);
	return fail_with(e, EBADMSG, FACTS(AT_BYTE(at)),
		    "%s: " OBJECT("%s %" PRIu64) " at file sector %" PRIu64
		    " lies on sectors of another table or grain",
		    t->reader.name, what, n, at / SECTOR);
}

/* --- tables --- */

const char *tree_table_text(bool copy)
{
	return copy ? "redundant grain table" : "grain table";
}

static int check_table(struct tree *t, bool copy, uint64_t i, uint64_t pos, uint64_t limit, bool count,
		       struct err *e)
{
	const size_t bytes = tree_table_bytes(t);

	if (pos > limit || bytes > limit - pos)
		return fail_outside(e, t->reader.name, limit, pos + bytes,
				    OBJECT("%s %" PRIu64) " at file sector %" PRIu64, tree_table_text(copy), i,
				    pos / SECTOR);
	if (count)
		count_place(t, pos, pos + bytes);
	return 0;
}

int tree_tables(struct tree *t, uint64_t i, uint64_t raw, uint64_t raw_mirror, uint64_t limit, bool count,
		uint64_t *pos, uint64_t *mirror, struct err *e)
{
	int used = raw ? t->shape.table(t, i, raw, pos, e) : 0, copy = used;
	int r = used > 0 ? check_table(t, false, i, *pos, limit, count, e) : used;

	if (!r && mirror)
		copy = raw_mirror ? t->shape.table(t, i, raw_mirror, mirror, e) : 0;
	if (r < 0 || copy < 0)
		return r < 0 ? r : copy;
	if (copy != used || (used && mirror && *mirror == *pos))
		return fail(e, EBADMSG,
			    "%s: " OBJECT("directory entry %" PRIu64) " and its redundant copy do not agree: it is "
			    "damaged" HINT "; copy it again, or try --dry-run with %s",
			    t->reader.name, i,
			    !used   ? "--force=rgd (reads the redundant one)"
			    : !copy ? "--force=gd (reads the first)"
				    : "--force=gd (reads the first) or --force=rgd (the redundant one)");
	if (used && mirror)
		r = check_table(t, true, i, *mirror, limit, count, e);
	if (count && used)
		t->sums.tables++;
	else if (count)
		t->sums.missing = min_u64(t->sums.missing, i);
	return r < 0 ? r : used;
}

/* --- grains --- */

int tree_scan_begin(struct tree *t, struct tree_scan *s, uint64_t index, const uint8_t *p, uint64_t limit,
		    struct err *e)
{
	const uint64_t base = index * t->shape.entries;
	const uint64_t grains = div_up(t->shape.size, t->shape.grain);
	const uint32_t used = (uint32_t)min_u64(t->shape.entries, grains - base);
	const size_t at = (size_t)used * t->shape.width;

	*s = (struct tree_scan){.p = p, .base = base, .limit = limit, .used = used};
	if (all_zero(p + at, tree_table_bytes(t) - at))
		return 0;
	return warning_once(&t->warned_beyond, e,
			    "%s: grain table %" PRIu64
			    " has entries for grains beyond the end of the disk; they are ignored",
			    t->reader.name, index);
}

/* Decodes entry k, and checks that it leads to bytes of the file. */
static int decode(struct tree *t, struct tree_scan *s, uint64_t raw, struct err *e)
{
	const uint64_t n = s->base + s->k, limit = s->limit;
	const uint64_t len = t->shape.compressed
				     ? 1
				     : min_u64(t->shape.grain, t->shape.size - n * t->shape.grain);

	s->kind = t->shape.grain_at(t, n, raw, &s->pos, e);
	if (s->kind == GRAIN_DATA && (s->pos > limit || len > limit - s->pos))
		return fail_outside(e, t->reader.name, limit, s->pos + len,
				    OBJECT("grain %" PRIu64) " at file sector %" PRIu64, n, s->pos / SECTOR);
	return s->kind;
}

/* The first entry from k on that is in use, or s->used. */
static uint32_t skip_unused(const struct tree *t, const struct tree_scan *s)
{
	const uint32_t width = t->shape.width, stride = 32 / width;
	uint32_t k = s->k;

	for (; k + stride <= s->used; k += stride) {
		const uint8_t *q = s->p + k * width;

		if (le64(q) | le64(q + 8) | le64(q + 16) | le64(q + 24))
			break;
	}
	while (k < s->used && !tree_entry(t, s->p + k * width))
		k++;
	return k;
}

/* The first entry behind k that is not the plain grain that follows the one before, of which `raw` is that
 * of k; or s->used. With grains of one sector there are two million entries in a GiB. */
static uint32_t skip_plain(const struct tree *t, const struct tree_scan *s, uint64_t raw)
{
	const uint64_t step = t->shape.grain / SECTOR, limit = s->limit;
	const uint64_t to = limit < t->shape.grain ? 0
						   : min_u64(t->shape.promised / SECTOR,
							     (limit - t->shape.grain) / SECTOR + 1);
	uint32_t k = s->k + 1;

	if (raw < t->shape.floor / SECTOR || t->shape.width != 4)
		return k;
	while (k < s->used && (raw += step) < to && le32(s->p + k * 4) == raw)
		k++;
	return k;
}

int tree_scan_next(struct tree *t, struct tree_scan *s, struct tree_span *span, struct err *e)
{
	const uint32_t width = t->shape.width;
	uint64_t raw, pos;
	uint32_t begin;
	int kind;

	if (s->kind == GRAIN_NONE) {
		s->k = skip_unused(t, s);
		if (s->k == s->used)
			return 0;
		kind = decode(t, s, tree_entry(t, s->p + s->k * width), e);
		if (kind < 0)
			return kind;
	}
	begin = s->k;
	kind = s->kind;
	pos = s->pos;
	s->k = kind == GRAIN_DATA ? skip_plain(t, s, tree_entry(t, s->p + begin * width)) : begin + 1;
	s->kind = GRAIN_NONE;
	while (s->k < s->used && (raw = tree_entry(t, s->p + s->k * width))) {
		int next = decode(t, s, raw, e);

		if (next < 0)
			return next;
		if (next != kind ||
		    (kind == GRAIN_DATA && (t->shape.compressed ||
					    s->pos != pos + (s->k - begin) * t->shape.grain)))
			break;
		s->kind = GRAIN_NONE;
		s->k++;
	}
	s->grains = s->k - begin;
	span->off = (s->base + begin) * t->shape.grain;
	span->len = min_u64(s->grains * t->shape.grain, t->shape.size - span->off);
	span->pos = kind == GRAIN_ZERO ? TREE_ZEROS : pos;
	return 1;
}

void tree_run(struct tree *t, const struct tree_span *span, struct run *run)
{
	*run = (struct run){.off = span->off, .len = span->len, .kind = RUN_ZERO};
	if (span->pos == TREE_ZEROS)
		return;
	run->pos = span->pos;
	if (t->shape.compressed) {
		run->kind = RUN_COMPRESSED;
		run->skip = span->off;
		run->leaf = &t->reader;
	} else {
		run->kind = RUN_RAW;
		run->src = t->src;
	}
}

/* --- its life --- */

int tree_init(struct tree *t, struct source *src, const struct tree_shape *shape,
	      const struct reader_ops *ops, struct err *e)
{
	for (size_t i = 0; i < shape->areas; i++) {
		const struct tree_area *a = &shape->area[i];

		if (a->at > a->end || a->end > src->size)
			return fail_outside(e, src->name, src->size, a->end,
					    "the " OBJECT("%s") " (file sectors %" PRIu64 " to %" PRIu64 ")",
					    a->what, a->at / SECTOR, a->end / SECTOR);
		for (size_t j = 0; j < i; j++)
			if (a->at < shape->area[j].end && shape->area[j].at < a->end)
				return fail(e, EBADMSG,
					    "%s: the %s at file sector %" PRIu64
					    " lies inside the %s",
					    src->name, a->what, a->at / SECTOR,
					    shape->area[j].what);
	}
	reader_init(&t->reader, ops, src->name, shape->size);
	t->shape = *shape;
	if (!t->shape.unit)
		t->shape.unit = 1;
	t->src = src;
	t->first = true;
	tree_reset_sums(t);
	return 0;
}

void tree_free(struct tree *t)
{
	inflater_free(t->inflater);
	source_free(t->src);
	free(t);
}
