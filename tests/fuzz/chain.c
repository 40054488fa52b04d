/* SPDX-License-Identifier: MIT */
/*
 * Several files: "@@NAME\n" begins each, what stands before the first is the image that is opened.
 * They lie in a folder of their own, which nothing may lead out of.
 */
#include "chain/chain.h"
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 8u
#define NAME 24u

static char folder[256];
static int folder_fd = -1;

static void remove_folder(void)
{
	rmdir(folder);
}

static void make_folder(void)
{
	const char *tmp = getenv("TMPDIR");

	if (folder_fd >= 0)
		return;
	if (!tmp || !*tmp)
		tmp = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* the latter is faster */
	snprintf(folder, sizeof(folder), "%s/fuzz.XXXXXX", tmp);
	if (!mkdtemp(folder))
		abort();
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0 || atexit(remove_folder))
		abort();
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
	int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
}

/* The name behind "@@" at p, or 0. */
static size_t name_at(const uint8_t *p, size_t n, char *name)
{
	size_t i;

	if (n < 4 || p[0] != '@' || p[1] != '@')
		return 0;
	for (i = 2; i < n && i < NAME + 2 && p[i] != '\n'; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789.-", p[i]) || !p[i])
			return 0;
	if (i == 2 || i == n || p[i] != '\n' || p[2] == '.')
		return 0;
	memcpy(name, p + 2, i - 2);
	name[i - 2] = '\0';
	return i + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[sizeof(folder) + NAME];
	const char *const top[] = {path};
	struct chain_opts o = {.parents = true, .found = true};
	struct err e = {.set = false};
	char name[FILES][NAME + 1] = {"top.vmdk"};
	size_t files = 0, begin = 0;
	struct chain *c;

	make_folder();
	snprintf(path, sizeof(path), "%s/top.vmdk", folder);
	o.image.lookup.confine = true;
	for (size_t i = 0; i <= size && files < FILES; i++) {
		char next[NAME + 1];
		size_t skip = i < size ? name_at(data + i, size - i, next) : 0;

		if (i < size && !skip)
			continue;
		write_file(name[files++], data + begin, i - begin);
		if (skip && files < FILES)
			strcpy(name[files], next);
		begin = i + skip;
	}
	if (chain_open(&c, top, 1, &o, &e) >= 0) {
		if (c->links && !chain_read(c, 0, c->links, !c->incomplete, &e)) {
			fuzz_reader(c->reader);
			c->reader = NULL;
		}
		chain_free(c);
	} else if (!e.set) {
		abort();
	}
	while (files--)
		unlinkat(folder_fd, name[files], 0);
	return 0;
}
