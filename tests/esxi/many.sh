#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the stand-in host one of several VMs, see ../ansible.bash: each is a folder /vms/ID, which the
# programs of this folder, run by `vm`, find at /ctl. This file is vim-cmd, and in the place of vm.sh it is
# what login.sh asks for the sizes of files in use.
PATH=/ctl/bin:/bin
export PATH

# vm ID COMMAND...: where that VM is /ctl
vm() {
	# shellcheck disable=SC2016 # for the shell inside
	unshare -m --propagation unchanged /bin/sh -c 'mount --bind "/vms/$1" /ctl && shift && exec "$@"' sh "$@"
}

# of_file FUNCTION FILE: of vm.sh, asked of the VM whose disk lies there
of_file() {
	# shellcheck disable=SC2016
	vm "$(grep -lxF -e "${2%/*}" /vms/*/disk/*/dir | cut -d / -f 3)" /bin/sh -c '. /ctl/vm.sh; "$@"' sh "$@"
}

size_of_held() {
	of_file size_of_held "$1"
}

kib_of_held() {
	of_file kib_of_held "$1"
}

case ${0##*/} in
vim-cmd)
	case $1,${2-} in
	vmsvc/getallvms,*)
		for v in /vms/*; do
			vm "${v##*/}" /ctl/vim-cmd.sh "$@" | grep "^${v##*/} "
		done
		;;
	hostsvc/datastore/*) vm "$(cd /vms && echo * | cut -d ' ' -f 1)" /ctl/vim-cmd.sh "$@" ;;
	hostsvc/autostartmanager/get*)
		for v in /vms/*; do
			vm "${v##*/}" /ctl/vim-cmd.sh "$@"
		done
		;;
	hostsvc/autostartmanager/*,--) vm "$3" /ctl/vim-cmd.sh "$@" ;;
	*) vm "$2" /ctl/vim-cmd.sh "$@" ;;
	esac
	;;
guests)
	for v in /vms/*; do
		vm "${v##*/}" /ctl/guest.sh &
	done
	wait
	;;
esac
