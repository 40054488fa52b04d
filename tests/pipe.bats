# Straight from the pipe: the same targets as from files, and what a stream can lack.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export TMPDIR=$BATS_TEST_TMPDIR
}

# The recipes of the other files: group, name, format, keys.
recipes() {
	sed -nE 's/^\t([a-z]+[0-9]*) +([A-Za-z0-9-]+) +((cowd|hosted|sesparse|stream) .*)$/\1 \2 \3/p' \
		"$TOP"/tests/apply.bats
	sed -nE 's/^\t(variant=.*)$/stream - stream \1/p' "$TOP/tests/stream.bats"
}

# each FORMAT COMMAND...: calls COMMAND with delta, base and expected made, for every recipe.
each() {
	local format=$1 sectors n=0
	local -a words

	shift
	while read -r -a words; do
		[ "${words[2]}" = "$format" ] || continue
		echo "--- ${words[*]}"
		sectors=${words[*]}
		sectors=${sectors#*capacity=}
		"$MKVMDK" pattern base "${sectors%% *}" 99
		cp base expected
		"$MKVMDK" "$format" delta "${words[@]:3}" apply=expected
		"$@"
		n=$((n + 1))
	done < <(recipes)
	echo "$n recipes"
	[ "$n" -ge 15 ]
}

# from COMMAND...: what the command says goes through a pipe; stderr in log.
from() {
	cp base target
	"$@" | vs -v - target >log 2>&1 || return
	same target expected
}

plain_and_gzip() {
	from cat delta
	from gzip -1c delta
}

@test "every recipe from a pipe, plain and gzip: COWD" {
	each cowd plain_and_gzip
}

@test "every recipe from a pipe, plain and gzip: hosted" {
	each hosted plain_and_gzip
}

@test "every recipe from a pipe, plain and gzip: SEsparse" {
	each sesparse plain_and_gzip
}

@test "every recipe from a pipe, plain and gzip: streamOptimized" {
	each stream plain_and_gzip
}

@test "a text, a descriptor, nothing: refused, the target untouched" {
	"$MKVMDK" pattern base 2048 1
	"$MKVMDK" cowd delta capacity=2048 alloc=1 descriptor=d.vmdk base=base
	before=$(sum base)
	run -2 vs - base < <(cat d.vmdk)
	[[ $output == 'vmdksync: standard input: is a descriptor, and the files it names cannot come through a pipe'* ]]
	run -2 vs - base < <(seq 100000)
	[[ $output == 'vmdksync: standard input: is no VMDK that is known'* ]]
	run -2 vs - base < <(:)
	[[ $output == 'vmdksync: standard input: is empty (0 bytes)' ]]
	[ "$(sum base)" = "$before" ]
}
