#!/bin/bash
# SPDX-License-Identifier: MIT
# Measures the downtime of vmdksync-migrate (examples/migrate/): from the confirmed power-off of the machine to a target
# that is verified and on stable storage, over the time that the last delta needs on the wire.
#
#	make bench-downtime [DOWNTIME_SIZE=MiB] [DOWNTIME_RUNS=N]
#
#	DOWNTIME_SIZE	MiB of grains in the last delta (1024); the base disk is a little larger
#	DOWNTIME_RUNS	how often (1)
#	DOWNTIME_VIA	ssh, gzip or nc, as --via of vmdksync-migrate (ssh)
#	DOWNTIME_DIR	where the files go (a new folder in $TMPDIR)
#
# The machine is a stand-in (tests/esxi.bash) behind a cable of 1 Gbit/s. The wire's time is that of
# `ssh HOST cat DELTA >/dev/null` over the same cable, measured right after; the time at 10^9 bits/s
# without any overhead of protocols stands beside it. Needs root.
set -eu

TOP=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
size=${DOWNTIME_SIZE:-1024}
runs=${DOWNTIME_RUNS:-1}
via=${DOWNTIME_VIA:-ssh}
goal=1.08

# what the stand-in asks of bats
bats_require_minimum_version() { :; }
skip() {
	echo "downtime.sh: $*" >&2
	exit 1
}
BATS_TEST_TMPDIR=$(mktemp -d "${DOWNTIME_DIR:-${TMPDIR:-/tmp}}/vmdksync-downtime.XXXXXX")
# shellcheck source=tests/helpers.bash
. "$TOP/tests/helpers.bash"
# shellcheck source=tests/esxi.bash
. "$TOP/tests/esxi.bash"
finish() {
	esxi_stop
	helpers_teardown
	rm -rf "$BATS_TEST_TMPDIR"
}
trap finish EXIT
trap 'exit 130' INT TERM
esxi_requires
requires loop tc
cd "$BATS_TEST_TMPDIR"
export VMDKSYNC TMPDIR=$BATS_TEST_TMPDIR

# migrate VERB OPTION...
migrate() {
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" here sh "$TOP/examples/migrate/vmdksync-migrate" "$1" --state=state \
		--via="$via" --listen="$ESXI_DEST:31310" "${@:2}" esxi 'web server' "scsi0:0=$a" "scsi0:1=$b" \
		>out 2>&1 || { cat out; exit 1; }
}

sectors=$(((size + 64) * 2048))
for ((run = 1; run <= runs; run++)); do
	esxi_start $sectors 131072
	echo "0-$((size * 2048 - 1))" >"$ESXI/ctl/burst"
	for f in a b; do
		rm -f $f.raw
	done
	"$MKVMDK" pattern a.raw $sectors 5
	"$MKVMDK" pattern b.raw 64M 6
	a=$(loopdev a.raw)
	b=$(loopdev b.raw)
	nsenter -t "$ESXI_NET" --net tc qdisc add dev vmnic0 root tbf rate 1gbit burst 256kb latency 20ms
	migrate run --now
	cmp "$a" "$(truth 0)"
	cmp "$b" "$(truth 1)"
	down=$(sed -n 's/^downtime: last copy.* \([0-9.]*\) s$/\1/p' state/report)

	bytes=0
	files=()
	for n in 0 1; do
		# shellcheck disable=SC2016 # for the shell inside
		e=$(chroot "$ESXI" /bin/sh -c '. /ctl/vm.sh; extent "$1" "$(cat "/ctl/disk/$1/active")"' sh $n)
		bytes=$((bytes + $(stat -c %s "$ESXI$e")))
		files+=("'${e//\'/\'\\\'\'}'")
	done
	start=$(date +%s%N)
	esxi_ssh "cat ${files[*]}" >/dev/null
	wire=$((($(date +%s%N) - start) / 1000000))
	awk -v d="$down" -v w=$wire -v b=$bytes -v goal=$goal -v via="$via" 'BEGIN {
		bits = b * 8 / 1e9
		printf "%.1f MiB over %s: power-off to verified %.1f s; on the wire %.1f s (%.1f s at 10^9 bit/s)\n",
			b / 1048576, via, d, w / 1000, bits
		printf "ratio %.3f (goal %s), to the bare bits %.3f\n", d / (w / 1000), goal, d / bits
	}'
	# the part that is not data: rolled back, seeded again, and nothing is written before the next cutover
	migrate rollback
	rm -f "$ESXI/ctl/burst"
	fault idle
	migrate seed
	# rounds until nothing is left to copy
	migrate sync --budget=1
	migrate cutover --now
	awk '/^downtime: last copy/ { printf "nothing to copy, two disks: %.1f s (goal 1.0)\n", $(NF - 1) }' state/report
	esxi_stop
	helpers_teardown
	rm -rf state esxi key key.pub known_hosts
done
