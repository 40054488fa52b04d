#!/bin/sh
# SPDX-License-Identifier: MIT
# Days after the migration: does the copy hold what the source held? The copy runs by now, so a snapshot
# of it from the moment of the cutover (LVM, ZFS, or the storage's own) is compared with the chain that
# is still on the source's side, mounted or copied here.
set -u

usage() {
	cat <<'END'
Usage: verify-later.sh CHAIN SNAPSHOT [VMDKSYNC-OPTION...]
Compares SNAPSHOT, a device or file that holds the migrated disk as it was at
the cutover, with the whole disk that CHAIN makes: the newest descriptor of the
source; its parents are found by their hints (--search=DIR helps). Nothing is
written to either.

An LVM snapshot, taken before the new machine is started:
  lvcreate -s -n vm-hda-cutover -L 10G /dev/vg0/vm-hda
  verify-later.sh host-000002.vmdk /dev/vg0/vm-hda-cutover

VMDKSYNC in the environment: another command for it.
Exit status: 0 the same; 1 they differ, the ranges are listed; 2 trouble.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
if [ $# -lt 2 ]; then
	usage >&2
	exit 2
fi
chain=$1 snapshot=$2
shift 2
# a bare delta would be compared alone, and say nothing about the rest of the disk
# shellcheck disable=SC2086 # VMDKSYNC may hold options
whole=$(${VMDKSYNC:-vmdksync} --verify --json "$@" "$chain" "$snapshot")
status=$?
case $(printf %s "$whole" | tr -d ' \n') in
*'"full_disk":true'*) ;;
'') ;;
*)
	echo "verify-later.sh: the base of $chain was not found: only its own grains were compared" >&2
	[ $status != 0 ] || status=2
	;;
esac
[ $status != 0 ] || echo "$snapshot holds what $chain makes, every byte."
exit $status
