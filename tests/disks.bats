# SPDX-License-Identifier: MIT
# Disks that are neither files nor devices, through examples/with-disk.sh: qcow2 images, RBD images of a
# real Ceph (one monitor, one OSD in memory), LUNs of a real iSCSI target. What they hold is read by
# qemu-img from the disk itself, never through the program under test. And what takes a kernel that has
# device mapper, nbd or rbd.

# shellcheck disable=SC2016 # for the shells inside
load helpers
load disks

setup_file() {
	if has_ceph >"$BATS_FILE_TMPDIR/no-ceph"; then
		rm "$BATS_FILE_TMPDIR/no-ceph"
		! ceph_start "$BATS_FILE_TMPDIR/ceph" >"$BATS_FILE_TMPDIR/ceph.out" 2>&1 3>&- ||
			touch "$BATS_FILE_TMPDIR/ceph-runs"
	fi
	if command -v tgtd >/dev/null && [ "$(id -u)" = 0 ]; then
		short_dir
		echo "$SHORT_DIR/tgt" >"$BATS_FILE_TMPDIR/tgt"
		tgt_start "$SHORT_DIR/tgt" 3>&-
	fi
}

teardown_file() {
	disks_stop "$BATS_FILE_TMPDIR/ceph"
	[ ! -e "$BATS_FILE_TMPDIR/tgt" ] || {
		disks_stop "$(cat "$BATS_FILE_TMPDIR/tgt")"
		rmdir "$(dirname "$(cat "$BATS_FILE_TMPDIR/tgt")")"
	}
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export CEPH_CONF=$BATS_FILE_TMPDIR/ceph/ceph.conf
}

teardown() {
	cd "$BATS_TEST_TMPDIR" || return
	! [ -e "$BATS_FILE_TMPDIR/tgt" ] || [ ! -e url ] ||
		TGT_IPC_SOCKET=$(cat "$BATS_FILE_TMPDIR/tgt")/ctl tgtadm --lld iscsi --op delete --mode target \
			--force --tid "$BATS_TEST_NUMBER" || :
	[ "${kind-}" != rbd ] || timeout 60 rbd rm --no-progress "volumes/disk$BATS_TEST_NUMBER" >/dev/null 2>&1 || :
	helpers_teardown
}

# requires_disk KIND
requires_disk() {
	kind=$1
	requires qemu-storage-daemon qemu-img setpriv
	case $kind in
	rbd)
		[ ! -e "$BATS_FILE_TMPDIR/no-ceph" ] || skip "$(cat "$BATS_FILE_TMPDIR/no-ceph")"
		# what asks a monitor that is not there waits for good
		[ -e "$BATS_FILE_TMPDIR/ceph-runs" ] ||
			{ echo 'Ceph did not start:' && tail -n 20 "$BATS_FILE_TMPDIR/ceph.out" && return 1; }
		;;
	iscsi)
		requires root tgtd tgtadm
		qemu_opens iscsi >why || skip "$(cat why)"
		;;
	esac
}

# recipes: FORMAT WAY KEY...: what a delta is made of, and how it comes
recipes() {
	cat <<-'END'
	cowd file alloc=random:900 zero=runs:9:1:300
	cowd pipe alloc=runs:30:1:200 zero=runs:4:64:900
	cowd gzip alloc=every:7 layout=random
	cowd undo alloc=runs:40:1:90 zero=runs:9:1:300
	cowd verify alloc=2000-2300
	sesparse file alloc=random:300 zero=runs:9:1:40 unmapped=random:60
	sesparse pipe alloc=runs:20:1:30 zero=every:11
	sesparse gzip alloc=every:3 layout=random
	sesparse undo alloc=random:200 zero=runs:5:1:60
	sesparse verify alloc=250-290
	hosted file alloc=random:40 zero=random:20
	hosted pipe grain=16 alloc=random:300 zero=runs:9:1:40
	hosted gzip grain=8 alloc=runs:30:1:20 layout=reverse
	hosted undo grain=16 alloc=random:200 zero=random:100
	hosted verify grain=16 alloc=125-160 parentcid=aabbccdd
	stream file variant=A alloc=random:60 layout=random
	stream pipe variant=B grain=16 alloc=random:300
	stream gzip variant=C alloc=every:3
	stream undo variant=A grain=16 alloc=random:300
	stream verify variant=B grain=16 alloc=125-160 parentcid=aabbccdd
	END
}

# flip OFFSET: another byte there, written by QEMU
flip() {
	local byte

	byte=$(od -An -tu1 -j "$1" -N 1 want.raw)
	qemu-io -f "$type" -c "write -P $((byte ^ 255)) $1 1" "$direct" >/dev/null
}

# applied FORMAT WAY KEY...
applied() {
	local format=$1 way=$2

	shift 2
	cp --sparse=always base.raw want.raw
	"$MKVMDK" "$format" d.vmdk capacity=16384 seed="$((n + 3))" "$@" apply=want.raw
	disk_new base.raw
	case $way in
	pipe) on_disk - <d.vmdk ;;
	gzip) gzip -1 <d.vmdk | on_disk - ;;
	undo)
		rm -f undo.vmdk
		on_disk --undo=undo.vmdk d.vmdk
		disk_is want.raw
		on_disk undo.vmdk
		disk_is base.raw
		on_disk d.vmdk
		;;
	verify)
		on_disk --read-back d.vmdk
		on_disk --verify d.vmdk
		flip 1050000
		run -1 on_disk --verify d.vmdk
		[[ $output == *'bytes 1050000 to 1050000 differ'* ]]
		on_disk d.vmdk
		;;
	*) on_disk d.vmdk ;;
	esac
	disk_is want.raw
}

all_recipes() {
	local format way keys

	requires_disk "$1"
	"$MKVMDK" pattern base.raw 16384 7
	fallocate --punch-hole --offset 2097152 --length 3145728 base.raw
	n=0
	while read -r format way keys <&5; do
		echo "--- $kind: $format $way $keys"
		# shellcheck disable=SC2086 # words are meant
		applied $format $way $keys
		n=$((n + 1))
	done 5< <(recipes)
	[ $n -ge 20 ]
	esx_chain 16384 3
	disk_new host-0.raw
	on_disk --chain host-000003.vmdk
	disk_is host-3.raw
	disk_new host-0.raw
	on_disk host-000001.vmdk host-000002.vmdk
	disk_is host-2.raw
	# a wrong order changes nothing
	disk_new host-0.raw
	run -2 on_disk host-000002.vmdk
	disk_is host-0.raw
}

# bats test_tags=slow
@test "qcow2: 20 recipes, a chain; what QEMU reads is what the model says" {
	all_recipes qcow2
}

# bats test_tags=slow
@test "RBD: 20 recipes, a chain; what QEMU reads from the pool is what the model says" {
	all_recipes rbd
}

# bats test_tags=slow
@test "iSCSI: 20 recipes, a chain; what QEMU reads from the LUN is what the model says" {
	all_recipes iscsi
}

# --- with-disk.sh ----------------------------------------------------------------------------------

# left_over: a daemon that with-disk.sh left, of an image in this folder
left_over() {
	pgrep -f "qemu-storage-daemon.*$PWD/" || return 1
}

@test "with-disk.sh: the exit status is the command's, standard input too, and nothing is left" {
	requires_disk qcow2
	qemu-img create -q -f qcow2 disk.qcow2 8M
	run -0 "$WITH_DISK" disk.qcow2 sh -c 'echo "$1"' sh DISK
	[[ $output == 'nbd+unix:///disk?socket=/tmp/with-disk.'*/socket ]]
	[ ! -e "${output#*socket=}" ]
	[ ! -e "$(dirname "${output#*socket=}")" ]
	run -0 "$WITH_DISK" disk.qcow2 sh -c 'stat -c %a "$(dirname "${1#*socket=}")"' sh DISK
	[ "$output" = 700 ]
	for i in 1 2 3 77 255; do
		run -"$i" "$WITH_DISK" disk.qcow2 sh -c 'exit "$2"' sh DISK "$i"
	done
	run -127 "$WITH_DISK" disk.qcow2 no-such-program DISK
	run -0 "$WITH_DISK" disk.qcow2 sh -c cat sh DISK <<<'standard input'
	[ "$output" = 'standard input' ]
	run -2 "$WITH_DISK" disk.qcow2 true
	run -2 "$WITH_DISK" disk.qcow2
	run -2 "$WITH_DISK" --nonsense disk.qcow2 true DISK
	run -2 "$WITH_DISK" none.qcow2 true DISK
	[[ $output == *'none.qcow2: does not exist'* ]]
	# what QEMU cannot open
	printf 'QFI\373\0\0\0\11' >bad.qcow2
	truncate -s 1M bad.qcow2
	run -2 "$WITH_DISK" bad.qcow2 touch called DISK
	[[ $output == *'bad.qcow2: cannot be attached'* ]]
	[ ! -e called ]
}

@test "with-disk.sh: names with blanks, commas, quotes, a line end" {
	requires_disk qcow2
	"$MKVMDK" pattern base.raw 2048 3
	for name in 'a b.qcow2' 'a,b,,c=d.qcow2' "it's \"x\" \\ %41.qcow2" $'a\nb.qcow2' '-x.qcow2' 'rbd:x'; do
		qemu-img convert -q -f raw -O qcow2 base.raw plain
		mv plain "./$name"
		cp base.raw want.raw
		"$MKVMDK" cowd d.vmdk capacity=2048 alloc=random:99 seed=4 apply=want.raw
		case $name in
		-* | rbd:*) name=./$name ;;
		esac
		run -0 "$WITH_DISK" "$name" "$VMDKSYNC" -q d.vmdk DISK
		mv "$name" plain
		qemu-img compare -f qcow2 -F raw plain want.raw
	done
}

@test "with-disk.sh: raw is never guessed, nor a file that a guest can name" {
	requires_disk qcow2
	qemu-img create -q -f qcow2 disk.qcow2 8M
	truncate -s 8M disk.raw
	run -2 "$WITH_DISK" disk.raw true DISK
	[[ $output == *'disk.raw: does not begin as a qcow2 image'*'--format'* ]]
	run -0 "$WITH_DISK" --format=raw disk.raw sh -c 'qemu-img info -f raw "$1"' sh DISK
	[[ $output == *'8 MiB (8388608 bytes)'* ]]
	# a raw disk whose guest made it begin so
	cp disk.qcow2 guest.raw
	run -2 "$WITH_DISK" guest.raw true DISK
	[[ $output == *'guest.raw: begins as a qcow2 image, but is called raw'* ]]
	run -0 "$WITH_DISK" --format=raw guest.raw true DISK
	qemu-img create -q -f qcow2 -F qcow2 -b disk.qcow2 over.qcow2
	run -2 "$WITH_DISK" over.qcow2 true DISK
	[[ $output == *'over.qcow2: a qcow2 image with a backing file'* ]]
	run -0 "$WITH_DISK" --format=qcow2 over.qcow2 true DISK
	qemu-img create -q -f qcow2 -o data_file=else.raw,data_file_raw=on data.qcow2 8M
	run -2 "$WITH_DISK" data.qcow2 true DISK
	[[ $output == *'data.qcow2: a qcow2 image with a data file'* ]]
	run -0 "$WITH_DISK" --format=qcow2 data.qcow2 true DISK
	# version 2 has no features where version 3 has them
	qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 8M
	run -0 "$WITH_DISK" old.qcow2 true DISK
	qemu-img create -q -f vhdx disk.vhdx 8M
	run -0 "$WITH_DISK" --format=vhdx disk.vhdx true DISK
	run -0 "$WITH_DISK" --format=qcow2 "driver=file,filename=$PWD/disk.qcow2" true DISK
}

@test "with-disk.sh: a qcow2 image that QEMU holds is refused, and so is a second connection" {
	requires_disk qcow2
	requires nbdinfo
	qemu-img create -q -f qcow2 disk.qcow2 8M
	mkfifo go
	qemu-storage-daemon --blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=disk.qcow2 \
		--nbd-server addr.type=unix,addr.path=s --export type=nbd,id=e,node-name=q,writable=on \
		>/dev/null 2>&1 3>&- &
	echo $! >>pids
	until_true test -S s
	sum disk.qcow2 >before
	run -2 "$WITH_DISK" disk.qcow2 touch called DISK
	[[ $output == *'disk.qcow2: is in use: stop the virtual machine'* ]]
	[ ! -e called ]
	[ "$(sum disk.qcow2)" = "$(cat before)" ]
	kill "$(cat pids)"
	wait "$(cat pids)" || :
	rm pids
	# with-disk.sh itself holds it
	run -2 "$WITH_DISK" disk.qcow2 sh -c '"$2" disk.qcow2 touch called "$1" DISK' sh DISK "$WITH_DISK"
	[[ $output == *'disk.qcow2: is in use'* ]]
	[ ! -e called ]
	cat >two <<-'END'
	stdbuf -oL qemu-io -f raw -c 'read 0 512' -c 'sleep 60000' "$1" >io 2>&1 3>&- &
	until grep -q 'read 512' io; do sleep 0.1; done
	timeout 1 nbdinfo --size "$1" && exit 1
	kill $!
	wait $!
	exec nbdinfo --size "$1"
	END
	run -0 "$WITH_DISK" disk.qcow2 sh two DISK
	[[ $'\n'$output$'\n' == *$'\n'8388608$'\n'* ]]
}

@test "with-disk.sh: INT, TERM and HUP stop the command, and the image is whole" {
	requires_disk qcow2
	"$MKVMDK" pattern base.raw 64M 3
	cp base.raw want.raw
	"$MKVMDK" cowd d.vmdk capacity=64M alloc=runs:900:64:100 seed=4 apply=want.raw
	for signal in INT TERM HUP; do
		qemu-img convert -q -f raw -O qcow2 base.raw disk.qcow2
		rm -f p started
		mkfifo p
		# a pipe that brings the half, and then nothing
		{ head -c 30000000 d.vmdk && touch started && exec sleep 100; } >p 2>/dev/null 3>&- &
		echo $! >>pids
		# INT is not ignored, as in the background of a shell
		env --default-signal=INT "$WITH_DISK" "$PWD/disk.qcow2" "$VMDKSYNC" - DISK <p >out 2>&1 3>&- &
		pid=$!
		echo $pid >>pids
		until_true test -e started
		# it has written something
		sleep 1.5
		kill -"$signal" $pid
		code=0
		wait $pid || code=$?
		cat out
		echo "$signal: $code"
		[ $code = 3 ]
		grep -q 'stopped by a signal' out
		qemu-img check -q disk.qcow2
		run -0 "$WITH_DISK" disk.qcow2 "$VMDKSYNC" d.vmdk DISK
		qemu-img compare -f qcow2 -F raw disk.qcow2 want.raw
		kill "$(head -n 1 pids)" 2>/dev/null || :
		# not when the number may be somebody else's
		rm pids
	done
	run -1 left_over
}

@test "with-disk.sh: a daemon that dies is no success; one whose script is killed ends" {
	requires_disk qcow2
	qemu-img create -q -f qcow2 disk.qcow2 8M
	cat >killer <<-'END'
	kill -KILL "$(cat "$(dirname "${1#*socket=}")/pid")"
	sleep 0.3
	END
	run -3 "$WITH_DISK" disk.qcow2 sh killer DISK
	[[ $output == *'disk.qcow2: qemu-storage-daemon failed'* ]]
	# the command's own failure is told
	run -9 "$WITH_DISK" disk.qcow2 sh -c '. ./killer; exit 9' sh DISK
	"$WITH_DISK" disk.qcow2 sh -c 'touch started; exec sleep 100' sh DISK >out 2>&1 3>&- &
	pid=$!
	until_true test -e started
	sleep_pid=$(pgrep -P $pid -x sleep)
	echo "$sleep_pid" >>pids
	kill -KILL $pid
	wait $pid || :
	# nobody holds it any more
	until_true qemu-img info disk.qcow2 >/dev/null 2>&1
}

@test "with-disk.sh: an RBD image that has a watcher is refused" {
	requires_disk rbd
	"$MKVMDK" pattern base.raw 2048 3
	disk_new base.raw
	stdbuf -oL qemu-io -f raw -c 'read 0 512' -c 'sleep 60000' "$direct" >io 2>&1 3>&- &
	echo $! >>pids
	until_true grep -q 'read 512' io
	run -2 "$WITH_DISK" "$image" touch called DISK
	[[ $output == *'watcher='*': is in use: stop what uses it'* ]]
	[ ! -e called ]
	run -0 "$WITH_DISK" --force "$image" true DISK
	kill "$(cat pids)"
	wait "$(cat pids)" || :
	rm pids
	until_true sh -c 'rbd status "volumes/disk$1" | grep "Watchers: none"' sh "$BATS_TEST_NUMBER"
	# one that comes when the image is attached already, which Ceph lets in
	run -2 "$WITH_DISK" "$image" sh -c '"$2" "$3" touch called "$1" DISK' sh DISK "$WITH_DISK" "$image"
	[[ $output == *': is in use'* ]]
	[ ! -e called ]
	# options of Ceph that QEMU does not know as such; what is no image
	mon=$(sed -n 's/^mon host = //p' "$CEPH_CONF")
	run -0 "$WITH_DISK" "rbd:volumes/disk$BATS_TEST_NUMBER:mon_host=${mon//:/\\:}:auth_supported=none:id=admin" \
		nbdinfo --size DISK
	[ "${lines[-1]}" = 1048576 ]
	run -2 "$WITH_DISK" "rbd:volumes/none:conf=$CEPH_CONF" true DISK
	for bad in rbd:x rbd:/x rbd:a/b@snap rbd:a/b:nonsense rbd:a/b/c/d; do
		run -2 "$WITH_DISK" "$bad" true DISK
	done
	# without rbd nobody knows
	mkdir bin
	for c in dirname grep sed rm mktemp od tr dd sleep qemu-storage-daemon setsid setpriv env sh tail; do
		ln -s "$(command -v $c)" bin/
	done
	PATH=$PWD/bin run -2 "$WITH_DISK" "$image" true DISK
	[[ $output == *'install ceph-common'* ]]
}

@test "with-disk.sh: iSCSI with a password; a LUN that is not there" {
	requires_disk iscsi
	requires nbdinfo
	"$MKVMDK" pattern base.raw 2048 3
	disk_new base.raw
	TGT_IPC_SOCKET=$(cat "$BATS_FILE_TMPDIR/tgt")/ctl
	export TGT_IPC_SOCKET
	run -2 "$WITH_DISK" "${image%/1}/7" true DISK
	run -2 "$WITH_DISK" iscsi://127.0.0.1/x true DISK
	tgtadm --lld iscsi --op new --mode account --user "u$BATS_TEST_NUMBER" --password 'secret,pass='
	tgtadm --lld iscsi --op bind --mode account --tid "$BATS_TEST_NUMBER" --user "u$BATS_TEST_NUMBER"
	run -2 "$WITH_DISK" "$image" true DISK
	run -0 "$WITH_DISK" "iscsi://u$BATS_TEST_NUMBER%secret,pass=@${image#iscsi://}" nbdinfo --size DISK
	[ "${lines[-1]}" = 1048576 ]
}

# --- thin stays thin -------------------------------------------------------------------------------

# data_bytes: what the disk of this test has allocated; and fewest, what QEMU makes of want.raw
data_bytes() {
	case $kind in
	qcow2) qemu-img map -f qcow2 --output=json "$1" | jq '[.[] | select(.data) | .length] | add // 0' ;;
	rbd) rbd diff --format json "$1" | jq '[.[].length | tonumber] | add // 0' ;;
	iscsi) echo $(($(stat -c %b lun) * 512)) ;;
	esac
}

# rbd_most DELTA DIFF: what an RBD image may have once DELTA was applied, where QEMU's, with the output
# DIFF of rbd, has the fewest. librbd cuts an object short where zeros reach its end, and a cut that
# comes after the writes before it moves the end to where the zeros begin: a hole, which rbd counts.
rbd_most() {
	qemu-img map -f vmdk --output=json "$1" | jq --slurpfile diff "$2" '4194304 as $object |
		[.[] | select(.zero and .present) | {start, end: (.start + .length)}] as $zeros |
		[$diff[0][] | (.offset | tonumber) as $from | (.length | tonumber) as $length |
			[$length, ($zeros[] | select(.end >= $from + $object and .start < $from + $object) |
				.start - $from)] | max] | add // 0'
}

# thin_case: data and many zeros onto an empty disk; then zeros onto a full one
thin_cases() {
	local name=disk.qcow2 fewest got

	requires_disk "$1"
	requires jq
	[ "$kind" != rbd ] || name=volumes/disk$BATS_TEST_NUMBER
	truncate -s 64M base.raw
	cp base.raw want.raw
	"$MKVMDK" hosted d.vmdk capacity=64M alloc=random:60 zero=runs:60:1:9 seed=5 apply=want.raw
	"$MKVMDK" pattern full.raw 64M 9
	cp full.raw less.raw
	"$MKVMDK" hosted z.vmdk capacity=64M alloc=0-9 zero=200-800 seed=6 apply=less.raw
	for i in 'base.raw d.vmdk want.raw' 'full.raw z.vmdk less.raw'; do
		# shellcheck disable=SC2086 # words are meant
		set -- $i
		case $kind in
		qcow2)
			disk_new "$3"
			fewest=$(data_bytes "$name")
			;;
		rbd)
			disk_new "$3"
			rbd diff --format json "$name" >fewest.json
			fewest=$(rbd_most "$2" fewest.json)
			;;
		iscsi)
			cp --sparse=always "$3" sparse.raw
			# and what a file system needs to tell where it lies
			fewest=$(($(stat -c %b sparse.raw) * 512 + 32768))
			;;
		esac
		disk_new "$1"
		[ "$kind" != iscsi ] || echo "before: $(data_bytes "$name")"
		on_disk "$2"
		disk_is "$3"
		got=$(data_bytes "$name")
		echo "$kind, $2: $got bytes allocated, $fewest needed"
		[ "$got" -le "$fewest" ]
	done
}

@test "thin: a qcow2 image holds what the data needs" {
	thin_cases qcow2
	# the file gives the room back, too
	[ "$(($(stat -c %b disk.qcow2) * 512))" -lt $((35 << 20)) ]
}

@test "thin: an RBD image holds what the data needs" {
	thin_cases rbd
}

@test "thin: an iSCSI LUN on a sparse file holds what the data needs" {
	thin_cases iscsi
}

@test "thin: a sparse file holds what the data needs" {
	truncate -s 64M t.raw
	cp t.raw want.raw
	"$MKVMDK" hosted d.vmdk capacity=64M alloc=random:60 zero=runs:60:1:9 seed=5 apply=want.raw
	vs d.vmdk t.raw
	same want.raw t.raw
	cp --sparse=always want.raw fewest.raw
	[ "$(stat -c %b t.raw)" -le $(($(stat -c %b fewest.raw) + 64)) ]
}

# --- what takes another kernel ---------------------------------------------------------------------

@test "thin: dm-thin allocates nothing for zeros" {
	local pool=vmdksync-$BATS_ROOT_PID-pool thin=vmdksync-$BATS_ROOT_PID-thin meta data used

	requires loop dmsetup
	modprobe dm-thin-pool 2>/dev/null || :
	dmsetup targets 2>/dev/null | grep -q '^thin-pool' || skip 'no device mapper with thin pools here'
	truncate -s 8M meta.img
	truncate -s 128M data.img
	meta=$(loopdev meta.img)
	data=$(loopdev data.img)
	# chunks of 64 KiB
	dmsetup create "$pool" --table "0 262144 thin-pool $meta $data 128 0"
	dmsetup message "$pool" 0 'create_thin 0'
	dmsetup create "$thin" --table "0 131072 thin /dev/mapper/$pool 0"
	truncate -s 64M want.raw
	"$MKVMDK" hosted d.vmdk capacity=64M alloc=random:60 zero=runs:60:1:9 seed=5 apply=want.raw
	code=0
	vs d.vmdk "/dev/mapper/$thin" || code=$?
	cmp "/dev/mapper/$thin" want.raw || code=99
	used=$(dmsetup status "$pool" | awk '{ split($6, n, "/"); print n[1] }')
	dmsetup remove "$thin"
	dmsetup remove "$pool"
	echo "exit status $code, $used chunks"
	[ "$code" = 0 ]
	[ "$used" = 60 ]
}

@test "kernel nbd: qemu-nbd -c shows a qcow2 image as /dev/nbdN" {
	local dev

	requires root qemu-nbd
	modprobe nbd 2>/dev/null || :
	[ -b /dev/nbd0 ] || skip 'no nbd in this kernel'
	for dev in /dev/nbd{15..8}; do
		[ -b "$dev" ] && [ "$(blockdev --getsize64 "$dev")" = 0 ] && break
	done
	kind=qcow2
	"$MKVMDK" pattern base.raw 16384 3
	cp base.raw want.raw
	"$MKVMDK" cowd d.vmdk capacity=16384 alloc=random:999 zero=runs:9:1:99 seed=4 apply=want.raw
	disk_new base.raw
	qemu-nbd --format=qcow2 --connect="$dev" --discard=unmap disk.qcow2 3>&-
	code=0
	vs d.vmdk "$dev" || code=$?
	qemu-nbd --disconnect "$dev"
	until_true qemu-img info disk.qcow2 >/dev/null 2>&1
	[ "$code" = 0 ]
	disk_is want.raw
}

@test "krbd: rbd map shows an RBD image as /dev/rbdN" {
	local dev

	requires root
	requires_disk rbd
	modprobe rbd 2>/dev/null || :
	[ -d /sys/bus/rbd ] || skip 'no rbd in this kernel'
	"$MKVMDK" pattern base.raw 16384 3
	cp base.raw want.raw
	"$MKVMDK" cowd d.vmdk capacity=16384 alloc=random:999 zero=runs:9:1:99 seed=4 apply=want.raw
	disk_new base.raw
	# the kernel knows fewer features of images
	rbd feature disable "volumes/disk$BATS_TEST_NUMBER" object-map fast-diff deep-flatten 2>/dev/null || :
	dev=$(rbd map "volumes/disk$BATS_TEST_NUMBER")
	code=0
	vs d.vmdk "$dev" || code=$?
	rbd unmap "$dev"
	[ "$code" = 0 ]
	disk_is want.raw
}

# --- what README and manual show --------------------------------------------------------------------

# lines_of START: the commands that the manual shows behind the paragraph that begins so
lines_of() {
	awk -v start="$1" 'index($0, start) == 1 { on = 1 }
		on && /^\.Ed/ { exit }
		found { gsub(/\\&/, ""); print }
		on && /^\.Bd/ { found = 1 }' "$TOP/vmdksync.1"
}

# stand_in NAME: a program of that name, from standard input
stand_in() {
	mkdir -p bin
	{ echo '#!/bin/sh' && cat; } >"bin/$1"
	chmod +x "bin/$1"
}

# the_way START: runs all of these lines, as they are, in one shell; the old host is this folder
the_way() {
	esx_chain 16384 1
	stand_in ssh <<-END
	cat "$PWD/host-flat.vmdk"
	END
	ln -s "$VMDKSYNC" bin/vmdksync
	ln -s "$TOP/examples" examples
	lines_of "$1" >lines
	[ "$(grep -c 'with-disk.sh "$disk"' lines)" = 3 ]
	PATH=$PWD/bin:$PATH run -0 bash -euo pipefail -c '. ./lines'
	[[ $output == *'equal to '* ]]
	[ -e started ]
}

@test "manual: the whole way of a Proxmox user with a qcow2 disk" {
	requires_disk qcow2
	requires nbdcopy
	stand_in pvesm <<-'END'
	case $* in
	'alloc local 100 vm-100-disk-0.qcow2 40G --format qcow2') qemu-img create -q -f qcow2 vm-100-disk-0.qcow2 8M ;;
	'path local:100/vm-100-disk-0.qcow2') echo "$PWD/vm-100-disk-0.qcow2" ;;
	*) exit 1 ;;
	esac
	END
	stand_in qm <<-'END'
	[ "$*" = 'set 100 --scsi0 local:100/vm-100-disk-0.qcow2' ] && touch started
	END
	the_way 'Proxmox VE, a qcow2'
	qemu-img compare -f qcow2 -F raw vm-100-disk-0.qcow2 host-1.raw
	# and back
	run -0 "$WITH_DISK" vm-100-disk-0.qcow2 "$VMDKSYNC" undo.vmdk DISK
	qemu-img compare -f qcow2 -F raw vm-100-disk-0.qcow2 host-0.raw
}

@test "manual: the whole way of an OpenStack user with a volume in Ceph" {
	requires_disk rbd
	requires nbdcopy
	stand_in openstack <<-END
	case \$* in
	'volume create --size 40 -f value -c id vm-hda') rbd create --size 8M volumes/volume-7a && echo 7a ;;
	'volume set --bootable vm-hda') touch started ;;
	*) exit 1 ;;
	esac
	END
	the_way 'OpenStack, a Cinder volume'
	qemu-img compare -f raw -F raw "rbd:volumes/volume-7a:conf=$CEPH_CONF" host-1.raw
	rbd rm --no-progress volumes/volume-7a
}

@test "README: apply, verify and roll back on a qcow2 file" {
	requires_disk qcow2
	esx_chain 16384 1
	mkdir bin
	ln -s "$VMDKSYNC" bin/vmdksync
	ln -s "$TOP/examples" examples
	qemu-img convert -f raw -O qcow2 host-0.raw vm.qcow2
	n=0
	while IFS= read -r line; do
		PATH=$PWD/bin:$PATH run -0 bash -c "$line" </dev/null
		n=$((n + 1))
		case $n in
		1 | 2) qemu-img compare -f qcow2 -F raw vm.qcow2 host-1.raw ;;
		3) qemu-img compare -f qcow2 -F raw vm.qcow2 host-0.raw ;;
		esac
	done < <(sed -n 's/^  \(sh examples\/with-disk.sh .*\)/\1/p' "$TOP/README")
	[ "$n" = 3 ]
}

@test "manual: the commands with with-disk.sh work as they are shown" {
	requires_disk qcow2
	requires nbdinfo
	load shown
	esx_chain 16384 1
	mkdir bin
	ln -s "$VMDKSYNC" bin/vmdksync
	ln -s "$WITH_DISK" bin/with-disk.sh
	n=0
	while IFS= read -r line <&5; do
		echo "$line"
		case $line in
		*rbd:volumes/*) kind=rbd ;;
		*iscsi:*) kind=iscsi ;;
		esac
		case $kind in
		rbd) [ -e "$BATS_FILE_TMPDIR/ceph-runs" ] || continue ;;
		iscsi) [ -e "$BATS_FILE_TMPDIR/tgt" ] || continue ;;
		esac
		disk_new host-0.raw
		# the addresses are ours
		line=${line//rbd:volumes\/vm-hda/${image%%:conf=*}}
		line=${line//iscsi:\/\/10.0.0.5\/iqn.2026-11.org.example:vms\/1/$image}
		PATH=$PWD/bin:$PATH run -0 bash -c "$line"
		disk_is host-1.raw
		n=$((n + 1))
	done 5< <(shown_in "$TOP/vmdksync.1" | grep '^with-disk\.sh ')
	[ $n -ge 1 ]
}
