/* SPDX-License-Identifier: MIT */
#include "vmdk/format.h"

#include <stdlib.h>

#define STEP 65536u /* bytes read at a time */

int account_data_end(struct source *src, uint64_t from, uint64_t to, uint64_t *end, struct err *e)
{
	uint8_t *buf = malloc(STEP);
	int r = buf ? 0 : fail(e, ENOMEM, "out of memory");

	*end = from;
	to = min_u64(to, src->size);
	for (uint64_t pos = from, next; !r && pos < to; pos = next) {
		bool hole;

		next = source_range(src, pos, &hole);
		if (hole)
			continue;
		next = min_u64(next, min_u64(to, pos + STEP));
		r = source_read(src, pos, buf, (size_t)(next - pos), "unused bytes", e);
		if (!r && !all_zero(buf, (size_t)(next - pos)))
			*end = next;
	}
	free(buf);
	return r;
}
