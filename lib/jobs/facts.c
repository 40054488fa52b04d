/* SPDX-License-Identifier: MIT */
/* See facts.h. */
#include "jobs/facts.h"
#include "base/hints.h"
#include "output/guard.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <zlib.h>

const char *job_versions(char *buf, size_t size)
{
	struct err quiet = {.set = false};
	struct queue *q = NULL;
	struct utsname u = {0};
	const char *kind = queue_new(&q, 1, false, &quiet) < 0 ? "in line" : queue_kind(q);

	uname(&u);
	snprintf(buf, size, "%s, zlib %s, Linux %s (%s)", queue_library(), zlibVersion(), u.release, kind);
	queue_free(q);
	return buf;
}

const char *job_device_text(char *buf, size_t size, const struct target *t)
{
	static const char *const entry[] = {"device/model", "dm/name", "loop/backing_file"};
	char text[256];

	buf[0] = '\0';
	for (size_t i = 0; t->device && !*buf && i < sizeof(entry) / sizeof(*entry); i++) {
		size_t n;

		if (!sys_block_text(t->st.st_rdev, entry[i], text, sizeof(text)))
			continue;
		for (n = strlen(text); n && text[n - 1] == ' '; n--)
			text[n - 1] = '\0';
		for (char *s = text; *s; s++)
			if ((unsigned char)*s < ' ' || (unsigned char)*s > '~')
				*s = '?';
		snprintf(buf, size, "%s", text);
	}
	return buf;
}

const char *job_users_text(char *buf, size_t size, const struct target *t)
{
	char users[sizeof("") + 511];

	buf[0] = '\0';
	if (!t->device)
		return buf;
	hint_users(users, sizeof(users), t->st.st_rdev);
	snprintf(buf, size, "%s", *users ? users + 1 : "not mounted");
	return buf;
}

/* Where the magic numbers lie: util-linux's libblkid/src; the first that fits counts. */
const char *job_content(struct target *t)
{
	static const struct {
		uint32_t at;
		const char *magic;
		uint8_t bytes;
		const char *what;
	} known[] = {
		{512, "EFI PART", 8, "a GPT partition table"},
		{4096, "EFI PART", 8, "a GPT partition table"},
		{3, "NTFS    ", 8, "an NTFS file system"},
		{3, "EXFAT   ", 8, "an exFAT file system"},
		{82, "FAT32   ", 8, "a FAT file system"},
		{54, "FAT", 3, "a FAT file system"},
		{0, "XFSB", 4, "an XFS file system"},
		{0, "LUKS\xba\xbe", 6, "a LUKS container"},
		{1080, "\x53\xef", 2, "an ext2, ext3 or ext4 file system"},
		{65600, "_BHRfS_M", 8, "a Btrfs file system"},
		{512, "LABELONE", 8, "an LVM physical volume"},
		{4086, "SWAPSPACE2", 10, "a swap area"},
		{32769, "CD001", 5, "an ISO 9660 file system"},
		{1048576, "\x0d\xd0\x01\xc0", 4, "a VMFS file system"},
		{510, "\x55\xaa", 2, "an MBR partition table"},
	};
	uint8_t head[4096];
	bool hole;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i].at + UINT64_C(4096) <= t->size && target_look(t, known[i].at, head, known[i].bytes) &&
		    !memcmp(head, known[i].magic, known[i].bytes))
			return known[i].what;
	if (target_range(t, 0, &hole) >= t->size && hole)
		return "nothing: no block of it is allocated";
	if (t->size >= sizeof(head) && target_look(t, 0, head, sizeof(head)))
		return all_zero(head, sizeof(head)) ? "zeros at its start" : "data of an unknown kind";
	return "data that could not be read";
}
