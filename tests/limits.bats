# SPDX-License-Identifier: MIT
# How much work and memory things take: counted, never timed.

load helpers

# traced CALLS ARG...: how many of the system calls the program with ARG... makes.
traced() {
	local calls=$1

	strace -f -qq -e signal=none -e trace="$calls" -o "$BATS_TEST_TMPDIR/trace" \
		"$VMDKSYNC" "${@:2}" || return
	# a call that a thread was interrupted in has two lines
	grep -vc 'resumed>' "$BATS_TEST_TMPDIR/trace" || :
}

# What -v calls writes.
writes_of() {
	sed -n 's/.*[ ,]\([0-9]*\) write.*/\1/p'
}

# in_memory MIB ARG...: the program with ARG... keeps its peak below that.
in_memory() {
	local peak

	command time -f %M -o "$BATS_TEST_TMPDIR/peak" "$VMDKSYNC" "${@:2}" || return
	peak=$(cat "$BATS_TEST_TMPDIR/peak")
	echo "peak: $peak KiB: ${*:2}"
	[ "$peak" -lt $(($1 * 1024)) ]
}

# has_ring: skips where the kernel has no io_uring for us.
has_ring() {
	"$MKVMDK" cowd probe capacity=8 alloc=0
	vs -v --create probe probe.out 2>&1 | grep -q io_uring || skip 'no io_uring here'
}

@test "100,000 scattered grains take far fewer submissions than grains" {
	requires strace
	cd "$BATS_TEST_TMPDIR"
	has_ring
	"$MKVMDK" pattern target 800000 9
	sync target
	"$MKVMDK" cowd delta capacity=800000 alloc=every:8 apply=target
	want=$(sum target)
	"$MKVMDK" pattern target 800000 9
	sync target
	traced io_uring_enter,pread64,pwrite64,preadv,pwritev,preadv2,pwritev2,read,write -q delta target
	enters=$(grep -v 'resumed>' trace | grep -c io_uring_enter)
	others=$(grep -v 'resumed>' trace | grep -vc io_uring_enter)
	echo "$enters submissions, $others other reads and writes"
	# Each grain is two transfers, a read and a write. Measured: 12,499 submissions, 16 transfers
	# in each; the limit allows for half as many in each, as completions come when they like.
	[ "$enters" -gt 0 ]
	[ "$enters" -lt $((2 * 100000 / 8)) ]
	# the tables of the delta (196), and what starting takes; where no write is direct, each is a call
	limit=1000
	[ "$(stat -f -c %T .)" != tmpfs ] || limit=101000
	[ "$others" -lt "$limit" ]
	[ "$(sum target)" = "$want" ]
}

@test "neighbours are written as one, whatever their order in the file" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern base 40000 9
	for format in cowd hosted; do
		for layout in seq tables-last; do
			for how in '' --no-uring; do
				"$MKVMDK" "$format" delta capacity=40000 grain=8 alloc=1024-3071 \
					layout="$layout"
				cp base target
				sync target
				# shellcheck disable=SC2086 # none or one option
				n=$(vs -v $how delta target 2>&1 | writes_of)
				echo "$format $layout $how: $n writes"
				[ "$n" -ge 8 ]
				[ "$n" -le 16 ]
			done
		done
	done
}

@test "8 MiB whose grains lie in random order are written by at most 64 KiB at a time" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern target 40000 9
	"$MKVMDK" cowd delta capacity=40000 alloc=8192-24575 layout=random apply=target
	want=$(sum target)
	"$MKVMDK" pattern target 40000 9
	sync target
	n=$(vs -v delta target 2>&1 | writes_of)
	echo "$n writes"
	[ "$n" -le 300 ]
	[ "$(sum target)" = "$want" ]
}

@test "memory: 2 TiB of COWD, every directory entry used" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" cowd delta capacity=2T alloc=0,4294967,last+random:1000 tables=all
	truncate -s $((4294967295 * 512)) target || skip 'no files of 2 TiB here'
	in_memory 64 -q delta target
	in_memory 64 -q --no-uring delta target
}

# The delta has no end that memory would have to hold: 512 MiB stand for 10 GiB, which
# VMDKSYNC_BIG_TESTS=1 makes.
@test "memory: a delta full of grains" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	size=512M
	[ -z "${VMDKSYNC_BIG_TESTS-}" ] || size=10G
	"$MKVMDK" cowd delta capacity="$size" grain=16 alloc=all
	in_memory 64 -q --create delta target
	rm target
}

# In a bitmap of a billion grains each of these is on a page of its own.
@test "memory: compressed grains far apart, from a stream of a disk of 4 TiB" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" stream delta capacity=4T grain=8 alloc=every:32768
	truncate -s 4T target || skip 'no files of 4 TiB here'
	# shellcheck disable=SC2002 # a pipe is meant
	cat delta | in_memory 64 -q - target
	"$VMDKSYNC" -q --verify delta target
	rm delta target
}

@test "memory: a delta full of grains of a sector, in random order" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" cowd delta capacity=128M alloc=all layout=random
	in_memory 64 -q --create delta target
	rm target
}

@test "memory: grains of 64 KiB here and there in a file that is in the page cache" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern target 524288 3
	"$MKVMDK" hosted delta capacity=256M alloc=random:2048 layout=runs
	sync target delta
	in_memory 64 -q delta target
	rm target delta
}

@test "memory: a map of a million stretches" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" hosted delta.vmdk capacity=8000000 grain=8 zero=every:2 version=2 flags=5 alloc=none \
		parentcid=ffffffff
	in_memory 32 --map --json delta.vmdk >map
	[ "$(grep -c '"start": ' map)" = 1000000 ]
	in_memory 32 --map delta.vmdk >map
	[ "$(grep -c ' zeros  *delta.vmdk$' map)" = 500000 ]
	rm map
}

@test "memory: verify, read-back and undo, which look at the target as well" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern target 1600000 3
	"$MKVMDK" cowd delta capacity=1600000 alloc=runs:4000:8:128 layout=runs
	sync target
	in_memory 64 -q --undo=log delta target
	in_memory 64 -q --read-back delta target
	in_memory 64 -q --verify delta target
	rm target
}

@test "memory: eight layers, each with more runs than one may keep" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	for i in 1 2 3 4 5 6 7 8; do
		"$MKVMDK" cowd "d$i" capacity=1040000 zero="every:$((i % 2 + 2))" alloc="$i"
	done
	truncate -s 600M target
	in_memory 64 -q --dry-run d1 d2 d3 d4 d5 d6 d7 d8 target
	in_memory 64 -q d1 d2 d3 d4 d5 d6 d7 d8 target
}

@test "memory: forty extents, each with many runs" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	{
		echo '# Disk DescriptorFile'
		echo 'version=1'
		echo 'CID=12345678'
		echo 'parentCID=ffffffff'
		echo 'createType="custom"'
		for i in {1..40}; do
			echo 'RW 204800 VMFSSPARSE "d"'
		done
	} >disk.vmdk
	"$MKVMDK" cowd d capacity=204800 zero=every:2
	truncate -s 5G target
	in_memory 64 -q --dry-run disk.vmdk target
}

@test "one grain on a target of 2 TiB takes no look at the rest" {
	requires strace
	cd "$BATS_TEST_TMPDIR"
	truncate -s $((4294967295 * 512)) target || skip 'no files of 2 TiB here'
	"$MKVMDK" cowd delta capacity=2T alloc=4000000000
	for how in '' --no-uring; do
		# shellcheck disable=SC2086 # none or one option
		n=$(traced all -q $how delta target)
		echo "$how: $n system calls"
		# a sanitizer makes calls of its own
		[ "$FLAVOUR" = plain ] && limit=300 || limit=3000
		[ "$n" -lt "$limit" ]
		# the grain is the last thing in the delta
		cmp <(tail -c +2048000000001 target | head -c 512) <(tail -c 512 delta)
	done
}

@test "memory: large packed grains are not unpacked once for each processor" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" stream s.vmdk grain=32768 capacity=131072 alloc=all
	in_memory 72 -q --create s.vmdk target
	rm target
}

@test "memory: many extents of large packed grains" {
	requires unsanitized time
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" stream s.vmdk grain=32768 capacity=32768 alloc=all variant=C desc=0
	{
		printf '%s\n' '# Disk DescriptorFile' version=1 CID=1 parentCID=ffffffff
		for _ in {1..12}; do
			echo 'RW 32768 SPARSE "s.vmdk"'
		done
	} >d.vmdk
	# two such grains, packed and not, for each processor; not for each extent
	in_memory $((64 + 48 * $(nproc) + 32)) -q --create d.vmdk target
	rm target
}
