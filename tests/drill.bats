# SPDX-License-Identifier: MIT
# Images damaged as transfers damage them, block by block: no wrong byte without a word. drill.c does it;
# DRILL_CASES=N tries so many a format (0: all that there are, which takes hours).

load helpers

DRILL=${DRILL:-${MKVMDK%/*}/drill}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export TMPDIR=$BATS_TEST_TMPDIR
	[ "$FLAVOUR" = plain ] || export DRILL_CASES=${DRILL_CASES:-40}
}

# drilled NAME IMAGE BEFORE AFTER [packed]: the table goes to the terminal, what was silent is shown as the test fails.
drilled() {
	local status=0

	"$DRILL" "$VMDKSYNC" "${@:1:4}" grains "${@:5}" >table || status=$?
	grep ' file: \| pipe: ' table | sed 's/^/# /' >&3 || :
	head -n 100 table
	rm -rf "$2" drill.dir
	return "$status"
}

# made NAME FORMAT SECTORS KEYS...: an image of mkvmdk, and what it makes of a pattern.
made() {
	local packed=

	"$MKVMDK" pattern before "$3" 99
	cp before after
	"$MKVMDK" "$2" image.vmdk capacity="$3" "${@:4}" apply=after print=grains >grains
	[ "$2" != stream ] || packed=packed
	drilled "$1" image.vmdk before after $packed
}

# Nothing in these formats says which entries belong into which place of which table.
@test "drill: COWD" {
	export DRILL_SWAPS=1
	made COWD cowd 20481 alloc=runs:120:1:60+random:300 layout=random
}

@test "drill: COWD, in order, and grown" {
	export DRILL_SWAPS=1
	made 'COWD in order, grown' cowd 20481 alloc=runs:90:1:60 pad=1000000
}

@test "drill: hosted sparse" {
	made 'hosted sparse' hosted 40960 grain=16 alloc=runs:40:1:5 layout=random
}

@test "drill: hosted sparse with zeroed grains" {
	made 'hosted sparse, zeroed' hosted 40960 grain=16 alloc=runs:40:1:5 zero=runs:30:1:9
}

@test "drill: streamOptimized, found by the footer" {
	made 'streamOptimized A' stream 20480 variant=A grain=16 alloc=runs:40:1:5 layout=random
}

@test "drill: streamOptimized, the directory behind the grains" {
	made 'streamOptimized B' stream 20480 variant=B grain=16 alloc=runs:40:1:5 layout=random
}

@test "drill: streamOptimized, tables in front" {
	made 'streamOptimized C' stream 20480 variant=C grain=16 alloc=runs:40:1:5 layout=random
}

@test "drill: SEsparse" {
	export DRILL_SWAPS=1
	made SEsparse sesparse 20480 alloc=runs:60:1:9 unmapped=random:20 zero=random:20 layout=random
}

# logged: what is overwritten is in undo.vmdk.
logged() {
	"$MKVMDK" pattern after 20480 99
	cp after before
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=runs:60:1:90 layout=random
}

# log_drilled NAME: grains lie between the head and the tables.
log_drilled() {
	echo "65536 $(($(stat -c %s undo.vmdk) - 16384))" >grains
	drilled "$1" undo.vmdk before after packed
}

@test "drill: undo log" {
	logged
	vs -q --undo=undo.vmdk d.vmdk before
	log_drilled 'undo log'
}

@test "drill: undo log that was not finished" {
	logged
	# the log cannot grow any more
	# shellcheck disable=SC2016 # for the bash inside
	run -3 bash -c 'ulimit -f 1100; exec "$0" -q --no-uring --undo=undo.vmdk d.vmdk before' "$VMDKSYNC"
	log_drilled 'undo log, not finished'
}
