# SPDX-License-Identifier: MIT
# A stand-in ESXi host for tests of the migration: a folder that becomes the root of processes in
# namespaces of their own, with an ssh daemon, BusyBox, vim-cmd, vmkfstools and datastores, as the
# scripts in esxi/ tell. A second network namespace is the destination's; a cable joins the two.
# Loaded after helpers.

ESXI_ADDRESS=192.0.2.1
ESXI_DEST=192.0.2.2

esxi_requires() {
	requires root plain ssh unshare nsenter ip busybox
	[ -x /usr/sbin/sshd ] || skip 'needs sshd'
	unshare --net --mount --pid --fork --propagation private true 2>/dev/null ||
		skip 'no namespaces here'
}

# esxi_bring PROGRAM [FOLDER]: into the root, with the libraries it is linked with
esxi_bring() {
	local lib

	mkdir -p "$ESXI${2-/ctl/bin}"
	cp "$1" "$ESXI${2-/ctl/bin}/"
	while read -r lib; do
		mkdir -p "$ESXI${lib%/*}"
		cp -n "$lib" "$ESXI$lib"
	done < <(ldd "$1" | grep -o '/[^ ]*')
}

# esxi_disk N NODE FORMAT CAPACITY GRAIN DIR NAME STEM
esxi_disk() {
	local d=$ESXI/ctl/disk/$1

	mkdir -p "$d" "$ESXI$6"
	printf '%s\n' "$2" >"$d/node"
	printf '%s\n' "$3" >"$d/format"
	printf '%s\n' "$4" >"$d/capacity"
	printf '%s\n' "$5" >"$d/grain"
	printf '%s\n' "$6" >"$d/dir"
	printf '%s' "$7" >"$d/name"
	printf '%s\n' "$8" >"$d/stem"
	printf '%s\n' "$8.vmdk" >"$d/active"
	: >"$d/dirty"
	"$MKVMDK" pattern "$d/model.raw" "$4" "$1"
	# not all of it is data
	dd if=/dev/zero of="$d/model.raw" bs=65536 seek=3 count=5 conv=notrunc status=none
	# shellcheck disable=SC2016 # for the shell inside
	chroot "$ESXI" /bin/sh -c '
		. /ctl/vm.sh
		descriptor "$1" "$2" "" "$3" ffffffff
		held "$(extent "$1" "$2")"' sh "$1" "$8.vmdk" "$(printf '%08x' $((RANDOM * 32768 + RANDOM)))"
}

# esxi_start [SECTORS SECTORS]: the host in $ESXI, with a running machine of two disks; afterwards
# `esxi_ssh`, and `here COMMAND` for what runs at the destination. $ESXI_NET is a process in its network.
esxi_start() {
	local f pid

	ESXI=$BATS_TEST_TMPDIR/esxi
	mkdir -p "$ESXI"/{bin,dev,proc,root/.ssh,etc/ssh,run/sshd,ctl/bin,ctl/fault,ctl/disk,tmp,var/log,var/empty}
	mkdir -p "$ESXI"/vmfs/volumes/{5f1a-aaaa,5f1b-bbbb}
	ln -s 5f1a-aaaa "$ESXI/vmfs/volumes/ds1"
	ln -s 5f1b-bbbb "$ESXI/vmfs/volumes/fast ds"
	esxi_bring "$(command -v busybox)"
	mv "$ESXI/ctl/bin/busybox" "$ESXI/bin/busybox"
	for f in sh cat dd du ls rm sleep nc gzip; do
		ln -s busybox "$ESXI/bin/$f"
	done
	for f in $(busybox --list); do
		[ -e "$ESXI/ctl/bin/$f" ] || ln -s /bin/busybox "$ESXI/ctl/bin/$f"
	done
	esxi_bring "$MKVMDK"
	esxi_bring /usr/sbin/sshd
	# newer ones are several programs
	for f in /usr/lib/openssh/sshd-*; do
		[ ! -x "$f" ] || esxi_bring "$f" "${f%/*}"
	done
	cp "$TOP"/tests/esxi/*.sh "$ESXI/ctl/"
	ln -s /ctl/vim-cmd.sh "$ESXI/bin/vim-cmd"
	ln -s /ctl/vmkfstools.sh "$ESXI/bin/vmkfstools"
	echo 'root:x:0:0:root:/root:/ctl/login.sh' >"$ESXI/etc/passwd"
	echo 'sshd:x:74:74::/run/sshd:/bin/false' >>"$ESXI/etc/passwd"
	printf 'root:x:0:\nsshd:x:74:\n' >"$ESXI/etc/group"
	echo /ctl/login.sh >"$ESXI/etc/shells"

	ssh-keygen -q -t ed25519 -N '' -f "$BATS_TEST_TMPDIR/key"
	cp "$BATS_TEST_TMPDIR/key.pub" "$ESXI/root/.ssh/authorized_keys"
	chmod -R go= "$ESXI/root"
	ssh-keygen -q -t ed25519 -N '' -f "$ESXI/etc/ssh/host"
	cat >"$ESXI/etc/ssh/config" <<-'END'
	HostKey /etc/ssh/host
	PidFile /ctl/sshd.pid
	PermitRootLogin yes
	StrictModes no
	UsePAM no
	UseDNS no
	END
	cat >"$BATS_TEST_TMPDIR/ssh_config" <<-END
	Host esxi
		HostName $ESXI_ADDRESS
		User root
		IdentityFile $BATS_TEST_TMPDIR/key
		StrictHostKeyChecking no
		UserKnownHostsFile $BATS_TEST_TMPDIR/known_hosts
		LogLevel ERROR
		Ciphers aes128-gcm@openssh.com
	END

	# the machine
	echo 12 >"$ESXI/ctl/vmid"
	echo on >"$ESXI/ctl/power"
	echo 1 >"$ESXI/ctl/next"
	: >"$ESXI/ctl/snapshots"
	# numbers of removed snapshots are used again
	printf '%06d\n' 3 1 2 5 4 6 8 7 9 11 10 13 12 >"$ESXI/ctl/numbers"
	echo '/vmfs/volumes/5f1a-aaaa/web server/web server.vmx' >"$ESXI/ctl/vmx"
	echo 'web server/web server.vmx' >"$ESXI/ctl/vmx-file"
	echo 'web server' >"$ESXI/ctl/name"
	echo guestToolsRunning >"$ESXI/ctl/tools"
	echo 'powerOn 120 2 systemDefault -1 no' >"$ESXI/ctl/autostart"
	cat >"$ESXI/ctl/vmx.head" <<-'END'
	.encoding = "UTF-8"
	displayName = "web server"
	uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"
	firmware = "efi"
	scsi0.present = "TRUE"
	scsi0.sharedBus = "none"
	ide1:0.present = "TRUE"
	ide1:0.fileName = "/usr/lib/vmware/isoimages/linux.iso"
	ide1:0.deviceType = "cdrom-image"
	sata0:0.present = "FALSE"
	sata0:0.fileName = "gone.vmdk"
	END
	esxi_disk 0 scsi0:0 cowd "${1:-131072}" 1 '/vmfs/volumes/5f1a-aaaa/web server' '' 'web server'
	esxi_disk 1 scsi0:1 sesparse "${2:-262144}" 8 "/vmfs/volumes/5f1b-bbbb/web's" \
		"/vmfs/volumes/5f1b-bbbb/web's/" data
	chroot "$ESXI" /bin/sh -c '. /ctl/vm.sh; write_vmx'

	# no output of ours may keep bats waiting
	unshare --net sleep 3600 >/dev/null 2>&1 3>&- &
	ESXI_HERE=$!
	unshare --net --mount --pid --fork --kill-child --propagation private \
		chroot "$ESXI" /ctl/init.sh >"$ESXI/ctl/log" 2>&1 3>&- &
	ESXI_PID=$!
	until_true pgrep -P "$ESXI_PID" >/dev/null
	pid=$(pgrep -P "$ESXI_PID")
	# never in the network that this shell is in
	until_true esxi_elsewhere "$ESXI_HERE"
	until_true esxi_elsewhere "$pid"
	# shellcheck disable=SC2034 # for the benchmark
	ESXI_NET=$pid
	nsenter -t "$ESXI_HERE" --net ip link add cable type veth peer name vmnic0 netns "$pid"
	nsenter -t "$ESXI_HERE" --net ip addr add "$ESXI_DEST/24" dev cable
	nsenter -t "$ESXI_HERE" --net ip link set cable up
	nsenter -t "$ESXI_HERE" --net ip link set lo up
	nsenter -t "$pid" --net ip addr add "$ESXI_ADDRESS/24" dev vmnic0
	nsenter -t "$pid" --net ip link set vmnic0 up
	until_true esxi_ssh true 2>/dev/null || {
		cat "$ESXI/ctl/log"
		return 1
	}
}

# esxi_elsewhere PID: has a network of its own
esxi_elsewhere() {
	local net

	net=$(readlink "/proc/$1/ns/net") && [ "$net" != "$(readlink /proc/self/ns/net)" ]
}

# here COMMAND...: runs at the destination
here() {
	nsenter -t "$ESXI_HERE" --net "$@"
}

esxi_ssh() {
	here ssh -F "$BATS_TEST_TMPDIR/ssh_config" -o BatchMode=yes esxi "$@"
}

# fault NAME [LINE...]: from now on; fault -NAME: no more
fault() {
	local name=$1

	shift
	case $name in
	-*) rm -f "$ESXI/ctl/fault/${name#-}" ;;
	*) printf '%s\n' "$@" >"$ESXI/ctl/fault/$name" ;;
	esac
}

# esxi_replay FILE: from now on vim-cmd answers as probe.sh has recorded, and its text files are those
esxi_replay() {
	rm -rf "$ESXI/ctl/replay"
	mkdir -p "$ESXI/ctl/replay"
	awk -v dir="$ESXI/ctl/replay" -v root="$ESXI" -v q="'" '
		/^### = / { if (out != "") close(out); out = ""; next }
		/^### vim-cmd / { out = $0; sub(/^### vim-cmd /, "", out); gsub("/", "_", out); out = dir "/" out; next }
		/^### cat \047/ {
			out = $0; sub(/^### cat \047/, "", out); sub(/\047$/, "", out)
			folder = out; sub("/[^/]*$", "", folder)
			system("mkdir -p " q root folder q)
			out = root out; printf "" >out
			next
		}
		/^#! / { next }
		out != "" { print >out }' "$1"
}

# truth N: the file that holds what the guest sees on that disk
truth() {
	echo "$ESXI/ctl/disk/$1/model.raw"
}

esxi_stop() {
	local pid

	for pid in "${ESXI_PID-}" "${ESXI_HERE-}"; do
		[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || :
	done
	wait "${ESXI_PID-}" "${ESXI_HERE-}" 2>/dev/null || :
}
