/* SPDX-License-Identifier: MIT */
/* See hints.h. Fields of /proc/self/mountinfo: proc(5). */
#include "base/hints.h"

#include <ctype.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Decodes \040 and so on in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && isdigit((unsigned char)s[1]) && isdigit((unsigned char)s[2]) &&
		    isdigit((unsigned char)s[3])) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Whether a name of one of these files is that of the device. Decodes it. */
static bool names_device(char *path, dev_t dev)
{
	struct stat st;

	unescape(path);
	return path[0] == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev;
}

/* Where a device is mounted, for the caller to free; NULL: nowhere in this namespace. Some file systems
 * (btrfs) have device numbers of their own, so its name is looked for as well. */
static char *mounted_on(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *found = NULL;
	size_t room = 0;

	while (f && !found && getline(&line, &room, f) > 0) {
		char *dash = strstr(line, " - "), source[PATH_MAX], where[PATH_MAX];
		unsigned ma, mi;

		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &ma, &mi, where) != 3)
			continue;
		if (makedev(ma, mi) != dev &&
		    (!dash || sscanf(dash, " - %*s %4095s", source) != 1 || !names_device(source, dev)))
			continue;
		unescape(where);
		found = name_text(where);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

static bool is_swap(dev_t dev)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[PATH_MAX + 64], name[PATH_MAX];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%4095s", name) == 1 && names_device(name, dev);
	if (f)
		fclose(f);
	return found;
}

/* The first device that lies on this one (LVM, RAID, multipath, encryption). */
static bool holder_of(dev_t dev, char *name, size_t size)
{
	char path[96];
	glob_t g = {0};
	bool found;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders/*", major(dev), minor(dev));
	found = glob(path, 0, NULL, &g) == 0;
	if (found)
		snprintf(name, size, "%s", strrchr(g.gl_pathv[0], '/') + 1);
	globfree(&g);
	return found;
}

const char *hint_users(char *buf, size_t size, dev_t dev)
{
	char *where = mounted_on(dev), holder[256];

	buf[0] = '\0';
	if (where)
		snprintf(buf, size, " (mounted on %s): unmount it first", where);
	else if (holder_of(dev, holder, sizeof(holder)))
		snprintf(buf, size, " (/dev/%s lies on it): lsblk shows what uses it", holder);
	else if (is_swap(dev))
		snprintf(buf, size, " (swap space): swapoff first");
	free(where);
	return buf;
}

bool hint_partition(char *buf, size_t size, dev_t dev)
{
	char path[96], real[PATH_MAX], *slash;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(dev), minor(dev));
	if (access(path, F_OK) < 0)
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/..", major(dev), minor(dev));
	slash = realpath(path, real) ? strrchr(real, '/') : NULL; /* .../block/sda */
	if (!slash)
		return false;
	snprintf(buf, size, "/dev%s", slash);
	/* in sysfs / is ! */
	for (char *p = buf; *p; p++)
		if (*p == '!')
			*p = '/';
	return true;
}

/* vm-101-disk-0, base-100-disk-1, vm-101-cloudinit, vm-101-state-x */
static bool guest_volume(const char *s)
{
	size_t n = !strncmp(s, "vm-", 3) ? 3 : !strncmp(s, "base-", 5) ? 5 : 0;
	size_t digits = n ? strspn(s + n, "0123456789") : 0;

	return digits && s[n + digits] == '-' && !strchr(s, '/');
}

/* "local-lvm:vm-101-disk-0", "local:101/vm-101-disk-0.raw" */
static bool proxmox_volume(const char *path)
{
	size_t storage = strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
	const char *volume = path + storage + 1, *slash;

	if (!storage || path[storage] != ':')
		return false;
	slash = strrchr(volume, '/');
	return guest_volume(slash ? slash + 1 : volume);
}

/* Whether it is there, or looks as if it could be on the machine that is meant. */
static bool in_folder(const char *dir, const char *path)
{
	char dev[PATH_MAX];
	struct stat st;

	return snprintf(dev, sizeof(dev), "%s/%s", dir, path) < (int)sizeof(dev) &&
	       (guest_volume(strrchr(path, '/') + 1) || lstat(dev, &st) == 0);
}

bool hint_volume(char *buf, size_t size, const char *path)
{
	const char *slash = strchr(path, '/'), *dir = NULL;
	struct stat st;
	bool found = true;
	char *name;

	if (lstat(path, &st) == 0)
		return false;
	name = name_text(path);
	if (!name)
		return false;
	if (slash && slash != path && path[0] != '.')
		dir = !strchr(slash + 1, '/') && in_folder("/dev", path) ? "/dev"
		      : in_folder("/dev/zvol", path)			 ? "/dev/zvol"
										 : NULL;
	if (!strncmp(path, "nbd:", 4) || !strncmp(path, "nbd+unix:", 9))
		snprintf(buf, size, "is not a path; an NBD server is named nbd://HOST[:PORT]/EXPORT or "
				    "nbd+unix:///EXPORT?socket=PATH");
	else if (!strncmp(path, "rbd:", 4) && path[4])
		snprintf(buf, size, "is a Ceph image, not a path; examples/with-disk.sh attaches it, or "
				    "'rbd map %.*s' prints its device", (int)strcspn(name + 4, ":"), name + 4);
	else if (proxmox_volume(path))
		snprintf(buf, size, "is a Proxmox volume, not a path; 'pvesm path %s' prints its path",
			 name);
	else if (dir)
		snprintf(buf, size, "is the name of a volume, not a path; its device is %s/%s", dir, name);
	else
		found = false;
	free(name);
	return found;
}

/* --- words --------------------------------------------------------------------------------------- */

/* How many letters have to be put in, taken out, changed, or exchanged with the next; most + 1: more. */
static size_t distance(const char *a, const char *b, size_t most)
{
	size_t least = most;

	for (; *a && *a == *b; a++)
		b++;
	if (!*a && !*b)
		return 0;
	if (!most--)
		return 1;
	if (*a)
		least = min_u64(least, distance(a + 1, b, most));
	if (*b)
		least = min_u64(least, distance(a, b + 1, most));
	if (*a && *b)
		least = min_u64(least, distance(a + 1, b + 1, most));
	if (*a && *b && a[0] == b[1] && a[1] == b[0])
		least = min_u64(least, distance(a + 2, b + 2, most));
	return least + 1;
}

const char *hint_word(const char *typed, const void *words, size_t n, size_t stride)
{
	const size_t most = strlen(typed) < 4 ? 1 : 2;
	const char *found = NULL;
	size_t least = most + 1;

	for (size_t i = 0; i < n; i++) {
		const char *word = *(const char *const *)(const void *)((const char *)words + i * stride);
		size_t far = distance(typed, word, most);

		if (far == least)
			found = NULL; /* more than one */
		else if (far < least)
			found = word;
		least = far < least ? far : least;
	}
	return found;
}
