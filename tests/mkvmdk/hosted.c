/* SPDX-License-Identifier: MIT */
#include "mkvmdk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void place_hosted_tables(struct disk *d, uint64_t *tables)
{
	for (uint64_t t = 0; t < d->ngde; t++) {
		tables[t] = d->free;
		d->free += d->gtsec;
	}
}

void place_hosted(struct disk *d)
{
	uint64_t gdsec = ceil_div(d->ngde * 4, SECTOR);
	bool last = d->layout == TABLES_LAST;

	d->free = 1 + (d->desc ? DESC_SECTORS : 0);
	if (d->rgd) {
		d->rgt = grab(d->ngde, sizeof(*d->rgt));
		d->rgdoff = d->free;
		d->free += gdsec;
		if (!last)
			place_hosted_tables(d, d->rgt);
	}
	d->gdoff = d->free;
	d->free += gdsec;
	if (!last)
		place_hosted_tables(d, d->gd);
	d->free = round_up(d->free, d->grain);
	d->overhead = d->free;
	place_grains(d);
	if (last && d->rgd)
		place_hosted_tables(d, d->rgt);
	if (last)
		place_hosted_tables(d, d->gd);
	d->end = d->free;
}

void put_hosted_header(const struct disk *d, uint8_t *p)
{
	bool zeros = strcmp(d->zero, "none") != 0, stream = d->format == STREAM;
	uint32_t flags = stream ? 0x30001 : 1;
	char *text = (char *)p + SECTOR;
	size_t size = DESC_SECTORS * SECTOR;

	put(p, 4, 0x564d444b);
	put(p + 4, 4, d->have_version ? d->version : stream ? 3 : zeros ? 2 : 1);
	put(p + 8, 4, d->have_flags ? d->flags : flags | (d->rgd ? 2u : 0) | (zeros ? 4u : 0));
	put(p + 12, 8, d->capacity);
	put(p + 20, 8, d->grain);
	put(p + 28, 8, d->desc ? 1 : 0);
	put(p + 36, 8, d->desc ? DESC_SECTORS : 0);
	put(p + 44, 4, d->gtes);
	put(p + 48, 8, d->rgdoff);
	put(p + 56, 8, stream && d->variant == 'A' ? UINT64_MAX : d->gdoff);
	put(p + 64, 8, d->overhead);
	put(p + 72, 1, d->unclean);
	put(p + 73, 4, 0x0a0d200a);
	put(p + 77, 2, stream);
	if (!d->desc)
		return;
	text_descriptor(text, size, "aabbccdd", d->parentcid,
			stream ? "streamOptimized" : "monolithicSparse", d->parent);
	text_put(text, size, "%s %" PRIu64 " SPARSE \"%s\"\n\n# The Disk Data Base \n#DDB\n\n"
		 "ddb.virtualHWVersion = \"4\"\nddb.adapterType = \"lsilogic\"\n",
		 stream ? "RDONLY" : "RW", d->capacity, base_name(d->path));
}

const struct field hosted_fields[] = {
	{"magic", 0, 4}, {"version", 4, 4}, {"flags", 8, 4}, {"capacity", 12, 8}, {"grain", 20, 8},
	{"descoff", 28, 8}, {"descsize", 36, 8}, {"gtes", 44, 4}, {"rgd", 48, 8}, {"gd", 56, 8},
	{"overhead", 64, 8}, {"unclean", 72, 1}, {"nl1", 73, 1}, {"nl2", 74, 1}, {"nl3", 75, 1},
	{"nl4", 76, 1}, {"compress", 77, 2}, {NULL, 0, 0},
};
