#!/bin/sh
# SPDX-License-Identifier: MIT
# Takes the place of the programs sesparse and vmfssparse of migration suites that call them as
# `sesparse DELTA TARGET`: the same words, but everything is checked before the first write, either
# format is taken, and success means that the data are on stable storage.
set -u

usage() {
	cat <<'END'
Usage: oneswap-sesparse.sh DELTA TARGET
Writes DELTA (seSparse or vmfsSparse) onto TARGET. Install it as the program the
suite calls, say:

  install -m 0755 oneswap-sesparse.sh /usr/lib/one/sesparse

VMDKSYNC in the environment: another command for vmdksync.
Exit status: 0 done; 1 anything else, as the suites expect.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
if [ $# != 2 ]; then
	usage >&2
	exit 1
fi
# shellcheck disable=SC2086 # VMDKSYNC may hold options
${VMDKSYNC:-vmdksync} -- "$1" "$2" || {
	echo "oneswap-sesparse.sh: vmdksync ended with $?" >&2
	exit 1
}
