/* See options.h. */
#include "cli/options.h"
#include "base/hints.h"
#include "cli/progress.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char usage[] =
    "Usage: vmdksync [OPTIONS] DELTA... TARGET\n"
    "       vmdksync --verify [OPTIONS] IMAGE... TARGET\n"
    "       vmdksync --info | --map [OPTIONS] IMAGE...\n"
    "Writes VMware snapshot deltas, oldest first, onto TARGET, a raw file or a block\n"
    "device that holds the disk beneath them. DELTA is an extent (COWD, SEsparse,\n"
    "hosted sparse, streamOptimized), a descriptor, or '-', a pipe, plain or gzip.\n"
    "\n"
    "      --chain         the parents of DELTA as well, but for the base\n"
    "      --full          ... and the base: TARGET becomes the whole disk\n"
    "      --base=FILE     the parent of the first image: a raw disk, or a VMDK\n"
    "      --verify        compare TARGET with the disk of IMAGE; write nothing\n"
    "      --max-ranges=N  list at most N differences (20)\n"
    "      --info          say what IMAGE and its parents are, and what they hold\n"
    "      --map           list where each stretch of the disk of IMAGE comes from\n"
    "      --json          results as JSON on standard output\n"
    "      --read-back     after writing: read from the disk again, and compare\n"
    "      --undo=FILE     save in FILE, a new VMDK, what is overwritten, first;\n"
    "                      'vmdksync FILE TARGET' brings it back, also after a crash\n"
    "      --undo-append   go on with such a FILE after a crash\n"
    "      --dry-run       check everything, say what would be written, write nothing\n"
    "      --create        make TARGET, a new sparse file of the disk's size\n"
    "      --strict        refuse what is only odd (warnings become errors)\n"
    "      --force=WORD    override one refusal:\n"
    "                        busy  TARGET is mounted, locked or in use\n"
    "                        raw   TARGET begins as a VMDK does, not as a raw disk\n"
    "                        gd    the copies of a directory differ: use the first\n"
    "                        rgd   ... or are damaged: use the redundant one\n"
    "                        cid   a parent is not the one its child was made from\n"
    "                        size  the images are not of one size\n"
    "                        base  TARGET does not hold the parents of DELTA\n"
    "                        changed  a file changed while it was read\n"
    "                        disk  an undo log is of another disk than TARGET\n"
    "                        room  the undo log cannot fit\n"
    "                        accounts  what DELTA holds does not add up\n"
    "      --search=DIR    look for parents and extents in DIR, too\n"
    "      --confine       refuse files outside the folder of who names them\n"
    "      --offset=N      a bare extent belongs at byte N (Ns, NK, NM ...) of disk\n"
    "      --spool=DIR     where a pipe's bytes wait that come too early (/var/tmp)\n"
    "      --spool-first   from a pipe: take in everything, check it, then write\n"
    "      --expect-size=N a pipe has to bring N bytes (unpacked)\n"
    "      --memory=N      for what a pipe has announced and not brought (64M)\n"
    "      --no-uring      plain reads and writes instead of io_uring\n"
    "  -p, --progress      a progress line anywhere; =json[:FD]: objects, a line each\n"
    "  -q, --quiet         no progress, no summary, no warnings\n"
    "  -v, --verbose       say what is done, and how\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "Exit status: 0 done and durable; 1 a comparison found differences; 2 trouble,\n"
    "TARGET is untouched; 3 trouble after writing began (running again is safe).\n";

static const struct {
	const char *word;
	enum force bit;
} force_words[] = {{"busy", FORCE_BUSY},
		   {"gd", FORCE_GD},
		   {"rgd", FORCE_RGD},
		   {"cid", FORCE_CID},
		   {"size", FORCE_SIZE},
		   {"raw", FORCE_RAW},
		   {"base", FORCE_BASE},
		   {"changed", FORCE_CHANGED},
		   {"disk", FORCE_DISK},
		   {"room", FORCE_ROOM},
		   {"accounts", FORCE_ACCOUNTS}};

/* "before WORD after", the word being what the user typed. */
static int refuse(struct err *e, const char *before, const char *word, const char *after)
{
	char *text = name_text(word);
	int r = fail(e, EINVAL, "%s%s%s", before, text ? text : "?", after);

	free(text);
	return r;
}

/* --- values -------------------------------------------------------------------------------------- */

/* Bytes, with a suffix s (sectors), K, M, G or T. */
static int byte_number(uint64_t *v, const char *word, struct err *e)
{
	static const char suffixes[] = "sKMGT";
	static const unsigned shift[] = {9, 10, 20, 30, 40};
	const char *s;
	char *end;

	errno = 0;
	*v = strtoull(word, &end, 10);
	if (end == word || *word == '-' || errno)
		return refuse(e, "", word, " is no number of bytes");
	s = *end ? strchr(suffixes, *end) : NULL;
	if ((*end && !s) || (s && end[1]) || (s && *v > POS_LIMIT >> shift[s - suffixes]) ||
	    *v > POS_LIMIT)
		return refuse(e, "", word, " is no number of bytes in range");
	if (s)
		*v <<= shift[s - suffixes];
	return 0;
}

static int force_option(struct options *o, const char *word, struct err *e)
{
	const char *near;

	for (size_t i = 0; i < sizeof(force_words) / sizeof(*force_words); i++)
		if (!strcmp(word, force_words[i].word)) {
			o->force |= force_words[i].bit;
			return 0;
		}
	near = hint_word(word, force_words, sizeof(force_words) / sizeof(*force_words),
			 sizeof(*force_words));
	if (near) {
		char after[64];

		snprintf(after, sizeof(after), ": there is no such word; did you mean --force=%s?", near);
		return refuse(e, "--force=", word, after);
	}
	return refuse(e, "--force=", word, ": there is no such word (busy, raw, gd, rgd, cid, size, base, changed, disk, room, accounts)");
}

static int search_option(struct options *o, const char *word, struct err *e)
{
	if (!*word)
		return fail(e, EINVAL, "--search: no folder is named");
	o->search[o->searches++] = word;
	return 0;
}

static int offset_option(struct options *o, const char *word, struct err *e)
{
	int r = byte_number(&o->offset, word, e);

	o->placed = true;
	if (!r && o->offset % SECTOR)
		r = refuse(e, "--offset: ", word, " is no whole number of sectors; 8s are 8 sectors");
	return r;
}

static int expect_option(struct options *o, const char *word, struct err *e)
{
	int r = byte_number(&o->expect, word, e);

	return !r && !o->expect ? fail(e, EINVAL, "--expect-size: no delta has 0 bytes") : r;
}

static int memory_option(struct options *o, const char *word, struct err *e)
{
	int r = byte_number(&o->memory, word, e);

	return !r && !o->memory ? fail(e, EINVAL, "--memory: 0 bytes are too few") : r;
}

static int max_ranges_option(struct options *o, const char *word, struct err *e)
{
	return byte_number(&o->max_ranges, word, e);
}

static bool can_write(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

/* --progress, --progress=json, --progress=json:FD */
static int progress_option(struct options *o, const char *word, struct err *e)
{
	char *end;
	long fd;

	o->progress = word ? PROGRESS_JSON : PROGRESS_LINE;
	if (!word || !strcmp(word, "json"))
		return 0;
	if (strncmp(word, "json:", 5) || word[5] < '0' || word[5] > '9')
		return refuse(e, "--progress=", word, ": json or json:FD is known");
	errno = 0;
	fd = strtol(word + 5, &end, 10);
	if (*end || errno || fd < 1 || fd > INT32_MAX || !can_write((int)fd))
		return refuse(e, "--progress=", word, ": there is no such open descriptor");
	o->progress_fd = (int)fd;
	return 0;
}

static int verbose_option(struct options *o, const char *word, struct err *e)
{
	(void)word;
	(void)e;
	o->verbose++;
	return 0;
}

/* --- the table ----------------------------------------------------------------------------------- */

#define FLAG(name, letter, field) {name, letter, no_argument, offsetof(struct options, field), NULL}
#define NAME(name, field) {name, 0, required_argument, offsetof(struct options, field), NULL}
#define CALL(name, letter, arg, call) {name, letter, arg, 0, call}

static const struct row {
	const char *name;
	char letter;
	int arg;
	size_t at; /* the field: bool where there is no argument, const char * where there is one */
	int (*call)(struct options *o, const char *word, struct err *e); /* instead, if not NULL */
} rows[] = {
    FLAG("chain", 0, chain),
    FLAG("full", 0, full),
    NAME("base", base),
    FLAG("verify", 0, verify),
    CALL("max-ranges", 0, required_argument, max_ranges_option),
    FLAG("info", 0, info),
    FLAG("map", 0, map),
    FLAG("json", 0, json),
    FLAG("read-back", 0, read_back),
    NAME("undo", undo),
    FLAG("undo-append", 0, undo_append),
    FLAG("dry-run", 0, dry_run),
    FLAG("create", 0, create),
    FLAG("strict", 0, strict),
    CALL("force", 0, required_argument, force_option),
    CALL("search", 0, required_argument, search_option),
    FLAG("confine", 0, confine),
    CALL("offset", 0, required_argument, offset_option),
    NAME("spool", spool),
    FLAG("spool-first", 0, spool_first),
    CALL("expect-size", 0, required_argument, expect_option),
    CALL("memory", 0, required_argument, memory_option),
    FLAG("no-uring", 0, in_line),
    CALL("progress", 'p', optional_argument, progress_option),
    FLAG("quiet", 'q', quiet),
    CALL("verbose", 'v', no_argument, verbose_option),
    FLAG("help", 'h', help),
    FLAG("version", 'V', version),
};

#define ROWS (sizeof(rows) / sizeof(*rows))
#define LONG_ONLY 256 /* what getopt calls a row without a letter: this and its number */

static const struct row *find_row(int c)
{
	if (c >= LONG_ONLY)
		return &rows[c - LONG_ONLY];
	for (size_t i = 0; i < ROWS; i++)
		if (c && rows[i].letter == c)
			return &rows[i];
	return NULL;
}

static int set(struct options *o, const struct row *row, const char *word, struct err *e)
{
	void *field = (char *)o + row->at;

	if (row->call)
		return row->call(o, word, e);
	if (row->arg == no_argument)
		*(bool *)field = true;
	else
		*(const char **)field = word;
	return 0;
}

/* Why getopt did not like it. */
static int not_understood(int c, char **argv, struct err *e)
{
	const char letter[] = {'-', (char)optopt, '\0'};

	if (c == ':')
		return refuse(e, "", argv[optind - 1], ": needs a value");
	if (optopt && !find_row(optopt))
		return refuse(e, "", letter, ": there is no such option");
	if (!optopt) {
		char typed[64], after[96];
		const char *near;

		snprintf(typed, sizeof(typed), "%.*s", (int)strcspn(argv[optind - 1], "="),
			 argv[optind - 1]);
		near = !strncmp(typed, "--", 2) ? hint_word(typed + 2, rows, ROWS, sizeof(*rows)) : NULL;
		snprintf(after, sizeof(after), ": there is no such option, or more than one%s%s%s",
			 near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
		return refuse(e, "", argv[optind - 1], after);
	}
	return refuse(e, "", argv[optind - 1], ": takes no value");
}

/* What goes together, and how many names. */
static int check(const struct options *o, int names, struct err *e)
{
	bool writes = !o->verify && !o->info && !o->map;

	if ((o->force & FORCE_GD) && (o->force & FORCE_RGD))
		return fail(e, EINVAL, "--force=gd and --force=rgd exclude each other");
	if (o->verify + o->info + o->map > 1)
		return fail(e, EINVAL, "--verify, --info and --map exclude each other");
	if (!writes && (o->dry_run || o->create || o->read_back))
		return fail(e, EINVAL,
			    "--verify, --info and --map write nothing: --dry-run, --create and "
			    "--read-back have no place beside them");
	if (o->undo_append && !o->undo)
		return fail(e, EINVAL, "--undo-append goes on with the log that --undo=FILE names");
	if (o->undo && (!writes || o->create))
		return fail(e, EINVAL,
			    "--undo is for a target that is overwritten: %s has no place beside it",
			    o->create	? "--create"
			    : o->verify ? "--verify"
			    : o->info	? "--info"
					: "--map");
	if (o->info || o->map ? names < 1 : names < 2)
		return fail(e, EINVAL, "%s needed",
			    o->info || o->map ? "an IMAGE is" : "a DELTA and a TARGET are");
	if (o->chain && o->full)
		return fail(e, EINVAL, "--chain and --full exclude each other");
	if (o->base && o->create && !o->full)
		return fail(e, EINVAL,
			    "--base is compared with TARGET, and --create makes that: did you mean "
			    "--full --create?");
	if (o->placed && names - !(o->info || o->map) > 1)
		return fail(e, EINVAL, "--offset is for one extent");
	return 0;
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
	struct option longs[ROWS + 1] = {{0}};
	int c;

	*o = (struct options){.progress = -1, .progress_fd = STDERR_FILENO, .max_ranges = 20};
	o->search = calloc((size_t)argc + 1, sizeof(*o->search));
	if (!o->search)
		return fail(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < ROWS; i++)
		longs[i] = (struct option){
		    .name = rows[i].name,
		    .has_arg = rows[i].arg,
		    .val = rows[i].letter ? rows[i].letter : LONG_ONLY + (int)i,
		};
	opterr = 0; /* getopt would print */
	while ((c = getopt_long(argc, argv, ":pqvhV", longs, NULL)) != -1) {
		struct err mine = {.set = false};
		const struct row *row = c == ':' || c == '?' ? NULL : find_row(c);
		int r = row ? set(o, row, optarg, &mine) : not_understood(c, argv, &mine);

		/* a value's message does not know whose it is */
		if (r < 0 && row && strncmp(mine.msg, "--", 2))
			return fail(e, -r, "--%s: %s", row->name, mine.msg);
		if (r < 0)
			return fail(e, -r, "%s", mine.msg);
		if (o->help || o->version)
			return 0;
	}
	o->inputs = (const char *const *)argv + optind;
	o->n_inputs = (size_t)(argc - optind);
	if (!o->info && !o->map && o->n_inputs)
		o->target = o->inputs[--o->n_inputs];
	return check(o, argc - optind, e);
}
