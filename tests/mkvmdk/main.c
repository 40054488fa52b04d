/* SPDX-License-Identifier: MIT */
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
#include "mkvmdk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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
