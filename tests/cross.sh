#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds for another architecture with Debian's cross compiler, and runs it under qemu-user: the unit tests,
# then deltas of every format, made here, applied there, and compared with the disk that mkvmdk says.
# Usage: sh tests/cross.sh s390x|armhf FOLDER
set -eu

arch=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
top=$(cd "$(dirname "$0")/.." && pwd)
case $arch in
s390x) triple=s390x-linux-gnu emulator=qemu-s390x ;;
armhf) triple=arm-linux-gnueabihf emulator=qemu-arm ;;
*)
	echo "usage: sh tests/cross.sh s390x|armhf FOLDER" >&2
	exit 2
	;;
esac

# libraries ARCH: unpacks them; apt's own lists are kept in the folder, so that this machine's stay as they are
libraries() {
	[ ! -e "$work/$arch/done" ] || return 0
	mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/$arch/root"
	: >"$work/apt/status"
	# shellcheck disable=SC1091
	(. /etc/os-release && echo "deb ${MIRROR:-http://deb.debian.org/debian} $VERSION_CODENAME main") >"$work/apt/sources"
	set -- -q -o "Dir::State=$work/apt" -o "Dir::State::lists=$work/apt/lists" \
		-o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache" \
		-o "Dir::Etc::sourcelist=$work/apt/sources" -o Dir::Etc::sourceparts=- -o "APT::Architectures=$arch" -o "APT::Architecture=$arch" -o Debug::NoLocking=1 -o APT::Sandbox::User=
	apt-get "$@" update
	(cd "$work/$arch" && apt-get "$@" download liburing-dev zlib1g-dev)
	for deb in "$work/$arch"/*.deb; do
		dpkg -x "$deb" "$work/$arch/root"
	done
	touch "$work/$arch/done"
}

libraries
usr=$work/$arch/root/usr build=$work/$arch/build
"${MAKE:-make}" -C "$top" -j"$(nproc)" BUILD="$build" CC="$triple-gcc" PKG_CONFIG=false WERROR=1 \
	CPPFLAGS="-I$usr/include -I$usr/include/$triple" LDFLAGS=-static \
	LIBS="-L$usr/lib/$triple -l:liburing.a -l:libz.a" LINK="$triple-gcc -static -pthread" \
	HARDEN=-fstack-protector-strong "$build/vmdksync" "$build/unit"

there() {
	"$emulator" "$@"
}

echo "cross: $arch: unit tests"
there "$build/unit"

cd "$work/$arch"
mkvmdk=$top/build/plain/mkvmdk
"$mkvmdk" pattern base.raw 40000 7
n=0
while read -r kind options; do
	cp base.raw want.raw
	# shellcheck disable=SC2086 # words
	"$mkvmdk" "$kind" delta.vmdk capacity=40000 seed=3 $options apply=want.raw >/dev/null
	for way in '' --no-uring; do
		cp base.raw got.raw
		rm -f undo.vmdk
		there "$build/vmdksync" -q $way --undo=undo.vmdk delta.vmdk got.raw
		cmp want.raw got.raw
		there "$build/vmdksync" -q --verify delta.vmdk got.raw
		# the log that it wrote is read here, and the other way round
		"$top/build/plain/vmdksync" -q undo.vmdk got.raw
		cmp base.raw got.raw
		rm undo.vmdk
		"$top/build/plain/vmdksync" -q --undo=undo.vmdk delta.vmdk got.raw
		there "$build/vmdksync" -q $way undo.vmdk got.raw
		cmp base.raw got.raw
	done
	# shellcheck disable=SC2002 # a pipe is meant
	cat delta.vmdk | there "$build/vmdksync" -q --no-uring - got.raw
	cmp want.raw got.raw
	n=$((n + 1))
done <<END
cowd alloc=runs:50:1:40 zero=runs:5:1:9
cowd alloc=random:300 layout=random
hosted grain=128 alloc=every:3 zero=1,4 version=2 flags=5 layout=random
hosted grain=8 alloc=runs:50:1:40
sesparse alloc=runs:50:1:40 zero=7-9 unmapped=20-22
stream grain=128 alloc=every:2
END
echo "cross: $arch: $n deltas, each with io_uring or what stands in for it, in line, and from a pipe; all equal"
