/* See image.h. Magic numbers: "Virtual Disk Format 5.0", and the formats' own public descriptions. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#define PROBE 4096u

struct magic {
	size_t at, len;
	const char *bytes;
	int (*open)(struct reader **out, struct source *src, const struct format_opts *o,
		    struct format_facts *facts, struct err *e);
	const char *refusal; /* where open is NULL */
};

static const struct magic magics[] = {
	{0, 4, "COWD", cowd_open, NULL},
	{0, 4, "KDMV", hosted_open, NULL},
	{0, 4, "kdmv", NULL, "is unfinished: the tool that wrote it did not come to its end"},
	{0, 8, "\xbe\xba\xfe\xca\0\0\0\0", sesparse_open, NULL},
	{0, 8, "# Disk D", NULL,
	 "is a text descriptor; name the extent that it lists (-delta.vmdk) instead"},
	{0, 4, "\xa2\x72\x19\xf6", NULL,
	 "is a changed-block-tracking file (-ctk.vmdk) and holds no disk data"},
	{0, 4, "QFI\xfb", NULL, "is a qcow2 image, not a VMDK"},
	{0, 8, "conectix", NULL, "is a VHD image, not a VMDK"},
	{0, 8, "vhdxfile", NULL, "is a VHDX image, not a VMDK"},
	{64, 4, "\x7f\x10\xda\xbe", NULL, "is a VDI image, not a VMDK"},
	{0, 2, "\x1f\x8b", NULL, "is compressed with gzip; unpack it first"},
	{257, 5, "ustar", NULL, "is a tar archive (an OVA?); unpack it first"},
};

/* Takes src over when it succeeds. */
static int open_extent(struct image *m, struct source *src, const struct format_opts *o,
		       struct err *e)
{
	uint8_t head[PROBE] = {0};
	size_t n = (size_t)min_u64(sizeof(head), src->size);
	int r;

	if (!n)
		return fail(e, EBADMSG, "%s: is empty (0 bytes)", src->name);
	r = source_read(src, 0, head, n, "first bytes", e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(magics) / sizeof(*magics); i++) {
		const struct magic *k = &magics[i];

		if (k->at + k->len > n || memcmp(head + k->at, k->bytes, k->len) != 0)
			continue;
		if (k->open)
			return k->open(&m->reader, src, o, &m->facts, e);
		return fail(e, ENOTSUP, "%s: %s", src->name, k->refusal);
	}
	return fail(e, ENOTSUP,
		    "%s: is no VMDK that is known (it begins with %02x %02x %02x %02x, in %llu bytes)",
		    src->name, head[0], head[1], head[2], head[3], (unsigned long long)src->size);
}

int image_open(struct image **out, const char *path, const struct format_opts *o, struct err *e)
{
	struct image *m = calloc(1, sizeof(*m));
	struct source *src = NULL;
	int r;

	if (!m)
		return fail(e, ENOMEM, "out of memory");
	r = source_open(&src, path, e);
	if (r < 0)
		goto bad;
	m->st = src->st;
	m->name = name_text(path);
	r = m->name ? open_extent(m, src, o, e) : fail(e, ENOMEM, "out of memory");
	if (r < 0)
		goto bad;
	*out = m;
	return 0;
bad:
	source_free(src);
	image_free(m);
	return r;
}

void image_free(struct image *m)
{
	if (!m)
		return;
	reader_free(m->reader);
	free(m->name);
	free(m);
}
