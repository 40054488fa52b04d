# SPDX-License-Identifier: MIT
# A run that was killed while the disk still works on its writes: nobody else may have the target before
# these are done, or they land on what the next run wrote. The disk is one of the test's own (nbdfuse),
# whose writes wait while a file named stuck exists.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	requires root nbdkit nbdfuse fusermount3
	[ -e /dev/fuse ] || skip 'needs /dev/fuse'
	mkdir fuse mnt
	"$MKVMDK" pattern orig 8192 3
	cp orig want
	"$MKVMDK" cowd d.vmdk capacity=8192 alloc=all seed=7 apply=want
	cp orig disk
}

# A test that fails must not leave a write that waits for ever.
serve() {
	# shellcheck disable=SC2016 # nbdkit's shell expands it
	nbdfuse fuse/disk --command nbdkit -s --exit-with-parent eval \
		thread_model='echo parallel' get_size='stat -c %s disk' can_flush='echo 0' \
		pread='dd if=disk bs=64k skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none' \
		pwrite='i=0
			while [ -e stuck ] && [ $i -lt 1200 ]; do
				: >waits; sleep 0.1; i=$((i + 1))
			done
			dd of=disk bs=64k seek=$4 oflag=seek_bytes conv=notrunc status=none' 3>&- &
	echo $! >>pids
	(until_true [ -f fuse/disk ]) >/dev/null || skip 'FUSE does not work here'
}

teardown() {
	cd "$BATS_TEST_TMPDIR" || return
	rm -f stuck
	umount mnt 2>/dev/null || :
	[ ! -f .loops ] || while read -r dev; do losetup --detach "$dev"; done <.loops
	rm -f .loops
	fusermount3 -u -z fuse 2>/dev/null || :
	helpers_teardown
}

# killed_in_flight TARGET: a run on it is killed while the disk works on one of its writes.
killed_in_flight() {
	rm -f waits
	: >stuck
	"$VMDKSYNC" -q d.vmdk "$1" 3>&- &
	dead=$!
	echo "$dead" >>pids
	until_true [ -e waits ]
	kill -KILL "$dead"
}

# refused_until_done TARGET WORDS: as long as the dead run's write is in flight, and not longer.
refused_until_done() {
	for mode in --dry-run -q; do
		run -2 --separate-stderr timeout 60 "$VMDKSYNC" "$mode" d.vmdk "$1"
		[[ $stderr == "vmdksync: $1: "*"$2"* ]]
	done
	[ -e stuck ]
	rm stuck
	until_true vs -q d.vmdk "$1"
	wait "$dead" || :
	vs --verify d.vmdk "$1"
}

# mounted_on_it: mnt is an ext4 on the disk, with orig in mnt/t.
mounted_on_it() {
	local dev

	truncate -s 24M disk
	mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 disk
	serve
	dev=$(loopdev fuse/disk 512 --direct-io=on)
	[ "$(cat "/sys/block/${dev#/dev/}/loop/dio")" = 1 ] || skip 'no direct I/O under a loop device'
	mount -t ext4 "$dev" mnt || skip 'may not mount here'
	cp orig mnt/t
	sync -f mnt/t
}

# The kernel sends these writes by itself: the program is gone, with all else that it had open.
@test "writes in flight to a loop device" {
	requires loop mkfs.ext4
	mounted_on_it
	dev=$(loopdev mnt/t 512 --direct-io=on)
	killed_in_flight "$dev"
	wait "$dead" || :
	refused_until_done "$dev" 'is mounted or in use'
	unloop "$dev"
	same mnt/t want
}

@test "writes in flight to a file" {
	requires loop mkfs.ext4
	mounted_on_it
	killed_in_flight mnt/t
	wait "$dead" || :
	# whose it is cannot be told in a PID namespace
	local who="is locked by process $dead, which has ended: its last writes are in flight, wait for them"
	[ "$(readlink /proc/self/ns/pid)" = 'pid:[4026531836]' ] || who='is locked by another program'
	refused_until_done mnt/t "$who"
	same mnt/t want
}

# Here a thread of the program does the write, and with it the rest waits for its end.
@test "writes in flight to a file in user space" {
	serve
	killed_in_flight fuse/disk
	refused_until_done fuse/disk 'is locked by process'
	same disk want
}

@test "writes in flight to a loop device over a file in user space" {
	requires loop
	serve
	dev=$(loopdev fuse/disk 512 --direct-io=on)
	killed_in_flight "$dev"
	refused_until_done "$dev" 'is mounted or in use'
	unloop "$dev"
	same disk want
}
