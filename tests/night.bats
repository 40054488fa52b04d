# SPDX-License-Identifier: MIT
# What people do at night: the log of another disk, the wrong kind of thing, a mistyped word, no room.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# made [ALLOC]: d.vmdk; t and t.orig hold a pattern, want what d.vmdk makes of it
made() {
	"$MKVMDK" pattern t.orig 20480 9
	cp t.orig t
	cp t.orig want
	rm -f undo.vmdk
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc="${1-random:900}" zero=runs:5:1:90 apply=want
}

@test "a finished log goes back onto its own disk only; --force=disk" {
	made
	vs -q --undo undo.vmdk d.vmdk t
	"$MKVMDK" pattern other 20480 10
	cp other other.orig
	for way in file pipe dry; do
		case $way in
		file) run -2 --separate-stderr vs undo.vmdk other ;;
		pipe) run -2 --separate-stderr vs - other < <(cat undo.vmdk) ;;
		dry) run -2 --separate-stderr vs --dry-run undo.vmdk other ;;
		esac
		echo "$stderr"
		[[ ${stderr_lines[0]} == *'is the undo log of another disk (it was made for t), or other was written to since: bytes '*'(--force=disk skips this check)' ]]
		same other other.orig
	done
	vs -q --create undo.vmdk held
	vs -q --force=disk undo.vmdk other
	run -1 cmp -s other other.orig
	# a disk that was written to since
	cp t written
	printf x | dd of=written bs=1 seek=1000 conv=notrunc status=none
	run -2 vs undo.vmdk written
	# under another name, and again after it was interrupted
	cp t renamed
	cp want half
	dd if=t.orig of=half bs=1M count=4 conv=notrunc status=none
	vs -q --strict undo.vmdk half
	same half t.orig
	run -0 --separate-stderr vs -v --strict undo.vmdk renamed
	[[ $stderr == *'undo.vmdk: was made for t, and goes onto renamed'* ]]
	[[ $stderr == *'places that the undo log does not hold are as they were'* ]]
	same renamed t.orig
}

@test "a log that holds the beginning and the end of a disk still knows it" {
	made 0-2500,19000-20479
	vs -q --undo undo.vmdk d.vmdk t
	"$MKVMDK" pattern other 20480 10
	cp other other.orig
	run -2 vs undo.vmdk other
	same other other.orig
	vs -q undo.vmdk t
	same t t.orig
}

@test "an unfinished log, and two logs in one call" {
	requires strace
	made 0-9000
	run strace -qqf -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=3 \
		"$VMDKSYNC" --undo undo.vmdk d.vmdk t
	"$MKVMDK" pattern other 20480 10
	run -2 --separate-stderr vs undo.vmdk other
	[[ $stderr == *'is the undo log of another disk'* ]]
	vs --info --json undo.vmdk | jq -e '.images[0].chain[0].undo.finished == false'
	vs -q undo.vmdk t
	same t t.orig
	made
	vs -q --undo one.vmdk d.vmdk t
	"$MKVMDK" cowd e.vmdk capacity=20480 alloc=random:3000 seed=5
	vs -q --undo two.vmdk e.vmdk t
	cp t both
	run -2 vs one.vmdk t
	same t both
	vs -q two.vmdk one.vmdk t
	same t t.orig
	vs -q two.vmdk one.vmdk t
	same t t.orig
}

@test "a log of version 1.0.0 has no samples, one with damaged ones is refused" {
	made
	vs -q --undo undo.vmdk d.vmdk t
	sed 's/^# checksums/# shecksums/' undo.vmdk >old.vmdk
	cp t t.new
	run -0 --separate-stderr vs -v old.vmdk t
	[[ $stderr == *'old.vmdk: has no checksums of its disk (a log of version 1.0.0)'* ]]
	same t t.orig
	cp t.new t
	sed '0,/^# at 0/s/^# at 0/# at x/' undo.vmdk >bad.vmdk
	run -2 --separate-stderr vs bad.vmdk t
	[[ $stderr == *'its list of checksums is damaged'*'--force=disk'* ]]
	same t t.new
	vs -q --force=disk bad.vmdk t
	same t t.orig
}

@test "--info says that it is a log, of which disk, when, of what" {
	requires jq
	made
	vs -q --undo undo.vmdk d.vmdk t
	run -0 vs --info undo.vmdk
	[[ $output =~ undo\ +log\ of\ t,\ begun\ 20[0-9-]+T[0-9:]+Z,\ to\ apply\ d.vmdk\;\ finished ]]
	vs --info --json undo.vmdk | jq -e '.images[0].chain[0].undo |
		.disk == "t" and .applied == "d.vmdk" and .finished and (.time | test("^20.*Z$"))'
	vs --info --json d.vmdk | jq -e '.images[0].chain[0].undo == null'
}

@test "a rollback gives a sparse target its holes back, from a file and from a pipe" {
	truncate -s 64M t.orig
	"$MKVMDK" pattern p 2048 5
	dd if=p of=t.orig bs=64K conv=notrunc seek=7 status=none
	"$MKVMDK" cowd d.vmdk capacity=131072 alloc=1000-60000
	for way in file pipe; do
		rm -f undo.vmdk t
		cp --sparse=always t.orig t
		sync t
		before=$(stat -c %b t)
		vs -q --undo undo.vmdk d.vmdk t
		sync t
		[ "$(stat -c %b t)" -gt $((before + 50000)) ]
		if [ $way = file ]; then vs -q undo.vmdk t; else vs -q - t < <(cat undo.vmdk); fi
		same t t.orig
		sync t
		[ "$(stat -c %b t)" -le $((before + 256)) ]
	done
}

@test "--undo-append with a log that was finished just before the kill" {
	made
	vs -q --undo undo.vmdk d.vmdk t
	run -0 --separate-stderr vs --undo undo.vmdk --undo-append d.vmdk t
	[[ $stderr == *'holds all of it already, and undo.vmdk is finished: nothing was left to do'* ]]
	same t want
	# not where something is missing, nor with the log of another disk
	cp t.orig t
	cp t changed
	run -2 vs --undo undo.vmdk --undo-append d.vmdk t
	same t changed
	"$MKVMDK" pattern t 20480 10
	vs -q d.vmdk t
	run -2 --separate-stderr vs --undo undo.vmdk --undo-append d.vmdk t
	[[ $stderr == *'is the undo log of another disk'* ]]
	cp t.orig t
	vs -q d.vmdk t
	vs -q undo.vmdk t
	same t t.orig
}

@test "qemu-img and 7-Zip take an undo log; libvmdk says that its grains are too small" {
	requires qemu-img 7z vmdkinfo
	made
	vs -q --undo undo.vmdk d.vmdk t
	vs -q --create undo.vmdk held
	qemu-img convert -f vmdk -O raw undo.vmdk theirs
	same theirs held
	7z x -so undo.vmdk >seven
	same seven held
	run ! vmdkinfo undo.vmdk
	[[ $output == *'unsupported grain number of sectors value'* ]]
}

@test "a partition as TARGET is a warning that names the whole disk" {
	requires root loop sfdisk
	truncate -s 20M disk
	echo 'start=2048, size=32768' | sfdisk -q disk
	dev=$(loopdev disk 512 --partscan)
	name=${dev#/dev/}
	partx -a "$dev" 2>/dev/null || :
	[ -e "/sys/block/$name/${name}p1/dev" ] || skip 'no partitions here'
	# shellcheck disable=SC2046 # two numbers
	mknod part b $(tr : ' ' <"/sys/block/$name/${name}p1/dev") || skip 'no device nodes here'
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=random:100
	run -0 --separate-stderr vs --dry-run d.vmdk part
	[[ $stderr == *"warning: part: is a partition, but a delta is of a whole disk: is $dev meant?"* ]]
	run -2 vs --strict d.vmdk part
	run -0 --separate-stderr vs --strict --dry-run d.vmdk "$dev"
}

@test "the descriptor of a base as DELTA is a warning" {
	esx_chain 2048 1
	cp host-0.raw t
	run -0 --separate-stderr vs host.vmdk t
	[[ $stderr == *'warning: host.vmdk: is a whole disk, not a delta'*'over t'* ]]
	run -2 vs --strict host.vmdk t
	vs -q --strict --full host.vmdk t
	vs -q --strict --create host.vmdk new
	vs -q --strict --verify host.vmdk t
	cp host-0.raw t
	vs -q host-000001.vmdk t
	same t host-1.raw
}

@test "an extent that is a whole disk as DELTA is a warning" {
	for kind in hosted 'hosted grain=16 rgd=0' 'stream variant=A' 'stream variant=B' 'stream variant=C'; do
		read -r format keys <<<"$kind"
		"$MKVMDK" pattern t.orig 20480 3
		cp t.orig t
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" $format whole.vmdk capacity=20480 alloc=random:30 parentcid=ffffffff $keys
		truncate -s 10M want
		# shellcheck disable=SC2086
		"$MKVMDK" $format d.vmdk capacity=20480 alloc=random:30 parentcid=12345678 $keys apply=want
		run -2 --separate-stderr vs --strict whole.vmdk t
		[[ $stderr == *'whole.vmdk: is a whole disk, not a delta'*'over t; its zeros are not, without --full'* ]]
		run -2 --separate-stderr vs --strict - t < <(cat whole.vmdk)
		[[ $stderr == *'is a whole disk, not a delta'*'without --full'* ]]
		same t t.orig
		run -0 --separate-stderr vs --json whole.vmdk t
		jq -e '.warnings | length == 1' <<<"$output"
		[[ $stderr == *'; 1 warning'* ]]
		# a delta is none, whatever way it comes, and these ways mean a whole disk
		vs -q --strict d.vmdk t
		vs -q --strict - t < <(cat d.vmdk)
		cp t.orig t
		vs -q --strict --full whole.vmdk t
		same t want
		cp t.orig t
		vs -q --strict --full - t < <(cat whole.vmdk)
		same t want
		rm t
		vs -q --strict --create - t < <(cat whole.vmdk)
		same t want
		vs -q --strict --verify whole.vmdk t
		rm want
	done
	# an extent without descriptor, and an undo log, are none either
	cp t want
	"$MKVMDK" hosted d.vmdk capacity=20480 alloc=random:20 seed=5 desc=0
	vs -q --strict --undo=undo.vmdk d.vmdk t
	cp undo.vmdk log.vmdk
	vs -q --strict log.vmdk t
	vs -q d.vmdk t
	vs -q --strict - t < <(cat log.vmdk)
	same t want
}

@test "another image as TARGET: its name, and how to attach it" {
	requires qemu-img
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=random:100
	for kind in qcow2:qcow2 vpc:VHD vhdx:VHDX vdi:VDI; do
		rm -f t
		qemu-img create -q -f "${kind%:*}" t 1M
		# an image is usually smaller than the disk: then no word of --force helps
		if (($(stat -c %s t) < 1048576)); then
			cp t t.orig
			run -2 --separate-stderr vs d.vmdk t
			[[ $stderr == *"t: begins as a ${kind#*:} image does, not as a raw disk; attach it ("* ]]
			[[ $stderr != *--force* ]]
			run -2 --separate-stderr vs --force=raw d.vmdk t
			[[ $stderr == *'bytes, the disk needs 1048576' ]]
			same t t.orig
		fi
		truncate -s '>4M' t
		cp t t.orig
		run -2 --separate-stderr vs d.vmdk t
		[[ $stderr == *"t: begins as a ${kind#*:} image does, not as a raw disk; attach it ('modprobe nbd; qemu-nbd -f ${kind%:*} -c /dev/nbd0 t')"*'(--force=raw'* ]]
		same t t.orig
	done
}

@test "names of volumes, that are no paths" {
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=random:100
	while IFS='|' read -r name words; do
		for create in '' --create; do
			# shellcheck disable=SC2086
			run -2 --separate-stderr vs $create d.vmdk "$name"
			echo "$stderr"
			[[ $stderr == *"$words"* ]]
			[[ $stderr != *--create* ]]
		done
	done <<-'END'
	local-lvm:vm-101-disk-0|'pvesm path local-lvm:vm-101-disk-0' prints its path
	local:101/vm-101-disk-0.raw|'pvesm path local:101/vm-101-disk-0.raw'
	rbd:pool/image:id=me|examples/with-disk.sh attaches it, or 'rbd map pool/image' prints its device
	iscsi://host/iqn.x/1|examples/with-disk.sh attaches it
	pve/vm-101-disk-0|its device is /dev/pve/vm-101-disk-0
	rpool/data/vm-101-disk-0|its device is /dev/zvol/rpool/data/vm-101-disk-0
	nbd:host:10809|an NBD server is named nbd://HOST[:PORT]/EXPORT
	END
	# a file of such a name is a file
	"$MKVMDK" pattern rbd:x 2048 3
	vs -q d.vmdk rbd:x
	run -2 --separate-stderr vs d.vmdk missing
	[[ $stderr == *'--create makes a new file'* ]]
	# --create would fail as well
	run -2 --separate-stderr vs d.vmdk vg0/vm-hda
	[[ $stderr == *'vg0/vm-hda: does not exist, nor does its folder (lsblk lists the devices)' ]]
}

@test "mistyped options and words of --force, swapped names, a copy that was cut short" {
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=random:1000
	"$MKVMDK" pattern t 20480 3
	run -2 --separate-stderr vs --dryrun d.vmdk t
	[[ $stderr == *'--dryrun: unrecognized or ambiguous option; did you mean --dry-run?'* ]]
	run -2 --separate-stderr vs --force=bsuy d.vmdk t
	[[ $stderr == *'did you mean --force=busy?'* ]]
	run -2 --separate-stderr vs --nonsense d.vmdk t
	[[ $stderr != *'did you mean'* ]]
	run -2 --separate-stderr vs t d.vmdk
	[[ $stderr == *'TARGET comes last: swapped?' ]]
	run -2 --separate-stderr vs nbd://host/x d.vmdk
	[[ $stderr == *'nbd://host/x: No such file or directory; an NBD server can only be TARGET, which comes last: swapped?' ]]
	head -c 30000 d.vmdk >cut.vmdk
	run -2 --separate-stderr vs cut.vmdk t
	[[ $stderr == *'is it truncated? expected at least '*' bytes'* ]]
	head -c 1000 d.vmdk >cut.vmdk
	run -2 --separate-stderr vs cut.vmdk t
	[[ $stderr == *'is it truncated? expected at least '*' bytes'* ]]
}

@test "headers and directories that are cut short: how many bytes were expected" {
	local format at bytes

	while read -r format at bytes; do
		echo "--- $format $at"
		"$MKVMDK" "$format" whole.vmdk capacity=20480 alloc=random:30
		head -c "$at" whole.vmdk >d.vmdk
		truncate -s 10M t
		run -2 --separate-stderr vs d.vmdk t
		[[ $stderr == *"is it truncated? expected at least $bytes bytes" ]]
		[ "$(stat -c %b t)" = 0 ]
	done <<-END
	cowd 100 2048
	cowd 2048 2068
	hosted 50 512
	hosted 600 65536
	hosted 11000 65536
	hosted 15000 65536
	sesparse 300 512
	sesparse 600 1024
	sesparse 2100000 3145728
	END
}

@test "a device that is mounted: where, and by which loop device" {
	requires root loop mkfs.ext4
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=random:100
	truncate -s 8M fs
	mkfs.ext4 -q fs
	dev=$(loopdev fs)
	mkdir mnt
	mount "$dev" mnt || skip 'may not mount here'
	run --separate-stderr vs d.vmdk "$dev"
	local said=$stderr
	run --separate-stderr vs d.vmdk fs
	umount mnt
	run -2 vs d.vmdk fs
	[[ $output == *"$dev: detach it first (losetup -d $dev)" ]]
	[[ $said == *"(mounted on $PWD/mnt): unmount it first" ]]
	[[ $stderr == *"$dev (mounted on $PWD/mnt): unmount it first" ]]
}

@test "permission denied: run it as root" {
	requires root setpriv
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=random:100
	"$MKVMDK" pattern t 2048 3
	chmod 600 t
	setpriv --reuid=65534 --clear-groups "$VMDKSYNC" --version || skip 'the program is out of reach'
	run -2 --separate-stderr setpriv --reuid=65534 --clear-groups "$VMDKSYNC" d.vmdk "$PWD/t"
	echo "$stderr"
	[[ $stderr == *'Permission denied; run it as root' ]]
}

@test "no room for the log is told before the first write" {
	requires root
	made all
	mkdir small
	mount -t tmpfs -o size=1M none small || skip 'may not mount here'
	run --separate-stderr vs --undo small/undo.vmdk d.vmdk t
	local refused=$stderr code=$status left
	left=$(ls small)
	mount -o remount,size=6M small
	run --separate-stderr vs --dry-run --undo small/undo.vmdk d.vmdk t
	umount small
	echo "$code: $refused; $stderr"
	[ "$code" = 2 ]
	[ -z "$left" ]
	[[ $refused == *'small/undo.vmdk: needs '*' at the least, but only '*' are free there'*'--force=room'* ]]
	same t t.orig
	[ "$status" = 0 ]
	[[ $stderr == *'warning: small/undo.vmdk: may need up to '*', but only '*' are free there'* ]]
	run -0 --separate-stderr vs --dry-run --undo undo.vmdk d.vmdk t
	[[ $stderr == *'undo.vmdk: may need up to '* ]]
}

@test "--max-ranges cuts the list of --json and says so; a pipe of known size shows its share" {
	requires jq
	made
	for n in 1 100000; do
		run -1 --separate-stderr vs -q --verify --json --max-ranges=$n d.vmdk t
		jq -e --argjson n $n '(.ranges > 100) and .more_ranges == ($n == 1)' <<<"$output"
	done
	vs -q --progress=json:5 --expect-size="$(stat -c %s d.vmdk)" - t 5>fd5 < <(cat d.vmdk)
	jq -es --argjson n "$(stat -c %s d.vmdk)" '.[-1] | .total == $n and .bytes == $n and .left == 0' fd5
	same t want
}

@test "prose is no command, whatever is installed" {
	load shown
	mkdir bin
	printf '#!/bin/sh\n' | tee bin/compare >bin/size
	chmod +x bin/*
	printf '%s\n' '  compare places' '  size of it' '  vmdksync a b' >text
	run -0 shown_in text
	[ "$output" = 'vmdksync a b' ]
	PATH=$PWD/bin:$PATH run -0 shown_in text
	[ "$output" = 'vmdksync a b' ]
}
