/* SPDX-License-Identifier: MIT */
#include "mkvmdk.h"

#include <stdlib.h>
#include <string.h>

void place_cowd(struct disk *d)
{
	d->gdoff = 4;
	d->free = d->gdoff + ceil_div(d->ngde * 4, SECTOR);
	if (d->layout != TABLES_LAST) {
		place_mixed(d);
	} else {
		place_grains(d);
		for (size_t i = 0; i < d->nent && !d->all_tables; i++)
			place_table(d, d->ent[i].g / d->gtes);
		for (uint64_t t = 0; d->all_tables && t < d->ngde; t++)
			place_table(d, t);
	}
	d->end = d->free;
}

void put_cowd_header(const struct disk *d, uint8_t *p)
{
	if (d->fill)
		memset(p + 512, 'X', 512);
	put(p, 4, 0x44574f43);
	put(p + 4, 4, d->have_version ? d->version : 1);
	put(p + 8, 4, d->have_flags ? d->flags : 3);
	put(p + 12, 4, d->capacity);
	put(p + 16, 4, d->grain);
	put(p + 20, 4, d->gdoff);
	put(p + 24, 4, d->ngde);
	put(p + 28, 4, d->free);
	put(p + 1648, 4, d->unclean);
}

const struct field cowd_fields[] = {
	{"magic", 0, 4}, {"version", 4, 4}, {"flags", 8, 4}, {"capacity", 12, 4}, {"grain", 16, 4},
	{"gd", 20, 4}, {"gdes", 24, 4}, {"free", 28, 4}, {"generation", 1060, 4},
	{"savedgeneration", 1636, 4}, {"unclean", 1648, 4}, {NULL, 0, 0},
};
