/* SPDX-License-Identifier: MIT */
/* The text of a checkpoint as it is, and with the checksum that it should have. */
#include "jobs/resume.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void parse(const char *text, size_t n)
{
	char again[CHECKPOINT_MOST];
	struct checkpoint c;

	if (!checkpoint_parse(&c, text, n))
		return;
	if (c.durable > c.size || c.restart > c.durable || (c.restart && !c.stream))
		abort();
	if (checkpoint_text(again, &c) != n || memcmp(again, text, n) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[CHECKPOINT_MOST + 64];

	parse((const char *)data, size);
	if (size > CHECKPOINT_MOST)
		return 0;
	memcpy(text, data, size);
	parse(text, size + (size_t)sprintf(text + size, "check %08lx\n", crc32(0, data, (uInt)size)));
	return 0;
}
