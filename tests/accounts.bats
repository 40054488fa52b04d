#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What must add up in a whole file: every byte of it is a header, a table, a grain or known padding.
# A table that reads as zeros is a valid, smaller delta to whoever does not count.

load helpers

setup() { cd "$BATS_TEST_TMPDIR" || return; }

# make FORMAT KEY...: d.vmdk of a disk of 20 MiB and a bit, and t.raw, which nobody has written to.
make() {
	rm -f d.vmdk t.raw
	"$MKVMDK" "$1" d.vmdk capacity=40961 "${@:2}"
	truncate -s $((40961 * 512)) t.raw
}

# clean KEY...: nothing is refused, warned about or unaccounted for.
clean() {
	echo "--- clean: $*"
	make "$@"
	run -0 --separate-stderr vs --strict --dry-run --json d.vmdk t.raw
	jq -e '.unaccounted == 0 and .warnings == []' <<<"$output"
	run -0 --separate-stderr vs --strict --info d.vmdk
	[[ $output != *unaccounted* ]]
}

# warned BYTES TEXT KEY...: so many bytes unaccounted for, one warning, and nothing with --strict.
warned() {
	echo "--- warned: $*"
	make "${@:3}"
	run -2 vs --strict d.vmdk t.raw
	[ "$(stat -c %b t.raw)" = 0 ]
	run -0 --separate-stderr vs --dry-run --json d.vmdk t.raw
	[[ $stderr == *"$2"*"; 1 warning"* ]]
	jq -e ".unaccounted == $1 and (.warnings | length) == 1" <<<"$output"
	run -0 --separate-stderr vs --info --json d.vmdk
	jq -e ".images[0].chain[0].unaccounted == $1" <<<"$output"
	run -0 --separate-stderr vs --info d.vmdk
	run -0 --separate-stderr vs d.vmdk t.raw
	[[ $stderr == *'on stable storage'*'; 1 warning'* ]]
}

# refused TEXT KEY...
refused() {
	echo "--- refused: $*"
	make "${@:2}"
	run -2 --separate-stderr vs d.vmdk t.raw
	[[ $stderr == *"$1"* ]]
	[ "$(wc -l <<<"$stderr")" = 1 ]
	[ "$(stat -c %b t.raw)" = 0 ]
}

@test "sound files of every kind add up" {
	for layout in seq random runs reverse tables-last; do
		clean cowd alloc=random:500+last zero=none layout=$layout
	done
	clean cowd alloc=none
	clean cowd alloc=all
	clean cowd alloc=random:50 tables=all pad=40000
	for layout in seq random runs reverse tables-last; do
		clean hosted alloc=random:100+last layout=$layout
		clean hosted alloc=random:100+last rgd=0 cutlast=1 layout=$layout
	done
	clean hosted alloc=none
	clean hosted alloc=all desc=1 parentcid=12345678 parent=p.vmdk
	clean hosted alloc=random:30 zero=random:30 version=2
	clean hosted alloc=random:30 pad=70000
	for layout in seq random runs reverse; do
		clean sesparse alloc=random:500+last zero=random:40 layout=$layout
		clean sesparse alloc=random:500+last unmapped=random:700 cutlast=1 layout=$layout
	done
	clean sesparse alloc=none
	clean sesparse alloc=all pad=4096
	for variant in A B C; do
		clean stream variant=$variant alloc=random:100+last layout=random
		clean stream variant=$variant alloc=none
		clean stream variant=$variant alloc=random:100+last lastgrain=short
		clean stream variant=$variant alloc=all eos=1 trailing=4
	done
	clean stream variant=C alloc=random:9 rgd=1
	clean stream variant=A alloc=random:40+last progress=1 tables=all
}

@test "the tail of a COWD file beyond its free sector may hold anything" {
	make cowd alloc=random:500
	head -c 3000000 /dev/urandom >>d.vmdk
	run -0 --separate-stderr vs --strict --dry-run --json d.vmdk t.raw
	jq -e '.unaccounted == 0' <<<"$output"
}

@test "COWD: a table that lost entries, a table that is gone" {
	warned 512 '1 of the' cowd alloc=0-99,20000 gte=7:0
	warned $((512 * 33)) '33 of the' cowd alloc=0-99,20000 gde=4:0
	warned 0 'grain directory lies at' cowd alloc=none hdr=gd:5 pad=512
	# a grain of zeros may have been one of data
	make cowd alloc=0-99 gte=7:1
	run -0 --separate-stderr vs --dry-run --json d.vmdk t.raw
	jq -e '.unaccounted == 512 and (.warnings | length) == 1' <<<"$output"
	[[ $stderr == *'table entry 1'* ]]
}

@test "hosted sparse: a directory entry that is 0 is refused" {
	refused 'directory entry 0 is 0' hosted rgd=0 alloc=0-9 gde=0:0
	refused 'directory entry 0 is 0' hosted rgd=1 alloc=0-9 gde=0:0 rgde=0:0
	[[ $stderr == *--force=accounts* ]]
	run -0 --separate-stderr vs --force=accounts d.vmdk t.raw
	[[ $stderr == *'warning: '*'directory entry 0 is 0'* ]]
}

@test "hosted sparse: tables that lost entries" {
	warned 65536 '128 sectors behind the overhead' hosted rgd=0 alloc=0-9 gte=3:0
	warned 65536 '128 sectors behind the overhead' hosted rgd=1 alloc=0-9 gte=3:0 rgte=3:0
	# where zeroed grains are allowed, one of them may have been data
	make hosted rgd=0 alloc=0-9 zero=20 version=2 flags=5 gte=3:0
	run -0 --separate-stderr vs --strict --dry-run --json d.vmdk t.raw
	jq -e '.unaccounted == 65536' <<<"$output"
	warned 131072 '256 sectors behind' hosted rgd=0 alloc=0-9 zero=20 version=2 flags=5 \
		gte=3:0 gte=4:0
}

@test "hosted sparse: data behind the last grain" {
	make hosted alloc=0-9
	printf 'a second descriptor' >>d.vmdk
	run -0 --separate-stderr vs --dry-run --json d.vmdk t.raw
	jq -e '.unaccounted == 512' <<<"$output"
	run -2 vs --strict --dry-run d.vmdk t.raw
}

@test "streamOptimized: what the tables name and what the markers say are the same grains" {
	for variant in A B C; do
		refused '9 grains, but there are 10' stream variant=$variant alloc=0-9 gte=3:0
		run -0 --separate-stderr vs --force=accounts d.vmdk t.raw
		"$MKVMDK" stream want.vmdk capacity=40961 alloc=0-9 apply=t.raw variant=$variant
		run -0 vs --force=accounts --verify d.vmdk t.raw
		refused '0 grains, but there are 10' stream variant=$variant alloc=0-9 gde=0:0
	done
}

@test "streamOptimized: zeros for grains" {
	# a marker, and all of them
	for variant in A B C; do
		make stream variant=$variant alloc=0-9
		at=$("$MKVMDK" stream x.vmdk capacity=40961 variant=$variant alloc=0-9 print=grain:4)
		dd if=/dev/zero of=d.vmdk bs=1 seek="$at" count=512 conv=notrunc status=none
		run -2 vs d.vmdk t.raw
		[ "$(stat -c %b t.raw)" = 0 ]
	done
	make stream variant=C alloc=0-9
	size=$(stat -c %s d.vmdk)
	gt=$("$MKVMDK" stream x.vmdk capacity=40961 variant=C alloc=0-9 print=gt:0)
	truncate -s "$gt" d.vmdk
	truncate -s "$size" d.vmdk
	run -2 --separate-stderr vs d.vmdk t.raw
	[[ $stderr == *'names no grain'* ]]
}

@test "streamOptimized: without a footer, a whole one and one that was cut short" {
	refused 'truncated' stream variant=A alloc=0-9 cut=eof-512
	refused 'find its 10 grains' stream variant=A alloc=0-9 poke=footer:4:0
	refused 'truncated' stream variant=A alloc=0-9 cut=grainend:5
	[[ $stderr != *--force* ]]
}

# no_way KEY...: refused, and no word of --force is offered, since none helps.
no_way() {
	echo "--- no way: $*"
	make stream "$@"
	run -2 --separate-stderr vs --dry-run --force=accounts d.vmdk t.raw
	run -2 --separate-stderr vs d.vmdk t.raw
	echo "$stderr"
	[[ $stderr != *--force* && $stderr == "vmdksync: d.vmdk: "*'copy it again' ]]
	[ "$(wc -l <<<"$stderr")" = 1 ]
	[ "$(stat -c %b t.raw)" = 0 ]
}

@test "streamOptimized: --force=accounts is offered only where it helps" {
	local v grain

	for grain in 9 4; do
		# no footer, and a grain of which something is lost
		no_way variant=A alloc=0-9 poke=footer:4:0 "poke=grain:$grain+40:8:0"
		[[ $stderr == *"grain $grain "* ]]
		# tables that name less than there is, and a grain that is damaged
		for v in A B C; do
			no_way variant=$v alloc=0-9 gte=3:0 "poke=grain:$grain+40:8:0"
			[[ $stderr == *'name 9 grains, but there are 10'*'not all of them are whole'* ]]
		done
	done
	# a grain that is there twice
	no_way variant=A alloc=0-9 poke=footer:4:0 poke=grain:9:8:0
	[[ $stderr == *'grain 0 is there twice'* ]]
	no_way variant=B alloc=0-9 gte=9:0 poke=grain:9:8:0
	# where it is offered it helps
	for v in 'variant=A poke=footer:4:0' 'variant=A gte=3:0' 'variant=B gte=3:0'; do
		# shellcheck disable=SC2086 # words are meant
		make stream alloc=0-9 $v
		run -2 --separate-stderr vs d.vmdk t.raw
		[[ $stderr == *--force=accounts* ]]
		cp t.raw want
		"$MKVMDK" stream d2.vmdk capacity=40961 alloc=0-9 apply=want
		run -0 --separate-stderr vs --force=accounts d.vmdk t.raw
		same t.raw want
	done
}

@test "SEsparse: tables, free bitmap, backmap and size of the file" {
	warned 0 'its free bitmap 100' sesparse alloc=0-99 gte=7:0
	warned $((99 * 4096)) 'its free bitmap 101' sesparse alloc=0-99,5000 gde=0:0
	warned 0 'its free bitmap 99' sesparse alloc=0-99 poke=4194304:1:0xfe
	warned 0 'its backmap 99' sesparse alloc=0-99 poke=5242880:8:0
	warned 4096 'room for 102' sesparse alloc=0-99 pad=8192
	warned 0 'does not follow' sesparse alloc=0-99 hdr=fbsize:1024
}

# log: undo.vmdk, of a disk that it would take back from `new` to `old`.
log() {
	rm -f undo.vmdk new d.vmdk
	"$MKVMDK" pattern old 40961 1
	"$MKVMDK" cowd d.vmdk capacity=40961 alloc=random:300+last seed=2
	cp old new
	vs -q --undo undo.vmdk d.vmdk new
	cp new was
}

@test "a finished undo log that does not add up takes nothing back" {
	log
	size=$(stat -c %s undo.vmdk)
	cp undo.vmdk whole
	dir=$(od -An -tu4 -j $((size - 1024 + 56)) -N4 undo.vmdk)
	table=$(od -An -tu4 -j $((dir * 512)) -N4 undo.vmdk)
	for zero in "$((size - 1024)) 512" "$((dir * 512)) 4" "$((dir * 512)) 512" \
		"$((table * 512)) 2048" "65536 4096" "$((size - 4096)) 4096"; do
		echo "--- $zero"
		cp whole undo.vmdk
		dd if=/dev/zero of=undo.vmdk bs=1 seek="${zero% *}" count="${zero#* }" conv=notrunc \
			status=none
		cp undo.vmdk a
		run -2 vs undo.vmdk new
		cmp was new
	done
	# the markers still lead through all of it
	cp whole undo.vmdk
	dd if=/dev/zero of=undo.vmdk bs=512 seek="$dir" count=1 conv=notrunc status=none
	run -0 vs --force=accounts undo.vmdk new
	same old new
}

@test "an unfinished undo log without a whole record takes nothing back" {
	log
	# as it is before it is finished: the open header, and records without a barrier
	printf 'vmdksync undo log, not finished\n' |
		dd of=undo.vmdk bs=1 seek=128 conv=notrunc status=none
	printf '\001' | dd of=undo.vmdk bs=1 seek=72 conv=notrunc status=none
	truncate -s $((65536 + 5000)) undo.vmdk
	printf 'XXXX' | dd of=undo.vmdk bs=1 seek=$((65536 + 8)) conv=notrunc status=none
	run -2 --separate-stderr vs undo.vmdk new
	[[ $stderr == *'without a whole record'* ]]
	cmp was new
}

@test "a dry run and --spool-first unpack every grain before anything is written" {
	for odd in noend=5 short=5 over=5; do
		for variant in A C; do
			make stream variant=$variant alloc=0-40 $odd
			run -2 --separate-stderr vs --dry-run d.vmdk t.raw
			[[ $stderr == *'grain 5 '* ]]
			run -2 --separate-stderr vs --dry-run --no-uring d.vmdk t.raw
			run -2 --separate-stderr vs --dry-run - t.raw <d.vmdk
			run -2 --separate-stderr vs --dry-run - t.raw < <(cat d.vmdk)
			[[ $stderr == *'grain 5 '* ]]
			run -2 --separate-stderr vs --spool-first - t.raw < <(cat d.vmdk)
			[[ $stderr == *'grain 5 '* ]]
			[ "$(stat -c %b t.raw)" = 0 ]
		done
	done
	make stream variant=A alloc=0-40 left=5
	run -0 --separate-stderr vs --dry-run d.vmdk t.raw
	[[ $stderr == *'behind its compressed data'*'; 1 warning'* ]]
	run -2 vs --strict --dry-run d.vmdk t.raw
}

# --- what other programs write -------------------------------------------------------------------

# A disk of odd size, written to in some places, by qemu-io; $1: options of the image. A compressed grain
# is written once and whole, without zeroed_grain.
random_image() {
	local commands=() at len i sectors=$((RANDOM % 60000 + 100))
	local -A grain=()

	rm -f q*.vmdk
	qemu-img create -q -f vmdk -o "$1" q.vmdk $((sectors * 512))
	for ((i = RANDOM % 6; i > 0; i--)); do
		at=$((RANDOM * 2 % sectors))
		len=$((RANDOM % 400 + 1))
		[ $((at + len)) -le "$sectors" ] || len=$((sectors - at))
		if [[ $1 == *streamOptimized* ]]; then
			at=$((at / 128 * 128))
			len=$((sectors - at < 128 ? sectors - at : 128))
			[ -z "${grain[$at]-}" ] || continue
			grain[$at]=1
		fi
		case $((RANDOM % 4)) in
		0) commands+=(-c "write -z $((at * 512)) $((len * 512))") ;;
		1) commands+=(-c "discard $((at * 512)) $((len * 512))") ;;
		*) commands+=(-c "write -P $((RANDOM % 256)) $((at * 512)) $((len * 512))") ;;
		esac
	done
	[ ${#commands[@]} = 0 ] || qemu-io -f vmdk "${commands[@]}" q.vmdk >said 2>&1 || {
		cat said
		return 1
	}
}

# adds_up IMAGE: it becomes the disk that qemu-img reads from it.
adds_up() {
	run -0 --separate-stderr vs --strict --create "$1" t.raw
	qemu-img compare -q -f vmdk -F raw "$1" t.raw
	rm t.raw
}

@test "whatever qemu-img and qemu-io write adds up" {
	requires qemu-img qemu-io jq
	local n=0 end=$((SECONDS + 20)) size

	RANDOM=${SEED:=$$}
	echo "SEED=$SEED"
	while [ "$n" -lt 300 ] && [ "$SECONDS" -lt "$end" ]; do
		sub=$(shuf -n 1 -e monolithicSparse twoGbMaxExtentSparse streamOptimized)
		more=$(shuf -n 1 -e '' ,zeroed_grain=on ,zeroed_grain=on ,compat6=on ,hwversion=21)
		random_image "subformat=$sub$more"
		echo "--- $n subformat=$sub$more"
		adds_up q.vmdk
		if [ $((n % 5)) = 4 ] && [ "$sub" != streamOptimized ]; then
			# over another image of the same size, whose grains are all there
			size=$(qemu-img info --output=json -f vmdk q.vmdk | jq '."virtual-size"')
			qemu-img create -q -f vmdk -o "subformat=$sub$more" q2.vmdk "$size"
			qemu-io -f vmdk -c "write -P 7 0 $size" q2.vmdk >/dev/null
			qemu-img convert -n -f vmdk -O vmdk q.vmdk q2.vmdk
			qemu-img compare -q -f vmdk -F vmdk q.vmdk q2.vmdk
			adds_up q2.vmdk
		fi
		n=$((n + 1))
	done
	[ "$n" -ge 20 ]
}
