/* SPDX-License-Identifier: MIT */
#include "vmdk/undonote.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#define NAME_MOST 1000
#define BEGUN "# begun "
#define APPLYING ", to apply "
#define LIST "# checksums (CRC-32) of grains as they were"
#define LINE 32u
#define LINE_FORM "# at %016" PRIx64 ": %08" PRIx32 "\n"

/* A printable copy of what lies between two texts of the same line, or NULL: a copy of a file is not to be
 * trusted with the terminal. */
static char *between(const char *from, const char *to)
{
	const char *end = strstr(from, to);
	char *raw = NULL, *text;

	if (end && (size_t)(end - from) <= strcspn(from, "\n"))
		raw = strndup(from, (size_t)(end - from));
	text = raw ? clean_text(raw) : NULL;
	free(raw);
	return text;
}

static bool parse_line(const char *line, struct undo_sample *s)
{
	char again[LINE + 1];

	if (sscanf(line, "# at %16" SCNx64 ": %8" SCNx32, &s->grain, &s->sum) != 2)
		return false;
	snprintf(again, sizeof(again), LINE_FORM, s->grain, s->sum);
	return !strncmp(line, again, LINE);
}

/* Where the lines begin; NULL where there is no list. *rest: bytes from there on. */
static char *find_list(char *text, size_t *rest)
{
	char *list = strstr(text, "\n" LIST), *end;

	if (!list)
		return NULL;
	end = strchr(list + 1, '\n');
	if (!end)
		return NULL;
	*rest = strlen(end + 1);
	return end + 1;
}

static void parse_samples(struct undo_note *note, char *text)
{
	size_t rest;
	const char *p = find_list(text, &rest);

	note->sampled = p;
	if (!p)
		return;
	note->damaged = rest < UNDO_SAMPLES * LINE;
	for (unsigned i = 0; !note->damaged && i < UNDO_SAMPLES; i++)
		note->damaged = !parse_line(p + i * LINE, &note->sample[i]);
}

int undo_note_parse(struct undo_note **out, const char *text, size_t len, struct err *e)
{
	struct undo_note *note = NULL;
	char *all, *begun;
	int r = 0;

	*out = NULL;
	if (len < strlen(UNDO_ABOUT) || memcmp(text, UNDO_ABOUT, strlen(UNDO_ABOUT)) != 0)
		return 0;
	all = strndup(text, len);
	if (all && !strstr(all + strlen(UNDO_ABOUT), UNDO_ABOUT_END)) { /* somebody else's comment */
		free(all);
		return 0;
	}
	note = all ? calloc(1, sizeof(*note)) : NULL;
	if (note) {
		note->disk = between(all + strlen(UNDO_ABOUT), UNDO_ABOUT_END);
		begun = strstr(all, "\n" BEGUN);
		if (begun)
			note->time = between(begun + 1 + strlen(BEGUN), APPLYING);
		if (note->time)
			note->applied = between(strstr(begun, APPLYING) + strlen(APPLYING), "\n");
		parse_samples(note, all);
	}
	if (!note || !note->disk) {
		undo_note_free(note);
		note = NULL;
		r = fail(e, ENOMEM, "out of memory");
	}
	free(all);
	*out = note;
	return r;
}

void undo_note_free(struct undo_note *note)
{
	if (!note)
		return;
	free(note->disk);
	free(note->time);
	free(note->applied);
	free(note);
}

int undo_note_head(char *text, size_t room, const char *disk, const char *applied)
{
	const time_t now = time(NULL);
	char when[32] = "";
	struct tm tm;

	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return snprintf(text, room,
			UNDO_ABOUT "%.*s" UNDO_ABOUT_END BEGUN "%s" APPLYING "%.*s\n", NAME_MOST,
			disk, when, NAME_MOST, applied);
}

bool undo_note_samples(char *text, size_t room, const struct undo_sample *sample)
{
	size_t rest, used;
	char *p = find_list(text, &rest);

	if (!p) {
		used = strlen(text) + 1 + strlen(LIST) + 1;
		used = div_up(used, SECTOR) * SECTOR;
		if (used + UNDO_SAMPLES * LINE > room)
			return false;
		rest = UNDO_SAMPLES * LINE;
		p = text + strlen(text);
		*p++ = '\n';
		memcpy(p, LIST, strlen(LIST));
		p += strlen(LIST);
		memset(p, ' ', (size_t)(text + used - p));
		p = text + used;
		p[-1] = '\n';
	}
	if (rest < UNDO_SAMPLES * LINE)
		return false;
	for (unsigned i = 0; i < UNDO_SAMPLES; i++) {
		char line[LINE + 1];

		snprintf(line, sizeof(line), LINE_FORM, sample[i].grain, sample[i].sum);
		memcpy(p + i * LINE, line, LINE);
	}
	return true;
}

uint32_t undo_sample_sum(const void *grain, size_t n)
{
	const uint32_t sum = (uint32_t)crc32(crc32(0, NULL, 0), grain, (uInt)n);

	return sum + !sum;
}
