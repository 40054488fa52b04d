/* SPDX-License-Identifier: MIT */
#include "vmdk/mark.h"

void mark_sift(struct mark *m, size_t n, size_t i)
{
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		struct mark x = m[i];

		if (child + 1 < n && m[child + 1].off > m[child].off)
			child++;
		if (m[child].off <= x.off)
			return;
		m[i] = m[child];
		m[child] = x;
	}
}

void mark_heap(struct mark *m, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		mark_sift(m, n, i);
}

void mark_sort(struct mark *m, size_t n)
{
	mark_heap(m, n);
	while (n-- > 1) {
		struct mark x = m[0];

		m[0] = m[n];
		m[n] = x;
		mark_sift(m, n, 0);
	}
}
