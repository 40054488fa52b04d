/* See tree.h. */
#include "vmdk/tree.h"
#include "vmdk/format.h"

#include <inttypes.h>

uint64_t tree_grain_len(const struct tree *g, uint64_t n)
{
	return min_u64(g->shape.grain, g->shape.size - n * g->shape.grain);
}

int tree_decode(struct tree *g, uint64_t n, uint64_t raw, bool first, uint64_t limit,
		 uint64_t *pos, struct err *e)
{
	uint64_t len = g->shape.compressed ? 1 : tree_grain_len(g, n);
	int kind = g->shape.grain_at(g, n, raw, first, pos, e);

	if (kind == GRAIN_DATA && (*pos > limit || len > limit - *pos))
		return fail(e, EBADMSG,
			    "%s: grain %" PRIu64 " at file sector %" PRIu64
			    " lies outside the file of %" PRIu64
			    " bytes: is it truncated? expected at least %" PRIu64 " bytes",
			    g->reader.name, n, *pos / SECTOR, limit, *pos + len);
	return kind;
}

uint32_t tree_skip_plain(const struct tree *g, const uint8_t *p, uint32_t k, uint32_t used,
			  uint64_t raw, uint64_t limit)
{
	const uint64_t step = g->shape.grain / SECTOR;
	const uint64_t to = limit < g->shape.grain ? 0
						   : min_u64(g->shape.plain_to,
							     (limit - g->shape.grain) / SECTOR + 1);

	if (raw < g->shape.plain_from || g->shape.width != 4)
		return k;
	while (k < used && (raw += step) < to && le32(p + k * 4) == raw)
		k++;
	return k;
}
