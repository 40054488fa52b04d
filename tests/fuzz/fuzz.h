/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. Each target is a file with LLVMFuzzerTestOneInput() in it, for
 * libFuzzer, AFL++ (afl-clang-fast -fsanitize=fuzzer) or, linked with replay.c, any compiler.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "vmdk/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Walks all runs twice and unpacks what is packed: both walks have to say the same, or both fail.
 * Then drops the reader. */
void fuzz_reader(struct reader *r);

typedef int fuzz_opener(struct reader **out, struct source *src, const struct format_opts *o,
			struct format_facts *facts, struct err *e);

/* A leaf format over memory. The last byte chooses among format_opts. */
int fuzz_leaf(fuzz_opener *open, const uint8_t *data, size_t size);

#endif
