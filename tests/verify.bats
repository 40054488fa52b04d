# SPDX-License-Identifier: MIT
# --verify and --read-back: what is equal, what is not and where exactly, and that nothing is written.

load helpers

# name, format, what mkvmdk takes
recipes() {
	cat <<-'END'
	cowd      cowd capacity=20485 alloc=runs:60:1:90 zero=runs:20:1:300 layout=random
	single    cowd capacity=40961 alloc=every:7
	hosted    hosted capacity=40965 alloc=runs:30:1:4+last zero=random:60 layout=random parentcid=1
	sesparse  sesparse capacity=40960 alloc=runs:30:1:90 zero=runs:9:1:70 unmapped=runs:9:1:70
	stream    stream capacity=40965 alloc=runs:30:1:4+last parentcid=1
	END
}

each() {
	local name words

	while read -r name words; do
		mkdir "$BATS_TEST_TMPDIR/$name"
		cd "$BATS_TEST_TMPDIR/$name" || return
		echo "--- $name: $words"
		capacity=${words#*capacity=} capacity=${capacity%% *}
		"$MKVMDK" pattern expected "$capacity" 7
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" ${words%% *} delta ${words#* } apply=expected
		"$@"
	done < <(recipes)
}

# flip FILE BYTE: changes one bit of it.
flip() {
	local old

	old=$(od -An -tu1 -j "$2" -N 1 "$1")
	# shellcheck disable=SC2059 # the format is what is written
	printf "\\x$(printf %02x $((old ^ 0x40)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

equal() {
	for options in '' --no-uring; do
		# shellcheck disable=SC2086 # none or one option
		run -0 --separate-stderr vs --verify $options delta expected
		[ -z "$output" ]
		[[ $stderr == *"expected: equal to delta: "*" % of the disk"* ]]
	done
}

# bats test_tags=quick
@test "equal: what was applied is found, in all formats" {
	each equal
}

@test "equal: a device, and one with sectors of 4096 bytes" {
	requires loop
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern expected 40960 7
	"$MKVMDK" cowd delta capacity=40960 alloc=runs:60:1:90 zero=runs:20:1:300 apply=expected
	for size in 512 4096; do
		dev=$(loopdev expected "$size")
		run -0 vs --verify delta "$dev"
		unloop "$dev"
	done
}

one_byte() {
	local before at listed

	truncate -s $((capacity * 512)) zeros
	tr '\0' '\377' <zeros >ones
	vs -q delta zeros
	vs -q delta ones
	# bytes that are the same over zeros and over ones were written
	python3 - "$capacity" <<-'END' >places
	import sys
	a, b = open('zeros', 'rb').read(), open('ones', 'rb').read()
	written = [s for s in range(int(sys.argv[1])) if a[s*512:s*512+512] == b[s*512:s*512+512]]
	left = sorted(set(range(int(sys.argv[1]))) - set(written))
	for s in written[:1] + written[len(written)//2:len(written)//2+1] + written[-1:]:
	    print('written', s*512)
	    print('written', s*512 + 511)
	for s in left[:1] + left[-1:]:
	    print('left', s*512)
	END
	while read -r kind at; do
		cp expected target
		flip target "$at"
		before=$(sum target)
		if [ "$kind" = left ]; then
			run -0 vs --verify delta target
		else
			run -1 --separate-stderr vs --verify delta target
			[[ $output == "target: bytes $at to $at differ (1 from sector $((at / 512)) on); expected: "* ]]
			listed=${output#*expected: }
			[ "$listed" = delta ] || [ "$listed" = 'zeros of delta' ]
			[[ $stderr == *"target: DIFFERENT from delta: 1 range, 1 byte" ]]
			run -1 vs --verify --no-uring delta target
		fi
		[ "$(sum target)" = "$before" ]
	done <places
	[ "$(wc -l <places)" -ge 6 ]
}

# bats test_tags=quick
@test "different: one byte, wherever it is; what the delta does not hold is not looked at" {
	requires python3
	each one_byte
}

@test "different: ranges are in order, apart from each other, and counted" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern expected 40960 7
	"$MKVMDK" cowd delta capacity=40960 alloc=all layout=random apply=expected
	cp expected target
	for at in 20000000 5 3000000 3000400 9000000 9000600; do
		flip target "$at"
	done
	dd if=/dev/urandom of=target bs=512 seek=2000 count=3000 conv=notrunc status=none
	run -1 --separate-stderr vs --verify delta target
	[ "${lines[0]}" = "target: bytes 5 to 5 differ (1 from sector 0 on); expected: delta" ]
	# random bytes are equal by chance here and there, at the ends too
	[[ ${lines[1]} =~ ^"target: bytes 10240"[0-2][0-9]" to 25599"[0-9][0-9]" differ (153"[56][0-9]+" from sector 2000 on); expected: delta"$ ]]
	[ "${lines[2]}" = "target: bytes 3000000 to 3000400 differ (401 from sector 5859 on); expected: delta" ]
	[ "${lines[3]}" = "target: bytes 9000000 to 9000000 differ (1 from sector 17578 on); expected: delta" ]
	[ "${lines[4]}" = "target: bytes 9000600 to 9000600 differ (1 from sector 17579 on); expected: delta" ]
	[ "${lines[5]}" = "target: bytes 20000000 to 20000000 differ (1 from sector 39062 on); expected: delta" ]
	[ "${#lines[@]}" -eq 6 ]
	[[ $stderr == *": 6 ranges, 1.5 MiB"* ]]
	run -1 --separate-stderr vs --verify --max-ranges=2 delta target
	[ "${#lines[@]}" -eq 3 ]
	[ "${lines[2]}" = "target: and 4 more ranges" ]
	run -1 --separate-stderr vs --verify --max-ranges=0 delta target
	[ "${#lines[@]}" -eq 1 ]
}

@test "different: hundreds of thousands of ranges, in bounded memory" {
	requires /usr/bin/time unsanitized
	cd "$BATS_TEST_TMPDIR"
	# every second sector is one that is not looked at, and two ranges are never one
	"$MKVMDK" cowd delta capacity=1400000 alloc=every:2
	truncate -s $((1400000 * 512)) target
	run -1 --separate-stderr /usr/bin/time -f 'kbytes %M' "$VMDKSYNC" --verify --max-ranges=1 delta target
	[[ $stderr == *" ranges, 342 MiB (358400000 bytes)"* ]] || [[ $stderr == *"more than "*" ranges"* ]]
	[[ ${lines[0]} == "target: bytes "[0-9]" to 511 differ"* ]]
	[ "${stderr##*kbytes }" -lt 65536 ]
}

@test "a sparse target of 2 TiB: holes are not read" {
	requires strace
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" cowd delta capacity=2T alloc=9,5000000,4000000000 zero=runs:3:1000:90000
	truncate -s 2T target
	vs -q delta target
	run -0 strace -f -c -o calls "$VMDKSYNC" --verify --no-uring delta target
	[ "$(awk '$NF == "pread64" {print $4}' calls)" -lt 10000 ]
	flip target 2560000000
	run -1 vs --verify delta target
}

@test "the target is opened for reading only" {
	requires strace
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern target 20480 7
	"$MKVMDK" cowd delta capacity=20480 alloc=random:500
	run -1 strace -f -o calls -e trace=openat,pwrite64,pwritev,write,fallocate "$VMDKSYNC" --verify delta target
	[ "$(grep -c '"target", O_RDONLY' calls)" -ge 1 ]
	run -1 grep -E '"target".*(O_RDWR|O_WRONLY)|pwrite|fallocate' calls
}

@test "what cannot be compared: exit 2" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" cowd delta capacity=20480 alloc=random:500
	truncate -s $((20480 * 512 - 1)) short
	run -2 vs --verify delta missing
	run -2 vs --verify delta short
	[[ $output == *"short: has 10485759 bytes, the disk needs 10485760"* ]]
	run -2 vs --verify delta delta
	run -2 vs --verify --dry-run delta short
	run -2 vs --verify --create delta new
	[ ! -e new ]
}

# bats test_tags=quick
@test "--read-back: equal after an apply; onto files, sparse files and devices" {
	requires loop
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern base 40960 7
	cp base expected
	"$MKVMDK" cowd delta capacity=40960 alloc=runs:60:1:90 zero=runs:20:1:300 apply=expected
	for options in '' --no-uring; do
		cp --sparse=never base full
		truncate -s 0 sparse
		truncate -s 20M sparse
		cp base disk
		dev=$(loopdev disk 4096)
		for target in full sparse "$dev"; do
			# shellcheck disable=SC2086 # none or one option
			run -0 vs --read-back $options delta "$target"
			[[ $output == *"equal to delta"* ]]
		done
		same full expected
		unloop "$dev"
		same disk expected
	done
}

@test "--read-back: a disk that does not keep what it is given is found out" {
	requires unsanitized gcc
	cd "$BATS_TEST_TMPDIR"
	cat >liar.c <<-'END'
	#define _GNU_SOURCE
	#include <dlfcn.h>
	#include <string.h>
	#include <unistd.h>

	/* what covers byte 1000000 loses a bit there */
	ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t off)
	{
		static ssize_t (*real)(int, const void *, size_t, off64_t);

		if (!real)
			real = dlsym(RTLD_NEXT, "pwrite64");
		if (off <= 1000000 && (size_t)(1000000 - off) < n)
			((char *)buf)[1000000 - off] ^= 1;
		return real(fd, buf, n, off);
	}
	END
	gcc -shared -fPIC -o liar.so liar.c -ldl
	"$MKVMDK" pattern target 20480 7
	"$MKVMDK" cowd delta capacity=20480 alloc=all
	LD_PRELOAD=$PWD/liar.so run -1 --separate-stderr vs --read-back --no-uring delta target
	[ "$output" = "target: bytes 1000000 to 1000000 differ (1 from sector 1953 on); expected: delta" ]
	run -0 vs --read-back delta target
	# of a pipe only checksums are kept, one for 64 KiB
	LD_PRELOAD=$PWD/liar.so run -1 --separate-stderr vs --read-back --no-uring - target < <(cat delta)
	[ "$output" = "target: bytes 983040 to 1048575 differ (65536 from sector 1920 on); expected: standard input" ]
	run -0 vs --read-back - target < <(cat delta)
}

piped() {
	for options in '' --no-uring "--undo=log"; do
		"$MKVMDK" pattern target "$capacity" 7
		# shellcheck disable=SC2086 # none or one option
		run -0 vs --read-back $options - target < <(gzip -c delta)
		[[ $output == *"equal to standard input: "* ]]
		same target expected
	done
}

@test "--read-back: from a pipe, by checksum, in all formats, with an undo log too" {
	each piped
}

@test "--read-back: from a pipe, with more checksums than memory keeps" {
	cd "$BATS_TEST_TMPDIR"
	mkdir spool
	"$MKVMDK" cowd delta capacity=1200000 alloc=every:2 zero=every:7
	truncate -s $((1200000 * 512)) target
	run -0 vs -v --read-back --spool=spool - target < <(cat delta)
	[[ $output == *"equal to standard input: 335 MiB"* ]]
	[ -z "$(ls -A spool)" ]
	run -0 vs --verify delta target
}
