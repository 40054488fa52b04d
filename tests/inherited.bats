# SPDX-License-Identifier: MIT
# What a program inherits from the one that started it: descriptors that are closed, signals that are
# ignored. Daemons, hooks and cron start programs so.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	"$MKVMDK" pattern orig 2048 3
	cp orig want
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=every:5 seed=7 apply=want
}

# closed DESCRIPTORS COMMAND...: runs it without them.
closed() {
	case $1 in
	0) "${@:2}" 0<&- ;;
	1) "${@:2}" 1>&- ;;
	2) "${@:2}" 2>&- ;;
	01) "${@:2}" 0<&- 1>&- ;;
	02) "${@:2}" 0<&- 2>&- ;;
	12) "${@:2}" 1>&- 2>&- ;;
	012) "${@:2}" 0<&- 1>&- 2>&- ;;
	esac
}

# statuses WANT COMMAND...: its exit status whichever descriptors are closed.
statuses() {
	local set code

	for set in 0 1 2 01 02 12 012; do
		code=0
		cp orig t
		rm -f undo.vmdk
		closed $set "${@:2}" || code=$?
		echo "without $set: $code"
		[ "$code" = "$1" ] || return 1
		[ "$code" != 0 ] || same t want || return 1
		[ "$code" != 2 ] || same t orig || return 1
	done
}

@test "closed descriptors: what is said does not reach the target" {
	statuses 0 "$VMDKSYNC" d.vmdk t
	statuses 0 "$VMDKSYNC" -v --read-back --progress d.vmdk t
	statuses 0 "$VMDKSYNC" --no-uring -q d.vmdk t
	statuses 0 "$VMDKSYNC" --undo=undo.vmdk d.vmdk t
	vs undo.vmdk t
	same t orig
	cp d.vmdk cut.vmdk
	truncate -s -512 cut.vmdk
	statuses 2 "$VMDKSYNC" cut.vmdk t
	statuses 2 "$VMDKSYNC" --no-such-option d.vmdk t
	# differences are listed
	cp orig t
	for set in 2 02; do
		closed $set "$VMDKSYNC" --verify d.vmdk t >out && return 1
		grep -q ' differ' out
	done
	same t orig
}

@test "closed descriptors: a device" {
	requires loop
	cp orig t
	dev=$(loopdev t)
	closed 12 "$VMDKSYNC" d.vmdk "$dev"
	same "$dev" want
}

@test "a result that cannot be delivered is a failure" {
	for set in 1 01 12 012; do
		cp orig t
		code=0
		closed $set "$VMDKSYNC" --json d.vmdk t 2>err || code=$?
		[ "$code" = 3 ]
		same t want
	done
	run -3 --separate-stderr closed 1 "$VMDKSYNC" --json d.vmdk t
	[[ $stderr == *'standard output: Bad file descriptor'* ]]
	run -2 closed 1 "$VMDKSYNC" --info d.vmdk
	run -2 closed 1 "$VMDKSYNC" --version
	cp orig t
	run -2 closed 1 "$VMDKSYNC" --progress=json:1 d.vmdk t
	[[ $output == *'there is no such open descriptor'* ]]
	same t orig
}

@test "closed standard input is not read" {
	cp orig t
	for set in 0 01; do
		run -2 --separate-stderr closed $set "$VMDKSYNC" - t
		[ "$stderr" = 'vmdksync: standard input: is closed (Bad file descriptor)' ]
	done
	closed 02 "$VMDKSYNC" - t && return 1
	same t orig
}

@test "closed descriptors where there is no /dev/null" {
	requires root unshare
	unshare --mount mount -t tmpfs none /dev 2>/dev/null || skip 'may not mount here'
	"$VMDKSYNC" -q d.vmdk orig --dry-run
	cp orig t
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount sh -c 'mount -t tmpfs none /dev && exec "$0" d.vmdk t >&- 2>&-' "$VMDKSYNC"
	same t want
}

# signalled SIGNAL: it comes with the tenth write; $status, and what was said in err.
signalled() {
	cp orig t
	status=0
	strace -f -qq -o /dev/null -e trace=pwrite64 -e "inject=pwrite64:signal=$1:when=10" \
		"$VMDKSYNC" --no-uring d.vmdk t 2>err || status=$?
}

@test "signals that were ignored at the start stay ignored" {
	requires strace
	"$MKVMDK" pattern orig 40960 3
	cp orig want
	"$MKVMDK" cowd d.vmdk capacity=40960 alloc=every:300 seed=7 apply=want
	for sig in HUP INT TERM; do
		signalled "SIG$sig"
		[ "$status" = 3 ]
		grep -q 'stopped by a signal' err
		trap '' "$sig"
		signalled "SIG$sig"
		trap - "$sig"
		cat err
		[ "$status" = 0 ]
		same t want
	done
}

@test "nohup" {
	requires strace nohup
	"$MKVMDK" pattern orig 40960 3
	cp orig want
	"$MKVMDK" cowd d.vmdk capacity=40960 alloc=every:300 seed=7 apply=want
	cp orig t
	nohup strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=SIGHUP:when=10 \
		"$VMDKSYNC" --no-uring -q d.vmdk t </dev/null
	same t want
}
