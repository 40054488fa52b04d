#!/bin/sh
# SPDX-License-Identifier: MIT
# Sets everything up, then shows the main job on a sample that it makes itself: a base disk, a
# snapshot delta over it, the delta applied, verified and rolled back, and the proof that the result
# is right.
# Usage: sh examples/demo.sh
set -eu
cd "$(dirname "$0")/.."

sh tests/setup.sh build
make -j"$(nproc)" build/plain/vmdksync build/plain/mkvmdk
mkvmdk=$PWD/build/plain/mkvmdk
PATH=$PWD/build/plain:$PATH

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir"

# show COMMAND...: as it is typed, and what it says
show() {
	echo "\$ $*"
	"$@"
}

echo
echo "A base disk of 64 MiB, and a delta as ESXi writes it: 500 places changed at random."
"$mkvmdk" pattern host-flat.vmdk 64M 1
"$mkvmdk" cowd host-000001-delta.vmdk capacity=64M alloc=runs:500:8:128 layout=random seed=2 \
	descriptor=host-000001.vmdk base=host-flat.vmdk
ls -l
if [ -t 1 ]; then
	show vmdksync --map host-000001.vmdk
else
	show vmdksync --map=list host-000001.vmdk | head -n 5
fi

echo
echo "The disk of the new host holds a copy of the base. Only the delta has to reach it:"
cp host-flat.vmdk vm-hda.raw
show vmdksync --undo=undo.vmdk host-000001-delta.vmdk vm-hda.raw
show vmdksync --verify host-000001-delta.vmdk vm-hda.raw

echo
echo "qemu-img, an independent reader, puts base and delta together by itself:"
qemu-img convert -f vmdk -O raw host-000001.vmdk expected.raw
cmp expected.raw vm-hda.raw
echo "cmp: both disks are the same, byte for byte."

echo
echo "The undo log rolls back:"
show vmdksync undo.vmdk vm-hda.raw
cmp host-flat.vmdk vm-hda.raw
echo "cmp: the disk is the base again, byte for byte."
