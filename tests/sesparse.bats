# SPDX-License-Identifier: MIT
# SEsparse, where it is unlike the other formats: rotated indexes, one field that is not as published,
# and disks of 62 TiB. Recipes against qemu-img are in apply.bats, damage is in damage.bats.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# 0x200 is what files from the field hold there (OpenNebula one-swap, sesparse.c); qemu-img refuses
# it. What the disk is, it says of the same file with 0.
@test "reserved1 = 0x200 is read as 0 is" {
	requires qemu-img
	keys=(capacity=34001 alloc=random:900 zero=random:300 unmapped=random:300 layout=random)
	"$MKVMDK" pattern base 34001 9
	"$MKVMDK" sesparse delta "${keys[@]}" hdr=reserved1:0x200 descriptor=d.vmdk base=base
	run ! qemu-img convert -f vmdk -O raw d.vmdk theirs
	cp base target
	run -0 --separate-stderr vs --strict -q delta target
	[ -z "$stderr" ]
	"$MKVMDK" sesparse delta "${keys[@]}"
	qemu-img convert -f vmdk -O raw d.vmdk theirs
	same theirs target
}

# The low 12 bits of an index stand above the rest. Vectors that qemu-img reads so as well.
@test "the vectors of the rotated index" {
	requires qemu-img
	"$MKVMDK" pattern data 40008 4
	while read -r index entry; do
		echo "--- $index $entry"
		"$MKVMDK" sesparse delta capacity=8000 alloc=77 descriptor=d.vmdk "gte=77:$entry"
		grains=$("$MKVMDK" sesparse x capacity=8000 alloc=77 print=grain:77)
		truncate -s $((grains + (index + 1) * 4096)) delta
		dd if=data of=delta bs=4096 count=1 seek=$((grains / 4096 + index)) conv=notrunc \
			status=none
		rm -f target want
		truncate -s $((8000 * 512)) want
		dd if=data of=want bs=4096 count=1 seek=77 conv=notrunc status=none
		run -0 vs -q --create delta target
		same target want
		qemu-img convert -f vmdk -O raw d.vmdk theirs
		same theirs want
	done <<-'END'
	0 0x3000000000000000
	1 0x3001000000000000
	4095 0x3FFF000000000000
	4096 0x3000000000000001
	4999 0x3387000000000001
	16777216 0x3000000000001000
	16777217 0x3001000000001000
	2147483647 0x3FFF00000007FFFF
	END
}

# huge_files: goes where a file may have 4 PiB; ext4 ends at 16 TiB.
huge_files() {
	local dir

	for dir in "$BATS_TEST_TMPDIR" /dev/shm; do
		if [ -w "$dir" ] && truncate -s 5P "$dir/.huge-$$" 2>/dev/null; then
			rm "$dir/.huge-$$"
			[ "$dir" = "$BATS_TEST_TMPDIR" ] || dir=$(mktemp -d "$dir/vmdksync.XXXXXX")
			cd "$dir" || return
			HUGE=$dir
			return 0
		fi
		rm -f "$dir/.huge-$$"
	done
	skip 'no files of 4 PiB here'
}

teardown() {
	cd / || return
	if [ -n "${HUGE-}" ] && [ "$HUGE" != "$BATS_TEST_TMPDIR" ]; then
		rm -r "$HUGE"
	fi
	helpers_teardown
}

@test "indexes above 2^40: grains at 4 PiB of the file" {
	requires qemu-img
	huge_files
	"$MKVMDK" pattern data 8 4
	while read -r index entry; do
		echo "--- $index $entry"
		"$MKVMDK" sesparse delta capacity=8000 alloc=77 descriptor=d.vmdk "gte=77:$entry"
		grains=$("$MKVMDK" sesparse x capacity=8000 alloc=77 print=grain:77)
		dd if=data of=delta bs=4096 count=1 seek=$((grains / 4096 + index)) conv=notrunc \
			status=none
		rm -f target want
		truncate -s $((8000 * 512)) want
		dd if=data of=want bs=4096 count=1 seek=77 conv=notrunc status=none
		for how in '' --no-uring; do
			# no --create: huge files may have to lie under /dev
			rm -f target
			truncate -s $((8000 * 512)) target
			# shellcheck disable=SC2086 # none or one option
			run -0 vs -q $how delta target
			same target want
		done
		qemu-img convert -f vmdk -O raw d.vmdk theirs
		same theirs want
		# and without its last byte it lies outside the file
		truncate -s -1 delta
		run -2 vs -q delta target
		same target want
	done <<-'END'
	1099511627775 0x3FFF00000FFFFFFF
	1099511627776 0x3000000010000000
	1099511627781 0x3005000010000000
	1099512000000 0x3E0000001000005A
	END
}

@test "62 TiB with a handful of grains: little is read, and little memory taken" {
	huge_files
	"$MKVMDK" sesparse delta capacity=62T alloc=0,4095,4096,9000000000,last zero=77 unmapped=78 \
		seed=3
	truncate -s 62T target
	want=(0 4095 4096 9000000000 16642998271)
	run -0 vs -q delta target
	[ "$(stat -c %s target)" = $((62 << 40)) ]
	"$MKVMDK" pattern sector 8 3
	for grain in "${want[@]}"; do
		# each sector begins with its own number
		dd if=target bs=4096 skip="$grain" count=1 status=none |
			od -An -v -t u8 -w512 | awk '{ print $1 }' >numbers
		seq $((grain * 8)) $((grain * 8 + 7)) | same numbers /dev/stdin
	done
	[ "$(du -k target | cut -f1)" -le $((${#want[@]} * 4 + 8)) ]
	if [ "$FLAVOUR" = plain ] && command -v strace time >/dev/null; then
		command time -f %M -o peak "$VMDKSYNC" -q delta target
		echo "peak: $(cat peak) KiB"
		[ "$(cat peak)" -lt 65536 ]
		strace -f -qq -e signal=none -o trace "$VMDKSYNC" -q delta target
		echo "$(wc -l <trace) system calls"
		[ "$(wc -l <trace)" -lt 500 ]
	fi
}

# What scp leaves of it: nothing is a hole any more. The directory of 31 MiB is read, and of the
# 124 GiB of tables those in use.
@test "a directory without holes is read whole, tables only where they are in use" {
	requires unsanitized strace
	dir=$("$MKVMDK" sesparse delta capacity=62T alloc=0,9000000000,last print=gd)
	cp --sparse=always delta copy
	dd if=delta of=copy bs=1M skip=$((dir >> 20)) seek=$((dir >> 20)) count=31 conv=notrunc \
		status=none
	sync copy
	strace -f -qq -e signal=none -e trace=pread64 -o trace "$VMDKSYNC" --dry-run --create copy new
	bytes=$(awk -F'= ' '{ n += $NF } END { print n }' trace)
	echo "$bytes bytes read in $(wc -l <trace) calls"
	[ "$bytes" -lt $((36 << 20)) ]
}

# Each part of the file in which something lies takes a walk of its own over all tables.
@test "grains scattered over petabytes are refused, not walked over for hours" {
	huge_files
	keys=()
	for ((i = 0; i < 300; i++)); do
		# 1 TiB apart: the index counts 4 KiB
		keys+=("gte=$i:$(printf '0x3000%012x' $((i << 16)))")
	done
	"$MKVMDK" sesparse delta capacity=8000 alloc=0-299 "${keys[@]}"
	truncate -s 310T delta
	truncate -s $((8000 * 512)) target
	run -2 --separate-stderr vs delta target
	[[ $stderr == *'scattered over more than 256 parts'* ]]
	[ "$(du -k target | cut -f1)" = 0 ]
	"$MKVMDK" sesparse delta capacity=8000 alloc=0-199 "${keys[@]:0:200}"
	truncate -s 310T delta
	run -0 vs -q delta target
}
