/* SPDX-License-Identifier: MIT */
/* What the formats share: placement, tables, grains, descriptors, the model. */
#include "mkvmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sectors of grain g that lie on the disk. */
static uint64_t clipped(const struct disk *d, uint64_t g)
{
	uint64_t left = d->capacity - g * d->grain;

	return left < d->grain ? left : d->grain;
}

uint64_t stored(const struct disk *d, uint64_t g)
{
	return d->cutlast ? clipped(d, g) : d->grain;
}

/* Bytes of compressed data that stored blocks make of n. */
uint64_t stored_blocks(uint64_t n)
{
	return 2 + n + 5 * (n ? ceil_div(n, 65535) : 1) + 4;
}

bool is_odd(const struct disk *d, enum odd odd, uint64_t g)
{
	return d->odd[odd] && number("grain", d->odd[odd]) == g;
}

/* Bytes that grain g unpacks to, but for a bomb. */
uint64_t unpacked(const struct disk *d, uint64_t g)
{
	return stored(d, g) * SECTOR + is_odd(d, OVER, g) - is_odd(d, SHORT, g);
}

/* Sectors of a grain in the file. */
uint64_t occupied(const struct disk *d, uint64_t g)
{
	if (d->format != STREAM)
		return stored(d, g);
	if (is_odd(d, FLATE, g)) { /* as deflate_zeros() does it */
		uint64_t n = unpacked(d, g) - 1;

		return ceil_div(12 + ceil_div(16 + 3 + 8 * (n % 258 + 1) + 13 * (n / 258) + 7, 8) + 4,
				SECTOR);
	}
	return ceil_div(12 + stored_blocks(unpacked(d, g)) + 5 * is_odd(d, LEFT, g), SECTOR);
}

void place_table(struct disk *d, uint64_t t)
{
	if (d->gd[t])
		return;
	if (d->format == SESPARSE) {
		d->gd[t] = d->gts.off + d->freegt++ * d->gtsec;
	} else {
		d->gd[t] = d->free;
		d->free += d->gtsec;
	}
}

void place_grain(struct disk *d, struct ent *e)
{
	if (!e->sec)
		return;
	e->sec = d->free;
	d->end = d->free + occupied(d, e->g);
	d->free = d->format == SESPARSE ? d->free + d->grain : d->end;
}

/* Tables on demand, each before its first grain. */
void place_mixed(struct disk *d)
{
	uint64_t up = 0, down = d->ngde;

	for (size_t i = 0; i < d->nent; i++) {
		struct ent *e = &d->ent[d->order[i]];
		uint64_t t = e->g / d->gtes;

		if (d->all_tables && d->layout == SEQ)
			while (up < t)
				place_table(d, up++);
		if (d->all_tables && d->layout == REVERSE)
			while (down > t)
				place_table(d, --down);
		place_table(d, t);
		place_grain(d, e);
	}
	if (d->all_tables && d->layout == REVERSE)
		while (down)
			place_table(d, --down);
	for (; d->all_tables && up < d->ngde; up++)
		place_table(d, up);
}

void place_grains(struct disk *d)
{
	for (size_t i = 0; i < d->nent; i++)
		place_grain(d, &d->ent[d->order[i]]);
}

void text_put(char *buf, size_t size, const char *fmt, ...)
{
	size_t len = strlen(buf);
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf + len, size - len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= size - len)
		die(2, "descriptor is too long");
}

const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

void text_descriptor(char *buf, size_t size, const char *cid, const char *parentcid,
			    const char *type, const char *hint)
{
	buf[0] = 0;
	text_put(buf, size, "# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\n"
		 "createType=\"%s\"\n", cid, parentcid, type);
	if (hint)
		text_put(buf, size, "parentFileNameHint=\"%s\"\n", hint);
	text_put(buf, size, "\n# Extent description\n");
}

static void write_header(struct disk *d)
{
	static uint8_t head[(1 + DESC_SECTORS) * SECTOR];

	switch (d->format) {
	case COWD:
		put_cowd_header(d, head);
		break;
	case HOSTED:
	case STREAM:
		put_hosted_header(d, head);
		break;
	case SESPARSE:
		put_sesparse_header(d, head);
		break;
	}
	write_sparse(d, head, sizeof(head), 0);
}

static void write_directory(struct disk *d, const uint64_t *tables, uint64_t off)
{
	uint8_t *buf = grab(d->ngde, d->esize);

	for (uint64_t t = 0; t < d->ngde; t++) {
		uint64_t v = tables[t];

		if (v && d->format == SESPARSE)
			v = 0x10000000ull << 32 | (v - d->gts.off) / d->gtsec;
		put(buf + t * d->esize, (unsigned int)d->esize, v);
	}
	write_sparse(d, buf, d->ngde * d->esize, off * SECTOR);
	free(buf);
}

static uint64_t entry_of(const struct disk *d, const struct ent *e)
{
	uint64_t index, v;

	if (d->format != SESPARSE)
		return e->kind == DATA ? e->sec : 1;
	v = (uint64_t)(e->kind == DATA ? 3 : e->kind == ZERO ? 2 : 1) << 60;
	if (e->sec) {
		index = (e->sec - d->data.off) / d->grain;
		v |= (index & 0xfff) << 48 | index >> 12;
	}
	return v;
}

static void write_tables(struct disk *d, const uint64_t *tables)
{
	size_t size = d->gtes * d->esize;
	uint8_t *buf = grab(1, size);
	size_t i = 0;

	while (i < d->nent) {
		uint64_t t = d->ent[i].g / d->gtes;

		memset(buf, 0, size);
		for (; i < d->nent && d->ent[i].g / d->gtes == t; i++)
			put(buf + d->ent[i].g % d->gtes * d->esize, (unsigned int)d->esize,
			    entry_of(d, &d->ent[i]));
		write_sparse(d, buf, size, tables[t] * SECTOR);
	}
	free(buf);
}

static void write_grains(struct disk *d)
{
	struct out o = out_open(d->fd, d->path);
	uint64_t key = mix(d->seed);
	int from = d->from ? open(d->from, O_RDONLY | O_CLOEXEC) : -1;

	if (d->from && from < 0)
		die(1, "%s: %s", d->from, strerror(errno));
	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[d->order[i]];
		uint64_t n = e->sec && !d->holes ? stored(d, e->g) : 0;

		for (uint64_t s = 0; s < n; s++) {
			uint8_t *p = out_sector(&o, (e->sec + s) * SECTOR);
			uint64_t lba = e->g * d->grain + s;

			if (lba >= d->capacity)
				memset(p, 0xee, SECTOR);
			else if (from < 0)
				fill_sector(p, lba, key);
			else if (pread(from, p, SECTOR, (off_t)(lba * SECTOR)) != SECTOR)
				die(1, "%s: short read", d->from);
		}
	}
	out_close(&o);
	if (from >= 0)
		close(from);
}

/* The model: what the recipe, not the image, does to the disk. */
static void apply(const struct disk *d)
{
	int fd = open(d->apply, O_WRONLY | O_CLOEXEC);
	uint64_t key = mix(d->seed);
	struct out o;

	if (fd < 0)
		die(1, "%s: %s", d->apply, strerror(errno));
	o = out_open(fd, d->apply);
	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[i];
		uint64_t n = clipped(d, e->g);

		for (uint64_t s = 0; s < n; s++) {
			uint64_t lba = e->g * d->grain + s;
			uint8_t *p = out_sector(&o, lba * SECTOR);

			if (e->kind == DATA)
				fill_sector(p, lba, key);
			else
				memset(p, 0, SECTOR);
		}
	}
	out_close(&o);
	finish(fd, d->apply);
}

static void write_text(const char *path, const char *text)
{
	int fd = create(path);

	write_at(fd, path, (const uint8_t *)text, strlen(text), 0);
	finish(fd, path);
}

static void write_descriptors(const struct disk *d)
{
	static const char *const create_type[] = {"vmfsSparse", "twoGbMaxExtentSparse", "seSparse",
						  "twoGbMaxExtentSparse"};
	static const char *const extent[] = {"VMFSSPARSE", "SPARSE", "SESPARSE", "SPARSE"};
	size_t stem = strlen(d->descriptor);
	char text[16384], *path;

	if (stem > 5 && !strcmp(d->descriptor + stem - 5, ".vmdk"))
		stem -= 5;
	if (asprintf(&path, "%.*s-base.vmdk", (int)stem, d->descriptor) < 0)
		die(1, "out of memory");
	text_descriptor(text, sizeof(text), "aabbccdd", d->base ? "01234567" : "ffffffff",
			create_type[d->format], d->base ? base_name(path) : NULL);
	text_put(text, sizeof(text), "RW %" PRIu64 " %s \"%s\"\n", d->capacity,
		 extent[d->format], base_name(d->path));
	write_text(d->descriptor, text);
	if (d->base) {
		text_descriptor(text, sizeof(text), "01234567", "ffffffff", "monolithicFlat", NULL);
		text_put(text, sizeof(text), "RW %" PRIu64 " FLAT \"%s\" 0\n", d->capacity,
			 d->base);
		write_text(path, text);
	}
	free(path);
}

void make(struct disk *d)
{
	d->fd = create(d->path);
	write_header(d);
	write_directory(d, d->gd, d->gdoff);
	write_tables(d, d->gd);
	if (d->format == SESPARSE)
		write_reverse_maps(d);
	if (d->rgd) {
		write_directory(d, d->rgt, d->rgdoff);
		write_tables(d, d->rgt);
	}
	if (d->format == STREAM)
		write_stream(d);
	else
		write_grains(d);
	set_size(d->fd, d->path, d->end * SECTOR + d->pad);
	if (d->apply)
		apply(d);
	if (d->descriptor)
		write_descriptors(d);
}
