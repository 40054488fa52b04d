#!/bin/sh
# SPDX-License-Identifier: MIT
# vmkfstools of the stand-in host: -i SOURCE CLONE -d thin|2gbsparse, and -U CLONE.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

# clone_sparse SECTORS RAW CLONE: two extents, of which each holds what is not zero
clone_sparse() {
	half=$(($1 / 2 / 128 * 128))
	printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="twoGbMaxExtentSparse"\n' >"$3"
	for k in 1 2; do
		from=$((half * (k - 1))) count=$half
		[ $k = 1 ] || count=$(($1 - half))
		file=${3%.vmdk}-s00$k.vmdk
		dd if="$2" of=/tmp/part.$$ bs=65536 skip=$((from / 128)) count=$(((count + 127) / 128)) 2>/dev/null
		alloc=none
		n=0
		while [ $n -lt $(((count + 127) / 128)) ]; do
			[ "$(dd if=/tmp/part.$$ bs=65536 skip=$n count=1 2>/dev/null | tr -d '\0' | head -c 1 | wc -c)" = 0 ] || alloc=$alloc,$n
			n=$((n + 1))
		done
		mkvmdk hosted "$file" capacity=$count grain=128 alloc="${alloc#none,}" from=/tmp/part.$$ layout=runs >/dev/null
		rm /tmp/part.$$
		printf 'RW %s SPARSE "%s"\n' $count "${file##*/}" >>"$3"
	done
}

echo "vmkfstools $*" >>/ctl/commands
case $1 in
-i)
	for n in $(disks); do
		d=/ctl/disk/$n
		if [ "$2" = "$(cat "$d/dir")/$(cat "$d/stem").vmdk" ]; then
			echo "Destination disk format: $5"
			printf 'Cloning disk '\''%s'\''...\r' "$2"
			printf 'Clone: 10%% done.\r'
			! fault slow-clone || sleep "$(cat /ctl/fault/slow-clone)"
			if [ "$5" = 2gbsparse ]; then
				clone_sparse "$(cat "$d/capacity")" "$d/base.raw" "$3"
			else
				cp "$d/base.raw" "${3%.vmdk}-flat.vmdk"
				sed "s/\(VMFS \"\).*/\1$(echo "${3##*/}" | sed 's/.vmdk$//')-flat.vmdk\"/" "$2" >"$3"
			fi
			printf 'Clone: 100%% done.\n'
			if grep -qsx -e "$5" -e all /ctl/fault/clone-fails; then
				echo 'Failed to clone disk: There is not enough space on the file system for the selected operation (13).'
				exit 1
			fi
			exit 0
		fi
	done
	echo "Failed to open '$2': The file specified is not a virtual disk (15)." >&2
	exit 255
	;;
-U)
	rm -f "$2" "${2%.vmdk}"-flat.vmdk "${2%.vmdk}"-s[0-9]*.vmdk
	;;
*)
	exit 255
	;;
esac
