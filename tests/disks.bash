# SPDX-License-Identifier: MIT
# Disks that other programs serve, for disks.bats and whoever shows that README's ways work. Loaded after
# helpers. What is started here listens on 127.0.0.1 only, lies in the folder that is named, and is
# stopped by disks_stop; all descriptors that bats holds are closed for it.

WITH_DISK=$TOP/examples/with-disk.sh

# disks_spawn DIR LOG COMMAND...: in the background, its process id in DIR/pids
disks_spawn() {
	local dir=$1 log=$2

	shift 2
	setsid "$@" >"$log" 2>&1 </dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
	echo $! >>"$dir/pids"
}

# disks_stop DIR: tgtd ends only by KILL, and nothing of this is needed again
disks_stop() {
	local pid

	[ -f "$1/pids" ] || return 0
	while read -r pid; do
		kill -KILL "$pid" 2>/dev/null || :
	done <"$1/pids"
	rm -rf "$1"
}

# free_port: prints one that nothing listens on
free_port() {
	local port

	while :; do
		port=$((20000 + RANDOM % 10000))
		cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$(printf ':%04X ' $port)" || break
	done
	echo "$port"
}

has_ceph() {
	local c

	for c in ceph-mon ceph-osd ceph rbd monmaptool; do
		command -v $c >/dev/null || { echo "needs $c (ceph-mon, ceph-osd, ceph-common)"; return 1; }
	done
	qemu_opens rbd
}

# qemu_opens PROTOCOL: a module of qemu-block-extra
qemu_opens() {
	! qemu-img info "$1:x/y" 2>&1 | grep -qi 'unknown protocol' ||
		{ echo "QEMU does not open $1: (qemu-block-extra)"; return 1; }
}

# ceph_start DIR: a monitor and an OSD in memory, no cephx, no manager; the pool volumes; DIR/ceph.conf
ceph_start() {
	local dir=$1 port fsid uuid

	mkdir "$dir"
	port=$(free_port)
	fsid=$(cat /proc/sys/kernel/random/uuid)
	uuid=$(cat /proc/sys/kernel/random/uuid)
	cat >"$dir/ceph.conf" <<-END
	[global]
	fsid = $fsid
	mon host = v2:127.0.0.1:$port
	public addr = 127.0.0.1
	auth cluster required = none
	auth service required = none
	auth client required = none
	run dir = $dir
	admin socket =
	log file =
	log to stderr = false
	osd pool default size = 1
	osd pool default min size = 1
	mon allow pool size one = true
	mon data avail crit = 1
	osd crush chooseleaf type = 0
	[mon]
	mon data = $dir/mon
	[osd]
	osd data = $dir/osd
	osd objectstore = memstore
	memstore device bytes = 2G
	END
	export CEPH_CONF=$dir/ceph.conf
	mkdir "$dir/osd"
	monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$port]" "$dir/monmap" &&
		ceph-mon -i a --mkfs --monmap "$dir/monmap" || return
	disks_spawn "$dir" "$dir/mon.out" ceph-mon -i a -f
	timeout 120 ceph osd new "$uuid" && ceph-osd -i 0 --mkfs --osd-uuid "$uuid" || return
	disks_spawn "$dir" "$dir/osd.out" ceph-osd -i 0 -f
	timeout 120 ceph osd pool create volumes 8 && timeout 120 rbd pool init volumes
}

# tgt_start DIR: an iSCSI target in user space, and its name in DIR/portal. DIR has to be short, a socket
# lies in it.
tgt_start() {
	local port

	mkdir "$1"
	port=$(free_port)
	echo "127.0.0.1:$port" >"$1/portal"
	export TGT_IPC_SOCKET=$1/ctl
	disks_spawn "$1" "$1/out" tgtd -f -C 0 --iscsi portal="127.0.0.1:$port"
	until_true tgtadm --lld iscsi --op show --mode sys >"$1/sys" 2>&1
}

# tgt_lun DIR N FILE: prints the URL of a new LUN on FILE
tgt_lun() {
	local iqn=iqn.2026-11.test:disk$2

	export TGT_IPC_SOCKET=$1/ctl
	tgtadm --lld iscsi --op new --mode target --tid "$2" -T "$iqn" &&
		tgtadm --lld iscsi --op new --mode logicalunit --tid "$2" --lun 1 -b "$3" &&
		tgtadm --lld iscsi --op update --mode logicalunit --tid "$2" --lun 1 \
			--params thin_provisioning=1 &&
		tgtadm --lld iscsi --op bind --mode target --tid "$2" -I 127.0.0.1 || return
	echo "iscsi://$(cat "$1/portal")/$iqn/1"
}

# disk_new BASE: the disk of this test, of the kind $kind, holds what the raw file BASE does. $image is
# its name for with-disk.sh, $direct for qemu-img, with $type as its format.
disk_new() {
	type=raw
	case $kind in
	qcow2)
		image=disk.qcow2 direct=disk.qcow2 type=qcow2
		qemu-img convert -q -f raw -O qcow2 "$1" disk.qcow2
		;;
	rbd)
		image=rbd:volumes/disk$BATS_TEST_NUMBER:conf=$BATS_FILE_TMPDIR/ceph/ceph.conf direct=$image
		! rbd info "volumes/disk$BATS_TEST_NUMBER" >/dev/null 2>&1 ||
			rbd rm --no-progress "volumes/disk$BATS_TEST_NUMBER"
		qemu-img convert -q -f raw -O raw "$1" "$direct"
		;;
	iscsi)
		if [ ! -e lun ]; then
			truncate -s "$(stat -c %s "$1")" lun
			tgt_lun "$(cat "$BATS_FILE_TMPDIR/tgt")" "$BATS_TEST_NUMBER" "$PWD/lun" >url
		fi
		image=$(cat url) direct=$image
		qemu-img convert -q -n -f raw -O raw "$1" "$direct"
		;;
	esac
}

# disk_is RAW: QEMU reads the same bytes from the disk itself, now that nobody serves it
disk_is() {
	qemu-img compare -f raw -F "$type" "$1" "$direct"
}

# on_disk OPTION...: the program, with the disk as TARGET
on_disk() {
	"$WITH_DISK" "$image" "$VMDKSYNC" "$@" DISK
}
