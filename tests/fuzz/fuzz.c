/* SPDX-License-Identifier: MIT */
/* See fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

/* More than this is no defect, only slow. */
#define RUNS_MAX 20000u
#define FETCHED_MAX (64u << 20)

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken promise: %s\n", what);
	abort();
}

static uint64_t mix(uint64_t sum, uint64_t v)
{
	return (sum ^ v) * 0x100000001b3u + (sum >> 29);
}

/* 0 or -errno. */
static int walk(struct reader *r, bool fetch, uint64_t *sum, uint64_t *runs)
{
	struct err e = {.set = false};
	uint64_t at = 0, fetched = 0;
	struct run run;
	int got = 0;

	*sum = *runs = 0;
	while (*runs < RUNS_MAX && (got = reader_next(r, &run, &e)) > 0) {
		need(run.len > 0 && run.off >= at && run.off + run.len <= r->size, "run in order");
		at = run.off + run.len;
		*sum = mix(mix(mix(mix(*sum, run.off), run.len), run.pos), run.kind);
		++*runs;
		if (run.kind == RUN_RAW)
			need(run.pos + run.len <= run.src->size, "run inside its file");
		if (run.kind == RUN_COMPRESSED && fetch && run.len <= FETCHED_MAX - fetched) {
			struct err why = {.set = false};
			uint8_t *buf = malloc(run.len);

			need(buf, "memory");
			if (!reader_fetch(&run, buf, &why))
				need(!why.set, "no message without an error");
			else
				need(why.set, "a message with each error");
			fetched += run.len;
			free(buf);
		}
	}
	need(got >= 0 || e.set, "a message with each error");
	return got < 0 ? got : 0;
}

void fuzz_reader(struct reader *r)
{
	struct err e = {.set = false};
	uint64_t sum, again, runs, runs_again;
	int first = walk(r, false, &sum, &runs), second;

	if (!first) {
		need(!reader_rewind(r, &e), "rewind");
		second = walk(r, true, &again, &runs_again);
		need(!second && again == sum && runs_again == runs, "the same walk twice");
	}
	reader_free(r);
}

int fuzz_leaf(fuzz_opener *open, const uint8_t *data, size_t size)
{
	struct format_opts o = {.copies = COPIES_EQUAL};
	struct err e = {.set = false};
	struct format_facts facts;
	struct source *src;
	struct reader *r;

	if (!size)
		return 0;
	size--;
	if (data[size] == 1)
		o.copies = COPY_PRIMARY;
	else if (data[size] == 2)
		o.copies = COPY_REDUNDANT;
	e.strict = data[size] == 3;
	if (source_memory(&src, "fuzz", data, size, &e) < 0)
		abort();
	if (open(&r, src, &o, &facts, &e) < 0) {
		need(e.set, "a message with each error");
		source_free(src);
	} else {
		need(facts.format && r->size, "facts");
		fuzz_reader(r);
	}
	return 0;
}
