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
	local i=$1 kind=$2 hint=$3 f=l$1 mine spec

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
		descriptor "$f.vmdk" "$mine" "$cid" $kind "$hint" "RW 4100 SPARSE \"$f-s001.vmdk\"" \
			"RW 4100 SPARSE \"$f-s002.vmdk\""
		;;
	vmfsSparse)
		"$MKVMDK" cowd "$f-delta.vmdk" "${spec[@]}" zero=random:5 capacity=$size apply=want.raw
		descriptor "$f.vmdk" "$mine" "$cid" $kind "$hint" "RW $size VMFSSPARSE \"$f-delta.vmdk\""
		;;
	seSparse)
		"$MKVMDK" sesparse "$f-sesparse.vmdk" "${spec[@]}" zero=random:5 unmapped=random:5 \
			capacity=$size apply=want.raw
		descriptor "$f.vmdk" "$mine" "$cid" $kind "$hint" "RW $size SESPARSE \"$f-sesparse.vmdk\""
		;;
	monolithicFlat | vmfs)
		"$MKVMDK" pattern want.raw $size "$RANDOM"
		dd if=/dev/zero of=want.raw bs=512 seek=300 count=200 conv=notrunc status=none
		cp --sparse=always want.raw "$f-flat.vmdk"
		if [ $kind = vmfs ]; then
			spec="RW $size VMFS \"$f-flat.vmdk\""
		else
			spec="RW $size FLAT \"$f-flat.vmdk\" 0"
		fi
		# shellcheck disable=SC2128 # it is no array here
		descriptor "$f.vmdk" "$mine" "$cid" $kind '' "$spec"
		;;
	twoGbMaxExtentFlat)
		"$MKVMDK" pattern want.raw $size "$RANDOM"
		split_want
		mv a.raw "$f-f001.vmdk"
		mv b.raw "$f-f002.vmdk"
		descriptor "$f.vmdk" "$mine" "$cid" $kind '' "RW 4100 FLAT \"$f-f001.vmdk\" 0" \
			"RW 4100 FLAT \"$f-f002.vmdk\" 0"
		;;
	esac
	cid=$mine
}

# flip BYTE...: changes one bit of each of these bytes of got.raw.
flip() {
	python3 - "$@" <<-'END'
	import sys
	with open('got.raw', 'r+b') as f:
	    for at in map(int, sys.argv[1:]):
	        f.seek(at)
	        c = f.read(1)[0]
	        f.seek(at)
	        f.write(bytes([c ^ 0x10]))
	END
}

# places: of each layer, of what no layer holds, and of the end of the disk one byte:
# where, and what verify says of it.
places() {
	vs -q --map --json "$1" | jq -r 'def line(at): "\(at)\t" + (
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

	places "$top" >places
	[ "$(wc -l <places)" -ge 2 ]
	# shellcheck disable=SC2046 # numbers
	flip $(cut -f1 places)
	run -1 --separate-stderr vs -q --verify --max-ranges=1000 "$top" got.raw
	awk -F '\t' '{ printf "got.raw: bytes %d to %d differ (1 from sector %d on); expected: %s\n", $1, $1,
		int($1 / 512), $2 }' places | diff - <(echo "$output")
	# shellcheck disable=SC2046 # numbers
	flip $(cut -f1 places)
	case $depth in
	1 | 2 | 5 | 32)
		while IFS=$'\t' read -r at expected; do
			flip "$at"
			run -1 --separate-stderr vs -q --verify "$top" got.raw
			[ "$output" = "got.raw: bytes $at to $at differ (1 from sector $((at / 512)) on); expected: $expected" ]
			flip "$at"
		done <places
		;;
	esac
	same want.raw got.raw
}

@test "chains of depth 1 to 32 in mixed formats: --full, --chain, --verify" {
	requires python3
	depths=({1..32})
	[ "$FLAVOUR" = plain ] || depths=(1 2 3 5 13 32)
	for depth in "${depths[@]}"; do
		echo "--- depth $depth"
		chain_of_depth "$depth" 0
	done
}

@test "every format on top of every format" {
	requires python3
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
