/* SPDX-License-Identifier: MIT */
#include "chain/chain.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- layers on top of each other ----------------------------------------------------------------- */

struct layer {
	struct reader *reader;
	struct run run; /* what it has next; behind everything: nothing more */
	uint64_t size;  /* what it has beyond is dropped */
};

struct merge {
	struct reader reader;
	uint64_t from;        /* gaps behind this byte read as zeros */
	uint64_t at;          /* everything before it was given */
	size_t n;
	struct layer layer[]; /* newest first */
};

/* Makes l->run begin at or behind `from`. */
static int advance(struct layer *l, uint64_t from, struct err *e)
{
	while (l->run.off + l->run.len <= from) {
		int got = reader_next(l->reader, &l->run, e);

		if (got < 0)
			return got;
		if (!got || l->run.off >= l->size)
			l->run = (struct run){.off = UINT64_MAX};
		else
			l->run.len = min_u64(l->run.len, l->size - l->run.off);
		l->run.layer = l->reader->layer;
	}
	if (l->run.off < from)
		run_trim_front(&l->run, from - l->run.off);
	return 0;
}

static int merge_next(struct reader *reader, struct run *run, struct err *e)
{
	struct merge *m = container_of(reader, struct merge, reader);
	uint64_t end = reader->size, zeros = max_u64(m->at, m->from);
	size_t top = m->n;

	for (size_t i = 0; i < m->n; i++) {
		int r = advance(&m->layer[i], m->at, e);

		if (r < 0)
			return r;
		if (m->layer[i].run.off < end) { /* the lowest offset; ties go to the newest */
			end = m->layer[i].run.off;
			top = i;
		}
	}
	if (zeros < end) {
		*run = (struct run){
			.off = zeros, .len = end - zeros, .kind = RUN_ZERO, .layer = LAYER_NONE};
		m->at = end;
		return 1;
	}
	if (top == m->n)
		return 0;
	*run = m->layer[top].run;
	end = run->off + run->len;
	for (size_t i = 0; i < top; i++) /* a newer one that begins inside ends it */
		end = min_u64(end, m->layer[i].run.off);
	run->len = end - run->off;
	m->at = end;
	return 1;
}

static int merge_rewind(struct reader *reader, struct err *e)
{
	struct merge *m = container_of(reader, struct merge, reader);
	int r = 0;

	m->at = 0;
	for (size_t i = 0; !r && i < m->n; i++) {
		m->layer[i].run = (struct run){0};
		r = reader_rewind(m->layer[i].reader, e);
	}
	return r;
}

static void merge_free(struct reader *reader)
{
	struct merge *m = container_of(reader, struct merge, reader);

	for (size_t i = 0; i < m->n; i++)
		reader_free(m->layer[i].reader);
	free(m);
}

static const struct reader_ops merge_ops = {
	.next = merge_next,
	.rewind = merge_rewind,
	.free = merge_free,
};

int merge_new(struct reader **out, struct reader *const *layers, size_t n, uint64_t size,
	      uint64_t zeros_from, struct err *e)
{
	struct merge *m = calloc(1, sizeof(*m) + n * sizeof(m->layer[0]));

	if (!m) {
		for (size_t i = 0; i < n; i++)
			reader_free(layers[i]);
		return fail(e, ENOMEM, "out of memory");
	}
	m->n = n;
	m->from = zeros_from;
	reader_init(&m->reader, &merge_ops, n ? layers[0]->name : "nothing", size);
	for (size_t i = 0; i < n; i++) {
		size = min_u64(size, layers[i]->size);
		m->layer[i] = (struct layer){.reader = layers[i], .size = size};
	}
	*out = &m->reader;
	return 0;
}

/* --- the images ---------------------------------------------------------------------------------- */

static struct image *lowest(const struct chain *c)
{
	return c->link[c->links - 1];
}

/* The link that has this file: as itself, as an extent, or as the descriptor found beside it. */
static const struct image *link_of(const struct chain *c, const struct stat *st)
{
	for (size_t i = 0; i < c->links; i++)
		for (size_t k = 0; k < c->link[i]->files; k++)
			if (same_file(&c->link[i]->file[k].st, st))
				return c->link[i];
	return NULL;
}

/* Whether an image is a link already, by whatever file of its own. */
static bool is_link(const struct chain *c, const struct image *m)
{
	for (size_t i = 0; i < c->links; i++)
		for (size_t k = 1; k < m->files; k++)
			if (same_file(&c->link[i]->file[0].st, &m->file[k].st))
				return true;
	return link_of(c, &m->file[0].st);
}

/* by_hand: the user named the parent, the child did not. */
static int check_cid(const struct image *child, const struct image *parent, bool by_hand,
		     const struct chain_opts *o, struct err *e)
{
	const struct descriptor *c = child->descriptor, *p = parent->descriptor;
	char cid[32] = "no CID";

	if (parent->raw || !c || child->undo)
		return 0;
	if (!descriptor_has_parent(c))
		return warning(e, "%s: says that it has no parent, but is put on top of %s",
			       child->name, parent->name);
	if (p && p->has_cid) {
		if (p->cid == c->parent_cid)
			return 0;
		snprintf(cid, sizeof(cid), "CID %08" PRIx32, p->cid);
	} else if (by_hand) {
		return 0;
	}
	if (o->force_cid)
		return warning(e, "%s: its parent has CID %08" PRIx32 ", but %s has %s: what %s does "
				  "not hold may be wrong", child->name, c->parent_cid, parent->name,
			       cid, child->name);
	return fail_with(e, ESTALE, FACTS(.code = ERR_WRONG_PARENT),
		    "%s: its parent has CID %08" PRIx32 ", but %s has %s: it is another disk, or was "
		    "written to since, and what %s does not hold may be wrong" HINT " (--force=cid skips this check)",
		    child->name, c->parent_cid, parent->name, cid, child->name);
}

/* The capacity in a header may be rounded up to a whole grain; a descriptor has the exact size. */
static bool rounds_to(const struct image *m, uint64_t size)
{
	return !m->descriptor && m->size > size && m->size - size < m->facts.grain;
}

/* VMware has all links of one size, so that others are of another disk, or damaged. What --force=size
 * means is QEMU's reading: nothing of a parent is seen behind the end of a smaller child, and nothing
 * but zeros behind the end of a smaller parent. A raw disk may be larger: devices are rounded up. */
static int check_size(const struct image *child, const struct image *parent,
		      const struct chain_opts *o, struct err *e)
{
	const uint64_t has = child->size / SECTOR, below = parent->size / SECTOR;

	if (has == below || (parent->raw && below > has) || rounds_to(child, parent->size) ||
	    rounds_to(parent, child->size))
		return 0;
	if (o->force_size)
		return warning(e, "%s: has %" PRIu64 " sectors, its parent %s has %" PRIu64,
			       child->name, has, parent->name, below);
	return fail_with(e, EBADMSG, FACTS(.code = ERR_WRONG_SIZE, SIZES(has * SECTOR, below * SECTOR)),
		    "%s: has %" PRIu64 " sectors, but its parent %s has %" PRIu64
		    ": they do not belong to one disk" HINT " (--force=size skips this check)",
		    child->name, has, parent->name, below);
}

/* Takes m over, also when it fails. */
static int push(struct chain *c, struct image *m, const struct chain_opts *o, struct err *e)
{
	int r = 0;

	if (c->links > c->borrowed && !lowest(c)->reader && !o->image.text_only) {
		r = fail(e, ENOENT, "%s: some of its extents are not there, and it is to be read",
			 lowest(c)->name);
	} else if (c->links) {
		r = check_cid(lowest(c), m, !c->named, o, e);
		if (!r)
			r = check_size(lowest(c), m, o, e);
	}
	if (r < 0) {
		image_free(m);
		return r;
	}
	c->link[c->links++] = m;
	return 0;
}

/* Opens one place where the parent may be. */
static int try_parent(struct chain *c, struct source *src, const char *path,
		      const struct chain_opts *o, struct err *e)
{
	const struct image *child = lowest(c), *known = link_of(c, &src->st);
	struct err mine = {.warn = e->warn, .arg = e->arg, .strict = e->strict};
	struct image *m;
	int r;

	if (known) {
		r = fail(e, ELOOP, "%s: its parent %s is %s: the parent chain contains a loop",
			 child->name, src->name,
			 known == child ? "the same file" : "one of its own children");
		source_free(src);
		return r;
	}
	r = image_from(&m, src, path, &o->image, &mine);
	if (r < 0)
		return fail_because(e, -r, &mine, "%s: its parent cannot be read: ", child->name);
	return push(c, m, o, e);
}

/* The parent that the lowest link names is the first file, of those where it may be, that fits. */
static int find_parent(struct chain *c, const struct chain_opts *o, struct err *e)
{
	const struct image *child = lowest(c);
	const struct descriptor *d = child->descriptor;
	struct err first = {.warn = e->warn, .arg = e->arg, .strict = e->strict};
	struct source *src;
	struct lookup l;
	char *path;
	int r, code = 0;

	if (!d->parent_hint)
		return fail_with(e, ENOENT, FACTS(.code = ERR_MISSING_PARENT),
			    "%s: has a parent (CID %08" PRIx32
			    "), but does not name it (no parentFileNameHint)" HINT "; --base can",
			    child->name, d->parent_cid);
	if (c->links == CHAIN_MAX)
		return fail(e, EFBIG, "%s: the chain has more than %u images", child->name,
			    CHAIN_MAX);
	r = lookup_begin(&l, child->path, child->name, d->parent_hint, &o->image.lookup, e);
	while (!r && (r = lookup_next(&l, &src, &path, &first)) != 0) {
		if (r > 0) {
			r = try_parent(c, src, path, o, &first);
			free(path);
			if (!r)
				goto out;
		}
		code = code ? code : r;
		r = 0;
	}
	if (!r && code)
		r = fail_again(e, -code, &first);
	else if (!r)
		r = fail_with(e, ENOENT, FACTS(.code = ERR_MISSING_PARENT),
			 "%s: its parent (CID %08" PRIx32 ") is not there: %s" HINT "; --search DIR says where "
			 "else to look",
			 child->name, d->parent_cid, l.shown);
out:
	lookup_end(&l);
	return r;
}

/* Adds the parents of the lowest link, and theirs. */
static int find_parents(struct chain *c, const struct chain_opts *o, struct err *e)
{
	for (;;) {
		const struct image *m = lowest(c);
		int r;

		if (m->undo)
			return fail(e, ENODATA,
				    "%s: is an undo log: its parent is the disk that it was made of, with the "
				    "changes" HINT "; name it with --base", m->name);
		if (o->alone && (!m->descriptor || !descriptor_has_parent(m->descriptor)) && c->links == 1) {
			c->start = o->image.offset;
			return 0;
		}
		if (m->raw || (m->descriptor && !descriptor_has_parent(m->descriptor)))
			return 0;
		if (!m->descriptor || (m->found && !o->found))
			return fail(e, ENODATA,
				    "%s: has no descriptor, so its parent is not known" HINT "; name that "
				    "with --base, or say with --offset that there is none", m->name);
		r = find_parent(c, o, e);
		if (r < 0)
			return r;
	}
}

/* Adds the parents of the lowest link: base, or what descriptors name. Frees c when it fails. */
static int add_parents(struct chain **out, struct chain *c, const struct chain_opts *o, struct err *e)
{
	struct image *m;
	int r = 0;

	if (o->base) {
		r = image_open_base(&m, o->base, &o->image, e);
		if (!r)
			r = push(c, m, o, e);
	}
	if (r < 0) {
		chain_free(c);
		return r;
	}
	c->named = c->links;
	c->incomplete = o->parents ? find_parents(c, o, &c->why) : 0;
	for (size_t i = c->borrowed; i < c->links; i++)
		if (c->link[i]->reader)
			c->link[i]->reader->share = (unsigned)c->links;
	assert(c->links);
	*out = c;
	return 0;
}

int chain_open(struct chain **out, const char *const *path, size_t n, const struct chain_opts *o,
	       struct err *e)
{
	struct chain *c = calloc(1, sizeof(*c));
	struct image *m;
	int r = 0;

	if (!c)
		return fail(e, ENOMEM, "out of memory");
	c->why = (struct err){.warn = e->warn, .arg = e->arg, .strict = e->strict};
	if (n > CHAIN_MAX - 1)
		r = fail(e, EFBIG, "%zu images are more than %u", n, CHAIN_MAX - 1);
	while (!r && n--) {
		r = image_open(&m, path[n], &o->image, e);
		if (!r && is_link(c, m)) {
			r = fail(e, EINVAL, "%s: is named twice", m->name);
			image_free(m);
		} else if (!r) {
			r = push(c, m, o, e);
		}
	}
	if (!r)
		return add_parents(out, c, o, e);
	chain_free(c);
	return r;
}

int chain_beneath(struct chain **out, const struct chain *of, size_t n, const struct chain_opts *o,
		  struct err *e)
{
	struct chain *c = calloc(1, sizeof(*c));

	if (!c)
		return fail(e, ENOMEM, "out of memory");
	memcpy(c->link, of->link, n * sizeof(c->link[0]));
	c->links = c->borrowed = n;
	return add_parents(out, c, o, e);
}

int chain_read(struct chain *c, size_t from, size_t n, bool whole, struct err *e)
{
	struct reader *layer[CHAIN_MAX] = {0};
	uint64_t size = c->link[from]->size;

	for (size_t i = 0; i < from; i++) /* a raw base may be larger */
		size = min_u64(size, c->link[i]->size);
	for (size_t i = 0; i < n; i++) {
		struct image *m = c->link[from + i];

		layer[i] = m->reader;
		m->reader->layer = (unsigned)(from + i);
		m->reader = NULL;
	}
	/* merge_new() numbers the runs, too; a stream fills its gaps itself, see format.h */
	if (n > 1 || from || (whole && !layer[0]->streaming))
		return merge_new(&c->reader, layer, n, size, whole ? c->start : UINT64_MAX, e);
	c->reader = layer[0];
	return 0;
}

int chain_unchanged(const struct chain *c, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < c->links; i++)
		for (size_t k = 0; !r && k < c->link[i]->files; k++)
			if (c->link[i]->file[k].src)
				r = source_unchanged(c->link[i]->file[k].src, e);
	return r;
}

void chain_free(struct chain *c)
{
	if (!c)
		return;
	reader_free(c->reader);
	for (size_t i = c->borrowed; i < c->links; i++)
		image_free(c->link[i]);
	free(c);
}
