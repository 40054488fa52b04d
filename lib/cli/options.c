/* SPDX-License-Identifier: MIT */
#include "cli/options.h"
#include "base/hints.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/screen.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What --force skips. */
static const struct {
	const char *word;
	enum force bit;
} force_words[] = {
    {"busy", FORCE_BUSY},
    {"raw", FORCE_RAW},
    {"gd", FORCE_GD},
    {"rgd", FORCE_RGD},
    {"cid", FORCE_CID},
    {"size", FORCE_SIZE},
    {"base", FORCE_BASE},
    {"changed", FORCE_CHANGED},
    {"disk", FORCE_DISK},
    {"room", FORCE_ROOM},
    {"accounts", FORCE_ACCOUNTS},
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
	text_printf(&after, ": unknown check");
	if (near)
		text_printf(&after, HINT "; did you mean --force=%s?", near);
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

static int raw_option(struct options *o, const char *word, struct err *e)
{
	o->raw = true;
	o->raw_gzip = word;
	return !word || !strcmp(word, "gzip") ? 0 : refuse(e, "--raw=", word, ": only gzip is known");
}

static int offset_option(struct options *o, const char *word, struct err *e)
{
	int r = byte_number(&o->offset, word, e);

	o->placed = true;
	if (!r && o->offset % SECTOR)
		r = refuse(e, "--offset: ", word, " is not a whole number of sectors" HINT "; 8s are 8 sectors");
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

/* --map, --map=list */
static int map_option(struct options *o, const char *word, struct err *e)
{
	o->map = true;
	o->map_list = word != NULL;
	return !word || !strcmp(word, "list") ? 0 : refuse(e, "--map=", word, ": only list is known");
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
	const char *help;     /* one line; NULL: it shares the line of the next row */
	int (*call)(struct options *o, const char *word, struct err *e);
	size_t at;
	enum { IS_CALL, IS_FLAG, IS_WORD, IS_BYTES } kind;
	uint64_t least;    /* BYTES: not less */
	const char *group; /* a heading that stands above it */
} rows[] = {
    {"dry-run", 0, NULL, "check everything, show a plan, write nothing", FLAG(dry_run),
     .group = "What to do (without any: apply DELTA)"},
    {"verify", 0, NULL, "compare TARGET with IMAGE and its parents", FLAG(verify)},
    {"info", 0, NULL, "what IMAGE (or a folder, a .vmx) and its parents hold", FLAG(info)},
    {"descriptors", 0, NULL, "with --info: read descriptors only, no extents", FLAG(descriptors)},
    {"map", 0, "[=list]", "where the data of IMAGE and its parents lie", CALL(map_option)},
    {"chain", 0, NULL, "apply DELTA and its parents, excluding the base", FLAG(chain)},
    {"full", 0, NULL, "the same and the base: TARGET becomes the full disk", FLAG(full)},
    {"raw", 0, "[=gzip]", "DELTA is a raw disk (from a pipe: with --expect-size)",
     CALL(raw_option)},
    {"create", 0, NULL, "make TARGET, a new sparse file of the disk's size", FLAG(create)},
    {"base", 0, "=FILE", "the parent of the first image: a raw disk, or a VMDK", WORD(base)},
    {"search", 0, "=DIR", "look for parents and extents in DIR as well", CALL(search_option)},
    {"offset", 0, "=N", "a bare extent belongs at byte N (Ns, NK, NM, NG, NT)",
     CALL(offset_option)},
    {"undo", 0, "=FILE", "save old data in FILE; roll back: vmdksync FILE TARGET",
     WORD(undo), .group = "Safety"},
    {"undo-append", 0, NULL, "resume with an unfinished undo log", FLAG(undo_append)},
    {"resume", 0, "=FILE", "keep a checkpoint in FILE; the same command resumes",
     WORD(resume)},
    {"position", 0, NULL, "with --resume: print where a stream has to begin", FLAG(position)},
    {"read-back", 0, NULL, "after writing, read again from the disk and compare",
     FLAG(read_back)},
    {"strict", 0, NULL, "treat warnings as errors", FLAG(strict)},
    {"confine", 0, NULL, "refuse files outside the folder of their descriptor", FLAG(confine)},
    {"force", 0, "=WORD", "skip one safety check:", CALL(force_option)},
    {"spool", 0, "=DIR", "where bytes that are needed later are kept (/var/tmp)",
     WORD(spool), .group = "DELTA from a pipe"},
    {"spool-first", 0, NULL, "receive everything, check it, then write", FLAG(spool_first)},
    {"expect-size", 0, "=N", "expect exactly N bytes (uncompressed)", BYTES(expect), .least = 1},
    {"memory", 0, "=N", "memory for grains referenced but not yet received (64M)",
     BYTES(memory), .least = 1},
    {"json", 0, NULL, "results as JSON on standard output", FLAG(json), .group = "Output"},
    {"max-ranges", 0, "=N", "list at most N differences (20)", BYTES(max_ranges)},
    {"progress", 'p', "[=json[:FD]]", "a progress line, or one JSON object a line",
     CALL(progress_option)},
    {"no-uring", 0, NULL, "plain reads and writes instead of io_uring", FLAG(in_line)},
    {"quiet", 'q', NULL, NULL, FLAG(quiet)},
    {"verbose", 'v', NULL, "errors only; or more details", CALL(verbose_option)},
    {"help", 'h', NULL, NULL, FLAG(help)},
    {"version", 'V', NULL, "this text; the version", FLAG(version)},
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

#define HELP_COLUMN 24
#define HELP_COLUMNS 80

/* The words of --force, in as many lines as they need. */
static void help_words(struct text *t)
{
	size_t column = HELP_COLUMNS;

	for (size_t i = 0; i < FORCE_WORDS; i++) {
		const size_t n = strlen(force_words[i].word) + 1;

		if (column + n > HELP_COLUMNS) {
			text_printf(t, "%s%*s", i ? "\n" : "", HELP_COLUMN - 1, "");
			column = HELP_COLUMN - 1;
		}
		text_printf(t, " %s", force_words[i].word);
		column += n;
	}
	text_add(t, "\n", 1);
}

/* Returns the last row of the line. */
static const struct row *help_row(struct text *t, const struct row *row)
{
	size_t begin;

	if (row->group)
		text_printf(t, "%s:\n", row->group);
	begin = t->len;
	for (bool first = true;; row++, first = false) {
		const char *argument = row->argument ? row->argument : "";

		text_printf(t, "%s", first ? "  " : ", ");
		if (row->letter)
			text_printf(t, "-%c, ", row->letter);
		else if (first)
			text_printf(t, "    ");
		text_printf(t, "--%s%s", row->name, argument);
		if (row->help)
			break;
	}
	if (t->len < begin + HELP_COLUMN - 2)
		text_printf(t, "%*s", (int)(begin + HELP_COLUMN - 2 - t->len), "");
	text_printf(t, "  %s\n", row->help);
	if (row->call == force_option)
		help_words(t);
	return row;
}

char *options_help(void)
{
	struct text t = {0};

	text_printf(&t,
		    "Usage: vmdksync [OPTIONS] DELTA... TARGET    apply VMware deltas, oldest first\n"
		    "       vmdksync --verify [OPTIONS] IMAGE... TARGET\n"
		    "       vmdksync --info | --map [OPTIONS] IMAGE...\n"
		    "TARGET holds the base: a raw file, a block device, or nbd://HOST/EXPORT.\n"
		    "  vmdksync --dry-run host-000001.vmdk /dev/vg0/vm\n"
		    "  vmdksync --undo=undo.vmdk host-000001.vmdk /dev/vg0/vm\n"
		    "  vmdksync --verify host-000001.vmdk /dev/vg0/vm\n"
		    "  ssh esxi 'cat /vmfs/volumes/ds/vm/vm-000001-delta.vmdk' | vmdksync - vm.raw\n");
	for (const struct row *row = rows; row < rows + ROWS; row++)
		row = help_row(&t, row);
	text_printf(&t, "Exit status: 0 done, 1 different, 2 untouched, 3 trouble after writing began.\n"
			"Messages, pipes, chains, JSON and all details: man vmdksync\n");
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
			 near ? HINT "; did you mean --" : "", near ? near : "", near ? "?" : "");
		return refuse(e, "", argv[optind - 1], after);
	}
	return refuse(e, "", argv[optind - 1], ": takes no value");
}

/* What goes together, and how many names. */
static int check(const struct options *o, int names, struct err *e)
{
	const bool shows = o->info || o->map, writes = !o->verify && !shows;
	const char *job = o->verify ? "--verify" : o->info ? "--info" : "--map";
	char before[16];
	const struct {
		bool wrong;
		const char *why[2]; /* a format, and its word */
	} rules[] = {
	    {(o->force & FORCE_GD) && (o->force & FORCE_RGD),
	     {"--force=gd and --force=rgd exclude each other"}},
	    {o->verify + o->info + o->map > 1, {"--verify, --info and --map exclude each other"}},
	    {!writes && (o->dry_run || o->create || o->read_back),
	     {"--verify, --info and --map write nothing: --dry-run, --create and --read-back cannot be "
	      "combined with them"}},
	    {o->descriptors && (!o->info || o->base),
	     {"--descriptors is for --info%s", o->base ? " without --base" : ""}},
	    {o->undo_append && !o->undo, {"--undo-append resumes with the log that --undo=FILE names"}},
	    {o->undo && (!writes || o->create),
	     {"--undo is for a target that is overwritten: %s cannot be combined with it",
	      o->create ? "--create" : job}},
	    {o->position && (!o->resume || names),
	     {"--position is for --resume=FILE, and takes no names"}},
	    {o->resume && !writes,
	     {"--resume goes on with writing: --verify, --info and --map have no place beside it"}},
	    {o->resume && o->raw && (o->placed || o->spool_first),
	     {"--resume: %s has no place beside --raw then", o->placed ? "--offset" : "--spool-first"}},
	    {!o->position && names < (shows ? 1 : 2),
	     {"%s needed", shows ? "an IMAGE is" : "a DELTA and a TARGET are"}},
	    {o->chain && o->full, {"--chain and --full exclude each other"}},
	    {o->base && o->create && !o->full,
	     {"--base is compared with TARGET, and --create makes that" HINT
	      ": did you mean --full --create?"}},
	    {o->raw && (o->chain || o->full || o->base || shows),
	     {"--raw: a raw disk has no parent: %s cannot be combined with it",
	      o->chain ? "--chain" : o->full ? "--full" : o->base ? "--base" : job}},
	    {o->raw && o->spool_first && !o->expect,
	     {"--raw --spool-first needs --expect-size=N, the size of the disk"}},
	    {o->raw && names > 2, {"--raw is for one disk, but there are %s names before TARGET", before}},
	    {o->placed && names - !shows > 1, {"--offset is for one extent"}},
	};

	snprintf(before, sizeof(before), "%d", names - 1);
	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		if (rules[i].wrong)
			return fail(e, EINVAL, rules[i].why[0], rules[i].why[1]);
	return 0;
}

/* Keeps what a run without --dry-run has to be told. */
static void keep_option(struct text *again, const struct row *row, const char *word)
{
	if (row->at == offsetof(struct options, dry_run) && row->kind == IS_FLAG)
		return;
	text_printf(again, " --%s%s", row->name, word ? "=" : "");
	if (word)
		screen_word(again, word);
}

static int keep_names(struct options *o, struct text *again, char **name, struct err *e)
{
	bool dash = false;

	for (char **n = name; *n; n++)
		dash |= (*n)[0] == '-' && (*n)[1];
	text_printf(again, dash ? " --" : "");
	for (; *name; name++) {
		text_printf(again, " ");
		screen_word(again, *name);
	}
	o->again = text_take(again);
	return o->again ? 0 : fail(e, ENOMEM, "out of memory");
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
	struct option longs[ROWS + 1] = {{0}};
	char letters[ROWS + 2] = ":", *letter = letters + 1;
	struct text again = {0};
	int c, failed = 0;

	*o = (struct options){.program = argc ? argv[0] : "vmdksync", .progress = -1, .progress_fd = STDERR_FILENO, .max_ranges = 20};
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
	/* to the end, also after a failure: the first one is told, in JSON where that is asked for */
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		struct err mine = {.set = false};
		const struct row *row = c == ':' || c == '?' ? NULL : find_row(c);
		int r = row ? set(o, row, optarg, &mine) : not_understood(c, argv, &mine);

		if (!r)
			keep_option(&again, row, optarg);
		else
			free(text_take(&again));
		/* a value's message does not know whose it is */
		if (r < 0 && row && strncmp(mine.msg, "--", 2))
			failed = fail_because(e, -r, &mine, "--%s: ", row->name);
		else if (r < 0)
			failed = fail_again(e, -r, &mine);
		if (!failed && (o->help || o->version)) {
			free(text_take(&again));
			return 0;
		}
	}
	if (failed)
		return failed;
	o->inputs = (const char *const *)argv + optind;
	o->n_inputs = (size_t)(argc - optind);
	if (!o->info && !o->map && !o->position && o->n_inputs)
		o->target = o->inputs[--o->n_inputs];
	return keep_names(o, &again, argv + optind, e) ?: check(o, argc - optind, e);
}
