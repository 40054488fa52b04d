# SPDX-License-Identifier: MIT
# Inputs as the system gives them: what a descriptor may have opened, files that change while they are
# read, senders that do not close the pipe.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export TMPDIR=$BATS_TEST_TMPDIR
}

# not_opened NAME COMMAND...: the command, which ends with 2, does not open NAME, except with O_PATH.
not_opened() {
	local name=$1

	shift
	run -2 strace -qq -f -y -o trace -e trace=open,openat,openat2 timeout 60 "$@"
	echo "$output"
	! grep -F "$name" trace | grep -v O_PATH
}

@test "a device or FIFO that a descriptor names is never opened" {
	requires strace
	mkfifo fifo
	"$MKVMDK" cowd e-delta.vmdk capacity=2048 alloc=7
	for name in /dev/null /dev/tty "$PWD/fifo"; do
		descriptor d.vmdk 2 1 vmfsSparse "$name" 'RW 2048 VMFSSPARSE "e-delta.vmdk"'
		not_opened "$name" "$VMDKSYNC" --full --create d.vmdk got.raw
		not_opened "$name" "$VMDKSYNC" --map d.vmdk
		# trouble with the parents is no failure of --info
		# shellcheck disable=SC2016 # the inner shell expands it
		not_opened "$name" sh -c '"$VMDKSYNC" --info d.vmdk; exit 2'
		# an extent: a link beside it, as the name itself is refused where it is parsed
		ln -sf "$name" x.raw
		descriptor d.vmdk 2 ffffffff monolithicFlat '' 'RW 1 FLAT "x.raw" 0'
		not_opened "$name" "$VMDKSYNC" --info d.vmdk
		[[ $output == *' is a '*', no image can be read from it'* ]]
		rm x.raw
		# nor named by hand, where it is no FIFO
		[ "$name" = "$PWD/fifo" ] || not_opened "$name" "$VMDKSYNC" --info "$name"
	done
	[ ! -e got.raw ]
}

@test "a block device that only a descriptor names is not opened; one named by hand, or linked to, is read" {
	requires strace loop
	"$MKVMDK" pattern base.raw 2048 3
	dev=$(loopdev base.raw)
	descriptor d.vmdk 2 1 vmfsSparse "$dev" 'RW 2048 VMFSSPARSE "d-delta.vmdk"'
	cp base.raw want.raw
	"$MKVMDK" cowd d-delta.vmdk capacity=2048 alloc=5-9 apply=want.raw
	not_opened "$dev" "$VMDKSYNC" --full --create d.vmdk got.raw
	[[ $output == *"d.vmdk: names a block device, which is not opened: $dev (--base names"* ]]
	run -0 vs --full --base="$dev" --create d-delta.vmdk got.raw
	same want.raw got.raw
	rm got.raw
	ln -s "$dev" flat.raw
	descriptor f.vmdk 2 ffffffff monolithicFlat '' 'RW 2048 FLAT "flat.raw" 0'
	run -0 vs --full --create f.vmdk got.raw
	same base.raw got.raw
}

@test "files are opened where there is no /proc, too" {
	requires root unshare unsanitized # which need /proc
	truncate -s 1M t want
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=5-9,100-300 apply=want
	mkfifo fifo
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount bash -c 'mount -t tmpfs none /proc && "$VMDKSYNC" -q d.vmdk t &&
		{ cat d.vmdk >fifo & } && "$VMDKSYNC" -q --verify --spool-first fifo t &&
		ln -s /dev/null null && ! "$VMDKSYNC" --info null' 2>err
	cat err
	grep -q 'null: is a character device' err
	same t want
	vs --verify d.vmdk t
}

changed=': changed while it was read: is it still being copied, or is the VM still running'

# after_a_change EXITS COMMAND...: while `held` waits the command is run; then the run ends with one of these,
# and says that a file changed.
after_a_change() {
	local want=$1 code=0

	shift
	"$@"
	let_go || code=$?
	[[ $code == [$want] ]] || return 1
	grep -q "^vmdksync: .*$changed" err
}

# made SECTORS KEY=VALUE...: d.vmdk (COWD), the disk t.orig beneath it, and want.
made() {
	"$MKVMDK" pattern t.orig "$1" 9
	cp t.orig want
	"$MKVMDK" cowd d.vmdk capacity="$1" "${@:2}" apply=want
	# the time of the file is not that of a change at once
	touch -d '1 hour ago' d.vmdk
}

@test "a source that is cut short is no hole up to its end" {
	"$MKVMDK" pattern base.raw 16384 3
	for job in --full --verify; do
		for size in 0 4096 5000000; do
			for mode in --no-uring --strict; do
				cp base.raw flat.raw
				# the end is a hole, so there is one
				truncate -s 12000000 flat.raw
				truncate -s 16777216 flat.raw
				descriptor d.vmdk 2 ffffffff monolithicFlat '' 'RW 32768 FLAT "flat.raw" 0'
				"$MKVMDK" pattern t 32768 4
				[ $job = --full ] || cp flat.raw t
				cp t t.was
				held $job $mode d.vmdk t
				truncate -s $size flat.raw
				code=0
				let_go || code=$?
				# 2: the first read failed already
				[ $job$code = --full3 ] || [ $code = 2 ]
				[ $code = 3 ] || same t t.was
				grep -q 'flat.raw: .*\(the file became shorter while it was read\|changed while\)' err
			done
		done
	done
}

@test "a delta that changes while it is read: no exit 0, and what was written can be rolled back" {
	made 16384 alloc=every:2
	cp -p d.vmdk was.vmdk
	"$MKVMDK" cowd other.vmdk capacity=16384 alloc=every:2 seed=77
	for mode in --no-uring --strict --read-back; do
		for how in 'cp other.vmdk d.vmdk' 'touch d.vmdk' 'truncate -s +512 d.vmdk' 'chmod 600 d.vmdk' \
			'ln d.vmdk link'; do
			cp t.orig t
			rm -f d.vmdk u.vmdk link
			cp -p was.vmdk d.vmdk
			held $mode --undo=u.vmdk d.vmdk t
			# shellcheck disable=SC2086 # words are meant
			after_a_change 3 $how
			grep -q 'd.vmdk: changed' err
			grep -q 'running again with --undo-append is safe' err
			cp u.vmdk back.vmdk
			run -0 vs back.vmdk t
			same t t.orig
		done
	done
	# what was said is true
	cp t.orig t
	rm -f u.vmdk d.vmdk
	cp -p was.vmdk d.vmdk
	held --undo=u.vmdk d.vmdk t
	after_a_change 3 touch d.vmdk
	run -0 vs --undo=u.vmdk --undo-append d.vmdk t
	same t want
	run -0 vs u.vmdk t
	same t t.orig
	# reading it is no change; and a word accepts one
	held d.vmdk t
	cat d.vmdk >/dev/null
	let_go
	same t want
	cp t.orig t
	held --force=changed d.vmdk t
	touch d.vmdk
	let_go
	same t want
}

# while_stopped CALL WHEN COMMAND ARGUMENT...: runs it, stops it at that call, runs `change`, lets it go on.
while_stopped() {
	local tracer pid code=0

	rm -f trace
	strace -qq -o trace -e trace="$1" -e inject="$1:signal=SIGSTOP:when=$2" "${@:3}" >out 2>err <&0 3>&- &
	tracer=$!
	echo $tracer >>pids
	until_true grep -qs 'SIGSTOP' trace
	pid=$(pgrep -P $tracer)
	change
	kill -CONT "$pid"
	wait $tracer || code=$?
	cat err
	return $code
}

@test "descriptors, extents, parents and the base that change, in --verify, too" {
	requires strace pgrep
	esx_chain 20485 2
	for file in host.vmdk host-flat.vmdk host-000001.vmdk host-000001-delta.vmdk host-000002.vmdk; do
		cp host-2.raw t
		held --verify host-000002.vmdk t
		after_a_change 2 touch "$file"
		grep -q "^vmdksync: $file: changed" err
		# 2: a warning is what it waited with, before the first write
		held --full host-000002.vmdk t
		after_a_change 23 touch "$file"
	done
	cp host-0.raw base.raw
	held --verify --base=base.raw host-000001.vmdk host-000002.vmdk t
	after_a_change 2 touch base.raw
	held --chain host-000002.vmdk t
	after_a_change 23 touch host-000001-delta.vmdk
	# standard input that is a file is one, as itself or with gzip; a pipe is none
	gzip -k host-000002-delta.vmdk
	change() {
		touch "$file"
	}
	for file in host-000002-delta.vmdk host-000002-delta.vmdk.gz; do
		for first in '' --spool-first; do
			code=0
			# shellcheck disable=SC2086 # there or not
			while_stopped pwrite64 1 "$VMDKSYNC" --no-uring $first - t <"$file" || code=$?
			[[ $code == [23] ]]
			grep -q "standard input$changed" err
		done
	done
	same t host-2.raw
}

@test "--info, --map and --dry-run of a file that changes end with 2" {
	requires strace pgrep jq
	made 16384 alloc=every:2
	cp t.orig t
	change() {
		touch d.vmdk
	}
	for job in --info '--map --json' --map '--dry-run'; do
		code=0
		# shellcheck disable=SC2086 # words are meant
		if [ "$job" = --dry-run ]; then
			while_stopped pread64 6 "$VMDKSYNC" $job d.vmdk t || code=$?
		else
			while_stopped pread64 6 "$VMDKSYNC" $job d.vmdk || code=$?
		fi
		[ "$code" = 2 ]
		grep -q "^vmdksync: d.vmdk$changed" err
		# what was listed before is not mistaken for all of it
		case $job in
		*json) jq -e '.error.code == "changed" and .error.exit == 2' out ;;
		--map) [ "$(tail -n 1 out | wc -w)" -lt 4 ] || [ "$(wc -l <out)" -lt 8193 ] ;;
		*) [ ! -s out ] ;;
		esac
	done
	# before anything is written that is noticed, too
	code=0
	while_stopped pread64 6 "$VMDKSYNC" d.vmdk t || code=$?
	[ "$code" = 2 ]
	same t t.orig
}

# keeps_open FILE...: sends the files, and then holds the pipe open.
keeps_open() {
	cat "$@"
	echo $BASHPID >>pids
	exec sleep 1000 3>&-
}

@test "--expect-size: a sender that sent all and keeps the pipe open is not waited for" {
	made 16384 alloc=every:7
	gzip -k d.vmdk
	size=$(stat -c %s d.vmdk)
	for file in d.vmdk d.vmdk.gz; do
		for first in --read-back --spool-first; do
			cp t.orig t
			run -0 timeout 120 "$VMDKSYNC" $first --expect-size="$size" - t < <(keeps_open $file)
			same t want
			[[ $output == *"vmdksync: standard input: all expected bytes were received, but the sender kept the pipe open"* ]]
			[[ $output == *'on stable storage'* ]]
			kill "$(tail -n 1 pids)"
		done
	done
	# a stream of markers, too, and a delta that is smaller than the first look
	for words in 'stream variant=C capacity=20480 grain=16 alloc=random:20' 'cowd capacity=64 alloc=7'; do
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" ${words%% *} s.vmdk ${words#* }
		rm -f a b
		vs -q --create s.vmdk a
		run -0 timeout 120 "$VMDKSYNC" -v --create --expect-size="$(stat -c %s s.vmdk)" - b < <(keeps_open s.vmdk)
		same a b
		kill "$(tail -n 1 pids)"
	done
	# more than was expected: a warning, as ever
	cp t.orig t
	run -0 timeout 120 "$VMDKSYNC" --expect-size="$size" - t < <(keeps_open d.vmdk want)
	[[ $output == *"warning: standard input: $((size + $(stat -c %s want))) bytes were received, but $size were expected"* ]]
	same t want
	kill "$(tail -n 1 pids)"
	# of gzip the trailer tells that it came right: without it there is an end to wait for
	head -c -4 d.vmdk.gz >cut.gz
	cp t.orig t
	run -124 timeout 15 "$VMDKSYNC" -q --expect-size="$size" - t < <(keeps_open cut.gz)
	kill "$(tail -n 1 pids)"
}

@test "a FUSE export whose times are always now has not changed" {
	requires qemu-storage-daemon fusermount3 qemu-img
	[ -w /dev/fuse ] || skip 'no FUSE here'
	"$MKVMDK" pattern base.raw 20480 3
	cp base.raw want
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=every:3 apply=want
	: >base
	qemu-storage-daemon --blockdev driver=file,filename=base.raw,node-name=n \
		--export type=fuse,id=e,node-name=n,mountpoint="$PWD/base" 3>&- 7>&- &
	echo $! >>pids
	(until_true [ -s base ]) >/dev/null || skip 'FUSE does not work here'
	cp want t
	held --verify --base=base d.vmdk t
	sleep 2.1
	let_go
	cat err
	kill %?qemu-storage
	wait %?qemu-storage || :
}
