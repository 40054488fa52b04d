# The seeds of the fuzz targets, and what was once found, go through each target without a word.

load helpers

REPLAY=${REPLAY:-$TOP/build/plain/replay}

@test "seed corpus and regression files" {
	cd "$BATS_TEST_TMPDIR"
	export TMPDIR=$BATS_TEST_TMPDIR
	sh "$TOP/tests/fuzz/corpus.sh" "$MKVMDK" seeds
	for target in cowd hosted sesparse stream descriptor chain pipe; do
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

@test "every opener of a format has a fuzz target" {
	while read -r name; do
		[ "$name" = flat ] || [ "$name" = zero ] || [ -f "$TOP/tests/fuzz/$name.c" ]
	done < <(sed -n 's/^int \([a-z]*\)_open(.*/\1/p' "$TOP/lib/format.h")
}
