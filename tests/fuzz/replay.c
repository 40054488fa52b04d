/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over files, with any compiler: replay FILE... */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		uint8_t *data = NULL;
		size_t n = 0, room = 0;

		while (f && !feof(f) && !ferror(f)) {
			if (n == room) {
				room = room ? room * 2 : 65536;
				data = realloc(data, room);
				if (!data)
					abort();
			}
			n += fread(data + n, 1, room - n, f);
		}
		if (!f || ferror(f)) {
			perror(argv[i]);
			return 1;
		}
		fclose(f);
		/* exactly as long as the input: what reads beyond it is seen */
		data = realloc(data, n ? n : 1);
		fprintf(stderr, "%s\n", argv[i]);
		LLVMFuzzerTestOneInput(data, n);
		free(data);
	}
	return 0;
}
