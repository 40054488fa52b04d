#!/bin/sh
# SPDX-License-Identifier: MIT
# cat-fault.sh FAULT FILE: cat, going wrong. The second line of /ctl/fault/FAULT is a number.
# shellcheck source=tests/esxi/vm.sh
. /ctl/vm.sh

n=$(sed -n 2p "/ctl/fault/$1")
case $1 in
slow) # the second line: milliseconds, on the clock of the test
	lock
	echo $(($(cat /ctl/clock) + n)) >/ctl/clock.new
	mv /ctl/clock.new /ctl/clock
	unlock
	cat "$2"
	;;
cut) # the end is missing, and nothing tells
	head -c "$n" "$2"
	;;
hold) # stands still in the middle, for as long as the fault lasts
	head -c "$n" "$2"
	: >/ctl/held
	while fault hold; do
		sleep 0.1
	done
	tail -c +$((n + 1)) "$2"
	;;
drop) # the connection breaks
	head -c "$n" "$2"
	sleep 0.3
	for p in $(pidof sshd); do
		[ "$p" = "$(cat /ctl/sshd.pid)" ] || kill -9 "$p"
	done
	;;
bounce) # the same, and it is off again before anybody looks; once
	cat "$2"
	rm -f "/ctl/fault/$1"
	if [ "$(cat /ctl/power)" = off ]; then
		vim-cmd vmsvc/power.on "$(cat /ctl/vmid)" >/dev/null
		sleep 0.5
		vim-cmd vmsvc/power.off "$(cat /ctl/vmid)" >/dev/null
	fi
	;;
restart) # something starts the machine again while its disk is being read
	cat "$2"
	[ "$(cat /ctl/power)" = on ] || vim-cmd vmsvc/power.on "$(cat /ctl/vmid)" >/dev/null
	;;
esac
