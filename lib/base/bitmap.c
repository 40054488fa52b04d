/* SPDX-License-Identifier: MIT */
#include "base/bitmap.h"

#include <stdlib.h>

uint64_t *bitmap_new(uint64_t bits)
{
	return calloc((size_t)max_u64(div_up(bits, 64), 1), sizeof(uint64_t));
}

/* The bits of [from, to) in the word of `from`; *next: where those in the next word begin. */
static inline uint64_t mask(uint64_t from, uint64_t to, uint64_t *next)
{
	const uint64_t n = min_u64(64 - from % 64, to - from);

	*next = from + n;
	return (UINT64_MAX >> (64 - n)) << from % 64;
}

bool bitmap_set(uint64_t *map, uint64_t from, uint64_t to)
{
	uint64_t before = 0;

	for (uint64_t next; from < to; from = next) {
		uint64_t *word = &map[from / 64], bits = mask(from, to, &next);

		before |= *word & bits;
		*word |= bits;
	}
	return !before;
}

uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t to, bool set)
{
	for (uint64_t next; from < to; from = next) {
		uint64_t bits = (set ? map[from / 64] : ~map[from / 64]) & mask(from, to, &next);

		if (bits)
			return from / 64 * 64 + (unsigned)__builtin_ctzll(bits);
	}
	return to;
}
