#!/bin/sh
# SPDX-License-Identifier: MIT
# Attaches a disk that QEMU can open (a qcow2 file, a Ceph RBD image, an iSCSI LUN) while a command runs
# that takes an NBD URI, and detaches it again. qemu-storage-daemon does the work.
set -u

usage() {
	cat <<'END'
Usage: with-disk.sh [--format=FORMAT] [--force] IMAGE COMMAND... DISK ...
Attaches IMAGE through qemu-storage-daemon, runs COMMAND with each argument DISK
replaced by the URI of the disk (nbd+unix:///disk?socket=PATH), and detaches
IMAGE again. When this script ends, IMAGE is closed and can be used.

IMAGE is one of
  FILE             a qcow2 file, or a device that holds one
  rbd:POOL/IMAGE   a Ceph image, as Proxmox and QEMU write it, with
                   :conf=FILE, :id=USER or other options of Ceph behind it
  iscsi://[USER%PASSWORD@]HOST[:PORT]/IQN/LUN
  driver=NAME,...  what --blockdev of qemu-storage-daemon takes

  --format=FORMAT  the format of IMAGE: raw, qcow2, or another that QEMU
                   writes. Without it a FILE has to be qcow2 without a backing
                   or data file, and everything else is raw
  --force          attach an RBD image that has watchers, or whose watchers
                   cannot be listed

IMAGE is refused while QEMU holds it (FILE) or while it has watchers (rbd). An
iSCSI LUN has no such check: stop the VM that uses it.

Exit status: that of COMMAND; 2 IMAGE was refused or could not be attached, and
COMMAND was not run; 3 COMMAND succeeded, but qemu-storage-daemon failed.
END
}

say() {
	printf 'with-disk.sh: %s\n' "$*" >&2
}

refuse() {
	say "$*"
	exit 2
}

# --- what IMAGE is -------------------------------------------------------------------------------

# comma TEXT: sets `quoted` to TEXT as a value of an option of QEMU, where a comma is doubled
comma() {
	quoted=
	rest=$1
	while :; do
		case $rest in
		*,*) quoted=$quoted${rest%%,*},, rest=${rest#*,} ;;
		*) break ;;
		esac
	done
	quoted=$quoted$rest
}

# bytes FIRST COUNT: these bytes of the image, in hexadecimal
bytes() {
	od -An -v -tx1 -j "$1" -N "$2" <"$image" | tr -d ' \n'
}

# A guest can write anything into the first sector of its raw disk, also a qcow2 header that names a file
# of this machine as its backing or data file. So raw is never assumed, and a header with such a name is
# not believed unless --format says so.
file_format() {
	if [ "$(bytes 0 4)" != 514649fb ]; then
		refuse "$image: does not begin as a qcow2 image; a raw disk needs no with-disk.sh, vmdksync takes" \
			"it as TARGET. Another format: say --format=FORMAT"
	fi
	case $image in
	*.raw) refuse "$image: begins as a qcow2 image, but is called raw: say --format=raw or --format=qcow2" ;;
	esac
	[ "$(bytes 8 8)" = 0000000000000000 ] ||
		refuse "$image: a qcow2 image with a backing file: say --format=qcow2 if you trust what it names"
	# bit 2 of the incompatible features, which version 2 does not have
	case $(bytes 4 4)-$(bytes 79 1) in
	00000003-?[4567cdef])
		refuse "$image: a qcow2 image with a data file: say --format=qcow2 if you trust what it names"
		;;
	esac
	format=qcow2
}

of_file() {
	[ -e "$image" ] || refuse "$image: does not exist"
	{ [ -r "$image" ] && [ -w "$image" ]; } || refuse "$image: may not be read and written"
	[ -n "$format" ] || file_format
	driver='file'
	[ ! -b "$image" ] || driver=host_device
	# past the page cache, where the file system can do that
	direct=off
	! dd if="$image" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null || direct=on
	comma "$image"
	protocol="driver=$driver,filename=$quoted,cache.direct=$direct,cache.no-flush=off"
}

# of_rbd: rbd:POOL/[NAMESPACE/]IMAGE[:KEY=VALUE...]. QEMU's options know conf and user; all others go into
# a copy of the configuration.
of_rbd() {
	: >"$dir/options"
	conf='' user=''
	# a colon, and whatever else, stands behind a backslash where it belongs to a name or a value
	printf '%s' "${image#rbd:}" | tr '\n' ' ' |
		sed -e 's/\\:/\x01/g' -e 's/:/\n/g' -e 's/\x01/:/g' | sed 's/\\\(.\)/\1/g' >"$dir/parts"
	echo >>"$dir/parts"
	n=0 name=
	while IFS= read -r part; do
		n=$((n + 1))
		case $n-$part in
		1-*) name=$part ;;
		*-conf=*) conf=${part#conf=} ;;
		*-id=*) user=${part#id=} ;;
		*-?*=*) printf '%s\n' "$part" >>"$dir/options" ;;
		*) refuse "$image: '$part' is no option: KEY=VALUE was expected" ;;
		esac
	done <"$dir/parts"
	case $name in
	*@*) refuse "$image: a snapshot cannot be written to" ;;
	/* | */ | *//*) refuse "$image: rbd:POOL/IMAGE was expected" ;;
	*/*/*/*) refuse "$image: rbd:POOL/IMAGE was expected" ;;
	*/*) ;;
	*) refuse "$image: rbd:POOL/IMAGE was expected" ;;
	esac
	pool=${name%%/*} volume=${name##*/} namespace=
	case $name in
	*/*/*) namespace=${name#*/} namespace=${namespace%/*} ;;
	esac
	if [ -s "$dir/options" ]; then
		[ -n "$conf" ] || [ ! -e /etc/ceph/ceph.conf ] || conf=/etc/ceph/ceph.conf
		{
			[ -z "$conf" ] || cat <"$conf" || refuse "$conf: cannot be read"
			printf '\n[client.%s]\n' "${user:-admin}"
			cat "$dir/options"
		} >"$dir/ceph.conf"
		conf=$dir/ceph.conf
	fi
	comma "$pool" && protocol="driver=rbd,pool=$quoted"
	comma "$volume" && protocol="$protocol,image=$quoted"
	[ -z "$namespace" ] || { comma "$namespace" && protocol="$protocol,namespace=$quoted"; }
	[ -z "$conf" ] || { comma "$conf" && protocol="$protocol,conf=$quoted"; }
	[ -z "$user" ] || { comma "$user" && protocol="$protocol,user=$quoted"; }
	[ -n "$force" ] || only_watched_by 0
}

# only_watched_by N: the RBD image has N watchers, which are all that have it open for writing
only_watched_by() {
	command -v rbd >/dev/null ||
		refuse "$image: cannot tell whether it is in use without rbd: install ceph-common (or --force)"
	LC_ALL=C rbd ${conf:+--conf "$conf"} ${user:+--id "$user"} status "$name" >"$dir/status" 2>"$dir/error" ||
		refuse "$image: cannot tell whether it is in use: rbd status: $(tail -n 1 "$dir/error")"
	if [ "$1" = 0 ]; then
		grep -q '^Watchers: none' "$dir/status" && return
	else
		[ "$(grep -c '^[[:space:]]*watcher=' "$dir/status")" = "$1" ] && return
	fi
	sed 's/^/  /' "$dir/status" >&2
	refuse "$image: is in use: stop what uses it (a crashed client is forgotten after 30 seconds)"
}

of_iscsi() {
	url=${image#iscsi://} user='' secret=
	case $url in
	*@*)
		user=${url%%@*} url=${url#*@}
		case $user in
		*%*)
			# not where ps shows it
			printf '%s' "${user#*%}" >"$dir/password"
			user=${user%%\%*} secret="secret,id=password,file=$dir/password"
			;;
		esac
		;;
	esac
	case $url in
	?*/?*/*[!0-9]* | ?*/?*/ | /*) url= ;;
	?*/?*/*) ;;
	*) url= ;;
	esac
	[ -n "$url" ] || refuse "iscsi://[USER%PASSWORD@]HOST[:PORT]/IQN/LUN was expected"
	iqn=${url#*/}
	comma "${url%%/*}" && protocol="driver=iscsi,transport=tcp,portal=$quoted,lun=${url##*/}"
	comma "${iqn%/*}" && protocol="$protocol,target=$quoted"
	[ -z "$user" ] || { comma "$user" && protocol="$protocol,user=$quoted"; }
	[ -z "$secret" ] || protocol="$protocol,password-secret=password"
}

# --- the daemon ----------------------------------------------------------------------------------

runs() {
	case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) in
	'' | Z) return 1 ;;
	esac
}

attach() {
	# With a session of its own Ctrl-C does not reach it; it ends when this script does, even by KILL.
	# shellcheck disable=SC2086 # two words, or none
	setsid setpriv --pdeathsig TERM qemu-storage-daemon ${secret:+--object "$secret"} \
		--blockdev "node-name=file,discard=unmap,$protocol" \
		--blockdev "node-name=disk,driver=$format,file=file,discard=unmap,detect-zeroes=off" \
		--nbd-server "addr.type=unix,addr.path=$dir/socket,max-connections=1" \
		--export type=nbd,id=disk,node-name=disk,name=disk,writable=on \
		--pidfile "$dir/pid" </dev/null >"$dir/log" 2>&1 \
		3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
	daemon=$!
	until [ -s "$dir/pid" ]; do
		if ! runs "$daemon"; then
			daemon=
			sed 's/^/  /' "$dir/log" >&2
			case $(cat "$dir/log") in
			*'Failed to get '*lock*)
				refuse "$image: is in use: stop the virtual machine or the program that holds it"
				;;
			esac
			refuse "$image: cannot be attached, see above"
		fi
		sleep 0.05
	done
}

# finish: detaches, at every end of this script
# shellcheck disable=SC2317,SC2329 # called by traps
finish() {
	status=$?
	trap '' INT TERM HUP
	if [ -n "$daemon" ]; then
		died=
		runs "$daemon" || died=1
		kill "$daemon" 2>/dev/null
		n=0
		while runs "$daemon"; do
			n=$((n + 1))
			[ "$n" != 100 ] || say "$image: waiting until qemu-storage-daemon (process $daemon) has closed it"
			sleep 0.1
		done
		wait "$daemon"
		closed=$?
		! grep -q 'Failed to flush' "$dir/log" || died=1
		[ ! -s "$dir/log" ] || sed 's/^/  qemu-storage-daemon: /' "$dir/log" >&2
		if [ -n "$died" ] || [ "$closed" != 0 ]; then
			say "$image: qemu-storage-daemon failed (status $closed); run the same command again"
			[ "$status" != 0 ] || status=3
		fi
	fi
	rm -rf "$dir"
	exit "$status"
}

# pass_on: a signal for this script is one for COMMAND. From a terminal it has it already, and a program
# may take the second for a kill, so it gets a moment to end.
# shellcheck disable=SC2317,SC2329
pass_on() {
	stopped=1
	sleep 1
	kill -TERM "$command" 2>/dev/null
}

# --- main ----------------------------------------------------------------------------------------

format='' force=
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		usage
		exit 0
		;;
	--format=?*) format=${1#--format=} ;;
	--force) force=1 ;;
	--)
		shift
		break
		;;
	-*)
		say "$1: unknown option"
		usage >&2
		exit 2
		;;
	*) break ;;
	esac
	shift
done
case $format in
*[!a-zA-Z0-9-]*) refuse "--format=$format: a name such as raw or qcow2 was expected" ;;
esac
image=${1-}
[ $# = 0 ] || shift
found=
for word; do
	[ "$word" != DISK ] || found=1
done
if [ -z "$image" ] || [ -z "$found" ]; then
	usage >&2
	exit 2
fi
for word in qemu-storage-daemon setsid setpriv; do
	command -v $word >/dev/null ||
		refuse "$word is not installed (Debian: qemu-system-common, util-linux; Proxmox has it)"
done

daemon='' secret=''
# short, as the address of a socket has at most 107 bytes; for this user alone
dir=$(mktemp -d /tmp/with-disk.XXXXXX) || exit 2
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

case $image in
rbd:*) of_rbd ;;
iscsi://*) of_iscsi ;;
driver=*) protocol=$image ;;
*) of_file ;;
esac
format=${format:-raw}
attach
case $image in
rbd:*) [ -n "$force" ] || only_watched_by 1 ;;
esac

uri="nbd+unix:///disk?socket=$dir/socket"
for word; do
	shift
	[ "$word" != DISK ] || word=$uri
	set -- "$@" "$word"
done
# A shell lets its background commands ignore Ctrl-C; one that this script ignores itself stays so.
case $(sed -n 's/^SigIgn:.*\(.\)$/\1/p' "/proc/$$/status") in
[2367abef]) ;;
*) ! env --default-signal=INT true 2>/dev/null || set -- env --default-signal=INT,QUIT "$@" ;;
esac
{ "$@" <&9 9<&- & } 9<&0
command=$!
trap pass_on HUP INT TERM
kept=
while :; do
	stopped=
	wait "$command"
	status=$?
	[ -n "$stopped" ] || break
	kept=$status
done
# it ended, and was waited for, just when the signal came
[ "$status" != 127 ] || status=${kept:-127}
exit "$status"
