# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# The virtual machine of the stand-in host, see ../esxi.bash. It is a folder:
#   /ctl/power /ctl/vmid /ctl/vmx          on or off; its number; where its .vmx lies
#   /ctl/snapshots /ctl/next /ctl/numbers  "ID NAME" lines; the next ID; names of files to come
#   /ctl/autostart /ctl/room /ctl/description.ID  what vim-cmd tells of these; /ctl/tools
#   /ctl/disk/N/...                        node format capacity grain dir stem name active
#   /ctl/disk/N/model.raw /ctl/disk/N/dirty   what the guest sees; grains written since the snapshot
#   /ctl/fault/NAME                        one thing that goes wrong

PATH=/ctl/bin:/bin
export PATH

fault() {
	[ -e "/ctl/fault/$1" ]
}

# disks: their numbers
disks() {
	(cd /ctl/disk && echo *)
}

# one command at a time, the guest's writes included
lock() {
	until mkdir /ctl/lock 2>/dev/null; do
		sleep 0.05
	done
	trap 'rmdir /ctl/lock 2>/dev/null' EXIT
}

unlock() {
	trap - EXIT
	rmdir /ctl/lock
}

# extent DISK DESCRIPTOR: the file that holds the descriptor's data
extent() {
	stem=${2%.vmdk}
	if [ "$2" = "$(cat "/ctl/disk/$1/stem").vmdk" ]; then
		echo "$(cat "/ctl/disk/$1/dir")/$stem-flat.vmdk"
	elif [ "$(cat "/ctl/disk/$1/format")" = cowd ]; then
		echo "$(cat "/ctl/disk/$1/dir")/$stem-delta.vmdk"
	else
		echo "$(cat "/ctl/disk/$1/dir")/$stem-sesparse.vmdk"
	fi
}

# held FILE: as long as it is in use, nobody can open it
held() {
	rm -f "$1"
	mknod "$1" c 0 0
}

# descriptor DISK NAME PARENT CID PARENTCID
descriptor() {
	d=/ctl/disk/$1
	type=vmfs kind=VMFS
	if [ -n "$3" ]; then
		case $(cat "$d/format") in
		cowd) type=vmfsSparse kind=VMFSSPARSE ;;
		*) type=seSparse kind=SESPARSE ;;
		esac
	fi
	e=$(extent "$1" "$2")
	{
		printf '# Disk DescriptorFile\nversion=3\nencoding="UTF-8"\nCID=%s\nparentCID=%s\n' "$4" "$5"
		printf 'createType="%s"\n' "$type"
		[ -z "$3" ] || printf 'parentFileNameHint="%s"\n' "$3"
		printf '# Extent description\nRW %s %s "%s"\n' "$(cat "$d/capacity")" "$kind" "${e##*/}"
		printf '\n# The Disk Data Base\n#DDB\n\nddb.longContentID = "%s"\n' "$4$4$4$4"
	} >"$(cat "$d/dir")/$2"
}

# size_of_held FILE: what the file of a running VM would have, roughly
size_of_held() {
	for n in $(disks); do
		if [ "$1" = "$(extent "$n" "$(cat "/ctl/disk/$n/active")")" ]; then
			awk -v grain="$(cat "/ctl/disk/$n/grain")" -F - '{ n += $2 - $1 + 1 }
				END { printf "%d\n", 65536 + n * grain * 512 }' "/ctl/disk/$n/dirty"
			return
		fi
	done
	echo 65536
}

# kib_of_held FILE: what a flat file takes
kib_of_held() {
	for n in $(disks); do
		[ "$1" != "$(extent "$n" "$(cat "/ctl/disk/$n/stem").vmdk")" ] ||
			echo $(($(cat "/ctl/disk/$n/capacity") / 2))
	done
}

cid_of() {
	sed -n 's/^CID=//p' "$1"
}

new_cid() {
	hexdump -n 4 -e '"%08x"' /dev/urandom
}

# random N: a number below N
random() {
	echo $(($(hexdump -n 4 -e '"%u"' /dev/urandom) % $1))
}

# write_vmx: which file is live stands there
write_vmx() {
	{
		cat /ctl/vmx.head
		for d in /ctl/disk/*; do
			echo "$(cat "$d/node").present = \"TRUE\""
			echo "$(cat "$d/node").deviceType = \"scsi-hardDisk\""
			echo "$(cat "$d/node").fileName = \"$(cat "$d/name")$(cat "$d/active")\""
		done
	} >"$(cat /ctl/vmx).new"
	mv "$(cat /ctl/vmx).new" "$(cat /ctl/vmx)"
}

# freeze DISK: the active link becomes a file that can be read
freeze() {
	disk=$1
	d=/ctl/disk/$disk
	active=$(cat "$d/active")
	e=$(extent "$disk" "$active")
	rm -f "$e"
	case $e in
	*-flat.vmdk)
		cp "$d/model.raw" "$d/base.raw"
		if fault base-unreadable; then
			held "$e"
		else
			cp "$d/model.raw" "$e"
		fi
		return
		;;
	esac
	alloc=none
	[ ! -s "$d/dirty" ] || alloc=$(tr '\n' ',' <"$d/dirty")
	set --
	if [ -n "${closing-}" ] && grep -qsx "$disk" /ctl/fault/left-open; then
		set -- unclean=1
	fi
	mkvmdk "$(cat "$d/format")" "$e" "capacity=$(cat "$d/capacity")" "alloc=${alloc%,}" \
		from="$d/model.raw" layout=runs "$@" >/dev/null
}

# close_link DISK: as freeze, and the content id tells that there was a change
close_link() {
	freeze "$1"
	d=/ctl/disk/$1
	f=$(cat "$d/dir")/$(cat "$d/active")
	sed "s/^CID=.*/CID=$(new_cid)/" "$f" >"$f.new"
	mv "$f.new" "$f"
}

power_off() {
	[ "$(cat /ctl/power)" = on ] || return 0
	closing=1
	# what the guest writes at the very end, for the benchmark
	[ ! -e /ctl/burst ] || cat /ctl/burst >>/ctl/disk/0/dirty
	for n in $(disks); do
		close_link "$n"
		for e in "/ctl/disk/$n"/*.vmdk; do
			[ -e "$e" ] || continue
			[ ! -d "$(cat "/ctl/disk/$n/dir")/${e##*/}" ] || rmdir "$(cat "/ctl/disk/$n/dir")/${e##*/}"
			mv "$e" "$(cat "/ctl/disk/$n/dir")/"
		done
	done
	echo off >/ctl/power
	! fault locked || still_locked "$(cat /ctl/fault/locked)"
}

# still_locked SECONDS: nobody can open the disks for so long
still_locked() {
	for n in $(disks); do
		e=$(extent "$n" "$(cat "/ctl/disk/$n/active")")
		mv "$e" "/ctl/disk/$n/locked"
		held "$e"
	done
	(
		trap '' HUP
		sleep "$1"
		for n in $(disks); do
			e=$(extent "$n" "$(cat "/ctl/disk/$n/active")")
			mv -f "/ctl/disk/$n/locked" "$e"
		done
	) >/dev/null 2>&1 </dev/null &
}

power_on() {
	for n in $(disks); do
		held "$(extent "$n" "$(cat "/ctl/disk/$n/active")")"
	done
	echo on >/ctl/power
	# of two that run there is one too many
	[ ! -e /ctl/target-on ] || echo "source started" >>/ctl/both-on
}

# snapshot NAME [DESCRIPTION]
snapshot() {
	id=$(cat /ctl/next)
	printf '%s\n' "${2-}" >"/ctl/description.$id"
	echo $((id + 1)) >/ctl/next
	number=$(sed -n 1p /ctl/numbers)
	sed -i 1d /ctl/numbers
	for n in $(disks); do
		d=/ctl/disk/$n
		freeze "$n"
		old=$(cat "$d/active")
		if [ "$old" != "$(cat "$d/stem").vmdk" ]; then
			e=$(extent "$n" "$old")
			if fault links-unreadable; then
				mv "$e" "$d/"
				held "$e"
			elif fault links-mute; then
				# it opens, and does not read
				mv "$e" "$d/"
				mkdir "$e"
			fi
		fi
		echo "$(cat "$d/stem")-$number.vmdk" >"$d/active"
		cid=$(cid_of "$(cat "$d/dir")/$old")
		descriptor "$n" "$(cat "$d/active")" "$old" "$cid" "$cid"
		held "$(extent "$n" "$(cat "$d/active")")"
		: >"$d/dirty"
	done
	# how many sectors more the guest writes until the next one, for tests
	if [ -s /ctl/bursts ]; then
		n=$(sed -n 1p /ctl/bursts)
		sed -i 1d /ctl/bursts
		dd if=/dev/urandom of=/ctl/disk/0/model.raw bs=512 count="$n" conv=notrunc 2>/dev/null
		echo "0-$((n - 1))" >/ctl/disk/0/dirty
	fi
	write_vmx
	echo "$id $1" >>/ctl/snapshots
}

# merge: all snapshots are gone, the base holds what the guest sees
merge() {
	for n in $(disks); do
		d=/ctl/disk/$n
		stem=$(cat "$d/stem") dir=$(cat "$d/dir")
		rm -f "$dir/$stem"-[0-9]*.vmdk
		echo "$stem.vmdk" >"$d/active"
		rm -f "$dir/$stem-flat.vmdk"
		cp "$d/model.raw" "$dir/$stem-flat.vmdk"
		: >"$d/dirty"
	done
	: >/ctl/snapshots
	write_vmx
}
