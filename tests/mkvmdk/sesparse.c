/* SPDX-License-Identifier: MIT */
#include "mkvmdk.h"

#include <stdlib.h>

static struct area next_area(const struct area *before, uint64_t bytes)
{
	return (struct area){before->off + before->size,
			     round_up(ceil_div(bytes, SECTOR), MIB_SECTORS)};
}

void place_sesparse(struct disk *d)
{
	struct area journal = {MIB_SECTORS, MIB_SECTORS};

	d->gdarea = next_area(&journal, d->ngde * 8);
	d->gts = next_area(&d->gdarea, d->ngde * d->gtsec * SECTOR);
	d->bitmap = next_area(&d->gts, ceil_div(d->grains, 8));
	d->backmap = next_area(&d->bitmap, d->grains * 8);
	d->data = next_area(&d->backmap, 0);
	d->data.size = d->grains * d->grain;
	d->gdoff = d->gdarea.off;
	d->free = d->end = d->data.off;
	place_mixed(d);
}

static void put_area(uint8_t *p, uint64_t off, uint64_t size)
{
	put(p, 8, off);
	put(p + 8, 8, size);
}

void put_sesparse_header(const struct disk *d, uint8_t *p)
{
	uint8_t *vol = p + SECTOR;

	put(p, 8, 0xcafebabe);
	put(p + 8, 8, d->have_version ? d->version : 0x200000001);
	put(p + 16, 8, d->capacity);
	put(p + 24, 8, d->grain);
	put(p + 32, 8, d->gtsec);
	put(p + 40, 8, d->have_flags ? d->flags : 0);
	put_area(p + 80, 1, 1);
	put_area(p + 96, 2, 2);
	put_area(p + 112, MIB_SECTORS, MIB_SECTORS);
	put_area(p + 128, d->gdarea.off, d->gdarea.size);
	put_area(p + 144, d->gts.off, d->gts.size);
	put_area(p + 160, d->bitmap.off, d->bitmap.size);
	put_area(p + 176, d->backmap.off, d->backmap.size);
	put_area(p + 192, d->data.off, d->data.size);
	put(vol, 8, 0xcafecafe);
	put(vol + 8, 8, d->freegt);
	put(vol + 16, 8, 1);
	put(vol + 24, 8, d->unclean);
}

/* SEsparse: one bit for each grain of the file in use, and for each of them where its entry stands. */
void write_reverse_maps(struct disk *d)
{
	size_t bytes = ceil_div(ceil_div(d->end - d->data.off, d->grain), 8);
	uint8_t *bitmap = grab(1, bytes), entry[8];

	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[i];
		uint64_t index = (e->sec - d->data.off) / d->grain;

		if (!e->sec)
			continue;
		bitmap[index / 8] |= (uint8_t)(1 << index % 8);
		put(entry, 8, 1ull << 60 | (e->g & 0xfff) << 48 | e->g >> 12);
		write_at(d->fd, d->path, entry, 8, d->backmap.off * SECTOR + index * 8);
	}
	write_sparse(d, bitmap, bytes, d->bitmap.off * SECTOR);
	free(bitmap);
}

const struct field sesparse_fields[] = {
	{"magic", 0, 8}, {"version", 8, 8}, {"capacity", 16, 8}, {"grain", 24, 8},
	{"gtsize", 32, 8}, {"flags", 40, 8}, {"reserved1", 48, 8}, {"reserved2", 56, 8},
	{"reserved3", 64, 8}, {"reserved4", 72, 8}, {"vhoff", 80, 8}, {"vhsize", 88, 8},
	{"jhoff", 96, 8}, {"jhsize", 104, 8}, {"joff", 112, 8}, {"jsize", 120, 8},
	{"gdoff", 128, 8}, {"gdsize", 136, 8}, {"gtoff", 144, 8}, {"gtssize", 152, 8},
	{"fboff", 160, 8}, {"fbsize", 168, 8}, {"bmoff", 176, 8}, {"bmsize", 184, 8},
	{"goff", 192, 8}, {"gsize", 200, 8}, {"pad", 208, 8},
	{"vmagic", 512, 8}, {"freegt", 520, 8}, {"txn", 528, 8}, {"replay", 536, 8},
	{"vpad", 544, 8}, {NULL, 0, 0},
};
