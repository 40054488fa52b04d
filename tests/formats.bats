# SPDX-License-Identifier: MIT
# Everything that qemu-img writes as VMDK, and descriptors with their extents side by side.

load helpers

setup() {
	requires qemu-img qemu-io
	cd "$BATS_TEST_TMPDIR" || return
}

# as_qemu IMAGE: applied to a new file it is what qemu-img makes of it.
as_qemu() {
	rm -f want.raw got.raw
	qemu-img convert -f vmdk -O raw "$1" want.raw
	run -0 vs -q --create "$1" got.raw
	same want.raw got.raw
}

# disk SECTORS: disk.raw with data at both ends and in the middle, holes between.
disk() {
	"$MKVMDK" pattern part.raw 130
	rm -f disk.raw
	truncate -s $(($1 * 512)) disk.raw
	for at in 0 $(($1 / 2)) $(($1 > 130 ? $1 - 130 : 0)); do
		dd if=part.raw of=disk.raw bs=512 seek="$at" conv=notrunc status=none \
			count=$(($1 - at < 130 ? $1 - at : 130))
	done
}

subformat() {
	for sectors in 1 127 129 201 20483; do
		disk $sectors
		for options in "subformat=$1" "subformat=$1,hwversion=6"; do
			rm -f i*.vmdk
			qemu-img convert -f raw -O vmdk -o "$options" disk.raw i.vmdk
			as_qemu i.vmdk
		done
	done
}

# bats test_tags=quick
@test "qemu-img's monolithicSparse" { subformat monolithicSparse; }
@test "qemu-img's monolithicFlat" { subformat monolithicFlat; }
@test "qemu-img's twoGbMaxExtentSparse" { subformat twoGbMaxExtentSparse; }
@test "qemu-img's twoGbMaxExtentFlat" { subformat twoGbMaxExtentFlat; }
@test "qemu-img's streamOptimized" { subformat streamOptimized; }

@test "qemu-img's other options" {
	disk 20483
	for options in adapter_type=lsilogic adapter_type=buslogic adapter_type=legacyESX compat6=on \
		hwversion=21,toolsversion=2147483647 zeroed_grain=on; do
		for sub in monolithicSparse streamOptimized twoGbMaxExtentSparse; do
			rm -f i*.vmdk
			qemu-img convert -f raw -O vmdk -o "subformat=$sub,$options" disk.raw i.vmdk
			as_qemu i.vmdk
		done
	done
}

@test "qemu-img's zeroed grains" {
	for sub in monolithicSparse streamOptimized twoGbMaxExtentSparse; do
		rm -f z*.vmdk
		qemu-img create -q -f vmdk -o subformat=$sub,zeroed_grain=on z.vmdk 10487296
		qemu-io -c 'write -z 64k 128k' -c 'write -z 10420224 64k' \
			-c 'write -P 0x55 0 64k' -c 'write -P 7 1M 64k' z.vmdk
		as_qemu z.vmdk
	done
}

# bats test_tags=quick
@test "qemu-img's deltas of every kind change what they hold and no more" {
	"$MKVMDK" pattern base.raw 40001
	for sub in monolithicSparse twoGbMaxExtentSparse streamOptimized; do
		for zeroed in off on; do
			rm -f base*.vmdk delta*.vmdk
			qemu-img convert -f raw -O vmdk base.raw base.vmdk
			qemu-img create -q -f vmdk -b base.vmdk -F vmdk \
				-o subformat=$sub,zeroed_grain=$zeroed delta.vmdk
			qemu-io -c 'write -P 7 3M 64k' -c 'write -P 8 5M 64k' -c 'write -z 8M 1M' \
				-c 'write -P 9 20447232 33280' delta.vmdk
			qemu-img convert -f vmdk -O raw delta.vmdk want.raw
			cp base.raw got.raw
			run -0 vs -q delta.vmdk got.raw
			same want.raw got.raw
		done
	done
}

@test "qemu-img's deltas that convert writes" {
	"$MKVMDK" pattern base.raw 40001
	cp base.raw changed.raw
	printf 'a change' | dd of=changed.raw bs=1 seek=5000000 conv=notrunc status=none
	fallocate --punch-hole --offset 10000000 --length 900000 changed.raw
	for sub in monolithicSparse twoGbMaxExtentSparse; do
		rm -f base*.vmdk delta*.vmdk
		qemu-img convert -f raw -O vmdk base.raw base.vmdk
		qemu-img convert -f raw -O vmdk -B base.vmdk -F vmdk -o subformat=$sub \
			changed.raw delta.vmdk
		cp base.raw got.raw
		run -0 vs -q delta.vmdk got.raw
		same changed.raw got.raw
	done
}

@test "a disk beyond 2 TiB: every extent at its place" {
	for sub in monolithicSparse twoGbMaxExtentSparse monolithicFlat twoGbMaxExtentFlat \
		streamOptimized; do
		echo "--- $sub"
		rm -f big*.vmdk got.raw
		qemu-img create -q -f vmdk -o subformat=$sub big.vmdk 2050G
		qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 2147483648 64k' \
			-c 'write -P 3 2147418112 64k' -c 'write -P 4 2201170673664 64k' big.vmdk
		run -0 vs -q --create big.vmdk got.raw
		[ "$(stat -c %s got.raw)" = 2201170739200 ]
		qemu-io -f raw -c 'read -P 1 0 64k' -c 'read -P 2 2147483648 64k' \
			-c 'read -P 3 2147418112 64k' -c 'read -P 4 2201170673664 64k' \
			-c 'read -P 0 64k 64k' -c 'read -P 0 2201170608128 64k' got.raw >out
		run -1 grep -i 'verification failed' out
		[ "$(grep -c '^read 65536/65536' out)" = 6 ]
		# qemu-img writes a block of zeros into each new flat file
		[ "$(du -k got.raw | cut -f1)" -lt 8192 ]
	done
}

# forty N...: a descriptor d.vmdk over 40 extents of every kind with odd sizes, and want.raw.
forty() {
	local i n

	printf '%s\r\n' '# Disk DescriptorFile' 'VERSION=1' 'cid=3c556e8' 'parentCID=FFFFFFFF' \
		'createType="custom"' '' '# Extent description' >d.vmdk
	: >want.raw
	for i in {1..40}; do
		n=$((i * 37 % 211 + 1))
		"$MKVMDK" pattern one.raw $n "$i"
		case $((i % 5)) in
		0)
			truncate -s 0 one.raw
			truncate -s $((n * 512)) one.raw
			printf 'RW %d ZERO\r\n' $n >>d.vmdk
			;;
		1)
			{ head -c 1536 /dev/zero && cat one.raw; } >"a flat # = $i.raw"
			printf 'rdonly %d flat "a flat # = %d.raw" 3\r\n' $n "$i" >>d.vmdk
			;;
		2)
			"$MKVMDK" hosted "s$i.vmdk" capacity=$n alloc=all desc=0 seed="$i"
			printf ' RW\t%d SPARSE "s%d.vmdk" \r\n' $n "$i" >>d.vmdk
			;;
		3)
			"$MKVMDK" cowd "c$i.vmdk" capacity=$n alloc=all seed="$i"
			printf 'RW %d VMFSSPARSE "c%d.vmdk"\r\n' $n "$i" >>d.vmdk
			;;
		4)
			"$MKVMDK" sesparse "e$i.vmdk" capacity=$n alloc=all seed="$i"
			printf 'RW %d sesparse "e%d.vmdk"\r\n' $n "$i" >>d.vmdk
			;;
		esac
		cat one.raw >>want.raw
	done
}

@test "forty extents of odd sizes are right at each edge" {
	forty
	run -0 vs --create d.vmdk got.raw
	same want.raw got.raw
}

# What lies at both ends of each extent changes, and nothing else of a disk that was there before.
@test "forty extents of which only the first and the last grain are there" {
	local i n at=0 format word
	local -a formats=(hosted cowd sesparse stream) words=(SPARSE VMFSSPARSE SESPARSE SPARSE)

	"$MKVMDK" pattern base.raw 9000 77
	printf '%s\n' '# Disk DescriptorFile' version=1 CID=1 parentCID=2 'createType="custom"' \
		'parentFileNameHint="base.vmdk"' >d.vmdk
	: >want.raw
	for i in {1..40}; do
		n=$((i * 53 % 379 + 1)) format=${formats[i % 4]} word=${words[i % 4]}
		dd if=base.raw of=part bs=512 skip=$at count=$n status=none
		"$MKVMDK" "$format" "x$i.vmdk" capacity=$n alloc=0,last seed="$i" \
			cutlast=$((i & 1)) apply=part
		printf 'RW %d %s "x%d.vmdk"\n' "$n" "$word" "$i" >>d.vmdk
		cat part >>want.raw
		at=$((at + n))
	done
	tail -c +$((at * 512 + 1)) base.raw >>want.raw
	for how in '' --no-uring; do
		cp base.raw got.raw
		# shellcheck disable=SC2086 # none or one option
		run -0 vs -q $how d.vmdk got.raw
		same want.raw got.raw
	done
	# a line that is one sector off is seen at once
	sed '20s/RW \([0-9]*\)/RW 1\1/' d.vmdk >e.vmdk
	run -2 vs e.vmdk got.raw
	same want.raw got.raw
}

@test "a line that cannot be understood refuses the descriptor" {
	forty
	for line in 'RW 100 FANCY "x"' 'RW 100' 'RW 100 SPARSE' 'RW 5 SPARSE "gone.vmdk"' \
		'RW 100 VMFSRDM "x-rdm.vmdk"' 'RW 100 VSANSPARSE "vsan://x"' 'what is this'; do
		rm -f got.raw
		{ cat d.vmdk && printf '%s\n' "$line"; } >e.vmdk
		run -2 --separate-stderr vs --create e.vmdk got.raw
		[ "${#stderr_lines[@]}" = 1 ]
		[[ $stderr == vmdksync:* ]]
		[ ! -e got.raw ]
	done
}

@test "a descriptor written over a longer one; a NUL anywhere else is refused" {
	forty
	cp d.vmdk e.vmdk
	printf '\0"\r\n' >>e.vmdk
	run -2 vs --create e.vmdk got.raw
	cp d.vmdk e.vmdk
	{ printf '\0' && tail -c 5 d.vmdk; } >>e.vmdk
	run -0 vs --create e.vmdk got.raw
	same want.raw got.raw
	rm got.raw
	cp d.vmdk e.vmdk
	printf '\0\0\0' >>e.vmdk
	run -0 vs --create e.vmdk got.raw
	rm got.raw
	{ cat d.vmdk && printf '\0\nRW 5 ZERO\n'; } >e.vmdk
	run -2 vs --create e.vmdk got.raw
	[ ! -e got.raw ]
}

@test "an extent of another kind or size than its line is refused" {
	"$MKVMDK" cowd c.vmdk capacity=1000 alloc=all
	for line in 'RW 1000 SPARSE "c.vmdk"' 'RW 999 VMFSSPARSE "c.vmdk"' \
		'RW 1001 VMFSSPARSE "c.vmdk"' 'RW 100000 FLAT "c.vmdk" 0'; do
		printf '%s\n' '# Disk DescriptorFile' version=1 CID=1 parentCID=ffffffff \
			'createType="custom"' "$line" >d.vmdk
		run -2 --separate-stderr vs --create d.vmdk got.raw
		[ "${#stderr_lines[@]}" = 1 ]
		[ ! -e got.raw ]
	done
}

@test "a later extent of a split disk needs its descriptor, or --offset" {
	"$MKVMDK" pattern base.raw 3000
	cp base.raw want.raw
	cp base.raw got.raw
	"$MKVMDK" hosted disk-s002.vmdk capacity=1000 alloc=all desc=0 seed=5
	run -2 --separate-stderr vs disk-s002.vmdk got.raw
	[[ $stderr == *'extent of a split disk'* ]]
	same want.raw got.raw
	"$MKVMDK" pattern piece.raw 1000 5
	dd if=piece.raw of=want.raw bs=512 seek=1500 conv=notrunc status=none
	run -0 vs --offset 1500s disk-s002.vmdk got.raw
	same want.raw got.raw
	run -2 vs --offset 2001s disk-s002.vmdk got.raw
	same want.raw got.raw
	run -2 --separate-stderr vs --offset $(((1 << 62) - 512)) disk-s002.vmdk got.raw
	[[ $stderr == "vmdksync: disk-s002.vmdk: --offset 4611686018427387392 is too far out" ]]
	same want.raw got.raw
	descriptor disk.vmdk 1 ffffffff custom '' 'RW 1000 SPARSE "disk-s002.vmdk"'
	run -2 --separate-stderr vs --offset 1500s disk.vmdk got.raw
	[[ $stderr == 'vmdksync: disk.vmdk: a descriptor says itself where its extents belong'* ]]
	same want.raw got.raw
}

@test "a renamed file is still its own extent; --search finds what was moved" {
	disk 20483
	qemu-img convert -f raw -O vmdk disk.raw name.vmdk
	mv name.vmdk 'other name.vmdk'
	run -0 vs --create 'other name.vmdk' got.raw
	same disk.raw got.raw
	rm got.raw
	qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split.vmdk
	mkdir far
	mv split-s001.vmdk far/
	run -2 vs --create split.vmdk got.raw
	run -0 vs --search far --create split.vmdk got.raw
	same disk.raw got.raw
}

@test "an extent of the descriptor is no target" {
	disk 20483
	qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split.vmdk
	before=$(sum split-s001.vmdk)
	run -2 --separate-stderr vs split.vmdk split-s001.vmdk
	[[ $stderr == *'is one of the inputs'* ]]
	[ "$(sum split-s001.vmdk)" = "$before" ]
}
