# SPDX-License-Identifier: MIT
# Targets that a program serves (FUSE), and loop devices over them: QEMU's export of Debian 12 loses data
# when two writes are in flight and answers 0 to a punched hole that it does not punch; nbdfuse makes a
# trim of one, which promises nothing. What the qcow2 file holds when its server has ended is compared by
# qemu-img with mkvmdk's model.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	cd "$BATS_TEST_TMPDIR" || return
	helpers_teardown
	fusermount3 -u -z disk 2>/dev/null || :
	fusermount3 -u -z mnt 2>/dev/null || :
	rm -f ./*.raw ./*.qcow2 ./*.vmdk
}

requires_fuse() {
	requires root fusermount3 qemu-img "$@"
	[ -w /dev/fuse ] || skip 'no FUSE here'
}

# made SHAPE: base.raw, d.vmdk with at least 64 MiB of grains, and want.raw, of 128 MiB each.
made() {
	local size

	"$MKVMDK" pattern base.raw 262144 3
	cp base.raw want.raw
	case $1 in
	seq) set -- cowd alloc=runs:10:24576:32768 ;;
	random) set -- cowd alloc=runs:7600:8:48 layout=runs ;;
	zeros) set -- hosted alloc=runs:8:1:9 zero=runs:30:40:90 ;;
	esac
	"$MKVMDK" "$1" d.vmdk capacity=262144 seed=5 "${@:2}" apply=want.raw
	size=$(vs --info --json d.vmdk | jq '.images[0] | .data + .zero')
	[ "$size" -ge 67108864 ]
	qemu-img convert -O qcow2 base.raw d.qcow2
}

# serve HOW: $disk is what a program shows of d.qcow2
serve() {
	case $1 in
	qemu)
		disk=disk
		: >disk
		qemu-storage-daemon --blockdev driver=file,filename=d.qcow2,node-name=f \
			--blockdev driver=qcow2,file=f,node-name=q \
			--export type=fuse,id=e,node-name=q,mountpoint=disk,writable=on 3>&- &
		;;
	nbdfuse)
		disk=mnt/disk
		mkdir -p mnt
		nbdfuse mnt/disk --socket-activation qemu-nbd -f qcow2 d.qcow2 3>&- &
		;;
	esac
	server=$!
	echo "$server" >>pids
	until_true is_served
}

is_served() {
	kill -0 "$server" || exit 1
	[ "$(stat -c %s "$disk" 2>/dev/null)" = 134217728 ]
}

# what the qcow2 file holds is compared when nobody has it open
serve_no_more() {
	# a loop device that was detached may hold it for another moment
	[ "${disk%/*}" != mnt ] || until_true fusermount3 -u mnt
	kill "$server" 2>/dev/null || :
	wait "$server" || :
	rm -f pids disk
	until_true qemu-img info d.qcow2 >/dev/null 2>&1
}

loop_is_free() {
	! losetup "$1" 2>/dev/null
}

# with_target [loop [LOSETUP_OPTION...] --] SERVER OPTION...: runs the program onto a fresh export.
with_target() {
	local options=() target

	if [ "$1" = loop ]; then
		shift
		while [ "$1" != -- ]; do
			options+=("$1")
			shift
		done
		shift
		serve "$1"
		target=$(loopdev "$disk" 512 "${options[@]}")
	else
		serve "$1"
		target=$disk
	fi
	shift
	vs -v "$@" "$target" 2>err </dev/null || return
	if [ -b "$target" ]; then
		grep "$target: on a file that is served by a program (FUSE): one transfer in flight, zeros as bytes" err
		unloop "$target"
		until_true loop_is_free "$target"
	else
		grep "$target: served by a program (FUSE): one transfer in flight, zeros as bytes" err
	fi
	serve_no_more
}

# there_and_back SHAPE WAY...: with an undo log, back, and without one
there_and_back() {
	made "$1"
	shift
	with_target "$@" --undo undo.vmdk d.vmdk
	qemu-img compare -F raw d.qcow2 want.raw
	with_target "$@" undo.vmdk
	qemu-img compare -F raw d.qcow2 base.raw
	with_target "$@" d.vmdk
	qemu-img compare -F raw d.qcow2 want.raw
	with_target "$@" --no-uring undo.vmdk
	qemu-img compare -F raw d.qcow2 base.raw
}

for_each_shape() {
	local shape

	for shape in seq random zeros; do
		there_and_back "$shape" "$@"
		rm ./*.vmdk ./*.raw d.qcow2
	done
}

@test "qcow2 through QEMU's FUSE export: apply, undo, back" {
	requires_fuse qemu-storage-daemon jq
	for_each_shape qemu
}

@test "qcow2 through qemu-nbd and nbdfuse: apply, undo, back" {
	requires_fuse qemu-nbd nbdfuse jq
	for_each_shape nbdfuse
}

@test "a loop device over QEMU's FUSE export: apply, undo, back" {
	requires_fuse qemu-storage-daemon loop jq
	for_each_shape loop -- qemu
}

@test "a loop device with direct I/O over QEMU's FUSE export" {
	requires_fuse qemu-storage-daemon loop jq
	for_each_shape loop --direct-io=on -- qemu
}

@test "a loop device over nbdfuse: zeros" {
	requires_fuse qemu-nbd nbdfuse loop jq
	there_and_back zeros loop -- nbdfuse
}

@test "loop devices on loop devices, a partition, a deleted backing file" {
	requires_fuse qemu-storage-daemon loop jq addpart
	made zeros
	"$MKVMDK" cowd small.vmdk capacity=2048 alloc=every:3
	serve qemu
	words='on a file that is served by a program (FUSE)'
	one=$(loopdev disk)
	two=$(loopdev "$one")
	vs -v --dry-run small.vmdk "$two" 2>&1 | grep -F "$two: $words"
	unloop "$two"
	until_true loop_is_free "$two"
	addpart "$one" 1 2048 4096
	until_true [ -b "${one}p1" ]
	vs -v --dry-run small.vmdk "${one}p1" 2>&1 | grep -F "${one}p1: $words"
	delpart "$one" 1
	# Where its name leads to another file the kernel's list of FUSE file systems tells; without that the
	# worse is assumed. The same for a file that no program serves, and has no name any more.
	truncate -s 2M plain.raw
	three=$(loopdev plain.raw)
	vs -v --dry-run small.vmdk "$three" 2>err
	run -1 grep 'in flight' err
	rm plain.raw
	# shellcheck disable=SC2016 # for the sh inside
	unshare -m sh -euc '
		list=/sys/fs/fuse/connections
		mount --bind /dev/null disk
		while umount "$list" 2>/dev/null; do :; done
		for dev; do "$VMDKSYNC" -v --dry-run small.vmdk "$dev"; done >unlisted 2>&1
		mount -t fusectl none "$list"
		for dev; do "$VMDKSYNC" -v --dry-run small.vmdk "$dev"; done >listed 2>&1' \
		sh "$one" "$three"
	grep -F "$one: on a file that cannot be found and may be served by a program (FUSE): " unlisted
	grep -F "$three: on a file that cannot be found and may be served by a program (FUSE): " unlisted
	grep -F "$one: $words" listed
	run -1 grep "$three: on a file" listed
	unloop "$one"
	until_true loop_is_free "$one"
	serve_no_more
}
