# SPDX-License-Identifier: MIT
# streamOptimized: compressed grains, read by the directory, by the footer, or by their markers.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

recipes() {
	cat <<-'END'
	variant=A capacity=20480 alloc=random:60
	variant=B capacity=20480 alloc=random:60 seed=2
	variant=C capacity=20480 alloc=random:60 seed=3
	variant=A capacity=20480 alloc=all layout=random
	variant=B capacity=20480 alloc=all layout=random
	variant=C capacity=20480 alloc=all layout=random
	variant=A capacity=20480 alloc=runs:9:1:20 layout=reverse
	variant=C capacity=20480 alloc=runs:9:1:20 layout=reverse
	variant=A capacity=20481 alloc=100-last lastgrain=short
	variant=B capacity=20481 alloc=100-last lastgrain=full
	variant=C capacity=20607 alloc=last lastgrain=short
	variant=C capacity=20553 alloc=0,last lastgrain=full
	variant=A capacity=1 alloc=all lastgrain=short
	variant=C capacity=1 alloc=all lastgrain=full
	variant=A capacity=300000 alloc=random:50+last progress=1 seed=5
	variant=B capacity=300000 alloc=random:50 progress=1 layout=random
	variant=C capacity=300000 alloc=random:50 rgd=1
	variant=C capacity=300000 alloc=random:50 eos=1
	variant=A capacity=40965 grain=8 alloc=random:900+last lastgrain=short
	variant=B capacity=40965 grain=16 alloc=runs:30:1:20 layout=random
	variant=C capacity=40965 grain=1 alloc=random:500
	variant=A capacity=65541 grain=4096 alloc=every:3+last layout=random
	variant=C capacity=65541 grain=2048 alloc=all gtes=512
	variant=A capacity=200000 alloc=random:20 tables=all
	variant=C capacity=200000 alloc=random:20 pad=4608
	variant=B capacity=200000 alloc=random:20 trailing=9 eos=0
	variant=A capacity=20480 alloc=0-9 left=4
	variant=C capacity=20480 alloc=none
	variant=A capacity=20480 alloc=none
	END
}

# made KEYS...: s.vmdk, and in expected what it means on zeros.
made() {
	local word sectors

	for word; do
		case $word in
		capacity=*) sectors=${word#*=} ;;
		esac
	done
	rm -f s.vmdk expected t.raw
	truncate -s $((sectors * 512)) expected
	"$MKVMDK" stream s.vmdk "$@" apply=expected
}

# right OPTIONS...: s.vmdk on a new file is as expected.
right() {
	rm -f t.raw
	vs -q "$@" --create s.vmdk t.raw
	same expected t.raw
}

# bats test_tags=slow
@test "the model says what qemu-img says, and we do" {
	requires qemu-img
	n=0
	while read -r -a keys; do
		echo "--- ${keys[*]}"
		made "${keys[@]}"
		qemu-img convert -f vmdk -O raw s.vmdk theirs
		same theirs expected
		right
		right --no-uring
		n=$((n + 1))
	done < <(recipes)
	[ "$n" -ge 20 ]
}

@test "only allocated grains are written" {
	made variant=A capacity=20481 alloc=0,3,9-12,last lastgrain=short
	"$MKVMDK" pattern t.raw 20481 99
	cp t.raw expected
	"$MKVMDK" stream s.vmdk variant=A capacity=20481 alloc=0,3,9-12,last lastgrain=short \
		apply=expected
	vs -q s.vmdk t.raw
	same expected t.raw
}

@test "what qemu-img compresses, of odd sizes" {
	requires qemu-img
	for size in 512 1024 37376 102912 65536 66048 10487296 33554432; do
		echo "--- $size"
		rm -f raw
		"$MKVMDK" pattern raw $((size / 512)) 5
		# data that packs well, and none
		yes 'a line of text' | dd of=raw conv=notrunc bs=512 count=$((size / 2048)) \
			iflag=fullblock status=none
		fallocate --punch-hole --offset $((size / 2)) --length $((size / 8)) raw
		qemu-img convert -f raw -O vmdk -o subformat=streamOptimized raw q.vmdk
		rm -f t.raw
		vs -q --create q.vmdk t.raw
		same raw t.raw
		rm q.vmdk
	done
}

@test "bytes of zeros, packed by hand" {
	requires qemu-img
	made variant=A capacity=4096 alloc=0-7 flate=3
	qemu-img convert -f vmdk -O raw s.vmdk expected
	right
}

@test "without a usable footer the markers lead" {
	for damage in poke=footer:4:0 poke=footer+4:4:1 poke=footer+8:4:0x30003 poke=footer+12:8:7 \
		poke=footer+20:8:64 poke=footer+44:4:256 poke=footer+56:8:0 poke=footer+77:2:0 \
		poke=footer-500:4:4; do
		echo "--- $damage"
		made variant=A capacity=70001 alloc=random:80+last layout=random progress=1 \
			lastgrain=short "$damage"
		run -2 --separate-stderr vs --create s.vmdk t.raw
		[[ $stderr == *'no usable footer'*--force=accounts* ]]
		[ ! -e t.raw ]
		run -0 --separate-stderr vs --force=accounts --create s.vmdk t.raw
		[[ $stderr == *'no usable footer'*'1 warning'* ]]
		same expected t.raw
		right --no-uring --force=accounts
		rm t.raw
		run -2 vs --strict --force=accounts --create s.vmdk t.raw
		[ ! -e t.raw ]
	done
}

@test "a header that is odd brings its warnings where the markers lead, too" {
	made variant=A capacity=20480 alloc=random:60 unclean=1 poke=footer:4:0
	run -0 --separate-stderr vs --force=accounts --create s.vmdk t.raw
	[[ $stderr == *'unclean-shutdown flag'* ]]
	same expected t.raw
	made variant=A capacity=20480 grain=256 gtes=256 alloc=random:40 poke=footer:4:0
	run -0 --separate-stderr vs --force=accounts --create s.vmdk t2.raw
	[[ $stderr == *'grain size is 256 sectors'* ]]
	[[ $stderr == *'256 entries a grain table'* ]]
	same expected t2.raw
}

@test "zeros behind the end marker: 64 KiB of them keep the footer" {
	made variant=A capacity=20480 alloc=random:60 trailing=128
	run -0 --separate-stderr vs --create s.vmdk t.raw
	[[ $stderr != *'no usable footer'* ]]
	same expected t.raw
	made variant=A capacity=20480 alloc=random:60 trailing=129
	run -2 --separate-stderr vs --create s.vmdk t.raw
	[[ $stderr == *'no usable footer'* ]]
	run -0 vs --force=accounts --create s.vmdk t.raw
	same expected t.raw
	made variant=B capacity=20480 alloc=random:60 desc=0
	right --strict
	made variant=A capacity=20480 alloc=random:60 pad=100
	right --strict
}

@test "data behind the end marker is ignored only where that is asked for" {
	made variant=A capacity=20480 alloc=random:60 trailing=4 poke=eof-512:4:0x4b4b4b4b
	run -2 --separate-stderr vs --create s.vmdk t.raw
	[[ $stderr == *'no usable footer'* ]]
	made variant=B capacity=20480 alloc=random:60 trailing=4 poke=eof-512:4:0x4b4b4b4b
	run -2 --separate-stderr vs --create s.vmdk t.raw
	[[ $stderr == *'behind the end marker'* ]]
	run -0 --separate-stderr vs --force=accounts --create s.vmdk t.raw
	[[ $stderr == *'behind the end marker'* ]]
	same expected t.raw
}

# A file of 16 TiB less a block is the longest of ext4, and nearly all of it is a hole.
@test "a hole behind the end marker is not gone through" {
	made variant=A capacity=20480 alloc=random:60
	truncate -s $(((16 << 40) - 4096)) s.vmdk || skip 'no files of 16 TiB here'
	run -0 --separate-stderr vs -q --force=accounts --create s.vmdk t.raw
	same expected t.raw
	# the first data is the first look: not one for each stretch of the hole
	printf X | dd of=s.vmdk bs=1 seek=$((15 << 40)) conv=notrunc status=none
	rm t.raw
	run -0 --separate-stderr vs --force=accounts --create s.vmdk t.raw
	[[ $stderr == *'behind the end marker'* ]]
	same expected t.raw
}

@test "bytes behind the data of a grain: a warning" {
	made variant=C capacity=20480 alloc=0-9 left=4
	run -0 --separate-stderr vs --create s.vmdk t.raw
	[[ $stderr == *'grain 4 '*'5 bytes behind'* ]]
	same expected t.raw
}

# found KEYS...: refused from headers, tables and markers, before the first write.
found() {
	echo "--- found: $*"
	rm -f s.vmdk
	"$MKVMDK" stream s.vmdk capacity=70001 "$@" >/dev/null
	rm -f t.raw
	truncate -s $((70001 * 512)) t.raw
	run -2 --separate-stderr vs "${force[@]}" s.vmdk t.raw
	[ -n "$stderr" ]
	[ "$(stat -c %b t.raw)" = 0 ]
	count=$((count + 1))
}

@test "damage that tables and markers show is found before the first write" {
	count=0
	for v in A B C; do
		c=("variant=$v" "alloc=random:40+7,9,last")
		found "${c[@]}" poke=grain:7:8:0
		found "${c[@]}" poke=grain:7:8:897
		found "${c[@]}" poke=grain:7+4:4:1
		found "${c[@]}" poke=grain:7+8:4:0
		found "${c[@]}" poke=grain:7+8:4:66113
		found "${c[@]}" poke=grain:7+8:4:0xffffffff
		found "${c[@]}" gte=7:grain:9
		found "${c[@]}" gte=7:eof
		found "${c[@]}" gte=7:eof+1
		found "${c[@]}" gte=7:0xffffffff
		found "${c[@]}" gte=7:gt:0
		found "${c[@]}" gte=7:1
		found "${c[@]}" gte=8:grain:9
		found "${c[@]}" gde=0:eof
		found "${c[@]}" gde=0:1
		found "${c[@]}" gde=0:gd
		found "${c[@]}" hdr=flags:0x10001
		found "${c[@]}" hdr=flags:0x20001
		found "${c[@]}" hdr=flags:0x70001
		found "${c[@]}" hdr=compress:0
		found "${c[@]}" hdr=compress:2
		found "${c[@]}" hdr=grain:0
		found "${c[@]}" hdr=overhead:0
		found "${c[@]}" hdr=overhead:eof+1
		found "${c[@]}" hdr=capacity:0
	done
	[ "$count" -ge 15 ]
}

@test "what a cut file lacks is found before the first write" {
	c=(variant=A "alloc=random:40+7,9,last")
	found "${c[@]}" eos=0
	found "${c[@]}" cut=eos
	found "${c[@]}" cut=footer
	found "${c[@]}" cut=footer-512
	found "${c[@]}" cut=gd
	found "${c[@]}" cut=gt:0
	found "${c[@]}" cut=grainend:last
	found "${c[@]}" cut=grainend:last-512
	found "${c[@]}" cut=grain:7+11
	found "${c[@]}" cut=grain:7+12
	found "${c[@]}" cut=grain:7
	found "${c[@]}" cut=65536
	found "${c[@]}" cut=1024
	found "${c[@]}" cut=512
	found variant=B alloc=random:40+last cut=gd
	found variant=C alloc=random:40+last cut=grainend:last-512
}

@test "broken markers are found before the first write where they lead" {
	force=(--force=accounts)
	c=(variant=A "alloc=random:40+7,9,last" progress=1 poke=footer:4:0)
	found "${c[@]}" poke=grain:7:8:1152
	[[ $stderr == *'there twice'* ]]
	found "${c[@]}" poke=grain:7:8:897
	found "${c[@]}" poke=grain:7:8:70016
	found "${c[@]}" poke=grain:7:8:0xffffffffffffff80
	found "${c[@]}" poke=grain:7+8:4:66113
	found "${c[@]}" poke=grain:last+8:4:66113
	found "${c[@]}" poke=gt:0-512:8:3
	found "${c[@]}" poke=gt:0-500:4:5
	found "${c[@]}" poke=gt:0-512:8:0xffffffffffffffff
	found "${c[@]}" poke=gd-512:8:2
	found "${c[@]}" poke=footer-512:8:0
	found "${c[@]}" poke=footer-512:8:3
	found "${c[@]}" poke=eos:8:1
	found "${c[@]}" poke=gt:0-500:4:4 poke=gt:0-512:8:65537
	found "${c[@]}" poke=gt:0-500:4:4 poke=gt:0-512:8:60000
}

# spoilt KEYS...: what only unpacking shows. Never 0, and nothing of that grain is written.
spoilt() {
	echo "--- spoilt: $*"
	rm -f s.vmdk t.raw
	"$MKVMDK" stream s.vmdk capacity=20481 "$@"
	truncate -s $((20481 * 512)) t.raw
	run --separate-stderr vs s.vmdk t.raw
	[ "$status" = 2 ] || [ "$status" = 3 ]
	[[ $stderr == *'grain '* ]]
	if [ "$status" = 2 ]; then
		[ "$(stat -c %b t.raw)" = 0 ]
	fi
	run cmp -n 65536 --ignore-initial=$((7 * 65536)) t.raw /dev/zero
	[ "$status" = 0 ]
}

@test "damage that only unpacking shows" {
	for v in A B C; do
		for alloc in 7 all; do
			c=("variant=$v" "alloc=$alloc")
			spoilt "${c[@]}" poke=grain:7+12:1:0
			spoilt "${c[@]}" poke=grain:7+14:1:7
			spoilt "${c[@]}" poke=grain:7+15:1:3
			spoilt "${c[@]}" poke=grain:7+30:8:0
			spoilt "${c[@]}" poke=grain:7+8:4:1
			spoilt "${c[@]}" poke=grain:7+8:4:65551
			spoilt "${c[@]}" bomb=7
			spoilt "${c[@]}" over=7
			spoilt "${c[@]}" short=7
			spoilt "${c[@]}" noend=7
		done
		spoilt "variant=$v" alloc=last short=160 lastgrain=short
		spoilt "variant=$v" alloc=last over=160 lastgrain=full
	done
	spoilt variant=A alloc=7 over=7 poke=footer:4:0
}
