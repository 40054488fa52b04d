#!/bin/sh
# vmkfstools of the stand-in host: -i SOURCE CLONE -d thin, and -U CLONE.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

echo "vmkfstools $*" >>/ctl/commands
case $1 in
-i)
	for n in 0 1; do
		if [ "$2" = "$(cat /ctl/disk/$n/dir)/$(cat /ctl/disk/$n/stem).vmdk" ]; then
			echo "Destination disk format: VMFS thin-provisioned"
			printf 'Cloning disk '\''%s'\''...\r' "$2"
			printf 'Clone: 10%% done.\r'
			sleep 1
			cp "/ctl/disk/$n/base.raw" "${3%.vmdk}-flat.vmdk"
			sed "s/\(VMFS \"\).*/\1$(echo "${3##*/}" | sed 's/.vmdk$//')-flat.vmdk\"/" "$2" >"$3"
			printf 'Clone: 100%% done.\n'
			exit
		fi
	done
	echo "Failed to open '$2': The file specified is not a virtual disk (15)." >&2
	exit 255
	;;
-U)
	rm "$2" "${2%.vmdk}-flat.vmdk"
	;;
*)
	exit 255
	;;
esac
