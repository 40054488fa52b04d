/* SPDX-License-Identifier: MIT */
#include "vmdk/pending.h"
#include "base/bitmap.h"

#include <stdlib.h>
#include <sys/random.h>

static struct pending_window **slot(const struct pending *p, uint64_t number)
{
	struct pending_window **w = &p->hash[number * p->salt >> (64 - PENDING_BITS)];

	while (*w && (*w)->number != number)
		w = &(*w)->next;
	return w;
}

bool pending_init(struct pending *p, uint64_t window_size)
{
	p->window_size = window_size;
	/* by chance, so that no file can be made of which all windows come to one list */
	if (getrandom(&p->salt, sizeof(p->salt), GRND_NONBLOCK) != sizeof(p->salt))
		p->salt = (uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15);
	p->salt |= 1;
	p->hash = calloc(PENDING_LISTS, sizeof(*p->hash));
	return p->hash;
}

void pending_free(struct pending *p)
{
	for (size_t i = 0; p->hash && i < PENDING_LISTS; i++) {
		struct pending_window *w, *next;

		for (w = p->hash[i]; w; w = next) {
			next = w->next;
			free(w->grain);
			free(w->named);
			free(w);
		}
	}
	free(p->hash);
}

struct pending_window *pending_window(const struct pending *p, uint64_t number)
{
	return *slot(p, number);
}

/* That window, made where it is not there yet. */
static struct pending_window *make_window(struct pending *p, uint64_t number)
{
	struct pending_window **w = slot(p, number);

	if (!*w) {
		*w = calloc(1, sizeof(**w));
		if (!*w)
			return NULL;
		(*w)->number = number;
		p->memory += sizeof(**w);
	}
	return *w;
}

bool pending_add(struct pending *p, uint64_t off, uint64_t pos, uint64_t len)
{
	struct pending_window *w = make_window(p, pos / p->window_size);

	if (w && w->grains == w->room) {
		const uint32_t room = w->room ? w->room * 2 : 4;
		struct pending_grain *more = realloc(w->grain, room * sizeof(*more));

		if (!more)
			return false;
		p->memory += (room - w->room) * sizeof(*more);
		w->grain = more;
		w->room = room;
	}
	if (!w)
		return false;
	w->grain[w->grains++] =
		(struct pending_grain){off, (uint32_t)(pos % p->window_size), (uint32_t)len};
	p->grains++;
	return true;
}

bool pending_spooled(struct pending *p, uint64_t number, uint64_t *named)
{
	struct pending_window *w = make_window(p, number);

	if (!w)
		return false;
	w->named = named;
	p->memory += p->window_size / SECTOR / 8;
	return true;
}

bool pending_name(struct pending *p, uint64_t pos, uint64_t len)
{
	struct pending_window *w = pending_window(p, pos / p->window_size);
	const uint64_t at = pos % p->window_size;

	return w && w->named && bitmap_set(w->named, at / SECTOR, div_up(at + len, SECTOR));
}

void pending_sort(struct pending_window *w)
{
	for (uint32_t i = 1; i < w->grains; i++)
		if (w->grain[i - 1].off >= w->grain[i].off) {
			qsort(w->grain, w->grains, sizeof(*w->grain), by_first_u64);
			return;
		}
}

void pending_received(struct pending *p, struct pending_window *w)
{
	p->grains -= w->grains;
	p->memory -= w->room * sizeof(*w->grain);
	free(w->grain);
	w->grain = NULL;
	w->grains = w->room = 0;
}

void pending_drop(struct pending *p, uint64_t number)
{
	struct pending_window **at = slot(p, number), *w = *at;

	if (!w || w->named)
		return;
	*at = w->next;
	pending_received(p, w);
	p->memory -= sizeof(*w);
	free(w);
}
