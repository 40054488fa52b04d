#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the seed corpus of each fuzz target: DIR/TARGET/*. Usage: corpus.sh MKVMDK DIR
set -eu

mkvmdk=$1
dir=$2
n=0

# seed TARGET [TAIL]: takes ./x, and behind it the byte that chooses options.
seed() {
	n=$((n + 1))
	printf '%b' "${2-}" >>x
	mv x "$1/$n"
}


# extents TARGET: recipes on standard input: FORMAT KEYS... each with the options as they are, and one
# with others.
extents() {
	tail=0
	while read -r format keys; do
		# shellcheck disable=SC2086 # words are meant
		"$mkvmdk" "$format" x $keys
		[ "$format" != sesparse ] || squeeze
		seed "$1" "\\000"
		tail=$((tail % 3 + 1))
		# shellcheck disable=SC2086
		"$mkvmdk" "$format" x $keys
		[ "$format" != sesparse ] || squeeze
		seed "$1" "\\00$tail"
	done
}

# chain FILE...: one input of several files.
chain() {
	first=1
	for f; do
		[ "$first" ] || printf '@@%s\n' "$f"
		cat "$f"
		first=
	done >x
	seed chain
	rm -f "$@"
}

# An SEsparse file without its empty stretches, see sesparse.c.
squeeze() {
	{
		dd if=x bs=4096 count=1
		dd if=x bs=4096 skip=512 count=1
		dd if=x bs=4096 skip=768 count=17
		dd if=x bs=4096 skip=1536
	} >y 2>/dev/null
	mv y x
}

mkdir -p "$dir"
cd "$dir"
mkdir -p cowd hosted sesparse streamopt descriptor chain pipe nbd checkpoint

extents cowd <<'END'
cowd capacity=100 alloc=0,5-9 zero=20-30
cowd capacity=9000 alloc=runs:9:1:9 layout=reverse
cowd capacity=4097 alloc=every:900+last unclean=1
cowd capacity=77 grain=8 alloc=all cutlast=1
cowd capacity=40 alloc=1 gte=1:1
cowd capacity=40 alloc=1 gde=0:9
cowd capacity=40 alloc=1 hdr=version:2
cowd capacity=40 alloc=none
END
extents hosted <<'END'
hosted capacity=1000 grain=8 gtes=128 alloc=0,5-9 zero=20-30
hosted capacity=3000 grain=1 gtes=512 alloc=runs:9:1:9 desc=1
hosted capacity=700 grain=2 gtes=256 alloc=random:9 rgd=0 desc=0
hosted capacity=5000 grain=8 gtes=128 tables=all version=3 alloc=last
hosted capacity=100 grain=8 gtes=128 alloc=0 rgte=0:7
hosted capacity=100 grain=8 gtes=128 alloc=0 rgde=0:7
hosted capacity=100 grain=8 gtes=128 alloc=0 unclean=1 parent=base.vmdk parentcid=12345678
END
extents sesparse <<'END'
sesparse capacity=4096 alloc=0,5-9 zero=20-30 unmapped=31-33
sesparse capacity=70000 alloc=0,last layout=random
sesparse capacity=800 alloc=all layout=reverse
sesparse capacity=800 alloc=1 gte=1:0x4000000000000001
END
extents streamopt <<'END'
stream variant=A capacity=1000 grain=8 alloc=0,5-9
stream variant=B capacity=1000 grain=8 alloc=random:20 layout=random progress=1
stream variant=C capacity=1000 grain=8 alloc=last lastgrain=short rgd=1
stream variant=A capacity=300 grain=1 alloc=random:20 poke=footer:4:0
stream variant=A capacity=300 grain=1 alloc=random:20 layout=random poke=footer:4:0
stream variant=B capacity=300 grain=8 alloc=all desc=0 trailing=3
stream variant=C capacity=300 grain=8 alloc=all bomb=1
stream variant=C capacity=300 grain=8 alloc=all noend=1
stream variant=A capacity=300 grain=8 alloc=all left=2
END
# undo logs: not finished, cut, with a barrier in the middle
for how in 0 700 4000; do
	"$mkvmdk" stream x variant=A capacity=300 grain=8 alloc=0-9 desc=0 eos=1
	size=$(wc -c <x)
	head -c $((size - 4096 - how)) x >y
	printf 'vmdksync undo log, not finished\n' | dd of=y bs=1 seek=128 conv=notrunc 2>/dev/null
	mv y x
	seed streamopt "\\000"
done

for text in \
	'RW 100 VMFSSPARSE "a-delta.vmdk"' \
	'RW 4192256 SPARSE "a-s001.vmdk"\nRW 100 FLAT "a-f002.vmdk" 7\nRW 63 ZERO' \
	'RDONLY 18446744073709551615 SESPARSE "x"\nNOACCESS 0 ZERO ' \
	'RW 100 VMFS "a b \\"c.vmdk" 0\r\n#DDB\nddb.longContentID = "0123456789abcdef0123456789abcdef"'; do
	for head in \
		'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="vmfsSparse"\n' \
		'# Disk Descriptor File\r\nversion = 3\nencoding="windows-1252"\nCID=1\nparentCID=2\nparentFileNameHint="C:\\\\VMs\\\\base.vmdk"\nchangeTrackPath="x-ctk.vmdk"\n' \
		'\0357\0273\0277#DDB\nversion=1\nencoding="UTF-8"\nCID=0\nisNativeSnapshot="no"\n'; do
		printf '%b' "$head$text\n" >x
		seed descriptor
	done
done

# top.vmdk is what is opened; its extent and parents follow
for keys in 'cowd alloc=0-3 zero=5-9' 'hosted grain=1 gtes=128 alloc=0-3'; do
	# shellcheck disable=SC2086
	"$mkvmdk" ${keys%% *} delta.vmdk ${keys#* } capacity=16 descriptor=top.vmdk base=flat.vmdk
	head -c 8192 /dev/zero >flat.vmdk
	sed 's/^RW.*/RW 8 FLAT "flat.vmdk" 0\nRW 8 FLAT "flat.vmdk" 8/' top-base.vmdk >y
	chain top.vmdk delta.vmdk top-base.vmdk flat.vmdk
	mv y top.vmdk
	head -c 8192 /dev/zero >flat.vmdk
	chain top.vmdk flat.vmdk
done
"$mkvmdk" stream top.vmdk variant=A capacity=200 grain=8 alloc=0-3
chain top.vmdk

# through a pipe: two bytes in front that choose how
for head in '\000\000' '\003\000' '\001\001' '\000\002' '\006\002' '\011\106' '\014\000' '\017\002'; do
	while read -r format keys; do
		# shellcheck disable=SC2086
		"$mkvmdk" "$format" y $keys
		{
			printf '%b' "$head"
			cat y
		} >x
		seed pipe
	done <<-'END'
		cowd capacity=100 alloc=0,5-9 zero=20-30
		cowd capacity=900 alloc=random:90 layout=random
		cowd capacity=40 alloc=none
		hosted capacity=700 grain=2 gtes=128 alloc=random:9 zero=20-30
		hosted capacity=700 grain=8 gtes=128 alloc=random:30 layout=reverse
		stream variant=A capacity=1000 grain=8 alloc=random:20 layout=random
		stream variant=C capacity=1000 grain=8 alloc=last lastgrain=short
		cowd capacity=500 alloc=all layout=runs
		hosted capacity=500 grain=4 gtes=128 alloc=all layout=tables-last
		stream variant=A capacity=300 grain=8 alloc=all poke=gt:0-500:4:4 poke=gt:0-512:8:9999
	END
done
rm -f y

# answers of a server: requests have the cookies 64, 129, 194 ... and 512 bytes at 0, 512, 1024 ...
simple='\147\104\146\230'
chunk='\146\216\063\357'
for head in '\000\000\001' '\001\377\003' '\001\014\377'; do
	for reply in \
		"$simple\000\000\000\000\000\000\000\000\000\000\000\100" \
		"$simple\000\000\000\034\000\000\000\000\000\000\000\201" \
		"$chunk\000\001\000\000\000\000\000\000\000\000\000\201\000\000\000\000" \
		"$chunk\000\001\000\002\000\000\000\000\000\000\000\100\000\000\000\014\000\000\000\000\000\000\000\000\000\000\002\000" \
		"$chunk\000\001\000\001\000\000\000\000\000\000\000\100\000\000\002\010\000\000\000\000\000\000\000\000" \
		"$chunk\000\001\200\001\000\000\000\000\000\000\000\100\000\000\000\011\000\000\000\005\000\003bad"; do
		{
			printf '%b' "$head$reply"
			head -c 512 /dev/zero
		} >x
		seed nbd
	done
done

# checkpoints without their checksums, which the target adds
while read -r input target durable; do
	printf 'vmdksync checkpoint 1\ninput %s\ntarget %s\ndurable %s\n' \
		"$(echo "$input" | tr , ' ')" "$(echo "$target" | tr , ' ')" "$(echo "$durable" | tr , ' ')" >x
	seed checkpoint
done <<-'END'
	stream,1073741824,0000000000000000 file,1073741824,12,0,00000000 3145728,restart,1048576
	stream,1073741824,0000000000000000 device,1073741824,64768,9,0badcafe 0,restart,0
	files,1073741824,0123456789abcdef nbd,1073741824,305419896,0,00000000 4096,restart,0
	files,512,ffffffffffffffff file,18446744073709551615,1,0,00000000 512,restart,0
END
