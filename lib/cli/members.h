/* SPDX-License-Identifier: MIT */
/*
 * Members that the JSON of several jobs has, and the object that is printed where a job fails. Knows what
 * a run of the program found; must not print. Called by report.c and vmdksync.c.
 */
#ifndef MEMBERS_H
#define MEMBERS_H

#include "cli/json.h"
#include "cli/work.h"

#define JSON_SCHEMA 1

/* An object begins: schema and job are its first members. */
void json_head(struct text *t, const struct options *o);
void json_target(struct text *t, const struct work *w);
/* chain: names, the newest first; and chain_hex where one of them is not exact. */
void json_chain(struct text *t, const struct chain *c);
/* undo: the log that is written, or null. */
void json_log(struct text *t, const struct work *w);
void json_warnings(struct text *t, const struct warnings *w);
/* What --position prints; NULL: memory was short. */
char *report_position(const struct work *w, uint64_t at);
/* It ends, with "error" as its last member. e: NULL where nothing failed; status: the exit status; help: what the message for
 * people says behind its own hint, or NULL. */
void json_end(struct text *t, const struct work *w, const struct err *e, int status, const char *help);
/* A job that failed. Where t is fixed, what has no limit is left out. */
void report_failure(struct text *t, const struct work *w, const struct err *e, int status, const char *help);

#endif
