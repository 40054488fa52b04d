# SPDX-License-Identifier: MIT
# shellcheck disable=SC2002 # a pipe is what is tested
# A plain disk as input: a base that is copied whole, from a file and from a stream.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# disk NAME SECTORS: data, holes, zeros that are written, short and long, also at odd places
disk() {
	"$MKVMDK" pattern "$1" "$2" 3
	fallocate --punch-hole --offset 5M --length 3M "$1"
	zeros "$1" 9000001 200000
	zeros "$1" 9500000 3000
	zeros "$1" 12M 70000
	zeros "$1" 2097152 65536
	zeros "$1" $((4 * 1048576 - 40000)) 60000
}

# zeros FILE AT LENGTH
zeros() {
	dd if=/dev/zero of="$1" bs=64K seek="$2" count="$3" oflag=seek_bytes iflag=count_bytes,fullblock \
		conv=notrunc status=none
}

# disks: some, one of them with a last sector that is odd
disks() {
	disk mixed 40000
	"$MKVMDK" pattern full $((9 * 2048 + 1)) 4
	truncate -s 20M empty
	truncate -s 33M island
	"$MKVMDK" pattern part 8 5
	dd if=part of=island bs=4K seek=3001 conv=notrunc status=none
	dd if=/dev/zero of=written bs=1M count=9 status=none
}

# copy FROM DISK TARGET [OPTION...]: FROM is file, pipe or gzip
copy() {
	local size

	size=$(stat -c %s "$2")
	case $1 in
	file) vs -q --raw "${@:4}" "$2" "$3" ;;
	pipe) cat "$2" | vs -q --raw --expect-size="$size" "${@:4}" - "$3" ;;
	gzip) gzip -1c "$2" | vs -q --raw=gzip --expect-size="$size" "${@:4}" - "$3" ;;
	esac
}

allocated() {
	echo $(($(stat -c %b "$1") * 512))
}

# data FILE: bytes of its 4 KiB blocks that hold anything but zeros
data() {
	local thin=$BATS_TEST_TMPDIR/.thin

	cp --sparse=never "$1" "$thin"
	fallocate --dig-holes "$thin"
	allocated "$thin"
	rm "$thin"
}

@test "every disk, from a file and a pipe, onto new, sparse and allocated files" {
	disks
	for d in mixed full empty island written; do
		for from in file pipe gzip; do
			for mode in '' --no-uring; do
				echo "--- $d $from $mode"
				# shellcheck disable=SC2086
				copy $from $d new --create $mode
				same $d new
				truncate -s "$(stat -c %s $d)" thin
				# shellcheck disable=SC2086
				copy $from $d thin $mode
				same $d thin
				"$MKVMDK" pattern old $(($(stat -c %s $d) / 512)) 6
				# shellcheck disable=SC2086
				copy $from $d old $mode
				same $d old
				rm new thin old
			done
		done
	done
}

@test "a thin target takes no more room than the data of the source, and old data go" {
	disks
	for d in mixed full empty island written; do
		for from in file pipe; do
			# where a file has no holes its zeros are looked for in steps of 64 KiB
			room=$([ $from = file ] && allocated $d || data $d)
			echo "--- $d $from: $room"
			copy $from $d new --create
			[ "$(allocated new)" -le "$room" ]
			rm new
		done
		truncate -s "$(stat -c %s $d)" old
		dd if=/dev/urandom of=old bs=1M seek=2 count=3 conv=notrunc status=none
		copy pipe $d old
		same $d old
		rm old
	done
}

@test "loop devices with sectors of 512 and 4096 bytes" {
	requires root loop
	disks
	for sector in 512 4096; do
		for d in mixed full; do
			for from in file pipe; do
				echo "--- $sector $d $from"
				"$MKVMDK" pattern backing 45056 7
				dev=$(loopdev backing $sector)
				copy $from $d "$dev" --read-back
				unloop "$dev"
				cmp -n "$(stat -c %s $d)" $d backing
				# what lies behind it stays
				"$MKVMDK" pattern was 45056 7
				cmp -i "$(stat -c %s $d)" was backing
			done
		done
	done
}

@test "a qcow2 file behind an NBD server" {
	requires qemu-img qemu-storage-daemon
	disks
	short_dir
	for d in mixed full; do
		for from in file pipe; do
			echo "--- $d $from"
			qemu-img create -q -f qcow2 d.qcow2 "$(stat -c %s $d)"
			qemu-storage-daemon --blockdev driver=file,filename=d.qcow2,node-name=f,discard=unmap \
				--blockdev driver=qcow2,file=f,node-name=q,discard=unmap \
				--nbd-server addr.type=unix,addr.path="$SHORT_DIR/s" \
				--export type=nbd,id=e,node-name=q,writable=on,name=d 3>&- 4>&- &
			echo $! >pids
			until_true test -S "$SHORT_DIR/s"
			copy $from $d "nbd+unix:///d?socket=$SHORT_DIR/s" --read-back
			kill "$(<pids)"
			wait "$(<pids)" || :
			rm -f pids "$SHORT_DIR/s"
			qemu-img convert -f qcow2 -O raw d.qcow2 is
			same $d is
			[ "$(qemu-img map --output=json d.qcow2 |
				python3 -c 'import json, sys; print(sum(x["length"] for x in json.load(sys.stdin) if x["data"]))')" \
				-le $(($(data $d) + 1048576)) ]
			rm d.qcow2 is
		done
	done
}

@test "with an undo log, which brings the old disk back" {
	disks
	for from in file pipe; do
		"$MKVMDK" pattern old 40000 9
		fallocate --punch-hole --offset 1M --length 2M old
		cp --sparse=always old target
		copy $from mixed target --undo=undo.vmdk --read-back
		same mixed target
		vs -q undo.vmdk target
		same old target
		rm undo.vmdk
	done
}

@test "verify compares a file with the target, dry-run writes nothing, JSON says what was done" {
	requires python3
	disks
	copy file mixed target --create
	run -0 vs --raw --verify mixed target
	[[ $output == *'equal to mixed: 19.5 MiB'*'100.0 % of the disk'* ]]
	printf x | dd of=target bs=1 seek=5000000 conv=notrunc status=none
	run -1 --separate-stderr vs --raw --verify mixed target
	[[ $output == *'from sector 9765 on); expected: mixed' ]]
	cp target was
	run -0 vs --raw --dry-run mixed target
	[[ $output == *'dry run, nothing was written'* ]]
	run -0 vs --raw --dry-run --expect-size=20480000 - target < <(cat mixed)
	run -2 vs --raw --dry-run --expect-size=20480000 - target < <(head -c 9M mixed)
	[[ $output == *'ended after 9437184 of 20480000 bytes: 11042816 (10.5 MiB) are missing: did the sender fail?' ]]
	same target was
	vs -q --json --raw --expect-size=20480000 - target < <(cat mixed) >out
	python3 - <<-'END'
	import json
	o = json.load(open("out"))
	assert o["job"] == "apply" and o["full_disk"] and o["size"] == 20480000 and o["received"] == 20480000
	assert o["written"] + o["zeroed"] == 20480000 and o["zeroed"] > 3 << 20, o
	END
	same target mixed
	# progress is of all of the disk
	vs -q --progress=json:3 --raw --expect-size=20480000 - target < <(cat mixed) 3>progress
	[[ $(tail -n 1 progress) == '{"bytes":20480000,"total":20480000,'* ]]
}

@test "a stream that is shorter or longer than expected: exit 3, and how much" {
	disks
	"$MKVMDK" pattern old 45056 9
	for size in 1 4095 65537 $((4 << 20)) $((20480000 - 1)); do
		cp old target
		run -3 vs --raw --expect-size=20480000 - target < <(head -c $size mixed)
		[[ $output == *"ended after $size of 20480000 bytes: $((20480000 - size)) ("*") are missing"* ]]
		cmp -n $size mixed target
		cmp -i $size old target
	done
	cp old target
	run -2 vs --raw --expect-size=20480000 - target </dev/null
	same old target
	run -3 vs --raw --expect-size=20480000 - target < <(cat mixed; echo)
	[[ $output == *'has more than the 20480000 bytes expected'* ]]
	cmp -n 20480000 mixed target
	cmp -i 20480000 old target
	# one that has no end
	run -3 timeout 60 "$VMDKSYNC" --raw --expect-size=1M - target </dev/zero
	cmp -i 20480000 old target
	# all is checked before the first write
	cp old target
	run -2 vs --raw --spool-first --expect-size=20480000 - target < <(head -c 9M mixed)
	run -2 vs --raw --spool-first --expect-size=1M - target < <(head -c 9M mixed)
	same old target
	copy pipe mixed target --spool-first
	cmp -n 20480000 mixed target
}

@test "a raw stream has to be announced, whole sectors, and fit" {
	disks
	"$MKVMDK" pattern target 2048 9
	cp target old
	run -2 vs --raw - target < <(cat full)
	[[ $output == 'vmdksync: standard input: --raw needs --expect-size=N for what a pipe brings'* ]]
	run -2 vs --raw --spool-first - target < <(cat full)
	run -2 vs --raw --expect-size=1000 - target < <(cat full)
	[[ $output == *'1000 bytes are not a whole number of sectors'* ]]
	head -c 1000 full >odd
	run -2 vs --raw odd target
	[[ $output == *'1000 bytes are not a whole number of sectors'* ]]
	: >none
	run -2 vs --raw none target
	[[ $output == *'none: is empty (0 bytes)' ]]
	run -2 vs --raw --expect-size=512 - target </dev/null
	run -2 vs --raw full target
	[[ $output == *'target: has 1048576 bytes, the disk needs 9437696' ]]
	run -2 vs --raw --expect-size=9437696 - target < <(cat full)
	run -2 vs --raw --expect-size=1M full target
	[[ $output == *'has 9437696 bytes, but 1048576 were expected'* ]]
	run -2 vs --raw mixed full target
	run -2 vs --raw=zstd full target
	for option in --chain --full --base=mixed; do
		run -2 vs --raw $option full target
		[[ $output == *"${option%=*} cannot be combined with it"* ]]
	done
	run -2 vs --raw --info full
	run -2 vs --raw --map full
	run -2 vs --raw --verify --expect-size=9437696 - target < <(cat full)
	ln full same
	run -2 vs --raw full same
	[[ $output == *'is one of the inputs'* ]]
	same old target
}

@test "an image is no raw disk, and a raw disk is no delta" {
	disks
	"$MKVMDK" pattern target 40000 9
	cp target old
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=every:5
	run -2 vs --raw d.vmdk target
	[[ $output == 'vmdksync: d.vmdk: begins as a VMDK does, not as a raw disk: leave --raw away'* ]]
	run -2 vs --raw --expect-size="$(stat -c %s d.vmdk)" - target < <(cat d.vmdk)
	[[ $output == *'begins as a VMDK does'* ]]
	descriptor base.vmdk 1 ffffffff vmfs '' 'RW 40000 VMFS "mixed"'
	truncate -s 512 base.vmdk
	run -2 vs --raw base.vmdk target
	[[ $output == *'begins as a VMDK does'* ]]
	run -2 vs mixed target
	[[ $output == *'is not a recognized VMDK'*'; --raw writes a raw disk' ]]
	same old target
	copy file d.vmdk target --force=raw
	cmp -n "$(stat -c %s d.vmdk)" d.vmdk target
}

@test "a disk may begin as gzip data do" {
	"$MKVMDK" pattern d 20000 3
	printf '\037\213\010\0' | dd of=d conv=notrunc status=none
	cp d want
	for from in file pipe; do
		copy $from d new --create
		same want new
		rm new
	done
	run -0 vs --raw --expect-size=10240000 --create - new < <(cat d)
	[[ $output == *'warning: standard input: begins as gzip data do, and is taken as it is; --raw=gzip'* ]]
	run -0 vs --raw --expect-size=10240000 - new <d
	same want new
	# unpacked only where that is said
	copy gzip d new
	same want new
	gzip -1c <d >d.gz
	run -2 vs --raw=gzip d.gz new
	[[ $output == *'is compressed with gzip; unpack it first, or send it through a pipe' ]]
	vs -q --raw=gzip --expect-size=10240000 - new <d.gz
	# cut
	run -3 vs --raw=gzip --expect-size=10240000 - new < <(head -c 100000 d.gz)
	[[ $output == *'is truncated'* ]]
	same want new
}

@test "--offset puts a flat extent of a split disk into its place" {
	disks
	for from in file pipe; do
		"$MKVMDK" pattern target 65536 9
		cp target want
		dd if=mixed of=want bs=512 seek=20001 conv=notrunc status=none
		copy $from mixed target --offset=20001s
		same want target
	done
	run -2 vs --raw --offset=30000s mixed target
	[[ $output == *'the disk needs'* ]]
	same want target
}

@test "a signal before the first bytes of a stream: nothing was written, exit 2" {
	local held ours

	disk d 40000
	"$MKVMDK" pattern target 40000 9
	cp target want
	mkfifo fifo
	sleep 1000 >fifo 3>&- &
	held=$!
	echo $held >pids
	"$VMDKSYNC" --raw --expect-size=20480000 fifo target 2>err 3>&- &
	ours=$!
	head -c 2000 d >fifo
	until_true is_locked target
	sleep 0.2
	kill $ours
	status=0
	wait $ours || status=$?
	kill $held
	cat err
	[ "$status" = 2 ]
	[ "$(<err)" = 'vmdksync: target: stopped by a signal before anything was written; running again is safe' ]
	same want target
}
