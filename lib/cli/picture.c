/* SPDX-License-Identifier: MIT */
/* See picture.h. */
#include "cli/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_EVERY 4096u /* runs, then it is asked whether to go on */

struct cell { /* what one image has in one part of the disk, bytes */
	uint64_t data, zero;
};

struct picture {
	const struct chain *c;
	const struct screen *screen;
	unsigned names;   /* columns of the names, */
	unsigned columns; /* and of the disk */
	uint64_t part;    /* bytes a column stands for */
	struct cell *cell;
};

static void draw_run(struct picture *p, const struct run *run)
{
	uint64_t off = run->off, end = run->off + run->len;

	while (run->layer < p->c->links && off < end) {
		const uint64_t column = off / p->part, n = min_u64(end, (column + 1) * p->part) - off;
		struct cell *cell = &p->cell[run->layer * p->columns + column];

		*(run->kind == RUN_ZERO ? &cell->zero : &cell->data) += n;
		off += n;
	}
}

static void put_line(const struct picture *p, struct text *t, size_t link)
{
	static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	const size_t begin = t->len;

	screen_name(t, p->c->link[link]->name, p->names);
	if (t->failed)
		return;
	text_printf(t, "%*s  ", (int)(p->names - screen_width(t->s + begin)), "");
	for (unsigned i = 0; i < p->columns; i++) {
		const struct cell *cell = &p->cell[link * p->columns + i];
		const unsigned level = (unsigned)((double)cell->data / (double)p->part * 7.999);

		if (!cell->data)
			text_add(t, cell->zero ? "0" : " ", 1);
		else if (p->screen->utf8)
			text_printf(t, "%s", blocks[level]);
		else
			text_add(t, &".:-=+*#@"[level], 1);
	}
	text_add(t, "\n", 1);
}

/* Offsets below the columns they belong to; the last ends at the edge, and others have to leave it room. */
static void put_scale(const struct picture *p, struct text *t)
{
	const unsigned labels = p->columns >= 50 ? 4 : 2;
	char size[32], all[32];
	unsigned edge = p->columns, n = (unsigned)strlen(size_text(all, p->c->link[0]->size));
	unsigned column = 1;

	edge = edge > n + 2 ? edge - n : 2;
	text_printf(t, "%*s  0", (int)p->names, "");
	for (unsigned i = 1; i < labels; i++) {
		const unsigned at = p->columns * i / labels;

		n = (unsigned)strlen(size_text(size, at * p->part));
		if (at <= column || at + n >= edge)
			continue;
		text_printf(t, "%*s%s", (int)(at - column), "", size);
		column = at + n;
	}
	text_printf(t, "%*s%s\n", (int)(edge - column), "", all);
}

static int begin(struct picture *p, struct err *e)
{
	const uint64_t size = p->c->link[0]->size;

	for (size_t i = 0; i < p->c->links; i++)
		p->names = (unsigned)max_u64(p->names, screen_width(screen_last(p->c->link[i]->name)));
	p->names = (unsigned)min_u64(p->names, p->screen->columns / 3);
	/* the last column stays free: a terminal may wrap as soon as it is filled */
	p->columns = p->screen->columns - p->names - 3;
	p->part = max_u64(div_up(size, p->columns), SECTOR);
	p->columns = (unsigned)max_u64(div_up(size, p->part), 1);
	p->cell = calloc(p->c->links * p->columns, sizeof(*p->cell));
	return p->cell ? 0 : fail(e, ENOMEM, "out of memory");
}

int picture_map(const struct chain *c, const struct screen *s, const struct report_out *out,
		int (*last)(void *arg, struct err *e), struct err *e)
{
	struct picture p = {.c = c, .screen = s};
	struct text t = {0};
	struct run run;
	char *text, part[32];
	int r = begin(&p, e), got = 1;

	for (unsigned n = 1; !r && (got = reader_next(c->reader, &run, e)) > 0; n++) {
		draw_run(&p, &run);
		if (n % ASK_EVERY == 0)
			r = out->put(out->arg, "", 0, e);
	}
	if (!r)
		r = got;
	if (!r)
		r = last(out->arg, e);
	for (size_t i = 0; !r && i < c->links; i++)
		put_line(&p, &t, i);
	if (!r) {
		put_scale(&p, &t);
		text_printf(&t, "A column is %s of the disk:%s%s little, %s all of it, 0 zeros only.\n",
			    size_text(part, p.part), s->columns < 80 ? "\n" : " ",
			    s->utf8 ? "▁" : ".", s->utf8 ? "█" : "@");
	}
	free(p.cell);
	text = text_take(&t);
	if (!r)
		r = text ? out->put(out->arg, text, strlen(text), e) : fail(e, ENOMEM, "out of memory");
	free(text);
	return r;
}
