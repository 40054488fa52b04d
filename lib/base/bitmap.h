/* SPDX-License-Identifier: MIT */
/*
 * Ranges of bits in an array of 64-bit words; bit i is bit i % 64 of word i / 64. What a bit stands for
 * (a sector, a grain) is the caller's business, as is that [from, to) lies inside the map. Used by
 * guest_order, file_order, pending and the reader of streamOptimized.
 */
#ifndef BITMAP_H
#define BITMAP_H

#include "base/base.h"

/* So many bits, all clear, for free(); NULL when memory is short. A large map is fresh mappings: only
 * what is touched costs memory. */
uint64_t *bitmap_new(uint64_t bits);
/* Sets bits [from, to). Whether none of them was set before. */
bool bitmap_set(uint64_t *map, uint64_t from, uint64_t to);
/* The first bit of [from, to) that is set, or that is not; or `to`. */
uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t to, bool set);

#endif
