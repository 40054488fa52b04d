# SPDX-License-Identifier: MIT
# Loaded by every .bats file. Tests run in parallel: what they write lies in $BATS_TEST_TMPDIR, at most
# 1 GiB of it at a time, and is removed when the test has passed.

bats_require_minimum_version 1.5.0

TOP=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
export VMDKSYNC=${VMDKSYNC:-$TOP/build/plain/vmdksync}
export MKVMDK=${MKVMDK:-$TOP/build/plain/mkvmdk}
export UNIT=${UNIT:-$TOP/build/plain/unit}
export FLAVOUR=${FLAVOUR:-plain}
export LC_ALL=C
# make, called from a test, is not the make that runs the tests.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
# A profiler that is killed, or refused, while it adds its counts to those that are there spoils them:
# each test has its own, which coverage.sh puts together.
[ "$FLAVOUR" != coverage ] || export GCOV_PREFIX=${VMDKSYNC%/*}/counts/$BASHPID
# Nor is git's work on a repository, a hook of which may run the tests, ours.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_PREFIX

# The program under test. With `run`, bats shows what it said when the test fails.
vs() {
	case " $* " in
	*' --json '*) vs_json "$@" ;;
	*) "$VMDKSYNC" "$@" ;;
	esac
}

# What it prints is kept, and checked against tests/schema at the end of the file. Output that cannot be
# written is tested with "$VMDKSYNC".
vs_json() {
	local out status=0

	mkdir -p "$BATS_FILE_TMPDIR/json"
	out=$(mktemp "$BATS_FILE_TMPDIR/json/XXXXXX")
	"$VMDKSYNC" "$@" >"$out" || status=$?
	cat "$out"
	echo "$BATS_TEST_DESCRIPTION: vmdksync ${*@Q}" >"$out.$status.cmd"
	mv "$out" "$out.$status"
	return "$status"
}

teardown_file() {
	local status=0

	[ -d "$BATS_FILE_TMPDIR/json" ] || return 0
	"$TOP/tests/schema/check.py" "$BATS_FILE_TMPDIR/json" || status=$?
	# json.bats says that it is missing
	[ "$status" = 0 ] || [ "$status" = 77 ]
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
		unsanitized)
			[ "$FLAVOUR" = plain ] || [ "$FLAVOUR" = coverage ] || skip "not with $FLAVOUR"
			;;
		jsonschema)
			/usr/bin/python3 -c 'import jsonschema' 2>/dev/null || skip 'needs python3-jsonschema'
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

# loopdev FILE [SECTOR_SIZE [OPTION...]]: prints the device; it is detached after the test. The list is
# a file because callers say dev=$(loopdev ...), which is a subshell.
loopdev() {
	local dev i

	for ((i = 0; i < 100; i++)); do
		# --find and taking what it found are two steps, and other tests do the same now.
		if dev=$(losetup --find --show --sector-size "${2:-512}" "${@:3}" "$1" \
			2>"$BATS_TEST_TMPDIR/.losetup"); then
			echo "$dev" >>"$BATS_TEST_TMPDIR/.loops"
			echo "$dev"
			return 0
		fi
		grep -q 'busy\|unavailable\|No such device' "$BATS_TEST_TMPDIR/.losetup" || break
		sleep 0.1
	done
	cat "$BATS_TEST_TMPDIR/.losetup" >&2
	return 1
}

# unloop DEV: detaches it now. It is struck off the list, as another test may have it next.
unloop() {
	sed -i "\\:^$1\$:d" "$BATS_TEST_TMPDIR/.loops"
	losetup --detach "$1"
}

# short_dir: makes SHORT_DIR, which is removed after the test. The address of a socket has at most 107
# bytes, which $BATS_TEST_TMPDIR alone may fill; nothing large belongs here.
short_dir() {
	SHORT_DIR=$(mktemp -d /tmp/vmdksync.XXXXXX)
}

helpers_teardown() {
	local dev pid

	# what a test that failed has left running
	if [ -f "$BATS_TEST_TMPDIR/pids" ]; then
		while read -r pid; do
			kill "$pid" 2>/dev/null || :
		done <"$BATS_TEST_TMPDIR/pids"
	fi
	unmounted
	if [ -f "$BATS_TEST_TMPDIR/.loops" ]; then
		while read -r dev; do
			losetup --detach "$dev" || :
		done <"$BATS_TEST_TMPDIR/.loops"
		rm "$BATS_TEST_TMPDIR/.loops"
	fi
	[ -z "${SHORT_DIR-}" ] || rm -rf "$SHORT_DIR"
	# A test that failed leaves its files until the end of the run, and with KEEP=1 for good. What is
	# mounted below is not ours to empty.
	[ -z "${BATS_TEST_COMPLETED-}" ] || [ -n "${KEEP-}" ] ||
		find "$BATS_TEST_TMPDIR" -mindepth 1 -xdev -delete 2>/dev/null || :
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

# until_true COMMAND...: for at most a minute or two; the machine may be busy.
until_true() {
	local i

	for ((i = 0; i < 1200; i++)); do
		! "$@" || return 0
		sleep 0.05
	done
	echo "never came true: $*"
	return 1
}

# is_locked FILE: somebody holds a lock on it. To try the lock would take it for a moment, in which
# the program under test is refused.
is_locked() {
	local device='[0-9a-f]*:[0-9a-f]*' n

	# inodes have small numbers, which others have as well, where files lie in memory
	if [ "$(stat -f -c %T "$1")" = tmpfs ]; then
		n=$(stat -c %d "$1")
		device=$(printf '%02x:%02x' $((n >> 8 & 0xfff)) $((n & 0xff | n >> 12 & 0xfff00)))
	fi
	grep -q " $device:$(stat -c %i "$1") " /proc/locks
}

# The program is stopped between its look at the metadata and its first write: by a pipe for its
# messages that is full. held OPTION...; then let_go, which returns its exit status and leaves what it
# said in err.
held() {
	mkfifo messages
	exec 7<>messages
	# what the pipe holds, and no more
	dd if=/dev/zero of=messages bs=4096 oflag=nonblock conv=notrunc status=none 2>/dev/null || :
	"$VMDKSYNC" -v "$@" >out 2>&7 </dev/null 3>&- &
	held_pid=$!
	echo "$held_pid" >>pids
	until_true waits_for_pipe "$held_pid"
}

# waits_for_pipe PID: it waits in a write to file 2; not all kernels tell where in the kernel.
waits_for_pipe() {
	local file

	[[ $(cat "/proc/$1/wchan" 2>/dev/null) != *pipe_write* ]] || return 0
	{ read -r _ file _ <"/proc/$1/syscall"; } 2>/dev/null && [ "$file" = 0x2 ]
}

let_go() {
	local code=0

	timeout 120 tr -d '\0' <messages >err 3>&- 7>&- &
	exec 7>&-
	wait "$held_pid" || code=$?
	wait $!
	echo "$code: $(<err)"
	rm -f messages pids
	return "$code"
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
