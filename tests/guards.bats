# SPDX-License-Identifier: MIT
# What must not be written onto: each guard refuses by its own message, and nothing has changed.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=every:5 seed=7
	"$MKVMDK" pattern t 2048 3
	cp t t.orig
}

# refuses WORDS TARGET [OPTION...]: exit 2 and one line about TARGET that holds the words.
refuses() {
	local code=0

	timeout 120 "$VMDKSYNC" "${@:3}" d.vmdk "$2" >out 2>err </dev/null || code=$?
	echo "$code: $(<err)"
	[ "$code" = 2 ] || return 1
	[ ! -s out ] || return 1
	[ "$(wc -l <err)" = 1 ] || return 1
	[[ $(<err) == "vmdksync: $2: "*"$1"* ]]
}

# refuses_kept WORDS TARGET FILE [OPTION...]: and FILE, what the target is about, has not changed.
refuses_kept() {
	local was size

	was=$(sum "$3") size=$(size_of "$3")
	refuses "$1" "$2" "${@:4}"
	[ "$(sum "$3")" = "$was" ]
	[ "$(size_of "$3")" = "$size" ]
}

size_of() {
	if [ -b "$1" ]; then
		blockdev --getsize64 "$1"
	else
		stat -L -c %s "$1"
	fi
}

# applies TARGET [OPTION...]
applies() {
	cp t.orig want
	"$MKVMDK" cowd again.vmdk capacity=2048 alloc=every:5 seed=7 apply=want
	timeout 120 "$VMDKSYNC" -q "${@:2}" d.vmdk "$1"
	same t want
}

@test "control: without any guard in the way the delta applies" {
	applies t
}

@test "a missing target" {
	refuses 'does not exist (--create makes a new file)' missing
	[ ! -e missing ]
}

@test "a directory" {
	mkdir dir
	refuses 'is a directory' dir
	[ -z "$(ls -A dir)" ]
}

@test "a FIFO" {
	mkfifo fifo
	refuses 'is a FIFO' fifo
	[ -p fifo ]
}

@test "a socket" {
	requires python3
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
	refuses 'is a socket' sock
}

@test "a terminal" {
	requires script
	local code=0

	# shellcheck disable=SC2016 # the inner shell expands it
	script -qec 'exec timeout 120 "$VMDKSYNC" d.vmdk /dev/tty 2>err' /dev/null >out </dev/null || code=$?
	cat err
	[ "$code" = 2 ]
	[ ! -s out ]
	[ "$(<err)" = 'vmdksync: /dev/tty: is a terminal' ]
	# shellcheck disable=SC2016
	script -qec 'tty >name; exec timeout 120 "$VMDKSYNC" d.vmdk "$(tty)" 2>err' /dev/null </dev/null >out || code=$?
	cat err
	[ "$(<err)" = "vmdksync: $(tr -d '\r' <name): is a terminal" ]
}

@test "a character device" {
	refuses 'is a character device' /dev/null
	[ -c /dev/null ]
	refuses 'is a character device' /dev/zero --force=busy
}

@test "a read-only file, even for root" {
	chmod 0444 t
	refuses_kept 'is read-only (mode 0444)' t t
	refuses_kept 'is read-only (mode 0444)' t t --force=busy
}

@test "a read-only loop device" {
	requires root loop
	dev=$(loopdev t 512 --read-only)
	refuses_kept 'read-only' "$dev" "$dev"
	run -0 "$VMDKSYNC" --dry-run d.vmdk "$dev"
	[[ $output == *'nothing was written; it is read-only, so it could not be' ]]
	same t t.orig
}

@test "the delta itself, a hard link and a symlink to it" {
	ln d.vmdk hard
	ln -s d.vmdk soft
	for name in d.vmdk ./d.vmdk hard soft; do
		refuses_kept 'is one of the inputs (d.vmdk)' "$name" d.vmdk
		refuses_kept 'is one of the inputs (d.vmdk)' "$name" d.vmdk --force=busy
	done
}

@test "a loop device over the delta" {
	requires root loop
	truncate -s 2M d.vmdk
	dev=$(loopdev d.vmdk)
	refuses_kept 'is a loop device over one of the inputs (d.vmdk)' "$dev" d.vmdk
	refuses_kept 'is a loop device over one of the inputs (d.vmdk)' "$dev" d.vmdk --force=busy
}

@test "the file under the loop device that the delta is read from" {
	requires root loop
	truncate -s 2M d.vmdk
	mv d.vmdk under
	dev=$(loopdev under)
	ln -s "$dev" d.vmdk
	refuses_kept "is what an input, the loop device d.vmdk, reads" under under
	refuses_kept 'is one of the inputs (d.vmdk)' "$dev" under
}

# bats test_tags=slow
@test "a target that is an image itself; --force=raw goes on" {
	for keys in 'cowd capacity=2048' 'hosted capacity=2048' 'sesparse capacity=4096' \
		'stream variant=A capacity=2048'; do
		# shellcheck disable=SC2086
		"$MKVMDK" ${keys%% *} t ${keys#* } alloc=all
		truncate -s '>2M' t
		refuses_kept 'begins as a VMDK does, not as a raw disk' t t
	done
	printf '# Disk DescriptorFile\nversion=1\n' >t
	truncate -s 2M t
	refuses_kept 'begins as a VMDK' t t
	refuses_kept 'begins as a VMDK' t t --dry-run
	refuses_kept 'begins as a VMDK' t t --verify
	cp t t.orig
	applies t --force=raw
}

@test "a loop device that holds an image" {
	requires root loop
	"$MKVMDK" cowd t capacity=2048 alloc=all
	dev=$(loopdev t)
	refuses_kept 'begins as a VMDK' "$dev" "$dev"
}

@test "too small by one sector, or by one byte" {
	truncate -s 1048064 t
	refuses_kept 'has 1048064 bytes, the disk needs 1048576' t t
	cp t.orig t
	truncate -s 1048575 t
	refuses_kept 'has 1048575 bytes, the disk needs 1048576' t t --force=busy
}

@test "a loop device too small by one sector" {
	requires root loop
	truncate -s 1048064 t
	dev=$(loopdev t)
	refuses_kept 'has 1048064 bytes, the disk needs 1048576' "$dev" "$dev"
}

@test "a mounted loop device, and the file under it" {
	requires root loop mkfs.ext4
	truncate -s 8M fs
	# nothing that the kernel does to it by and by
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 fs
	dev=$(loopdev fs)
	mkdir mnt
	mounted "$dev" mnt || skip 'may not mount here'
	sync "$dev"
	was=$(sum fs)
	refuses 'is mounted or in use by another program' "$dev"
	refuses 'is in use by a loop device' fs
	[ "$(sum fs)" = "$was" ]
	[ "$(size_of fs)" = 8388608 ]
}

@test "a file that qemu-nbd serves" {
	requires qemu-nbd
	qemu-nbd --fork -f raw --socket "$PWD/s" --pid-file "$PWD/pid" --persistent t
	cat pid >>pids
	refuses_kept 'is held by QEMU' t t
	[ -S s ]
}

# hold_with_qemu_io FILE: until descriptor 9 is closed.
hold_with_qemu_io() {
	mkfifo commands
	qemu-io -f raw "$1" <commands >/dev/null 2>&1 3>&- &
	echo $! >>pids
	exec 9>commands
	until_true is_locked "$1"
}

@test "a file that QEMU has open; --force=busy goes on" {
	requires qemu-io
	hold_with_qemu_io t
	refuses_kept 'is held by QEMU' t t
	refuses_kept 'is held by QEMU' t t --force=gd
	applies t --force=busy
	exec 9>&-
}

@test "a file that is locked, as by another vmdksync; --force=busy goes on" {
	requires flock
	# exec: killing it must let go of the lock
	flock -F t sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked t
	refuses_kept 'is locked by process ' t t
	applies t --force=busy
}

@test "a file another vmdksync works on" {
	# it stops just before its first write; only then does the other come
	held d.vmdk t
	refuses_kept 'is locked by process ' t t
	let_go
	cp t.orig want
	"$MKVMDK" cowd again.vmdk capacity=2048 alloc=every:5 seed=7 apply=want
	same t want
}

@test "a loop device that is locked" {
	requires root loop flock
	dev=$(loopdev t)
	flock -F "$dev" sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked "$dev"
	refuses_kept 'is locked by ' "$dev" "$dev"
	applies "$dev" --force=busy
}

@test "a device that a dying run lets go of in a moment is waited for" {
	requires root loop python3
	dev=$(loopdev t)
	python3 -c 'import os, sys, time
held = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
open("holds", "w").close()
time.sleep(0.2)' "$dev" 3>&- &
	echo $! >>pids
	until_true [ -e holds ]
	applies "$dev"
}

@test "a mistyped name under /dev" {
	name=/dev/vmdksync-test-$$
	refuses 'there is no device of that name' "$name"
	[ ! -e "$name" ]
	refuses '--create makes no files under /dev' "$name" --create
	[ ! -e "$name" ]
	ln -s /dev dev
	refuses '--create makes no files under /dev' "dev/vmdksync-test-$$" --create
	[ ! -e "$name" ]
	refuses '' "$name/part1" --create
	[ ! -e "$name" ]
}

@test "--create on what exists" {
	refuses_kept 'exists already' t t --create
	ln -s nowhere dangling
	refuses 'exists already' dangling --create
	[ ! -e nowhere ]
	mkdir dir
	refuses 'exists already' dir --create
	refuses_kept 'exists already' t t --create --dry-run
}

@test "--create in a directory that is not there" {
	refuses 'its directory cannot be opened' no/such/file --create
	[ ! -e no ]
}

@test "a missing delta" {
	run -2 --separate-stderr vs missing.vmdk t
	[ -z "$output" ]
	[ "$stderr" = 'vmdksync: missing.vmdk: No such file or directory' ]
	same t t.orig
	run -2 vs missing.vmdk new --create
	[ ! -e new ]
}

@test "a delta that is a FIFO with nothing in it, a directory or a device" {
	mkfifo fifo
	mkdir dir
	: >fifo 3>&- &
	run -2 --separate-stderr timeout 120 "$VMDKSYNC" fifo t
	[[ $stderr == 'vmdksync: fifo: '* ]]
	run -2 --separate-stderr timeout 120 "$VMDKSYNC" dir t
	[ "$stderr" = 'vmdksync: dir: is a directory, no image can be read from it' ]
	run -2 --separate-stderr timeout 120 "$VMDKSYNC" /dev/zero t
	[ "$stderr" = 'vmdksync: /dev/zero: is a character device, no image can be read from it' ]
	same t t.orig
}

# opened_for WRITE_OR_READ FILE COMMAND...: while another program has it open for that.
opened_for() {
	local code=0

	requires python3
	rm -f opened
	python3 -c 'import sys, time
f = open(sys.argv[2], {"read": "rb", "write": "r+b"}[sys.argv[1]])
open("opened", "w")
time.sleep(1000)' "$1" "$2" 3>&- &
	echo $! >>pids
	until_true [ -e opened ]
	"${@:3}" || code=$?
	kill "$(tail -n 1 pids)"
	wait "$(tail -n 1 pids)" || :
	return "$code"
}

@test "a file that is open for writing elsewhere; --force=busy goes on" {
	opened_for write t refuses_kept 'is open for writing elsewhere (process ' t t
	[[ $(<err) == *"(process $(tail -n 1 pids), python3)"*'--force=busy'* ]]
	opened_for write t refuses_kept 'is open for writing elsewhere' t t --dry-run
	opened_for write t refuses_kept 'is open for writing elsewhere' t t --verify
	opened_for write t refuses_kept 'is open for writing elsewhere' t t --force=raw
	# by another name
	ln t hard
	opened_for write hard refuses_kept 'is open for writing elsewhere' t t
	opened_for write t applies t --force=busy
}

@test "a file that is open for reading elsewhere is no one's" {
	opened_for read t applies t
	cp t.orig t
	exec 9<t
	applies t
	exec 9<&-
	cp t.orig t
	opened_for read t vs -q --dry-run d.vmdk t
}

@test "a file that was open for writing until just now" {
	requires python3
	python3 -c 'import time
f = open("t", "r+b")
open("opened", "w")
time.sleep(0.3)' 3>&- &
	until_true [ -e opened ]
	applies t
	wait
}

@test "a file that the caller has open and hands on" {
	exec 9<>t
	applies /dev/fd/9
	cp t.orig t
	# whoever has both knows what it does
	applies t
	exec 9>&-
}

@test "a file under a loop device, where /sys does not tell" {
	requires loop unshare
	dev=$(loopdev t)
	was=$(sum t)
	# shellcheck disable=SC2016 # the inner shell expands it
	run -2 unshare --mount sh -c 'mount -t tmpfs none /sys && exec "$0" d.vmdk t' "$VMDKSYNC"
	[[ $output == 'vmdksync: t: is open for writing elsewhere (no process found: the kernel'* ]]
	[ "$(sum t)" = "$was" ]
	unloop "$dev"
	# in a container the file has another name
	mkdir in
	cp t in/t
	dev=$(loopdev in/t)
	mkdir out
	# shellcheck disable=SC2016
	run -2 unshare --mount sh -c 'mount --bind in out && mount -t tmpfs none in && exec "$0" d.vmdk out/t' \
		"$VMDKSYNC"
	[[ $output == 'vmdksync: out/t: is open for writing elsewhere'* ]]
	unloop "$dev"
}

@test "where leases are refused nothing else changes" {
	requires strace
	exec 8<>t
	for error in EINVAL:when=1 EINVAL:when=2 EACCES:when=2; do
		cp t.orig want
		cat want >t
		"$MKVMDK" cowd again.vmdk capacity=2048 alloc=every:5 seed=7 apply=want
		# F_SETSIG comes first, the lease second
		strace -qqf -o trace -P t -P "$PWD/t" -e trace=fcntl -e "inject=fcntl:error=$error" \
			"$VMDKSYNC" -q d.vmdk t 8>&- 2>err
		grep INJECTED trace
		same t want
	done
	exec 8>&-
}

@test "a mapping that may write, after its file was closed" {
	requires python3
	python3 -c 'import mmap, time
f = open("t", "r+b")
m = mmap.mmap(f.fileno(), 0)
f.close()
open("opened", "w")
time.sleep(1000)' 3>&- &
	echo $! >>pids
	until_true [ -e opened ]
	refuses_kept 'is open for writing elsewhere' t t
}

@test "two at once: one of them writes" {
	for _ in 1 2 3 4 5 6; do
		cp t.orig t
		codes=
		for k in 1 2 3; do
			"$VMDKSYNC" -q d.vmdk t 2>err.$k 3>&- &
			pid[k]=$!
		done
		for k in 1 2 3; do
			ended=0
			wait "${pid[k]}" || ended=$?
			codes="$codes$ended"
			[ "$ended" = 0 ] || grep -q 'is locked by\|in use\|open for writing' err.$k
		done
		echo "$codes"
		[[ $codes == *0* && $codes != *[13456789]* ]]
		applies t
	done
}

@test "who holds the lock" {
	requires flock
	flock -F t sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked t
	[ "$(stat -f -c %T t)" != btrfs ] || skip 'a file of btrfs has no device of its own there'
	refuses "is locked by process $!, sleep: wait for it, or stop it" t
}

@test "who holds the lock cannot be told: what it may be, and what to do" {
	requires root flock unshare
	flock -F t sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked t
	# /proc/locks of another PID namespace does not list it
	code=0
	timeout 120 unshare --pid --fork --mount-proc "$VMDKSYNC" d.vmdk t 2>err || code=$?
	[ "$code" = 2 ] || [ -s err ] || skip 'no namespaces here'
	[ "$code" = 2 ]
	[ "$(<err)" = "vmdksync: t: is locked by another program (another vmdksync?), or by the last \
writes of one that has ended: wait for it, or stop it" ]
}

@test "a disk and its partition" {
	requires loop addpart
	truncate -s 8M disk
	dev=$(loopdev disk 512 --partscan)
	addpart "$dev" 1 2048 4096 && addpart "$dev" 2 8192 4096 || skip 'no partitions of loop devices here'
	until_true [ -b "${dev}p2" ]
	"$MKVMDK" cowd small.vmdk capacity=2048 alloc=every:5 seed=7
	for names in "$dev ${dev}p1" "${dev}p1 $dev"; do
		base=${names% *} target=${names#* }
		descriptor x.vmdk 10000001 10000000 vmfsSparse gone.vmdk 'RW 2048 VMFSSPARSE "small.vmdk"'
		was=$(sum disk)
		for mode in --full --verify; do
			run -2 --separate-stderr vs "$mode" --force=cid --force=size --base="$base" x.vmdk "$target"
			[ "$stderr" = "vmdksync: $target: shares its bytes with one of the inputs ($base): \
one is a partition of the other" ]
		done
		[ "$(sum disk)" = "$was" ]
	done
	# a neighbour is another disk
	dd if=t.orig of="${dev}p1" conv=fsync status=none
	vs -q --full --force=cid --force=size --base="${dev}p1" x.vmdk "${dev}p2"
}

@test "a partition of a loop device over the delta" {
	requires loop addpart
	truncate -s 8M d.vmdk
	dev=$(loopdev d.vmdk 512 --partscan)
	addpart "$dev" 1 4096 4096 || skip 'no partitions of loop devices here'
	until_true [ -b "${dev}p1" ]
	refuses_kept 'is a loop device over one of the inputs (d.vmdk)' "${dev}p1" d.vmdk
	delpart "$dev" 1
}

@test "a file on /dev, but not one on /dev/shm" {
	requires root unshare
	# a /dev of its own, where nothing stays
	cat >inside <<-'END'
		mount -t tmpfs none /dev && mkdir /dev/shm /dev/vg0 && mknod /dev/null c 1 3 || exit 77
		mount -t tmpfs none /dev/shm || exit 77
		cp t.orig /dev/vg0/disk
		ln -s /dev/vg0/disk link
		for name in /dev/vg0/disk link; do
			for option in -q --dry-run --verify --force=busy; do
				"$VMDKSYNC" $option d.vmdk $name 2>>err
				[ $? = 2 ] || exit 1
			done
		done
		cmp t.orig /dev/vg0/disk || exit 1
		cp t.orig /dev/shm/disk
		"$VMDKSYNC" -q d.vmdk /dev/shm/disk && cp /dev/shm/disk t
	END
	code=0
	unshare --mount sh inside || code=$?
	[ "$code" != 77 ] || skip 'may not mount here'
	cat err
	[ "$code" = 0 ]
	[ "$(wc -l <err)" = 8 ]
	[ "$(grep -c ': is a file in memory, made by a mistyped name of a device; ' err)" = 8 ]
	cp t.orig want
	"$MKVMDK" cowd again.vmdk capacity=2048 alloc=every:5 seed=7 apply=want
	same t want
}

@test "an undo log in memory is remarked on, unless the target is there as well" {
	requires root unshare
	mkdir mnt
	cat >inside <<-'END'
		mount -t tmpfs none mnt || exit 77
		"$VMDKSYNC" --strict --undo=mnt/undo.vmdk d.vmdk t 2>strict && exit 1
		cmp t t.orig && [ ! -e mnt/undo.vmdk ] || exit 1
		"$VMDKSYNC" --undo=mnt/undo.vmdk d.vmdk t 2>err || exit 1
		cmp t t.orig && exit 1
		"$VMDKSYNC" -q mnt/undo.vmdk t && cmp t t.orig || exit 1
		cp t mnt/t
		"$VMDKSYNC" --strict --undo=mnt/2.vmdk d.vmdk mnt/t 2>quiet
	END
	code=0
	unshare --mount sh inside || code=$?
	[ "$code" != 77 ] || skip 'may not mount here'
	cat strict err quiet
	[ "$code" = 0 ]
	text='mnt/undo.vmdk: lies in memory, and is lost when the power fails'
	[[ $(<strict) == "vmdksync: $text"* ]]
	[[ $(head -n 1 err) == "vmdksync: warning: $text"* ]]
	grep -q '; 1 warning$' err
	run -1 grep 'warning' quiet
}
