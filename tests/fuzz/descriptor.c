/* SPDX-License-Identifier: MIT */
#include "vmdk/descriptor.h"
#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int embedded = 0; embedded < 2; embedded++) {
		struct err e = {.set = false};
		struct descriptor *d = NULL;
		uint64_t sectors = 0;
		int r = descriptor_parse(&d, "fuzz", (const char *)data, size, embedded, &e);

		if ((r < 0) != e.set || (r < 0 && d))
			abort();
		if (!d)
			continue;
		for (size_t i = 0; i < d->extents; i++) {
			sectors += d->extent[i].sectors;
			if (!d->extent[i].file != (d->extent[i].type == EXTENT_ZERO))
				abort();
		}
		if (sectors != d->sectors || d->extents > DESCRIPTOR_EXTENTS)
			abort();
		descriptor_free(d);
	}
	descriptor_looks_like(data, size);
	return 0;
}
