/* SPDX-License-Identifier: MIT */
/*
 * SEsparse files begin with 6 MiB of which all but a little is empty. The input is without those
 * stretches: three pieces, and the grains.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define GRAINS_AT (6u << 20)
#define GRAINS_MAX (1u << 20)

static const struct {
	size_t at, len;
} piece[] = {
	{0, 4096},                /* headers */
	{2u << 20, 4096},         /* directory */
	{3u << 20, 17 * 4096},    /* tables */
	{GRAINS_AT, GRAINS_MAX},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *whole; /* the stretches between the pieces stay empty */
	size_t n = 0;

	if (!whole)
		whole = calloc(1, GRAINS_AT + GRAINS_MAX);
	if (!whole || !size)
		return -1;
	for (size_t i = 0; i < sizeof(piece) / sizeof(*piece); i++) {
		size_t len = size < piece[i].len ? size : piece[i].len;

		memset(whole + piece[i].at, 0, piece[i].len);
		memcpy(whole + piece[i].at, data, len);
		data += len;
		size -= len;
		n = piece[i].at + len;
		if (!size)
			break;
	}
	return fuzz_leaf(sesparse_open, whole, n);
}
