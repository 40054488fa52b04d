#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what is missing on Debian and its kin.
# Usage: sh tests/setup.sh build|test|cross
#   build: to build the program and run the demo
#   test:  to run every test as well
#   cross: for make cross
set -eu

packages='gcc make libc6-dev liburing-dev zlib1g-dev pkg-config qemu-utils'
case ${1-} in
build) ;;
test)
	packages="$packages bats parallel shellcheck clang strace jq util-linux time"
	packages="$packages mandoc lintian dpkg-dev bash git openssh-server python3"
	packages="$packages procps python3-jsonschema qemu-system-common busybox iproute2 netcat-openbsd tmux"
	packages="$packages libclang-rt-dev nbdkit libnbd-bin fuse3 e2fsprogs valgrind"
	packages="$packages xfsprogs btrfs-progs debootstrap 7zip p7zip-full libvmdk-utils fdisk"
	packages="$packages sshfs curl openssl pv"
	packages="$packages ceph-mon ceph-osd ceph-common qemu-block-extra tgt dmsetup"
	packages="$packages zsh fish ansible-core"
	;;
cross) packages="$packages qemu-user gcc-s390x-linux-gnu gcc-arm-linux-gnueabihf" ;;
*)
	echo "usage: sh tests/setup.sh build|test|cross" >&2
	exit 2
	;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	echo "setup.sh: no apt here; please install what these are called on your system: $packages" >&2
	exit 1
fi

missing=
for p in $packages; do
	# shellcheck disable=SC2016 # dpkg-query expands it
	dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q ' installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "setup.sh: need root to install:$missing" >&2
		exit 1
	fi
	sudo=sudo
fi

echo "setup.sh: installing$missing" >&2
# RUNLEVEL=1: nothing of this shall serve anybody; the tests run what they need by themselves.
# shellcheck disable=SC2086 # words are meant
{
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update
	$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -o DPkg::Lock::Timeout=120 \
		install -y --no-install-recommends $missing
	case $missing in
	*openssh-server*) $sudo systemctl disable --now ssh 2>/dev/null || : ;;
	esac
} >&2
