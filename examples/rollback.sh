#!/bin/sh
# SPDX-License-Identifier: MIT
# A drill for the night of the migration: applies a delta with an undo log, rolls back, and proves that
# the disk is what it was. What works in the drill works when it counts.
set -u

usage() {
	cat <<'END'
Usage: rollback.sh DELTA TARGET UNDO
Applies DELTA to TARGET with the undo log UNDO (a new file), rolls back, and
compares checksums of the whole TARGET from before and after. TARGET ends as it
began, so this may be tried on the real disk, as long as nothing else uses it.

VMDKSYNC in the environment: another command for it.
Exit status: 0 the way back works; 1 it does not; 2 nothing was done.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
if [ $# != 3 ]; then
	usage >&2
	exit 2
fi
delta=$1 target=$2 undo=$3
vmdksync=${VMDKSYNC:-vmdksync}
if [ -e "$undo" ]; then
	echo "rollback.sh: $undo exists already" >&2
	exit 2
fi
# shellcheck disable=SC2086 # VMDKSYNC may hold options
$vmdksync --dry-run "$delta" "$target" || exit 2

echo 'checksum before ...'
before=$(sha256sum <"$target") || exit 2
# shellcheck disable=SC2086
$vmdksync --undo="$undo" "$delta" "$target"
applied=$?
# also after a failure: the log holds what was overwritten so far
if [ -e "$undo" ]; then
	# shellcheck disable=SC2086
	$vmdksync --read-back "$undo" "$target" || {
		echo "rollback.sh: the way back failed; $undo still holds it" >&2
		exit 1
	}
fi
echo 'checksum after ...'
after=$(sha256sum <"$target") || exit 1
if [ "$before" != "$after" ]; then
	echo "rollback.sh: $target is not what it was: $before, $after" >&2
	exit 1
fi
[ $applied = 0 ] || echo "rollback.sh: the apply itself ended with $applied, but was undone" >&2
echo "$target is what it was, byte for byte."
[ $applied = 0 ]
