# Loaded by every .bats file. Tests run in parallel: what they write lies in $BATS_TEST_TMPDIR.

bats_require_minimum_version 1.5.0

TOP=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
export VMDKSYNC=${VMDKSYNC:-$TOP/build/plain/vmdksync}
export MKVMDK=${MKVMDK:-$TOP/build/plain/mkvmdk}
export UNIT=${UNIT:-$TOP/build/plain/unit}
export FLAVOUR=${FLAVOUR:-plain}
export LC_ALL=C
# make, called from a test, is not the make that runs the tests.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

# The program under test. With `run`, bats shows what it said when the test fails.
vs() {
	"$VMDKSYNC" "$@"
}

# requires THING...: skips the test, with a reason, unless all are there. A thing is root, loop
# (loop devices that work), plain (not a sanitized build), or the name of a command.
requires() {
	local thing

	for thing; do
		case $thing in
		root)
			[ "$(id -u)" = 0 ] || skip 'needs root'
			;;
		loop)
			[ "$(id -u)" = 0 ] || skip 'loop devices need root'
			helpers_loop_works || skip 'no working loop devices here'
			;;
		plain)
			[ "$FLAVOUR" = plain ] || skip "not with $FLAVOUR"
			;;
		strace)
			command -v strace >/dev/null || skip 'needs strace'
			strace -o /dev/null true 2>/dev/null || skip 'strace may not trace here'
			# LeakSanitizer cannot work in a traced program.
			export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
			;;
		*)
			command -v "$thing" >/dev/null || skip "needs $thing"
			;;
		esac
	done
}

helpers_loop_works() {
	local dev

	truncate -s 1M "$BATS_TEST_TMPDIR/.loop-probe" || return 1
	dev=$(loopdev "$BATS_TEST_TMPDIR/.loop-probe" 2>/dev/null) || return 1
	[ "$(blockdev --getsize64 "$dev")" = 1048576 ]
}

# loopdev FILE [SECTOR_SIZE]: prints the device; it is detached after the test. The list is a file
# because callers say dev=$(loopdev ...), which is a subshell.
loopdev() {
	local dev try

	for try in 1 2 3 4 5 6 7 8 9 10; do
		# --find and taking what it found are two steps, and other tests do the same now.
		if dev=$(losetup --find --show --sector-size "${2:-512}" "$1"); then
			echo "$dev" >>"$BATS_TEST_TMPDIR/.loops"
			echo "$dev"
			return 0
		fi
		sleep "0.$try"
	done
	echo "loopdev: cannot attach $1" >&2
	return 1
}

helpers_teardown() {
	local dev

	unmounted
	[ -f "$BATS_TEST_TMPDIR/.loops" ] || return 0
	while read -r dev; do
		losetup --detach "$dev" || :
	done <"$BATS_TEST_TMPDIR/.loops"
	rm "$BATS_TEST_TMPDIR/.loops"
}

# A file with a teardown of its own calls helpers_teardown there.
teardown() {
	helpers_teardown
}

# mounted DEV DIR: mounts it until unmounted() or the end of the test, where no namespace that another
# test makes meanwhile can keep a copy of the mount.
mounted() {
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount sh -c 'mount "$1" "$2" && : >"$2.mounted" && exec sleep 1000' sh "$1" "$2" \
		3>&- &
	echo $! >"$BATS_TEST_TMPDIR/.mounted"
	until [ -e "$2.mounted" ]; do
		kill -0 "$(cat "$BATS_TEST_TMPDIR/.mounted")" || return 1
		sleep 0.05
	done
	rm "$2.mounted"
}

unmounted() {
	[ -f "$BATS_TEST_TMPDIR/.mounted" ] || return 0
	kill "$(cat "$BATS_TEST_TMPDIR/.mounted")" || :
	wait "$(cat "$BATS_TEST_TMPDIR/.mounted")" || :
	rm "$BATS_TEST_TMPDIR/.mounted"
}

# until_true COMMAND...: for at most thirty seconds; the machine may be busy.
until_true() {
	local i

	for ((i = 0; i < 600; i++)); do
		! "$@" || return 0
		sleep 0.05
	done
	echo "never came true: $*"
	return 1
}

# is_locked FILE: somebody holds a lock on it. To try the lock would take it for a moment, in which
# the program under test is refused.
is_locked() {
	grep -q ":$(stat -c %i "$1") " /proc/locks
}

# same A B: both files hold the same bytes.
same() {
	local a b

	cmp -- "$1" "$2" >/dev/null 2>&1 && return 0
	a=$(wc -c <"$1") b=$(wc -c <"$2")
	{
		echo "differ: $1 ($a bytes), $2 ($b bytes)"
		cmp -- "$1" "$2"
		echo "different bytes: $(cmp -l -- "$1" "$2" 2>/dev/null | wc -l); the first (octal):"
		cmp -l -- "$1" "$2" 2>/dev/null | head -n 4
	} >&2
	return 1
}

# sum FILE: its checksum alone.
sum() {
	local line

	line=$(sha256sum <"$1") || return
	echo "${line%% *}"
}

# descriptor FILE CID PARENTCID TYPE HINT LINE...: a text descriptor as ESXi writes it; a base has no
# HINT, and ffffffff for PARENTCID.
descriptor() {
	local file=$1 cid=$2 parent=$3 type=$4 hint=$5

	shift 5
	{
		printf '%s\n' '# Disk DescriptorFile' version=1 'encoding="UTF-8"' "CID=$cid" \
			"parentCID=$parent" "createType=\"$type\""
		[ -z "$hint" ] || printf 'parentFileNameHint="%s"\n' "$hint"
		printf '%s\n' '# Extent description' "$@" '' '# The Disk Data Base ' '#DDB' '' \
			"ddb.longContentID = \"4b98b55ba6a6bc2e8fd6eb36$cid\""
	} >"$file"
}

# esx_chain SECTORS DELTAS: host.vmdk and host-flat.vmdk as a base, host-000001.vmdk with its -delta and
# so on above it; host-N.raw is what the disk with N deltas holds.
esx_chain() {
	local i delta before=host.vmdk

	"$MKVMDK" pattern host-flat.vmdk "$1" 1
	descriptor host.vmdk 10000000 ffffffff vmfs '' "RW $1 VMFS \"host-flat.vmdk\""
	cp host-flat.vmdk host-0.raw
	for ((i = 1; i <= $2; i++)); do
		delta=$(printf 'host-%06d' "$i")
		cp "host-$((i - 1)).raw" "host-$i.raw"
		"$MKVMDK" cowd "$delta-delta.vmdk" capacity="$1" alloc=runs:20:1:9 zero=runs:4:1:9 \
			seed="$((i + 1))" apply="host-$i.raw"
		descriptor "$delta.vmdk" "1000000$i" "1000000$((i - 1))" vmfsSparse "$before" \
			"RW $1 VMFSSPARSE \"$delta-delta.vmdk\""
		before=$delta.vmdk
	done
}
