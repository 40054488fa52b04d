#!/bin/sh
# SPDX-License-Identifier: MIT
# The login shell of the stand-in host: sh, cat, dd, du, ls, rm, sleep, nc, gzip, vim-cmd, vmkfstools, and nothing else that
# BusyBox would know by itself. cat goes wrong where a test asks for it.

PATH=/bin
known=' busybox cat dd du ls nc rm sleep gzip sh [ test echo printf pwd true false kill '
for a in $(busybox --list); do
	case "$known#$a" in
	*" $a "* | *'#'*[!a-z0-9]*) ;;
	*) eval "$a() { echo 'sh: $a: not found' >&2; return 127; }" 2>/dev/null ;;
	esac
done

cat() {
	for f in slow hold cut drop restart bounce; do
		[ -e "/ctl/fault/$f" ] || continue
		IFS= read -r pattern <"/ctl/fault/$f"
		case "$*" in
		*$pattern*)
			/ctl/cat-fault.sh "$f" "$@"
			return
			;;
		esac
	done
	busybox cat "$@"
}

# a file that is in use is a device here: what would be in it counts
ls() {
	for f; do
		case $f in
		-*) ;;
		*)
			if [ -c "$f" ]; then
				echo "-rw------- 1 0 0 $(/ctl/bin/sh -c '. /ctl/vm.sh; size_of_held "$1"' sh "$f") Nov 28 20:00 $f"
			else
				busybox ls -ln "$f"
			fi
			;;
		esac
	done
}

du() {
	if [ -c "$2" ]; then
		echo "$(/ctl/bin/sh -c '. /ctl/vm.sh; kib_of_held "$1"' sh "$2")	$2"
	else
		busybox du "$@"
	fi
}

# the first line of the fault is a number of bytes
gzip() {
	if [ -e /ctl/fault/gzip-cut ]; then
		read -r n </ctl/fault/gzip-cut
		busybox gzip "$@" | /ctl/bin/head -c "$n"
	else
		busybox gzip "$@"
	fi
}

eval "$2"
