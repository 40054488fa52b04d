/* SPDX-License-Identifier: MIT */
/*
 * drill - damages an image in every way that transfers do, and sees what the program makes of it.
 *
 *	drill PROGRAM NAME IMAGE BEFORE AFTER GRAINS [packed]
 *
 * IMAGE, undamaged, makes AFTER of a target that holds BEFORE. GRAINS lists where grains begin and end in
 * IMAGE, one a line; unless they are packed, nothing shows damage there. The image is cut, its tail zeroed,
 * and blocks of 4 and 64 KiB are zeroed, copied over the next one, doubled, dropped and swapped with
 * another. Each damaged image is applied as a file and through a pipe, and the whole target is
 * compared. One row a way tells how often it was
 *
 *	right	exit status 0, and nothing is wrong with the target: the damage did not matter
 *	refused	exit status 2 with the target untouched, or 3
 *	warned	exit status 0 and wrong bytes, with a warning
 *	data	exit status 0 and wrong bytes, but none with the same damage outside of the data of
 *		uncompressed grains: nothing shows what is wrong with these
 *	swapped	exit status 0 and wrong bytes: stretches of tables were exchanged for one another, and
 *		the format has nothing that could show it (only where DRILL_SWAPS is set)
 *	silent	exit status 0 and wrong bytes, and no word
 *
 * Of all damaged images so many are tried, chosen by chance, as DRILL_CASES says (0: all of them), by a
 * fixed seed, and half of them damaged outside of grains, as far as there are as many. Exit: 0 nothing was silent, 1 something was, or the program broke down, 2 trouble.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CASES 200
#define BLOCK 4096u
#define LARGE 65536u

enum kind { CUT, TAIL, ZERO, OVER, DOUBLE, DROP, SWAP };
static const char *const kind_name[] = {"cut",    "zeroed tail", "zeroed", "copied over the next",
					"doubled", "dropped",	 "swapped"};

enum result { RIGHT, REFUSED, WARNED, DATA, SWAPPED, SILENT, BROKEN, RESULTS };
static const char *const result_name[] = {"right", "refused", "warned", "data",
					  "swapped", "silent",	"broken"};

struct bytes {
	uint8_t *p;
	size_t n;
};

struct damage {
	enum kind kind;
	size_t size, pos, other;
};

struct range {
	size_t from, to;
};

static struct bytes image, before, after, bad, got;
static struct range *data;
static size_t datas;
static bool packed;
static char said[4096];

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("drill: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static void *grab(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		die("out of memory");
	return p;
}

static struct bytes load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct bytes b = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s: %s", path, strerror(errno));
	b.n = (size_t)st.st_size;
	b.p = grab(b.n);
	for (size_t at = 0; at < b.n;) {
		ssize_t r = read(fd, b.p + at, b.n - at);

		if (r <= 0)
			die("%s: %s", path, r ? strerror(errno) : "became shorter");
		at += (size_t)r;
	}
	close(fd);
	return b;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* holes: blocks of zeros are not written. */
static void store(const char *path, const struct bytes *b, bool holes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0 || ftruncate(fd, (off_t)b->n) < 0)
		die("%s: %s", path, strerror(errno));
	for (size_t at = 0; at < b->n;) {
		size_t n = b->n - at < LARGE ? b->n - at : LARGE;

		if (!holes || !all_zero(b->p + at, n))
			if (pwrite(fd, b->p + at, n, (off_t)at) != (ssize_t)n)
				die("%s: %s", path, strerror(errno));
		at += n;
	}
	close(fd);
}

static void load_data(const char *path)
{
	FILE *f = fopen(path, "r");
	size_t from, to;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fscanf(f, "%zu %zu", &from, &to) == 2) {
		data = realloc(data, (datas + 1) * sizeof(*data));
		if (!data)
			die("out of memory");
		data[datas++] = (struct range){from, to};
	}
	fclose(f);
}

static int by_from(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

/* Where the bytes at `at`, if they are grain data, end; else `at`. */
static size_t data_end(size_t at)
{
	size_t lo = 0, hi = datas;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (data[mid].to <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < datas && data[lo].from <= at ? data[lo].to : at;
}

static bool is_data(size_t from, size_t to)
{
	while (from < to) {
		size_t end = data_end(from);

		if (end == from)
			return false;
		from = end;
	}
	return true;
}

/* Puts the grain data back, and leaves all other damage. */
static void heal(void)
{
	for (size_t i = 0; i < datas; i++) {
		size_t to = data[i].to < bad.n ? data[i].to : bad.n;

		if (data[i].from < to)
			memcpy(bad.p + data[i].from, image.p + data[i].from, to - data[i].from);
	}
}

/* --- damage -------------------------------------------------------------------------------------- */

static size_t part(size_t pos, size_t size)
{
	return image.n - pos < size ? image.n - pos : size;
}

/* Makes `bad`, which has room for a block more than the image. */
static void make(const struct damage *d)
{
	const size_t n = part(d->pos, d->size), end = d->pos + n;

	memcpy(bad.p, image.p, image.n);
	bad.n = image.n;
	switch (d->kind) {
	case CUT:
		bad.n = d->pos;
		break;
	case TAIL:
		memset(bad.p + d->pos, 0, image.n - d->pos);
		break;
	case ZERO:
		memset(bad.p + d->pos, 0, n);
		break;
	case OVER:
		memcpy(bad.p + end, image.p + d->pos, part(end, n));
		break;
	case DOUBLE:
		memcpy(bad.p + end, image.p + d->pos, image.n - d->pos);
		bad.n += n;
		break;
	case DROP:
		memcpy(bad.p + d->pos, image.p + end, image.n - end);
		bad.n -= n;
		break;
	case SWAP:
		memcpy(bad.p + d->pos, image.p + d->other, d->size);
		memcpy(bad.p + d->other, image.p + d->pos, d->size);
		break;
	}
}

static uint64_t hash(const struct bytes *b)
{
	uint64_t h = b->n, w;

	for (size_t at = 0; at + 8 <= b->n; at += 8) {
		memcpy(&w, b->p + at, 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

static uint64_t random_state = 1;

static uint64_t below(uint64_t n)
{
	uint64_t x = random_state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return (x ^ (x >> 31)) % n;
}

static struct damage *list;
static size_t listed, list_room;

static void add(struct damage d)
{
	if (listed == list_room) {
		list_room = list_room ? list_room * 2 : 1024;
		list = realloc(list, list_room * sizeof(*list));
		if (!list)
			die("out of memory");
	}
	list[listed++] = d;
}

static void exchange(size_t i, size_t j)
{
	struct damage x = list[i];

	list[i] = list[j];
	list[j] = x;
}

static bool touches_metadata(const struct damage *d)
{
	return !is_data(d->pos, d->pos + part(d->pos, d->size)) ||
	       (d->kind == SWAP && !is_data(d->other, d->other + d->size));
}

/* Everything, in random order, those of the metadata first in every other place; of blocks that hold nothing but grain data only some. */
static void list_damages(void)
{
	static const size_t sizes[] = {BLOCK, LARGE};

	for (size_t k = 0; k < 2; k++)
		for (size_t pos = 0, size = sizes[k]; pos < image.n; pos += size) {
			if (is_data(pos, pos + part(pos, size)) && below(16))
				continue;
			for (enum kind kind = CUT; kind <= DROP; kind++)
				if ((kind > TAIL || size == BLOCK) &&
				    (kind != OVER || pos + size < image.n))
					add((struct damage){kind, size, pos, 0});
			/* the next one, and two anywhere */
			for (unsigned i = 0; i < 3; i++) {
				size_t blocks = image.n / size, other;

				other = i ? below(blocks ? blocks : 1) * size : pos + size;
				if (pos + size <= image.n && other + size <= image.n && other != pos)
					add((struct damage){SWAP, size, pos, other});
			}
		}
	for (size_t i = listed; i > 1; i--)
		exchange(i - 1, below(i));
	for (size_t i = 0, next = 1; i < listed; i += 2) {
		next = next > i ? next : i + 1;
		while (!touches_metadata(&list[i]) && next < listed) {
			if (touches_metadata(&list[next]))
				exchange(i, next);
			next++;
		}
	}
}

/* --- a run --------------------------------------------------------------------------------------- */

static void feed(int fd)
{
	signal(SIGPIPE, SIG_IGN);
	for (size_t at = 0; at < bad.n;) {
		ssize_t r = write(fd, bad.p + at, bad.n - at);

		if (r <= 0)
			break;
		at += (size_t)r;
	}
	_exit(0);
}

/* Memory that is touched the first time, and pages of a new file, take more time than all the rest. */
static void load_target(void)
{
	int fd = open("target", O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("target: %s", strerror(errno));
	got.n = (size_t)st.st_size;
	if (got.n <= before.n)
		for (size_t at = 0; at < got.n;) {
			ssize_t r = read(fd, got.p + at, got.n - at);

			if (r <= 0)
				die("target: %s", r ? strerror(errno) : "became shorter");
			at += (size_t)r;
		}
	close(fd);
}

static void restore_target(void)
{
	int fd = open("target", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)before.n) < 0)
		die("target: %s", strerror(errno));
	for (size_t at = 0, n; at < before.n; at += n) {
		n = before.n - at < LARGE ? before.n - at : LARGE;
		if ((got.n != before.n || memcmp(got.p + at, before.p + at, n)) &&
		    pwrite(fd, before.p + at, n, (off_t)at) != (ssize_t)n)
			die("target: %s", strerror(errno));
	}
	close(fd);
}

static int run(const char *program, bool piped)
{
	int in[2], status;
	pid_t child, feeder = 0;

	if (piped && pipe2(in, O_CLOEXEC) < 0)
		die("pipe: %s", strerror(errno));
	if (!piped)
		in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	child = fork();
	if (!child) {
		int out = open("said", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

		dup2(in[0], 0);
		dup2(out, 1);
		dup2(out, 2);
		alarm(120);
		execl(program, program, piped ? "-" : "image", "target", (char *)NULL);
		_exit(126);
	}
	close(in[0]);
	if (piped) {
		feeder = fork();
		if (!feeder)
			feed(in[1]);
		close(in[1]);
	}
	if (child < 0 || feeder < 0 || waitpid(child, &status, 0) < 0 ||
	    (piped && waitpid(feeder, NULL, 0) < 0))
		die("fork: %s", strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool holds(const struct bytes *b)
{
	return got.n == b->n && !memcmp(got.p, b->p, b->n);
}

/* The tables of some formats say nothing of their own place: what is only exchanged adds up. */
static bool exchanged(const struct damage *d)
{
	return d->kind == SWAP && getenv("DRILL_SWAPS");
}

static enum result judge(int status)
{
	int fd = open("said", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = '\0';
	close(fd);
	load_target();
	if (status == 2)
		return holds(&before) ? REFUSED : BROKEN;
	if (status == 3)
		return REFUSED;
	if (status)
		return BROKEN;
	if (holds(&after))
		return RIGHT;
	if (strstr(said, "warning:"))
		return WARNED;
	return SILENT;
}

static enum result try_way(const char *program, const struct damage *d, bool piped)
{
	enum result r;
	char first[sizeof(said)];

	restore_target();
	r = judge(run(program, piped));
	if (r != SILENT || packed)
		return r;
	/* is what is wrong in the target only what is wrong with the data? */
	strcpy(first, said);
	heal();
	store("image", &bad, false);
	restore_target();
	if (judge(run(program, piped)) == RIGHT)
		r = DATA;
	else if (exchanged(d))
		r = SWAPPED;
	strcpy(said, first);
	make(d);
	store("image", &bad, false);
	return r;
}

static void tell(const char *way, const struct damage *d, enum result r)
{
	printf("%s: %s: %s, %zu bytes at %zu", result_name[r], way, kind_name[d->kind], d->size,
	       d->pos);
	if (d->kind == SWAP)
		printf(" with those at %zu", d->other);
	printf("; of %zu bytes\n%s", image.n, said);
}

/* Somewhere to write to that no disk has to keep; without it, it takes longer. */
static void enter_memory(const char *dir)
{
	if (mkdir(dir, 0777) < 0)
		die("%s: %s", dir, strerror(errno));
	if (!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		(void)!mount("none", dir, "tmpfs", 0, NULL);
	if (chdir(dir) < 0)
		die("%s: %s", dir, strerror(errno));
}

static void leave_memory(void)
{
	unlink("image");
	unlink("target");
	unlink("said");
}

int main(int argc, char **argv)
{
	const char *cases = getenv("DRILL_CASES");
	size_t most = cases ? strtoul(cases, NULL, 10) : CASES, tried = 0;
	unsigned count[2][RESULTS] = {{0}};
	uint64_t *seen;
	bool all_well = true;

	if (argc < 7 || argc > 8)
		die("usage: drill PROGRAM NAME IMAGE BEFORE AFTER GRAINS [packed]");
	image = load(argv[3]);
	before = load(argv[4]);
	after = load(argv[5]);
	load_data(argv[6]);
	packed = argc > 7;
	if (datas)
		qsort(data, datas, sizeof(*data), by_from);
	bad.p = grab(image.n + LARGE);
	list_damages();
	seen = grab((listed + 1) * sizeof(*seen));
	enter_memory("drill.dir");
	store("target", &before, false);
	got.p = grab(before.n);
	load_target();
	seen[0] = hash(&image);
	for (size_t i = 0; i < listed && (!most || tried < most); i++) {
		uint64_t h;
		size_t k = 0;

		make(&list[i]);
		h = hash(&bad);
		while (k <= tried && seen[k] != h)
			k++;
		if (k <= tried)
			continue;
		seen[++tried] = h;
		store("image", &bad, tried % 2);
		for (int piped = 0; piped < 2; piped++) {
			enum result r;

			r = try_way(argv[1], &list[i], piped);
			count[piped][r]++;
			if (r >= SILENT || getenv("DRILL_TELL")) {
				tell(piped ? "pipe" : "file", &list[i], r);
				all_well &= r < SILENT;
			}
		}
	}
	leave_memory();
	for (int piped = 0; piped < 2; piped++) {
		printf("%-26s %s:", argv[2], piped ? "pipe" : "file");
		for (enum result r = 0; r < RESULTS; r++)
			printf(" %u %s%s", count[piped][r], result_name[r], r < RESULTS - 1 ? "," : "\n");
	}
	return all_well ? 0 : 1;
}
