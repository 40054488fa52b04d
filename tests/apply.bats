# SPDX-License-Identifier: MIT
# What applying a delta does to a target, against a model that shares no code with the program
# (mkvmdk apply=), which in turn is held against qemu-img.

load helpers

# name and group, format, what mkvmdk takes. Groups are only for running side by side.
recipes() {
	cat <<-'END'
	cowd1   seq          cowd capacity=20480 alloc=random:2000
	cowd1   random       cowd capacity=20480 alloc=runs:300:1:40 layout=random seed=2
	cowd1   reverse      cowd capacity=20480 alloc=runs:200:1:64 layout=reverse seed=3
	cowd1   tables-last  cowd capacity=20480 alloc=runs:200:1:64 layout=tables-last seed=4
	cowd1   one          cowd capacity=16384 alloc=5001
	cowd1   first-last   cowd capacity=12291 alloc=0,last
	cowd1   every        cowd capacity=16384 alloc=all
	cowd1   every-random cowd capacity=8192 alloc=all layout=random
	cowd1   none         cowd capacity=16384 alloc=none
	cowd1   part-table   cowd capacity=10001 alloc=all
	cowd1   tiny         cowd capacity=1 alloc=all
	cowd1   holes        cowd capacity=24581 alloc=every:3
	cowd1   big          cowd capacity=65543 alloc=runs:40:1:3000+random:500 seed=5
	cowd2   grain8       cowd capacity=40960 grain=8 alloc=random:900 layout=random
	cowd2   grain16      cowd capacity=40960 grain=16 alloc=runs:50:1:30
	cowd2   grain128     cowd capacity=65536 grain=128 alloc=every:3 layout=reverse
	cowd2   part-grain   cowd capacity=10005 grain=16 alloc=all
	cowd2   cut-grain    cowd capacity=10005 grain=128 alloc=70-last cutlast=1
	cowd2   all-tables   cowd capacity=30001 alloc=17,9000-9100 tables=all
	cowd2   unclean      cowd capacity=20480 alloc=random:500 unclean=1
	cowd2   pad          cowd capacity=20480 alloc=random:500 pad=5000
	cowd2   zero         cowd capacity=20481 alloc=random:2000 zero=random:3000 fill=1
	cowd2   zero-runs    cowd capacity=40960 alloc=random:900 zero=runs:12:100:3000 fill=1 layout=random
	cowd2   zero-all     cowd capacity=10001 zero=all fill=1
	cowd2   zero-grain16 cowd capacity=20485 grain=16 alloc=every:5 zero=every:3+last fill=1
	hosted1 seq          hosted capacity=65536 alloc=random:200
	hosted1 random       hosted capacity=65536 alloc=runs:40:1:12 layout=random seed=2
	hosted1 reverse      hosted capacity=40960 alloc=runs:20:1:12 layout=reverse
	hosted1 tables-last  hosted capacity=40960 alloc=runs:20:1:12 layout=tables-last
	hosted1 one          hosted capacity=40960 alloc=77
	hosted1 every        hosted capacity=40960 alloc=all
	hosted1 none         hosted capacity=40960 alloc=none
	hosted1 part-table   hosted capacity=98304 alloc=random:60+last
	hosted1 part-grain   hosted capacity=20481 alloc=every:2+last
	hosted2 grain8       hosted capacity=40960 grain=8 alloc=random:900 layout=random
	hosted2 grain16      hosted capacity=40965 grain=16 alloc=runs:100:1:9+last
	hosted2 grain1       hosted capacity=20481 grain=1 alloc=random:3000
	hosted2 cut-grain    hosted capacity=20485 alloc=100-last cutlast=1
	hosted2 no-rgd       hosted capacity=40960 alloc=random:99 rgd=0
	hosted2 no-text      hosted capacity=40960 alloc=random:99 desc=0
	hosted2 zero         hosted capacity=65536 alloc=random:150 zero=random:150
	hosted2 zero-all     hosted capacity=40961 zero=all
	hosted2 zero-grain8  hosted capacity=40965 grain=8 alloc=every:5 zero=every:3+last
	hosted2 unclean      hosted capacity=40960 alloc=random:99 unclean=1
	sparse1 seq          sesparse capacity=33000 alloc=random:1500
	sparse1 random       sesparse capacity=66000 alloc=runs:60:1:40 layout=random seed=2
	sparse1 reverse      sesparse capacity=33000 alloc=runs:40:1:64 layout=reverse seed=3
	sparse1 one          sesparse capacity=20480 alloc=2501
	sparse1 first-last   sesparse capacity=33001 alloc=0,last
	sparse1 every        sesparse capacity=20480 alloc=all
	sparse1 every-random sesparse capacity=34000 alloc=all layout=random
	sparse1 none         sesparse capacity=8192 alloc=none
	sparse1 tiny         sesparse capacity=1 alloc=all
	sparse1 part-grain   sesparse capacity=10005 alloc=all
	sparse1 cut-grain    sesparse capacity=10005 alloc=1200-last cutlast=1
	sparse1 unclosed     sesparse capacity=20480 alloc=random:400 pad=5000
	sparse2 all-tables   sesparse capacity=100000 alloc=17,9000-9100 tables=all layout=reverse
	sparse2 rotated      sesparse capacity=80000 alloc=random:9000 layout=random seed=4
	sparse2 zero         sesparse capacity=20485 alloc=random:900 zero=random:900+last
	sparse2 zero-all     sesparse capacity=20481 zero=all
	sparse2 zero-runs    sesparse capacity=34000 alloc=random:900 zero=runs:12:10:300 layout=random
	sparse2 unmapped     sesparse capacity=20485 alloc=random:900 unmapped=random:900+last
	sparse2 stale        sesparse capacity=33000 alloc=all unmapped=every:3 layout=random
	sparse2 unmapped-all sesparse capacity=20481 unmapped=all
	sparse2 every-kind   sesparse capacity=34001 alloc=every:2 zero=every:3 unmapped=every:5
	sparse2 kinds-mixed  sesparse capacity=34001 alloc=runs:30:1:90 zero=runs:20:1:60 unmapped=runs:20:1:60 layout=random seed=6
	END
}

# each GROUP COMMAND...: calls COMMAND NAME FORMAT KEYS... in a fresh folder, for every recipe.
each() {
	local group=$1 g name n=0
	local -a words

	shift
	while read -r -a words; do
		g=${words[0]} name=${words[1]}
		[ "$g" = "$group" ] || continue
		mkdir "$BATS_TEST_TMPDIR/$name"
		cd "$BATS_TEST_TMPDIR/$name" || return
		echo "--- $group: ${words[*]:1}"
		"$@" "${words[@]:1}"
		cd / || return
		rm -r "${BATS_TEST_TMPDIR:?}/$name"
		n=$((n + 1))
	done < <(recipes)
	[ "$n" -gt 5 ]
}

# Sectors of a recipe's disk.
capacity() {
	local word

	for word; do
		case $word in
		capacity=*) echo "${word#*=}" ;;
		esac
	done
}

# make_recipe SECTORS NAME FORMAT KEYS...: base, delta and its descriptors d.vmdk, and expected.
make_recipe() {
	local sectors=$1

	"$MKVMDK" pattern base "$sectors" 99
	if [ -n "${SPARSE_BASE-}" ]; then
		# some holes that begin and end inside grains, and a hole at the end
		fallocate --punch-hole --offset $((sectors * 128)) --length $((sectors * 150 + 1)) base
		fallocate --punch-hole --offset $((sectors * 400)) --length $((sectors * 112)) base
	fi
	cp --sparse=auto base expected
	"$MKVMDK" "$3" delta "${@:4}" descriptor=d.vmdk base=base apply=expected
}

# --- the model ---

# qemu-img takes entry 1 of COWD for data and copies file sector 1, a piece of the header (D1 of the
# format notes). There only the model tells what is right, and fill=1 makes such a reader be seen.
model_is_qemus() {
	make_recipe "$(capacity "$@")" "$@"
	case "$*" in
	*cowd*zero=*) return 0 ;;
	esac
	qemu-img convert -f vmdk -O raw d.vmdk theirs
	same theirs expected
	case "$*" in
	*alloc=none*) ;;
	*) run -1 cmp base expected ;;
	esac
}

@test "the model says what qemu-img says: COWD, grains of a sector" {
	requires qemu-img
	each cowd1 model_is_qemus
}

@test "the model says what qemu-img says: COWD, other" {
	requires qemu-img
	each cowd2 model_is_qemus
}

@test "the model says what qemu-img says: hosted" {
	requires qemu-img
	each hosted1 model_is_qemus
}

@test "the model says what qemu-img says: hosted, other" {
	requires qemu-img
	each hosted2 model_is_qemus
}

@test "the model says what qemu-img says: SEsparse" {
	requires qemu-img
	each sparse1 model_is_qemus
}

@test "the model says what qemu-img says: SEsparse, other" {
	requires qemu-img
	each sparse2 model_is_qemus
}

@test "qemu-img takes entry 1 of COWD for sector 1, the model does not" {
	requires qemu-img
	cd "$BATS_TEST_TMPDIR"
	make_recipe 20481 zero cowd capacity=20481 zero=100 fill=1
	qemu-img convert -f vmdk -O raw d.vmdk theirs
	[ "$(tail -c +51201 theirs | head -c 4)" = XXXX ] || skip 'this qemu-img does not'
	[ -z "$(tail -c +51201 expected | head -c 512 | tr -d '\0')" ]
}

# --- files ---

# Onto a copy of base with the ring, without, and again over what is there.
apply_to_files() {
	make_recipe "$(capacity "$@")" "$@"
	for how in '' --no-uring; do
		cp --sparse="$KEEP" base target
		sync target
		# shellcheck disable=SC2086 # none or one option
		vs -q $how delta target
		same target expected
	done
	vs -q delta target
	same target expected
}

on_sparse_files() {
	SPARSE_BASE=1
	KEEP=always
	each "$1" apply_to_files
}

on_full_files() {
	KEEP=never
	each "$1" apply_to_files
}

@test "onto sparse files: COWD, grains of a sector" {
	on_sparse_files cowd1
}

@test "onto sparse files: COWD, other" {
	on_sparse_files cowd2
}

@test "onto sparse files: hosted" {
	on_sparse_files hosted1
}

# bats test_tags=quick
@test "onto sparse files: hosted, other" {
	on_sparse_files hosted2
}

@test "onto sparse files: SEsparse" {
	on_sparse_files sparse1
}

@test "onto sparse files: SEsparse, other" {
	on_sparse_files sparse2
}

@test "onto full files: COWD, grains of a sector" {
	on_full_files cowd1
}

# bats test_tags=quick
@test "onto full files: COWD, other" {
	on_full_files cowd2
}

@test "onto full files: hosted" {
	on_full_files hosted1
}

@test "onto full files: hosted, other" {
	on_full_files hosted2
}

@test "onto full files: SEsparse" {
	on_full_files sparse1
}

# One at a time of a page may be under way: each would wait for the one before.
@test "onto full files: single sectors that share a page are one write" {
	cd "$BATS_TEST_TMPDIR"
	make_recipe 20480 sectors cowd capacity=20480 alloc=every:2 layout=random
	cp --sparse=never base target
	sync target
	vs -v delta target 2>said
	same target expected
	cat said
	grep -q 'direct where allocated' said || skip 'no file is written past the page cache here'
	[ "$(sed -n 's/.* \([0-9]*\) writes$/\1/p' said)" -le 2560 ]
}

@test "onto full files: between sectors of a page no block comes to be" {
	local i sectors=

	requires root unshare mkfs.ext4 loop
	cd "$BATS_TEST_TMPDIR"
	for ((i = 0; i < 2048; i += 8)); do
		sectors=$sectors,$i,$((i + 7))
	done
	"$MKVMDK" pattern base 2048 99
	thin() {
		for ((i = 0; i < 1048576; i += 4096)); do
			fallocate --punch-hole --offset $((i + 1024)) --length 2048 "$1"
		done
	}
	thin base
	cp base expected
	"$MKVMDK" cowd delta capacity=2048 alloc="${sectors#,}" apply=expected
	truncate -s 16M fs
	mkfs.ext4 -q -b 1024 -E lazy_itable_init=0,lazy_journal_init=0 fs
	export -f thin same
	# shellcheck disable=SC2016
	unshare -m bash -euc '
		mkdir full
		mount -o loop fs full
		cp --sparse=never base full/t
		thin full/t
		sync full/t
		before=$(stat -c %b full/t)
		"$VMDKSYNC" -q delta full/t
		same full/t expected
		sync full/t
		[ "$(stat -c %b full/t)" = "$before" ]
		umount full'
}

# --- devices ---

# SECTOR_SIZE NAME FORMAT KEYS...: the backing file is rounded up; its bytes beyond the disk stay.
apply_to_loop() {
	local unit=$(($1 / 512)) sectors dev how

	sectors=$(capacity "$@")
	sectors=$(((sectors + unit - 1) / unit * unit))
	make_recipe "$sectors" "${@:2}"
	truncate -s $((sectors * 512)) target
	dev=$(loopdev target "$1")
	[ "$(blockdev --getss "$dev")" = "$1" ]
	for how in '' --no-uring; do
		dd if=base of="$dev" bs=1M conv=fsync,nocreat status=none
		# shellcheck disable=SC2086 # none or one option
		vs -q $how delta "$dev"
		same "$dev" expected
		same target expected
	done
	helpers_teardown
}

@test "onto devices: COWD, grains of a sector" {
	requires root loop
	each cowd1 apply_to_loop 512
}

@test "onto devices: COWD, other" {
	requires root loop
	each cowd2 apply_to_loop 512
}

@test "onto devices: hosted" {
	requires root loop
	each hosted1 apply_to_loop 512
}

@test "onto devices: hosted, other" {
	requires root loop
	each hosted2 apply_to_loop 512
}

# bats test_tags=quick
@test "onto devices: SEsparse" {
	requires root loop
	each sparse2 apply_to_loop 512
}

@test "onto devices with sectors of 4096 bytes: COWD, grains of a sector" {
	requires root loop
	each cowd1 apply_to_loop 4096
}

# bats test_tags=quick
@test "onto devices with sectors of 4096 bytes: COWD, other" {
	requires root loop
	each cowd2 apply_to_loop 4096
}

@test "onto devices with sectors of 4096 bytes: hosted" {
	requires root loop
	each hosted1 apply_to_loop 4096
}

@test "onto devices with sectors of 4096 bytes: hosted, other" {
	requires root loop
	each hosted2 apply_to_loop 4096
}

@test "onto devices with sectors of 4096 bytes: SEsparse" {
	requires root loop
	each sparse1 apply_to_loop 4096
}

# --- nothing else ---

# The target is longer than the disk, its end lies inside a block.
longer_target() {
	make_recipe $(($(capacity "$@") + 2051)) "$@"
	printf 'a piece of a sector' | tee -a base >>expected
	for how in '' --no-uring; do
		cp base target
		sync target
		# shellcheck disable=SC2086 # none or one option
		vs -q $how delta target
		same target expected
	done
}

@test "a longer target keeps what lies beyond the disk: COWD" {
	each cowd1 longer_target
}

@test "a longer target keeps what lies beyond the disk: COWD, other" {
	each cowd2 longer_target
}

@test "a longer target keeps what lies beyond the disk: hosted" {
	each hosted2 longer_target
}

@test "a longer target keeps what lies beyond the disk: SEsparse" {
	each sparse2 longer_target
}

# Looks at the difference to the base alone, without the model: every changed byte must lie in a
# grain that the recipe names, and each of these must have changed.
# bats test_tags=quick
@test "only the allocated grains differ from what was there" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" pattern base 24000 7
	for format in cowd hosted; do
		"$MKVMDK" "$format" delta capacity=20483 grain=16 alloc=3,500-507,1000,last zero=900,901
		cp base target
		vs -q delta target
		{ cmp -l base target || :; } | awk '{ print int(($1 - 1) / 8192) }' | uniq |
			paste -sd' ' >changed
		[ "$(cat changed)" = '3 500 501 502 503 504 505 506 507 900 901 1000 1280' ]
		# of the last grain only the three sectors that the disk has
		{ cmp -l base target || :; } | awk 'END { exit !($1 <= 20483 * 512) }'
	done
}

# --- thin targets ---

blocks() {
	stat -c %b "$1"
}

# blocks_at_most FILE N: N of 512 bytes, and some for the file system's own map of the file.
blocks_at_most() {
	echo "$1: $(blocks "$1") blocks, at most $2"
	[ "$(blocks "$1")" -le "$2" ]
}

# bats test_tags=quick
@test "zero grains make a thin target no bigger" {
	cd "$BATS_TEST_TMPDIR"
	SPARSE_BASE=1
	while read -r -a keys; do
		rm -f base target expected
		make_recipe "$(capacity "${keys[@]}")" zeros "${keys[@]}"
		for how in '' --no-uring; do
			cp --sparse=always --reflink=never base target
			sync target
			before=$(blocks target)
			# shellcheck disable=SC2086 # none or one option
			vs -q $how delta target
			same target expected
			sync target
			blocks_at_most target "$before"
		done
	done <<-'END'
	cowd capacity=40961 zero=all
	cowd capacity=40961 zero=random:9000
	cowd capacity=40960 zero=runs:30:1:2000
	hosted capacity=65536 zero=all
	hosted capacity=65537 zero=random:200+last
	hosted capacity=65536 grain=8 zero=every:3
	sesparse capacity=65537 zero=random:2000+last unmapped=random:2000
	END
}

@test "zero grains over all of a thin target leave nothing of it" {
	cd "$BATS_TEST_TMPDIR"
	SPARSE_BASE=1
	make_recipe 40960 zeros cowd capacity=40960 zero=all
	cp --sparse=always --reflink=never base target
	sync target
	vs -q delta target
	same target expected
	sync target
	blocks_at_most target 64
}

created() {
	make_recipe "$(capacity "$@")" "$@"
	rm -f zeros
	truncate -s "$(stat -c %s base)" zeros
	"$MKVMDK" "$2" delta "${@:3}" apply=zeros
	sync zeros
	for how in '' --no-uring; do
		rm -f target
		# shellcheck disable=SC2086 # none or one option
		vs -q --create $how delta target
		[ "$(stat -c %s target)" = "$(stat -c %s zeros)" ]
		same target zeros
		sync target
		# at most: the model writes zeros out, the program need not
		blocks_at_most target $(($(blocks zeros) + 64))
	done
}

@test "--create: the delta over zeros, in a sparse file: COWD, grains of a sector" {
	each cowd1 created
}

@test "--create: the delta over zeros, in a sparse file: COWD, other" {
	each cowd2 created
}

@test "--create: the delta over zeros, in a sparse file: hosted" {
	each hosted1 created
}

@test "--create: the delta over zeros, in a sparse file: hosted, other" {
	each hosted2 created
}

@test "--create: the delta over zeros, in a sparse file: SEsparse" {
	each sparse2 created
}

@test "--create: zero grains and what is not allocated take no room" {
	cd "$BATS_TEST_TMPDIR"
	"$MKVMDK" cowd delta capacity=1G alloc=12345 zero=1000-1999,100000-last
	vs -q --create delta target
	[ "$(stat -c %s target)" = 1073741824 ]
	sync target
	blocks_at_most target 64
}

# --- the largest COWD ---

# qemu_window OFFSET SIZE: theirs, that much of d.vmdk as qemu-img reads it, and ours, of expected.
qemu_window() {
	local raw='"driver":"raw","offset":'$1',"size":'$2

	qemu-img convert -O raw "json:{$raw,\"file\":{\"driver\":\"vmdk\",\"file\":
		{\"driver\":\"file\",\"filename\":\"d.vmdk\"}}}" theirs
	qemu-img convert -O raw "json:{$raw,\"file\":{\"driver\":\"file\",\"filename\":\"expected\"}}" ours
}

@test "2 TiB of COWD onto a sparse file" {
	requires qemu-img
	cd "$BATS_TEST_TMPDIR"
	size=$((4294967295 * 512))
	truncate -s "$size" base || skip 'no files of 2 TiB here'
	"$MKVMDK" pattern piece 64 5
	for at in 0 1000000 2147483640 4294967231; do
		dd if=piece of=base bs=512 seek="$at" conv=notrunc status=none
	done
	# 2147483648 sectors are 1 TiB; sector numbers from there on have the top bit set
	grains=0,5,1000010-1000050,8388607,8388608,2147483630-2147483660,4294967231-4294967240,last
	for layout in seq random; do
		rm -f expected target
		cp --sparse=always --reflink=never base expected
		"$MKVMDK" cowd delta capacity=2T alloc="$grains" layout="$layout" \
			apply=expected descriptor=d.vmdk base=base
		# all of it would take qemu-img minutes
		for at in 0 1000000 8388600 2147483600 4294967200; do
			qemu_window $((at * 512)) $((95 * 512)) >/dev/null
			same theirs ours
		done
		for how in '' --no-uring; do
			cp --sparse=always --reflink=never base target
			# shellcheck disable=SC2086 # none or one option
			vs -q $how delta target
			[ "$(stat -c %s target)" = "$size" ]
			# it skips holes
			qemu-img compare -f raw -F raw target expected
			# and takes a missing sector at the end for zeros
			cmp <(tail -c 65536 target) <(tail -c 65536 expected)
			run -1 qemu-img compare -f raw -F raw target base
			sync target expected
			blocks_at_most target $(($(blocks expected) + 64))
			rm target
		done
	done
}
