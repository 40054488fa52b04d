# SPDX-License-Identifier: MIT
# What people see on a terminal of 80 and of 40 columns, as text.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# on_screen COLUMNS COMMAND: what a terminal of that width shows; neither colour nor carriage returns
on_screen() {
	requires script
	run script -qec "stty cols $1; $2" /dev/null
	raw=$output output=${output//$'\r'/}
	columns=$1
}

# shows [long]: the last run showed what standard input says, to the letter; no line breaks at the edge
shows() {
	[ "${1-}" = long ] || [ "$(LC_ALL=C.UTF-8 wc -L <<<"$output")" -lt "$columns" ]
	diff <(sed 's/ *$//') <(printf '%s\n' "$output" | sed 's/ *$//')
}

# layers: a disk of 80 MiB, a base without its last quarter, and two deltas
layers() {
	"$MKVMDK" hosted base.vmdk capacity=80M grain=128 alloc=0-959 seed=1 parentcid=ffffffff
	"$MKVMDK" hosted one.vmdk capacity=80M grain=128 alloc=0-159,640-719 zero=320-639 version=2 flags=5 seed=2 \
		parentcid=aabbccdd parent=base.vmdk
	"$MKVMDK" hosted two.vmdk capacity=80M grain=128 alloc=every:2 seed=3 parentcid=aabbccdd \
		parent=one.vmdk
}

@test "--map on a terminal is a picture" {
	layers
	TERM=dumb LC_ALL=C.UTF-8 on_screen 80 "$VMDKSYNC --map two.vmdk"
	shows <<-'END'
	two.vmdk   ▅▄▅▅▄▅▄▅▄▄▅▄▅▄▄▅▄▅▄▅▅▄▅▄▅▄▄▅▄▅▄▄▅▄▅▄▅▅▄▅▄▅▄▄▅▄▅▄▄▅▄▅▄▅▅▄▅▄▅▄▄▅▄▅▄▄▅▄
	one.vmdk   ▄▅▄▄▅▄▅▄▃        00000000000000000▄▅▄▄▂
	base.vmdk          ▂▅▄▅▄▅▅▄▅                     ▃▄▅▄▄▅▄▅▄▅▅▄▅
	           0                20.0 MiB         40.0 MiB         60.0 MiB 80.0 MiB
	A column is 1.2 MiB of the disk: ▁ little, █ all of it, 0 zeros only.
	END
	on_screen 80 "$VMDKSYNC --map two.vmdk"
	shows <<-'END'
	two.vmdk   +=++=+=+==+=+==+=+=++=+=+==+=+==+=+=++=+=+==+=+==+=+=++=+=+==+=+==+=
	one.vmdk   =+==+=+=-        00000000000000000=+==:
	base.vmdk          :+=+=++=+                     -=+==+=+=++=+
	           0                20.0 MiB         40.0 MiB         60.0 MiB 80.0 MiB
	A column is 1.2 MiB of the disk: . little, @ all of it, 0 zeros only.
	END
	LC_ALL=C.UTF-8 on_screen 40 "$VMDKSYNC --map two.vmdk"
	shows <<-'END'
	two.vmdk   ▅▅▅▄▄▄▄▅▅▅▄▄▄▄▅▅▅▄▄▄▄▅▅▅▄▄▄▄
	one.vmdk   ▄▄▄▃   0000000▄▄
	base.vmdk     ▂▅▅▅        ▁▄▄▅▅▅
	           0                   80.0 MiB
	A column is 2.9 MiB of the disk:
	▁ little, █ all of it, 0 zeros only.
	END
	# a list where it is asked for, or where there is no terminal
	vs --map two.vmdk >list
	on_screen 80 "$VMDKSYNC --map=list two.vmdk"
	shows long <list
	vs --map=list two.vmdk | diff list -
	on_screen 80 "$VMDKSYNC --map --json two.vmdk"
	shows long < <(vs --map --json two.vmdk)
	# damage is found before anything is drawn
	printf '\377\377\377' | dd of=one.vmdk bs=1 seek=60 conv=notrunc status=none
	on_screen 80 "$VMDKSYNC --map two.vmdk"
	[ "$status" = 2 ]
	[[ $output != *@* ]]
}

@test "a long name is cut at its front" {
	"$MKVMDK" cowd a-name-that-is-much-too-long-for-a-terminal-delta.vmdk capacity=2048 alloc=5-9
	on_screen 40 "$VMDKSYNC --map a-*.vmdk"
	[[ ${lines[0]} =~ ^~l-delta.vmdk\ {2}\.* ]]
}

@test "--info on a terminal is a table, and where that is narrow a list" {
	layers
	on_screen 80 "$VMDKSYNC --info two.vmdk"
	shows <<-'END'
	two.vmdk: 80.0 MiB (83886080 bytes), holds 60.0 MiB in 1120 runs
	  image      kind                size      holds  CID       checked
	  two.vmdk   hosted sparse   80.0 MiB   40.0 MiB  aabbccdd
	  one.vmdk   hosted sparse   80.0 MiB   15.0 MiB  aabbccdd  yes
	  base.vmdk  hosted sparse   80.0 MiB   60.0 MiB  aabbccdd  yes
	  next: vmdksync --dry-run --chain two.vmdk TARGET
	END
	on_screen 40 "$VMDKSYNC --info two.vmdk"
	shows long <<-'END'
	two.vmdk: 80.0 MiB, holds 60.0 MiB
	  two.vmdk
	    hosted sparse, holds 40.0 MiB
	    CID aabbccdd
	  one.vmdk
	    hosted sparse, holds 15.0 MiB
	    CID aabbccdd, checked: yes
	  base.vmdk
	    hosted sparse, holds 60.0 MiB
	    CID aabbccdd, checked: yes
	  next: vmdksync --dry-run --chain two.vmdk TARGET
	END
	mv two.vmdk a-name-that-is-much-too-long-for-a-terminal.vmdk
	on_screen 80 "$VMDKSYNC --info a-*.vmdk"
	[[ ${lines[2]} =~ ^\ {2}~[a-z-]*-terminal.vmdk\ {2}hosted\ sparse ]]
}

# card COLUMNS ARG...: what a dry run shows there; how much is free differs
card() {
	on_screen "$1" "PATH=${VMDKSYNC%/*}:$PATH; vmdksync --dry-run ${*:2}"
	[ "$status" = 0 ]
	output=$(sed -E 's/[0-9.]+ [KMGT]iB are free/10 GiB are free/' <<<"$output")
}

@test "--dry-run shows a card, and the command that comes next" {
	layers
	truncate -s 80M t.raw
	vs -q --full base.vmdk t.raw
	card 80 --chain two.vmdk t.raw
	shows <<-'END'
	target   t.raw: sparse raw file, 80.0 MiB (83886080 bytes)
	         holds data of an unknown kind
	chain    two.vmdk: hosted sparse, grains of 65536 bytes
	         one.vmdk: hosted sparse, grains of 65536 bytes
	         base.vmdk: hosted sparse, grains of 65536 bytes; not written
	disk     80.0 MiB (83886080 bytes)
	write    47.5 MiB of data (49807360 bytes) and 10.0 MiB of zeros (10485760
	         bytes) in 920 runs
	parent   the target holds it, by 100 samples
	present  the target holds about 0 % of the delta's data already, by 190 samples
	undo     undo.vmdk: may need up to 81.0 MiB; 10 GiB are free there
	time     about 1 s at 100 MiB/s, 1 s at 1000 MiB/s: the slower of reading and
	         writing counts
	vmdksync: t.raw: dry run, nothing was written
	Next:
	  vmdksync --undo=undo.vmdk --chain two.vmdk t.raw
	END
	card 40 --chain two.vmdk t.raw
	shows long <<-'END'
	target   t.raw: sparse raw file, 80.0
	         MiB (83886080 bytes)
	         holds data of an unknown kind
	chain    two.vmdk: hosted sparse,
	         grains of 65536 bytes
	         one.vmdk: hosted sparse,
	         grains of 65536 bytes
	         base.vmdk: hosted sparse,
	         grains of 65536 bytes; not
	         written
	disk     80.0 MiB (83886080 bytes)
	write    47.5 MiB of data (49807360
	         bytes) and 10.0 MiB of zeros
	         (10485760 bytes) in 920 runs
	parent   the target holds it, by 100
	         samples
	present  the target holds about 0 % of
	         the delta's data already, by
	         190 samples
	undo     undo.vmdk: may need up to 81.0
	         MiB; 10 GiB are free there
	time     about 1 s at 100 MiB/s, 1 s at
	         1000 MiB/s: the slower of
	         reading and writing counts
	vmdksync: t.raw: dry run, nothing was written
	Next:
	  vmdksync --undo=undo.vmdk --chain two.vmdk t.raw
	END
	# the same to the letter where it goes into a file, and nothing with --quiet
	vs --dry-run --chain two.vmdk t.raw 2>err
	[ "$(tail -n 1 err)" = "  $VMDKSYNC --undo=undo.vmdk --chain two.vmdk t.raw" ]
	run -0 vs -q --dry-run --chain two.vmdk t.raw
	[ -z "$output" ]
	# it can be run as it stands, whatever the names are
	cp two.vmdk "my 'delta'.vmdk"
	cp t.raw -- --create
	: >undo.vmdk
	vs --dry-run --chain -v -- "my 'delta'.vmdk" --create 2>err
	bash -c "$(tail -n 1 err)" 2>said
	grep -q "on stable storage" said
	[ -s undo-2.vmdk ]
	vs -q --verify -- "my 'delta'.vmdk" --create
	# a way back, and a new disk, need no undo log
	vs --dry-run undo-2.vmdk ./--create 2>err
	[ "$(tail -n 1 err)" = "  $VMDKSYNC undo-2.vmdk ./--create" ]
	vs --dry-run --full --create two.vmdk new.raw 2>err
	grep -q '^target   new.raw: new sparse file, 80.0 MiB' err
	[ "$(tail -n 1 err)" = "  $VMDKSYNC --full --create two.vmdk new.raw" ]
	[ ! -e new.raw ]
}

@test "the card tells what is on the target" {
	requires mkfs.ext4 mkfs.xfs mkfs.btrfs mkswap sfdisk
	"$MKVMDK" cowd d.vmdk capacity=512 alloc=1
	while IFS=@ read -r words what; do
		rm -f t.raw
		truncate -s 320M t.raw
		PATH=$PATH:/sbin:/usr/sbin bash -c "$words" >/dev/null 2>&1
		run -0 vs --dry-run d.vmdk t.raw
		echo "$words"
		[[ $output == *$'\n         holds '"$what"* ]]
	done <<-'END'
	mkfs.ext4 -q t.raw@an ext2, ext3 or ext4 file system
	mkfs.xfs -q t.raw@an XFS file system
	mkfs.btrfs -q t.raw@a Btrfs file system
	mkswap t.raw@a swap area
	true@nothing: no block of it is allocated
	echo ,,L | sfdisk -q t.raw@an MBR partition table
	echo ,,L | sfdisk -q -X gpt t.raw@a GPT partition table
	echo text >t.raw; truncate -s 1M t.raw@data of an unknown kind
	END
}

@test "the card of a device" {
	requires loop
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=1
	truncate -s 1M disk.raw
	dev=$(loopdev disk.raw)
	run -0 vs --dry-run d.vmdk "$dev"
	[[ $output == *"target   $dev: block device ($PWD/disk.raw), 1.0 MiB (1048576 bytes)"$'\n         holds zeros at its start; not mounted\n'* ]]
}

@test "colour: DIFFERENT and warnings, on a terminal alone" {
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=1-9 gte=1:1
	truncate -s 1M t.raw
	red=$'\e[31mDIFFERENT\e[0m' yellow=$'vmdksync: \e[33mwarning:\e[0m '
	TERM=xterm on_screen 80 "$VMDKSYNC --verify d.vmdk t.raw"
	[ "$status" = 1 ]
	[[ $output == *"$red"* && $output == *"$yellow"* ]]
	for set in 'TERM=dumb' 'TERM=xterm NO_COLOR=1'; do
		on_screen 80 "env $set $VMDKSYNC --verify d.vmdk t.raw"
		[[ $output == *DIFFERENT* && $output == *'warning: '* && $output != *$'\e'* ]]
	done
	TERM=xterm run -1 vs --verify d.vmdk t.raw
	[[ $output == *DIFFERENT* && $output == *'warning: '* && $output != *$'\e'* ]]
}

@test "progress on 80 and on 40 columns" {
	requires strace
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=every:32
	for columns in 80 40; do
		rm -f t.raw
		truncate -s 1M t.raw
		on_screen "$columns" "strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=20000 \
			$VMDKSYNC --no-uring d.vmdk t.raw"
		line=$(tr '\r' '\n' <<<"$raw" | sed 's/\x1b\[J//g' | grep ' left$' | tail -n 1)
		echo "$columns: $line"
		case $columns in
		80) [[ $line =~ ^vmdksync\ +[0-9]+%\ \ [0-9.]+\ [KMG]iB\ /\ [0-9.]+\ [KMG]iB\ \ [0-9.]+\ [KMG]iB/s\ \ [0-9:]+\ left$ ]] ;;
		40) [[ $line =~ ^\ *[0-9]+%\ \ [0-9.]+\ [KMG]iB\ \ [0-9.]+\ [KMG]iB/s\ \ [0-9:]+\ left$ ]] ;;
		esac
		[ "${#line}" -lt "$columns" ]
	done
}
