#!/bin/bash
# SPDX-License-Identifier: MIT
# Measures vmdksync against the limit of the machine and against its peers.
#
#	make bench [BENCH_SIZE=MiB] [BENCH_ONLY='apply peers ...'] [BENCH_JSON=FILE]
#	tests/bench/run.sh [--json]
#
#	BENCH_SIZE	MiB of grains in a delta; the disk is eight times that (256). tiny: a smoke run
#			of everything that also compares results, and whose numbers mean nothing
#	BENCH_RUNS	runs of each contestant, by turns in any order; medians are shown (5)
#	BENCH_ONLY	which parts: apply peers chain cold pipe raw stream verify start linear targets (all)
#	BENCH_FORMATS	of most parts (cowd hosted sesparse)
#	BENCH_SHAPES	of most parts (seq rand scatter manyzero)
#	BENCH_TARGETS	of the part apply (alloc sparse falloc loop512 loop4096)
#	BENCH_DIR	where the files go, on the file system to be measured (a new one in $TMPDIR)
#	BENCH_JSON	a file for the results as JSON; --json: print them instead of the table
#
# A number followed by x says how many times as long the other one took: above 1, vmdksync is faster.
# All clocks stop after fdatasync, but for `oneflight`, vmfssparse and sesparse, which do not sync.
set -eu

top=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
vmdksync=${VMDKSYNC:-$top/build/plain/vmdksync}
mkvmdk=${MKVMDK:-$top/build/plain/mkvmdk}
limit=${LIMIT:-$top/build/plain/limit}
size=${BENCH_SIZE:-256}
runs=${BENCH_RUNS:-5}
only=${BENCH_ONLY:-apply peers chain cold pipe raw stream verify start linear targets}
formats='cowd hosted sesparse' shapes='seq rand scatter manyzero'
targets='alloc sparse falloc loop512 loop4096'
json=
tiny=
if [ "$size" = tiny ]; then
	tiny=1 size=2 runs=1 formats='cowd sesparse' shapes=rand targets='alloc sparse loop4096'
fi
formats=${BENCH_FORMATS:-$formats}
shapes=${BENCH_SHAPES:-$shapes}
targets=${BENCH_TARGETS:-$targets}
exec 3>&1
export LC_ALL=C

case ${1-} in
'') ;;
--json) json=/dev/stdout && exec 3>/dev/null ;;
*)
	echo 'usage: run.sh [--json]; see its first lines' >&2
	exit 2
	;;
esac
json=${BENCH_JSON:-$json}

dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/vmdksync-bench.XXXXXX")
loops=
huge=
daemon=
finish() {
	local dev

	[ -z "$daemon" ] || unserve
	for dev in $loops; do
		losetup --detach "$dev" || :
	done
	rm -rf "$dir"
	[ -z "$huge" ] || rm -f "$huge"
}
trap finish EXIT
trap 'exit 130' INT TERM
cd "$dir"

say() {
	local form=$1

	shift
	# shellcheck disable=SC2059 # that is what it is
	printf "$form" "$@" >&3
}

have() {
	command -v "$1" >/dev/null
}

wants() {
	[[ " $only " == *" $1 "* ]]
}

# --- data ----------------------------------------------------------------------------------------

# recipe FORMAT SHAPE MIB: sets `recipe` to the keys of mkvmdk. A guest writes runs of 4 to 64 KiB.
recipe() {
	local grain=1 grains

	case $1 in
	hosted | stream) grain=128 ;;
	sesparse) grain=8 ;;
	esac
	grains=$(($3 * 2048 / grain))
	recipe=(capacity="$((8 * $3))M")
	case $1-$2 in
	*-seq) recipe+=(alloc="0-$((grains - 1))") ;;
	hosted-rand) recipe+=(alloc="random:$grains" layout=runs) ;;
	cowd-rand) recipe+=(alloc="runs:$(($3 * 30)):8:128" layout=runs) ;;
	sesparse-rand) recipe+=(alloc="runs:$(($3 * 30)):1:16" layout=runs) ;;
	hosted-scatter) recipe+=(alloc=every:8 layout=random) ;;
	*-scatter) recipe+=(alloc="every:$((64 / grain))" layout=random) ;;
	hosted-manyzero) recipe+=(zero=every:2 alloc="1-$((grains / 8))") ;;
	*-manyzero) recipe+=(zero="runs:$(($3 * 30)):8:$((128 / grain + 8))" alloc="runs:$3:8:16") ;;
	esac
}

# attach FILE SECTOR_SIZE: prints the loop device. To find one and to take it are two steps, between
# which another may take it.
attach() {
	local i

	for ((i = 0; i < 20; i++)); do
		losetup --find --show --sector-size "$2" "$1" 2>losetup.out && return
		sleep 0.1
	done
	cat losetup.out >&2
	return 1
}

# target KIND MIB: makes it, or makes it anew, and sets `target`.
target() {
	target=$1.raw
	case $1 in
	sparse)
		rm -f sparse.raw
		truncate -s "$2M" sparse.raw
		;;
	falloc)
		rm -f falloc.raw
		fallocate -l "$2M" falloc.raw
		;;
	alloc)
		[ -e alloc.raw ] && [ "$(stat -c %s alloc.raw)" = $(($2 << 20)) ] && return
		rm -f alloc.raw
		"$mkvmdk" pattern alloc.raw "$2M" 77
		sync alloc.raw
		;;
	loop*)
		target=$(cat "$1.dev" 2>/dev/null) && return
		"$mkvmdk" pattern "$1.raw" "$2M" 77
		sync "$1.raw"
		target=$(attach "$1.raw" "${1#loop}") || return
		loops="$loops $target"
		echo "$target" >"$1.dev"
		;;
	esac
}

drop_target() {
	local dev

	case $1 in
	loop*)
		[ -e "$1.dev" ] || return 0
		dev=$(cat "$1.dev")
		losetup --detach "$dev"
		loops=${loops/ $dev/}
		rm -f "$1.dev"
		;;
	esac
	rm -f "$1.raw"
}

# --- contestants -----------------------------------------------------------------------------------

ruby_tool() {
	local f

	for f in $(type -ap vmdksync.rb vmdksync 2>/dev/null); do
		if head -n 1 "$f" | grep -q ruby; then
			echo "$f"
			return
		fi
	done
	return 1
}

# command WHO: sets `cmd` to what moves $delta to $target; fails where there is no such thing.
command_of() {
	local who=$1 desc=${delta%.vmdk}-desc.vmdk f

	case $who in
	vmdksync) cmd=("$vmdksync" -q "$delta" "$target") ;;
	direct | buffered | oneflight | pergrain) cmd=("$limit" "$who" "$delta" "$target") ;;
	# not to byte 0: a target that begins as a VMDK does is refused
	dd) cmd=(dd "if=$delta" "of=$target" bs=1M "count=$mib" seek=1 oflag=direct iflag=fullblock
		'conv=notrunc,fdatasync' status=none) ;;
	fio)
		have fio && have jq || return 1
		local rw=write bs=1M
		case $shape in
		rand) rw=randwrite bs=32k ;;
		scatter) rw=randwrite bs=$block ;;
		esac
		cmd=(fio --name=x "--filename=$target" --direct=1 --iodepth=128 --ioengine=io_uring
			"--size=$((8 * mib))M" "--io_size=$bytes" "--rw=$rw" "--bs=$bs" --end_fsync=1
			--output-format=json --output=fio.out --randrepeat=1)
		;;
	commit)
		[ "$format" != sesparse ] && have qemu-img || return 1 # it only reads SEsparse
		# it gives the base another CID, which is then not the one that the delta names
		for f in "$desc" "${desc%.vmdk}-base.vmdk"; do
			[ -e "$f.first" ] || cp "$f" "$f.first"
			cp "$f.first" "$f"
		done
		cmd=(qemu-img commit -q -d "$desc")
		;;
	convert)
		have qemu-img || return 1
		cmd=(qemu-img convert -q -n -W -m 16 -t writeback --target-is-zero -f vmdk -O raw
			"$delta.alone.vmdk" "$target")
		;;
	nbdcopy)
		have nbdcopy && have qemu-nbd || return 1
		cmd=(nbdcopy --flush --destination-is-zero --
			'[' qemu-nbd -r -f vmdk "$delta.alone.vmdk" ']' "$target")
		;;
	vmfssparse)
		[ "$format" = cowd ] && have vmfssparse || return 1
		cmd=(vmfssparse "$delta" "$target")
		;;
	sesparse)
		[ "$format" = sesparse ] && have sesparse || return 1
		cmd=(sesparse "$delta" "$target")
		;;
	ruby)
		[ "$format" = cowd ] && tool=$(ruby_tool) || return 1
		cmd=("$tool" "$delta" "$target")
		;;
	*) return 1 ;;
	esac
}

# one WHO: runs it once; its time goes to WHO.t. What it says is shown only when it fails; a peer that
# fails takes no part in what is measured then.
one() {
	local who=$1

	if ! "$limit" time time.out "${cmd[@]}" >said.out 2>&1 </dev/null; then
		echo "run.sh: failed: ${cmd[*]}" >&2
		cat said.out >&2
		case $who in
		commit | convert | nbdcopy | nbdcopy-runs | fuse | compare | oneflight | vmfssparse | sesparse | ruby)
			failed="$failed $who"
			rm -f "$who.t"
			return 0
			;;
		esac
		exit 1
	fi
	# fio takes a while to begin
	[ "$who" != fio ] || jq -r '"\([.jobs[].job_runtime] | max / 1000) 0 0 0 0"' fio.out >time.out
	cat time.out >>"$who.t"
}

# median WHO [FIELD]
median() {
	sort -n "$1.t" | awk -v f="${2:-1}" '{ v[NR] = $f } END { print v[int((NR + 1) / 2)] }' \
		2>/dev/null
}

# --- results ---------------------------------------------------------------------------------------

# Fields of $1 as JSON go to results, one object a line.
record() {
	printf '%s\n' "$1" >>results
}

# result PART LABEL WHO...: one line of the table, and a record for each.
result() {
	local part=$1 label=$2 who ours rest='' rate

	shift 2
	ours=$(median vmdksync)
	rate=$(awk -v b="$bytes" -v s="$ours" 'BEGIN { printf "%.2f", b / s / 1e9 }')
	for who; do
		if [ ! -e "$who.t" ]; then
			[[ " $failed " != *" $who "* ]] || rest="$rest  $who failed"
			continue
		fi
		record "$(awk -v part="$part" -v label="$label" -v who="$who" -v ours="$ours" \
			-v bytes="$bytes" -v extra="$extra" -v med="$(median "$who")" \
			'{ n++; if (n == 1 || $1 < min) min = $1; if ($4 > rss) rss = $4 }
			END {
				split(label, l, " ")
				printf "{\"part\":\"%s\",\"format\":\"%s\",\"shape\":\"%s\"," \
					"\"target\":\"%s\",\"who\":\"%s\",\"bytes\":%s,\"runs\":%d," \
					"\"seconds\":%s,\"least\":%s,\"peak_kib\":%d,\"times_ours\":%.3f%s}",
					part, l[1], l[2], l[3], who, bytes, n, med, min, rss,
					(ours > 0 ? med / ours : 0), (who == "vmdksync" ? extra : "")
			}' "$who.t")"
		[ "$who" = vmdksync ] || rest="$rest  $who $(awk -v o="$ours" -v t="$(median "$who")" \
			'BEGIN { r = o > 0 ? t / o : 0; printf (r < 10 ? "%.2fx" : "%.0fx"), r }')"
	done
	say '%-26s %8.3f s %6s GB/s %3d MiB %s\n' "$label" "$ours" "$rate" \
		"$(($(sort -n -k 4 vmdksync.t | tail -n 1 | cut -d ' ' -f 4) / 1024))" "$rest$note"
	rm -f -- *.t
}

# syscalls DELTA TARGET: sets `calls` to how many vmdksync makes, or to nothing.
syscalls() {
	calls=
	have strace && strace -o /dev/null true 2>/dev/null || return 0
	strace -c -f -o strace.out "$vmdksync" -q "$1" "$2" || exit
	calls=$(awk '/^ *[0-9.]+ +[0-9.]+/ && $NF != "total" { n += $4 } END { print n + 0 }' strace.out)
}

# order WHO...: any, as it makes a difference who comes after whom; but dd and fio write something else,
# which must not come before what a smoke run compares.
order() {
	if [ -n "$tiny" ]; then echo "$@"; else shuf -e -- "$@"; fi
}

# contest PART LABEL KIND MIB WHO...: alternating runs of all onto a target of that kind.
contest() {
	local part=$1 label=$2 kind=$3 capacity=$4 i who

	shift 4
	failed='' sum=''
	rm -f -- *.t
	for ((i = 0; i < runs; i++)); do
		for who in $(order "$@"); do
			target "$kind" "$capacity" || return 0
			if [[ " $failed " == *" $who "* ]] || ! command_of "$who"; then continue; fi
			[ -z "$chill" ] || "$limit" cold "$delta"
			one "$who"
			if [ "$who" = vmdksync ] && [ "$i" = 0 ]; then
				extra='' note=''
				if [ "$kind" = sparse ]; then
					allocated=$(($(stat -c %b sparse.raw) * 512))
					need=$("$limit" need "$delta")
					extra=",\"allocated\":$allocated,\"needed\":$need"
					note="  allocated $(awk -v a="$allocated" -v n="$need" \
						'BEGIN { printf "%.3f", n ? a / n : 0 }') of needed"
				fi
			fi
			[ -z "$tiny" ] || [ ! -e "$who.t" ] || [ "$capacity" -gt 64 ] || agree "$who"
		done
	done
	target "$kind" "$capacity"
	syscalls "$delta" "$target"
	[ -z "$calls" ] || extra="$extra,\"syscalls\":$calls" note="$note  $calls calls"
	result "$part" "$label" "$@"
}

# A smoke run compares what comes out; all write the same, whoever comes first.
agree() {
	case $1 in
	vmdksync | direct | buffered | oneflight | pergrain | commit | convert | nbdcopy)
		sum=${sum:-$(sha256sum <"$target")}
		if [ "$(sha256sum <"$target")" != "$sum" ]; then
			echo "run.sh: $label: $1 made something else" >&2
			exit 1
		fi
		;;
	esac
}

# --- parts -----------------------------------------------------------------------------------------

make_delta() {
	delta=$format-$shape.vmdk
	recipe "$format" "$shape" "$mib"
	"$mkvmdk" "$format" "$delta" "${recipe[@]}" seed=5 "$@"
	sync "$delta"
	bytes=$("$limit" bytes "$delta")
}

heading() {
	say '\n%s\n' "$1"
}

part_apply() {
	local kind who

	mib=$size
	heading "apply: $size MiB of grains in $((8 * size)) MiB of disk, source in the page cache"
	for format in $formats; do
		for shape in $shapes; do
			make_delta
			for kind in $targets; do
				block=512
				[ "$kind" != loop4096 ] || block=4096
				case $kind in
				loop*) if [ "$(id -u)" != 0 ] || ! have losetup; then continue; fi ;;
				esac
				who=(vmdksync direct)
				case $kind in
				sparse | falloc) who+=(buffered) ;;
				alloc) who+=(oneflight dd fio vmfssparse sesparse) ;;
				esac
				contest apply "$format $shape $kind" "$kind" "$((8 * size))" "${who[@]}"
			done
			rm -f "$delta"
		done
	done
	for kind in $targets; do
		drop_target "$kind"
	done
}

part_cold() {
	chill=1 mib=$size
	heading 'apply, source not in the page cache'
	for format in $formats; do
		for shape in $shapes; do
			[[ $shape == seq || $shape == rand ]] || continue
			make_delta
			contest cold "$format $shape alloc" alloc "$((8 * size))" vmdksync direct
			rm -f "$delta"
		done
	done
	drop_target alloc
	chill=
}

# Peers that are slow get less to do.
part_peers() {
	mib=$((size / 16))
	[ "$mib" -gt 0 ] || mib=1
	heading "peers: $mib MiB of grains in $((8 * mib)) MiB of disk (less: some are slow)"
	for format in $formats; do
		for shape in $shapes; do
			[ "$shape" != manyzero ] || continue
			make_delta "descriptor=$format-$shape-desc.vmdk" base=alloc.raw
			make_delta "descriptor=$delta.alone.vmdk"
			target alloc "$((8 * mib))"
			contest peers "$format $shape alloc" alloc "$((8 * mib))" vmdksync \
				pergrain oneflight commit ruby vmfssparse sesparse
			contest peers "$format $shape sparse" sparse "$((8 * mib))" vmdksync \
				pergrain convert nbdcopy
			rm -f -- "$format-$shape"*
		done
	done
	drop_target alloc
	drop_target sparse
}

part_start() {
	local who i

	heading 'start-up: one grain'
	huge=$dir/huge.raw
	# not every file system has files of that size
	truncate -s 62T "$huge" 2>/dev/null || huge=$(mktemp /dev/shm/vmdksync-bench.XXXXXX)
	truncate -s 62T "$huge" || return 0
	for who in 'sesparse 62T' 'cowd 2T'; do
		format=${who% *} shape=${who#* }
		"$mkvmdk" "$format" one.vmdk "capacity=$shape" alloc=12345
		bytes=512 extra='' note=''
		for ((i = 0; i < 4 * runs; i++)); do
			cmd=(true) && one true
			cmd=("$vmdksync" -q one.vmdk "$huge") && one vmdksync
		done
		result start "$format $shape sparse" vmdksync true
		rm -f one.vmdk
	done
	rm -f "$huge"
}

part_linear() {
	local n grains

	heading 'linear: grains 1, 2, 4, 8 times, one disk; then the same grains, disks of 1 GiB to 2 TiB'
	format=cowd shape=rand extra='' note='' delta=linear.vmdk
	for n in 1 2 4 8; do
		mib=$((size * n / 8))
		[ "$mib" -gt 0 ] || mib=1
		"$mkvmdk" cowd "$delta" "capacity=$((8 * size))M" "alloc=runs:$((mib * 30)):8:128" \
			layout=runs
		bytes=$("$limit" bytes "$delta")
		shape=${n}x
		contest linear "cowd ${n}x alloc" alloc "$((8 * size))" vmdksync direct
	done
	for n in 1G 32G 2T; do
		mib=$((size / 8))
		[ "$mib" -gt 0 ] || mib=1
		"$mkvmdk" cowd "$delta" "capacity=$n" "alloc=runs:$((mib * 30)):8:128" layout=runs
		bytes=$("$limit" bytes "$delta")
		shape=$n
		case $n in
		*G) contest linear "cowd $n sparse" sparse "$((${n%G} * 1024))" vmdksync buffered ;;
		*T) contest linear "cowd $n sparse" sparse "$((${n%T} * 1048576))" vmdksync buffered ;;
		esac
	done
	rm -f "$delta"
	drop_target alloc
	drop_target sparse
}

# Data that packs about as well as a disk does: programs and libraries of this machine.
real_data() {
	find /usr/bin /usr/lib -xdev -type f -size +16k 2>/dev/null | sort | tr '\n' '\0' |
		xargs -0 cat 2>/dev/null | head -c "$1M" >"$2" || :
	truncate -s "$1M" "$2"
}

part_stream() {
	have qemu-img || return 0
	mib=$size
	heading 'streamOptimized: real data, against bare inflate loops side by side'
	format=stream shape=seq delta=stream.vmdk extra='' note=''
	real_data "$mib" real.raw
	qemu-img convert -q -f raw -O vmdk -o subformat=streamOptimized real.raw "$delta"
	bytes=$((mib << 20))
	target alloc "$mib"
	for ((i = 0; i < runs; i++)); do
		cmd=("$vmdksync" -q "$delta" "$target") && one vmdksync
		[ -z "$tiny" ] || cmp real.raw "$target"
		cmd=("$limit" inflate 1 "$delta") && one inflate1
		cmd=("$limit" inflate 2 "$delta") && one inflate2
		cmd=(qemu-img convert -q -n -W -m 16 -t writeback -f vmdk -O raw "$delta" "$target")
		one convert
		sync "$target"
		"$limit" cold "$target" # qemu-img leaves it in the page cache, dirty
	done
	note="  file/data $(awk -v a="$(stat -c %s "$delta")" -v b="$bytes" \
		'BEGIN { printf "%.2f", a / b }')"
	result stream 'stream seq alloc' vmdksync inflate1 inflate2 convert
	rm -f "$delta" real.raw
	drop_target alloc
}

# pipe_command WHO: sets `cmd`
pipe_command() {
	# shellcheck disable=SC2016 # the inner shell expands them
	case $1 in
	vmdksync) cmd=(sh -c 'cat "$2" | "$1" -q - "$3"' sh "$vmdksync" "$delta" "$target") ;;
	file) cmd=("$vmdksync" -q "$delta" "$target") ;;
	drained) cmd=(sh -c 'cat "$2" | "$1" drain' sh "$limit" "$delta") ;;
	both) cmd=(sh -c 'cat "$2" | "$1" drain & "$3" -q "$2" "$4"; wait' sh "$limit" "$delta" \
		"$vmdksync" "$target") ;;
	esac
}

part_pipe() {
	local who

	"$vmdksync" --help | grep -q 'a pipe' || return 0
	mib=$size
	heading 'pipe: cat DELTA | vmdksync - TARGET, against the same from a file, the pipe drained, both at once'
	for format in $formats; do
		for shape in $shapes; do
			[[ $shape == seq || $shape == rand ]] || continue
			make_delta
			target alloc "$((8 * size))"
			extra='' note=''
			for ((i = 0; i < runs; i++)); do
				for who in $(order vmdksync file drained both); do
					pipe_command "$who"
					one "$who"
				done
			done
			result pipe "$format $shape alloc" vmdksync file drained both
			rm -f "$delta"
		done
	done
	drop_target alloc
}

# raw_command WHO: sets `cmd`; of "resume" the checkpoint goes to the same file system
raw_command() {
	# shellcheck disable=SC2016 # the inner shell expands them
	case $1 in
	vmdksync) cmd=("$vmdksync" -q --raw real.raw "$target") ;;
	resume) cmd=("$vmdksync" -q --raw --resume=ckpt real.raw "$target") ;;
	direct) cmd=(dd if=real.raw "of=$target" bs=1M oflag=direct 'conv=notrunc,fdatasync' status=none) ;;
	dd) cmd=(dd if=real.raw "of=$target" bs=1M 'conv=notrunc,fsync' status=none) ;;
	pipe) cmd=(sh -c 'cat real.raw | "$@"' sh "$vmdksync" -q --raw "--expect-size=${mib}M" - "$target") ;;
	pipe-resume) cmd=(sh -c 'cat real.raw | "$@"' sh "$vmdksync" -q --raw "--expect-size=${mib}M" \
		--resume=ckpt - "$target") ;;
	both) cmd=(sh -c 'cat real.raw | "$1" drain & "$2" -q --raw real.raw "$3"; wait' sh "$limit" \
		"$vmdksync" "$target") ;;
	esac
}

part_raw() {
	local who whos='vmdksync resume direct dd pipe pipe-resume both'

	"$vmdksync" --help | grep -q -- --resume || return 0
	mib=$size
	heading 'raw: a plain disk from a file, against dd; from a pipe, against a file and the pipe drained at once'
	bytes=$((mib << 20)) extra='' note=''
	real_data "$mib" real.raw
	sync real.raw
	target alloc "$mib"
	for ((i = 0; i < runs; i++)); do
		# shellcheck disable=SC2086 # words are meant
		for who in $(order $whos); do
			raw_command "$who"
			one "$who"
			[ -z "$tiny" ] || cmp real.raw "$target"
		done
	done
	# shellcheck disable=SC2086 # words are meant
	result raw 'raw seq alloc' $whos
	rm -f real.raw
	drop_target alloc
}

part_verify() {
	local who

	"$vmdksync" --help | grep -q -- --verify || return 0
	mib=$size
	heading 'verify: against reading both sides at depth 128, cold; then warm'
	for who in cold warm; do
		format=hosted shape=rand
		make_delta
		target sparse "$((8 * size))"
		"$vmdksync" -q "$delta" "$target"
		# as many bytes as the target has; most of that is a hole, which costs nothing to read
		cp "$delta" other.vmdk
		sync "$target" other.vmdk
		extra='' note=''
		for ((i = 0; i < runs; i++)); do
			[ "$who" = warm ] || "$limit" cold "$delta" "$target"
			cmd=("$vmdksync" -q --verify "$delta" "$target") && one vmdksync
			if have fio && have jq; then
				[ "$who" = warm ] || "$limit" cold "$delta" other.vmdk
				cmd=(fio --rw=randread --bs=64k --ioengine=io_uring --iodepth=128
					--invalidate=0 --output-format=json --output=fio.out --randrepeat=1
					--name=a "--filename=$delta" "--size=$bytes"
					--name=b --filename=other.vmdk "--size=$bytes")
				one fio
			fi
			if have qemu-img; then
				[ "$who" = warm ] || "$limit" cold "$delta" "$target"
				cmd=(qemu-img compare -q -f vmdk -F raw "$delta" "$target")
				one compare
			fi
		done
		result verify "hosted $who sparse" vmdksync fio compare
		rm -f "$delta" other.vmdk
	done
	drop_target sparse
}

# A base and four deltas on top of each other become one disk: what qemu-img does it with.
part_chain() {
	local i

	heading 'chain: a base and four deltas (hosted sparse) become a disk; then the disk is compared'
	format=hosted shape=rand delta=chain4.vmdk
	mib=$((size / 4))
	[ "$mib" -gt 0 ] || mib=1
	recipe hosted rand "$mib"
	"$mkvmdk" hosted chain0.vmdk "${recipe[@]}" seed=1 parentcid=ffffffff
	for i in 1 2 3 4; do
		"$mkvmdk" hosted "chain$i.vmdk" "${recipe[@]}" seed="$((i + 1))" parentcid=aabbccdd \
			parent="chain$((i - 1)).vmdk"
	done
	sync chain?.vmdk
	bytes=$("$vmdksync" --map --json "$delta" |
		sed -n 's/.*"length": \([0-9]*\),.*"data": true.*/\1/p' | awk '{ n += $1 } END { printf "%d", n }')
	extra='' note=''
	for ((i = 0; i < runs; i++)); do
		target sparse "$((8 * mib))"
		cmd=("$vmdksync" -q --full "$delta" "$target") && one vmdksync
		if have qemu-img; then
			cp --sparse=always "$target" ours.raw
			target sparse "$((8 * mib))"
			cmd=(qemu-img convert -q -n -W -m 16 -t writeback --target-is-zero -f vmdk -O raw
				"$delta" "$target")
			one convert
			cmp "$target" ours.raw || exit
			rm -f ours.raw
		fi
	done
	result chain 'hosted full sparse' vmdksync convert
	for ((i = 0; i < runs; i++)); do
		cmd=("$vmdksync" -q --verify "$delta" "$target") && one vmdksync
		if have qemu-img; then
			cmd=(qemu-img compare -q -f vmdk -F raw "$delta" "$target")
			one compare
		fi
	done
	result chain 'hosted verify sparse' vmdksync compare
	rm -f chain?.vmdk
	drop_target sparse
}

# serve nbd|fuse: qemu-storage-daemon with disk.qcow2, past the page cache; sets `target`
serve() {
	local i

	case $1 in
	nbd)
		target="nbd+unix:///disk?socket=$dir/s"
		set -- --nbd-server addr.type=unix,addr.path=s \
			--export type=nbd,id=e,node-name=q,name=disk,writable=on
		;;
	fuse)
		target=$dir/fuse
		: >fuse
		set -- --export type=fuse,id=e,node-name=q,mountpoint=fuse,writable=on
		;;
	esac
	rm -f s pid
	qemu-storage-daemon --blockdev node-name=f,driver=file,filename=disk.qcow2,cache.direct=on,discard=unmap \
		--blockdev node-name=q,driver=qcow2,file=f,discard=unmap "$@" --pidfile pid \
		>daemon.out 2>&1 </dev/null 3>&- &
	daemon=$!
	for ((i = 0; i < 200; i++)); do
		[ ! -s pid ] || return 0
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.05
	done
	cat daemon.out >&2
	return 1
}

unserve() {
	kill "$daemon" 2>/dev/null || :
	wait "$daemon" || :
	daemon=
}

# on_qcow2 WHO: one run of it onto disk.qcow2; the server's start and end take no part
on_qcow2() {
	local who=$1 n

	case $who in
	vmdksync)
		serve nbd || exit
		cmd=("$vmdksync" -q "$delta" "$target")
		;;
	fuse)
		[ -w /dev/fuse ] && serve fuse || return 0
		cmd=("$vmdksync" -q "$delta" "$target")
		;;
	nbdcopy)
		have nbdcopy || return 0
		serve nbd || exit
		# as many bytes, but from the start of a file to the start of the disk
		cmd=(nbdcopy --flush as-many.raw "$target")
		;;
	nbdcopy-runs)
		have nbdcopy || return 0
		serve nbd || exit
		# the same runs, as a sparse file, to their places; blocks of 4096 bytes are written whole
		cmd=(nbdcopy --flush --destination-is-zero same-runs.raw "$target")
		;;
	commit)
		# QEMU writes into hosted sparse images only, and takes no qcow2 image for a parent by its name
		[ "$format" = hosted ] || return 0
		n='"file":{"driver":"file","filename"'
		cmd=(qemu-img commit -q -d -t none "json:{\"driver\":\"vmdk\",$n:\"child.vmdk\"},\"backing\":{\"driver\":\"qcow2\",$n:\"disk.qcow2\"}}}")
		cp child.vmdk.first child.vmdk
		;;
	convert)
		# of a COWD extent it asks for each sector of the disk, see the part peers
		[ "$format" = hosted ] || return 0
		cmd=(qemu-img convert -q -n -W -m 16 -t none --target-is-zero -f vmdk -O qcow2
			"$delta.alone.vmdk" disk.qcow2)
		;;
	esac
	one "$who"
	[ -z "$daemon" ] || unserve
	rm -f fuse
	case $tiny-$who in
	1-nbdcopy*) cp first.qcow2 disk.qcow2 ;;
	1-*)
		if [ -e "$who.t" ] && ! qemu-img compare -q -f qcow2 -F raw disk.qcow2 want.raw; then
			echo "run.sh: $label: $who made something else" >&2
			exit 1
		fi
		cp first.qcow2 disk.qcow2
		;;
	esac
}

# Disks that a program serves: a qcow2 image by NBD, by FUSE, and as qemu-img writes it.
part_targets() {
	local i who label

	have qemu-img && have qemu-storage-daemon || return 0
	mib=$size
	heading "targets: $size MiB of grains onto a qcow2 image of $((8 * size)) MiB that is allocated"
	target alloc "$((8 * size))"
	mv alloc.raw base.raw
	qemu-img convert -q -f raw -O qcow2 base.raw disk.qcow2
	if [ -n "$tiny" ]; then cp disk.qcow2 first.qcow2; else truncate -s "$((2 * size))M" base.raw; fi
	for format in cowd hosted; do
		for shape in seq rand; do
			make_delta "descriptor=$format-$shape.vmdk.alone.vmdk"
			if [ "$format" = hosted ]; then
				make_delta parentcid=aabbccdd parent=base.vmdk
				cp "$delta" child.vmdk.first
				make_delta
				cp "$delta" "$delta.alone.vmdk"
			fi
			label="$format $shape qcow2" extra='' note='' failed=''
			# no more than there is: the same bytes, whatever they are
			head -c "$bytes" base.raw >as-many.raw
			rm -f same-runs.raw
			truncate -s "$((8 * size))M" same-runs.raw
			"$vmdksync" -q "$delta" same-runs.raw
			if [ -n "$tiny" ]; then
				cp base.raw want.raw
				"$vmdksync" -q "$delta" want.raw
			fi
			sync as-many.raw same-runs.raw
			for ((i = 0; i < runs; i++)); do
				for who in $(order vmdksync nbdcopy nbdcopy-runs fuse commit convert); do
					[[ " $failed " == *" $who "* ]] || on_qcow2 "$who"
				done
			done
			result targets "$label" vmdksync nbdcopy nbdcopy-runs fuse commit convert
			rm -f "$delta" "$delta.alone.vmdk" child.vmdk*
		done
	done
	rm -f ./*.qcow2 base.raw as-many.raw same-runs.raw want.raw
}

failed='' chill='' extra='' note='' calls='' block=512
: >results
say 'vmdksync against the limit of this machine: %s MiB, medians of %s runs by turns\n' \
	"$size" "$runs"
say '%s cores, Linux %s, %s\n' "$(nproc)" "$(uname -r)" "$(stat -f -c %T .)"
say 'a number with x: how many times as long the other one took (above 1: vmdksync is faster)\n'
for part in apply cold peers chain pipe raw stream verify start linear targets; do
	! wants "$part" || "part_$part"
done
if [ -n "$json" ]; then
	cat <<-END >results.json
		{"size_mib":$size,"runs":$runs,"cores":$(nproc),"kernel":"$(uname -r)","results":[
		$(sed '$!s/$/,/' results)
		]}
	END
	case $json in
	/dev/stdout) cat results.json ;;
	/*) cp results.json "$json" ;;
	*) cp results.json "$OLDPWD/$json" ;;
	esac
fi
