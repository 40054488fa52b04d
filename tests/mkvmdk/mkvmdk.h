/* SPDX-License-Identifier: MIT */
/* What the files of mkvmdk share; main.c tells how it is used. */
#ifndef MKVMDK_H
#define MKVMDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

struct field {
	const char *name;
	uint16_t off, width;
};

/* --- base.c --- */

__attribute__((noreturn, format(printf, 2, 3)))
void die(int code, const char *fmt, ...);
void *grab(uint64_t n, size_t size);
uint64_t ceil_div(uint64_t a, uint64_t b);
uint64_t round_up(uint64_t a, uint64_t b);
void put(uint8_t *p, unsigned int width, uint64_t v);
uint64_t mix(uint64_t x);
void fill_sector(uint8_t *p, uint64_t lba, uint64_t key);
uint64_t below(uint64_t *state, uint64_t n);
void write_at(int fd, const char *name, const uint8_t *p, size_t n, uint64_t pos);

/* Room for the sector at byte pos, which the caller fills. */
uint8_t *out_sector(struct out *o, uint64_t pos);
struct out out_open(int fd, const char *name);
void out_close(struct out *o);

/* Writes the sectors that are not all zero; the rest stays a hole of the new file. */
void write_sparse(struct disk *d, const uint8_t *p, size_t n, uint64_t pos);
int create(const char *path);
void set_size(int fd, const char *path, uint64_t size);
void finish(int fd, const char *path);

/* A number at *s, decimal or 0x hex; *s moves past it. */
bool scan(const char **s, uint64_t *v);
uint64_t number(const char *what, const char *s);
bool boolean(const char *what, const char *s);
uint64_t sectors(const char *what, const char *s);
const char *value_of(const char *arg, const char *key);

/* --- grains.c --- */

uint64_t scan_index(const char **s, uint64_t limit);

/* Lists the used grains; sec = 1 marks those that will get data in the file. */
void choose_grains(struct disk *d);
void choose_order(struct disk *d);

/* --- extent.c --- */

uint64_t stored(const struct disk *d, uint64_t g);

/* Bytes of compressed data that stored blocks make of n. */
uint64_t stored_blocks(uint64_t n);
bool is_odd(const struct disk *d, enum odd odd, uint64_t g);

/* Bytes that grain g unpacks to, but for a bomb. */
uint64_t unpacked(const struct disk *d, uint64_t g);

/* Sectors of a grain in the file. */
uint64_t occupied(const struct disk *d, uint64_t g);
void place_table(struct disk *d, uint64_t t);
void place_grain(struct disk *d, struct ent *e);

/* Tables on demand, each before its first grain. */
void place_mixed(struct disk *d);
void place_grains(struct disk *d);
void text_put(char *buf, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const char *base_name(const char *path);
void text_descriptor(char *buf, size_t size, const char *cid, const char *parentcid,
		     const char *type, const char *hint);
void make(struct disk *d);

/* --- cowd.c --- */

void place_cowd(struct disk *d);
void put_cowd_header(const struct disk *d, uint8_t *p);
extern const struct field cowd_fields[];

/* --- hosted.c --- */

void place_hosted(struct disk *d);
void put_hosted_header(const struct disk *d, uint8_t *p);
extern const struct field hosted_fields[];

/* --- sesparse.c --- */

void place_sesparse(struct disk *d);
void put_sesparse_header(const struct disk *d, uint8_t *p);

/* SEsparse: one bit for each grain of the file in use, and for each of them where its entry stands. */
void write_reverse_maps(struct disk *d);
extern const struct field sesparse_fields[];

/* --- streamopt.c --- */

void place_stream(struct disk *d);
void write_stream(struct disk *d);

/* --- damage.c --- */

bool is_damage(const char *arg);
void damage(struct disk *d, const char *arg);

/* --- arrive.c --- */

int dribble(int argc, char **argv);
int bring(int argc, char **argv);
int reset(int argc, char **argv);

#endif
