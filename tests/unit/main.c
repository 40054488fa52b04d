/* SPDX-License-Identifier: MIT */
/*
 * Unit tests of lib/, a file a folder or module. Random tests are seeded: a failure comes back.
 * Usage: unit [NAME...]; scratch files lie in $TMPDIR.
 */
#include "unit.h"

#include <stdio.h>
#include <string.h>

static const struct test *const groups[] = {
	base_tests,
	run_tests,
	input_tests,
	chain_tests,
	queue_tests,
	pump_tests,
	nbd_tests,
	file_order_tests,
	streamopt_tests,
	undo_tests,
	resume_tests,
	cli_tests,
};

static bool chosen(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc == 1;
}

int main(int argc, char **argv)
{
	unsigned n = 0;

	for (size_t i = 0; i < COUNT(groups); i++) {
		for (const struct test *t = groups[i]; t->name; t++) {
			unsigned before = failures;

			if (!chosen(t->name, argc, argv))
				continue;
			t->run();
			printf("%s %u - %s\n", failures == before ? "ok" : "not ok", ++n, t->name);
			fflush(stdout);
		}
	}
	printf("1..%u\n# %u checks, %u failed\n", n, checks, failures);
	return failures || !n;
}
