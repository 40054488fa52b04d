#!/bin/bash
# SPDX-License-Identifier: MIT
# README's two commands on a fresh Debian: a new base system in a mount namespace of its own, with a
# /tmp of 1 GiB in memory, and 4 GiB of disk for the files of the tests.
# Usage: tests/debian.sh SUITE [COMMAND]
#   SUITE    bookworm, trixie
#   COMMAND  what to run there, in a clone of this repository (the two commands)
#
# DEBIAN_CACHE (build/debian) keeps the base system and the packages; all else is removed. The mirror is
# that of this machine's apt. Exit: that of COMMAND; 77 where it cannot be tried, and why on stderr.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)

skip() {
	echo "debian.sh: skipped: $*" >&2
	exit 77
}

suite=${1-}
case $suite,$# in
[a-z]*,[12]) ;;
*)
	echo 'usage: tests/debian.sh SUITE [COMMAND]' >&2
	exit 2
	;;
esac
# As README has them: two lines, with what they do behind them.
command=${2-$(sed -n '/^  sh /{s/^  //;s/   .*//p}' "$top/README" | head -n 2)}
[ $# = 2 ] || [ "$(wc -l <<<"$command")" = 2 ] || {
	echo "debian.sh: README has no two commands any more" >&2
	exit 2
}

[ "$(id -u)" = 0 ] || skip 'needs root'
for tool in debootstrap unshare chroot git apt-get mke2fs; do
	command -v $tool >/dev/null || skip "needs $tool"
done
[ -e /usr/share/debootstrap/scripts/"$suite" ] || skip "debootstrap does not know $suite"
unshare --mount --pid --fork true 2>/dev/null || skip 'no namespaces here'
git -C "$top" rev-parse --git-dir >/dev/null || skip "$top is no clone"

# shellcheck disable=SC2016 # apt expands it
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
	awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
[ -n "$mirror" ] || skip 'apt has no mirror of Debian here (is it Debian? was apt-get update run?)'
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "$proxy" ] || export http_proxy=$proxy

cache=${DEBIAN_CACHE:-$top/build/debian}
mkdir -p "$cache/$suite-packages/partial"
root=$(mktemp -d "$cache/$suite.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -e "$cache/$suite.tar" ]; then
	debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$cache/$suite.log" 2>&1 || {
		tail -n 5 "$cache/$suite.log" >&2
		skip "debootstrap failed: $cache/$suite.log"
	}
	tar -C "$root" --exclude='./var/cache/apt/archives/*.deb' -cf "$cache/$suite.tar.new" .
	mv "$cache/$suite.tar.new" "$cache/$suite.tar"
else
	tar -C "$root" -xf "$cache/$suite.tar"
fi

# What is committed, and what was changed since.
git clone --quiet --no-hardlinks "$top" "$root/root/vmdksync"
git -C "$top" diff --binary HEAD | git -C "$root/root/vmdksync" apply --allow-empty

echo "debian.sh: $(cat "$root/etc/debian_version"), $command" >&2
# Process 1 of the namespace takes everything with it that the tests may leave, mounts included.
# shellcheck disable=SC2016 # the inner shells expand it
unshare --mount --pid --fork --kill-child bash -eu -c '
	root=$1 packages=$2
	trap "exit 130" INT
	mount --bind "$root" "$root"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o size=1G,mode=1777 tmpfs "$root/tmp"
	mount --bind "$packages" "$root/var/cache/apt/archives"
	cp /etc/resolv.conf /etc/hosts "$root/etc/"
	# the disk for the files of the tests, where there are loop devices
	mkdir -p "$root/root/vmdksync/build/scratch"
	truncate -s 4G "$root/scratch"
	mke2fs -q -t ext4 -m 0 "$root/scratch"
	mount -o loop "$root/scratch" "$root/root/vmdksync/build/scratch" ||
		echo "debian.sh: no loop devices: the files of the tests may take more than 4 GiB" >&2
	code=0
	env -i HOME=/root USER=root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin ${CI:+"CI=$CI"} \
		${http_proxy:+"http_proxy=$http_proxy"} \
		chroot "$root" sh -e -c "cd /root/vmdksync && eval \"\$1\"" sh "$3" || code=$?
	exit $code' bash "$root" "$cache/$suite-packages" "$command"
