/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "cli/progress.h"

#include <string.h>
#include <unistd.h>

/* The first look, however fast it was, must not weigh more than its time. */
static void test_rate(void)
{
	struct rate r = {0};
	uint64_t done = 64 * MIB; /* at once, into a cache */

	rate_look(&r, done, 0.2);
	CHECK(r.bytes > 300.0 * MIB);
	for (int i = 2; i <= 15; i++) {
		done += MIB / 5;
		rate_look(&r, done, 0.2 * i);
		CHECK(r.bytes < (double)done / (0.2 * i) * 1.001);
	}
	/* what is steady is told as it is, from the first seconds on, and later what it is now */
	r = (struct rate){0};
	for (int i = 1; i <= 100; i++) {
		rate_look(&r, (uint64_t)i * MIB, 0.2 * i);
		CHECK(r.bytes > 4.99 * MIB && r.bytes < 5.01 * MIB);
	}
	for (int i = 101; i <= 250; i++)
		rate_look(&r, 100 * MIB, 0.2 * i);
	CHECK(r.bytes < 0.1 * MIB);
}

/* What is said when so much is done, but for the rate, which nobody can foresee. */
static void test_progress(void)
{
	static const struct {
		uint64_t done, total;
		const char *begin, *end;
	} want[] = {
		/* all that is there, and all but a byte, as far as a double can tell them apart */
		{UINT64_C(1) << 60, UINT64_C(1) << 60, "vmdksync 100%  1.0 EiB / 1.0 EiB  ", "/s  0:00 left\n"},
		{(UINT64_C(1) << 60) - 1, UINT64_C(1) << 60, "vmdksync  99%  1.0 EiB / 1.0 EiB  ",
		 "/s  0:00 left\n"},
		/* more than there should be */
		{2000, 1000, "vmdksync 100%  2.0 KiB / 1000 bytes  ", "/s  0:00 left\n"},
		/* years, and nobody knows how many */
		{1000, UINT64_C(1) << 62, "vmdksync   0%  1000 bytes / 4.0 EiB  ", "/s  999:59:59 left\n"},
		{0, 1000, "vmdksync   0%  0 bytes / 1000 bytes  0 bytes", "/s  -:-- left\n"},
		{1000, 0, "vmdksync  1000 bytes  ", "/s  0:00\n"},
	};
	int fd[2];

	if (pipe(fd))
		die("pipe");
	for (size_t i = 0; i < COUNT(want); i++) {
		struct progress p;
		const size_t begin = strlen(want[i].begin), end = strlen(want[i].end);
		char line[600];
		ssize_t n;

		progress_init(&p, PROGRESS_LINE, -1);
		progress_begin(&p, "write", want[i].total);
		progress_say(&p, fd[1], want[i].done);
		n = read(fd[0], line, sizeof(line) - 1);
		line[n > 0 ? n : 0] = '\0';
		CHECK(n >= (ssize_t)(begin + end) && !memcmp(line, want[i].begin, begin));
		CHECK_STR(n > (ssize_t)end ? line + n - end : line, want[i].end);
	}
	close(fd[0]);
	close(fd[1]);
}

const struct test cli_tests[] = {
	{"rate", test_rate},
	{"progress", test_progress},
	{NULL, NULL},
};
