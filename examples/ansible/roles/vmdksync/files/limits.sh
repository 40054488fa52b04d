#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs COMMAND when it may: inside the window from FROM to UNTIL, if they are not empty; with one of the LIMIT
# slots of every NAME; with `wait` when nothing works in the folder STATE any more, where a run that was
# killed may have left something.
# Usage: limits.sh LOCKS STATE wait|now FROM UNTIL NAME=LIMIT... -- COMMAND...
#
# A slot is a lock on a file in the folder LOCKS. COMMAND and all that it starts inherit the lock, so it is
# free when nothing of that runs any more, whatever was killed. VMDKSYNC_SLOTS holds the descriptors, for
# what shall outlive COMMAND.
# Exit: that of COMMAND; 2 a wrong word; 75 outside of the window.
set -u

die() {
	echo "${*:2}" >&2
	exit "$1"
}

# in_window: a cutover that has begun ends whenever it may, as the VM is off
in_window() {
	local now

	[ -n "$from$until" ] || return 0
	case $(cat "$state/step" 2>/dev/null) in
	'' | new | seeding | seeded) ;;
	*) return 0 ;;
	esac
	now=$(date +%s)
	[ "$now" -ge "$begin" ] && { [ -z "$until" ] || [ "$now" -lt "$end" ]; }
}

# take NAME LIMIT: one of its slots
take() {
	local i fd name=${1//\//_}

	for ((i = 1; i <= $2; i++)); do
		exec {fd}>>"$locks/$name.$i" || die 2 "$locks/$name.$i cannot be written"
		if flock -n "$fd"; then
			slots+=" $fd"
			return 0
		fi
		exec {fd}>&-
	done
	return 1
}

# take_all NAME=LIMIT...: all or none, so that two that want the same do not wait for each other
take_all() {
	local want fd

	slots=''
	for want; do
		take "${want%=*}" "${want##*=}" && continue
		for fd in $slots; do
			exec {fd}>&-
		done
		return 1
	done
}

idle() {
	[ "$wait" = now ] || [ ! -e "$state/lock" ] || flock -n "$state/lock" true
}

locks=$1 state=$2 wait=$3 from=$4 until=$5 begin=0 end=0 slots=''
shift 5
names=()
while [ "$1" != -- ]; do
	[[ $1 =~ =[1-9][0-9]*$ ]] || die 2 "$1: a limit is a number from 1 on"
	names+=("$1")
	shift
done
shift
[ -z "$from" ] || begin=$(date -d "$from" +%s) || exit 2
[ -z "$until" ] || end=$(date -d "$until" +%s) || exit 2
mkdir -p "$locks" || exit 2
while :; do
	in_window || die 75 "outside of its window, from ${from:-now} until ${until:-ever}"
	if idle && take_all "${names[@]}"; then
		export VMDKSYNC_SLOTS=$slots
		# the standard input is this script
		exec "$@" </dev/null
	fi
	sleep 1
done
