#!/bin/sh
# SPDX-License-Identifier: MIT
# Sets everything up, then shows the main job on a sample that it makes itself: a base disk, a
# snapshot delta over it, the delta applied, and the proof that the result is right.
# Usage: sh examples/demo.sh
set -eu
cd "$(dirname "$0")/.."

sh tests/setup.sh build
make everything
mkvmdk=$PWD/build/plain/mkvmdk vmdksync=$PWD/build/plain/vmdksync

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir"

echo
echo "A base disk of 256 MiB, and a delta as ESXi writes it: 2000 places changed at random."
"$mkvmdk" pattern host-flat.vmdk 256M 1
"$mkvmdk" cowd host-000001-delta.vmdk capacity=256M alloc=runs:2000:8:128 layout=random seed=2 \
	descriptor=host-000001.vmdk base=host-flat.vmdk
ls -l

echo
echo "The disk of the new host holds a copy of the base. Only the delta has to reach it:"
cp host-flat.vmdk vm-hda.raw
echo "\$ vmdksync host-000001-delta.vmdk vm-hda.raw"
"$vmdksync" host-000001-delta.vmdk vm-hda.raw

echo
echo "qemu-img, an independent reader, puts base and delta together by itself:"
qemu-img convert -f vmdk -O raw host-000001.vmdk expected.raw
cmp expected.raw vm-hda.raw
echo "cmp: both disks are the same, byte for byte."
