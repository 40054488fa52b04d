#!/bin/sh
# SPDX-License-Identifier: MIT
# The guest of the stand-in host: writes here and there as long as the power is on.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

pace=$(cat /ctl/pace 2>/dev/null || echo 0.1)
while :; do
	lock
	if [ "$(cat /ctl/power)" = on ] && ! fault idle; then
		for n in $(disks); do
			d=/ctl/disk/$n
			grain=$(cat "$d/grain")
			capacity=$(cat "$d/capacity")
			at=$(($(random $((capacity / 8 - 9))) * 8))
			count=$((8 + $(random 8) * 8))
			from=/dev/urandom
			[ "$(random 5)" != 0 ] || from=/dev/zero
			dd if=$from of="$d/model.raw" bs=512 seek=$at count=$count conv=notrunc 2>/dev/null
			echo $((at / grain))-$(((at + count - 1) / grain)) >>"$d/dirty"
		done
	fi
	unlock
	sleep "$pace"
done
