/* SPDX-License-Identifier: MIT */
/* See sides.h. */
#include "chain/sides.h"

#include <stdlib.h>

static int sides_next(struct reader *reader, struct run *run, struct err *e)
{
	struct sides *s = container_of(reader, struct sides, reader);

	while (s->i < s->n) {
		const struct part *p = &s->part[s->i];
		int got;

		/* they are read one after the other, but what they keep stays */
		p->reader->share = (unsigned)s->n * (reader->share ? reader->share : 1);
		got = reader_next(p->reader, run, e);

		if (got < 0)
			return got;
		if (!got)
			s->i++;
		/* a header's capacity may be rounded up to a whole grain */
		if (!got || run->off >= p->size)
			continue;
		run->len = min_u64(run->len, p->size - run->off);
		run->off += p->start;
		return 1;
	}
	return 0;
}

static int sides_rewind(struct reader *reader, struct err *e)
{
	struct sides *s = container_of(reader, struct sides, reader);
	int r = 0;

	s->i = 0;
	for (size_t i = 0; !r && i < s->n; i++)
		r = reader_rewind(s->part[i].reader, e);
	return r;
}

static void sides_free(struct reader *reader)
{
	struct sides *s = container_of(reader, struct sides, reader);

	for (size_t i = 0; i < s->n; i++)
		reader_free(s->part[i].reader);
	free(s);
}

static const struct reader_ops sides_ops = {
	.next = sides_next,
	.rewind = sides_rewind,
	.free = sides_free,
};

struct sides *sides_new(const char *name, size_t room)
{
	struct sides *s = calloc(1, sizeof(*s) + room * sizeof(s->part[0]));

	if (s)
		reader_init(&s->reader, &sides_ops, name, 0);
	return s;
}

void sides_add(struct sides *s, struct reader *r, uint64_t start, uint64_t size)
{
	s->part[s->n++] = (struct part){r, start, size};
	if (r->streaming)
		s->reader.streaming = r->streaming;
	s->reader.size = start + size;
}
