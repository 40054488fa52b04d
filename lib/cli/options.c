/* SPDX-License-Identifier: MIT */
/* See options.h. */
#include "cli/options.h"
#include "base/hints.h"
#include "cli/json.h"
#include "cli/progress.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What --force skips. help: the rest of its line. */
static const struct {
	const char *word;
	enum force bit;
	const char *help;
} force_words[] = {
    {"busy", FORCE_BUSY, "TARGET is mounted, locked or in use"},
    {"raw", FORCE_RAW, "TARGET begins as a VMDK does, not as a raw disk"},
    {"gd", FORCE_GD, "the copies of a directory differ: use the first"},
    {"rgd", FORCE_RGD, "... or are damaged: use the redundant one"},
    {"cid", FORCE_CID, "a parent is not the one its child was made from"},
    {"size", FORCE_SIZE, "the images are not of one size"},
    {"base", FORCE_BASE, "TARGET does not hold the parents of DELTA"},
    {"changed", FORCE_CHANGED, "a file changed while it was read"},
    {"disk", FORCE_DISK, "an undo log is of another disk than TARGET"},
    {"room", FORCE_ROOM, "the undo log cannot fit"},
    {"accounts", FORCE_ACCOUNTS, "what DELTA holds does not add up"},
};
#define FORCE_WORDS (sizeof(force_words) / sizeof(*force_words))

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
		return refuse(e, "", word, " is not a number of bytes");
	s = *end ? strchr(suffixes, *end) : NULL;
	if ((*end && !s) || (s && end[1]) || (s && *v > POS_LIMIT >> shift[s - suffixes]) ||
	    *v > POS_LIMIT)
		return refuse(e, "", word, " is not a number of bytes in range");
	if (s)
		*v <<= shift[s - suffixes];
	return 0;
}

static int force_option(struct options *o, const char *word, struct err *e)
{
	struct text after = {0};
	const char *near;
	char *text;
	int r;

	for (size_t i = 0; i < FORCE_WORDS; i++)
		if (!strcmp(word, force_words[i].word)) {
			o->force |= force_words[i].bit;
			return 0;
		}
	near = hint_word(word, force_words, FORCE_WORDS, sizeof(*force_words));
	text_printf(&after, ": there is no such word");
	if (near)
		text_printf(&after, "; did you mean --force=%s?", near);
	for (size_t i = 0; !near && i < FORCE_WORDS; i++)
		text_printf(&after, "%s%s%s", i ? ", " : " (", force_words[i].word,
			    i + 1 < FORCE_WORDS ? "" : ")");
	text = text_take(&after);
	r = text ? refuse(e, "--force=", word, text) : fail(e, ENOMEM, "out of memory");
	free(text);
	return r;
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

/* What an option does: set a bool, take a word as it is, take a number of bytes, or call a function. */
#define FLAG(field) .at = offsetof(struct options, field), .kind = IS_FLAG
#define WORD(field) .at = offsetof(struct options, field), .kind = IS_WORD
#define BYTES(field) .at = offsetof(struct options, field), .kind = IS_BYTES
#define CALL(function) .call = function

/*
 * All that is known of an option: --help is printed from here, getopt's table is made from here, and
 * README, manual and completion are compared with what --help says (tests/readme.bats).
 */
static const struct row {
	const char *name;
	char letter;          /* 0: none */
	const char *argument; /* as --help shows it, "=N", or "[=N]" where it may be left out; NULL: none */
	const char *help;     /* lines of at most 58 columns */
	int (*call)(struct options *o, const char *word, struct err *e);
	size_t at;
	enum { IS_CALL, IS_FLAG, IS_WORD, IS_BYTES } kind;
	uint64_t least;    /* BYTES: not less */
	const char *group; /* a heading that stands above it */
} rows[] = {
    {"chain", 0, NULL, "the parents of DELTA as well, but for the base", FLAG(chain),
     .group = "What is written, or done instead"},
    {"full", 0, NULL, "... and the base: TARGET becomes the whole disk", FLAG(full)},
    {"base", 0, "=FILE", "the parent of the first image: a raw disk, or a VMDK", WORD(base)},
    {"create", 0, NULL, "make TARGET, a new sparse file of the disk's size", FLAG(create)},
    {"dry-run", 0, NULL, "check everything, say what would be written, write nothing",
     FLAG(dry_run)},
    {"verify", 0, NULL, "compare TARGET with the disk of IMAGE; write nothing", FLAG(verify)},
    {"info", 0, NULL, "say what IMAGE and its parents are, and what they hold", FLAG(info)},
    {"descriptors", 0, NULL, "with --info: read descriptors only; extents may be missing",
     FLAG(descriptors)},
    {"map", 0, NULL, "list where each stretch of the disk of IMAGE comes from", FLAG(map)},
    {"undo", 0, "=FILE", "save in FILE, a new VMDK, what is overwritten, first;\n"
			 "'vmdksync FILE TARGET' brings it back, also after a crash",
     WORD(undo), .group = "Safety"},
    {"undo-append", 0, NULL, "go on with such a FILE after a crash", FLAG(undo_append)},
    {"read-back", 0, NULL, "after writing: read from the disk again, and compare",
     FLAG(read_back)},
    {"strict", 0, NULL, "refuse what is only odd (warnings become errors)", FLAG(strict)},
    {"force", 0, "=WORD", "override one refusal:", CALL(force_option)},
    {"search", 0, "=DIR", "look for parents and extents in DIR, too", CALL(search_option),
     .group = "Input"},
    {"confine", 0, NULL, "refuse files outside the folder of who names them", FLAG(confine)},
    {"offset", 0, "=N", "a bare extent belongs at byte N (Ns, NK, NM ...) of disk",
     CALL(offset_option)},
    {"spool", 0, "=DIR", "where a pipe's bytes wait that come too early (/var/tmp)",
     WORD(spool)},
    {"spool-first", 0, NULL, "from a pipe: take in everything, check it, then write",
     FLAG(spool_first)},
    {"expect-size", 0, "=N", "a pipe has to bring N bytes (unpacked)", BYTES(expect), .least = 1},
    {"memory", 0, "=N", "for what a pipe has announced and not brought (64M)", BYTES(memory),
     .least = 1},
    {"json", 0, NULL, "results as JSON on standard output", FLAG(json), .group = "Output"},
    {"max-ranges", 0, "=N", "list at most N differences (20)", BYTES(max_ranges)},
    {"progress", 'p', "[=json[:FD]]", "a progress line anywhere; json: objects, a line each",
     CALL(progress_option)},
    {"quiet", 'q', NULL, "no progress, no summary, no warnings", FLAG(quiet)},
    {"verbose", 'v', NULL, "say what is done, and how", CALL(verbose_option)},
    {"no-uring", 0, NULL, "plain reads and writes instead of io_uring", FLAG(in_line),
     .group = "Other"},
    {"help", 'h', NULL, "this text", FLAG(help)},
    {"version", 'V', NULL, "the version", FLAG(version)},
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
	int r = 0;

	if (row->kind == IS_CALL)
		return row->call(o, word, e);
	if (row->kind == IS_FLAG)
		*(bool *)field = true;
	else if (row->kind == IS_WORD)
		*(const char **)field = word;
	else
		r = byte_number(field, word, e);
	if (!r && row->kind == IS_BYTES && *(uint64_t *)field < row->least)
		r = fail(e, EINVAL, "must be greater than 0");
	return r;
}

#define HELP_COLUMN 22

static void help_row(struct text *t, const struct row *row)
{
	const char *argument = row->argument ? row->argument : "", *line = row->help;
	int column = HELP_COLUMN - 8;

	if (row->group)
		text_printf(t, "%s%s:\n", row == rows ? "\n" : "", row->group);
	if (row->letter)
		text_printf(t, "  -%c, --", row->letter);
	else
		text_printf(t, "      --");
	if (strlen(row->name) + strlen(argument) > (size_t)column) {
		text_printf(t, "%s%s\n", row->name, argument);
		column = HELP_COLUMN;
	} else {
		text_printf(t, "%s%s", row->name, argument);
		column -= (int)(strlen(row->name) + strlen(argument));
	}
	for (size_t n; *line; line += n + (line[n] == '\n'), column = HELP_COLUMN) {
		n = strcspn(line, "\n");
		text_printf(t, "%*s%.*s\n", column, "", (int)n, line);
	}
	for (size_t i = 0; row->call == force_option && i < FORCE_WORDS; i++)
		text_printf(t, "%*s%-4s  %s\n", HELP_COLUMN + 2, "", force_words[i].word,
			    force_words[i].help);
}

char *options_help(void)
{
	struct text t = {0};

	text_printf(&t, "Usage: vmdksync [OPTIONS] DELTA... TARGET\n"
			"       vmdksync --verify [OPTIONS] IMAGE... TARGET\n"
			"       vmdksync --info | --map [OPTIONS] IMAGE...\n"
			"Writes VMware snapshot deltas, oldest first, onto TARGET, a raw file, a block\n"
			"device or an NBD export (nbd://HOST/NAME) that holds the disk beneath them.\n"
			"DELTA is an extent (COWD, SEsparse, hosted sparse, streamOptimized), a\n"
			"descriptor, or '-', a pipe, plain or gzip.\n");
	for (size_t i = 0; i < ROWS; i++)
		help_row(&t, &rows[i]);
	text_printf(&t, "\n"
			"Exit status: 0 done and durable; 1 a comparison found differences; 2 trouble,\n"
			"TARGET is untouched; 3 trouble after writing began (running again is safe).\n");
	return text_take(&t);
}

/* Why getopt did not like it. */
static int not_understood(int c, char **argv, struct err *e)
{
	const char letter[] = {'-', (char)optopt, '\0'};

	if (c == ':')
		return refuse(e, "", argv[optind - 1], ": needs a value");
	if (optopt && !find_row(optopt))
		return refuse(e, "", letter, ": unrecognized option");
	if (!optopt) {
		char typed[64], after[96];
		const char *near;

		snprintf(typed, sizeof(typed), "%.*s", (int)strcspn(argv[optind - 1], "="),
			 argv[optind - 1]);
		near = !strncmp(typed, "--", 2) ? hint_word(typed + 2, rows, ROWS, sizeof(*rows)) : NULL;
		snprintf(after, sizeof(after), ": unrecognized or ambiguous option%s%s%s",
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
	if (o->descriptors && (!o->info || o->base))
		return fail(e, EINVAL, "--descriptors is for --info%s", o->base ? " without --base" : "");
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
	char letters[ROWS + 2] = ":", *letter = letters + 1;
	int c;

	*o = (struct options){.progress = -1, .progress_fd = STDERR_FILENO, .max_ranges = 20};
	o->search = calloc((size_t)argc + 1, sizeof(*o->search));
	if (!o->search)
		return fail(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < ROWS; i++) {
		const char *argument = rows[i].argument;

		longs[i] = (struct option){
		    .name = rows[i].name,
		    .has_arg = !argument	  ? no_argument
			       : *argument == '[' ? optional_argument
						  : required_argument,
		    .val = rows[i].letter ? rows[i].letter : LONG_ONLY + (int)i,
		};
		/* a letter takes no value: -p is --progress alone */
		if (rows[i].letter)
			*letter++ = rows[i].letter;
	}
	opterr = 0; /* getopt would print */
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
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
