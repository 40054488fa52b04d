#!/bin/sh
# SPDX-License-Identifier: MIT
# The receiving end of a netcat transfer, straight onto the disk. netcat itself tells neither a broken
# connection nor a missing end, so the size, or better the packing, has to.
set -u

usage() {
	cat <<'END'
Usage: receive.sh PORT SIZE|gzip TARGET [VMDKSYNC-OPTION...]
Waits for one delta on PORT and writes it onto TARGET. SIZE is the number of
bytes of the delta (ls -l there tells); with gzip, the delta comes packed, and a
damaged or cut stream is noticed by itself, which is safer. On the other side:

  gzip -1 <host-000001-delta.vmdk | nc -w 60 HERE PORT     (with gzip)
  nc -w 60 HERE PORT <host-000001-delta.vmdk               (with SIZE)

Nothing is written before all has come and was checked. VMDKSYNC in the
environment: another command for it. Exit status: that of vmdksync.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
if [ $# -lt 3 ]; then
	usage >&2
	exit 2
fi
port=$1 size=$2 target=$3
shift 3
case $port in
'' | *[!0-9]*)
	echo "receive.sh: $port is no port" >&2
	exit 2
	;;
esac
case $size in
gzip) ;;
'' | *[!0-9]*)
	echo "receive.sh: SIZE is a number of bytes, or gzip, not '$size'" >&2
	exit 2
	;;
*) set -- --expect-size="$size" "$@" ;;
esac
if [ ! -e "$target" ]; then
	echo "receive.sh: $target: does not exist" >&2
	exit 2
fi
command -v nc >/dev/null || {
	echo 'receive.sh: nc is not installed' >&2
	exit 2
}

# every netcat knows -l -p; its own input ends at once, so that it ends with the other side's
# shellcheck disable=SC2086 # VMDKSYNC may hold options
nc -l -p "$port" </dev/null | ${VMDKSYNC:-vmdksync} --spool-first "$@" - "$target"
