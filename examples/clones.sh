#!/bin/sh
# SPDX-License-Identifier: MIT
# Linked clones become disks of their own: each the shared base and its own delta, many at once.
set -u

usage() {
	cat <<'END'
Usage: clones.sh JOBS FOLDER DESCRIPTOR...
Makes FOLDER/NAME.raw of each DESCRIPTOR (NAME.vmdk), a linked clone or the
newest link of any chain: base, parents and own delta in one pass, holes left
holes. JOBS run at once. What exists is not overwritten; what failed is removed.

VMDKSYNC in the environment: another command for it.
Exit status: 0 all were made; 1 some were not, see the messages; 2 wrong usage.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
case ${1-} in
'' | *[!0-9]* | 0) ;;
*) [ $# -lt 3 ] || ok=1 ;;
esac
if [ "${ok-}" != 1 ]; then
	usage >&2
	exit 2
fi
jobs=$1 folder=$2
shift 2
twice=$(for d; do echo "${d##*/}"; done | sort | uniq -d)
if [ -n "$twice" ]; then
	echo "clones.sh: two images would become one file: $twice" >&2
	exit 2
fi
mkdir -p "$folder" || exit 2
vmdksync=${VMDKSYNC:-vmdksync}
export vmdksync folder

# shellcheck disable=SC2016 # for the shell inside
printf '%s\0' "$@" | xargs -0 -n 1 -P "$jobs" sh -c '
	name=${1##*/}
	raw=$folder/${name%.vmdk}.raw
	if [ -e "$raw" ]; then
		echo "clones.sh: $raw exists already" >&2
		exit 1
	fi
	$vmdksync --full --create "$1" "$raw" && exit
	rm -f "$raw"
	exit 1' clone || exit 1
