/* SPDX-License-Identifier: MIT */
/* Changes to a finished extent, in the order given, and what is printed of it. */
#include "mkvmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

static const char *const damages[] = {
	"poke", "hdr", "gde", "rgde", "gte", "rgte", "cut", "print", NULL,
};

bool is_damage(const char *arg)
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

void damage(struct disk *d, const char *arg)
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
