# SPDX-License-Identifier: MIT
# Chains of every depth in every mix of formats, against qemu-img and against the model that mkvmdk
# keeps; and the families of disks that people have, with the descriptors as VMware wrote them.

load helpers

setup() {
	requires qemu-img jq
	cd "$BATS_TEST_TMPDIR" || return
}

size=8200
bases=(monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized vmfs
	vmfsSparse seSparse)
deltas=(monolithicSparse twoGbMaxExtentSparse streamOptimized vmfsSparse seSparse)

# split: cuts want.raw in two, at sector 4100, and joins it again with what was done to the parts.
split_want() {
	head -c $((4100 * 512)) want.raw >a.raw
	tail -c +$((4100 * 512 + 1)) want.raw >b.raw
}

# layer I KIND PARENT: makes lI.vmdk, whose parent is PARENT with $cid; does to want.raw what it means,
# and leaves its own CID in $cid.
layer() {
	local i=$1 kind=$2 hint=$3 f=l$1 mine spec line

	mine=$(printf '%08x' $((RANDOM * 32768 + RANDOM + 1)))
	spec=(alloc=runs:$((RANDOM % 6 + 1)):1:$((RANDOM % 5 + 1)) seed="$((i + 1))")
	case $kind in
	monolithicSparse | streamOptimized)
		[ -z "$hint" ] || spec+=(parent="$hint")
		if [ "$kind" = streamOptimized ]; then
			spec=(stream "$f.vmdk" "${spec[@]}")
		else
			spec=(hosted "$f.vmdk" "${spec[@]}" grain=$((8 << RANDOM % 5)) zero=random:3
				version=2 flags=5)
		fi
		"$MKVMDK" "${spec[@]}" capacity=$size parentcid="$cid" apply=want.raw
		mine=aabbccdd
		;;
	twoGbMaxExtentSparse)
		split_want
		"$MKVMDK" hosted "$f-s001.vmdk" "${spec[@]}" capacity=4100 grain=16 desc=0 apply=a.raw
		"$MKVMDK" hosted "$f-s002.vmdk" "${spec[@]}" capacity=4100 grain=8 desc=0 apply=b.raw
		cat a.raw b.raw >want.raw
		descriptor "$f.vmdk" "$mine" "$cid" "$kind" "$hint" "RW 4100 SPARSE \"$f-s001.vmdk\"" \
			"RW 4100 SPARSE \"$f-s002.vmdk\""
		;;
	vmfsSparse)
		"$MKVMDK" cowd "$f-delta.vmdk" "${spec[@]}" zero=random:5 capacity=$size apply=want.raw
		descriptor "$f.vmdk" "$mine" "$cid" "$kind" "$hint" "RW $size VMFSSPARSE \"$f-delta.vmdk\""
		;;
	seSparse)
		"$MKVMDK" sesparse "$f-sesparse.vmdk" "${spec[@]}" zero=random:5 unmapped=random:5 \
			capacity=$size apply=want.raw
		descriptor "$f.vmdk" "$mine" "$cid" "$kind" "$hint" "RW $size SESPARSE \"$f-sesparse.vmdk\""
		;;
	monolithicFlat | vmfs)
		"$MKVMDK" pattern want.raw $size "$RANDOM"
		dd if=/dev/zero of=want.raw bs=512 seek=300 count=200 conv=notrunc status=none
		cp --sparse=always want.raw "$f-flat.vmdk"
		if [ "$kind" = vmfs ]; then
			line="RW $size VMFS \"$f-flat.vmdk\""
		else
			line="RW $size FLAT \"$f-flat.vmdk\" 0"
		fi
		descriptor "$f.vmdk" "$mine" "$cid" "$kind" '' "$line"
		;;
	twoGbMaxExtentFlat)
		"$MKVMDK" pattern want.raw $size "$RANDOM"
		split_want
		mv a.raw "$f-f001.vmdk"
		mv b.raw "$f-f002.vmdk"
		descriptor "$f.vmdk" "$mine" "$cid" "$kind" '' "RW 4100 FLAT \"$f-f001.vmdk\" 0" \
			"RW 4100 FLAT \"$f-f002.vmdk\" 0"
		;;
	esac
	cid=$mine
}

# flip BYTE...: changes one bit of each of these bytes of got.raw.
flip() {
	local at byte

	for at; do
		byte=$(od -An -tu1 -j "$at" -N 1 got.raw)
		# shellcheck disable=SC2059 # an escape
		printf "\\x$(printf %x $((byte ^ 0x10)))" | dd of=got.raw bs=1 seek="$at" conv=notrunc status=none
	done
}

# places: of each layer, of what no layer holds, and of the end of the disk one byte:
# where, and what verify says of it.
places() {
	vs -q --map --json "$1" | jq -r '.map | def line(at): "\(at)\t" + (
			if .layer == null then "zeros" elif .zero then "zeros of \(.layer)" else .layer end);
		([group_by([.depth, .zero])[] | .[length / 2 | floor] | {at: (.start + .length - 1), r: .}] +
		 [.[0], .[-1] | {at: (if .start == 0 then 0 else .start + .length - 1 end), r: .}]) |
		unique_by(.at)[] | .at as $at | .r | line($at)'
}

chain_of_depth() {
	local depth=$1 i top before='' at expected

	RANDOM=$((depth * 77 + $2))
	rm -rf ./*
	truncate -s $((size * 512)) want.raw
	cid=ffffffff
	layer 0 "${bases[(depth + $2) % 8]}" ''
	cp want.raw base.raw
	for ((i = 1; i < depth; i++)); do
		before=l$((i - 1)).vmdk
		layer $i "${deltas[RANDOM % 5]}" "$before"
	done
	top=l$((depth - 1)).vmdk
	qemu-img convert -f vmdk -O raw "$top" qemu.raw
	same want.raw qemu.raw
	if [ "$depth" -gt 1 ]; then
		cp base.raw got.raw
		vs -q --chain "$top" got.raw
		same want.raw got.raw
		run -0 vs --verify "$top" got.raw
		rm got.raw
	fi
	vs -q --full --create "$top" got.raw
	same want.raw got.raw
	run -0 --separate-stderr vs --verify "$top" got.raw
	[[ $stderr == *'100.0 % of the disk'* ]]

	places "$top" >list
	[ "$(wc -l <list)" -ge 2 ]
	# shellcheck disable=SC2046 # numbers
	flip $(cut -f1 list)
	run -1 --separate-stderr vs -q --verify --max-ranges=1000 "$top" got.raw
	awk -F '\t' '{ printf "got.raw: bytes %d to %d differ (1 from sector %d on); expected: %s\n", $1, $1,
		int($1 / 512), $2 }' list | diff - <(echo "$output")
	# shellcheck disable=SC2046 # numbers
	flip $(cut -f1 list)
	case $depth in
	1 | 2 | 5 | 32)
		while IFS=$'\t' read -r at expected; do
			flip "$at"
			run -1 --separate-stderr vs -q --verify "$top" got.raw
			[ "$output" = "got.raw: bytes $at to $at differ (1 from sector $((at / 512)) on); expected: $expected" ]
			flip "$at"
		done <list
		;;
	esac
	same want.raw got.raw
}

chains() {
	local depth

	for depth; do
		echo "--- depth $depth"
		chain_of_depth "$depth" 0
	done
}

@test "chains of depth 1, 3, 5 ... 31 in mixed formats: --full, --chain, --verify" {
	if [ "$FLAVOUR" = plain ]; then chains {1..31..2}; else chains 1 3 5 13; fi
}

@test "chains of depth 2, 4, 6 ... 32 in mixed formats: --full, --chain, --verify" {
	if [ "$FLAVOUR" = plain ]; then chains {2..32..2}; else chains 2 32; fi
}

@test "every format on top of every format" {
	RANDOM=4
	for ((b = 0; b < 8; b++)); do
		for delta in "${deltas[@]}"; do
			[ "$FLAVOUR" = plain ] || ((RANDOM % 4 == 0)) || continue
			echo "--- $delta on ${bases[b]}"
			rm -rf ./*
			truncate -s $((size * 512)) want.raw
			cid=ffffffff
			layer 0 "${bases[b]}" ''
			layer 1 "$delta" l0.vmdk
			qemu-img convert -f vmdk -O raw l1.vmdk qemu.raw
			same want.raw qemu.raw
			vs -q --full --create l1.vmdk got.raw
			same want.raw got.raw
			vs -q --verify l1.vmdk got.raw
		done
	done
}

@test "chains that qemu-img wrote" {
	requires qemu-io
	"$MKVMDK" pattern base.raw 20483
	for base in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized; do
		rm -f [bd]*.vmdk got.raw
		qemu-img convert -f raw -O vmdk -o subformat=$base base.raw b.vmdk
		qemu-img create -q -f vmdk -b b.vmdk -F vmdk -o subformat=monolithicSparse d1.vmdk
		qemu-io -c 'write -P 1 0 100k' -c 'write -P 2 10420224 65536' d1.vmdk >/dev/null
		qemu-img create -q -f vmdk -b d1.vmdk -F vmdk -o subformat=twoGbMaxExtentSparse d2.vmdk
		qemu-io -c 'write -P 3 50k 100k' d2.vmdk >/dev/null
		qemu-img create -q -f vmdk -b d2.vmdk -F vmdk -o zeroed_grain=on d3.vmdk
		qemu-io -c 'write -z 64k 64k' -c 'write -P 4 4M 1k' d3.vmdk >/dev/null
		qemu-img convert -f vmdk -O raw d3.vmdk want.raw
		run -0 vs --full --create d3.vmdk got.raw
		same want.raw got.raw
		run -0 vs --verify d3.vmdk got.raw
		cp base.raw got.raw
		run -0 vs --chain d3.vmdk got.raw
		same want.raw got.raw
		# written to after it had a child
		qemu-io -c 'write -P 5 1M 1k' d1.vmdk >/dev/null
		run -2 --separate-stderr vs --verify d3.vmdk got.raw
		[[ $stderr == *'d2.vmdk: its parent has CID '*', but d1.vmdk has CID '* ]]
		run -0 vs -q --force=cid --full d3.vmdk got.raw
	done
}

# onto TOP OPTION...: a copy of the base, $base, becomes what TOP is by --chain; a new disk by --full;
# both are verified, and are what qemu-img reads from $same.
onto() {
	local top=$1

	shift
	rm -f got.raw
	vs -q --full --create "$@" "$top" got.raw
	qemu-img compare -f raw -F "${same#*:}" got.raw "${same%:*}"
	run -0 --separate-stderr vs --verify "$@" "$top" got.raw
	[[ $stderr == *'100.0 % of the disk'* ]]
	rm -f got.raw
	cp --sparse=always base.raw got.raw
	vs -q --chain "$@" "$top" got.raw
	qemu-img compare -f raw -F "${same#*:}" got.raw "${same%:*}"
	vs -q --verify "$@" "$top" got.raw
}

@test "a base and clones in folders of their own, whose hint is a Windows path" {
	local hint='E:\obsd\basedisk\1gscsi.vmdk'
	mkdir basedisk clone1 clone2
	truncate -s 1G base.raw
	"$MKVMDK" hosted basedisk/1gscsi-s001.vmdk capacity=2097152 alloc=runs:30:1:5+last desc=0 seed=1 \
		apply=base.raw
	# as VMware Workstation wrote it, with DOS line ends
	vmware() { # FILE CID PARENTCID HINT EXTENT
		{
			printf '%s\r\n' '# Disk DescriptorFile' version=1 "CID=$2" "parentCID=$3" \
				'createType="twoGbMaxExtentSparse"'
			[ -z "$4" ] || printf 'parentFileNameHint="%s"\r\n' "$4"
			printf '%s\r\n' '' '# Extent description' "RW 2097152 SPARSE \"$5\"" '' \
				'# The Disk Data Base ' '#DDB' ''
			[ -n "$4" ] || printf '%s\r\n' 'ddb.adapterType = "lsilogic"' \
				'ddb.geometry.sectors = "63"' 'ddb.geometry.heads = "255"' \
				'ddb.geometry.cylinders = "130"' 'ddb.virtualHWVersion = "3"' \
				'ddb.toolsVersion = "0"'
		} >"$1"
	}
	vmware basedisk/1gscsi.vmdk 43cc0ceb ffffffff '' 1gscsi-s001.vmdk

	for who in 1 2; do
		cp --sparse=always base.raw clone$who.raw
		"$MKVMDK" hosted clone$who/clone$who-s001.vmdk capacity=2097152 alloc=runs:9:1:5 desc=0 \
			seed=$((who + 1)) apply=clone$who.raw
		vmware clone$who/clone$who.vmdk 43cc0ceb 43cc0ceb "$hint" clone$who-s001.vmdk
		run -2 --separate-stderr vs --full --create clone$who/clone$who.vmdk got.raw
		[[ $stderr == *"clone$who/clone$who.vmdk: its parent (CID 43cc0ceb) is not there: E:"* ]]
		same=clone$who.raw:raw
		onto clone$who/clone$who.vmdk --search basedisk
	done

	# the undo log of the running machine
	cp --sparse=always clone1.raw redo.raw
	"$MKVMDK" hosted clone1/clone1-s001.vmdk.REDO_a03320 capacity=2097152 alloc=runs:9:1:5 desc=0 \
		seed=9 apply=redo.raw
	vmware clone1/clone1.vmdk.REDO_a03320 43cc0ceb 43cc0ceb clone1.vmdk clone1-s001.vmdk.REDO_a03320
	same=redo.raw:raw
	onto clone1/clone1.vmdk.REDO_a03320 --search basedisk

	vs --info --json --search basedisk clone1/clone1.vmdk clone2/clone2.vmdk |
		jq -e '.families | length == 1 and (.[0] | .machines == 2 and .base == "basedisk/1gscsi.vmdk" and
		.provisioned == 2147483648 and .thin > .linked and .saved == .thin - .linked)'
}

@test "a base of eleven read-only extents in another folder" {
	local i n name

	mkdir '8.10 Core' '8.10 Snap'
	lines=() snap=()
	for i in {1..11}; do
		n=4192256
		[ "$i" -lt 11 ] || n=20480
		name=$(printf 's%03d.vmdk' "$i")
		"$MKVMDK" hosted "8.10 Core/8.10 Core-$name" capacity=$n alloc=0,last+runs:3:1:4 desc=0 seed="$i"
		"$MKVMDK" hosted "8.10 Snap/8.10 Core-000001-$name" capacity=$n alloc=0,last desc=0 \
			seed=$((i + 20))
		lines+=("RDONLY $n SPARSE \"../8.10 Core/8.10 Core-$name\"")
		snap+=("RW $n SPARSE \"8.10 Core-000001-$name\"")
	done
	chmod 444 '8.10 Core'/*
	descriptor '8.10 Snap/8.10 Core.vmdk' 5a2f1c07 ffffffff twoGbMaxExtentSparse '' "${lines[@]}"
	descriptor '8.10 Snap/8.10 Core-000001.vmdk' b2d1f0aa 5a2f1c07 twoGbMaxExtentSparse '8.10 Core.vmdk' \
		"${snap[@]}"
	# qemu-img leaves out what it need not write to
	mkdir q
	cp -r '8.10 Core' q/
	cp -r '8.10 Snap' q/
	sed -i 's/^RDONLY/RW/' 'q/8.10 Snap/8.10 Core.vmdk'
	[ "$(qemu-img info --output=json 'q/8.10 Snap/8.10 Core.vmdk' | jq '."virtual-size"')" = 21474836480 ]
	vs -q --full --create '8.10 Snap/8.10 Core.vmdk' base.raw
	qemu-img compare -f raw -F vmdk base.raw 'q/8.10 Snap/8.10 Core.vmdk'
	same='q/8.10 Snap/8.10 Core-000001.vmdk:vmdk'
	onto '8.10 Snap/8.10 Core-000001.vmdk'
	[ "$(du -m got.raw | cut -f1)" -lt 100 ]
	run -2 --separate-stderr vs --verify --confine '8.10 Snap/8.10 Core-000001.vmdk' got.raw
	[[ $stderr == *outside* ]]
	# beside the descriptor they need no way out
	mv '8.10 Core'/* '8.10 Snap/'
	run -0 vs -q --verify --confine '8.10 Snap/8.10 Core-000001.vmdk' got.raw
}

@test "three parents with twenty-five clones each: what 75 machines cost" {
	local p i last=(64716 45874 45874) gib=(11 8 8) machines=()

	# in GiB the parents hold 3.95, 2.8 and 2.8, each clone 0.13
	for p in 0 1 2; do
		mkdir "p$p"
		"$MKVMDK" hosted "p$p/base-s001.vmdk" capacity=$((gib[p] * 2097152)) alloc="0-${last[p]}" desc=0 \
			holes=1
		descriptor "p$p/base.vmdk" 0000000$p ffffffff twoGbMaxExtentSparse '' \
			"RW $((gib[p] * 2097152)) SPARSE \"base-s001.vmdk\""
		for i in {1..25}; do
			mkdir "p$p/clone$i"
			"$MKVMDK" hosted "p$p/clone$i/clone-s001.vmdk" capacity=$((gib[p] * 2097152)) \
				alloc=$((i * 99))-$((i * 99 + 2129)) desc=0 holes=1
			descriptor "p$p/clone$i/clone.vmdk" 1000000$p 0000000$p twoGbMaxExtentSparse \
				"../base.vmdk" "RW $((gib[p] * 2097152)) SPARSE \"clone-s001.vmdk\""
			machines+=("p$p/clone$i/clone.vmdk")
		done
	done
	# a parent is no machine
	run -0 vs --info p0/base.vmdk "${machines[@]}"
	[ "$(grep -cE '^p[012]/.*: (8|11)\.0 GiB .*, holds ' <<<"$output")" = 76 ]
	[[ ${lines[-5]} =~ ^"base, in GiB "*"  machines  provisioned         thin  shared base   own deltas       linked        saved"$ ]]
	[[ ${lines[-4]} =~ p0/clone1/../base.vmdk\ +25\ +275.00\ +98.75\ +3.95\ +3.25\ +7.20\ +91.55$ ]]
	[[ ${lines[-3]} =~ p1/clone1/../base.vmdk\ +25\ +200.00\ +70.00\ +2.80\ +3.25\ +6.05\ +63.95$ ]]
	[[ ${lines[-1]} =~ ^all\ +75\ +675.00\ +238.75\ +9.55\ +9.75\ +19.30\ +219.45$ ]]
	vs --info --json "${machines[@]}" | jq -e '[.families[].machines] == [25, 25, 25] and
		([.families[].provisioned] | add) == 675 * 1073741824 and
		([.families[].linked] | add) == (64717 + 2 * 45875 + 75 * 2130) * 65536'

	# with data, but little of them, one of each family
	for p in 0 1 2; do
		rm p$p/base-s001.vmdk p$p/clone7/clone-s001.vmdk
		truncate -s "${gib[p]}G" base.raw
		"$MKVMDK" hosted "p$p/base-s001.vmdk" capacity=$((gib[p] * 2097152)) alloc=runs:20:1:4 desc=0 \
			seed=$p apply=base.raw
		cp --sparse=always base.raw want.raw
		"$MKVMDK" hosted "p$p/clone7/clone-s001.vmdk" capacity=$((gib[p] * 2097152)) \
			alloc=runs:20:1:4 desc=0 seed=$((p + 5)) apply=want.raw
		same=want.raw:raw
		onto p$p/clone7/clone.vmdk
		rm base.raw want.raw got.raw
	done
}

@test "an ESX base and two deltas" {
	local i

	truncate -s 8G host-flat.vmdk
	"$MKVMDK" hosted some.vmdk capacity=16777216 alloc=runs:20:1:9+last apply=host-flat.vmdk
	cp --sparse=always host-flat.vmdk base.raw
	cp --sparse=always host-flat.vmdk want.raw
	descriptor host.vmdk fffffffe ffffffff vmfs '' 'RW 16777216 VMFS "host-flat.vmdk"'
	for i in 1 2; do
		"$MKVMDK" cowd host-00000$i-delta.vmdk capacity=16777216 alloc=runs:50:1:9+last seed=$i \
			apply=want.raw
		descriptor host-00000$i.vmdk fffffffe fffffffe vmfsSparse \
			"$([ $i = 1 ] && echo host.vmdk || echo host-000001.vmdk)" \
			"RW 16777216 VMFSSPARSE \"host-00000$i-delta.vmdk\""
	done
	# not qemu-img's reading: it asks for each sector of a COWD file
	same=want.raw:raw
	onto host-000002.vmdk
	rm got.raw
	cp --sparse=always base.raw got.raw
	vs -q host-00000[12]-delta.vmdk got.raw
	qemu-img compare -f raw -F raw got.raw want.raw
}

@test "a sector that three layers hold is written once" {
	requires strace python3
	esx_chain 20480 0
	before=host.vmdk
	for i in 1 2 3; do
		"$MKVMDK" cowd d$i-delta.vmdk capacity=20480 alloc=$((100 + i * 20))-$((700 - i * 20)),5000 seed=$i \
			apply=host-0.raw
		descriptor d$i.vmdk 1000000$i 1000000$((i - 1)) vmfsSparse $before \
			"RW 20480 VMFSSPARSE \"d$i-delta.vmdk\""
		before=d$i.vmdk
	done
	for what in '--chain d3.vmdk' 'd1.vmdk d2.vmdk d3.vmdk'; do
		for kind in thick thin; do
			cp host-flat.vmdk got.raw
			[ $kind = thick ] || cp --sparse=always host-flat.vmdk got.raw
			# shellcheck disable=SC2086 # words are meant
			run -0 strace -f -o trace -e trace=pwrite64,pwritev,pwritev2,fallocate \
				"$VMDKSYNC" --no-uring -q $what got.raw
			same host-0.raw got.raw
			run -0 python3 - <<-'END'
			import re
			done = set()
			for line in open('trace'):
			    m = re.search(r'pwrite64\(.* (\d+), (\d+)\) = (\d+)$', line)
			    if m:
			        length, at, wrote = map(int, m.groups())
			        assert length == wrote
			        sectors = set(range(at // 512, (at + length + 511) // 512))
			        assert not sectors & done, line
			        done |= sectors
			    else:
			        assert 'pwritev' not in line, line
			want = set(range(120, 681)) | {5000}
			# whole blocks of the target, where it has larger ones
			assert want <= done and len(done - want) < 24, sorted(done ^ want)
			END
		done
	done
}

@test "four terabytes of a sparse chain are verified without reading the holes" {
	requires strace /usr/bin/time plain
	truncate -s 4T base-flat.vmdk
	"$MKVMDK" hosted data.vmdk capacity=4194304M alloc=0,last+runs:20:1:9 apply=base-flat.vmdk
	cp --sparse=always base-flat.vmdk want.raw
	descriptor base.vmdk 1 ffffffff vmfs '' 'RW 8589934592 VMFS "base-flat.vmdk"'
	"$MKVMDK" sesparse s-sesparse.vmdk capacity=4194304M alloc=runs:40:1:9 unmapped=runs:9:1:9 seed=2 \
		apply=want.raw
	descriptor s.vmdk 2 1 seSparse base.vmdk 'RW 8589934592 SESPARSE "s-sesparse.vmdk"'
	"$MKVMDK" hosted top.vmdk capacity=4194304M alloc=runs:40:1:9 seed=3 parentcid=2 parent=s.vmdk \
		apply=want.raw
	run -0 /usr/bin/time -f 'kbytes %M' "$VMDKSYNC" --full --create top.vmdk got.raw
	[ "${lines[-1]#kbytes }" -lt 65536 ]
	qemu-img compare -f raw -F raw got.raw want.raw
	run -0 /usr/bin/time -f 'kbytes %M' "$VMDKSYNC" --verify top.vmdk got.raw
	[ "${lines[-1]#kbytes }" -lt 65536 ]
	[[ $output == *'100.0 % of the disk'* ]]
	run -0 strace -f -o trace -e trace=pread64,preadv,read "$VMDKSYNC" --no-uring --verify top.vmdk got.raw
	[ "$(awk '$NF > 0 { n += $NF } END { print int(n / 1048576) }' trace)" -lt 200 ]
	printf X | dd of=got.raw bs=1 seek=3298534883328 conv=notrunc status=none
	run -1 --separate-stderr vs -q --verify top.vmdk got.raw
	[[ $output == 'got.raw: bytes 3298534883328 to 3298534883328 differ '* ]]
}
