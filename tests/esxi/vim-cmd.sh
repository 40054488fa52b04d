#!/bin/sh
# vim-cmd of the stand-in host.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

# later SECONDS COMMAND...: answers at once, does it after a while
later() {
	(
		trap '' HUP
		sleep "$1"
		shift
		lock
		"$@"
	) >/dev/null 2>&1 </dev/null &
}

echo "$*" >>/ctl/commands
case $1 in
vmsvc/getallvms)
	echo 'Vmid      Name                  File                   Guest OS      Version   Annotation'
	echo "3      web           [ds1] web/web.vmx                       debian11_64Guest   vmx-19"
	echo "4      web server [old]   [ds1] old/web server.vmx           debian11_64Guest   vmx-19"
	echo "$(cat /ctl/vmid)      web server    [ds1] web server/web server.vmx   debian11_64Guest   vmx-19    a [note]"
	exit
	;;
hostsvc/datastore/summary)
	printf '(vim.Datastore.Summary) {\n   name = "%s", \n   freeSpace = 107374182400, \n}\n' "$2"
	exit
	;;
hostsvc/autostartmanager/update_autostartentry)
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
	later 0.5 snapshot "$3"
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
		echo "${indent}Snapshot Desciption  : made by"
		echo 'Snapshot tests'
		echo "${indent}Snapshot Created On  : 11/21/2026 9:13:45"
		echo "${indent}Snapshot State       : powered on"
	done </ctl/snapshots
	;;
vmsvc/snapshot.remove)
	echo 'Remove Snapshot:'
	grep -q "^$3 " /ctl/snapshots || exit 1
	lock
	sed -i "/^$3 /d" /ctl/snapshots
	[ -s /ctl/snapshots ] || merge
	;;
*)
	echo "Invalid command '$1'." >&2
	exit 1
	;;
esac
