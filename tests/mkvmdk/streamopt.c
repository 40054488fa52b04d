/* SPDX-License-Identifier: MIT */
#include "mkvmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void place_stream(struct disk *d)
{
	uint64_t gdsec = ceil_div(d->ngde * 4, SECTOR);

	if (d->variant == 'C') {
		place_hosted(d);
	} else {
		d->free = d->overhead = 128;
		for (size_t i = 0; i < d->nent; i++) {
			if (d->progress && i == d->nent / 2) {
				d->progressoff = d->free;
				d->free += 4;
			}
			place_grain(d, &d->ent[d->order[i]]);
		}
		for (uint64_t t = 0, i = 0; t < d->ngde; t++) {
			while (i < d->nent && d->ent[i].g / d->gtes < t)
				i++;
			if (!d->all_tables && (i == d->nent || d->ent[i].g / d->gtes != t))
				continue;
			d->gd[t] = d->free + 1;
			d->free += 1 + d->gtsec;
		}
		d->gdoff = d->free + 1;
		d->footer = d->gdoff + gdsec + 1;
		d->free = d->footer + 1;
	}
	if (d->eos)
		d->eosoff = d->free++;
	d->free += d->trailing;
	d->end = d->free;
}

static void write_marker(struct disk *d, uint64_t sector, uint64_t value, uint32_t type)
{
	uint8_t m[SECTOR] = {0};

	put(m, 8, value);
	put(m + 12, 4, type);
	write_at(d->fd, d->path, m, sizeof(m), sector * SECTOR);
}

/* RFC 1950 around stored blocks of RFC 1951. */
static size_t deflate_stored(uint8_t *p, const uint8_t *data, size_t n, bool end)
{
	uint8_t *start = p;
	uint32_t a = 1, b = 0;
	size_t at = 0;

	*p++ = 0x78;
	*p++ = 0x01;
	do {
		size_t part = n - at < 65535 ? n - at : 65535;

		*p++ = end && at + part == n;
		put(p, 2, part);
		put(p + 2, 2, ~part & 0xffff);
		memcpy(p + 4, data + at, part);
		p += 4 + part;
		at += part;
	} while (at < n);
	for (at = 0; at < n; at++) {
		a = (a + data[at]) % 65521;
		b = (b + a) % 65521;
	}
	for (int i = 3; i >= 0; i--)
		*p++ = (uint8_t)((b << 16 | a) >> (8 * i));
	return (size_t)(p - start);
}

struct bits {
	uint8_t *p;
	uint64_t at;
};

static void put_bits(struct bits *b, uint32_t v, unsigned int n, bool high_first)
{
	for (unsigned int i = 0; i < n; i++, b->at++)
		if (v >> (high_first ? n - 1 - i : i) & 1)
			b->p[b->at / 8] |= (uint8_t)(1 << b->at % 8);
}

/* n zero bytes: literals, then copies of 258 of them. */
static size_t deflate_zeros(uint8_t *p, uint64_t n)
{
	struct bits b = {.p = p};
	uint64_t copies = (n - 1) / 258;
	uint64_t rest = (n - 1) % 258;
	uint64_t sum = n % 65521;

	put_bits(&b, 0x0178, 16, false);
	put_bits(&b, 3, 3, false); /* last block, fixed codes */
	for (uint64_t i = 0; i <= rest; i++)
		put_bits(&b, 0x30, 8, true);
	for (uint64_t i = 0; i < copies; i++) {
		put_bits(&b, 0xc5, 8, true); /* 285 */
		put_bits(&b, 0, 5, true);
	}
	put_bits(&b, 0, 7, true); /* 256: end */
	b.at = round_up(b.at, 8);
	p += b.at / 8;
	p[0] = (uint8_t)(sum >> 8);
	p[1] = (uint8_t)sum;
	p[2] = 0;
	p[3] = 1;
	return (size_t)(b.at / 8 + 4);
}

static void write_record(struct disk *d, const struct ent *e, uint8_t *data, uint8_t *record)
{
	uint64_t key = mix(d->seed), n = unpacked(d, e->g), size = occupied(d, e->g) * SECTOR;
	size_t len;

	memset(record, 0, size);
	for (uint64_t s = 0; s * SECTOR < n; s++) {
		uint64_t lba = e->g * d->grain + s;

		if (s < stored(d, e->g) && lba < d->capacity)
			fill_sector(data + s * SECTOR, lba, key);
		else
			memset(data + s * SECTOR, 0xee, SECTOR);
	}
	if (is_odd(d, BOMB, e->g))
		len = deflate_zeros(record + 12, 258 * ((size - 64) * 8 / 13));
	else if (is_odd(d, FLATE, e->g))
		len = deflate_zeros(record + 12, n);
	else
		len = deflate_stored(record + 12, data, n, !is_odd(d, NOEND, e->g));
	if (is_odd(d, LEFT, e->g)) {
		memset(record + 12 + len, 'L', 5);
		len += 5;
	}
	put(record, 8, e->g * d->grain);
	put(record + 8, 4, len);
	write_at(d->fd, d->path, record, size, e->sec * SECTOR);
}

void write_stream(struct disk *d)
{
	uint8_t *data = grab((d->grain + 1) * SECTOR, 1);
	uint8_t *record = grab(12 + stored_blocks((d->grain + 2) * SECTOR) + SECTOR, 1);
	uint8_t head[SECTOR];

	for (size_t i = 0; i < d->nent; i++)
		write_record(d, &d->ent[i], data, record);
	if (d->progressoff) {
		write_marker(d, d->progressoff, 3, 4);
		memset(data, 0xaa, SECTOR);
		for (unsigned int i = 1; i <= 3; i++)
			write_at(d->fd, d->path, data, SECTOR, (d->progressoff + i) * SECTOR);
	}
	if (d->footer) {
		for (uint64_t t = 0; t < d->ngde; t++)
			if (d->gd[t])
				write_marker(d, d->gd[t] - 1, d->gtsec, 1);
		write_marker(d, d->gdoff - 1, ceil_div(d->ngde * 4, SECTOR), 2);
		write_marker(d, d->footer - 1, 1, 3);
		if (pread(d->fd, head, SECTOR, 0) != SECTOR)
			die(1, "%s: read: %s", d->path, strerror(errno));
		put(head + 56, 8, d->gdoff);
		write_at(d->fd, d->path, head, SECTOR, d->footer * SECTOR);
	}
	free(data);
	free(record);
}
