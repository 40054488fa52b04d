/* SPDX-License-Identifier: MIT */
/* Compressed extents only, undo logs among them: hosted.c spends its time on the others. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* compressed, markers, and the compression there is; the rest of the header is the fuzzer's */
	if (size < 512 || (le32(data + 8) & 0x30000) != 0x30000 || data[77] != 1)
		return -1;
	return fuzz_leaf(hosted_open, data, size);
}
