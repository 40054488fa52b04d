# SPDX-License-Identifier: MIT
# Text descriptors: each habit of a writer that is understood, and each line that is not, which
# refuses the whole: a line that is skipped would move the rest of the disk.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	"$MKVMDK" pattern a.raw 100 1
	"$MKVMDK" pattern b.raw 60 2
	cat a.raw b.raw >want
}

# head_lines [KEY=VALUE...]: a header; what is given replaces the line of that key.
head_lines() {
	local line given

	for line in version=1 CID=12345678 parentCID=ffffffff 'createType="custom"'; do
		for given; do
			[ "${given%%=*}" != "${line%%=*}" ] || continue 2
		done
		printf '%s\n' "$line"
	done
	[ $# = 0 ] || printf '%s\n' "$@"
}

extents() {
	printf '%s\n' 'RW 100 FLAT "a.raw" 0' 'RW 60 FLAT "b.raw" 0'
}

sound() {
	printf '# Disk DescriptorFile\n'
	head_lines "$@"
	extents
}

# reads: d.vmdk is `want`, without a warning.
reads() {
	rm -f got
	run -0 --separate-stderr vs -q --strict --create d.vmdk got
	[ -z "$stderr" ]
	same want got
}

# warns WORDS: d.vmdk is `want`, with that warning; --strict refuses it.
warns() {
	rm -f got
	run -2 vs --strict --create d.vmdk got
	[ ! -e got ]
	run -0 --separate-stderr vs --create d.vmdk got
	[[ $stderr == *"vmdksync: warning: "*"$1"* ]]
	same want got
}

# refused WORDS: d.vmdk is, in one line with these words, and the target is as before.
refused() {
	"$MKVMDK" pattern target 1000 9
	cp target before
	run -2 --separate-stderr vs d.vmdk target
	echo "$stderr"
	[ -z "$output" ]
	[ "$(grep -vc '^vmdksync: warning' <<<"$stderr")" = 1 ]
	[[ $stderr == *"vmdksync: "*"$1"* ]]
	same target before
}

# --- what is read ---

@test "line ends: LF, CRLF, mixed, doubled; none at the end" {
	sound >d.vmdk
	reads
	sound | sed 's/$/\r/' >d.vmdk
	reads
	sound | sed '2~2s/$/\r/' >d.vmdk
	reads
	sound | sed 's/$/\r\r/' >d.vmdk
	reads
	sound | sed 's/$/\n/' >d.vmdk
	reads
	printf %s "$(sound)" >d.vmdk
	reads
	printf %s "$(sound | sed 's/$/\r/')" >d.vmdk
	reads
	{ head_lines && extents; } | sed 's/$/\r/' >d.vmdk
	reads
}

@test "zeros behind the text, and what is left of a longer one" {
	{ sound && head -c 700 /dev/zero; } >d.vmdk
	reads
	{ sound && printf '\0' && sound | tail -c 5; } >d.vmdk
	reads
	{ sound && printf '\0' && sound | tail -c 5 && head -c 700 /dev/zero; } >d.vmdk
	reads
	{ sound && printf '\0' && sound | tail -c 5 | tr 0 1 && head -c 700 /dev/zero; } >d.vmdk
	refused 'line '
}

@test "a byte order mark, blank lines in front, no first comment, other comments" {
	{ printf '\xef\xbb\xbf' && sound; } >d.vmdk
	reads
	{ printf '\xef\xbb\xbf' && sound | sed 's/$/\r/'; } >d.vmdk
	reads
	{ printf '\n \t\n#\n # anything = "at all\n' && head_lines && extents; } >d.vmdk
	reads
	{ head_lines && extents; } >d.vmdk
	reads
	{ printf '\xef\xbb\xbf' && head_lines && extents; } >d.vmdk
	reads
	{ printf '# Disk Descriptor File\n' && head_lines && extents; } >d.vmdk
	reads
	{ head_lines && printf '# RW 5 ZERO\n' && extents && printf '#RW 5 ZERO\n'; } >d.vmdk
	reads
}

@test "blanks around everything, tabs, upper and lower case" {
	sound | sed 's/^/ \t/; s/$/\t  /; s/=/ = /' >d.vmdk
	reads
	sound | sed 's/^\(RW\) \([0-9]*\) /\1\t \2   /' >d.vmdk
	reads
	sound | sed '/^[^#R]/s/.*/\U&/; s/^RW/rw/; s/FLAT/Flat/' >d.vmdk
	reads
	sound | tr '[:upper:]' '[:lower:]' >d.vmdk
	reads
}

@test "every access word, and extents that take room without a file" {
	{ head_lines && printf '%s\n' 'RDONLY 100 FLAT "a.raw" 0' 'RW 60 FLAT "b.raw" 0'; } >d.vmdk
	reads
	# ZERO in front, between and behind; the dummy with its trailing blank
	head -c $((7 * 512)) /dev/zero >z
	cat z a.raw z b.raw z >want
	{
		head_lines
		printf '%s\n' 'RW 7 ZERO' 'RW 100 FLAT "a.raw" 0' 'NOACCESS 0 ZERO ' \
			'NOACCESS 7 ZERO' 'rdonly 60 flat "b.raw"' 'RDONLY 7 ZERO'
	} >d.vmdk
	reads
	# nothing else
	{ head_lines && printf 'RW 7 ZERO\nNOACCESS 5 ZERO\n'; } >d.vmdk
	head -c $((12 * 512)) /dev/zero >want
	reads
}

@test "offsets, several extents in one file, VMFS with and without 0, partition ids" {
	cat a.raw b.raw >both.raw
	{
		head_lines
		printf '%s\n' 'RW 60 FLAT "both.raw" 100' 'RW 40 VMFS "both.raw"' \
			'RW 5 VMFS "b.raw" 0' 'RW 60 FLAT "both.raw" 40' \
			'RW 100 FLAT "a.raw" 0 00000000-1111-2222-3333-444444444444 sda1'
	} >d.vmdk
	{ cat b.raw; head -c 20480 a.raw; head -c 2560 b.raw; tail -c +20481 a.raw; cat a.raw; } >want
	reads
}

@test "names with blanks, marks and letters of any kind" {
	local name

	for name in 'a b  c.raw' '#1 a=b.raw' " 'x' .raw" 'RW 1 ZERO'; do
		cp a.raw "$name"
		{ head_lines && printf 'RW 100 FLAT "%s" 0\nRW 60 FLAT "b.raw"\n' "$name"; } >d.vmdk
		reads
		rm "$name"
	done
	# UTF-8, also where no encoding is named, and bytes that are none
	for name in $'\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80.raw' $'\xff\xfe.raw'; do
		cp a.raw "$name"
		{ head_lines && printf 'RW 100 FLAT "%s" 0\nRW 60 FLAT "b.raw"\n' "$name"; } >d.vmdk
		reads
		{ head_lines 'encoding="UTF-8"' && printf 'RW 100 FLAT "%s" 0\nRW 60 FLAT "b.raw"\n' \
			"$name"; } >d.vmdk
		reads
	done
	cp a.raw 'android.vmdk-delta.REDO_TkLU1V'
	{ head_lines && printf 'RW 100 VMFS "%s"\nRW 60 FLAT "b.raw"\n' \
		'android.vmdk-delta.REDO_TkLU1V'; } >d.vmdk
	reads
}

# Rows: the encoding, the name in UTF-8, the same in the encoding. The second byte of a character may
# be that of a backslash, which is no separator then.
@test "names in the encoding that the descriptor names" {
	while read -r encoding utf8 bytes; do
		echo "--- $encoding"
		utf8=$(printf '%b' "$utf8") bytes=$(printf '%b' "$bytes")
		rm -f ./*.img
		cp a.raw "$utf8.img"
		for key in encoding ddb.encoding; do
			{
				head_lines "$key=\"$encoding\""
				printf 'RW 100 FLAT "%s.img" 0\nRW 60 FLAT "b.raw"\n' "$bytes"
			} >d.vmdk
			reads
		done
	done <<-'END'
	windows-1252 \xc3\xa4\xe2\x82\xac \xe4\x80
	Shift_JIS \xe8\xa1\xa8\xe3\x82\xbd \x95\x5c\x83\x5c
	Big5 \xe5\x8a\x9f\xe8\xa8\xb1 \xa5\x5c\xb3\x5c
	GBK \xe8\xaa\xa0 \xd5\x5c
	GB18030 \xf0\xa0\x80\x80 \x95\x32\x82\x36
	EUC-JP \xe6\x97\xa5 \xc6\xfc
	windows-1251 \xd0\x96 \xc6
	END
	# the first one of the header counts
	cp a.raw $'\xc3\xa4.raw'
	for other in encoding ddb.encoding; do
		{
			head_lines 'encoding="windows-1252"' "$other=\"windows-1251\""
			printf 'RW 100 FLAT "\xe4.raw" 0\nRW 60 FLAT "b.raw"\n'
		} >d.vmdk
		reads
	done
	# an unknown one: the bytes as they are
	rm -f ./*.img
	cp a.raw $'\xe4.img'
	{ head_lines 'encoding="UTF-7"' && printf 'RW 100 FLAT "\xe4.img"\nRW 60 FLAT "b.raw"\n'; } >d.vmdk
	reads
	{ head_lines 'encoding="no such"' && printf 'RW 100 FLAT "\xe4.img"\nRW 60 FLAT "b.raw"\n'; } >d.vmdk
	reads
}

@test "header keys: versions, content IDs of any form, keys that contain others" {
	for version in 1 2 3; do
		sound version=$version >d.vmdk
		reads
	done
	for cid in 3c556e8 0 00000000 fffffffe ABCDEF01 abcdef01; do
		sound CID=$cid >d.vmdk
		reads
	done
	sound CID=1 CID=00000001 parentCID=ffffffff parentCID=FFFFFFFF 'createType="custom"' \
		'createType="Custom"' >d.vmdk
	reads
	# qemu-img takes the first CID it finds, which is that of parentCID
	printf '%s\n' '# Disk DescriptorFile' version=1 parentCID=ffffffff CID=12345678 >d.vmdk
	extents >>d.vmdk
	reads
	sound version=3 'changeTrackPath="d-ctk.vmdk"' 'ddb.longContentID = "0"' 'ddb.uuid = "60 00"' \
		'ddb.geometry.cylinders = "16383"' 'unknown="x"' isNativeSnapshot=no >d.vmdk
	reads
	sound isNativeSnapshot=yes >d.vmdk
	reads
	for type in twoGbMaxExtentFlat 2GbMaxExtentFlat vmfs monolithicFlat vmfsSparse whatever; do
		sound "createType=\"$type\"" >d.vmdk
		reads
	done
}

@test "odd, with a warning" {
	sound 'parentFileNameHint="gone.vmdk"' >d.vmdk
	warns 'names a parent, but parentCID says there is none'
	sound 'ddb.iofilters = "emcjiraf"' >d.vmdk
	warns 'I/O filter'
	sound 'ddb.sidecars = "x_1.vmfd"' >d.vmdk
	warns 'I/O filter'
	{ sound && yes 'ddb.iofilters = "x"' | head -n 1000; } >d.vmdk
	warns 'I/O filter'
	[ "$(grep -c 'I/O filter' <<<"$stderr")" = 1 ]
	cat a.raw b.raw | tail -c +513 >both.raw
	{ head_lines && printf '%s\n' 'RW 100 FLAT "a.raw" 0' 'RW 59 FLAT "b.raw" 1' \
		'RW 1 FLAT "a.raw" 99'; } >d.vmdk
	{ cat a.raw && tail -c +513 b.raw && tail -c 512 a.raw; } >want
	warns 'line 7: a.raw: bytes of it are those of line 5, too'
	"$MKVMDK" cowd c.vmdk capacity=10 alloc=all
	{ head_lines && printf '%s\n' 'RW 10 VMFSSPARSE "c.vmdk"' 'RW 10 VMFSSPARSE "c.vmdk"'; } >d.vmdk
	head -c 5120 a.raw >want
	head -c 5120 a.raw >>want
	warns 'line 6: c.vmdk: bytes of it are those of line 5, too'
	cat a.raw b.raw >want
}

# bats test_tags=slow
@test "at the limits: 4096 extents, a line of 4096 bytes, 1 MiB of text" {
	"$MKVMDK" pattern want 4096 5
	cp want many.raw
	for ((i = 0; i < 4096; i++)); do
		printf 'RW 1 FLAT "many.raw" %d\n' $i
	done >lines
	{ head_lines && cat lines; } >d.vmdk
	reads
	{ head_lines && cat lines && echo 'RW 1 FLAT "a.raw" 0'; } >d.vmdk
	refused 'line 4101: more than 4096 extents'
	{ head_lines && for i in {1..5000}; do echo 'RW 1 ZERO'; done; } >d.vmdk
	refused 'more than 4096 extents'
	cat a.raw b.raw >want
	long=$(printf '%4095s' '')
	{ sound && printf '#%s\n' "${long// /x}"; } >d.vmdk
	reads
	{ sound && printf '#%s\n' "${long// /x}x"; } >d.vmdk
	refused 'line 8 is longer than 4096 bytes'
	{ sound && yes '# some comment, again and again'; } | head -c 1048576 >d.vmdk
	reads
	printf '\n' >>d.vmdk
	refused 'limit'
}

# --- what is refused ---

# Rows: words of the message, then a line that is added to a sound descriptor.
refuse_lines() {
	local words line

	while IFS='|' read -r words line; do
		echo "--- $line"
		{ sound && printf '%b\n' "$line"; } >d.vmdk
		refused "$words"
		{ sound | sed 's/$/\r/' && printf '%b\r\n' "$line"; } >d.vmdk
		refused "$words"
		# in front of the others, where it would move them
		{ printf '# Disk DescriptorFile\n' && head_lines && printf '%b\n' "$line" && extents; } >d.vmdk
		refused "$words"
	done
}

# bats test_tags=slow
@test "extent lines that are not understood" {
	refuse_lines <<-'END'
	"" is not a number of sectors|RW
	"x" is not a number of sectors|RW x FLAT "a.raw" 0
	"-5" is not a number of sectors|RW -5 FLAT "a.raw" 0
	"0x10" is not a number of sectors|RW 0x10 FLAT "a.raw" 0
	"99999999999999999999" is not a number|RW 99999999999999999999 FLAT "a.raw" 0
	too large|RW 18446744073709551615 FLAT "a.raw" 0
	too large|RW 9007199254740992 ZERO
	extent of 0 sectors|RW 0 FLAT "a.raw" 0
	extent of 0 sectors|RW 0 ZERO
	"" is not known|RW 5
	"FANCY" is not known|RW 5 FANCY "a.raw"
	"FLATS" is not known|RW 5 FLATS "a.raw" 0
	name in quotation marks is missing|RW 5 FLAT
	name in quotation marks is missing|RW 5 FLAT a.raw 0
	name in quotation marks is missing|RW 5 FLAT 'a.raw' 0
	no second quotation mark|RW 5 FLAT "a.raw
	name is empty|RW 5 FLAT "" 0
	more than two quotation marks|RW 5 FLAT "a"b.raw" 0
	more than two quotation marks|RW 5 FLAT "a.raw" 0 "id"
	no blank between file name and|RW 5 FLAT "a.raw"0
	"x" is not a number of sectors|RW 5 FLAT "a.raw" x
	"-1" is not a number of sectors|RW 5 FLAT "a.raw" -1
	out of range|RW 5 FLAT "a.raw" 9007199254740992
	takes no offset|RW 5 VMFS "a.raw" 1
	takes no offset|RW 5 VMFS "a.raw" 0 x
	behind the file name of a sparse extent|RW 5 SPARSE "a.raw" 0
	behind the file name of a sparse extent|RW 5 SESPARSE "a.raw" 0
	behind the file name of a sparse extent|RW 5 VMFSSPARSE "a.raw" 0
	a ZERO extent has no file|RW 5 ZERO "a.raw"
	NOACCESS extent with a file|NOACCESS 5 FLAT "a.raw" 0
	NOACCESS extent with a file|noaccess 5 SPARSE "a.raw"
	neither comment nor key=value nor extent|WR 5 FLAT "a.raw" 0
	neither comment nor key=value nor extent|RW5 FLAT "a.raw" 0
	neither comment nor key=value nor extent|RWX 5 FLAT "a=b.raw" 0
	neither comment nor key=value nor extent|something else
	neither comment nor key=value nor extent|= x
	neither comment nor key=value nor extent|a key = value
	neither comment nor key=value nor extent|"RW" 5 ZERO
	neither comment nor key=value nor extent|\x01 = 5
	neither comment nor key=value nor extent|caf\xc3\xa9=5
	a NUL byte in the text|RW 5 \0 ZERO
	a NUL byte in the text|x=\0y
	a carriage return within the line|RW 5\r ZERO
	END
}

@test "extents that hold no disk data, or that cannot be reached" {
	refuse_lines <<-'END'
	raw device mapping|RW 5 VMFSRDM "x-rdm.vmdk"
	raw device mapping|RW 5 VMFSRDM "x-rdmp.vmdk"
	raw device|RW 5 VMFSRAW "vmhba0:0:0:0"
	vSAN|RW 5 VSANSPARSE "vsan://52c5/"
	vVol|RW 5 VMFS "vvol://52c5/x.vmdk"
	vSAN|RW 5 VMFS "vsan://52c5-0001/d0c1/x.vmdk"
	raw device|RW 5 FLAT "/dev/sda" 0
	raw device|RW 5 FLAT "\\\\.\\PhysicalDrive0" 0
	raw device|RW 5 VMFS "/vmfs/devices/disks/naa.6000"
	END
	while read -r type words; do
		sound "createType=\"$type\"" >d.vmdk
		refused "$words"
	done <<-'END'
	vmfsRDM raw device mapping
	vmfsRawDeviceMap raw device mapping
	vmfsRDMP raw device mapping
	VMFSPASSTHROUGHRAWDEVICEMAP raw device mapping
	vmfsRaw raw device
	vsanSparse vSAN
	END
}

@test "encrypted disks" {
	refuse_lines <<-'END'
	the disk is encrypted|encryptionKeys="vmware:key/list/(pair/(null/x,HMAC,y))"
	the disk is encrypted|keyID = "x"
	the disk is encrypted|encryption.keySafe = "vmware:key/list/x"
	the disk is encrypted|ENCRYPTION.DATA="x"
	names vmwarevmcrypt|ddb.iofilters = "vmwarevmcrypt"
	names vmwarevmcrypt|ddb.iofilters = "other,VMWAREVMCRYPT"
	END
	long=$(printf '%9000s' '')
	sound "encryption.data=\"${long// /x}\"" >d.vmdk
	refused 'the disk is encrypted'
}

@test "header keys that contradict or cannot be" {
	while IFS='|' read -r words first second; do
		echo "--- $first $second"
		if [ -n "$second" ]; then
			sound "$first" "$second" >d.vmdk
		else
			sound "$first" >d.vmdk
		fi
		refused "$words"
	done <<-'END'
	descriptor version 0 is not known|version=0
	descriptor version 4 is not known|version=4
	descriptor version 4294967297 is not known|version=4294967297
	is not a number|version=1.0
	is not a number|version=
	is not 1 to 8 hex digits|CID=
	is not 1 to 8 hex digits|CID=123456789
	is not 1 to 8 hex digits|CID=0x12
	is not 1 to 8 hex digits|CID=12 34
	is not 1 to 8 hex digits|parentCID=none
	a second CID, different|CID=1|CID=2
	a second parentCID, different|parentCID=ffffffff|parentCID=1
	a second createType, different|createType="custom"|createType="vmfs"
	a second parentFileNameHint, different|parentFileNameHint="a"|parentFileNameHint="b"
	a quotation mark is left over|createType="custom
	a quotation mark is left over|parentFileNameHint="a"b"
	native snapshot|parentCID=1|isNativeSnapshot="yes"
	END
	sound parentCID=12 'parentFileNameHint="p.vmdk"' | sed 's/RW 60.*/RW 60 ZERO/' >d.vmdk
	refused 'a ZERO extent in a disk that has a parent'
	{ printf '# Disk DescriptorFile\n' && extents; } >d.vmdk
	refused 'no version line'
	head_lines >d.vmdk
	refused 'lists no extent'
	{ head_lines && echo 'NOACCESS 0 ZERO'; } >d.vmdk
	refused 'lists no extent'
	printf '# Disk DescriptorFile\n' >d.vmdk
	refused 'no version line'
	# the total, not one of them
	{
		head_lines
		for i in {1..9}; do
			echo 'RW 1125899906842624 ZERO'
		done
	} >d.vmdk
	refused 'too large'
}

@test "files listed that are too short, missing, or something else" {
	{ head_lines && echo 'RW 101 FLAT "a.raw" 0'; } >d.vmdk
	refused 'line 5: a.raw has 51200 bytes, the line needs 0 to 51712'
	{ head_lines && echo 'RW 100 FLAT "a.raw" 1'; } >d.vmdk
	refused 'line 5: a.raw has 51200 bytes, the line needs 512 to 51712'
	{ head_lines && echo 'RW 5 VMFS "missing-flat.vmdk"'; } >d.vmdk
	refused 'line 5: its extent is not there: missing-flat.vmdk'
	mkdir dir
	{ head_lines && echo 'RW 5 FLAT "dir" 0'; } >d.vmdk
	refused 'is a directory'
	mkfifo fifo
	{ head_lines && echo 'RW 5 FLAT "fifo" 0'; } >d.vmdk
	refused 'FIFO'
	"$MKVMDK" cowd c.vmdk capacity=100 alloc=all
	"$MKVMDK" hosted h.vmdk capacity=100 alloc=all
	"$MKVMDK" sesparse s.vmdk capacity=100 alloc=all
	gzip -c h.vmdk >h.gz
	sound >text.vmdk
	while read -r type file words; do
		{ head_lines && echo "RW 100 $type \"$file\""; } >d.vmdk
		refused "$words"
	done <<-'END'
	SPARSE c.vmdk line 5: c.vmdk is not a SPARSE extent
	SPARSE s.vmdk line 5: s.vmdk is not a SPARSE extent
	VMFSSPARSE h.vmdk line 5: h.vmdk is not a VMFSSPARSE extent
	VMFSSPARSE s.vmdk line 5: s.vmdk is not a VMFSSPARSE extent
	SESPARSE c.vmdk line 5: c.vmdk is not a SESPARSE extent
	SPARSE text.vmdk line 5: text.vmdk is not a SPARSE extent
	SPARSE a.raw a.raw: is not a recognized VMDK
	SPARSE h.gz h.gz: is compressed with gzip
	SPARSE d.vmdk line 5: d.vmdk is not a SPARSE extent
	END
}

# bats test_tags=slow
@test "more extents than files may be open" {
	for i in {1..300}; do
		cp a.raw "x$i.raw"
		echo "RW 100 FLAT \"x$i.raw\" 0"
	done >lines
	{ head_lines && cat lines; } >d.vmdk
	for i in {1..300}; do
		cat a.raw
	done >want
	(
		ulimit -Sn 200
		reads
	)
	rm got
	(
		ulimit -n 200
		refused 'Too many open files'
	)
}

@test "an extent whose own size is not that of its line" {
	"$MKVMDK" cowd c.vmdk capacity=1000 grain=16 alloc=all
	"$MKVMDK" hosted h.vmdk capacity=1000 grain=16 alloc=all
	"$MKVMDK" sesparse s.vmdk capacity=1000 alloc=all
	for row in 'VMFSSPARSE c 16' 'SPARSE h 16' 'SESPARSE s 8'; do
		read -r type name grain <<<"$row"
		for size in 1 $((1000 - grain)) 1001 1016 100000; do
			{ head_lines && echo "RW $size $type \"$name.vmdk\""; } >d.vmdk
			refused "line 5: $name.vmdk holds 1000 sectors, the line says $size"
		done
		# a header may say what whole grains hold
		for size in 1000 999 $((1001 - grain)); do
			{ head_lines && echo "RW $size $type \"$name.vmdk\"" &&
				echo 'RW 60 FLAT "b.raw"'; } >d.vmdk
			"$MKVMDK" pattern x.raw 1000 1
			{ head -c $((size * 512)) x.raw && cat b.raw; } >want
			rm -f got
			run -0 vs -q --create d.vmdk got
			same want got
		done
	done
}

@test "an embedded descriptor: another size, several extents, a damaged one" {
	"$MKVMDK" pattern target 2000 9
	cp target before
	while IFS='|' read -r words line; do
		"$MKVMDK" hosted h.vmdk capacity=1000 alloc=all
		dd if=/dev/zero of=h.vmdk bs=512 seek=1 count=20 conv=notrunc status=none
		{ head_lines && printf '%b\n' "$line"; } |
			dd of=h.vmdk bs=512 seek=1 conv=notrunc status=none
		run -2 --separate-stderr vs h.vmdk target
		[[ $stderr == "vmdksync: h.vmdk: "*"$words"* ]]
		same target before
	done <<-'END'
	holds 1000 sectors, but its descriptor says 1001|RW 1001 SPARSE "h.vmdk"
	holds 1000 sectors, but its descriptor says 872|RW 872 SPARSE "h.vmdk"
	lists 2 extents|RW 1000 SPARSE "h.vmdk"\nRW 5 ZERO
	a second CID|CID=9\nRW 1000 SPARSE "h.vmdk"
	neither comment nor|RW 1000 SPARSE "h.vmdk"\nhello
	encrypted|encryptionKeys=x\nRW 1000 SPARSE "h.vmdk"
	is not known|RW 1000 FANCY "h.vmdk"
	line 5: its embedded descriptor lists an extent that is not the file itself|RW 1000 FLAT "a.raw" 0
	line 5: its embedded descriptor lists an extent that is not the file itself|RW 1000 ZERO
	line 5: its embedded descriptor lists an extent that is not the file itself|RW 1000 VMFSSPARSE "h.vmdk"
	END
	# no size of its own, or none at all: the header counts; a name that exists nowhere is no matter
	"$MKVMDK" pattern want 1000 1
	for line in 'RW 0 SPARSE "h.vmdk"' 'RDONLY 1000 SPARSE "generated-stream.vmdk"' \
		'RW 1000 SPARSE "/dev/sda"' 'RW 990 SPARSE "x"'; do
		"$MKVMDK" hosted h.vmdk capacity=1000 alloc=all
		dd if=/dev/zero of=h.vmdk bs=512 seek=1 count=20 conv=notrunc status=none
		{ head_lines && printf '%s\n' "$line"; } |
			dd of=h.vmdk bs=512 seek=1 conv=notrunc status=none
		rm -f got
		run -0 vs -q --create h.vmdk got
		cmp -n $((990 * 512)) got want
	done
	dd if=/dev/zero of=h.vmdk bs=512 seek=1 count=20 conv=notrunc status=none
	rm -f got
	run -0 vs -q --create h.vmdk got
	same got want
}

@test "not text at all, or text that is no descriptor" {
	sound | sed 's/./&\x00/g' >d.vmdk
	refused 'is not a recognized VMDK'
	{ printf '\xff\xfe' && sound | sed 's/./&\x00/g'; } >d.vmdk
	refused 'is not a recognized VMDK'
	printf 'createType="custom"\nversion=1\n' >d.vmdk
	refused 'is not a recognized VMDK'
	printf 'RW 100 FLAT "a.raw" 0\n' >d.vmdk
	refused 'is not a recognized VMDK'
	# a sound one, and then the bytes of another file
	{ sound && head -c 2000 a.raw; } >d.vmdk
	refused 'line '
	{ sound && head -c 2000000 /dev/zero && sound; } >d.vmdk
	refused 'limit'
}

@test "files of other kinds, by their name or their first bytes" {
	{ head -c 32768 /dev/zero && printf '\001CD001' && head -c 40000 /dev/zero; } >d.vmdk
	refused 'is an ISO image'
	"$MKVMDK" hosted h.vmdk capacity=1000 alloc=all
	tar cf x.ova h.vmdk
	for file in h.vmdk x.ova a.raw; do
		gzip -c "$file" >d.vmdk
		refused 'is compressed with gzip'
	done
	sound | gzip >d.vmdk
	refused 'is compressed with gzip'
	cp x.ova d.vmdk
	refused 'is a tar archive (an OVA?)'
	printf '\xca\xfe\xba\xbe' >d.vmdk
	refused 'is not a recognized VMDK'
	: >d.vmdk
	refused 'is empty'
	printf 'k' >d.vmdk
	refused 'is not a recognized VMDK'
}

@test "hosted legacy COW disks, single and in pieces" {
	# what Workstation 2 and 3 wrote: version 1 to 3, flags of root, child, multi-file
	while read -r words version flags grain; do
		"$MKVMDK" cowd d.vmdk capacity=1000 alloc=5 version="$version" flags="$flags" \
			grain="$grain" hdr=gdes:$(((1000 + 512 * grain - 1) / (512 * grain)))
		refused "${words//_/ }"
	done <<-'END'
	VMware_Workstation 3 0x13 128
	VMware_Workstation 3 0x1a 128
	VMware_Workstation 2 0x12 128
	are_not_those_of_an_ESX_delta 1 0x2 32
	are_not_those_of_an_ESX_delta 1 0xb 32
	END
	"$MKVMDK" cowd d.vmdk capacity=40000 alloc=5 grain=32 gtes=512 hdr=gdes:3
	refused 'VMware 2'
}
