/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include "jobs/resume.h"

#include <string.h>

static const struct checkpoint good = {
	.stream = true,
	.size = UINT64_C(42949672960),
	.kind = "device",
	.target_size = UINT64_C(42949672960),
	.id = 64768,
	.seq = 12,
	.boot = 0x0badcafe,
	.durable = 3 * RAW_STEP + 4096,
	.restart = 2 * RAW_STEP,
};

/* Whether it is read back as it was. */
static bool accepted(const struct checkpoint *c)
{
	char text[CHECKPOINT_MOST], again[CHECKPOINT_MOST];
	const size_t n = checkpoint_text(text, c);
	struct checkpoint back;

	return checkpoint_parse(&back, text, n) && checkpoint_text(again, &back) == n && !memcmp(text, again, n);
}

static void test_checkpoint_text(void)
{
	char text[CHECKPOINT_MOST], other[CHECKPOINT_MOST + 1];
	const size_t n = checkpoint_text(text, &good);
	struct checkpoint c;

	CHECK(accepted(&good));
	for (size_t i = 0; i < n; i++) {
		CHECK(!checkpoint_parse(&c, text, i));
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(other, text, n);
			other[i] = (char)(other[i] ^ 1 << bit);
			CHECK(!checkpoint_parse(&c, other, n));
		}
	}
	memcpy(other, text, n);
	other[n] = '\n';
	CHECK(!checkpoint_parse(&c, other, n + 1));
	memset(other, '0', sizeof(other));
	CHECK(!checkpoint_parse(&c, other, sizeof(other)));
	CHECK(!checkpoint_parse(&c, other, CHECKPOINT_MOST));
}

/* With a checksum that is right. */
static void test_checkpoint_values(void)
{
	struct checkpoint c = good;

	c.stream = false;
	CHECK(!accepted(&c)); /* files begin nowhere */
	c.restart = 0;
	CHECK(accepted(&c));
	c.durable = c.size;
	CHECK(accepted(&c));
	c.durable++;
	CHECK(!accepted(&c));
	c = good;
	c.size = 0;
	CHECK(!accepted(&c));
	c.size = POS_LIMIT + 1;
	CHECK(!accepted(&c));
	c = good;
	c.restart++;
	CHECK(!accepted(&c));
	c.restart = 3 * RAW_STEP; /* less than one step behind it is durable */
	CHECK(!accepted(&c));
	c.restart = UINT64_C(1) << 40;
	CHECK(!accepted(&c));
	c = good;
	c.durable = c.restart = 0;
	CHECK(accepted(&c));
	c.id = c.seq = c.input = c.target_size = UINT64_MAX;
	CHECK(accepted(&c));
}

const struct test resume_tests[] = {
	{"checkpoint_text", test_checkpoint_text},
	{"checkpoint_values", test_checkpoint_values},
	{NULL, NULL},
};
