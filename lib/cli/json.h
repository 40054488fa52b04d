/* SPDX-License-Identifier: MIT */
/*
 * Text built in memory, and on top of it JSON (RFC 8259). Must not know what is said in it. Called by the
 * files of this folder.
 */
#ifndef JSON_H
#define JSON_H

#include "base/base.h"

struct text { /* all zero: nothing yet */
	char *s;
	size_t len, room;
	bool failed; /* memory was short; later calls do nothing */
	bool fixed;  /* s is the caller's, of `room` bytes: what does not fit is cut off, none is allocated */
};

void text_add(struct text *t, const char *s, size_t n);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The text, for the caller to free, or NULL when memory was short. *t is empty again. */
char *text_take(struct text *t);

/* key: NULL inside an array and at the top. Commas and line ends are added where they are due. */
void json_open(struct text *t, const char *key, char bracket);
void json_close(struct text *t, char bracket);
/* Bytes that are not UTF-8 become U+FFFD. s: NULL is null. */
void json_string(struct text *t, const char *key, const char *s);
/* A name as name_text() makes it, or NULL; where it has escapes, a second member, the key with _hex behind
 * it, has the bytes of the name. */
void json_name(struct text *t, const char *key, const char *name);
/* Whether those bytes are the name itself; and they, as hexadecimal digits, or null where it is. */
bool json_is_exact(const char *name);
void json_hex(struct text *t, const char *key, const char *name);
void json_number(struct text *t, const char *key, uint64_t v);
/* null where it is not known. */
void json_known(struct text *t, const char *key, bool known, uint64_t v);
void json_bool(struct text *t, const char *key, bool v);

#endif
