/* SPDX-License-Identifier: MIT */
/* Which grains are in use, and in which order they are written. */
#include "mkvmdk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct range {
	uint64_t first, end;
};

struct ranges {
	struct range *v;
	size_t n, room;
};

static void add_range(struct ranges *r, uint64_t first, uint64_t end)
{
	if (first >= end)
		return;
	if (r->n == r->room) {
		r->room = r->room ? r->room * 2 : 64;
		r->v = realloc(r->v, r->room * sizeof(*r->v));
		if (!r->v)
			die(1, "out of memory");
	}
	r->v[r->n++] = (struct range){first, end};
}

static int by_first(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static void tidy(struct ranges *r)
{
	size_t n = 0;

	if (!r->n)
		return;
	qsort(r->v, r->n, sizeof(*r->v), by_first);
	for (size_t i = 1; i < r->n; i++) {
		if (r->v[i].first > r->v[n].end)
			r->v[++n] = r->v[i];
		else if (r->v[i].end > r->v[n].end)
			r->v[n].end = r->v[i].end;
	}
	r->n = n + 1;
}

static uint64_t total(const struct ranges *r)
{
	uint64_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += r->v[i].end - r->v[i].first;
	return n;
}

static void limit_used(uint64_t n)
{
	if (n > MAX_USED)
		die(2, "more than %llu grains in use", MAX_USED);
}

static void pick_random(struct ranges *to, uint64_t grains, uint64_t count, uint64_t *rng)
{
	struct ranges r = {0};
	uint64_t have;

	if (count > grains)
		die(2, "random:%" PRIu64 " of %" PRIu64 " grains", count, grains);
	limit_used(count);
	if (count > grains / 2) {
		for (uint64_t g = 0; count; g++) {
			if (below(rng, grains - g) < count) {
				add_range(to, g, g + 1);
				count--;
			}
		}
		return;
	}
	while ((have = total(&r)) < count) {
		while (have++ < count) {
			uint64_t g = below(rng, grains);

			add_range(&r, g, g + 1);
		}
		tidy(&r);
	}
	for (size_t i = 0; i < r.n; i++)
		add_range(to, r.v[i].first, r.v[i].end);
	free(r.v);
}

uint64_t scan_index(const char **s, uint64_t limit)
{
	const char *start = *s;
	uint64_t v;

	if (!strncmp(*s, "last", 4)) {
		*s += 4;
		return limit - 1;
	}
	if (!scan(s, &v))
		die(2, "bad index '%s'", start);
	if (v >= limit)
		die(2, "index %" PRIu64 " is not below %" PRIu64, v, limit);
	return v;
}

/* PREFIX N[:N[:N]] */
static bool numbers(const char *s, const char *prefix, uint64_t *v, int want)
{
	size_t n = strlen(prefix);

	if (strncmp(s, prefix, n))
		return false;
	s += n;
	for (int i = 0; i < want; i++) {
		if (*s++ != ':' || !scan(&s, &v[i]))
			die(2, "%s takes %d numbers", prefix, want);
	}
	if (*s)
		die(2, "%s: trailing '%s'", prefix, s);
	return true;
}

static void add_part(struct ranges *r, const char *s, uint64_t grains, uint64_t *rng)
{
	uint64_t v[3] = {0};

	if (!strcmp(s, "none"))
		return;
	if (!strcmp(s, "all")) {
		add_range(r, 0, grains);
	} else if (numbers(s, "every", v, 1)) {
		if (!v[0])
			die(2, "every:0");
		limit_used(grains / v[0]);
		for (uint64_t g = 0; g < grains; g += v[0])
			add_range(r, g, g + 1);
	} else if (numbers(s, "random", v, 1)) {
		pick_random(r, grains, v[0], rng);
	} else if (numbers(s, "runs", v, 3)) {
		if (!v[1] || v[1] > v[2] || v[2] > grains)
			die(2, "runs of %" PRIu64 " to %" PRIu64 " in %" PRIu64 " grains",
			    v[1], v[2], grains);
		for (uint64_t i = 0; i < v[0]; i++) {
			uint64_t len = v[1] + below(rng, v[2] - v[1] + 1);
			uint64_t first = below(rng, grains - len + 1);

			add_range(r, first, first + len);
		}
	} else {
		for (;;) {
			uint64_t first = scan_index(&s, grains), last = first;

			if (*s == '-') {
				s++;
				last = scan_index(&s, grains);
			}
			if (last < first)
				die(2, "range ends before its start");
			add_range(r, first, last + 1);
			if (!*s)
				break;
			if (*s++ != ',')
				die(2, "bad grain list at '%s'", s - 1);
		}
	}
}

static struct ranges choose(const char *spec, uint64_t grains, uint64_t rng)
{
	char *copy = strdup(spec), *rest = copy, *part;
	struct ranges r = {0};

	if (!copy)
		die(1, "out of memory");
	while ((part = strsep(&rest, "+")))
		add_part(&r, part, grains, &rng);
	free(copy);
	tidy(&r);
	return r;
}

static bool within(const struct ranges *r, size_t *at, uint64_t g)
{
	while (*at < r->n && r->v[*at].end <= g)
		++*at;
	return *at < r->n && r->v[*at].first <= g;
}

/* Lists the used grains; sec = 1 marks those that will get data in the file. */
void choose_grains(struct disk *d)
{
	struct ranges a = choose(d->alloc, d->grains, mix(d->seed ^ 0xa110c));
	struct ranges z = choose(d->zero, d->grains, mix(d->seed ^ 0x2e20));
	struct ranges u = choose(d->unmapped, d->grains, mix(d->seed ^ 0x4e3a9));
	const struct ranges *each[] = {&a, &z, &u};
	struct ranges any = {0};
	size_t at = 0, zt = 0, ut = 0;

	for (int k = 0; k < 3; k++)
		for (size_t i = 0; i < each[k]->n; i++)
			add_range(&any, each[k]->v[i].first, each[k]->v[i].end);
	tidy(&any);
	limit_used(total(&any));
	d->ent = grab(total(&any), sizeof(*d->ent));
	for (size_t i = 0; i < any.n; i++) {
		for (uint64_t g = any.v[i].first; g < any.v[i].end; g++) {
			struct ent *e = &d->ent[d->nent++];
			bool alloc = within(&a, &at, g), zero = within(&z, &zt, g);
			bool unmapped = within(&u, &ut, g);

			e->g = g;
			e->kind = unmapped ? UNMAPPED : zero ? ZERO : DATA;
			e->sec = alloc && e->kind != ZERO;
		}
	}
	free(a.v);
	free(z.v);
	free(u.v);
	free(any.v);
}

static void shuffle(uint32_t *v, size_t n, uint64_t rng)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = below(&rng, i);
		uint32_t x = v[i - 1];

		v[i - 1] = v[j];
		v[j] = x;
	}
}

/* Puts the stretches of neighbouring grains in random order, each in itself in order. */
static void order_runs(struct disk *d, uint64_t rng)
{
	uint32_t *start = grab(d->nent, sizeof(*start));
	size_t n = 0, at = 0;

	for (size_t i = 0; i < d->nent; i++)
		if (!i || d->ent[i].g != d->ent[i - 1].g + 1)
			start[n++] = (uint32_t)i;
	shuffle(start, n, rng);
	for (size_t r = 0; r < n; r++) {
		size_t i = start[r];

		do
			d->order[at++] = (uint32_t)i++;
		while (i < d->nent && d->ent[i].g == d->ent[i - 1].g + 1);
	}
	free(start);
}

void choose_order(struct disk *d)
{
	uint64_t rng = mix(d->seed ^ 0x5ff1e);

	d->order = grab(d->nent, sizeof(*d->order));
	if (d->layout == RUNS) {
		order_runs(d, rng);
		return;
	}
	for (size_t i = 0; i < d->nent; i++)
		d->order[i] = (uint32_t)(d->layout == REVERSE ? d->nent - 1 - i : i);
	if (d->layout == RANDOM)
		shuffle(d->order, d->nent, rng);
}
