/* SPDX-License-Identifier: MIT */
/*
 * What a terminal can show, and text that is laid out for it. Knows terminals and the environment; must
 * not know what is shown. Called by vmdksync.c and the files of this folder.
 */
#ifndef SCREEN_H
#define SCREEN_H

#include "cli/json.h"

struct screen {
	bool terminal;
	bool utf8;        /* the locale has UTF-8 */
	bool colour;      /* a terminal that can, and NO_COLOR is not set */
	unsigned columns; /* 80 where there is no terminal */
};

struct screen screen_of(int fd);
/* Of a terminal as it is now; 80 where there is none. */
unsigned screen_columns(int fd);

/* Columns of a text in UTF-8; characters that may be wide are taken for two. */
unsigned screen_width(const char *s);
/* The last part of a file name. */
const char *screen_last(const char *name);
/* The same, and only its end where it has more than `columns` columns. */
void screen_name(struct text *t, const char *name, unsigned columns);
/* A label and, behind it, text that is wrapped at the edge of a terminal; elsewhere it stays one line. */
void screen_row(struct text *t, const struct screen *s, const char *label, const char *text);

/* A word as a shell takes it. */
void screen_word(struct text *t, const char *word);

#endif
