#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes a Debian package of what `make install` installs, with Debian's own tools. Run by `make deb`.
# Usage: sh .ci/deb.sh VERSION FOLDER
#   VERSION   of the program; 1.0.0-dev becomes 1.0.0~dev, which is older than 1.0.0
#   FOLDER    what to work in; the package is left there
# DEBFULLNAME and DEBEMAIL name the maintainer, as for Debian's other tools.
set -eu

if [ $# != 2 ]; then
	echo 'usage: sh .ci/deb.sh VERSION FOLDER' >&2
	exit 2
fi
version=$(echo "$1" | tr - "~")-1~local1
work=$2
root=$work/root
maintainer="${DEBFULLNAME:-vmdksync maintainers} <${DEBEMAIL:-maintainers@vmdksync.invalid}>"
arch=$(dpkg --print-architecture)

# the time of the last commit, so that the same source gives the same package
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Makefile)}
export SOURCE_DATE_EPOCH
umask 022

rm -rf "$work"
mkdir -p "$root/DEBIAN" "$work/debian" "$root/usr/share/doc/vmdksync/examples"
"${MAKE:-make}" DESTDIR="$root" PREFIX=/usr install
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/vmdksync"
gzip -9n "$root"/usr/share/man/man1/*.1

doc=$root/usr/share/doc/vmdksync
install -m 0644 README "$doc/README"
for f in examples/*.sh; do
	# the demo needs the source tree, and migrate.sh is the former name of vmdksync-migrate
	[ "$f" = examples/demo.sh ] || [ "$f" = examples/migrate.sh ] || install -m 0755 "$f" "$doc/examples/"
done
cp -R examples/ansible "$doc/examples/"
gzip -9n <CHANGELOG >"$doc/changelog.gz"
gzip -9n >"$doc/changelog.Debian.gz" <<END
vmdksync ($version) unstable; urgency=medium

  * Made by make deb from the source of version $1.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
{
	printf 'This package was made by "make deb" from the source of vmdksync.\n\n'
	cat LICENSE
} >"$doc/copyright"

# dpkg-shlibdeps reads this file, and asks for the libraries the program is linked with
cat >"$work/debian/control" <<END
Source: vmdksync

Package: vmdksync
Architecture: any
END
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/vmdksync)
cat >"$root/DEBIAN/control" <<END
Package: vmdksync
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f 1)
Depends: ${depends#*=}
Suggests: jq, openssh-client, qemu-utils
Section: utils
Priority: optional
Description: write VMware snapshot deltas onto raw disks
 vmdksync writes the allocated grains of a VMware snapshot delta (COWD,
 SEsparse, hosted sparse or streamOptimized) at their places on a raw file or
 a block device, and touches nothing else. A virtual machine leaves VMware
 with little downtime: its base disk is copied while it runs, and only the
 delta after it was stopped.
END
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group --build "$root" "$work/vmdksync_${version}_$arch.deb" >&2
