/* SPDX-License-Identifier: MIT */
/* See image.h. Magic numbers: "Virtual Disk Format 5.0", and the formats' own public descriptions. */
#include "chain/image.h"
#include "chain/beside.h"
#include "chain/sides.h"
#include "vmdk/zerolog.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PROBE 36864u /* the mark of an ISO 9660 image lies at 32769 */
#define DESCRIPTOR_MAX (1024u * 1024)

/* --- what a file is ------------------------------------------------------------------------------ */

typedef int opener(struct reader **out, struct source *src, const struct format_opts *o,
		   struct format_facts *facts, struct err *e);

struct magic {
	size_t at, len;
	const char *bytes;
	opener *open;
	const char *refusal; /* where open is NULL: what the file is */
	const char *driver;  /* of a disk image: what qemu-nbd calls it */
};

static const struct magic magics[] = {
	{0, 4, "COWD", cowd_open, NULL, NULL},
	{0, 4, "KDMV", hosted_open, NULL, NULL},
	{0, 8, "\xbe\xba\xfe\xca\0\0\0\0", sesparse_open, NULL, NULL},
	{0, 4, "kdmv", NULL, "unfinished: the tool that wrote it did not come to its end", NULL},
	{0, 4, "\xa2\x72\x19\xf6", NULL,
	 "a changed-block-tracking file (-ctk.vmdk) and holds no disk data", NULL},
	{0, 4, "QFI\xfb", NULL, "a qcow2 image", "qcow2"},
	{0, 4, "QED", NULL, "a QED image", "qed"},
	{0, 8, "conectix", NULL, "a VHD image", "vpc"},
	{0, 8, "vhdxfile", NULL, "a VHDX image", "vhdx"},
	{64, 4, "\x7f\x10\xda\xbe", NULL, "a VDI image", "vdi"},
	{0, 2, "\x1f\x8b", NULL, "compressed with gzip; unpack it first", NULL},
	{0, 6, "\xfd" "7zXZ\0", NULL, "compressed with xz; unpack it first", NULL},
	{0, 4, "\x28\xb5\x2f\xfd", NULL, "compressed with zstd; unpack it first", NULL},
	{0, 4, "\x04\x22\x4d\x18", NULL, "compressed with lz4; unpack it first", NULL},
	{0, 3, "BZh", NULL, "compressed with bzip2; unpack it first", NULL},
	{0, 4, "PK\3\4", NULL, "a ZIP archive; unpack it first", NULL},
	{257, 5, "ustar", NULL, "a tar archive (an OVA?); unpack it first", NULL},
	{32769, 5, "CD001", NULL, "an ISO image, not a VMDK", NULL},
	{510, 2, "\x55\xaa", NULL,
	 "a raw disk with a boot sector, not a delta; --raw writes such a disk", NULL},
};

static const struct magic *find_magic(const uint8_t *head, size_t n)
{
	for (size_t i = 0; i < sizeof(magics) / sizeof(*magics); i++) {
		const struct magic *k = &magics[i];

		if (k->at + k->len <= n && memcmp(head + k->at, k->bytes, k->len) == 0)
			return k;
	}
	return NULL;
}

#define SHOWN 24u /* bytes of a text */

/* Not a VMDK: shows how the file begins, which may be the text of an error or a listing. */
static int unknown(const struct source *src, const uint8_t *head, size_t n, struct err *e)
{
	char begins[SHOWN + 16], size[48] = "";
	size_t i = 0;

	if (!n)
		return fail(e, EBADMSG, "%s: is empty (0 bytes)", src->name);
	while (i < n && i < SHOWN && head[i] >= ' ' && head[i] < 0x7f)
		i++;
	if (i >= 4)
		snprintf(begins, sizeof(begins), "the text \"%.*s\"", (int)i, (const char *)head);
	else
		snprintf(begins, sizeof(begins), "%02x %02x %02x %02x", head[0], n > 1 ? head[1] : 0,
			 n > 2 ? head[2] : 0, n > 3 ? head[3] : 0);
	if (!src->streaming) /* else nobody knows it yet */
		snprintf(size, sizeof(size), ", in %" PRIu64 " bytes", src->size);
	return fail(e, ENOTSUP,
		    "%s: is not a recognized VMDK (it begins with %s%s); --raw writes a raw disk",
		    src->name, begins, size);
}

/* The opener for what the file holds; NULL: it is a text descriptor. Refuses what is none of ours. */
static int probe(struct source *src, opener **open, struct err *e)
{
	uint8_t head[PROBE];
	const struct magic *k;
	size_t n;
	int r = source_head(src, head, sizeof(head), &n, e);

	if (r < 0)
		return r;
	k = find_magic(head, n);
	if (k && !k->open)
		return fail(e, ENOTSUP, "%s: is %s%s", src->name, k->refusal,
			    k->driver ? ", not a VMDK" : "");
	*open = k ? k->open : NULL;
	return k || (n && descriptor_looks_like(head, n)) ? 0 : unknown(src, head, n, e);
}

static int note_file(struct image *m, const struct source *src, const struct descriptor_extent *x,
		     struct err *e)
{
	struct image_file *more = realloc(m->file, (m->files + 1) * sizeof(*more));
	char *name = strdup(src->name);

	if (more)
		m->file = more;
	if (!more || !name) {
		free(name);
		return fail(e, ENOMEM, "out of memory");
	}
	m->file[m->files++] = (struct image_file){name, src->st, src, x};
	/* cppcheck-suppress memleak ; it is in the array */
	return 0;
}

static int read_descriptor(struct image *m, struct source *src, uint64_t at, uint64_t size,
			   bool embedded, struct err *e)
{
	char *text;
	int r;

	if (size > DESCRIPTOR_MAX)
		return fail(e, EFBIG, "%s: a descriptor of %" PRIu64 " bytes is over the limit of %u",
			    src->name, size, DESCRIPTOR_MAX);
	text = malloc(size);
	if (!text)
		return fail(e, ENOMEM, "out of memory");
	r = source_read(src, at, text, size, "descriptor", e);
	if (!r)
		r = descriptor_parse(&m->descriptor, src->name, text, size, embedded, e);
	if (!r && embedded)
		r = undo_note_parse(&m->undo, text, size, e);
	if (m->undo)
		m->undo->finished = !m->facts.open_log;
	free(text);
	return r;
}

/* --- a bare extent ------------------------------------------------------------------------------- */

/* "-s002.vmdk" and so on: an extent of a split disk, not the first. */
static bool later_extent(const char *path)
{
	const char *p = strrchr(path, '-');
	size_t digits = p && (p[1] == 's' || p[1] == 'S') ? strspn(p + 2, "0123456789abcdefABCDEF") : 0;

	return digits >= 3 && !strcasecmp(p + 2 + digits, ".vmdk") && strtoul(p + 2, NULL, 16) > 1;
}

/* Whether the extent holds a disk of that size. A capacity may be rounded up to a whole grain. */
static bool fits(const struct reader *r, const struct format_facts *f, uint64_t size)
{
	return r->size >= size && r->size - size < f->grain;
}

static const struct {
	opener *open; /* NULL: raw, or zeros */
	const char *word;
} types[] = {
	[EXTENT_SPARSE] = {hosted_open, "SPARSE"},
	[EXTENT_VMFSSPARSE] = {cowd_open, "VMFSSPARSE"},
	[EXTENT_SESPARSE] = {sesparse_open, "SESPARSE"},
	[EXTENT_ZERO] = {NULL, NULL},
};

/* The descriptor that lies beside the extent, with the facts that the extent does not have itself. */
static int find_descriptor(struct image *m, opener *open, const struct image_opts *o, struct err *e)
{
	struct source *src;
	uint64_t size;
	char *where;
	int r = beside_find(&src, &where, m->path, &m->file[0].st, &o->lookup, e);

	if (r <= 0)
		return r;
	r = read_descriptor(m, src, 0, src->size, false, e);
	size = r < 0 ? 0 : m->descriptor->extent[0].sectors * SECTOR;
	if (!r && (types[m->descriptor->extent[0].type].open != open ||
		   (o->force_size && !fits(m->reader, &m->facts, size)))) {
		descriptor_free(m->descriptor);
		m->descriptor = NULL;
	} else if (!r && !fits(m->reader, &m->facts, size)) {
		r = fail(e, EBADMSG,
			 "%s: holds %" PRIu64 " sectors, but its descriptor %s says %" PRIu64
			 ": it is damaged or of another disk (--force=size ignores the descriptor)",
			 m->name, m->reader->size / SECTOR, src->name, size / SECTOR);
	} else if (!r) {
		r = note_file(m, src, NULL, e);
		m->found = true;
		m->text = src;
		src = NULL;
		free(m->path);
		m->path = where;
		where = NULL;
	}
	free(where);
	source_free(src);
	return r;
}

/* Its reader becomes one of `size` bytes from byte `start` of the disk on. */
static int place(struct image *m, uint64_t start, uint64_t size, struct err *e)
{
	struct sides *s = sides_new(m->name, 1);

	if (!s)
		return fail(e, ENOMEM, "out of memory");
	sides_add(s, m->reader, start, size);
	m->reader = &s->reader;
	if (s->reader.size > POS_LIMIT) /* both below POS_LIMIT, their sum is no wrap */
		return fail(e, EFBIG, "%s: --offset %" PRIu64 " is too far out", m->name, start);
	return 0;
}

/* Takes src over when it succeeds. */
static int open_bare(struct image *m, struct source *src, opener *open, const struct image_opts *o,
		     struct err *e)
{
	struct format_opts format = o->format;
	uint64_t size;
	int r;

	format.unaccounted = &m->unaccounted;
	r = open(&m->reader, src, &format, &m->facts, e);
	if (!r && m->facts.descriptor_size)
		r = read_descriptor(m, src, m->facts.descriptor, m->facts.descriptor_size, true, e);
	if (r < 0)
		return r;
	if (m->undo)
		m->reader = zerolog_over(m->reader, src, m->facts.grain);
	if (m->descriptor && m->descriptor->extents != 1)
		return fail(e, ENOTSUP,
			    "%s: its embedded descriptor lists %zu extents; name the descriptor of "
			    "the whole disk",
			    m->name, m->descriptor->extents);
	if (m->descriptor && m->descriptor->extent[0].type != EXTENT_SPARSE)
		return fail(e, ENOTSUP,
			    "%s: line %u: its embedded descriptor lists an extent that is not the "
			    "file itself",
			    m->name, m->descriptor->extent[0].line);
	if (!o->placed && !m->descriptor && !src->piped) {
		r = find_descriptor(m, open, o, e);
		if (r < 0)
			return r;
	}
	if (!o->placed && !m->descriptor && later_extent(m->path))
		return fail(e, ENOTSUP,
			    "%s: is an extent of a split disk and does not say where it belongs; name "
			    "the disk's descriptor, or give --offset",
			    m->name);
	size = m->descriptor ? m->descriptor->extent[0].sectors * SECTOR : 0;
	if (size && !fits(m->reader, &m->facts, size))
		return fail(e, EBADMSG, "%s: holds %" PRIu64 " sectors, but its descriptor says %" PRIu64,
			    m->name, m->reader->size / SECTOR, size / SECTOR);
	if (!size)
		size = m->reader->size;
	if (size == m->reader->size && !o->placed)
		return 0;
	return place(m, o->placed ? o->offset : 0, size, e);
}

/* --- a descriptor and its extents ----------------------------------------------------------------- */

/* *src becomes NULL when the reader has taken it over. */
static int open_sparse_extent(struct image *m, struct reader **r, struct source **src,
			      const struct descriptor_extent *x, const struct image_opts *o, struct err *e)
{
	const uint64_t size = x->sectors * SECTOR;
	struct format_opts format = o->format;
	struct format_facts facts;
	opener *is;
	int rc = probe(*src, &is, e);

	if (rc < 0)
		return rc;
	if (is != types[x->type].open)
		return fail(e, EBADMSG, "%s: line %u: %s is not a %s extent", m->name, x->line,
			    (*src)->name, types[x->type].word);
	format.unaccounted = &m->unaccounted;
	rc = is(r, *src, &format, &facts, e);
	if (rc < 0)
		return rc;
	*src = NULL;
	if (!m->facts.format)
		m->facts = facts;
	if (fits(*r, &facts, size))
		return 0;
	rc = fail(e, EBADMSG, "%s: line %u: %s holds %" PRIu64 " sectors, the line says %" PRIu64,
		  m->name, x->line, (*r)->name, (*r)->size / SECTOR, x->sectors);
	reader_free(*r);
	return rc;
}

/* The file of an extent. */
static int open_named(struct image *m, struct source **src, const struct descriptor_extent *x,
		      const struct image_opts *o, struct err *e)
{
	struct lookup l;
	char *found = NULL;
	int r = lookup_begin(&l, m->path, m->name, x->file, &o->lookup, e);

	if (!r)
		r = lookup_next(&l, src, &found, e);
	if (!r)
		r = fail(e, ENOENT, "%s: line %u: its extent is not there: %s", m->name, x->line,
			 l.shown);
	free(found);
	lookup_end(&l);
	return r < 0 ? r : 0;
}

static int open_listed(struct image *m, struct reader **r, const struct descriptor_extent *x,
		       const struct image_opts *o, struct err *e)
{
	const uint64_t size = x->sectors * SECTOR;
	struct source *src = NULL;
	int rc;

	if (x->type == EXTENT_ZERO)
		return zero_open(r, m->name, size, e);
	rc = open_named(m, &src, x, o, e);
	if (!rc)
		rc = note_file(m, src, x, e);
	if (!rc && types[x->type].open)
		rc = open_sparse_extent(m, r, &src, x, o, e);
	else if (!rc) {
		if (src->size / SECTOR < x->offset || src->size - x->offset * SECTOR < size)
			rc = fail(e, EBADMSG,
				  "%s: line %u: %s has %" PRIu64 " bytes, the line needs %" PRIu64
				  " to %" PRIu64, m->name, x->line, src->name, src->size,
				  x->offset * SECTOR, x->offset * SECTOR + size);
		else
			rc = flat_open(r, src, x->offset * SECTOR, size, e);
		if (!rc && !m->facts.format)
			m->facts = (struct format_facts){.format = "flat", .grain = SECTOR};
	}
	if (rc < 0)
		source_free(src);
	return rc;
}

/* Of the same file; a sparse extent takes all of it. */
static bool overlap(const struct descriptor_extent *a, const struct descriptor_extent *b)
{
	return types[a->type].open || types[b->type].open ||
	       (a->offset < b->offset + b->sectors && b->offset < a->offset + a->sectors);
}

/* Extents may share a file, but who writes the same bytes twice? */
static int check_shared(const struct image *m, struct err *e)
{
	for (size_t i = 2; i < m->files; i++)
		for (size_t k = 1; k < i; k++) {
			const struct image_file *a = &m->file[k], *b = &m->file[i];

			if (same_file(&a->st, &b->st) && overlap(a->extent, b->extent))
				/* once is enough to know */
				return warning(e, "%s: line %u: %s: bytes of it are those of line %u, too",
					       m->name, b->extent->line, b->name, a->extent->line);
		}
	return 0;
}

static int open_extents(struct image *m, const struct image_opts *o, struct err *e)
{
	struct sides *s;
	uint64_t at = 0;
	int r;

	s = sides_new(m->name, m->descriptor->extents);
	if (!s)
		return fail(e, ENOMEM, "out of memory");
	m->reader = &s->reader;
	for (size_t i = 0; i < m->descriptor->extents; i++) {
		const struct descriptor_extent *x = &m->descriptor->extent[i];
		struct reader *part;

		r = open_listed(m, &part, x, o, e);
		if (r < 0)
			return r;
		sides_add(s, part, at, x->sectors * SECTOR);
		at += x->sectors * SECTOR;
	}
	if (!m->facts.format)
		m->facts = (struct format_facts){.format = "zeros", .grain = SECTOR};
	return check_shared(m, e);
}

static int open_descriptor(struct image *m, const struct image_opts *o, struct err *e)
{
	struct err mine = {.warn = e->warn, .arg = e->arg, .strict = e->strict};
	int r = read_descriptor(m, m->text, 0, m->text->size, false, e);

	if (r < 0 || o->text_only)
		return r;
	r = open_extents(m, o, &mine);
	if (r == -ENOENT && o->base_unread && !descriptor_has_parent(m->descriptor)) {
		reader_free(m->reader);
		m->reader = NULL;
		for (size_t i = 1; i < m->files; i++)
			m->file[i].src = NULL;
		return 0;
	}
	return r < 0 ? fail_again(e, -r, &mine) : 0;
}

/* min: bytes of its mark. What a boot disk may hold further back says nothing. */
static bool looks_like(const uint8_t *head, size_t n, size_t min)
{
	const struct magic *k = find_magic(head, n);

	return (k && k->at == 0 && k->len >= min) || descriptor_looks_like(head, n);
}

bool image_looks_like(const void *head, size_t n, struct image_kind *kind)
{
	const struct magic *k = find_magic(head, n);

	/* a VDI has a text in front of its mark */
	if (k && k->driver && (k->at == 0 || !memcmp(head, "<<< ", 4))) {
		*kind = (struct image_kind){k->refusal, k->driver, false};
		return true;
	}
	*kind = (struct image_kind){.name = "an image or an archive"};
	if (descriptor_looks_like(head, n) || (k && k->open))
		*kind = (struct image_kind){"a VMDK", "vmdk", true};
	return looks_like(head, n, 4); /* an encrypted disk begins with anything */
}

/* Before a disk is written with whatever it holds: is it one? */
static int check_plain(struct source *src, const struct image_opts *o, struct err *e)
{
	struct image_kind kind;
	uint8_t head[SECTOR];
	size_t n;
	int r = source_head(src, head, sizeof(head), &n, e);

	if (r < 0)
		return r;
	if (!n)
		return fail(e, EBADMSG, "%s: is empty (0 bytes)", src->name);
	if (image_looks_like(head, n, &kind))
		return fail(e, EINVAL, "%s: begins as %s does, not as a raw disk: leave --raw away "
				       "(--force=raw takes its bytes as they are)", src->name, kind.name);
	if (n < 3 || head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 || source_is_gzip(src))
		return 0;
	if (!o->source.stream.plain)
		return fail(e, EINVAL, "%s: is compressed with gzip; unpack it first, or send it through a pipe",
			    src->name);
	return warning(e, "%s: begins as gzip data do, and is taken as it is; --raw=gzip decompresses "
			  "a pipe", src->name);
}

/* Takes src over when it succeeds. */
static int open_plain(struct image *m, struct source *src, const struct image_opts *o, struct err *e)
{
	const uint64_t size = src->piped ? o->from + o->source.stream.expect : src->size;
	int r = 0;

	if (src->piped && !o->source.stream.expect)
		r = fail(e, EINVAL, "%s: --raw needs --expect-size=N for what a pipe brings: nothing else says "
				    "how large the disk is, and whether all of it was received", m->name);
	else if (!o->from && !o->force_plain)
		r = check_plain(src, o, e);
	if (!r && size % SECTOR)
		r = fail(e, EINVAL, "%s: %" PRIu64 " bytes are not a whole number of sectors", m->name, size);
	else if (!r && src->piped && !src->streaming && src->size != size)
		r = fail(e, EBADMSG, "%s: has %" PRIu64 " bytes, but %" PRIu64 " were expected", m->name,
			 src->size, size);
	if (!r && src->streaming)
		r = raw_open(&m->reader, src, o->from, size, e);
	else if (!r)
		r = flat_open(&m->reader, src, 0, size, e);
	if (r < 0)
		return r;
	m->facts = (struct format_facts){.format = "raw", .grain = SECTOR};
	m->raw = true;
	return o->placed ? place(m, o->offset, size, e) : 0;
}

/* Has taken src over where it leaves a reader or a text. */
static int open_vmdk(struct image *m, struct source *src, const struct image_opts *o, struct err *e)
{
	opener *open;
	int r = probe(src, &open, e);

	if (r < 0)
		return r;
	if (open && o->text_only)
		return fail(e, EINVAL, "%s: is not a text descriptor, and --descriptors reads no other files",
			    m->name);
	if (open)
		return open_bare(m, src, open, o, e);
	if (o->placed)
		return fail(e, EINVAL, "%s: a descriptor says itself where its extents belong: --offset "
				       "is for bare extents", m->name);
	if (src->piped)
		return fail(e, ENOTSUP,
			    "%s: is a descriptor, and the files it names cannot come through a pipe; "
			    "send the extent (-delta.vmdk, -sesparse.vmdk), or name the descriptor's file",
			    m->name);
	m->text = src;
	return open_descriptor(m, o, e);
}

int image_from(struct image **out, struct source *src, const char *path,
	       const struct image_opts *o, struct err *e)
{
	struct image *m = calloc(1, sizeof(*m));
	int r;

	if (m) {
		m->name = source_is_stdin(path) ? strdup(src->name) : name_text(path);
		m->path = strdup(path);
		m->piped = src->piped ? src : NULL;
	}
	r = m && m->name && m->path ? note_file(m, src, NULL, e) : fail(e, ENOMEM, "out of memory");
	if (!r)
		r = o->plain ? open_plain(m, src, o, e) : open_vmdk(m, src, o, e);
	if (!m || (!m->reader && !m->text))
		source_free(src);
	if (r < 0) {
		image_free(m);
		return r;
	}
	assert(m && (m->reader || m->descriptor));
	m->size = m->reader ? m->reader->size : m->descriptor->sectors * SECTOR;
	*out = m;
	return 0;
}

int image_open(struct image **out, const char *path, const struct image_opts *o, struct err *e)
{
	struct source *src;
	int r = source_open_any(&src, path, &o->source, e);

	return r < 0 ? r : image_from(out, src, path, o, e);
}

int image_open_base(struct image **out, const char *path, const struct image_opts *o, struct err *e)
{
	const struct image_opts plain = {.plain = true, .force_plain = true};
	struct source *src;
	uint8_t head[PROBE];
	size_t n = 0;
	int r = source_open(&src, path, e);

	if (r < 0)
		return r;
	if (!S_ISBLK(src->st.st_mode)) /* which never is an image */
		r = source_head(src, head, sizeof(head), &n, e);
	if (r < 0) {
		source_free(src);
		return r;
	}
	return image_from(out, src, path, looks_like(head, n, 1) ? o : &plain, e);
}

void image_free(struct image *m)
{
	if (!m)
		return;
	reader_free(m->reader);
	source_free(m->text);
	descriptor_free(m->descriptor);
	undo_note_free(m->undo);
	for (size_t i = 0; i < m->files; i++)
		free(m->file[i].name);
	free(m->file);
	free(m->name);
	free(m->path);
	free(m);
}
