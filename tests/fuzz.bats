# SPDX-License-Identifier: MIT
# The seeds of the fuzz targets, and what was once found, go through each target without a word.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

REPLAY=${REPLAY:-$TOP/build/plain/replay}

@test "seed corpus and regression files" {
	export TMPDIR=$BATS_TEST_TMPDIR
	sh "$TOP/tests/fuzz/corpus.sh" "$MKVMDK" seeds
	for target in cowd hosted sesparse streamopt descriptor chain pipe nbd checkpoint; do
		files=(seeds/"$target"/*)
		[ ${#files[@]} -ge 4 ]
		for f in "$TOP/tests/fuzz/regress/$target"/*; do
			[ ! -f "$f" ] || files+=("$f")
		done
		run "$REPLAY-$target" "${files[@]}"
		echo "$target: $output"
		[ "$status" = 0 ]
		[ "${#lines[@]}" = ${#files[@]} ]
	done
}

# openers FILE...: what is called NAME_open in headers, whatever the name, and wherever lines are broken.
openers() {
	cat "$@" | tr '\n\t' '  ' | grep -oE '[A-Za-z_][A-Za-z0-9_]*_open *\(' | sed 's/_open *($//' | sort -u
}

@test "every opener of a format has a fuzz target" {
	# of plain bytes there is nothing to parse
	openers "$TOP"/lib/vmdk/format.h "$TOP"/lib/vmdk/streamopt.h | grep -vx -e flat -e raw -e zero >names
	[ "$(grep -cx -e cowd -e hosted -e sesparse -e streamopt names)" = 4 ]
	while read -r name; do
		echo "$name"
		[ -f "$TOP/tests/fuzz/$name.c" ]
		grep -q "^FUZZ := .*\b$name\b" "$TOP/Makefile"
	done <names
	printf 'int\nvhd2_open(struct reader **out);\nextern int seSparse_v3_open\t(void);\nint x_openly(void);\n' >odd.h
	[ "$(openers odd.h | tr '\n' ' ')" = 'seSparse_v3 vhd2 ' ]
}
