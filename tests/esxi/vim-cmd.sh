#!/bin/sh
# SPDX-License-Identifier: MIT
# vim-cmd of the stand-in host.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

# later SECONDS COMMAND...: answers at once, does it after a while
later() {
	(
		trap '' HUP
		sleep "$1"
		shift
		while fault held-snapshot && [ "$1 ${2-}" = "snapshot $(cat /ctl/fault/held-snapshot)" ]; do
			sleep 0.1
		done
		lock
		"$@"
	) >/dev/null 2>&1 </dev/null &
}

echo "$*" >>/ctl/commands
# the first line of these faults is a pattern
for f in slow-vim hang lie; do
	fault $f || continue
	pattern=$(sed -n 1p /ctl/fault/$f)
	# shellcheck disable=SC2254
	case "$*" in
	$pattern)
		case $f in
		slow-vim) sleep "$(sed -n 2p /ctl/fault/$f)" ;;
		hang) exec sleep 1000 ;;
		lie)
			echo '(vim.fault.TaskInProgress) { dynamicType = <unset>, } failed'
			exit 0
			;;
		esac
		;;
	esac
done
# what a real host has answered, see probe.sh
f=/ctl/replay/$(echo "$*" | tr / _)
if [ -f "$f" ]; then
	cat "$f"
	exit
fi
case $1 in
vmsvc/getallvms)
	echo 'Vmid      Name                  File                   Guest OS      Version   Annotation'
	echo "3      web           [ds1] web/web.vmx                       debian11_64Guest   vmx-19"
	echo "4      web server [old]   [ds1] old/web server.vmx           debian11_64Guest   vmx-19"
	printf '%s      %s    [ds1] %s   debian11_64Guest   vmx-19    a [note]\n' "$(cat /ctl/vmid)" "$(cat /ctl/name)" \
		"$(cat /ctl/vmx-file)"
	exit
	;;
hostsvc/datastore/listsummary)
	echo '(vim.Datastore.Summary) ['
	for v in ds1:5f1a-aaaa 'fast ds:5f1b-bbbb'; do
		printf '   (vim.Datastore.Summary) {\n      name = "%s", \n      url = "/vmfs/volumes/%s", \n' \
			"${v%:*}" "${v#*:}"
		printf '      capacity = 214748364800, \n      freeSpace = %s, \n   }, \n' \
			"$(cat "/ctl/room.${v#*:}" 2>/dev/null || echo 107374182400)"
	done
	echo ']'
	exit
	;;
hostsvc/autostartmanager/update_autostartentry)
	# -1 passes for an option otherwise
	if [ "$2" = -- ]; then
		shift
	else
		case "$*" in
		*' -'*) exit 1 ;;
		esac
	fi
	[ $# = 8 ] || exit 1
	echo "$3 $4 $5 $6 $7 $8" >/ctl/autostart
	exit
	;;
hostsvc/autostartmanager/get_autostartseq)
	echo '(vim.host.AutoStartManager.AutoPowerInfo) ['
	# shellcheck disable=SC2046 # words
	set -- $(cat /ctl/autostart)
	for id in 3 "$(cat /ctl/vmid)"; do
		printf '   (vim.host.AutoStartManager.AutoPowerInfo) {\n      key = '\''vim.VirtualMachine:%s'\'', \n' "$id"
		printf '      startOrder = %s, \n      startDelay = %s, \n' "$3" "$2"
		printf '      waitForHeartbeat = "%s", \n      startAction = "%s", \n' "$6" "$1"
		printf '      stopDelay = %s, \n      stopAction = "%s", \n   }, \n' "$5" "$4"
	done
	echo ']'
	exit
	;;
esac

if [ "$2" != "$(cat /ctl/vmid)" ]; then
	echo "(vim.fault.NotFound) { } for $*" >&2
	exit 255
fi
case $1 in
vmsvc/power.getstate)
	echo 'Retrieved runtime info'
	echo "Powered $(cat /ctl/power)"
	;;
vmsvc/get.guest)
	printf 'Guest information:\n\n(vim.vm.GuestInfo) {\n   toolsStatus = "toolsOk", \n   toolsRunningStatus = "%s", \n}\n' \
		"$(cat /ctl/tools)"
	;;
vmsvc/power.shutdown)
	fault shutdown-ignored || later 0.5 power_off
	;;
vmsvc/power.off)
	echo 'Powering off VM:'
	lock
	power_off
	;;
vmsvc/power.on)
	echo 'Powering on VM:'
	lock
	power_on
	;;
vmsvc/snapshot.create)
	echo 'Create Snapshot:'
	if fault snapshot-fails; then
		echo 'Snapshot not taken since the state of the virtual machine has not changed' >&2
		exit 1
	fi
	[ "$5 $6" = '0 0' ] || exit 1
	later 0.5 snapshot "$3" "$4"
	;;
vmsvc/snapshot.get)
	echo 'Get Snapshot:'
	indent=
	while read -r id name; do
		if [ -z "$indent" ]; then
			echo '|-ROOT'
		else
			echo "$indent|-CHILD"
		fi
		indent=$indent--
		echo "${indent}Snapshot Name        : $name"
		echo "${indent}Snapshot Id        : $id"
		echo "${indent}Snapshot Desciption  : $(cat "/ctl/description.$id" 2>/dev/null)"
		echo 'Snapshot of tests'
		echo "${indent}Snapshot Created On  : 11/21/2026 9:13:45"
		echo "${indent}Snapshot State       : powered on"
	done </ctl/snapshots
	;;
vmsvc/snapshot.remove)
	echo 'Remove Snapshot:'
	grep -q "^$3 " /ctl/snapshots || exit 1
	lock
	if fault busy && [ "$(cat /ctl/fault/busy)" -gt 0 ]; then
		echo $(($(cat /ctl/fault/busy) - 1)) >/ctl/fault/busy
		echo 'Remove Snapshot failed: Another task is already in progress.'
		exit 1
	fi
	sed -i "/^$3 /d" /ctl/snapshots
	if [ ! -s /ctl/snapshots ]; then
		if fault slow-removal; then
			later "$(cat /ctl/fault/slow-removal)" merge
		else
			merge
		fi
	fi
	;;
*)
	echo "Invalid command '$1'." >&2
	exit 1
	;;
esac
