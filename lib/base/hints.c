/* SPDX-License-Identifier: MIT */
/* See hints.h. Fields of /proc/self/mountinfo: proc(5). */
#include "base/hints.h"

#include <ctype.h>
#include <dirent.h>
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
		struct stat st;

		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &ma, &mi, where) != 3)
			continue;
		if (makedev(ma, mi) != dev) {
			if (!dash || sscanf(dash, " - %*s %4095s", source) != 1)
				continue;
			unescape(source);
			if (source[0] != '/' || stat(source, &st) < 0 || !S_ISBLK(st.st_mode) ||
			    st.st_rdev != dev)
				continue;
		}
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
	struct stat st;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%4095s", name) != 1)
			continue;
		unescape(name);
		found = stat(name, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev;
	}
	if (f)
		fclose(f);
	return found;
}

/* The first device that lies on this one (LVM, RAID, multipath, encryption). */
static bool holder_of(dev_t dev, char *name, size_t size)
{
	char path[96];
	struct dirent *de;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(dev), minor(dev));
	d = opendir(path);
	while (d && !found && (de = readdir(d)))
		if (de->d_name[0] != '.') {
			snprintf(name, size, "%s", de->d_name);
			found = true;
		}
	if (d)
		closedir(d);
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
	*strrchr(path, '/') = '\0';
	if (!realpath(path, real))
		return false;
	slash = strrchr(real, '/'); /* .../block/sda/sda1 */
	if (!slash)
		return false;
	*slash = '\0';
	slash = strrchr(real, '/');
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
	const char *slash = strchr(path, '/');
	struct stat st;
	bool found = true;
	char *name;

	if (lstat(path, &st) == 0)
		return false;
	name = name_text(path);
	if (!name)
		return false;
	if (!strncmp(path, "nbd:", 4) || !strncmp(path, "nbd+unix:", 9))
		snprintf(buf, size, "is not a path; an NBD server is named nbd://HOST[:PORT]/EXPORT or "
				    "nbd+unix:///EXPORT?socket=PATH");
	else if (!strncmp(path, "rbd:", 4) && path[4])
		snprintf(buf, size, "is a Ceph image, not a path; examples/with-disk.sh attaches it, or "
				    "'rbd map %.*s' prints its device", (int)strcspn(name + 4, ":"), name + 4);
	else if (proxmox_volume(path))
		snprintf(buf, size, "is a Proxmox volume, not a path; 'pvesm path %s' prints its path",
			 name);
	else if (slash && slash != path && path[0] != '.' &&
		 ((!strchr(slash + 1, '/') && in_folder("/dev", path)) || in_folder("/dev/zvol", path)))
		snprintf(buf, size, "is the name of a volume, not a path; its device is %s/%s",
			 !strchr(slash + 1, '/') && in_folder("/dev", path) ? "/dev" : "/dev/zvol", name);
	else
		found = false;
	free(name);
	return found;
}

/* --- words --------------------------------------------------------------------------------------- */

#define WORD_MOST 32u

/* How many letters have to be put in, taken out, changed, or exchanged with the next. */
static size_t distance(const char *a, const char *b)
{
	const size_t n = strlen(a), m = strlen(b);
	size_t d[WORD_MOST + 1][WORD_MOST + 1] = {{0}}; /* or -fanalyzer doubts that all are set */

	if (n > WORD_MOST || m > WORD_MOST)
		return WORD_MOST;
	for (size_t i = 0; i <= n; i++)
		for (size_t k = 0; k <= m; k++) {
			size_t best;

			if (!i || !k) {
				d[i][k] = i + k;
				continue;
			}
			best = d[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
			best = d[i - 1][k] + 1 < best ? d[i - 1][k] + 1 : best;
			best = d[i][k - 1] + 1 < best ? d[i][k - 1] + 1 : best;
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
			    d[i - 2][k - 2] + 1 < best)
				best = d[i - 2][k - 2] + 1;
			d[i][k] = best;
		}
	return d[n][m];
}

const char *hint_word(const char *typed, const void *words, size_t n, size_t stride)
{
	const size_t most = strlen(typed) < 4 ? 1 : 2;
	const char *found = NULL;
	size_t least = most + 1;

	for (size_t i = 0; i < n; i++) {
		const char *word = *(const char *const *)(const void *)((const char *)words + i * stride);
		size_t far = distance(typed, word);

		if (far == least)
			found = NULL; /* more than one */
		else if (far < least)
			found = word;
		least = far < least ? far : least;
	}
	return found;
}
