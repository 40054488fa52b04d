/* See chain.h. */
#include "chain.h"

#include <stdlib.h>

struct layer {
	struct reader *reader;
	struct run run; /* what it has next; run.len 0: nothing more */
};

struct merge {
	struct reader reader;
	bool primed;
	size_t n;
	struct layer layer[]; /* newest first */
};

/* Makes l->run begin at or behind `from`. */
static int advance(struct layer *l, uint64_t from, struct err *e)
{
	while (l->run.len && l->run.off + l->run.len <= from) {
		int got = reader_next(l->reader, &l->run, e);

		if (got < 0)
			return got;
		if (!got)
			l->run = (struct run){0};
	}
	if (l->run.len && l->run.off < from)
		run_trim_front(&l->run, from - l->run.off);
	return 0;
}

static int merge_next(struct reader *reader, struct run *run, struct err *e)
{
	struct merge *m = container_of(reader, struct merge, reader);
	size_t top = m->n;
	uint64_t end;
	int r;

	for (size_t i = 0; !m->primed && i < m->n; i++) {
		r = reader_next(m->layer[i].reader, &m->layer[i].run, e);
		if (r < 0)
			return r;
		if (!r)
			m->layer[i].run = (struct run){0};
	}
	m->primed = true;
	for (size_t i = 0; i < m->n; i++) /* the lowest offset; ties go to the newest */
		if (m->layer[i].run.len &&
		    (top == m->n || m->layer[i].run.off < m->layer[top].run.off))
			top = i;
	if (top == m->n)
		return 0;
	*run = m->layer[top].run;
	end = run->off + run->len;
	for (size_t i = 0; i < top; i++) /* a newer one that begins inside ends it */
		if (m->layer[i].run.len)
			end = min_u64(end, m->layer[i].run.off);
	run->len = end - run->off;
	for (size_t i = 0; i < m->n; i++) {
		r = advance(&m->layer[i], end, e);
		if (r < 0)
			return r;
	}
	return 1;
}

static int merge_rewind(struct reader *reader, struct err *e)
{
	struct merge *m = container_of(reader, struct merge, reader);
	int r = 0;

	m->primed = false;
	for (size_t i = 0; !r && i < m->n; i++)
		r = reader_rewind(m->layer[i].reader, e);
	return r;
}

static void merge_free(struct reader *reader)
{
	struct merge *m = container_of(reader, struct merge, reader);

	for (size_t i = 0; i < m->n; i++)
		reader_free(m->layer[i].reader);
	free(m);
}

static const struct reader_ops merge_ops = {
	.next = merge_next,
	.rewind = merge_rewind,
	.free = merge_free,
};

int merge_new(struct reader **out, struct reader *const *layers, size_t n, struct err *e)
{
	struct merge *m = calloc(1, sizeof(*m) + n * sizeof(m->layer[0]));
	uint64_t size = 0;

	for (size_t i = 0; i < n; i++) {
		size = max_u64(size, layers[i]->size);
		if (m)
			m->layer[i].reader = layers[i];
		else
			reader_free(layers[i]);
	}
	if (!m)
		return fail(e, ENOMEM, "out of memory");
	m->n = n;
	reader_init(&m->reader, &merge_ops, n ? layers[0]->name : "nothing", size);
	*out = &m->reader;
	return 0;
}

struct fill {
	struct reader reader;
	struct reader *child;
	struct run run; /* what child has next; len 0: ask it */
	uint64_t at;
	bool ended;
};

static int fill_next(struct reader *reader, struct run *run, struct err *e)
{
	struct fill *f = container_of(reader, struct fill, reader);

	if (!f->run.len && !f->ended) {
		int got = reader_next(f->child, &f->run, e);

		if (got < 0)
			return got;
		if (!got) {
			f->run = (struct run){0};
			f->ended = true;
		}
	}
	if (f->run.len && f->run.off == f->at) {
		*run = f->run;
		f->run.len = 0;
	} else {
		uint64_t end = f->run.len ? f->run.off : reader->size;

		*run = (struct run){.off = f->at, .len = end - f->at, .kind = RUN_ZERO};
		if (!run->len)
			return 0;
	}
	f->at = run->off + run->len;
	return 1;
}

static int fill_rewind(struct reader *reader, struct err *e)
{
	struct fill *f = container_of(reader, struct fill, reader);

	f->run.len = 0;
	f->at = 0;
	f->ended = false;
	return reader_rewind(f->child, e);
}

static void fill_free(struct reader *reader)
{
	struct fill *f = container_of(reader, struct fill, reader);

	reader_free(f->child);
	free(f);
}

static const struct reader_ops fill_ops = {
	.next = fill_next,
	.rewind = fill_rewind,
	.free = fill_free,
};

int fill_new(struct reader **out, struct reader *child, struct err *e)
{
	struct fill *f = calloc(1, sizeof(*f));

	if (!f) {
		reader_free(child);
		return fail(e, ENOMEM, "out of memory");
	}
	f->child = child;
	reader_init(&f->reader, &fill_ops, child->name, child->size);
	*out = &f->reader;
	return 0;
}
