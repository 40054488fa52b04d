# SPDX-License-Identifier: MIT
# shellcheck disable=SC2002,SC2238,SC2016,SC2059 # a pipe is what is tested
# Straight from the pipe: the same targets as from files, and what a stream can lack.

load helpers


setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export TMPDIR=$BATS_TEST_TMPDIR
}

# The recipes of the other files: group, name, format, keys.
recipes() {
	sed -nE 's/^\t([a-z]+[0-9]*) +([A-Za-z0-9-]+) +((cowd|hosted|sesparse|stream) .*)$/\1 \2 \3/p' \
		"$TOP"/tests/apply.bats
	sed -nE 's/^\t(variant=.*)$/stream - stream \1/p' "$TOP/tests/stream.bats"
}

# each FORMAT COMMAND...: calls COMMAND with delta, base and expected made, for every recipe.
each() {
	local format=$1 sectors n=0
	local -a words

	shift
	while read -r -a words; do
		[ "${words[2]}" = "$format" ] || continue
		echo "--- ${words[*]}"
		sectors=${words[*]}
		sectors=${sectors#*capacity=}
		"$MKVMDK" pattern base "${sectors%% *}" 99
		cp base expected
		"$MKVMDK" "$format" delta "${words[@]:3}" apply=expected
		"$@"
		n=$((n + 1))
	done < <(recipes)
	echo "$n recipes"
	[ "$n" -ge 15 ]
}

# from COMMAND...: what the command says goes through a pipe; stderr in log.
from() {
	cp base target
	"$@" | vs -v - target >log 2>&1 || return
	same target expected
}

# Everything a delta can come through; that a file gives the same is what the other tests show.
every_way() {
	from cat delta
	from gzip -1c delta
	cp base target
	"$MKVMDK" socket delta "$VMDKSYNC" -q - target
	same target expected
	cp base target
	"$MKVMDK" dribble delta 1,511,4095 3 >fifo &
	vs -q fifo target
	wait $!
	same target expected
}

@test "every recipe: cat, gzip, a socket, a FIFO with odd little chunks that stalls: COWD" {
	mkfifo fifo
	each cowd every_way
}

# bats test_tags=quick
@test "every recipe: cat, gzip, a socket, a FIFO with odd little chunks that stalls: hosted" {
	mkfifo fifo
	each hosted every_way
}

@test "every recipe: cat, gzip, a socket, a FIFO with odd little chunks that stalls: SEsparse" {
	mkfifo fifo
	each sesparse every_way
}

@test "every recipe: cat, gzip, a socket, a FIFO with odd little chunks that stalls: streamOptimized" {
	mkfifo fifo
	each stream every_way
}

# one FORMAT KEYS...: base, delta, and expected.
one() {
	local sectors=${*#capacity=}

	sectors=$(printf '%s\n' "$@" | sed -n 's/^capacity=//p')
	"$MKVMDK" pattern base "$sectors" 99
	cp base expected
	"$MKVMDK" "$1" delta "${@:2}" apply=expected
}

# one of each, some 200 KiB long
small() {
	cat <<-'END'
	cowd capacity=9000 alloc=runs:20:1:30 layout=random zero=17-20
	hosted capacity=20000 grain=8 gtes=128 alloc=runs:10:1:7 layout=random
	sesparse capacity=40000 alloc=runs:10:1:7 layout=random unmapped=30-34
	stream variant=A capacity=20480 grain=16 alloc=random:20 layout=random
	stream variant=C capacity=20480 grain=16 alloc=random:20
	END
}

@test "odd little chunks, from a FIFO" {
	mkfifo fifo
	while read -r -a words; do
		echo "--- ${words[*]}"
		one "${words[@]}"
		for chunk in 1 511 4095; do
			# a write a byte takes its time
			[ "$chunk" != 1 ] || [[ ${words[0]} == [ch]* ]] || continue
			cp base target
			"$MKVMDK" dribble delta $chunk >fifo &
			vs -q fifo target
			wait $!
			same target expected
		done
	done < <(small)
}

@test "a sender that stalls, in the header, in a table, in a grain" {
	while read -r -a words; do
		one "${words[@]}"
		size=$(stat -c %s delta)
		stalls() {
			head -c 700 delta
			sleep 0.1
			tail -c +701 delta | head -c $((size / 2 - 700))
			sleep 0.1
			tail -c +$((size / 2 + 1)) delta
		}
		from stalls
	done < <(small)
}

@test "from a socket; by /dev/stdin; a file as standard input" {
	while read -r -a words; do
		one "${words[@]}"
		cp base target
		"$MKVMDK" socket delta "$VMDKSYNC" -q - target
		same target expected
		cp base target
		"$MKVMDK" socket delta "$VMDKSYNC" -q /dev/stdin target
		same target expected
		cp base target
		cat delta | vs -q /dev/stdin target
		same target expected
		cp base target
		vs -v - target 2>log <delta
		same target expected
		run ! grep ' received (' log
		gzip -c delta >delta.gz
		cp base target
		vs -q - target <delta.gz
		same target expected
	done < <(small)
}

# bats test_tags=quick
@test "tables behind grains, and in reversed order: right, and what was spooled is said" {
	requires jq
	spooled() {
		from cat delta
		sed -n 's/.* spooled (\([0-9]*\) bytes).*/\1/p' log
	}

	json() {
		cp base target
		cat delta | vs -q --json - target | jq -r "$@"
		same target expected
	}

	# a window is 2 MiB: what is in the same one as its table needs no spool
	one cowd capacity=81920 alloc=runs:600:1:100 layout=tables-last seed=4
	[ "$(spooled)" -gt 2000000 ]
	n=$(spooled)
	grep -q ' spooled ([0-9]* bytes): tables behind their grains$' log
	[ "$(json '.spooled | "\(.bytes) \(.reason)"')" = "$n tables behind their grains" ]
	[ "$(json .received)" = "$(stat -c %s delta)" ]
	one hosted capacity=81920 alloc=runs:40:1:12 layout=tables-last
	[ "$(spooled)" -gt 2000000 ]
	n=$(spooled)
	gzip -1c delta >delta.gz
	cp base target
	[ "$(vs -q --json - target <delta.gz | jq -r .spooled.bytes)" = "$n" ]
	same target expected
	# and in the usual ones, nothing; reverse: the end of the disk first, each table in front
	# of its grains
	for layout in seq random runs reverse; do
		one cowd capacity=40960 alloc=runs:300:1:100 layout=$layout
		[ "$(spooled)" = 0 ]
		[ "$(json -c .spooled)" = '{"bytes":0,"reason":null}' ]
		one hosted capacity=81920 alloc=runs:40:1:12 layout=$layout
		[ "$(spooled)" = 0 ]
		one sesparse capacity=81920 alloc=runs:100:1:90 layout=$layout
		[ "$(spooled)" = 0 ]
	done
}

# bats test_tags=quick
@test "why a stream is spooled: metadata far behind the header, an unfinished undo log" {
	requires jq
	reason() {
		from cat delta
		sed -n 's/.* spooled ([0-9]* bytes): //p' log
		cp base target
		[ "$(vs -q --json - target < <(cat delta) | jq -r .spooled.reason)" = "$(
			sed -n 's/.* spooled ([0-9]* bytes): //p' log)" ]
		same target expected
	}

	# the descriptor behind 32 MiB
	one hosted capacity=20480 alloc=runs:40:1:12
	dd if=delta of=descriptor bs=512 skip=1 count=20 status=none
	truncate -s 32M delta
	cat descriptor >>delta
	printf '\0\0\1\0' | dd of=delta bs=1 seek=28 conv=notrunc status=none
	[ "$(reason)" = 'metadata far behind the header' ]
	one stream capacity=20480 alloc=runs:20:1:9
	printf 'vmdksync undo log, not finished\n' | dd of=delta bs=1 seek=128 conv=notrunc status=none
	[ "$(reason)" = 'an unfinished undo log' ]
}

# Nothing is given before its maps are judged: here that is at the end of the stream.
# bats test_tags=quick
@test "an SEsparse stream of zeros alone that ends before its first grain would begin: as from a file" {
	one sesparse capacity=20480 zero=5,700-900 unmapped=99
	for size in 6291455 5000000 4194304; do
		truncate -s "$size" delta
		cp base target
		vs -q delta target
		same target expected
		from cat delta
	done
}

# bats test_tags=quick
@test "--memory: past it, everything is spooled, and is right" {
	for memory in 1 3000 40K; do
		one cowd capacity=80000 alloc=random:9000 zero=random:900 layout=random
		cp base target
		cat delta | vs -v --memory=$memory - target 2>log
		same target expected
		[ "$(sed -n 's/.* spooled (\([0-9]*\) bytes): more pending grains than --memory allows$/\1/p' log)" -gt 100000 ]
		one sesparse capacity=80000 alloc=random:3000 unmapped=random:900 layout=random
		cp base target
		cat delta | vs -v --memory=$memory - target 2>log
		same target expected
		one stream variant=C capacity=80000 alloc=random:90 layout=random
		cp base target
		cat delta | vs -q --memory=$memory - target
		same target expected
	done
}

# bats test_tags=quick
@test "--spool-first: damage is found before anything is written" {
	one cowd capacity=20480 alloc=runs:100:1:40
	cp base target
	cat delta | vs -v --spool-first - target 2>log
	same target expected
	grep -q ' spooled ([0-9]* bytes): --spool-first$' log
	# the last table names a grain outside of the file
	"$MKVMDK" cowd bad capacity=20480 alloc=runs:100:1:40+last gte=last:0xfffffff0
	cp base target
	run -2 vs --spool-first - target < <(cat bad)
	[[ $output == *'grain 20479 at file sector '*' lies outside the file'* ]]
	same target base
	# and what is not a stream's
	cp base target
	run -2 vs --verify - expected < <(cat delta)
	[[ $output == *--spool-first* ]]
	cat delta | vs -q --verify --spool-first - expected
	cat delta | vs -q --info - | grep -q COWD
	# grains that a file would be written out of
	one hosted capacity=20480 alloc=all
	cp base target
	cat delta | vs -q --spool-first - target
	same target expected
}

@test "with other layers: refused by a message that names --spool-first, which merges them in any place" {
	one cowd capacity=9000 alloc=runs:20:1:30 seed=2
	mv delta older
	one cowd capacity=9000 alloc=runs:20:1:30 seed=3
	for order in 'older -' '- older'; do
		cp base target
		# shellcheck disable=SC2086
		run -2 vs $order target < <(cat delta)
		[[ $output == 'vmdksync: standard input: what comes through a pipe is written alone, '*'--spool-first makes a file of it' ]]
		same target base
		# shellcheck disable=SC2086
		cat delta | vs -q --spool-first $order target
		cp base twice
		# shellcheck disable=SC2086
		vs -q ${order/-/delta} twice
		same target twice
	done
}

@test "a spool that cannot be made, or is full, is said" {
	requires root unshare
	one hosted capacity=81920 alloc=runs:40:1:12 layout=tables-last
	cp base target
	run -2 vs --spool=nowhere - target < <(cat delta)
	[[ $output == 'vmdksync: standard input: no spool can be made in nowhere: No such file or directory'* ]]
	same target base
	mkdir small
	run -2 unshare -m sh -c 'mount -t tmpfs -o size=1m none small && cat delta | "$0" --spool=small - target' \
		"$VMDKSYNC"
	[[ $output == *': the spool in small cannot take '*'No space left on device; --spool names another folder'* ]]
	same target base
}

@test "--dry-run reads all, and writes nothing" {
	while read -r -a words; do
		one "${words[@]}"
		cp base target
		run -0 vs --dry-run - target < <(cat delta)
		[[ $output == *' of data ('*'dry run, nothing was written'* ]]
		same target base
		run -2 vs --dry-run - target < <(head -c -600 delta)
		same target base
	done < <(small)
}

@test "--expect-size: fewer is an error, more a warning" {
	one cowd capacity=9000 alloc=runs:20:1:30
	size=$(stat -c %s delta)
	cp base target
	run -0 vs --expect-size="$size" - target < <(gzip -c delta)
	same target expected
	run -3 vs --expect-size=$((size + 1)) - target < <(cat delta)
	[[ $output == *": ends after $size bytes, in the middle of the file: expected at least $((size + 1)) bytes"* ]]
	run -0 vs --expect-size="$size" - target < <(cat delta /dev/zero | head -c $((size + 100)))
	[[ $output == *"warning: standard input: $((size + 100)) bytes were received, but $size were expected"* ]]
	cp base target
	run -2 vs --expect-size=$((size - 512)) - target < <(cat delta)
	[[ $output == *'lies outside the file'* ]]
	same target base
	run -2 vs --expect-size=5 delta target
}

@test "what comes behind the last grain: 16 MiB are usual, more is a warning" {
	one cowd capacity=9000 alloc=runs:20:1:30
	tail_of() {
		cat delta
		yes tail | head -c "$1"
	}
	cp base target
	run -0 vs - target < <(tail_of 16777216)
	[[ $output != *warning* ]]
	run -0 vs - target < <(tail_of 16777217)
	[[ $output == *'warning: standard input: 16777217 bytes follow the last grain'* ]]
	same target expected
	one stream variant=A capacity=9000 alloc=0-9
	for bytes in 1 100000 30000000; do
		cp base target
		run -3 vs - target < <(tail_of $bytes)
		[[ $output == *'standard input: there is data behind the end marker'* ]]
		cp base target
		run -0 vs --force=accounts - target < <(tail_of $bytes)
		[[ $output == *'warning: standard input: there is data behind the end marker'* ]]
		same target expected
	done
	# only the first of it is no zero
	run -3 vs - target < <(cat delta && echo tail && head -c 9000000 /dev/zero)
	[[ $output == *'standard input: there is data behind the end marker'* ]]
	run -3 vs --strict --force=accounts - target < <(tail_of 1)
	[[ $output == *'standard input: there is data behind the end marker'* ]]
}

# What was said of the last cut, where a test has failed.
teardown() {
	cat "$BATS_TEST_TMPDIR/last" 2>/dev/null || :
	helpers_teardown
}

# What is cut below; print=bounds says where in it anything begins or ends. The streams: tables in
# front of the grains; tables and footer behind them.
cuts() {
	local keys=seed=3\ print=bounds

	# shellcheck disable=SC2086
	case $1 in
	cowd) one cowd capacity=2000 alloc=runs:20:1:9 layout=random zero=17-20 pad=3000 $keys ;;
	hosted) one hosted capacity=4000 grain=8 gtes=128 alloc=runs:10:1:3 layout=random pad=3000 $keys ;;
	sesparse) one sesparse capacity=4000 alloc=runs:10:1:3 layout=random unmapped=30-34 pad=3000 $keys ;;
	tables) one stream variant=C capacity=4000 grain=16 alloc=random:20 $keys ;;
	*) one stream variant=A capacity=4000 grain=16 alloc=random:20 layout=random progress=1 $keys ;;
	esac >print
	mapfile -t bounds < <(sort -nu print)
	size=$(stat -c %s delta)
	# So many bytes are needed. What fills the sector of the end marker, or behind a grain that is the
	# last in the file, is not; and neither is padding.
	case $1 in
	tables) needed=$(od -An -v -tx1 -w1 delta | grep -nv ' 00' | tail -n 1 | cut -d: -f1) ;;
	footer) needed=$((size - 496)) ;;
	*) needed=$((size - 3000)) ;;
	esac
}

# cut_at BYTES FILE NEEDED [EACH]: fewer than NEEDED are an error that says what came; what was written
# is right, and (each so many times) a second run brings the rest.
cut_at() {
	local status=0 output

	cp base target
	head -c "$1" "$2" | vs -q $OPTIONS - target 2>log || status=$?
	IFS= read -r -d '' output <log || :
	echo "cut at $1 of $2, of which $3 are needed: $status $output" >last
	if [ "$1" -ge "$3" ]; then
		[ "$status" = 0 ]
		same target expected
		return
	fi
	case $status in
	2)
		same target base
		;;
	3)
		[[ $output == *'gave up after '*', the last of them before byte '* ]]
		[[ $output == *', are on stable storage; running again is safe'? ]]
		;;
	*)
		return 1
		;;
	esac
	case $2 in
	*.gz)
		[[ $output == 'vmdksync: standard input: the gzip data ends in the middle, '* ||
			($1 -le 2 && $output == 'vmdksync: standard input: is '*) ]]
		;;
	*)
		[[ $output == "vmdksync: standard input: ends after $1 bytes"* ||
			$output == 'vmdksync: standard input: is empty '* ||
			($1 -lt 4 && $output == 'vmdksync: standard input: is not a recognized VMDK '*) ]]
		;;
	esac
	if [ $((n++ % ${4:-1})) = 0 ]; then
		vs -q - target <"$2"
		same target expected
	fi
}

# cut_all KIND: where anything begins or ends, where what is needed ends, and anywhere.
cut_all() {
	local pos n=0 many=${CUTS:-100}
	local -a at

	[ "$FLAVOUR" = plain ] || many=10
	cuts "$1"
	[ "${#bounds[@]}" -ge 20 ]
	[ "$FLAVOUR" = plain ] || mapfile -t bounds < <(printf '%s\n' "${bounds[@]}" | sed -n '1~4p')
	for pos in "${bounds[@]}"; do
		at+=($((pos - 1)) "$pos" $((pos + 1)))
	done
	at+=(1 511 $((needed - 1)) "$needed" $((needed + 1)))
	RANDOM=11
	for ((i = 0; i < many; i++)); do
		at+=($(((RANDOM * 32768 + RANDOM) % size)))
	done
	for pos in "${at[@]}"; do
		[ "$pos" -lt 0 ] || [ "$pos" -gt "$size" ] || cut_at "$pos" delta "$needed" 2
	done
	gzip -1c delta >delta.gz
	size=$(stat -c %s delta.gz)
	at=(0 1 2 10 $((size - 9)) $((size - 8)) $((size - 1)))
	for ((i = 0; i < many; i++)); do
		at+=($(((RANDOM * 32768 + RANDOM) % size)))
	done
	for pos in "${at[@]}"; do
		cut_at "$pos" delta.gz "$size" 8
	done
}

@test "cut where more had to be remembered than --memory allows: what came whole is written" {
	local kind pos n=0

	[ "$FLAVOUR" = plain ] || skip 'the same code as above'
	export OPTIONS=--memory=4700
	for kind in cowd hosted sesparse tables; do
		cuts "$kind"
		cp base target
		vs -v $OPTIONS - target <delta 2>log
		for ((pos = size - 11; pos > 600; pos -= size / 9)); do
			cut_at "$pos" delta "$needed" 3
		done
	done
}

@test "cut where anything begins or ends, and anywhere, plain and gzip: COWD" {
	cut_all cowd
}

@test "cut where anything begins or ends, and anywhere, plain and gzip: hosted" {
	cut_all hosted
}

@test "cut where anything begins or ends, and anywhere, plain and gzip: SEsparse" {
	cut_all sesparse
}

@test "cut where anything begins or ends, and anywhere, plain and gzip: streamOptimized, tables in front" {
	cut_all tables
}

@test "cut where anything begins or ends, and anywhere, plain and gzip: streamOptimized, a footer" {
	cut_all footer
}

@test "a marker that leads past the end of what comes, by many windows" {
	one stream variant=A capacity=4000 grain=16 alloc=random:20 poke=gt:0-500:4:4 \
		poke=gt:0-512:8:65536
	cp base target
	run -3 vs - target < <(cat delta)
	[[ $output == *"ends after $(stat -c %s delta) bytes without an end marker: it is truncated"* ]]
}

@test "gzip: several members, zeros behind them; damage and other data are errors" {
	one cowd capacity=9000 alloc=runs:20:1:30
	members() {
		head -c 3000 delta | gzip -c
		tail -c +3001 delta | head -c 50000 | gzip -9c
		gzip -c </dev/null
		tail -c +53001 delta | gzip -1c
		head -c "$1" /dev/zero
	}
	from members 0
	from members 70000
	other() {
		gzip -c delta
		echo 'something else'
	}
	cp base target
	run -3 vs - target < <(other)
	[[ $output == *'there is something else behind the gzip data'* ]]
	gzip -c delta >delta.gz
	size=$(stat -c %s delta.gz)
	# the checksum, the length, and somewhere inside
	for pos in $((size - 8)) $((size - 4)) $((size / 2)); do
		cp delta.gz bad.gz
		printf '\x%02x' $(($(od -An -tu1 -j $pos -N 1 delta.gz) ^ 255)) >byte
		printf "$(cat byte)" | dd of=bad.gz bs=1 seek=$pos conv=notrunc status=none
		run vs - target < <(cat bad.gz)
		[ "$status" = 3 ] || [ "$status" = 2 ]
	done
	run -2 vs - target < <(gzip -c delta.gz)
	[[ $output == *'is compressed with gzip'* ]]
}

@test "--create: a stream that ends before anything is written leaves no target behind" {
	one cowd capacity=9000 alloc=runs:20:1:30
	run -2 vs --create - new < <(head -c 3000 delta)
	[ ! -e new ]
	run -3 vs --create - new < <(head -c 60000 delta)
	[ -e new ]
	run -2 vs --create - new < <(cat delta)
	[[ $output == *'exists already'* ]]
	rm new
	run -0 vs -q --create - new < <(cat delta)
}

@test "what could not be synced is not said to be on stable storage" {
	requires strace
	one cowd capacity=9000 alloc=runs:20:1:30
	cp base target
	run -3 strace -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=EIO \
		"$VMDKSYNC" - target < <(head -c 100000 delta)
	[[ $output == *' gave up after '*'; running again is safe' ]]
	[[ $output != *'stable storage'* ]]
}

@test "what a slow sender sends is synced while it is awaited, and a failure of that is told" {
	requires strace
	one cowd capacity=40960 alloc=all
	[ "$(stat -c %s delta)" -gt 20000000 ]
	slowly() {
		head -c 10M delta
		sleep 0.7
		tail -c +10485761 delta
	}
	cp base target
	vs -q - target < <(slowly)
	same target expected
	cp base target
	run -0 strace -qqf -o trace -e trace=fdatasync "$VMDKSYNC" -q --no-uring - target < <(slowly)
	same target expected
	[ "$(grep -c 'fdatasync(' trace)" -ge 2 ]
	# the last one succeeds, but what an earlier one lost is lost
	cp base target
	run -3 strace -qqf -o trace -e trace=fdatasync -e inject=fdatasync:error=EIO:when=1 \
		"$VMDKSYNC" -q --no-uring - target < <(slowly)
	[[ $output == *'vmdksync: target: fdatasync: Input/output error'* ]]
	grep -q 'fdatasync(.*) *= 0' trace
	vs -q - target < <(cat delta)
	same target expected
}

# late FILE: its last 8 bytes come when all before them is unpacked.
late() {
	head -c -8 "$1"
	sleep 0.3
	tail -c 8 "$1"
}

@test "a terminal is no delta" {
	requires script
	truncate -s 1M target
	run script -qec "'$VMDKSYNC' - target" /dev/null </dev/null
	[[ $output == *'standard input: is a terminal; send the delta through a pipe'* ]]
	[ "$status" = 2 ]
}

@test "gzip that is damaged at its beginning is not called empty" {
	printf '\037\213garbagegarbagegarbage' >bad.gz
	truncate -s 1M target
	run -2 vs - target < <(cat bad.gz)
	[[ $output == 'vmdksync: standard input: the gzip data is damaged near its byte '* ]]
	run -2 vs - target < <(gzip -c </dev/null)
	[[ $output == 'vmdksync: standard input: is empty (0 bytes)' ]]
}

@test "what is wrong at the end of gzip, or of the length, is found where all is spooled, too" {
	one cowd capacity=9000 alloc=runs:20:1:30
	gzip -1c delta >delta.gz
	size=$(stat -c %s delta.gz)
	printf '\\x%02x' $(($(od -An -tu1 -j $((size - 8)) -N 1 delta.gz) ^ 255)) >byte
	cp delta.gz bad.gz
	printf "$(cat byte)" | dd of=bad.gz bs=1 seek=$((size - 8)) conv=notrunc status=none
	for option in --memory=1 --spool-first; do
		cp base target
		run -2 vs $option - target < <(late bad.gz)
		[[ $output == *'the gzip data is damaged'* ]]
		same target base
		run -2 vs $option --expect-size=$(($(stat -c %s delta) + 512)) - target < <(cat delta)
		[[ $output == *' ends after '* ]]
		same target base
		run -0 vs -q $option - target < <(late delta.gz)
		same target expected
	done
	# an undo log that was not finished: only its end tells how far it can be believed
	"$MKVMDK" stream log capacity=9000 alloc=runs:20:1:9
	printf 'vmdksync undo log, not finished\n' |
		dd of=log bs=1 seek=128 conv=notrunc status=none
	gzip -1c log >log.gz
	size=$(stat -c %s log.gz)
	printf '\\x%02x' $(($(od -An -tu1 -j $((size - 8)) -N 1 log.gz) ^ 255)) >byte
	printf "$(cat byte)" | dd of=log.gz bs=1 seek=$((size - 8)) conv=notrunc status=none
	cp base target
	run -2 vs - target < <(late log.gz)
	[[ $output == *'the gzip data is damaged'* ]]
	same target base
}

@test "damage is found as early as the bytes allow" {
	"$MKVMDK" pattern base 20480 99
	refused() {
		cp base target
		"$MKVMDK" cowd bad capacity=20480 alloc=runs:100:1:40+last "$@"
		run vs - target < <(cat bad)
		echo "$*: $status $output"
	}
	refused gde=0:3
	[ "$status" = 2 ]
	refused gde=1:gt:0
	[ "$status" = 2 ]
	[[ $output == *'lies on sectors of another table or grain'* ]]
	refused gte=0:2
	[ "$status" = 2 ]
	same target base
	# the second of two is not written
	refused gte=last:gt:0
	[[ $output == *'grain 20479 at file sector '*'lies on sectors of another table or grain'* ]]
	[ "$status" = 2 ] # the whole file is in one window
	"$MKVMDK" hosted bad capacity=20480 alloc=all gde=0:gd
	cp base target
	run -2 vs - target < <(cat bad)
	[[ $output == *'grain table 0 at file sector '*' lies inside the grain directory' ]]
	same target base
	# where the size is known
	"$MKVMDK" cowd bad capacity=20480 alloc=all gde=1:eof
	run -2 vs --expect-size "$(stat -c %s bad)" - target < <(cat bad)
	[[ $output == *'grain table 1 at file sector '*' lies outside the file of '*' bytes' ]]
	same target base
	# all grains came, but not what the header calls used
	"$MKVMDK" cowd bad capacity=20480 alloc=runs:100:1:40 hdr=free:eof+1
	run -3 vs - target < <(cat bad)
	[[ $output == *', in the middle of what its header calls used: '* ]]
}

@test "entries for grains beyond the end of the disk: a warning, or refused" {
	one cowd capacity=10000 alloc=runs:20:1:30 gte=10000:eof
	cp base target
	run -0 vs - target < <(cat delta)
	[[ $output == *'warning: standard input: grain table 2 has entries for grains beyond the end of the disk'* ]]
	same target expected
	cp base target
	run -2 vs --strict - target < <(cat delta)
	same target base
}

# The grains are unpacked on all processors while the next ones come: over many windows of 2 MiB, with
# one that is cut in two by the end of a window, and of another size.
@test "packed grains: right over many windows, in little memory; damage in one is said" {
	local keys at

	for keys in 'variant=A alloc=all layout=random' 'variant=C alloc=all layout=random' \
		'variant=A alloc=all grain=4096' 'variant=C alloc=every:2 layout=reverse grain=8'; do
		echo "--- $keys"
		# shellcheck disable=SC2086
		one stream capacity=80005 $keys
		[ "$(stat -c %s delta)" -gt 16777216 ]
		cp base target
		if [ "$FLAVOUR" = plain ] && command -v time >/dev/null; then
			cat delta | command time -f %M -o peak "$VMDKSYNC" -q - target
			echo "peak: $(cat peak) KiB"
			[ "$(cat peak)" -lt 131072 ]
		else
			from cat delta
		fi
		same target expected
		gzip -1c delta >delta.gz
		from cat delta.gz
		cp base target
		cat delta | vs -q --undo=undo.vmdk --read-back - target
		same target expected
		vs -q undo.vmdk target
		same target base
		rm undo.vmdk
	done
	for variant in A C; do
		one stream variant=$variant capacity=40005 alloc=all layout=random
		at=$("$MKVMDK" stream x variant=$variant capacity=40005 alloc=all layout=random \
			print=grain:300)
		cp base target
		# the checksum of its data
		printf '\377\377' | dd of=delta bs=1 seek=$((at + 20000)) conv=notrunc status=none
		run -3 vs - target < <(cat delta)
		[[ ${lines[0]} == "vmdksync: standard input: grain 300 at file sector $((at / 512)) cannot be decompressed: "* ]]
		[[ ${lines[1]} == *'running again is safe' ]]
		[ "${#lines[@]}" = 2 ]
		cmp -i $((300 * 65536)) -n 65536 base target
		from "$MKVMDK" dribble x 65536
	done
}

@test "a packed grain of 16 MiB whose record begins with the last sector of a window" {
	one stream variant=C grain=32768 capacity=32768 alloc=all gte=0:40959
	"$MKVMDK" stream x variant=C grain=32768 capacity=32768 alloc=all
	dd if=x of=delta bs=512 skip=32768 seek=40959 conv=notrunc status=none
	cp base target
	# the record that lies in front of it as well belongs to nothing
	run -0 timeout 60 "$VMDKSYNC" -v --force=accounts - target < <(cat delta)
	[[ $output == *', 0 bytes spooled '* ]]
	[[ $output != *' came behind '* ]]
	same target expected
}

@test "a grain that is named twice, far apart" {
	one cowd capacity=40960 alloc=all
	"$MKVMDK" cowd bad capacity=40960 alloc=all gte=last:grain:1
	cp base target
	run -3 vs - target < <(cat bad)
	[[ $output == *'grain 40959 at file sector '*'lies on sectors of another table or grain'* ]]
	# where everything is spooled, too: a grain that is awaited, one that is not, a table
	for gte in 40000:grain:1 40000:grain:39000 40000:gt:9; do
		"$MKVMDK" cowd bad capacity=40960 alloc=all gte=$gte
		run -3 vs -v --memory=4700 - target < <(cat bad)
		[[ $output == *'grain 40000 at file sector '*'lies on sectors of another table or grain'* ]]
	done
	"$MKVMDK" stream bad variant=A capacity=20480 alloc=0-9 poke=grain:7:8:0
	run -3 vs - target < <(cat bad)
	[[ $output == *'grain 0 is there twice'* ]]
}

# bats test_tags=quick
@test "a producer that dies" {
	one cowd capacity=40960 alloc=all
	cp base target
	# shellcheck disable=SC2016
	run -3 vs - target < <(exec bash -c 'head -c 5000000 delta; kill -9 $$')
	[[ $output == *'standard input: ends after 5000000 bytes, in the middle of its grain'* ]]
	run -2 bash -c 'exec "$0" - target <&-' "$VMDKSYNC"
	[[ $output == 'vmdksync: standard input: is closed (Bad file descriptor)' ]]
	run -2 bash -c 'exec "$0" - target </' "$VMDKSYNC"
	[[ $output == *'is a directory'* ]]
}

# resets FILE BYTES MESSAGE
resets() {
	cp base target
	run -3 "$MKVMDK" reset "$1" "$2" "$VMDKSYNC" - target
	[[ ${lines[0]} == "vmdksync: standard input: reading at byte $2: Connection reset by peer" ]]
	[[ ${lines[1]} == *"gave up after $3 bytes, "*', are on stable storage; running again is safe' ]]
	[ "${#lines[@]}" = 2 ]
	# what was there before, or what belongs there
	cmp -n "$3" target expected
	cmp -i "$3" target base
	from cat delta
}

@test "a connection that is reset: what came whole is written, and running again is safe" {
	one cowd capacity=20480 alloc=all
	at=$("$MKVMDK" cowd x capacity=20480 alloc=all print=grain:18000)
	resets delta $((at + 100)) $((18000 * 512))
	# whatever was to come behind it: who sent it did not come to its end
	resets delta "$(stat -c %s delta)" $((20480 * 512))
	gzip -1c delta >delta.gz
	resets delta.gz "$(stat -c %s delta.gz)" $((20480 * 512))
	cp base target
	for bytes in 0 1 600; do
		run -2 "$MKVMDK" reset delta $bytes "$VMDKSYNC" - target
		[[ $output == 'vmdksync: standard input: '*'Connection reset by peer' ]]
		[ "${#lines[@]}" = 1 ]
	done
	same target base
}

differ() {
	! cmp -s "$1" "$2"
}

@test "SIGTERM while a sender stalls: stops, says how far, and again is right" {
	one cowd capacity=40960 alloc=all
	cp base target
	mkfifo fifo
	sleep 1000 >fifo 3>&- &
	held=$!
	echo $held >pids
	"$VMDKSYNC" -v fifo target 2>log 3>&- &
	ours=$!
	head -c 9000000 delta >fifo
	until_true differ base target
	kill $ours
	status=0
	wait $ours || status=$?
	kill $held
	echo "$status: $(cat log)"
	[ "$status" = 3 ]
	grep -q ': [0-9.]* MiB received ([0-9]* bytes), 0 bytes spooled' log
	grep -q 'stopped by a signal after [1-9][0-9]* bytes, .* on stable storage; running again is safe' log
	from cat delta
}

@test "--undo of what came through a pipe" {
	one cowd capacity=20480 alloc=random:900 zero=random:100 layout=random
	cp base target
	cat delta | vs -q --undo=log.vmdk - target
	same target expected
	vs -q log.vmdk target
	same target base
}

@test "manual: nc from one network to another" {
	requires root unshare ip nc
	one cowd capacity=40960 alloc=runs:300:1:100 layout=runs
	cp base target
	grep -q '^nc -l 31310 | vmdksync - ' "$TOP/vmdksync.1"
	grep -q '^nc -N newhost 31310 < ' "$TOP/vmdksync.1"
	cat >receive <<-'END'
	ip link set lo up
	while ! ip addr add 10.9.0.2/24 dev right 2>/dev/null; do sleep 0.05; done
	ip link set right up
	: >ready
	nc -l 31310 | "$VMDKSYNC" -v - target
	END
	unshare -n bash -o pipefail receive 2>log 3>&- &
	receiver=$!
	cat >send <<-'END'
	ip link add left type veth peer name right
	ip link set right netns $1
	ip addr add 10.9.0.1/24 dev left
	ip link set left up
	while ! nc -N 10.9.0.2 31310 <delta; do sleep 0.1; done
	END
	while [ "$(readlink /proc/$receiver/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do
		sleep 0.05
	done
	timeout 120 unshare -n sh send $receiver 2>/dev/null 3>&-
	wait $receiver
	same target expected
	grep -q ', 0 bytes spooled' log
}

# refuses WHAT COMMAND...: what the command says, plain and gzip, is called so; nothing is written.
refuses() {
	local what=$1 pack

	shift
	for pack in cat 'gzip -1c'; do
		run -2 vs - target < <("$@" | $pack)
		[[ $output == "vmdksync: standard input: "*"$what"* ]]
		[ "${#lines[@]}" = 1 ]
		[[ $output != *461168601* ]] # what stands for a length that nobody knows
		same target base
	done
}

@test "the wrong file is called by its name, and the target untouched: text, disks, archives" {
	local known='; --raw writes a raw disk'
	"$MKVMDK" pattern base 2048 1
	cp base target
	"$MKVMDK" cowd delta capacity=2048 alloc=1 descriptor=d.vmdk base=base
	refuses 'is a descriptor, and the files it names cannot come through a pipe; send the extent' \
		cat d.vmdk
	refuses "(it begins with 31 0a 32 0a)$known" seq 100000
	refuses "(it begins with the text \"Linux host 6.1.0 (motd) \")$known" \
		printf 'Linux host 6.1.0 (motd) of a login shell\n'
	refuses "(it begins with the text \"<!DOCTYPE html>\")$known" printf '<!DOCTYPE html>\n<html>\n'
	# a flat file: with a boot sector, with nothing, with anything
	cp base mbr
	printf '\125\252' | dd of=mbr bs=1 seek=510 conv=notrunc status=none
	refuses 'is a raw disk with a boot sector, not a delta; --raw writes such a disk' \
		cat mbr
	refuses "(it begins with 00 00 00 00)$known" head -c 40000000 /dev/zero
	"$MKVMDK" pattern random 90000 7
	refuses "$known" tail -c +77 random
	refuses "$known" cat base
	truncate -s 1M iso
	printf '\001CD001\001' | dd of=iso bs=1 seek=32768 conv=notrunc status=none
	refuses 'is an ISO image, not a VMDK' cat iso
	"$MKVMDK" cowd delta capacity=2048 alloc=1
	tar cf delta.ova delta
	refuses 'is a tar archive (an OVA?); unpack it first' cat delta.ova
	{ printf '\242\162\031\366'; head -c 4096 /dev/zero; } >x-ctk.vmdk
	refuses 'is a changed-block-tracking file (-ctk.vmdk) and holds no disk data' cat x-ctk.vmdk
	for word in '\3757zXZ\0:xz' '\050\265\057\375:zstd' '\004\042\115\030:lz4' 'BZh91AY:bzip2'; do
		{ printf "${word%:*}"; cat delta; } >packed
		refuses "is compressed with ${word##*:}; unpack it first" cat packed
	done
	{ printf 'PK\003\004'; cat delta; } >delta.zip
	refuses 'is a ZIP archive; unpack it first' cat delta.zip
}

@test "the wrong file is called by its name: images that qemu-img makes" {
	requires qemu-img
	"$MKVMDK" pattern base 2048 1
	cp base target
	for name in qcow2:qcow2 vpc:VHD vhdx:VHDX vdi:VDI; do
		qemu-img create -q -f "${name%:*}" image 8M
		refuses "is a ${name#*:} image, not a VMDK" cat image
	done
}

# Never in time, as the kernel may still bring what a dead process wrote: what had been written is fixed.
@test "a producer that dies, or says nothing: clear words, the target untouched" {
	one cowd capacity=9000 alloc=runs:20:1:30
	cp base target
	dies() {
		head -c "$1" "$2"
		kill -9 $BASHPID
	}
	gzip -1c delta >delta.gz
	for file in delta delta.gz; do
		run -2 vs - target < <(dies 0 $file)
		[ "$output" = 'vmdksync: standard input: is empty (0 bytes)' ]
		run -2 vs - target < <(dies 1 $file)
		[[ $output == 'vmdksync: standard input: is not a recognized VMDK (it begins with '* ]]
		run -2 vs - target < <(dies 600 $file)
		[[ $output == 'vmdksync: standard input: '*600* ]]
		same target base
	done
	run -2 vs - target < <(gzip -c </dev/null)
	[ "$output" = 'vmdksync: standard input: is empty (0 bytes)' ]
	run -2 bash -c 'exec "$0" - target 0>/dev/null' "$VMDKSYNC"
	[[ $output == 'vmdksync: standard input: '* ]]
	same target base
}

# --- accounts: what must add up as it passes ---

# known: the warnings that a recipe asks for.
known() {
	grep -v -e 'grain size is [0-9]* sectors' -e 'entries a grain table (512 is usual)' \
		-e 'has table entry 1: read as zeros' -e 'unclean-shutdown flag' -e 'behind its compressed data' || :
}

sound() {
	cp base target
	cat delta | vs - target 2>log || return
	sed -n '/warning: /p' log | known >odd
	cat odd
	[ ! -s odd ] || return
	same target expected
}

@test "no sound stream is warned of: every recipe" {
	for format in cowd hosted sesparse stream; do
		each $format sound
		# and it would be seen: one grain that no table names
		"$MKVMDK" pattern base 20480 99
		cp base expected
		"$MKVMDK" $format delta capacity=20480 alloc=5-9 apply=expected
		sound
		"$MKVMDK" $format delta capacity=20480 alloc=5-9 gte=7:0 rgd=0
		cp base expected
		run ! sound
		[[ $output != *differ:* ]]
	done
}

@test "no sound stream is warned of: what qemu-img writes" {
	requires qemu-img
	"$MKVMDK" pattern raw 20490 5
	yes 'a line of text' | dd of=raw conv=notrunc bs=512 count=5000 iflag=fullblock status=none
	fallocate --punch-hole --offset 4M --length 3M raw
	for o in subformat=streamOptimized subformat=monolithicSparse subformat=monolithicSparse,zeroed_grain=on; do
		for from in raw empty; do
			echo "--- $o $from"
			[ $from = raw ] || { rm -f empty && truncate -s $((20490 * 512)) empty; }
			rm -f delta
			qemu-img convert -f raw -O vmdk -o $o $from delta
			rm -f target
			cat delta | vs -q --strict --create - target
			same target $from
		done
	done
	qemu-img create -q -f vmdk -o zeroed_grain=on delta 10485760
	qemu-io -f vmdk -c 'write -P 1 0 1M' -c 'write -z 64k 128k' -c 'write -P 2 100k 9k' delta >/dev/null
	qemu-img convert -f vmdk -O raw delta expected
	rm target
	cat delta | vs -q --strict --create - target
	same target expected
	# and it would be seen: a grain at the end that no table names
	rm delta
	qemu-img convert -f raw -O vmdk raw delta
	head -c 65536 raw >>delta
	run -0 vs --create - new < <(cat delta)
	[[ $output == *'warning: standard input: 128 sectors behind the overhead belong to no grain'* ]]
}

# ends_early BYTES: exit 2, and the target is as it was.
ends_early() {
	echo "--- ends after $1 of $(stat -c %s delta) bytes"
	run -2 vs - target < <(head -c "$1" delta)
	[[ $output == *"vmdksync: standard input: ends after $1 bytes, in the middle of "* ]]
	same target base
}

@test "a stream that ends inside its own header, directory or overhead: nothing is written" {
	"$MKVMDK" pattern base 20480 99
	cp base target
	for keys in 'alloc=none' 'alloc=none zero=3-9,150' 'alloc=none grain=8 gtes=128 zero=all'; do
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" hosted delta capacity=20480 $keys
		overhead=$(stat -c %s delta)
		for n in 600 11000 20000 $((overhead - 512)) $((overhead - 1)); do
			[ "$n" -ge "$overhead" ] || ends_early "$n"
		done
	done
	"$MKVMDK" stream delta capacity=20480 variant=C alloc=none
	ends_early 20000
	ends_early 65535
	"$MKVMDK" stream delta capacity=20480 variant=A alloc=none
	run -2 vs - target < <(head -c 20000 delta)
	same target base
	"$MKVMDK" sesparse delta capacity=20480 alloc=none
	ends_early 2200000
	"$MKVMDK" sesparse delta capacity=20480 zero=5 unmapped=99
	ends_early 4000000
	"$MKVMDK" cowd delta capacity=20480000 alloc=none
	ends_early 2100
	# and all that belongs to them is enough
	for format in cowd hosted sesparse 'stream variant=C' 'stream variant=A' 'stream variant=B'; do
		read -r format keys <<<"$format"
		# shellcheck disable=SC2086 # one word or none
		"$MKVMDK" "$format" delta $keys capacity=20480 alloc=none
		cat delta | vs -q --strict - target
		same target base
	done
}

# differ KEYS...: one of the two copies of the metadata is damaged.
differ() {
	"$MKVMDK" hosted delta capacity=40960 grain=16 alloc=random:80 zero=1,700 "$@"
	cp base target
	run -2 vs - target < <(cat delta)
	[[ $output == *--force=gd* || $output == *--force=rgd* ]]
	same target base
}

@test "copies of hosted metadata that differ are refused before anything is written" {
	"$MKVMDK" pattern base 40960 99
	cp base expected
	"$MKVMDK" hosted delta capacity=40960 grain=16 alloc=random:80 zero=1,700 apply=expected
	for keys in gte=1:0 rgte=1:0 gte=2:1 rgte=700:0 rgte=last:eof gte=last:1 gde=1:0 rgde=1:0 \
		'gde=1:0 rgde=1:0'; do
		echo "--- $keys"
		# shellcheck disable=SC2086
		if [ "$keys" = 'gde=1:0 rgde=1:0' ]; then
			"$MKVMDK" hosted delta capacity=40960 grain=16 alloc=random:80 zero=1,700 $keys
			cp base target
			run -2 vs - target < <(cat delta)
			[[ $output == *'directory entry 1 is 0'*--force=accounts* ]]
			same target base
			continue
		fi
		# shellcheck disable=SC2086
		differ $keys
		case $keys in
		gte=* | gde=*) cat delta | vs -q --force=rgd - target ;;
		*) cat delta | vs -q --force=gd - target ;;
		esac
		same target expected
	done
}

@test "a hosted stream in which bytes belong to no grain" {
	one hosted capacity=40960 grain=16 alloc=random:80 gte=0:0 rgte=0:0
	one hosted capacity=40960 grain=16 alloc=random:80+0
	"$MKVMDK" hosted bad capacity=40960 grain=16 alloc=random:80+0 gte=0:0 rgte=0:0
	cp base target
	run -0 vs - target < <(cat bad)
	[[ $output == *'warning: standard input: 16 sectors behind the overhead belong to no grain'* ]]
	[[ $output == *'; 1 warning' ]]
	# spooled, too
	run -0 vs --memory=1 - target < <(cat bad)
	[[ $output == *'warning: standard input: 16 sectors behind the overhead belong to no grain'* ]]
	run -0 vs -q --strict - target < <(cat delta)
	run -0 vs -q --strict --memory=1 - target < <(cat delta)
	run -0 vs -q --strict - target < <(cat delta /dev/zero | head -c 9000000)
	same target expected
}

@test "a COWD stream in which sectors in use belong to nothing" {
	one cowd capacity=20480 alloc=runs:100:1:40+7
	"$MKVMDK" cowd bad capacity=20480 alloc=runs:100:1:40+7 gte=7:0
	for option in -v --memory=1; do
		cp base target
		run -0 vs $option - target < <(cat bad)
		[[ $output == *'warning: standard input: 1 of the '*' sectors in use by the header belong to no table and no grain'* ]]
		run -0 vs $option --strict - target < <(cat delta)
	done
	same target expected
}

@test "SEsparse: bitmap and backmap are compared with the tables before the first grain" {
	one sesparse capacity=40960 alloc=random:80+7 unmapped=7 zero=99
	cp base target
	cat delta | vs -q --strict - target
	same target expected
	one sesparse capacity=40960 alloc=random:80+7
	free=$((8192 * 512)) back=$((10240 * 512))
	for poke in $free:1:0 $((free + 4)):1:0 $back:8:0 $((back + 80)):8:0 $((free + 900)):1:1 \
		$((back + 40000)):8:0x1000000000000000; do
		echo "--- $poke"
		"$MKVMDK" sesparse bad capacity=40960 alloc=random:80+7 "poke=$poke"
		cp base target
		run -2 vs --strict - target < <(cat bad)
		[[ $output == *'ap'*'is it damaged'* ]]
		same target base
		run -0 vs - target < <(cat bad)
		[[ $output == *'is it damaged'* ]]
		same target expected
	done
	# a table entry that is lost
	"$MKVMDK" sesparse bad capacity=40960 alloc=random:80+5 gte=5:0
	cp base target
	run -2 vs --strict - target < <(cat bad)
	[[ $output == *'its grain tables name 80 grains, its free bitmap 81'* ]]
	same target base
}

# unequal WORDS KEYS...: a stream whose grains are all sound.
unequal() {
	local what=$1

	shift
	echo "--- $*"
	"$MKVMDK" stream bad capacity=40000 grain=16 alloc=random:40+7,600 "$@"
	cp base target
	run -3 vs - target < <(cat bad)
	[[ $output == *"$what"* ]]
	cp base target
	run -2 vs --dry-run - target < <(cat bad)
	run -0 vs --force=accounts - target < <(cat bad)
	[[ $output == *"warning: standard input: "*"$what"* ]]
	same target expected
}

@test "streamOptimized: markers, tables, directory and footer have to agree" {
	one stream capacity=40000 grain=16 alloc=random:40+7,600
	for v in A B; do
		unequal 'not those that its grain tables name' variant=$v gte=7:0
		unequal 'not those that its grain tables name' variant=$v gte=7:grain:600 gte=600:grain:7
		unequal 'not those that its grain tables name' variant=$v gte=8:grain:7 gte=7:0
		unequal 'not those that its grain tables name' variant=$v gde=0:0
		unequal 'not those that its grain tables name' variant=$v gde=0:gt:1 gde=1:gt:0
		unequal 'not those that its grain tables name' variant=$v gde=0:0xffffff
		unequal 'does not agree with the header' variant=$v poke=footer+12:1:1
		unequal 'the header or the footer has it elsewhere' variant=$v poke=footer+56:8:77
		unequal 'there is data behind the end marker' variant=$v poke=gt:0-512:8:0 poke=gt:0-500:4:0
		at=$("$MKVMDK" stream bad capacity=40000 grain=16 alloc=random:40+7,600 variant=$v print=gt:0)
		truncate -s $((at - 512)) bad
		truncate -s +512 bad
		run -3 vs - target < <(cat bad)
		[[ $output == *'ends without a grain directory'* ]]
	done
	unequal 'there is data behind the end marker' variant=A poke=footer-512:8:0 poke=footer-500:4:0
	at=$("$MKVMDK" stream bad capacity=40000 grain=16 alloc=random:40+7,600 variant=A print=footer)
	truncate -s $((at - 512)) bad
	truncate -s +512 bad
	run -3 vs - target < <(cat bad)
	[[ $output == *'ends without a footer'* ]]
	unequal 'the header or the footer has it elsewhere' variant=B hdr=gd:gd+1
	# tables in front: what no table names is not written
	"$MKVMDK" stream bad capacity=40000 grain=16 variant=C alloc=random:40+7,600 gte=7:0
	run -3 vs - target < <(cat bad)
	[[ $output == *'but there are 42 in the file'* ]]
	run -0 vs --force=accounts - target < <(cat bad)
	[[ $output == *warning* ]]
	"$MKVMDK" stream bad capacity=40000 grain=16 variant=C alloc=7 gte=7:0
	cp base target
	run -2 vs - target < <(cat bad)
	same target base
}

@test "an undo log of which something is lost on the way is not taken for all of it" {
	one cowd capacity=20480 alloc=runs:60:1:90
	cp base target
	vs -q --undo=log delta target
	cat log | vs -q --strict - target
	same target base
	cp expected target
	# the first 32 KiB of the tables; the directory; the footer
	size=$(stat -c %s log)
	for at in $((size / 4096 * 4096 - 4096)) $((size - 1536)) $((size - 2048)); do
		cp log bad
		dd if=/dev/zero of=bad bs=512 seek=$((at / 512)) count=1 conv=notrunc status=none
		cp expected target
		run -3 vs - target < <(cat bad)
		run -2 vs --dry-run - target < <(cat bad)
	done
}

# --- --full ---------------------------------------------------------------------------------------

# The delta of a recipe as an extent alone, 1003 sectors into a disk that is full of old data: what no
# grain holds becomes zeros, and nothing changes before and behind the extent.
full_way() {
	rm -f holds
	truncate -s "$(stat -c %s base)" holds
	"$MKVMDK" "$format" delta "${words[@]:3}" parentcid=ffffffff apply=holds
	"$MKVMDK" pattern old $((1003 + $(stat -c %s holds) / 512 + 2000)) 7
	cp old expected
	dd if=holds of=expected bs=512 seek=1003 conv=notrunc status=none
	cp old target
	cat delta | vs -q --full --offset=1003s - target
	same target expected
	vs -q --full --offset=1003s --verify delta target
}

@test "--full of an extent alone, every recipe: gaps become zeros, nothing else is touched: COWD" {
	each cowd full_way
}

@test "--full of an extent alone, every recipe: gaps become zeros, nothing else is touched: hosted" {
	each hosted full_way
}

@test "--full of an extent alone, every recipe: gaps become zeros, nothing else is touched: SEsparse" {
	each sesparse full_way
}

@test "--full of an extent alone, every recipe: gaps become zeros, nothing else is touched: streamOptimized" {
	each stream full_way
}

# whole FORMAT KEYS...: old, delta, a whole disk, and expected.
whole() {
	local sectors

	sectors=$(printf '%s\n' "$@" | sed -n 's/^capacity=//p')
	"$MKVMDK" pattern old "$sectors" 99
	rm -f expected
	truncate -s "$(stat -c %s old)" expected
	"$MKVMDK" "$1" delta "${@:2}" parentcid=ffffffff apply=expected
}

wholes() {
	small
	cat <<-'END'
	cowd capacity=81920 alloc=runs:600:1:100 layout=tables-last seed=4
	hosted capacity=81920 alloc=runs:40:1:12 layout=tables-last
	hosted capacity=200001 alloc=runs:4:1:12 rgd=0
	sesparse capacity=81920 alloc=runs:100:1:90 layout=reverse
	stream variant=B capacity=20481 grain=16 alloc=random:20 layout=random
	END
}

# bats test_tags=quick
@test "--full of a stream: --read-back, --undo and back, --dry-run, --memory, --spool-first, gzip" {
	requires jq
	while read -r -a words; do
		echo "--- ${words[*]}"
		whole "${words[@]}"
		cp old target
		cat delta | vs --full --offset=0 --dry-run - target >log 2>&1
		same target old
		cat delta | vs -q --full --offset=0 --read-back --json - target >out
		same target expected
		jq -e --argjson n "$(stat -c %s old)" '.written + .zeroed == $n and .equal' out
		cp old target
		rm -f undo.vmdk
		cat delta | vs -q --full --offset=0 --undo=undo.vmdk - target
		same target expected
		vs -q undo.vmdk target
		same target old
		gzip -1c delta | vs -q --full --offset=0 --memory=3000 - target
		same target expected
		cp old target
		cat delta | vs -q --full --offset=0 --spool-first - target
		same target expected
		cp old target
		vs -q --full --offset=0 delta target
		same target expected
	done < <(wholes)
}

# bats test_tags=quick
@test "--full of a stream: a disk that says that it has no parent needs no --offset" {
	requires jq qemu-img
	"$MKVMDK" pattern some.raw 3000 5
	truncate -s 70M disk.raw
	dd if=some.raw of=disk.raw bs=512 seek=50000 conv=notrunc status=none
	dd if=some.raw of=disk.raw bs=512 seek=100000 conv=notrunc status=none
	for subformat in monolithicSparse streamOptimized; do
		qemu-img convert -O vmdk -o subformat=$subformat disk.raw disk.vmdk
		"$MKVMDK" pattern target 70M 9
		cat disk.vmdk | vs --full --json - target >out 2>log
		same target disk.raw
		jq -e '.full_disk and .written + .zeroed == .size' out
		[[ $(<log) != *warning* ]]
		# a sparse target stays thin
		rm target
		cat disk.vmdk | vs -q --full --create - target
		same target disk.raw
		[ "$(stat -c %b target)" -le 8192 ]
	done
	# a part of a disk is not called all of it
	whole hosted capacity=4000 alloc=3-5
	"$MKVMDK" pattern target 5000
	[ "$(vs -q --json --full --offset=0 delta target | jq .full_disk)" = false ]
}

# bats test_tags=quick
@test "--full of a stream: what has a parent, or may have one, is refused, the target untouched" {
	"$MKVMDK" pattern base 20480 9
	for recipe in hosted 'stream variant=A' 'stream variant=C'; do
		read -r format keys <<<"$recipe"
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" "$format" delta capacity=20480 alloc=0-9 $keys
		cp base target
		for offset in '' --offset=0; do
			# shellcheck disable=SC2086
			run -2 vs --full $offset - target < <(cat delta)
			[[ $output == 'vmdksync: standard input: has a parent, whose bytes belong into its gaps: --full of a pipe is for a disk without one; '* ]]
		done
		same target base
	done
	for recipe in cowd sesparse 'hosted desc=0'; do
		read -r format keys <<<"$recipe"
		# shellcheck disable=SC2086
		"$MKVMDK" "$format" delta capacity=20480 alloc=0-9 $keys
		run -2 vs --full - target < <(cat delta)
		[[ $output == *'has no descriptor, so its parent is not known; name that with --base, or say with --offset that there is none'* ]]
		run -2 vs --full --base=base - target < <(cat delta)
		[[ $output == *'what comes through a pipe is written alone'* ]]
		run -2 vs --full - delta target < <(cat delta)
		[[ $output == *'what comes through a pipe is written alone'* ]]
		same target base
	done
	# an undo log is of a disk as it was changed
	cp base target
	"$MKVMDK" cowd delta capacity=20480 alloc=0-9
	vs -q --undo=undo.vmdk delta target
	cp target now
	run -2 vs --full - target < <(cat undo.vmdk)
	same target now
	# more grains than can be counted
	"$MKVMDK" stream delta variant=A capacity=64T grain=16 gtes=4096 alloc=0-3 parentcid=ffffffff
	truncate -s 1M small
	run -2 vs --full - small < <(cat delta)
	[[ $output == *'more grains than are counted of a stream'*'--spool-first'* ]]
}

@test "--full of a stream: tables that are not there, a disk of terabytes" {
	requires qemu-img
	for recipe in 'cowd capacity=2T' 'hosted capacity=2T' 'sesparse capacity=40G' 'stream variant=A capacity=2T'; do
		read -r format keys <<<"$recipe"
		# shellcheck disable=SC2086
		"$MKVMDK" "$format" delta $keys alloc=0-3+last parentcid=ffffffff
		rm -f expected target
		truncate -s 2T expected target
		vs -q --offset=0 delta expected
		cat delta | vs -q --full --offset=0 --read-back - target
		qemu-img compare -f raw -F raw expected target
		[ "$(stat -c %b target)" -le $(($(stat -c %b expected) + 256)) ]
	done
}

# old_or_new: each sector of target is that of old, or of expected; how many are not old.
old_or_new() {
	python3 - <<-'END'
	import sys
	old, new, got = (open(f, "rb").read() for f in ("old", "expected", "target"))
	changed = 0
	for i in range(0, len(old), 512):
	    s = slice(i, i + 512)
	    if got[s] != old[s]:
	        changed += 1
	        if got[s] != new[s]:
	            sys.exit(f"sector {i // 512} is neither old nor new")
	print(changed)
	END
}

# bats test_tags=quick
@test "--full of a stream that ends early: exit 3, and no byte is wrong; the same again, and all is there" {
	while read -r -a words; do
		echo "--- ${words[*]}"
		whole "${words[@]}"
		size=$(stat -c %s delta)
		for part in 30 60 99; do
			cp old target
			run vs --full --offset=0 - target < <(head -c $((size * part / 100)) delta)
			[ "$status" = 3 ] || [ "$status" = 2 ]
			[ "$status" = 3 ] || same target old
			old_or_new
		done
		[ "$(old_or_new)" -gt 0 ]
		cat delta | vs -q --full --offset=0 - target
		same target expected
	done < <(small)
}
