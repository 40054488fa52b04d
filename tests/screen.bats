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
	output=${output//$'\r'/}
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
