# SPDX-License-Identifier: MIT
# Files written byte by byte from what is known of real ones, without mkvmdk: header fields, entries
# and markers at the places and with the values that the format descriptions and real files give.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# at FILE POS HEX...: these bytes there.
at() {
	local file=$1 pos=$2

	shift 2
	# shellcheck disable=SC2059 # a format of \x.. alone
	printf "$(printf '\\x%s' "$@")" | dd of="$file" bs=1 seek="$pos" conv=notrunc status=none
}

# le WIDTH NUMBER...: them as hex bytes, the lowest first.
le() {
	local width=$1 v i

	shift
	for v; do
		for ((i = 0; i < width; i++)); do
			printf '%02x ' $((v >> (8 * i) & 255))
		done
	done
}

# number FILE POS WIDTH NUMBER...
number() {
	# shellcheck disable=SC2046 # words are meant
	at "$1" "$2" $(le "$3" "${@:4}")
}

# sectors FILE FROM COUNT SOURCE AT: COUNT sectors of SOURCE from AT on to sector FROM of FILE.
sectors() {
	dd if="$4" of="$1" bs=512 skip="$5" seek="$2" count="$3" conv=notrunc status=none
}

# descriptor TYPE SECTORS CREATE_TYPE: d.vmdk over `delta`, for qemu-img.
descriptor() {
	printf '%s\n' '# Disk DescriptorFile' version=1 CID=12345678 parentCID=ffffffff \
		"createType=\"$3\"" "RW $2 $1 \"delta\"" >d.vmdk
}

# right: `delta` on zeros is `want`, and d.vmdk, where there is one, is so to qemu-img.
right() {
	run -0 --separate-stderr vs --strict -q --create delta got
	[ -z "$stderr" ]
	same got want
	if [ -e d.vmdk ] && command -v qemu-img >/dev/null; then
		qemu-img convert -f vmdk -O raw d.vmdk theirs
		same theirs want
	fi
}

@test "COWD: 10,000 sectors, of which 5, 4096 and 9999 are there and 7 is zero" {
	truncate -s 53248 delta
	at delta 0 43 4f 57 44 01 00 00 00 03 00 00 00 10 27 00 00
	at delta 16 01 00 00 00 04 00 00 00 03 00 00 00 68 00 00 00
	at delta 2048 05 00 00 00 26 00 00 00 47 00 00 00
	number delta $((5 * 512 + 5 * 4)) 4 37
	number delta $((5 * 512 + 7 * 4)) 4 1
	number delta $((38 * 512)) 4 70
	number delta $((71 * 512 + 1807 * 4)) 4 103
	"$MKVMDK" pattern data 10000
	sectors delta 37 1 data 5
	sectors delta 70 1 data 4096
	sectors delta 103 1 data 9999
	"$MKVMDK" pattern target 10000 2
	cp target want
	for s in 5 4096 9999; do
		sectors want $s 1 data $s
	done
	sectors want 7 1 /dev/zero 0
	run -0 vs -q delta target
	same target want
	# the same is right for qemu-img only because sector 1 of the header is zero
	if command -v qemu-img >/dev/null; then
		descriptor VMFSSPARSE 10000 vmfsSparse
		qemu-img convert -f vmdk -O raw d.vmdk theirs
		truncate -s 0 got
		truncate -s $((10000 * 512)) got
		vs -q delta got
		same theirs got
	fi
}

@test "COWD: the empty delta of a real disk of 101 GiB, and the one of 32,768 bytes" {
	truncate -s $((408 * 512)) delta
	at delta 0 43 4f 57 44
	number delta 4 4 1 3 $((0x0ca00000)) 1 4 $((0xca00)) 408
	run -0 --separate-stderr vs --strict --dry-run --create delta new
	[[ $stderr == *"101 GiB ($((211812352 * 512)) bytes)"* ]]
	[[ $stderr == *' in 0 runs'* ]]
	number delta 24 4 $((0xc9ff))
	run -2 vs --dry-run --create delta new
	rm delta
	truncate -s 32768 delta
	at delta 0 43 4f 57 44
	number delta 4 4 1 3 $((7680 * 4096)) 1 4 7680 64
	run -0 --separate-stderr vs --strict --dry-run --create delta new
	[[ $stderr == *' in 0 runs'* ]]
}

# hosted FLAGS CAPACITY DESC DESC_SIZE RGD GD OVERHEAD [VERSION [COMPRESS]]: the header of `delta`.
hosted() {
	at delta 0 4b 44 4d 56
	number delta 4 4 "${8-1}" "$1"
	number delta 12 8 "$2" 128 "$3" "$4"
	number delta 44 4 512
	number delta 48 8 "$5" "$6" "$7"
	at delta 72 00 0a 20 0d 0a
	number delta 77 2 "${9-0}"
}

@test "hosted: the layout of a disk of 10 MiB" {
	truncate -s $((384 * 512)) delta
	hosted 3 20480 1 20 21 26 128
	printf '%s\n' '# Disk DescriptorFile' version=1 CID=3c556e8 parentCID=ffffffff \
		'createType="monolithicSparse"' '# Extent description' \
		'RW 20480 SPARSE "another name.vmdk"' '' '# The Disk Data Base ' '#DDB' '' \
		'ddb.virtualHWVersion = "4"' 'ddb.geometry.cylinders = "20"' \
		'ddb.geometry.heads = "16"' 'ddb.geometry.sectors = "63"' \
		'ddb.adapterType = "ide"' | dd of=delta bs=512 seek=1 conv=notrunc status=none
	number delta $((21 * 512)) 4 22
	number delta $((26 * 512)) 4 27
	for table in 22 27; do
		number delta $((table * 512 + 4 * 4)) 4 128
		number delta $((table * 512 + 159 * 4)) 4 256
	done
	"$MKVMDK" pattern data 20480
	sectors delta 128 128 data 512
	sectors delta 256 128 data 20352
	truncate -s $((20480 * 512)) want
	sectors want 512 128 data 512
	sectors want 20352 128 data 20352
	ln -s delta d.vmdk
	right
}

@test "hosted: a split piece without descriptor, and one of VMware's of 4 GiB" {
	truncate -s $((256 * 512)) delta
	hosted 3 2000 0 0 1 6 128
	number delta 512 4 2
	number delta $((6 * 512)) 4 7
	number delta $((2 * 512 + 60)) 4 128
	number delta $((7 * 512 + 60)) 4 128
	"$MKVMDK" pattern data 2048
	sectors delta 128 128 data 1920
	truncate -s $((2000 * 512)) want
	sectors want 1920 80 data 1920
	descriptor SPARSE 2000 twoGbMaxExtentSparse
	right
	rm delta want got
	# 127 tables, the redundant ones in front
	truncate -s $((1152 * 512)) delta
	hosted 3 8323072 0 0 1 510 1024
	# shellcheck disable=SC2046 # words are meant
	number delta 512 4 $(seq 2 4 506)
	# shellcheck disable=SC2046
	number delta $((510 * 512)) 4 $(seq 511 4 1015)
	number delta $((506 * 512 + 511 * 4)) 4 1024
	number delta $((1015 * 512 + 511 * 4)) 4 1024
	sectors delta 1024 128 data 7
	truncate -s $((8323072 * 512)) want
	sectors want 8322944 128 data 7
	descriptor SPARSE 8323072 twoGbMaxExtentSparse
	run -0 vs --strict -q --create delta got
	if command -v qemu-img >/dev/null; then
		qemu-img compare -f vmdk -F raw d.vmdk got
		qemu-img compare -f raw -F raw want got
	fi
	[ "$(stat -c %s got)" = $((8323072 * 512)) ]
}

# constant VALUE: `grain`, 65,536 bytes of it, and `record`, these as VMDK-stream-converter packs what
# cannot be packed: 65,562 bytes, four stored blocks of 16 KiB.
constant() {
	local n=65536 v=$1 a b i

	head -c $n /dev/zero | tr '\0' "\\$(printf %03o "$v")" >grain
	a=$(((1 + n * v) % 65521))
	b=$(((n + v * (n * (n + 1) / 2)) % 65521))
	: >record
	at record 0 78 01
	for i in 0 1 2 3; do
		at record $((2 + i * 16389)) "0$((i == 3))" 00 40 ff bf
		head -c 16384 grain | dd of=record bs=1M oflag=seek_bytes seek=$((7 + i * 16389)) \
			conv=notrunc status=none
	done
	# shellcheck disable=SC2046 # words are meant
	at record 65558 $(printf '%02x ' $((b >> 8)) $((b & 255)) $((a >> 8)) $((a & 255)))
	[ "$(stat -c %s record)" = 65562 ]
}

@test "streamOptimized: VMDK-stream-converter's disk of 1 MiB" {
	truncate -s $((2202 * 512)) delta
	hosted $((0x30001)) 2048 1 1 0 $((0x896)) 128 3 1
	printf '%s\n' '# Description file created by VMDK stream converter' version=1 \
		'# Believe this is random' CID=7e5b80a7 '# Indicates no parent' \
		parentCID=ffffffff 'createType="streamOptimized"' '' '# Extent description' \
		'RDONLY 2048 SPARSE "call-me-stream.vmdk"' '' '#DDB' \
		'ddb.adapterType = "lsilogic"' |
		dd of=delta bs=512 seek=1 conv=notrunc status=none
	: >want
	for i in {0..15}; do
		constant $((i + 1))
		cat grain >>want
		number delta $(((128 + 129 * i) * 512)) 8 $((128 * i))
		number delta $(((128 + 129 * i) * 512 + 8)) 4 65562
		dd if=record of=delta bs=1M oflag=seek_bytes seek=$(((128 + 129 * i) * 512 + 12)) \
			conv=notrunc status=none
		number delta $((2193 * 512 + i * 4)) 4 $((128 + 129 * i))
	done
	number delta $((2192 * 512)) 8 4
	number delta $((2192 * 512 + 12)) 4 1
	number delta $((2197 * 512)) 8 1
	number delta $((2197 * 512 + 12)) 4 2
	number delta $((2198 * 512)) 4 2193
	number delta $((2199 * 512)) 8 1
	number delta $((2199 * 512 + 12)) 4 3
	sectors delta 2200 1 delta 0
	ln -s delta d.vmdk
	right
	# the same as vSphere streams it: the first header does not know where the directory is
	number delta 56 8 -1
	rm got
	right
	# and by the markers alone
	at delta $((2200 * 512)) 00
	rm got
	run -2 vs -q --create delta got
	run -0 vs -q --force=accounts --create delta got
	same got want
}

# sesparse CAPACITY GD_SIZE GT_AT GT_SIZE BITMAP BACKMAP GRAINS: both headers of `delta`.
sesparse() {
	at delta 0 be ba fe ca 00 00 00 00 01 00 00 00 02 00 00 00
	number delta 16 8 "$1" 8 64 0 0 0 0 0 1 1 2 2 2048 2048 4096 "$2" "$3" "$4" "$5" 2048 \
		"$6" 2048 "$7" "$1"
	at delta 512 fe ca fe ca
	number delta 520 8 1 36 0
}

@test "SEsparse: the header that hostd logs for a disk of 100 MiB" {
	truncate -s $(((12288 + 24) * 512)) delta
	sesparse 204800 2048 6144 2048 8192 10240 12288
	# table 0 for the second 16 MiB, table 1 for the last
	number delta $((4096 * 512 + 8)) 8 $((0x1000000000000000))
	number delta $((4096 * 512 + 48)) 8 $((0x1000000000000001))
	number delta 520 8 2
	number delta $((6144 * 512 + 5 * 8)) 8 $((0x3000000000000000)) 0 $((0x2000000000000000)) \
		$((0x1007000000000000))
	number delta $((6208 * 512)) 8 $((0x3002000000000000)) $((0x3001000000000000))
	# three grains in use, and which entries name them
	at delta $((8192 * 512)) 07
	number delta $((10240 * 512)) 8 $((0x1005000000000000)) $((0x1001000000000006)) \
		$((0x1000000000000006))
	"$MKVMDK" pattern data 24
	sectors delta 12288 24 data 0
	truncate -s $((204800 * 512)) want
	sectors want $((32768 + 40)) 8 data 0
	sectors want $((6 * 32768)) 8 data 16
	sectors want $((6 * 32768 + 8)) 8 data 8
	descriptor SESPARSE 204800 seSparse
	right
	# zeros are written, what is not there is not
	"$MKVMDK" pattern got 204800 3
	cp got want
	sectors want $((32768 + 40)) 8 data 0
	sectors want $((32768 + 56)) 16 /dev/zero 0
	sectors want $((6 * 32768)) 8 data 16
	sectors want $((6 * 32768 + 8)) 8 data 8
	run -0 vs -q delta got
	same got want
}

@test "SEsparse: a real file of ESXi, 512 MiB of which 16 hold data" {
	truncate -s 23072768 delta
	sesparse $((0x100000)) 2048 6144 2048 8192 10240 12288
	number delta $((4096 * 512)) 8 $((0x1000000000000000))
	# 0x3000000000000000, 0x3001000000000000, ... 0x3fff000000000000
	for ((i = 0; i < 4096; i++)); do
		printf '\\x00\\x00\\x00\\x00\\x00\\x00\\x%02x\\x3%x' $((i & 255)) $((i >> 8))
	done >entries
	# shellcheck disable=SC2059
	printf "$(<entries)" | dd of=delta bs=512 seek=6144 conv=notrunc status=none
	head -c 512 /dev/zero | tr '\0' '\377' | dd of=delta bs=512 seek=8192 conv=notrunc status=none
	# shellcheck disable=SC2059
	printf "$(sed 's/x3/x1/g' entries)" | dd of=delta bs=512 seek=10240 conv=notrunc status=none
	"$MKVMDK" pattern data 32776
	sectors delta 12288 32776 data 0
	head -c 16777216 data >want
	truncate -s 512M want
	descriptor SESPARSE 1048576 seSparse
	run -0 --separate-stderr vs --strict --dry-run --create delta got
	[[ $stderr == *'16.0 MiB of data (16777216 bytes) and 0 bytes of zeros'*'in 1 run'* ]]
	vs -q --create delta got
	cmp -n 16777216 got want
	if command -v qemu-img >/dev/null; then
		qemu-img compare -f vmdk -F raw d.vmdk got
	fi
	[ "$(stat -c '%s' got)" = 536870912 ]
}

@test "descriptors: a delta of ESXi and its base" {
	cat >vmfs_thick-000001.vmdk <<-'END'
	# Disk DescriptorFile
	version=1
	encoding="UTF-8"
	CID=8f67ca74
	parentCID=0172e8a4
	createType="vmfsSparse"
	parentFileNameHint="vmfs_thick.vmdk"
	# Extent description
	RW 4096 VMFSSPARSE "vmfs_thick-000001-delta.vmdk"

	END
	printf '%s\n' '# The Disk Data Base ' '#DDB' '' \
		'ddb.longContentID = "4b98b55ba6a6bc2e8fd6eb368f67ca74"' >>vmfs_thick-000001.vmdk
	printf '%s\n' '# Disk DescriptorFile' version=1 'encoding="UTF-8"' CID=0172e8a4 \
		parentCID=ffffffff 'createType="vmfs"' '' '# Extent description' \
		'RW 4096 VMFS "vmfs_thick-flat.vmdk"' '' '# The Disk Data Base ' '#DDB' '' \
		'ddb.adapterType = "lsilogic"' 'ddb.thinProvisioned = "1"' >vmfs_thick.vmdk
	"$MKVMDK" pattern vmfs_thick-flat.vmdk 4096
	cp vmfs_thick-flat.vmdk want
	"$MKVMDK" cowd vmfs_thick-000001-delta.vmdk capacity=4096 alloc=random:300 seed=2
	run -0 vs --strict -q --create vmfs_thick.vmdk got
	same got want
	"$MKVMDK" cowd vmfs_thick-000001-delta.vmdk capacity=4096 alloc=random:300 seed=2 apply=want
	run -0 vs --strict -q vmfs_thick-000001.vmdk got
	same got want
	if command -v qemu-img >/dev/null; then
		qemu-img convert -f vmdk -O raw vmfs_thick-000001.vmdk theirs
		same theirs want
	fi
}
