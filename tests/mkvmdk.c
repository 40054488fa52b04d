/*
 * mkvmdk - make VMDK delta extents for tests, sound or damaged, and say what they must do.
 *
 *	mkvmdk pattern FILE SIZE [SEED]		raw file, every sector holds pattern data
 *	mkvmdk cowd|hosted|sesparse|stream FILE key=value...
 *	mkvmdk dribble FILE CHUNK[,CHUNK...] [STALLS]	FILE to standard output, CHUNK bytes a write,
 *						one after the other; STALLS times a pause
 *	mkvmdk socket FILE COMMAND...		COMMAND with a socket as its standard input, which brings
 *						FILE; its exit status
 *	mkvmdk reset FILE BYTES COMMAND...	the same with the first BYTES, and a connection of TCP that
 *						is reset then
 *
 * Made from the format description alone; shares no code with the program under test.
 * SIZE and capacity=: sectors, or bytes with a suffix K M G T (2T of COWD means its limit, 2^32-1).
 *
 *	capacity=N grain=N gtes=N seed=N version=N flags=N
 *	unclean=1		(sesparse) the journal wants to be replayed
 *	alloc=SPEC zero=SPEC unmapped=SPEC	unmapped (sesparse) wins over zero, zero over alloc;
 *				an unmapped grain also in alloc keeps its stale grain index
 *		SPEC: PART[+PART...]; PART: all none every:N random:COUNT runs:COUNT:MIN:MAX
 *		or a list of grains and ranges 0,5,7-9,last
 *	layout=seq|random|runs|reverse|tables-last	(tables-last: not sesparse; runs: neighbours
 *				stay together, their stretches lie in random order)
 *	tables=all		a table for every directory entry
 *	rgd=0|1 desc=0|1 parentcid=HEX parent=HINT	(hosted; stream, rgd=1 with variant=C only)
 *				its own CID is aabbccdd, and so is the parent's; ffffffff: a whole disk
 *	variant=A|B|C		(stream) A: the directory is found by the footer; B: by the header
 *				as well; C: tables in front of the grains, no markers, no footer
 *	progress=1		(stream) a type 4 marker, with 3 sectors, before the middle grain
 *	eos=0|1 trailing=N	(stream) the end marker, and zero sectors behind it; A and B: eos=1
 *	lastgrain=short|full	(stream) short: cutlast=1
 *	bomb=G over=G short=G noend=G left=G flate=G	(stream) grain G unpacks to megabytes, to a
 *				byte too many, to one too few; has no end; has 5 bytes behind it;
 *				flate: it is all zero bytes, compressed (the model does not know)
 *	fill=1			(cowd) header bytes 512-1023 are 'X'
 *	cutlast=1		a partial last grain is stored short, not padded with 0xEE
 *	holes=1			(not stream) all grains are holes of the file; no apply=
 *	pad=BYTES		zero bytes at the end
 *	apply=RAW		do to the existing RAW what the delta means
 *	from=RAW		(not stream) the data of the grains are taken from RAW
 *	descriptor=PATH [base=FLATNAME]		text descriptors, also for qemu-img
 *
 * Then in the order given, any number of times:
 *
 *	poke=POS:WIDTH:VALUE  hdr=FIELD:VALUE  gde=I:VALUE rgde=I:VALUE  gte=G:VALUE rgte=G:VALUE
 *	cut=POS  print=SYMBOL  print=bounds (where anything begins or ends, one a line)
 *	print=grains (where in the file their bytes, or records, begin and end, one grain a line)
 *
 * FIELD, whichever the format has: magic version flags capacity grain gtes gd rgd overhead unclean
 * free gdes generation savedgeneration (cowd); descoff descsize nl1-nl4 compress (hosted, stream);
 * gtsize reserved1-reserved4 pad vmagic freegt txn replay vpad, and OFFSET SIZE of the areas: vhoff
 * vhsize jhoff jhsize joff jsize gdoff gdsize gtoff gtssize fboff fbsize bmoff bmsize goff gsize.
 * POS is bytes or SYMBOL[+N|-N]; VALUE is a number or SYMBOL[+N|-N] counted in sectors.
 * SYMBOL: footer eos header gd gdend gt:I gtend:I rgd rgdend rgt:I rgtend:I grain:G grainend:G desc
 * eof.
 * gdend is the end of the last used entry (as a VALUE: rounded up). I and G may be `last`.
 * Exit: 0 done, 1 system error, 2 bad recipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECTOR		512u
#define BUF_SIZE	(4u << 20)
#define MAX_USED	(1ull << 27)
#define MAX_GDES	(1ull << 27)
#define DESC_SECTORS	20u
#define MIB_SECTORS	2048u

enum format { COWD, HOSTED, SESPARSE, STREAM };
enum layout { SEQ, RANDOM, RUNS, REVERSE, TABLES_LAST };
enum odd { BOMB, OVER, SHORT, NOEND, LEFT, FLATE, ODDS };
enum kind { DATA, ZERO, UNMAPPED };

struct range {
	uint64_t first, end;
};

struct ranges {
	struct range *v;
	size_t n, room;
};

/* A grain that has an entry; sec is the file sector of its data, 0 if it has none. */
struct ent {
	uint64_t g, sec;
	enum kind kind;
};

struct area {
	uint64_t off, size;
};

struct disk {
	enum format format;
	enum layout layout;
	const char *path, *alloc, *zero, *unmapped;
	const char *apply, *from, *descriptor, *base, *parent, *parentcid;
	uint64_t capacity, grain, gtes, seed, version, flags, unclean, pad;
	bool have_version, have_flags, all_tables, rgd, desc, fill, cutlast, holes;
	const char *odd[ODDS];
	uint64_t trailing;
	char variant;
	bool progress, eos, have_eos;
	int fd;

	uint64_t grains, ngde, gtsec, esize;
	uint64_t gdoff, rgdoff, overhead, free, freegt, end;
	uint64_t footer, eosoff, progressoff;
	uint64_t *gd, *rgt;		/* file sector of each table, 0 none */
	struct area bitmap, backmap, gts, gdarea, data;
	struct ent *ent;
	size_t nent;
	uint32_t *order;
};

/* Gathers writes that follow each other. */
struct out {
	int fd;
	const char *name;
	uint8_t *buf;
	size_t len;
	uint64_t pos;
};

__attribute__((noreturn, format(printf, 2, 3)))
static void die(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("mkvmdk: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

static void *grab(uint64_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		die(1, "out of memory");
	return p;
}

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static uint64_t round_up(uint64_t a, uint64_t b)
{
	return ceil_div(a, b) * b;
}

static void put(uint8_t *p, unsigned int width, uint64_t v)
{
	for (unsigned int i = 0; i < width; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void fill_sector(uint8_t *p, uint64_t lba, uint64_t key)
{
	put(p, 8, lba);
	for (unsigned int i = 1; i < SECTOR / 8; i++)
		put(p + 8 * i, 8, mix((lba * 64 + i) ^ key));
}

/* The upper 64 bits; not all targets have 128-bit integers. */
static uint64_t high_of_product(uint64_t a, uint64_t b)
{
	const uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
	const uint64_t mid = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
	const uint64_t other = (a & UINT32_MAX) * (b >> 32) + (mid & UINT32_MAX);

	return (a >> 32) * (b >> 32) + (mid >> 32) + (other >> 32);
}

static uint64_t below(uint64_t *state, uint64_t n)
{
	*state += 0x9e3779b97f4a7c15;
	return high_of_product(mix(*state), n);
}

/* --- output --- */

static void write_at(int fd, const char *name, const uint8_t *p, size_t n, uint64_t pos)
{
	while (n) {
		ssize_t got = pwrite(fd, p, n, (off_t)pos);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			die(1, "%s: write: %s", name, got ? strerror(errno) : "no progress");
		p += got;
		pos += (uint64_t)got;
		n -= (size_t)got;
	}
}

static void out_flush(struct out *o)
{
	write_at(o->fd, o->name, o->buf, o->len, o->pos);
	o->pos += o->len;
	o->len = 0;
}

/* Room for the sector at byte pos, which the caller fills. */
static uint8_t *out_sector(struct out *o, uint64_t pos)
{
	uint8_t *p;

	if (o->pos + o->len != pos || o->len + SECTOR > BUF_SIZE) {
		out_flush(o);
		o->pos = pos;
	}
	p = o->buf + o->len;
	o->len += SECTOR;
	return p;
}

static struct out out_open(int fd, const char *name)
{
	return (struct out){.fd = fd, .name = name, .buf = grab(BUF_SIZE, 1)};
}

static void out_close(struct out *o)
{
	out_flush(o);
	free(o->buf);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Writes the sectors that are not all zero; the rest stays a hole of the new file. */
static void write_sparse(struct disk *d, const uint8_t *p, size_t n, uint64_t pos)
{
	size_t start = 0, at = 0;

	while (at < n) {
		size_t part = n - at < SECTOR ? n - at : SECTOR;

		if (is_zero(p + at, part)) {
			if (at > start)
				write_at(d->fd, d->path, p + start, at - start, pos + start);
			start = at + part;
		}
		at += part;
	}
	if (n > start)
		write_at(d->fd, d->path, p + start, n - start, pos + start);
}

static int create(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		die(1, "%s: %s", path, strerror(errno));
	return fd;
}

static void set_size(int fd, const char *path, uint64_t size)
{
	if (ftruncate(fd, (off_t)size))
		die(1, "%s: truncate: %s", path, strerror(errno));
}

static void finish(int fd, const char *path)
{
	if (close(fd))
		die(1, "%s: close: %s", path, strerror(errno));
}

/* --- numbers --- */

/* A number at *s, decimal or 0x hex; *s moves past it. */
static bool scan(const char **s, uint64_t *v)
{
	const char *p = *s;
	unsigned int base = 10;
	uint64_t n = 0;
	bool any = false;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (;; p++) {
		unsigned int digit;

		if (*p >= '0' && *p <= '9')
			digit = (unsigned int)(*p - '0');
		else if (base == 16 && (*p | 32) >= 'a' && (*p | 32) <= 'f')
			digit = (unsigned int)((*p | 32) - 'a') + 10;
		else
			break;
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, digit, &n))
			return false;
		any = true;
	}
	*s = p;
	*v = n;
	return any;
}

static uint64_t number(const char *what, const char *s)
{
	const char *p = s;
	uint64_t v;

	if (!scan(&p, &v) || *p)
		die(2, "%s: bad number '%s'", what, s);
	return v;
}

static bool boolean(const char *what, const char *s)
{
	uint64_t v = number(what, s);

	if (v > 1)
		die(2, "%s: 0 or 1, not '%s'", what, s);
	return v;
}

static uint64_t sectors(const char *what, const char *s)
{
	static const char suffix[] = "KMGT";
	const char *p = s, *unit;
	uint64_t v;

	if (!scan(&p, &v))
		die(2, "%s: bad size '%s'", what, s);
	if (*p) {
		unit = strchr(suffix, *p);
		if (!unit || p[1] || v > UINT32_MAX)
			die(2, "%s: bad size '%s'", what, s);
		v <<= 10 * (unit - suffix + 1) - 9;
	}
	if (v == 0 || v > UINT64_MAX >> 10)
		die(2, "%s: '%s' is out of range", what, s);
	return v;
}

/* --- which grains --- */

static void add_range(struct ranges *r, uint64_t first, uint64_t end)
{
	if (first >= end)
		return;
	if (r->n == r->room) {
		r->room = r->room ? r->room * 2 : 64;
		r->v = realloc(r->v, r->room * sizeof(*r->v));
		if (!r->v)
			die(1, "out of memory");
	}
	r->v[r->n++] = (struct range){first, end};
}

static int by_first(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static void tidy(struct ranges *r)
{
	size_t n = 0;

	if (!r->n)
		return;
	qsort(r->v, r->n, sizeof(*r->v), by_first);
	for (size_t i = 1; i < r->n; i++) {
		if (r->v[i].first > r->v[n].end)
			r->v[++n] = r->v[i];
		else if (r->v[i].end > r->v[n].end)
			r->v[n].end = r->v[i].end;
	}
	r->n = n + 1;
}

static uint64_t total(const struct ranges *r)
{
	uint64_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += r->v[i].end - r->v[i].first;
	return n;
}

static void limit_used(uint64_t n)
{
	if (n > MAX_USED)
		die(2, "more than %llu grains in use", MAX_USED);
}

static void pick_random(struct ranges *to, uint64_t grains, uint64_t count, uint64_t *rng)
{
	struct ranges r = {0};
	uint64_t have;

	if (count > grains)
		die(2, "random:%" PRIu64 " of %" PRIu64 " grains", count, grains);
	limit_used(count);
	if (count > grains / 2) {
		for (uint64_t g = 0; count; g++) {
			if (below(rng, grains - g) < count) {
				add_range(to, g, g + 1);
				count--;
			}
		}
		return;
	}
	while ((have = total(&r)) < count) {
		while (have++ < count) {
			uint64_t g = below(rng, grains);

			add_range(&r, g, g + 1);
		}
		tidy(&r);
	}
	for (size_t i = 0; i < r.n; i++)
		add_range(to, r.v[i].first, r.v[i].end);
	free(r.v);
}

static uint64_t scan_index(const char **s, uint64_t limit)
{
	const char *start = *s;
	uint64_t v;

	if (!strncmp(*s, "last", 4)) {
		*s += 4;
		return limit - 1;
	}
	if (!scan(s, &v))
		die(2, "bad index '%s'", start);
	if (v >= limit)
		die(2, "index %" PRIu64 " is not below %" PRIu64, v, limit);
	return v;
}

/* PREFIX N[:N[:N]] */
static bool numbers(const char *s, const char *prefix, uint64_t *v, int want)
{
	size_t n = strlen(prefix);

	if (strncmp(s, prefix, n))
		return false;
	s += n;
	for (int i = 0; i < want; i++) {
		if (*s++ != ':' || !scan(&s, &v[i]))
			die(2, "%s takes %d numbers", prefix, want);
	}
	if (*s)
		die(2, "%s: trailing '%s'", prefix, s);
	return true;
}

static void add_part(struct ranges *r, const char *s, uint64_t grains, uint64_t *rng)
{
	uint64_t v[3] = {0};

	if (!strcmp(s, "none"))
		return;
	if (!strcmp(s, "all")) {
		add_range(r, 0, grains);
	} else if (numbers(s, "every", v, 1)) {
		if (!v[0])
			die(2, "every:0");
		limit_used(grains / v[0]);
		for (uint64_t g = 0; g < grains; g += v[0])
			add_range(r, g, g + 1);
	} else if (numbers(s, "random", v, 1)) {
		pick_random(r, grains, v[0], rng);
	} else if (numbers(s, "runs", v, 3)) {
		if (!v[1] || v[1] > v[2] || v[2] > grains)
			die(2, "runs of %" PRIu64 " to %" PRIu64 " in %" PRIu64 " grains",
			    v[1], v[2], grains);
		for (uint64_t i = 0; i < v[0]; i++) {
			uint64_t len = v[1] + below(rng, v[2] - v[1] + 1);
			uint64_t first = below(rng, grains - len + 1);

			add_range(r, first, first + len);
		}
	} else {
		for (;;) {
			uint64_t first = scan_index(&s, grains), last = first;

			if (*s == '-') {
				s++;
				last = scan_index(&s, grains);
			}
			if (last < first)
				die(2, "range ends before its start");
			add_range(r, first, last + 1);
			if (!*s)
				break;
			if (*s++ != ',')
				die(2, "bad grain list at '%s'", s - 1);
		}
	}
}

static struct ranges choose(const char *spec, uint64_t grains, uint64_t rng)
{
	char *copy = strdup(spec), *rest = copy, *part;
	struct ranges r = {0};

	if (!copy)
		die(1, "out of memory");
	while ((part = strsep(&rest, "+")))
		add_part(&r, part, grains, &rng);
	free(copy);
	tidy(&r);
	return r;
}

static bool within(const struct ranges *r, size_t *at, uint64_t g)
{
	while (*at < r->n && r->v[*at].end <= g)
		++*at;
	return *at < r->n && r->v[*at].first <= g;
}

/* Lists the used grains; sec = 1 marks those that will get data in the file. */
static void choose_grains(struct disk *d)
{
	struct ranges a = choose(d->alloc, d->grains, mix(d->seed ^ 0xa110c));
	struct ranges z = choose(d->zero, d->grains, mix(d->seed ^ 0x2e20));
	struct ranges u = choose(d->unmapped, d->grains, mix(d->seed ^ 0x4e3a9));
	const struct ranges *each[] = {&a, &z, &u};
	struct ranges any = {0};
	size_t at = 0, zt = 0, ut = 0;

	for (int k = 0; k < 3; k++)
		for (size_t i = 0; i < each[k]->n; i++)
			add_range(&any, each[k]->v[i].first, each[k]->v[i].end);
	tidy(&any);
	limit_used(total(&any));
	d->ent = grab(total(&any), sizeof(*d->ent));
	for (size_t i = 0; i < any.n; i++) {
		for (uint64_t g = any.v[i].first; g < any.v[i].end; g++) {
			struct ent *e = &d->ent[d->nent++];
			bool alloc = within(&a, &at, g), zero = within(&z, &zt, g);
			bool unmapped = within(&u, &ut, g);

			e->g = g;
			e->kind = unmapped ? UNMAPPED : zero ? ZERO : DATA;
			e->sec = alloc && e->kind != ZERO;
		}
	}
	free(a.v);
	free(z.v);
	free(u.v);
	free(any.v);
}

static void shuffle(uint32_t *v, size_t n, uint64_t rng)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = below(&rng, i);
		uint32_t x = v[i - 1];

		v[i - 1] = v[j];
		v[j] = x;
	}
}

/* Puts the stretches of neighbouring grains in random order, each in itself in order. */
static void order_runs(struct disk *d, uint64_t rng)
{
	uint32_t *start = grab(d->nent, sizeof(*start));
	size_t n = 0, at = 0;

	for (size_t i = 0; i < d->nent; i++)
		if (!i || d->ent[i].g != d->ent[i - 1].g + 1)
			start[n++] = (uint32_t)i;
	shuffle(start, n, rng);
	for (size_t r = 0; r < n; r++) {
		size_t i = start[r];

		do
			d->order[at++] = (uint32_t)i++;
		while (i < d->nent && d->ent[i].g == d->ent[i - 1].g + 1);
	}
	free(start);
}

static void choose_order(struct disk *d)
{
	uint64_t rng = mix(d->seed ^ 0x5ff1e);

	d->order = grab(d->nent, sizeof(*d->order));
	if (d->layout == RUNS) {
		order_runs(d, rng);
		return;
	}
	for (size_t i = 0; i < d->nent; i++)
		d->order[i] = (uint32_t)(d->layout == REVERSE ? d->nent - 1 - i : i);
	if (d->layout == RANDOM)
		shuffle(d->order, d->nent, rng);
}

/* --- placement --- */

/* Sectors of grain g that lie on the disk. */
static uint64_t clipped(const struct disk *d, uint64_t g)
{
	uint64_t left = d->capacity - g * d->grain;

	return left < d->grain ? left : d->grain;
}

static uint64_t stored(const struct disk *d, uint64_t g)
{
	return d->cutlast ? clipped(d, g) : d->grain;
}

/* Bytes of compressed data that stored blocks make of n. */
static uint64_t stored_blocks(uint64_t n)
{
	return 2 + n + 5 * (n ? ceil_div(n, 65535) : 1) + 4;
}

static bool is_odd(const struct disk *d, enum odd odd, uint64_t g)
{
	return d->odd[odd] && number("grain", d->odd[odd]) == g;
}

/* Bytes that grain g unpacks to, but for a bomb. */
static uint64_t unpacked(const struct disk *d, uint64_t g)
{
	return stored(d, g) * SECTOR + is_odd(d, OVER, g) - is_odd(d, SHORT, g);
}

/* Sectors of a grain in the file. */
static uint64_t occupied(const struct disk *d, uint64_t g)
{
	if (d->format != STREAM)
		return stored(d, g);
	if (is_odd(d, FLATE, g)) { /* as deflate_zeros() does it */
		uint64_t n = unpacked(d, g) - 1;

		return ceil_div(12 + ceil_div(16 + 3 + 8 * (n % 258 + 1) + 13 * (n / 258) + 7, 8) + 4,
				SECTOR);
	}
	return ceil_div(12 + stored_blocks(unpacked(d, g)) + 5 * is_odd(d, LEFT, g), SECTOR);
}

static void place_table(struct disk *d, uint64_t t)
{
	if (d->gd[t])
		return;
	if (d->format == SESPARSE) {
		d->gd[t] = d->gts.off + d->freegt++ * d->gtsec;
	} else {
		d->gd[t] = d->free;
		d->free += d->gtsec;
	}
}

static void place_grain(struct disk *d, struct ent *e)
{
	if (!e->sec)
		return;
	e->sec = d->free;
	d->end = d->free + occupied(d, e->g);
	d->free = d->format == SESPARSE ? d->free + d->grain : d->end;
}

/* Tables on demand, each before its first grain. */
static void place_mixed(struct disk *d)
{
	uint64_t up = 0, down = d->ngde;

	for (size_t i = 0; i < d->nent; i++) {
		struct ent *e = &d->ent[d->order[i]];
		uint64_t t = e->g / d->gtes;

		if (d->all_tables && d->layout == SEQ)
			while (up < t)
				place_table(d, up++);
		if (d->all_tables && d->layout == REVERSE)
			while (down > t)
				place_table(d, --down);
		place_table(d, t);
		place_grain(d, e);
	}
	if (d->all_tables && d->layout == REVERSE)
		while (down)
			place_table(d, --down);
	for (; d->all_tables && up < d->ngde; up++)
		place_table(d, up);
}

static void place_grains(struct disk *d)
{
	for (size_t i = 0; i < d->nent; i++)
		place_grain(d, &d->ent[d->order[i]]);
}

static void place_cowd(struct disk *d)
{
	d->gdoff = 4;
	d->free = d->gdoff + ceil_div(d->ngde * 4, SECTOR);
	if (d->layout != TABLES_LAST) {
		place_mixed(d);
	} else {
		place_grains(d);
		for (size_t i = 0; i < d->nent && !d->all_tables; i++)
			place_table(d, d->ent[i].g / d->gtes);
		for (uint64_t t = 0; d->all_tables && t < d->ngde; t++)
			place_table(d, t);
	}
	d->end = d->free;
}

static void place_hosted_tables(struct disk *d, uint64_t *tables)
{
	for (uint64_t t = 0; t < d->ngde; t++) {
		tables[t] = d->free;
		d->free += d->gtsec;
	}
}

static void place_hosted(struct disk *d)
{
	uint64_t gdsec = ceil_div(d->ngde * 4, SECTOR);
	bool last = d->layout == TABLES_LAST;

	d->free = 1 + (d->desc ? DESC_SECTORS : 0);
	if (d->rgd) {
		d->rgt = grab(d->ngde, sizeof(*d->rgt));
		d->rgdoff = d->free;
		d->free += gdsec;
		if (!last)
			place_hosted_tables(d, d->rgt);
	}
	d->gdoff = d->free;
	d->free += gdsec;
	if (!last)
		place_hosted_tables(d, d->gd);
	d->free = round_up(d->free, d->grain);
	d->overhead = d->free;
	place_grains(d);
	if (last && d->rgd)
		place_hosted_tables(d, d->rgt);
	if (last)
		place_hosted_tables(d, d->gd);
	d->end = d->free;
}

static void place_stream(struct disk *d)
{
	uint64_t gdsec = ceil_div(d->ngde * 4, SECTOR);

	if (d->variant == 'C') {
		place_hosted(d);
	} else {
		d->free = d->overhead = 128;
		for (size_t i = 0; i < d->nent; i++) {
			if (d->progress && i == d->nent / 2) {
				d->progressoff = d->free;
				d->free += 4;
			}
			place_grain(d, &d->ent[d->order[i]]);
		}
		for (uint64_t t = 0, i = 0; t < d->ngde; t++) {
			while (i < d->nent && d->ent[i].g / d->gtes < t)
				i++;
			if (!d->all_tables && (i == d->nent || d->ent[i].g / d->gtes != t))
				continue;
			d->gd[t] = d->free + 1;
			d->free += 1 + d->gtsec;
		}
		d->gdoff = d->free + 1;
		d->footer = d->gdoff + gdsec + 1;
		d->free = d->footer + 1;
	}
	if (d->eos)
		d->eosoff = d->free++;
	d->free += d->trailing;
	d->end = d->free;
}

static struct area next_area(const struct area *before, uint64_t bytes)
{
	return (struct area){before->off + before->size,
			     round_up(ceil_div(bytes, SECTOR), MIB_SECTORS)};
}

static void place_sesparse(struct disk *d)
{
	struct area journal = {MIB_SECTORS, MIB_SECTORS};

	d->gdarea = next_area(&journal, d->ngde * 8);
	d->gts = next_area(&d->gdarea, d->ngde * d->gtsec * SECTOR);
	d->bitmap = next_area(&d->gts, ceil_div(d->grains, 8));
	d->backmap = next_area(&d->bitmap, d->grains * 8);
	d->data = next_area(&d->backmap, 0);
	d->data.size = d->grains * d->grain;
	d->gdoff = d->gdarea.off;
	d->free = d->end = d->data.off;
	place_mixed(d);
}

/* --- writing --- */

static void text_put(char *buf, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void text_put(char *buf, size_t size, const char *fmt, ...)
{
	size_t len = strlen(buf);
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf + len, size - len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= size - len)
		die(2, "descriptor is too long");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void text_descriptor(char *buf, size_t size, const char *cid, const char *parentcid,
			    const char *type, const char *hint)
{
	buf[0] = 0;
	text_put(buf, size, "# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\n"
		 "createType=\"%s\"\n", cid, parentcid, type);
	if (hint)
		text_put(buf, size, "parentFileNameHint=\"%s\"\n", hint);
	text_put(buf, size, "\n# Extent description\n");
}

static void put_cowd_header(const struct disk *d, uint8_t *p)
{
	if (d->fill)
		memset(p + 512, 'X', 512);
	put(p, 4, 0x44574f43);
	put(p + 4, 4, d->have_version ? d->version : 1);
	put(p + 8, 4, d->have_flags ? d->flags : 3);
	put(p + 12, 4, d->capacity);
	put(p + 16, 4, d->grain);
	put(p + 20, 4, d->gdoff);
	put(p + 24, 4, d->ngde);
	put(p + 28, 4, d->free);
	put(p + 1648, 4, d->unclean);
}

static void put_hosted_header(const struct disk *d, uint8_t *p)
{
	bool zeros = strcmp(d->zero, "none") != 0, stream = d->format == STREAM;
	uint32_t flags = stream ? 0x30001 : 1;
	char *text = (char *)p + SECTOR;
	size_t size = DESC_SECTORS * SECTOR;

	put(p, 4, 0x564d444b);
	put(p + 4, 4, d->have_version ? d->version : stream ? 3 : zeros ? 2 : 1);
	put(p + 8, 4, d->have_flags ? d->flags : flags | (d->rgd ? 2u : 0) | (zeros ? 4u : 0));
	put(p + 12, 8, d->capacity);
	put(p + 20, 8, d->grain);
	put(p + 28, 8, d->desc ? 1 : 0);
	put(p + 36, 8, d->desc ? DESC_SECTORS : 0);
	put(p + 44, 4, d->gtes);
	put(p + 48, 8, d->rgdoff);
	put(p + 56, 8, stream && d->variant == 'A' ? UINT64_MAX : d->gdoff);
	put(p + 64, 8, d->overhead);
	put(p + 72, 1, d->unclean);
	put(p + 73, 4, 0x0a0d200a);
	put(p + 77, 2, stream);
	if (!d->desc)
		return;
	text_descriptor(text, size, "aabbccdd", d->parentcid,
			stream ? "streamOptimized" : "monolithicSparse", d->parent);
	text_put(text, size, "%s %" PRIu64 " SPARSE \"%s\"\n\n# The Disk Data Base \n#DDB\n\n"
		 "ddb.virtualHWVersion = \"4\"\nddb.adapterType = \"lsilogic\"\n",
		 stream ? "RDONLY" : "RW", d->capacity, base_name(d->path));
}

static void put_area(uint8_t *p, uint64_t off, uint64_t size)
{
	put(p, 8, off);
	put(p + 8, 8, size);
}

static void put_sesparse_header(const struct disk *d, uint8_t *p)
{
	uint8_t *vol = p + SECTOR;

	put(p, 8, 0xcafebabe);
	put(p + 8, 8, d->have_version ? d->version : 0x200000001);
	put(p + 16, 8, d->capacity);
	put(p + 24, 8, d->grain);
	put(p + 32, 8, d->gtsec);
	put(p + 40, 8, d->have_flags ? d->flags : 0);
	put_area(p + 80, 1, 1);
	put_area(p + 96, 2, 2);
	put_area(p + 112, MIB_SECTORS, MIB_SECTORS);
	put_area(p + 128, d->gdarea.off, d->gdarea.size);
	put_area(p + 144, d->gts.off, d->gts.size);
	put_area(p + 160, d->bitmap.off, d->bitmap.size);
	put_area(p + 176, d->backmap.off, d->backmap.size);
	put_area(p + 192, d->data.off, d->data.size);
	put(vol, 8, 0xcafecafe);
	put(vol + 8, 8, d->freegt);
	put(vol + 16, 8, 1);
	put(vol + 24, 8, d->unclean);
}

static void write_header(struct disk *d)
{
	static uint8_t head[(1 + DESC_SECTORS) * SECTOR];

	switch (d->format) {
	case COWD:
		put_cowd_header(d, head);
		break;
	case HOSTED:
	case STREAM:
		put_hosted_header(d, head);
		break;
	case SESPARSE:
		put_sesparse_header(d, head);
		break;
	}
	write_sparse(d, head, sizeof(head), 0);
}

static void write_directory(struct disk *d, const uint64_t *tables, uint64_t off)
{
	uint8_t *buf = grab(d->ngde, d->esize);

	for (uint64_t t = 0; t < d->ngde; t++) {
		uint64_t v = tables[t];

		if (v && d->format == SESPARSE)
			v = 0x10000000ull << 32 | (v - d->gts.off) / d->gtsec;
		put(buf + t * d->esize, (unsigned int)d->esize, v);
	}
	write_sparse(d, buf, d->ngde * d->esize, off * SECTOR);
	free(buf);
}

static uint64_t entry_of(const struct disk *d, const struct ent *e)
{
	uint64_t index, v;

	if (d->format != SESPARSE)
		return e->kind == DATA ? e->sec : 1;
	v = (uint64_t)(e->kind == DATA ? 3 : e->kind == ZERO ? 2 : 1) << 60;
	if (e->sec) {
		index = (e->sec - d->data.off) / d->grain;
		v |= (index & 0xfff) << 48 | index >> 12;
	}
	return v;
}

static void write_tables(struct disk *d, const uint64_t *tables)
{
	size_t size = d->gtes * d->esize;
	uint8_t *buf = grab(1, size);
	size_t i = 0;

	while (i < d->nent) {
		uint64_t t = d->ent[i].g / d->gtes;

		memset(buf, 0, size);
		for (; i < d->nent && d->ent[i].g / d->gtes == t; i++)
			put(buf + d->ent[i].g % d->gtes * d->esize, (unsigned int)d->esize,
			    entry_of(d, &d->ent[i]));
		write_sparse(d, buf, size, tables[t] * SECTOR);
	}
	free(buf);
}

/* SEsparse: one bit for each grain of the file in use, and for each of them where its entry stands. */
static void write_reverse_maps(struct disk *d)
{
	size_t bytes = ceil_div(ceil_div(d->end - d->data.off, d->grain), 8);
	uint8_t *bitmap = grab(1, bytes), entry[8];

	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[i];
		uint64_t index = (e->sec - d->data.off) / d->grain;

		if (!e->sec)
			continue;
		bitmap[index / 8] |= (uint8_t)(1 << index % 8);
		put(entry, 8, 1ull << 60 | (e->g & 0xfff) << 48 | e->g >> 12);
		write_at(d->fd, d->path, entry, 8, d->backmap.off * SECTOR + index * 8);
	}
	write_sparse(d, bitmap, bytes, d->bitmap.off * SECTOR);
	free(bitmap);
}

static void write_grains(struct disk *d)
{
	struct out o = out_open(d->fd, d->path);
	uint64_t key = mix(d->seed);
	int from = d->from ? open(d->from, O_RDONLY | O_CLOEXEC) : -1;

	if (d->from && from < 0)
		die(1, "%s: %s", d->from, strerror(errno));
	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[d->order[i]];
		uint64_t n = e->sec && !d->holes ? stored(d, e->g) : 0;

		for (uint64_t s = 0; s < n; s++) {
			uint8_t *p = out_sector(&o, (e->sec + s) * SECTOR);
			uint64_t lba = e->g * d->grain + s;

			if (lba >= d->capacity)
				memset(p, 0xee, SECTOR);
			else if (from < 0)
				fill_sector(p, lba, key);
			else if (pread(from, p, SECTOR, (off_t)(lba * SECTOR)) != SECTOR)
				die(1, "%s: short read", d->from);
		}
	}
	out_close(&o);
	if (from >= 0)
		close(from);
}

static void write_marker(struct disk *d, uint64_t sector, uint64_t value, uint32_t type)
{
	uint8_t m[SECTOR] = {0};

	put(m, 8, value);
	put(m + 12, 4, type);
	write_at(d->fd, d->path, m, sizeof(m), sector * SECTOR);
}

/* RFC 1950 around stored blocks of RFC 1951. */
static size_t deflate_stored(uint8_t *p, const uint8_t *data, size_t n, bool end)
{
	uint8_t *start = p;
	uint32_t a = 1, b = 0;
	size_t at = 0;

	*p++ = 0x78;
	*p++ = 0x01;
	do {
		size_t part = n - at < 65535 ? n - at : 65535;

		*p++ = end && at + part == n;
		put(p, 2, part);
		put(p + 2, 2, ~part & 0xffff);
		memcpy(p + 4, data + at, part);
		p += 4 + part;
		at += part;
	} while (at < n);
	for (at = 0; at < n; at++) {
		a = (a + data[at]) % 65521;
		b = (b + a) % 65521;
	}
	for (int i = 3; i >= 0; i--)
		*p++ = (uint8_t)((b << 16 | a) >> (8 * i));
	return (size_t)(p - start);
}

struct bits {
	uint8_t *p;
	uint64_t at;
};

static void put_bits(struct bits *b, uint32_t v, unsigned int n, bool high_first)
{
	for (unsigned int i = 0; i < n; i++, b->at++)
		if (v >> (high_first ? n - 1 - i : i) & 1)
			b->p[b->at / 8] |= (uint8_t)(1 << b->at % 8);
}

/* n zero bytes: literals, then copies of 258 of them. */
static size_t deflate_zeros(uint8_t *p, uint64_t n)
{
	struct bits b = {.p = p};
	uint64_t copies = (n - 1) / 258;
	uint64_t rest = (n - 1) % 258;
	uint64_t sum = n % 65521;

	put_bits(&b, 0x0178, 16, false);
	put_bits(&b, 3, 3, false); /* last block, fixed codes */
	for (uint64_t i = 0; i <= rest; i++)
		put_bits(&b, 0x30, 8, true);
	for (uint64_t i = 0; i < copies; i++) {
		put_bits(&b, 0xc5, 8, true); /* 285 */
		put_bits(&b, 0, 5, true);
	}
	put_bits(&b, 0, 7, true); /* 256: end */
	b.at = round_up(b.at, 8);
	p += b.at / 8;
	p[0] = (uint8_t)(sum >> 8);
	p[1] = (uint8_t)sum;
	p[2] = 0;
	p[3] = 1;
	return (size_t)(b.at / 8 + 4);
}

static void write_record(struct disk *d, const struct ent *e, uint8_t *data, uint8_t *record)
{
	uint64_t key = mix(d->seed), n = unpacked(d, e->g), size = occupied(d, e->g) * SECTOR;
	size_t len;

	memset(record, 0, size);
	for (uint64_t s = 0; s * SECTOR < n; s++) {
		uint64_t lba = e->g * d->grain + s;

		if (s < stored(d, e->g) && lba < d->capacity)
			fill_sector(data + s * SECTOR, lba, key);
		else
			memset(data + s * SECTOR, 0xee, SECTOR);
	}
	if (is_odd(d, BOMB, e->g))
		len = deflate_zeros(record + 12, 258 * ((size - 64) * 8 / 13));
	else if (is_odd(d, FLATE, e->g))
		len = deflate_zeros(record + 12, n);
	else
		len = deflate_stored(record + 12, data, n, !is_odd(d, NOEND, e->g));
	if (is_odd(d, LEFT, e->g)) {
		memset(record + 12 + len, 'L', 5);
		len += 5;
	}
	put(record, 8, e->g * d->grain);
	put(record + 8, 4, len);
	write_at(d->fd, d->path, record, size, e->sec * SECTOR);
}

static void write_stream(struct disk *d)
{
	uint8_t *data = grab((d->grain + 1) * SECTOR, 1);
	uint8_t *record = grab(12 + stored_blocks((d->grain + 2) * SECTOR) + SECTOR, 1);
	uint8_t head[SECTOR];

	for (size_t i = 0; i < d->nent; i++)
		write_record(d, &d->ent[i], data, record);
	if (d->progressoff) {
		write_marker(d, d->progressoff, 3, 4);
		memset(data, 0xaa, SECTOR);
		for (unsigned int i = 1; i <= 3; i++)
			write_at(d->fd, d->path, data, SECTOR, (d->progressoff + i) * SECTOR);
	}
	if (d->footer) {
		for (uint64_t t = 0; t < d->ngde; t++)
			if (d->gd[t])
				write_marker(d, d->gd[t] - 1, d->gtsec, 1);
		write_marker(d, d->gdoff - 1, ceil_div(d->ngde * 4, SECTOR), 2);
		write_marker(d, d->footer - 1, 1, 3);
		if (pread(d->fd, head, SECTOR, 0) != SECTOR)
			die(1, "%s: read: %s", d->path, strerror(errno));
		put(head + 56, 8, d->gdoff);
		write_at(d->fd, d->path, head, SECTOR, d->footer * SECTOR);
	}
	free(data);
	free(record);
}

/* The model: what the recipe, not the image, does to the disk. */
static void apply(const struct disk *d)
{
	int fd = open(d->apply, O_WRONLY | O_CLOEXEC);
	uint64_t key = mix(d->seed);
	struct out o;

	if (fd < 0)
		die(1, "%s: %s", d->apply, strerror(errno));
	o = out_open(fd, d->apply);
	for (size_t i = 0; i < d->nent; i++) {
		const struct ent *e = &d->ent[i];
		uint64_t n = clipped(d, e->g);

		for (uint64_t s = 0; s < n; s++) {
			uint64_t lba = e->g * d->grain + s;
			uint8_t *p = out_sector(&o, lba * SECTOR);

			if (e->kind == DATA)
				fill_sector(p, lba, key);
			else
				memset(p, 0, SECTOR);
		}
	}
	out_close(&o);
	finish(fd, d->apply);
}

static void write_text(const char *path, const char *text)
{
	int fd = create(path);

	write_at(fd, path, (const uint8_t *)text, strlen(text), 0);
	finish(fd, path);
}

static void write_descriptors(const struct disk *d)
{
	static const char *const create_type[] = {"vmfsSparse", "twoGbMaxExtentSparse", "seSparse",
						  "twoGbMaxExtentSparse"};
	static const char *const extent[] = {"VMFSSPARSE", "SPARSE", "SESPARSE", "SPARSE"};
	size_t stem = strlen(d->descriptor);
	char text[16384], *path;

	if (stem > 5 && !strcmp(d->descriptor + stem - 5, ".vmdk"))
		stem -= 5;
	if (asprintf(&path, "%.*s-base.vmdk", (int)stem, d->descriptor) < 0)
		die(1, "out of memory");
	text_descriptor(text, sizeof(text), "aabbccdd", d->base ? "01234567" : "ffffffff",
			create_type[d->format], d->base ? base_name(path) : NULL);
	text_put(text, sizeof(text), "RW %" PRIu64 " %s \"%s\"\n", d->capacity,
		 extent[d->format], base_name(d->path));
	write_text(d->descriptor, text);
	if (d->base) {
		text_descriptor(text, sizeof(text), "01234567", "ffffffff", "monolithicFlat", NULL);
		text_put(text, sizeof(text), "RW %" PRIu64 " FLAT \"%s\" 0\n", d->capacity,
			 d->base);
		write_text(path, text);
	}
	free(path);
}

static void make(struct disk *d)
{
	d->fd = create(d->path);
	write_header(d);
	write_directory(d, d->gd, d->gdoff);
	write_tables(d, d->gd);
	if (d->format == SESPARSE)
		write_reverse_maps(d);
	if (d->rgd) {
		write_directory(d, d->rgt, d->rgdoff);
		write_tables(d, d->rgt);
	}
	if (d->format == STREAM)
		write_stream(d);
	else
		write_grains(d);
	set_size(d->fd, d->path, d->end * SECTOR + d->pad);
	if (d->apply)
		apply(d);
	if (d->descriptor)
		write_descriptors(d);
}

/* --- damage --- */

struct field {
	const char *name;
	uint16_t off, width;
};

static const struct field cowd_fields[] = {
	{"magic", 0, 4}, {"version", 4, 4}, {"flags", 8, 4}, {"capacity", 12, 4}, {"grain", 16, 4},
	{"gd", 20, 4}, {"gdes", 24, 4}, {"free", 28, 4}, {"generation", 1060, 4},
	{"savedgeneration", 1636, 4}, {"unclean", 1648, 4}, {NULL, 0, 0},
};

static const struct field hosted_fields[] = {
	{"magic", 0, 4}, {"version", 4, 4}, {"flags", 8, 4}, {"capacity", 12, 8}, {"grain", 20, 8},
	{"descoff", 28, 8}, {"descsize", 36, 8}, {"gtes", 44, 4}, {"rgd", 48, 8}, {"gd", 56, 8},
	{"overhead", 64, 8}, {"unclean", 72, 1}, {"nl1", 73, 1}, {"nl2", 74, 1}, {"nl3", 75, 1},
	{"nl4", 76, 1}, {"compress", 77, 2}, {NULL, 0, 0},
};

static const struct field sesparse_fields[] = {
	{"magic", 0, 8}, {"version", 8, 8}, {"capacity", 16, 8}, {"grain", 24, 8},
	{"gtsize", 32, 8}, {"flags", 40, 8}, {"reserved1", 48, 8}, {"reserved2", 56, 8},
	{"reserved3", 64, 8}, {"reserved4", 72, 8}, {"vhoff", 80, 8}, {"vhsize", 88, 8},
	{"jhoff", 96, 8}, {"jhsize", 104, 8}, {"joff", 112, 8}, {"jsize", 120, 8},
	{"gdoff", 128, 8}, {"gdsize", 136, 8}, {"gtoff", 144, 8}, {"gtssize", 152, 8},
	{"fboff", 160, 8}, {"fbsize", 168, 8}, {"bmoff", 176, 8}, {"bmsize", 184, 8},
	{"goff", 192, 8}, {"gsize", 200, 8}, {"pad", 208, 8},
	{"vmagic", 512, 8}, {"freegt", 520, 8}, {"txn", 528, 8}, {"replay", 536, 8},
	{"vpad", 544, 8}, {NULL, 0, 0},
};

static const struct field *const fields[] = {cowd_fields, hosted_fields, sesparse_fields,
					    hosted_fields};

static int by_grain(const void *key, const void *b)
{
	const struct ent *e = b;
	uint64_t g = *(const uint64_t *)key;

	return (g > e->g) - (g < e->g);
}

static uint64_t table_at(const uint64_t *tables, uint64_t t)
{
	if (!tables || !tables[t])
		die(2, "no table %" PRIu64, t);
	return tables[t] * SECTOR;
}

static uint64_t file_size(const struct disk *d)
{
	struct stat st;

	if (fstat(d->fd, &st))
		die(1, "%s: %s", d->path, strerror(errno));
	return (uint64_t)st.st_size;
}

static uint64_t grain_at(const struct disk *d, uint64_t g, bool end)
{
	const struct ent *e = bsearch(&g, d->ent, d->nent, sizeof(*d->ent), by_grain);

	if (!e || !e->sec)
		die(2, "grain %" PRIu64 " has no data", g);
	return (e->sec + (end ? occupied(d, g) : 0)) * SECTOR;
}

/* Index after the colon of a symbol. */
static uint64_t symbol_index(const char **s, uint64_t limit)
{
	if (*(*s)++ != ':')
		die(2, "symbol needs an index");
	return scan_index(s, limit);
}

static uint64_t symbol(const struct disk *d, const char **s)
{
	const char *name = *s;
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz");
	uint64_t gd = d->ngde * d->esize, gt = d->gtes * d->esize;

#define IS(word) (n == sizeof(word) - 1 && !memcmp(name, word, n))
	*s += n;
	if (IS("header"))
		return 0;
	if (IS("eof"))
		return file_size(d);
	if (IS("footer") && d->footer)
		return d->footer * SECTOR;
	if (IS("eos") && d->eosoff)
		return d->eosoff * SECTOR;
	if (IS("desc") && d->desc)
		return SECTOR;
	if (IS("gd"))
		return d->gdoff * SECTOR;
	if (IS("gdend"))
		return d->gdoff * SECTOR + gd;
	if (IS("rgd") && d->rgd)
		return d->rgdoff * SECTOR;
	if (IS("rgdend") && d->rgd)
		return d->rgdoff * SECTOR + gd;
	if (IS("gt"))
		return table_at(d->gd, symbol_index(s, d->ngde));
	if (IS("gtend"))
		return table_at(d->gd, symbol_index(s, d->ngde)) + gt;
	if (IS("rgt"))
		return table_at(d->rgt, symbol_index(s, d->ngde));
	if (IS("rgtend"))
		return table_at(d->rgt, symbol_index(s, d->ngde)) + gt;
	if (IS("grain"))
		return grain_at(d, symbol_index(s, d->grains), false);
	if (IS("grainend"))
		return grain_at(d, symbol_index(s, d->grains), true);
#undef IS
	die(2, "unknown symbol '%s'", name);
}

/* A number, or a symbol with an offset; unit is what both are counted in. */
static uint64_t scan_place(const struct disk *d, const char **s, unsigned int unit)
{
	const char *start = *s;
	bool gdend = !strncmp(*s, "gdend", 5) || !strncmp(*s, "rgdend", 6);
	uint64_t v, n;
	char sign;

	if (**s >= '0' && **s <= '9') {
		if (!scan(s, &v))
			die(2, "bad number '%s'", start);
		return v;
	}
	v = symbol(d, s);
	v = gdend ? ceil_div(v, unit) : v / unit;
	sign = **s;
	if (sign == '+' || sign == '-') {
		++*s;
		if (!scan(s, &n))
			die(2, "bad offset in '%s'", start);
		if (sign == '-' && n > v)
			die(2, "'%s' is negative", start);
		v = sign == '+' ? v + n : v - n;
	}
	return v;
}

static uint64_t place(const struct disk *d, const char *s, unsigned int unit)
{
	const char *p = s;
	uint64_t v = scan_place(d, &p, unit);

	if (*p)
		die(2, "trailing '%s' in '%s'", p, s);
	return v;
}

static void poke(struct disk *d, uint64_t pos, uint64_t width, const char *value)
{
	uint64_t v = place(d, value, SECTOR);
	uint8_t buf[8];

	if (width < 8 && v >> (8 * width))
		die(2, "%s does not fit in %" PRIu64 " bytes", value, width);
	put(buf, (unsigned int)width, v);
	write_at(d->fd, d->path, buf, width, pos);
}

/* Past the colon that must stand at s. */
static const char *colon(const char *s)
{
	if (*s != ':')
		die(2, "expected ':' at '%s'", s);
	return s + 1;
}

static void poke_any(struct disk *d, const char *arg)
{
	uint64_t pos = scan_place(d, &arg, 1), width;

	arg = colon(arg);
	if (!scan(&arg, &width) || !(width == 1 || width == 2 || width == 4 || width == 8))
		die(2, "poke: width is 1, 2, 4 or 8");
	poke(d, pos, width, colon(arg));
}

static void poke_header(struct disk *d, const char *arg)
{
	size_t n = strcspn(arg, ":");

	for (const struct field *f = fields[d->format]; f->name; f++) {
		if (strlen(f->name) == n && !memcmp(f->name, arg, n)) {
			poke(d, f->off, f->width, colon(arg + n));
			return;
		}
	}
	die(2, "hdr: no field '%.*s'", (int)n, arg);
}

static void poke_gde(struct disk *d, const char *arg, bool redundant)
{
	uint64_t i;

	if (redundant && !d->rgd)
		die(2, "no redundant directory");
	i = scan_index(&arg, d->ngde);
	poke(d, (redundant ? d->rgdoff : d->gdoff) * SECTOR + i * d->esize, d->esize, colon(arg));
}

static void poke_gte(struct disk *d, const char *arg, const uint64_t *tables)
{
	/* The entries of the last table past the last grain can be named as well. */
	uint64_t limit = strncmp(arg, "last", 4) ? d->ngde * d->gtes : d->grains;
	uint64_t g = scan_index(&arg, limit);

	poke(d, table_at(tables, g / d->gtes) + g % d->gtes * d->esize, d->esize, colon(arg));
}

/* --- command line --- */

static const char *const damages[] = {
	"poke", "hdr", "gde", "rgde", "gte", "rgte", "cut", "print", NULL,
};

static const char *value_of(const char *arg, const char *key)
{
	size_t n = strlen(key);

	return !strncmp(arg, key, n) && arg[n] == '=' ? arg + n + 1 : NULL;
}

static bool is_damage(const char *arg)
{
	for (int i = 0; damages[i]; i++)
		if (value_of(arg, damages[i]))
			return true;
	return false;
}

static void print_bounds(const struct disk *d)
{
	const uint64_t gd = d->ngde * d->esize, gt = d->gtes * d->esize;
	const uint64_t *tables[] = {d->gd, d->rgt};
	const uint64_t at[] = {
		0, d->gdoff * SECTOR, d->gdoff * SECTOR + gd, d->rgdoff * SECTOR,
		d->rgd ? d->rgdoff * SECTOR + gd : 0, d->footer * SECTOR, d->eosoff * SECTOR,
		d->progressoff * SECTOR, d->overhead * SECTOR, file_size(d),
	};

	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++)
		printf("%" PRIu64 "\n", at[i]);
	for (size_t k = 0; k < 2; k++)
		for (uint64_t t = 0; tables[k] && t < d->ngde; t++)
			if (tables[k][t])
				printf("%" PRIu64 "\n%" PRIu64 "\n", tables[k][t] * SECTOR,
				       tables[k][t] * SECTOR + gt);
	for (size_t i = 0; i < d->nent; i++)
		if (d->ent[i].sec)
			printf("%" PRIu64 "\n%" PRIu64 "\n", d->ent[i].sec * SECTOR,
			       (d->ent[i].sec + occupied(d, d->ent[i].g)) * SECTOR);
}

static void print_grains(const struct disk *d)
{
	for (size_t i = 0; i < d->nent; i++)
		if (d->ent[i].sec)
			printf("%" PRIu64 " %" PRIu64 "\n", d->ent[i].sec * SECTOR,
			       (d->ent[i].sec + occupied(d, d->ent[i].g)) * SECTOR);
}

static void damage(struct disk *d, const char *arg)
{
	const char *v;

	if ((v = value_of(arg, "poke")))
		poke_any(d, v);
	else if ((v = value_of(arg, "hdr")))
		poke_header(d, v);
	else if ((v = value_of(arg, "gde")))
		poke_gde(d, v, false);
	else if ((v = value_of(arg, "rgde")))
		poke_gde(d, v, true);
	else if ((v = value_of(arg, "gte")))
		poke_gte(d, v, d->gd);
	else if ((v = value_of(arg, "rgte")))
		poke_gte(d, v, d->rgt);
	else if ((v = value_of(arg, "cut")))
		set_size(d->fd, d->path, place(d, v, 1));
	else if ((v = value_of(arg, "print")) && !strcmp(v, "bounds"))
		print_bounds(d);
	else if ((v = value_of(arg, "print")) && !strcmp(v, "grains"))
		print_grains(d);
	else if ((v = value_of(arg, "print")))
		printf("%" PRIu64 "\n", place(d, v, 1));
}

static enum layout layout_of(const char *s)
{
	static const char *const names[] = {"seq", "random", "runs", "reverse", "tables-last"};

	for (unsigned int i = 0; i < 5; i++)
		if (!strcmp(s, names[i]))
			return (enum layout)i;
	die(2, "layout: unknown '%s'", s);
}

static bool number_key(struct disk *d, const char *arg)
{
	const struct {
		const char *key;
		uint64_t *to;
	} keys[] = {
		{"grain", &d->grain}, {"gtes", &d->gtes}, {"seed", &d->seed},
		{"version", &d->version}, {"flags", &d->flags}, {"unclean", &d->unclean},
		{"pad", &d->pad}, {"trailing", &d->trailing},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const char *v = value_of(arg, keys[i].key);

		if (v) {
			*keys[i].to = number(keys[i].key, v);
			d->have_version |= keys[i].to == &d->version;
			d->have_flags |= keys[i].to == &d->flags;
			return true;
		}
	}
	return false;
}

static bool text_key(struct disk *d, const char *arg)
{
	const struct {
		const char *key;
		const char **to;
	} keys[] = {
		{"alloc", &d->alloc}, {"zero", &d->zero}, {"unmapped", &d->unmapped},
		{"apply", &d->apply}, {"from", &d->from}, {"descriptor", &d->descriptor}, {"base", &d->base},
		{"parent", &d->parent}, {"parentcid", &d->parentcid},
		{"bomb", &d->odd[BOMB]}, {"over", &d->odd[OVER]}, {"short", &d->odd[SHORT]},
		{"noend", &d->odd[NOEND]}, {"left", &d->odd[LEFT]}, {"flate", &d->odd[FLATE]},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const char *v = value_of(arg, keys[i].key);

		if (v) {
			*keys[i].to = v;
			return true;
		}
	}
	return false;
}

static bool switch_key(struct disk *d, const char *arg)
{
	const struct {
		const char *key;
		bool *to;
	} keys[] = {
		{"rgd", &d->rgd}, {"desc", &d->desc}, {"fill", &d->fill}, {"cutlast", &d->cutlast},
		{"progress", &d->progress}, {"eos", &d->eos}, {"holes", &d->holes},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const char *v = value_of(arg, keys[i].key);

		if (v) {
			*keys[i].to = boolean(keys[i].key, v);
			d->have_eos |= keys[i].to == &d->eos;
			return true;
		}
	}
	return false;
}

static void read_key(struct disk *d, const char *arg)
{
	const char *v;

	if (number_key(d, arg) || text_key(d, arg) || switch_key(d, arg) || is_damage(arg))
		return;
	if ((v = value_of(arg, "capacity"))) {
		d->capacity = sectors("capacity", v);
	} else if ((v = value_of(arg, "layout"))) {
		d->layout = layout_of(v);
	} else if ((v = value_of(arg, "variant"))) {
		if (strlen(v) != 1 || !strchr("ABC", *v))
			die(2, "variant: A, B or C");
		d->variant = *v;
	} else if ((v = value_of(arg, "lastgrain"))) {
		if (strcmp(v, "short") && strcmp(v, "full"))
			die(2, "lastgrain: short or full");
		d->cutlast = !strcmp(v, "short");
	} else if ((v = value_of(arg, "tables"))) {
		if (strcmp(v, "all"))
			die(2, "tables: only 'all'");
		d->all_tables = true;
	} else {
		die(2, "unknown key '%s'", arg);
	}
}

static void check(struct disk *d)
{
	if (!d->capacity)
		die(2, "capacity= is missing");
	if (d->format == COWD && d->capacity == 1ull << 32)
		d->capacity--;
	if (d->format == COWD && d->capacity > UINT32_MAX)
		die(2, "capacity is beyond COWD");
	if (!d->grain || d->grain > 1u << 20)
		die(2, "grain is out of range");
	if (d->format == COWD)
		d->gtes = 4096;
	if (!d->gtes || d->gtes > 1u << 20)
		die(2, "gtes is out of range");
	if (d->format != SESPARSE && (d->version | d->flags) > UINT32_MAX)
		die(2, "version= or flags= is too large");
	if (d->unclean > (d->esize == 4 && d->format != COWD ? UINT8_MAX : UINT32_MAX))
		die(2, "unclean= is too large");
	if (d->pad > 1ull << 40)
		die(2, "pad= is too large");
	if (d->format != SESPARSE && strcmp(d->unmapped, "none"))
		die(2, "unmapped= is for sesparse");
	if (d->format == SESPARSE && d->layout == TABLES_LAST)
		die(2, "sesparse has its tables in a fixed place");
	if (d->format == STREAM && d->layout == TABLES_LAST)
		die(2, "variant= says where the tables are");
	if (d->format == STREAM && strcmp(d->zero, "none"))
		die(2, "zero= is not for stream");
	if (d->trailing > 1u << 20)
		die(2, "trailing= is too large");
	if (d->progress && d->variant == 'C')
		die(2, "progress= is not for variant C");
	if (!d->have_eos)
		d->eos = d->format == STREAM && d->variant != 'C';
	if (d->holes && (d->apply || d->format == STREAM))
		die(2, "holes= is not for apply= or stream");
	if (d->base && !d->descriptor)
		die(2, "base= needs descriptor=");
	if (d->format != HOSTED && (d->format != STREAM || d->variant != 'C'))
		d->rgd = false;
	if (d->format != HOSTED && d->format != STREAM)
		d->desc = false;
	d->grains = ceil_div(d->capacity, d->grain);
	d->ngde = ceil_div(d->grains, d->gtes);
	d->gtsec = ceil_div(d->gtes * d->esize, SECTOR);
	if (d->ngde > MAX_GDES)
		die(2, "the directory is too large");
}

static void plan(struct disk *d)
{
	d->gd = grab(d->ngde, sizeof(*d->gd));
	choose_grains(d);
	choose_order(d);
	switch (d->format) {
	case COWD:
		place_cowd(d);
		break;
	case HOSTED:
		place_hosted(d);
		break;
	case SESPARSE:
		place_sesparse(d);
		break;
	case STREAM:
		place_stream(d);
		break;
	}
	if (d->format != SESPARSE && d->free > UINT32_MAX)
		die(2, "the file would pass 2 TiB");
}

static int extent(enum format format, int argc, char **argv)
{
	static const uint64_t default_grain[] = {1, 128, 8, 128};
	struct disk d = {
		.format = format, .path = argv[0], .alloc = "none", .zero = "none",
		.unmapped = "none", .parentcid = "aabbccdd", .grain = default_grain[format],
		.gtes = format == HOSTED || format == STREAM ? 512 : 4096, .seed = 1,
		.rgd = format != STREAM, .desc = true, .variant = 'A',
		.esize = format == SESPARSE ? 8 : 4,
	};

	for (int i = 1; i < argc; i++)
		read_key(&d, argv[i]);
	check(&d);
	plan(&d);
	make(&d);
	for (int i = 1; i < argc; i++)
		damage(&d, argv[i]);
	finish(d.fd, d.path);
	free(d.gd);
	free(d.rgt);
	free(d.ent);
	free(d.order);
	return 0;
}

static int pattern(int argc, char **argv)
{
	uint64_t n, key;
	struct out o;
	int fd;

	if (argc < 2 || argc > 3)
		die(2, "usage: mkvmdk pattern FILE SIZE [SEED]");
	n = sectors("SIZE", argv[1]);
	key = mix(argc > 2 ? number("SEED", argv[2]) : 1);
	fd = create(argv[0]);
	o = out_open(fd, argv[0]);
	for (uint64_t lba = 0; lba < n; lba++)
		fill_sector(out_sector(&o, lba * SECTOR), lba, key);
	out_close(&o);
	finish(fd, argv[0]);
	return 0;
}

/* --- ways for a file to arrive --- */

static void send_file(const char *path, int to, size_t chunk)
{
	int fd = open(path, O_RDONLY);
	char *buf = grab(chunk, 1);
	ssize_t n = 0;

	if (fd < 0)
		die(1, "%s: %s", path, strerror(errno));
	while ((n = read(fd, buf, chunk)) > 0)
		for (ssize_t done = 0, put; done < n; done += put) {
			put = write(to, buf + done, (size_t)(n - done));
			if (put < 0)
				die(1, "write: %s", strerror(errno));
		}
	close(fd);
	free(buf);
}

#define CHUNKS_MAX 16

/* A pause is long enough for everything before it to be taken; that it was is for no test to rely on. */
static int dribble(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	const uint64_t stalls = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	size_t chunk[CHUNKS_MAX], chunks = 0;
	uint64_t size, pos = 0, stalled = 0;
	struct stat st;
	char *end;
	int fd;

	if (argc < 2 || argc > 3)
		die(2, "usage: mkvmdk dribble FILE CHUNK[,CHUNK...] [STALLS]");
	for (end = argv[1]; chunks < CHUNKS_MAX && *end; end += *end == ',') {
		chunk[chunks] = strtoul(end, &end, 10);
		if (!chunk[chunks++] || (*end && *end != ','))
			die(2, "bad chunk in '%s'", argv[1]);
	}
	fd = open(argv[0], O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(1, "%s: %s", argv[0], strerror(errno));
	size = (uint64_t)st.st_size;
	for (size_t i = 0; pos < size; i++) {
		const size_t n = chunk[i % chunks];
		char *buf = grab(n, 1);
		const ssize_t got = read(fd, buf, n);

		for (ssize_t done = 0, put; done < got; done += put) {
			put = write(STDOUT_FILENO, buf + done, (size_t)(got - done));
			if (put < 0)
				die(1, "write: %s", strerror(errno));
		}
		free(buf);
		if (got <= 0)
			die(1, "%s: became shorter", argv[0]);
		pos += (uint64_t)got;
		if (stalled < stalls && pos > (stalled + 1) * size / (stalls + 1)) {
			stalled++;
			nanosleep(&pause, NULL);
		}
	}
	close(fd);
	return 0;
}

static int bring(int argc, char **argv)
{
	int end[2], status;
	pid_t child;

	if (argc < 2)
		die(2, "usage: mkvmdk socket FILE COMMAND...");
	signal(SIGPIPE, SIG_IGN); /* the command may have enough */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, end) < 0 || (child = fork()) < 0)
		die(1, "socket: %s", strerror(errno));
	if (!child) {
		signal(SIGPIPE, SIG_DFL);
		dup2(end[0], STDIN_FILENO);
		close(end[0]);
		close(end[1]);
		execvp(argv[1], argv + 1);
		die(1, "%s: %s", argv[1], strerror(errno));
	}
	close(end[0]);
	send_file(argv[0], end[1], 65536);
	close(end[1]);
	if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		die(1, "%s: did not exit", argv[1]);
	return WEXITSTATUS(status);
}

static int reset(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct linger linger = {.l_onoff = 1};
	socklen_t len = sizeof(at);
	int status, unread, file, to, from, door = socket(AF_INET, SOCK_STREAM, 0);
	uint64_t left;
	pid_t child;

	if (argc < 3)
		die(2, "usage: mkvmdk reset FILE BYTES COMMAND...");
	left = strtoull(argv[1], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	to = socket(AF_INET, SOCK_STREAM, 0);
	if (door < 0 || to < 0 || bind(door, (struct sockaddr *)&at, len) < 0 ||
	    listen(door, 1) < 0 || getsockname(door, (struct sockaddr *)&at, &len) < 0 ||
	    connect(to, (struct sockaddr *)&at, len) < 0 || (from = accept(door, NULL, NULL)) < 0 ||
	    (child = fork()) < 0)
		die(1, "socket: %s", strerror(errno));
	if (!child) {
		signal(SIGPIPE, SIG_DFL);
		dup2(from, STDIN_FILENO);
		close(from);
		close(door);
		close(to);
		execvp(argv[2], argv + 2);
		die(1, "%s: %s", argv[2], strerror(errno));
	}
	close(from);
	file = open(argv[0], O_RDONLY);
	while (left) {
		ssize_t n = sendfile(to, file, NULL, left < BUF_SIZE ? left : BUF_SIZE);

		if (n <= 0)
			die(1, "%s: %s", argv[0], n ? strerror(errno) : "is too short");
		left -= (uint64_t)n;
	}
	/* what the other side has not got would be lost */
	while (ioctl(to, SIOCOUTQ, &unread) == 0 && unread)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	setsockopt(to, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(to);
	if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		die(1, "%s: did not exit", argv[2]);
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		die(2, "usage: mkvmdk pattern|cowd|hosted|sesparse|stream FILE ...");
	if (!strcmp(argv[1], "pattern"))
		return pattern(argc - 2, argv + 2);
	if (!strcmp(argv[1], "dribble"))
		return dribble(argc - 2, argv + 2);
	if (!strcmp(argv[1], "socket"))
		return bring(argc - 2, argv + 2);
	if (!strcmp(argv[1], "reset"))
		return reset(argc - 2, argv + 2);
	if (!strcmp(argv[1], "cowd"))
		return extent(COWD, argc - 2, argv + 2);
	if (!strcmp(argv[1], "hosted"))
		return extent(HOSTED, argc - 2, argv + 2);
	if (!strcmp(argv[1], "sesparse"))
		return extent(SESPARSE, argc - 2, argv + 2);
	if (!strcmp(argv[1], "stream"))
		return extent(STREAM, argc - 2, argv + 2);
	die(2, "unknown format '%s'", argv[1]);
}
