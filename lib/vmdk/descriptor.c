/* SPDX-License-Identifier: MIT */
#include "vmdk/descriptor.h"

#include <ctype.h>
#include <iconv.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SECTORS_LIMIT (POS_LIMIT / SECTOR)
#define SHOWN 200u /* bytes of the file that a message repeats */
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct text { /* a part of the descriptor; no NUL at its end */
	const char *s;
	size_t n;
};

struct parse {
	struct descriptor *d;
	const char *name;
	struct err *e;
	unsigned line;
	bool embedded;
	bool has_version, has_parent_cid, has_header_encoding, has_dummy, warned_filter;
	unsigned native_line; /* of isNativeSnapshot=yes */
	unsigned hint_line;
};

#define fail_line(p, code, fmt, ...)                                                               \
	fail((p)->e, code, "%s: line %u: " fmt, (p)->name, (p)->line, ##__VA_ARGS__)

static const struct {
	const char *word;
	enum extent_type type;
} types[] = {
	{"FLAT", EXTENT_FLAT},	   {"VMFS", EXTENT_VMFS},
	{"SPARSE", EXTENT_SPARSE},	   {"VMFSSPARSE", EXTENT_VMFSSPARSE},
	{"SESPARSE", EXTENT_SESPARSE}, {"ZERO", EXTENT_ZERO},
};

#define HELP_RDM " is a raw device mapping, which holds no data: give the LUN itself as base"
#define HELP_VSAN " exists on vSAN only and is not documented: export or clone the disk from there"
#define HELP_VVOL " lies on a virtual volume (vVol), which holds its own snapshots: move the disk to " \
		  "another datastore first"
#define HELP_DEVICE " is a raw device: give that device itself as base"

struct refused {
	const char *word, *why;
};

static const struct refused refused_types[] = {
	/* of extents, in capitals, and of disks */
	{"vmfsRDM", HELP_RDM},    {"vmfsRawDeviceMap", HELP_RDM},
	{"vmfsRDMP", HELP_RDM},   {"vmfsPassthroughRawDeviceMap", HELP_RDM},
	{"vmfsRaw", HELP_DEVICE}, {"vsanSparse", HELP_VSAN},
};

static const struct refused refused_names[] = {
	/* how a name begins */
	{"vsan://", HELP_VSAN},
	{"vvol:", HELP_VVOL},
	{"/dev/", HELP_DEVICE},
	{"/vmfs/devices/", HELP_DEVICE},
	{"\\\\.\\", HELP_DEVICE},
};

static const char *const encrypted_keys[] = {
	"encryptionKeys",
	"keyID",
	"encryption.keySafe",
	"encryption.data",
};

/*
 * Only what is a superset of ASCII and needs no shift state goes to iconv: the name of the encoding
 * comes from the file, too.
 */
static const struct {
	const char *name, *iconv;
} encodings[] = {
	{"Big5", "CP950"},		{"windows-950", "CP950"},   {"CP950", "CP950"},
	{"GBK", "CP936"},		{"GB2312", "CP936"},	    {"windows-936", "CP936"},
	{"CP936", "CP936"},		{"GB18030", "GB18030"},	    {"Shift_JIS", "CP932"},
	{"windows-31j", "CP932"},	{"windows-932", "CP932"},   {"CP932", "CP932"},
	{"EUC-JP", "EUC-JP"},	{"EUC-KR", "CP949"},	    {"windows-949", "CP949"},
	{"CP949", "CP949"},		{"windows-874", "CP874"},   {"windows-1250", "CP1250"},
	{"windows-1251", "CP1251"}, {"windows-1252", "CP1252"}, {"windows-1253", "CP1253"},
	{"windows-1254", "CP1254"}, {"windows-1255", "CP1255"}, {"windows-1256", "CP1256"},
	{"windows-1257", "CP1257"}, {"windows-1258", "CP1258"}, {"ISO-8859-1", "ISO-8859-1"},
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct text trim(struct text p)
{
	while (p.n && is_blank(p.s[0]))
		p.s++, p.n--;
	while (p.n && is_blank(p.s[p.n - 1]))
		p.n--;
	return p;
}

/* Cuts the first word off; it is empty at the end. */
static struct text take_word(struct text *rest)
{
	struct text word = *rest;

	for (word.n = 0; word.n < rest->n && !is_blank(rest->s[word.n]);)
		word.n++;
	rest->s += word.n;
	rest->n -= word.n;
	*rest = trim(*rest);
	return word;
}

static bool is_word(struct text p, const char *word)
{
	return p.n == strlen(word) && !strncasecmp(p.s, word, p.n);
}

static bool begins(struct text p, const char *word)
{
	return p.n >= strlen(word) && !strncasecmp(p.s, word, strlen(word));
}

static bool contains(struct text p, const char *word)
{
	for (; p.n >= strlen(word); p.s++, p.n--)
		if (begins(p, word))
			return true;
	return false;
}

/* "name: line 7: <before>"the text"<after>" */
static int refuse(struct parse *p, int code, const char *before, struct text text,
		  const char *after)
{
	bool cut = text.n > SHOWN;
	char *raw = strndup(text.s, cut ? SHOWN : text.n);
	char *safe = raw ? clean_text(raw) : NULL;
	int ret = fail_line(p, code, "%s\"%s%s\"%s", before, safe ? safe : "?", cut ? "..." : "",
			    after);

	free(safe);
	free(raw);
	return ret;
}

static int no_memory(struct parse *p)
{
	return fail(p->e, ENOMEM, "%s: no memory for the descriptor", p->name);
}

static const char *why_refused(const struct refused *table, size_t n, struct text word,
			       bool (*match)(struct text, const char *))
{
	for (size_t i = 0; i < n; i++)
		if (match(word, table[i].word))
			return table[i].why;
	return NULL;
}

/* base: 10 or 16. */
static bool number(struct text p, size_t base, uint64_t *v)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t sum = 0;

	for (size_t i = 0; i < p.n; i++) {
		const char *digit = memchr(digits, tolower((unsigned char)p.s[i]), base);

		if (!digit || !mul_ok(sum, base, &sum) || !add_ok(sum, (uint64_t)(digit - digits), &sum))
			return false;
	}
	*v = sum;
	return p.n;
}

static struct text unquote(struct text p)
{
	if (p.n >= 2 && p.s[0] == '"' && p.s[p.n - 1] == '"')
		return (struct text){p.s + 1, p.n - 2};
	return p;
}

/* Keeps a value once. Another one for the same key leaves open which is meant. */
static int keep(struct parse *p, char **where, struct text value, const char *key, bool any_case)
{
	if (value.n && memchr(value.s, '"', value.n))
		return refuse(p, EBADMSG, "a quotation mark is left over in ", value, "");
	if (*where) {
		bool same = any_case
				? is_word(value, *where)
				: value.n == strlen(*where) && !memcmp(value.s, *where, value.n);

		return same ? 0
			    : fail_line(p, EBADMSG, "a second %s, different from the first", key);
	}
	*where = strndup(value.s, value.n);
	return *where ? 0 : no_memory(p);
}

static int keep_cid(struct parse *p, uint32_t *where, bool *has, struct text value,
		    const char *key)
{
	uint64_t v;

	if (value.n > 8 || !number(value, 16, &v))
		return refuse(p, EBADMSG, "the content ID ", value, " is not 1 to 8 hex digits");
	if (*has && v != *where)
		return fail_line(p, EBADMSG, "a second %s, different from the first", key);
	*where = (uint32_t)v;
	*has = true;
	return 0;
}

static int parse_version(struct parse *p, struct text value)
{
	uint64_t v;

	if (!number(value, 10, &v))
		return refuse(p, EBADMSG, "the version ", value, " is not a number");
	if (v < 1 || v > 3)
		return fail_line(p, ENOTSUP, "descriptor version %" PRIu64 " is not known (only 1 "
				 "to 3 are)", v);
	p->has_version = true;
	return 0;
}

static int parse_encoding(struct parse *p, struct text value, bool header)
{
	char *copy;

	/* the header's word outweighs the data base's, and the first one a later one */
	if (p->d->encoding && (!header || p->has_header_encoding))
		return 0;
	copy = strndup(value.s, value.n);
	if (!copy)
		return no_memory(p);
	free(p->d->encoding);
	p->d->encoding = copy;
	p->has_header_encoding = header;
	return 0;
}

static int parse_filters(struct parse *p, struct text value, const char *key)
{
	if (contains(value, "vmwarevmcrypt"))
		return fail_line(p, ENOTSUP, "the disk is encrypted (%s names vmwarevmcrypt): "
				 "decrypt it in vSphere first", key);
	if (!value.n)
		return 0;
	return warning_once(&p->warned_filter, p->e,
			    "%s: line %u: %s: an I/O filter is attached to the disk; it may keep data "
			    "outside of it",
			    p->name, p->line, key);
}

static int parse_key(struct parse *p, struct text key, struct text value)
{
	struct descriptor *d = p->d;
	const char *why;

	if (is_word(key, "version"))
		return parse_version(p, value);
	if (is_word(key, "CID"))
		return keep_cid(p, &d->cid, &d->has_cid, value, "CID");
	if (is_word(key, "parentCID"))
		return keep_cid(p, &d->parent_cid, &p->has_parent_cid, value, "parentCID");
	if (is_word(key, "createType")) {
		why = why_refused(refused_types, ARRAY_SIZE(refused_types), value, is_word);
		if (why)
			return refuse(p, ENOTSUP, "a disk of type ", value, why);
		return keep(p, &d->create_type, value, "createType", true);
	}
	if (is_word(key, "parentFileNameHint")) {
		p->hint_line = p->line;
		return keep(p, &d->parent_hint, value, "parentFileNameHint", false);
	}
	if (is_word(key, "isNativeSnapshot")) {
		if (is_word(value, "yes"))
			p->native_line = p->line;
		return 0;
	}
	if (is_word(key, "encoding"))
		return parse_encoding(p, value, true);
	if (is_word(key, "ddb.encoding"))
		return parse_encoding(p, value, false);
	if (is_word(key, "ddb.iofilters"))
		return parse_filters(p, value, "ddb.iofilters");
	if (is_word(key, "ddb.sidecars"))
		return parse_filters(p, value, "ddb.sidecars");
	return 0;
}

/* What stands behind the file name. */
static int parse_offset(struct parse *p, struct descriptor_extent *x, struct text rest)
{
	struct text word;

	if (!rest.n)
		return 0;
	if (!is_blank(rest.s[0]))
		return refuse(p, EBADMSG, "no blank between file name and ", rest, "");
	rest = trim(rest);
	if (!rest.n)
		return 0;
	word = take_word(&rest);
	if (x->type != EXTENT_FLAT && x->type != EXTENT_VMFS)
		return refuse(p, EBADMSG, "", word, " behind the file name of a sparse extent");
	if (!number(word, 10, &x->offset))
		return refuse(p, EBADMSG, "the extent's offset ", word,
			      " is not a number of sectors");
	if (x->type == EXTENT_VMFS && (x->offset || rest.n))
		return refuse(p, EBADMSG, "a VMFS extent takes no offset, but has ", word, "");
	if (x->offset >= SECTORS_LIMIT)
		return refuse(p, EBADMSG, "the extent's offset ", word, " is out of range");
	return 0; /* partition and device ids may follow */
}

static int parse_file(struct parse *p, struct descriptor_extent *x, struct text rest)
{
	const char *end, *why;
	struct text file;
	int ret;

	if (!rest.n || rest.s[0] != '"')
		return refuse(p, EBADMSG,
			      "the extent's file name in quotation marks is missing at ", rest, "");
	file = (struct text){rest.s + 1, rest.n - 1};
	end = memrchr(file.s, '"', file.n);
	if (!end)
		return refuse(p, EBADMSG,
			      "the extent's file name has no second quotation mark: ", rest, "");
	file.n = (size_t)(end - file.s);
	if (!file.n)
		return fail_line(p, EBADMSG, "the extent's file name is empty");
	if (memchr(file.s, '"', file.n))
		return refuse(p, EBADMSG, "more than two quotation marks in ", rest, "");
	/* In an embedded descriptor a sparse extent is this very file, whatever it is called here.
	 */
	why = why_refused(refused_names, ARRAY_SIZE(refused_names), file, begins);
	if (why && !(p->embedded && x->type == EXTENT_SPARSE))
		return refuse(p, ENOTSUP, "the extent ", file, why);
	rest.n -= (size_t)(end + 1 - rest.s);
	rest.s = end + 1;
	ret = parse_offset(p, x, rest);
	if (ret < 0)
		return ret;
	x->file = strndup(file.s, file.n);
	return x->file ? 0 : no_memory(p);
}

static int add_extent(struct parse *p, const struct descriptor_extent *x)
{
	struct descriptor *d = p->d;
	struct descriptor_extent *more;

	if (d->extents == DESCRIPTOR_EXTENTS)
		return fail_line(p, EFBIG, "more than %u extents", DESCRIPTOR_EXTENTS);
	if (!add_ok(d->sectors, x->sectors, &d->sectors) || d->sectors >= SECTORS_LIMIT ||
	    x->offset + x->sectors >= SECTORS_LIMIT)
		return fail_line(p, EBADMSG, "an extent of %" PRIu64 " sectors is too large",
				 x->sectors);
	if (is_pow2(d->extents) || !d->extents) {
		more = reallocarray(d->extent, d->extents ? d->extents * 2 : 1, sizeof(*more));
		if (!more)
			return no_memory(p);
		d->extent = more;
	}
	d->extent[d->extents++] = *x;
	return 0;
}

static int parse_extent(struct parse *p, struct text access, struct text rest)
{
	struct descriptor_extent x = {.line = p->line};
	struct text size = take_word(&rest);
	struct text type = take_word(&rest);
	bool noaccess = is_word(access, "NOACCESS");
	const char *why;
	size_t i;
	int ret;

	if (!number(size, 10, &x.sectors))
		return refuse(p, EBADMSG, "the extent's size ", size,
			      " is not a number of sectors");
	why = why_refused(refused_types, ARRAY_SIZE(refused_types), type, is_word);
	if (why)
		return refuse(p, ENOTSUP, "an extent of type ", type, why);
	for (i = 0; i < ARRAY_SIZE(types) && !is_word(type, types[i].word);)
		i++;
	if (i == ARRAY_SIZE(types))
		return refuse(p, ENOTSUP, "the extent type ", type, " is not known");
	x.type = types[i].type;

	if (x.type == EXTENT_ZERO) {
		if (rest.n)
			return refuse(p, EBADMSG, "a ZERO extent has no file, but is followed by ",
				      rest, "");
		if (noaccess && !x.sectors) {
			p->has_dummy = true;
			return 0;
		}
	} else if (noaccess) {
		return refuse(p, ENOTSUP, "a NOACCESS extent with a file is not supported: ", rest,
			      "");
	}
	if (!x.sectors && !p->embedded)
		return fail_line(p, EBADMSG, "an extent of 0 sectors");
	if (x.type != EXTENT_ZERO) {
		ret = parse_file(p, &x, rest);
		if (ret < 0)
			return ret;
	}
	ret = add_extent(p, &x);
	if (ret < 0)
		free(x.file);
	return ret;
}

static bool is_access(struct text word)
{
	return is_word(word, "RW") || is_word(word, "RDONLY") || is_word(word, "NOACCESS");
}

/* A key is one word of printable ASCII: an extent line gone wrong must not pass for one. */
static bool is_key(struct text key)
{
	for (size_t i = 0; i < key.n; i++)
		if (key.s[i] <= ' ' || key.s[i] > '~' || key.s[i] == '"')
			return false;
	return key.n && !is_access(key);
}

static int parse_line(struct parse *p, struct text line)
{
	struct text key = {line.s, 0}, value, rest, word;
	const char *equals;

	equals = memchr(line.s, '=', line.n);
	if (equals) {
		key = trim((struct text){line.s, (size_t)(equals - line.s)});
		/* before the length: encrypted data make long lines */
		for (size_t i = 0; i < ARRAY_SIZE(encrypted_keys); i++)
			if (is_word(key, encrypted_keys[i]))
				return refuse(p, ENOTSUP, "the disk is encrypted (", key,
					      "): decrypt it with VMware's tools first");
	}
	if (line.n > DESCRIPTOR_LINE)
		return fail(p->e, EBADMSG, "%s: line %u is longer than %u bytes", p->name, p->line,
			    DESCRIPTOR_LINE);
	if (memchr(line.s, '\0', line.n))
		return fail_line(p, EBADMSG, "a NUL byte in the text");
	if (memchr(line.s, '\r', line.n))
		return fail_line(p, EBADMSG, "a carriage return within the line");
	if (!line.n || line.s[0] == '#')
		return 0;

	rest = line;
	word = take_word(&rest);
	if (is_access(word))
		return parse_extent(p, word, rest);
	if (!equals || !is_key(key))
		return refuse(p, EBADMSG, "neither comment nor key=value nor extent: ", line, "");
	value.s = equals + 1;
	value.n = (size_t)(line.s + line.n - value.s);
	return parse_key(p, key, unquote(trim(value)));
}

/* Replaces *s by its UTF-8; where that fails the bytes stay as they are. */
static int convert(struct parse *p, iconv_t cd, char **s)
{
	size_t in_left, out_left, room;
	char *in, *out, *utf8;

	if (!*s)
		return 0;
	in = *s;
	in_left = strlen(in);
	room = in_left * 4;
	out = utf8 = malloc(room + 1);
	if (!utf8)
		return no_memory(p);
	out_left = room;
	iconv(cd, NULL, NULL, NULL, NULL);
	if (iconv(cd, &in, &in_left, &out, &out_left) == (size_t)-1 ||
	    iconv(cd, NULL, NULL, &out, &out_left) == (size_t)-1 ||
	    memchr(utf8, '\0', room - out_left)) {
		free(utf8);
		return 0;
	}
	*out = '\0';
	free(*s);
	*s = utf8;
	return 0;
}

static int convert_names(struct parse *p)
{
	struct descriptor *d = p->d;
	const char *from = NULL;
	iconv_t cd;
	int ret;

	for (size_t i = 0; d->encoding && i < ARRAY_SIZE(encodings) && !from; i++)
		if (!strcasecmp(d->encoding, encodings[i].name))
			from = encodings[i].iconv;
	cd = from ? iconv_open("UTF-8", from) : (iconv_t)-1;
	if (cd == (iconv_t)-1)
		return 0;
	ret = convert(p, cd, &d->parent_hint);
	for (size_t i = 0; i < d->extents && !ret; i++)
		ret = convert(p, cd, &d->extent[i].file);
	iconv_close(cd);
	return ret;
}

/* What only the whole text can tell. */
static int finish(struct parse *p)
{
	struct descriptor *d = p->d;

	if (!p->has_version)
		return fail(p->e, EBADMSG, "%s: the descriptor has no version line", p->name);
	if (!d->extents && !(p->embedded && p->has_dummy))
		return fail(p->e, EBADMSG, "%s: the descriptor lists no extent", p->name);
	if (d->parent_hint && !d->parent_hint[0]) {
		free(d->parent_hint);
		d->parent_hint = NULL;
	}
	if (descriptor_has_parent(d)) {
		if (p->native_line)
			return fail(
			    p->e, ENOTSUP,
			    "%s: line %u: a native snapshot: its data are in the storage system, "
			    "not in this file",
			    p->name, p->native_line);
		for (size_t i = 0; i < d->extents; i++)
			if (d->extent[i].type == EXTENT_ZERO)
				return fail(
				    p->e, ENOTSUP,
				    "%s: line %u: a ZERO extent in a disk that has a parent",
				    p->name, d->extent[i].line);
	} else if (d->parent_hint &&
		   warning(p->e,
			   "%s: line %u: names a parent, but parentCID says there is "
			   "none: taken as a base",
			   p->name, p->hint_line) < 0) {
		return -EBADMSG;
	}
	return convert_names(p);
}

static bool only_blanks(struct text p)
{
	for (size_t i = 0; i < p.n; i++)
		if (!is_blank(p.s[i]) && p.s[i] != '\n' && p.s[i] != '\r')
			return false;
	return true;
}

static struct text skip_bom(struct text p)
{
	if (p.n >= 3 && !memcmp(p.s, "\xef\xbb\xbf", 3))
		return (struct text){p.s + 3, p.n - 3};
	return p;
}

/*
 * Takes off what is no text any more: NUL padding at the end, and, where a shorter text was written
 * over a longer one (qemu does when its CID loses a digit), a NUL and the end of the old text, which
 * is the end of the new one as well. A NUL before anything else stays and is refused.
 */
static struct text cut_padding(struct text text)
{
	size_t n = strnlen(text.s, text.n), rest = n;

	while (rest < text.n && !text.s[rest])
		rest++;
	while (text.n > rest && !text.s[text.n - 1])
		text.n--;
	rest = text.n - rest;
	if (rest <= n && !memcmp(text.s + n - rest, text.s + text.n - rest, rest))
		text.n = n;
	return text;
}

/* Cuts the first line off, without CR, LF, and blanks around it. */
static struct text take_line(struct text *text)
{
	const char *lf = memchr(text->s, '\n', text->n);
	struct text line = {text->s, lf ? (size_t)(lf - text->s) : text->n};

	text->s += line.n + (lf ? 1 : 0);
	text->n -= line.n + (lf ? 1 : 0);
	while (line.n && line.s[line.n - 1] == '\r')
		line.n--;
	return trim(line);
}

int descriptor_parse(struct descriptor **out, const char *name, const char *text, size_t len,
		     bool embedded, struct err *e)
{
	struct parse p = {.name = name, .e = e, .embedded = embedded};
	struct text all = {len ? text : "", len};
	int ret = 0;

	*out = NULL;
	if (embedded)
		all.n = strnlen(all.s, all.n);
	if (all.n > DESCRIPTOR_BYTES)
		return fail(e, EFBIG, "%s: a descriptor of %zu bytes; the limit is 1 MiB", name,
			    all.n);
	all = cut_padding(all);
	all = skip_bom(all);
	if (embedded && only_blanks(all))
		return 0;

	p.d = calloc(1, sizeof(*p.d));
	if (!p.d)
		return no_memory(&p);
	p.d->parent_cid = DESCRIPTOR_NO_PARENT;
	while (all.n && !ret) {
		p.line++;
		ret = parse_line(&p, take_line(&all));
	}
	if (!ret)
		ret = finish(&p);
	if (ret < 0) {
		descriptor_free(p.d);
		return ret;
	}
	*out = p.d;
	return 0;
}

void descriptor_free(struct descriptor *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->extents; i++)
		free(d->extent[i].file);
	free(d->extent);
	free(d->create_type);
	free(d->parent_hint);
	free(d->encoding);
	free(d);
}

bool descriptor_looks_like(const void *head, size_t n)
{
	struct text text = {n ? head : "", n};

	text = skip_bom(text);
	if (begins(text, "# Disk D"))
		return true;
	while (text.n) {
		struct text line = take_line(&text);
		const char *equals = memchr(line.s, '=', line.n);

		if (line.n && line.s[0] != '#')
			return equals && is_word(trim((struct text){line.s, (size_t)(equals - line.s)}),
						 "version");
	}
	return false;
}

bool descriptor_has_parent(const struct descriptor *d)
{
	return d && d->parent_cid != DESCRIPTOR_NO_PARENT;
}
