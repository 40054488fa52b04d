# SPDX-License-Identifier: MIT
# The export of an NBD server as TARGET: a qcow2 file behind qemu-storage-daemon or qemu-nbd, memory
# behind nbdkit. What is there when all is done is compared by qemu-img with mkvmdk's model.

load helpers

SECTORS=131072
KILLS=${KILLS:-50}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	short_dir
	RANDOM=${NBD_SEED:-$$}
	echo "NBD_SEED=${NBD_SEED:-$$}"
}

teardown() {
	cd "$BATS_TEST_TMPDIR" || return
	helpers_teardown
	rm -f ./*.raw ./*.qcow2 ./*.vmdk ./*.gz
}

# background COMMAND...: a server, which takes no descriptor of bats with it
background() {
	rm -f server.log
	"$@" 3>&- 4>&- >server.log 2>&1 &
	server=$!
	echo "$server" >>pids
}

is_up() {
	kill -0 "$server" || { cat server.log; exit 1; }
	# bound is not enough
	grep -q " 00010000 .* $SHORT_DIR/s\$" /proc/net/unix
}

# serve qcow2|qemu-nbd|memory [FILTER-OR-OPTION...]: $uri is an export of base.raw
serve() {
	local how=$1

	shift
	uri="nbd+unix:///a%20disk?socket=$SHORT_DIR/s"
	rm -f "$SHORT_DIR/s"
	case $how in
	qcow2)
		background qemu-storage-daemon \
			--blockdev driver=file,filename=d.qcow2,node-name=f,discard=unmap \
			--blockdev driver=qcow2,file=f,node-name=q,discard=unmap \
			--nbd-server addr.type=unix,addr.path="$SHORT_DIR/s" \
			--export type=nbd,id=e,node-name=q,writable=on,name='a disk'
		;;
	qemu-nbd)
		background qemu-nbd --discard=unmap -x 'a disk' -k "$SHORT_DIR/s" -f qcow2 -t d.qcow2
		;;
	memory)
		background nbdkit -f -U "$SHORT_DIR/s" "$@"
		;;
	esac
	until_true is_up
}

served_no_more() {
	kill "$server" 2>/dev/null || :
	wait "$server" || :
	rm -f pids
}

# recipe N: the Nth
recipe() {
	sed -n "$1p" <<-'END'
	cowd alloc=runs:30:1:900
	cowd alloc=random:2000+last zero=runs:9:1:300
	cowd alloc=runs:300:1:30 layout=random zero=random:500
	cowd alloc=runs:200:8:64 zero=runs:100:8:64 layout=runs
	cowd alloc=none zero=runs:20:100:4000
	sesparse alloc=runs:30:1:90
	sesparse alloc=random:900 zero=runs:9:1:40 unmapped=random:60
	sesparse alloc=runs:60:1:20 layout=random zero=random:500
	sesparse alloc=all
	sesparse alloc=none zero=all
	hosted grain=16 alloc=random:500 zero=random:100
	hosted alloc=runs:9:1:9
	hosted alloc=runs:90:1:9 layout=random zero=runs:9:1:30
	hosted grain=1 alloc=runs:90:1:9 layout=runs
	hosted alloc=all
	stream grain=16 variant=A alloc=random:600 layout=random
	stream variant=B alloc=runs:30:1:9
	stream variant=C alloc=runs:30:1:9 rgd=1
	stream variant=A alloc=all
	stream grain=8 variant=B alloc=runs:300:1:9 layout=reverse
	END
}

# made N: base.raw, d.vmdk, and want.raw
made() {
	local words

	read -ra words < <(recipe "$1")
	echo "recipe $1: ${words[*]}"
	"$MKVMDK" pattern base.raw $SECTORS 3
	# some of it is not zero, and some is a hole
	fallocate --punch-hole --offset 20000000 --length 17000000 base.raw
	cp --sparse=always base.raw want.raw
	"$MKVMDK" "${words[0]}" d.vmdk capacity=$SECTORS seed=$((100 + $1)) "${words[@]:1}" apply=want.raw
}

# fill KIND: what is served holds base.raw
fill() {
	case $1 in
	memory)
		serve memory "${filters[@]}" memory 64M "${parameters[@]}"
		nbdcopy base.raw "$uri"
		;;
	*)
		qemu-img convert -O qcow2 base.raw d.qcow2
		serve "$1"
		;;
	esac
}

# holds KIND FILE: what is served is what is in FILE, and the server ends
holds() {
	case $1 in
	memory)
		qemu-img compare -f raw -F raw "$uri" "$2"
		served_no_more
		;;
	*)
		served_no_more
		qemu-img check d.qcow2
		qemu-img compare -f qcow2 -F raw d.qcow2 "$2"
		;;
	esac
}

# again KIND: the server goes on with what it held; that of memory still runs
again() {
	[ "$1" = memory ] || serve "$1"
}

# and_still KIND FILE: the same as holds, and the server runs on
and_still() {
	case $1 in
	memory) qemu-img compare -f raw -F raw "$uri" "$2" ;;
	*) holds "$@" && again "$1" ;;
	esac
}

# there_and_back KIND N: by file or pipe, with and without an undo log
there_and_back() {
	local mode=() at

	made "$2"
	[ $((RANDOM % 3)) != 0 ] || mode=(--no-uring)
	fill "$1"
	vs "${mode[@]}" --undo u.vmdk --read-back d.vmdk "$uri"
	and_still "$1" want.raw
	vs "${mode[@]}" --verify --base base.raw d.vmdk "$uri"
	# a sector that differs is found, at its place
	at=$(vs --map --json d.vmdk | jq "[.map[] | select(.present)] | .[$RANDOM % length].start")
	qemu-io -f raw -c "write -P 0x5a $at 512" "$uri"
	run -1 --separate-stderr vs "${mode[@]}" --verify --json --base base.raw d.vmdk "$uri"
	[ "$(jq .differences[0].start <<<"$output")" = "$at" ]
	[ "$(jq -r .target.name <<<"$output")" = "$uri" ]
	[ "$(jq -r .target.kind <<<"$output")" = nbd ]
	vs "${mode[@]}" u.vmdk "$uri"
	and_still "$1" base.raw
	case $((RANDOM % 3)) in
	0) vs "${mode[@]}" --read-back - "$uri" < <(cat d.vmdk) ;;
	1) vs "${mode[@]}" - "$uri" < <(gzip -1 <d.vmdk) ;;
	2) vs "${mode[@]}" d.vmdk "$uri" ;;
	esac
	holds "$1" want.raw
	rm -f u.vmdk d.qcow2
}

# recipes KIND FIRST LAST
recipes() {
	local nth

	requires qemu-img qemu-io nbdkit nbdcopy qemu-storage-daemon jq
	for ((nth = $2; nth <= $3; nth++)); do
		there_and_back "$1" "$nth"
	done
}

# bats test_tags=slow
@test "qcow2 behind qemu-storage-daemon: apply, verify, undo, and again: COWD" {
	recipes qcow2 1 5
}

@test "qcow2 behind qemu-storage-daemon: apply, verify, undo, and again: SEsparse" {
	recipes qcow2 6 10
}

# bats test_tags=slow
@test "qcow2 behind qemu-storage-daemon: apply, verify, undo, and again: hosted" {
	recipes qcow2 11 15
}

# bats test_tags=slow
@test "qcow2 behind qemu-storage-daemon: apply, verify, undo, and again: streamOptimized" {
	recipes qcow2 16 20
}

# bats test_tags=slow
@test "memory behind nbdkit: apply, verify, undo, and again: COWD" {
	recipes memory 1 5
}

# bats test_tags=slow
@test "memory behind nbdkit: apply, verify, undo, and again: SEsparse" {
	recipes memory 6 10
}

@test "memory behind nbdkit: apply, verify, undo, and again: hosted" {
	recipes memory 11 15
}

# bats test_tags=slow
@test "memory behind nbdkit: apply, verify, undo, and again: streamOptimized" {
	recipes memory 16 20
}

# bad FAULT [ARGUMENT]: $uri is served by a server with that fault
bad() {
	uri="nbd+unix:///x?socket=$SHORT_DIR/b"
	rm -f "$SHORT_DIR/b"
	background python3 "$TOP/tests/nbd-server.py" "$SHORT_DIR/b" $((SECTORS * 512)) "$@"
	until_true grep -qs ready server.log
}

# fails STATUS TEXT FAULT [ARGUMENT]: the apply ends like that, and says TEXT
fails() {
	local status_wanted=$1 text=$2

	shift 2
	echo "fault: $*"
	bad "$@"
	run --separate-stderr timeout 50 "$VMDKSYNC" -q "${mode[@]}" d.vmdk "$uri"
	echo "$stderr"
	served_no_more
	[ "$status" = "$status_wanted" ]
	[[ ${stderr_lines[0]} == "vmdksync: $uri: "*"$text"* ]]
	if [ "$status" = 3 ]; then
		[[ $stderr == *'running again is safe'* ]]
	else
		run -1 grep 'writes [1-9]' server.log
	fi
}

@test "bad servers in the handshake: exit 2, and one line says why" {
	requires python3
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=runs:30:1:900
	mode=()
	fails 2 'is not an NBD server' magic
	fails 2 'oldstyle' oldstyle
	fails 2 'fixed newstyle' not-fixed
	fails 2 'closed the connection during the handshake' close-greeting
	fails 2 'requires TLS, which is not supported' tls
	fails 2 'not of the NBD protocol' reply-magic
	fails 2 'not of the NBD protocol' reply-long
	fails 2 "has no export named 'x'; it says: look elsewhere \x1b[31m" unknown
	fails 2 'refused the export' policy
	fails 2 'too old' no-go
	fails 2 'did not say how large' no-info
	fails 2 'allows reading only' read-only
	fails 2 'cannot flush' no-flush
	fails 2 'has 9223372036854775808 bytes' huge
	for size in 0 3 131072; do
		fails 2 "minimum block size of $size bytes" block $size
	done
	fails 2 'no more than 100 bytes at once' maximum 100
	# too small
	"$MKVMDK" cowd d.vmdk capacity=$((SECTORS + 1)) alloc=5
	fails 2 "has $((SECTORS * 512)) bytes, the disk needs $((SECTORS * 512 + 512))" none
	# nobody there
	run -2 --separate-stderr vs d.vmdk "nbd+unix:///?socket=$SHORT_DIR/nobody"
	[[ $stderr == *'cannot connect to the socket: No such file or directory'* ]]
	run -2 --separate-stderr vs d.vmdk nbd://127.0.0.1:1/
	[[ $stderr == *'cannot connect to port 1: Connection refused'* ]]
}

@test "bad servers while writing: exit 3, and running again is safe" {
	requires python3
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=runs:300:1:90 zero=runs:9:9:9
	for mode in '' --no-uring; do
		mode=(${mode:+"$mode"})
		fails 3 'No space left on device' write-error 3
		fails 3 'Invalid argument' strange-error 3
		fails 3 'answered a request that was not made' cookie 3
		fails 3 'begins with 0x74686973' garbage 3
		fails 3 'a chunk of type 9' chunk-type 3
		fails 3 'an error that makes no sense' bad-error 3
		fails 3 'connection' kill 3
		fails 3 'flush: Input/output error' flush-error
	done
}

@test "bad servers while reading: exit 2" {
	requires python3
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=runs:300:1:90
	for mode in '' --no-uring; do
		mode=(--verify ${mode:+"$mode"})
		fails 2 'did not answer all of 512 bytes' short
		fails 2 'that were not asked for' outside
		fails 2 'twice' twice
		fails 2 'answered bytes (256 at byte 128) twice' overlap
		fails 2 'too many pieces' islands 64
		fails 2 'that were not asked for' hole-outside
		fails 2 'by a simple reply' simple-read
		fails 2 'Input/output error' read-error
	done
}

# good FAULT [ARGUMENT]: what this server does is unusual, but allowed
good() {
	echo "server: $*"
	bad "$@"
	vs "${mode[@]}" --read-back --undo u.vmdk d.vmdk "$uri"
	vs "${mode[@]}" --verify d.vmdk "$uri"
	until_true grep -q 'flushes [1-9]' server.log
	until_true same served.raw want.raw
	vs "${mode[@]}" u.vmdk "$uri"
	truncate -s $((SECTORS * 512)) zero.raw
	until_true same served.raw zero.raw
	served_no_more
	rm u.vmdk
}

@test "unusual servers: simple replies, chunks from behind, answers out of order, small requests" {
	requires python3
	truncate -s $((SECTORS * 512)) want.raw
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=runs:40:1:3000 zero=runs:30:1:3000 apply=want.raw
	mode=()
	good none
	good simple
	good pieces
	good islands 32
	good shuffle
	good no-zeroes
	good zeroes-unsupported
	good block 4096
	good block 65536
	good maximum 4096
	good maximum 100000
	mode=(--no-uring)
	good shuffle
	good no-zeroes
}

@test "--dry-run and --verify take a server that allows reading only" {
	requires python3
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=none zero=3-900
	bad read-only
	run -0 --separate-stderr vs --dry-run d.vmdk "$uri"
	[[ $stderr == *'it is read-only, so it could not be'* ]]
	vs --verify d.vmdk "$uri"
	served_no_more
}

has_socket() {
	[[ $(readlink "/proc/$pid/fd/"* 2>/dev/null) == *socket:* ]]
}

@test "a server that says nothing is left by Ctrl-C" {
	requires python3
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=3
	bad mute
	env --default-signal=INT "$VMDKSYNC" d.vmdk "$uri" 2>err 3>&- &
	pid=$!
	echo $pid >>pids
	until_true has_socket
	kill -INT $pid
	code=0
	wait $pid || code=$?
	[ "$code" = 2 ]
	grep 'stopped by a signal before anything was written' err
	served_no_more
}

@test "a signal that comes between two calls of the handshake is not lost" {
	requires python3 strace
	"$MKVMDK" cowd d.vmdk capacity=$SECTORS alloc=3
	bad mute
	for call in socket setsockopt connect; do
		run -2 --separate-stderr timeout 20 strace -qqf -o /dev/null -e trace=$call \
			-e inject=$call:signal=INT:when=1 env --default-signal=INT "$VMDKSYNC" d.vmdk "$uri"
		echo "$call: $stderr"
		[[ $stderr == *'stopped by a signal before anything was written'* ]]
	done
	served_no_more
}

# names EXPECTED URI: refused like that
names() {
	run -2 --separate-stderr vs d.vmdk "$2"
	echo "$stderr"
	[[ $stderr == *"$1"* ]]
	[ "${#stderr_lines[@]}" = 1 ]
}

@test "names that cannot be used" {
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=3
	names 'only nbd://HOST[:PORT]/EXPORT and' tcp://host/x
	names 'TLS is not supported' nbds://host/x
	names 'TLS is not supported' 'nbds+unix:///x?socket=/s'
	names 'TLS is not supported' 'nbd://host/x?tls-type=x509'
	names 'has no host' nbd:///x
	names 'a number from 1 to 65535' nbd://host:0/x
	names 'a number from 1 to 65535' nbd://host:65536/x
	names 'a number from 1 to 65535' nbd://host:/x
	names 'user names are not supported' nbd://me@host/x
	names 'expected [IPv6' 'nbd://[::1/x'
	names 'the parameter socket is not supported' 'nbd://host/x?socket=/s'
	names 'the parameter colour is not supported' 'nbd+unix:///x?socket=/s&colour=1'
	names 'names two sockets' 'nbd+unix:///x?socket=/s&socket=/t'
	names 'names no socket' nbd+unix:///x
	names 'names no socket' 'nbd+unix:///x?socket='
	names 'a Unix socket has no host' 'nbd+unix://host/x?socket=/s'
	names 'two hexadecimal digits' 'nbd://host/x%2'
	names 'cannot contain %00' 'nbd://host/x%00'
	names 'contains #' 'nbd://host/x#1'
	names 'longer than 4096 bytes' "nbd://host/$(printf 'x%.0s' {1..4097})"
	names 'the host is not known' nbd://no-such-host.invalid/x
	run -2 --separate-stderr vs --create d.vmdk nbd://host/y
	[[ $stderr == *'--create makes files only'* ]]
	# a file may be called like that
	mkdir -p nbd: nbd:/host
	truncate -s 1M nbd:/host/x
	vs d.vmdk nbd://host/x
}

# blocks FILE: how many KiB of it are allocated
blocks() {
	echo $(($(stat -c %b "$1") / 2))
}

# zero_grains: d.vmdk, whose grains hold zeros but for the last MiB, and u.vmdk, the same as zero grains;
# want.raw
zero_grains() {
	truncate -s $((SECTORS * 512)) zero.raw
	cp --sparse=always zero.raw from.raw
	"$MKVMDK" pattern mib.raw 2048 7
	dd if=mib.raw of=from.raw bs=1M seek=$((SECTORS / 2048 - 1)) conv=notrunc status=none
	cp --sparse=always from.raw want.raw
	"$MKVMDK" sesparse d.vmdk capacity=$SECTORS alloc=all from=from.raw
	"$MKVMDK" sesparse u.vmdk capacity=$SECTORS alloc=none zero=all
}

@test "thin stays thin: a qcow2 file" {
	requires qemu-img qemu-storage-daemon jq
	zero_grains
	for delta in u d; do
		qemu-img create -q -f qcow2 d.qcow2 64M
		serve qcow2
		vs $delta.vmdk "$uri"
		served_no_more
		cp zero.raw is.raw
		[ $delta = u ] || cp want.raw is.raw
		qemu-img compare -f qcow2 -F raw d.qcow2 is.raw
		[ "$(blocks d.qcow2)" -le 2048 ]
		# what was full is thin again
		"$MKVMDK" pattern full.raw $SECTORS 7
		qemu-img convert -O qcow2 full.raw d.qcow2
		serve qcow2
		vs $delta.vmdk "$uri"
		served_no_more
		qemu-img compare -f qcow2 -F raw d.qcow2 is.raw
		[ "$(blocks d.qcow2)" -le 4096 ]
	done
}

@test "thin stays thin: a server that cannot write zeroes" {
	requires qemu-img nbdkit
	zero_grains
	for mode in '' --no-uring --undo=undo.vmdk; do
		mode=(${mode:+"$mode"})
		for delta in u d; do
			cp --sparse=always zero.raw is.raw
			rm -f disk.raw undo.vmdk
			truncate -s $((SECTORS * 512)) disk.raw
			serve memory --filter=nozero file disk.raw
			vs "${mode[@]}" $delta.vmdk "$uri"
			served_no_more
			[ $delta = u ] || cp want.raw is.raw
			same disk.raw is.raw
			[ "$(blocks disk.raw)" -le 1100 ]
			# but what is not zero is overwritten
			"$MKVMDK" pattern disk.raw $SECTORS 7
			rm -f undo.vmdk
			serve memory --filter=nozero file disk.raw
			vs "${mode[@]}" $delta.vmdk "$uri"
			served_no_more
			same disk.raw is.raw
		done
	done
}

@test "thin stays thin: data grains that are zeros, a sparse file and a loop device" {
	requires loop
	zero_grains
	truncate -s $((SECTORS * 512)) t.raw
	vs d.vmdk t.raw
	same t.raw want.raw
	[ "$(blocks t.raw)" -le 1100 ]
	vs --no-uring --create - new.raw < <(cat d.vmdk)
	same new.raw want.raw
	[ "$(blocks new.raw)" -le 1100 ]
	truncate -s 0 t.raw
	truncate -s $((SECTORS * 512)) t.raw
	dev=$(loopdev t.raw)
	vs d.vmdk "$dev"
	cmp "$dev" want.raw
	unloop "$dev"
	[ "$(blocks t.raw)" -le 1200 ]
	# what is thick stays thick
	"$MKVMDK" pattern full.raw $SECTORS 7
	sync full.raw
	vs d.vmdk full.raw
	same full.raw want.raw
	[ "$(blocks full.raw)" -ge 65536 ]
}

# The server is killed at a random moment of an apply; what it has not flushed may be lost.
# bats test_tags=slow
@test "the server is killed at any moment: the same again, or the way back, ends right" {
	requires qemu-img qemu-storage-daemon
	begun=0
	made 4
	qemu-img convert -O qcow2 base.raw pristine.qcow2
	for ((kill = 0; kill < KILLS; kill++)); do
		cp pristine.qcow2 d.qcow2
		rm -f u.vmdk
		mode=()
		[ $((RANDOM % 3)) != 0 ] || mode+=(--no-uring)
		[ $((RANDOM % 2)) = 0 ] || mode+=(--undo=u.vmdk)
		serve qcow2
		victim=$server
		"$VMDKSYNC" -q "${mode[@]}" d.vmdk "$uri" 2>err 3>&- &
		pid=$!
		sleep "0.0$((RANDOM % 90 + 10))"
		kill -KILL "$victim"
		code=0
		wait "$pid" || code=$?
		wait "$victim" || :
		rm -f pids
		echo "$kill: $code ${mode[*]}: $(cat err)"
		[ "$code" = 0 ] || [ "$code" = 2 ] || [ "$code" = 3 ]
		[ "$code" != 3 ] || grep -qE 'running again (with --undo-append )?is safe' err
		[ "$code" != 3 ] || begun=$((begun + 1))
		serve qcow2
		if [[ ${mode[*]} == *--undo* ]] && [ -e u.vmdk ]; then
			vs -q "${mode[@]}" --undo-append d.vmdk "$uri"
			[ $((RANDOM % 2)) = 0 ] || {
				vs -q u.vmdk "$uri"
				served_no_more
				qemu-img compare -q -f qcow2 -F raw d.qcow2 base.raw
				continue
			}
		else
			vs -q "${mode[@]}" d.vmdk "$uri"
		fi
		served_no_more
		qemu-img compare -q -f qcow2 -F raw d.qcow2 want.raw
	done
	echo "begun: $begun of $KILLS"
	[ "$begun" -ge $((KILLS / 10)) ]
}

# in_flight FILE: the most requests at once, of nbdkit's log
in_flight() {
	awk '/ (Write|Zero|Read) id=/ { if (++n > most) most = n }
		/ \.\.\.(Write|Zero|Read) id=/ { n-- }
		END { print most }' "$1"
}

@test "what a server is asked for: at least 16 at once, at most 64, zeros that may be holes, a flush" {
	requires qemu-img nbdkit jq
	for n in 3 5; do
		made $n
		cp --sparse=always base.raw disk.raw
		serve memory -t 200 --filter=log --filter=delay file disk.raw logfile=log wdelay=20ms \
			rdelay=5ms
		vs d.vmdk "$uri"
		served_no_more
		same disk.raw want.raw
		most=$(in_flight log)
		echo "in flight: $most"
		[ "$most" -ge 16 ] && [ "$most" -le 64 ]
		grep ' Zero id=' log >zeros
		head -n 3 zeros
		run -1 grep -v ' trim=1 ' zeros
		# the flush begins when all writes have ended, and is the last of all
		[[ $(grep ' id=' log | tail -n 2 | head -n 1) == *' Flush id='* ]]
		[[ $(grep ' id=' log | tail -n 1) == *'...Flush id='*'return=0'* ]]
		rm log
	done
}

@test "errors of a server at random: exit 3, and the same again ends right" {
	requires nbdkit
	made 3
	for mode in '' --no-uring; do
		mode=(${mode:+"$mode"})
		cp --sparse=always base.raw disk.raw
		serve memory --filter=error file disk.raw error-pwrite=EIO error-pwrite-rate=5%
		run -3 --separate-stderr vs "${mode[@]}" d.vmdk "$uri"
		[[ $stderr == *'Input/output error'*'running again is safe'* ]]
		served_no_more
		serve memory file disk.raw
		vs "${mode[@]}" --read-back d.vmdk "$uri"
		served_no_more
		same disk.raw want.raw
		serve memory --filter=error file disk.raw error-pread=EIO error-pread-rate=100%
		run -2 vs "${mode[@]}" --verify d.vmdk "$uri"
		served_no_more
	done
}

@test "nbd://, IPv4 and IPv6, qemu-nbd and nbdkit" {
	requires qemu-img qemu-nbd nbdkit
	made 1
	port=$((20000 + RANDOM % 10000))
	for host in 127.0.0.1 localhost '[::1]'; do
		[ "$host" != '[::1]' ] || [ -e /proc/net/if_inet6 ] || continue
		port=$((port + 1))
		qemu-img convert -O qcow2 base.raw d.qcow2
		background qemu-nbd -f qcow2 -t -x export -b "$(tr -d '[]' <<<"$host")" -p $port d.qcow2
		uri=nbd://$host:$port/export
		until_true nbdinfo --size "$uri"
		run -2 --separate-stderr vs d.vmdk "nbd://$host:$port/other"
		[[ $stderr == *"the server has no export named 'other'"* ]]
		vs --read-back - "$uri" < <(cat d.vmdk)
		served_no_more
		qemu-img compare -f qcow2 -F raw d.qcow2 want.raw
	done
}

@test "a chain onto its base, what was forgotten, and what is not its disk" {
	requires qemu-img qemu-storage-daemon jq
	esx_chain $SECTORS 3
	qemu-img convert -O qcow2 host-0.raw d.qcow2
	serve qcow2
	vs --dry-run --chain host-000003.vmdk "$uri"
	run -2 --separate-stderr vs host-000003.vmdk "$uri"
	[[ $stderr == *"$uri: does not hold host-00000"*'apply it first'* ]]
	[ "$(vs --json --chain --undo=u.vmdk host-000003.vmdk "$uri" | jq .base_checked)" = true ]
	vs --verify host-000003.vmdk "$uri"
	vs --strict u.vmdk "$uri"
	# the log knows its disk
	qemu-io -f raw -c 'write -P 0x77 0 64M' "$uri"
	run -2 --separate-stderr vs u.vmdk "$uri"
	[[ $stderr == *'is the undo log of another disk'* ]]
	served_no_more
	qemu-img convert -O qcow2 host-0.raw d.qcow2
	serve qcow2
	vs host-000001.vmdk "$uri"
	vs host-000002-delta.vmdk host-000003-delta.vmdk "$uri"
	holds qcow2 host-3.raw
	# a server that has opened the file itself shows an image, no disk
	background nbdkit -f -U "$SHORT_DIR/n" file d.qcow2
	until_true test -S "$SHORT_DIR/n"
	run -2 --separate-stderr vs host-000001.vmdk "nbd+unix:///?socket=$SHORT_DIR/n"
	echo "$stderr"
	served_no_more
}

@test "Ctrl-C while a server is written to: exit 3, flushed, and the same again" {
	requires nbdkit jq
	made 15
	for mode in '' --no-uring; do
		mode=(${mode:+"$mode"})
		cp --sparse=always base.raw disk.raw
		rm -f log
		serve memory -t 200 --filter=log --filter=delay file disk.raw logfile=log wdelay=200ms
		env --default-signal=INT "$VMDKSYNC" -q "${mode[@]}" --progress=json d.vmdk "$uri" 2>err 3>&- &
		pid=$!
		echo $pid >>pids
		until_true grep -q '\.\.\.Write id=' log
		kill -INT $pid
		code=0
		wait $pid || code=$?
		cat err
		[ "$code" = 3 ]
		grep 'stopped by a signal after .*running again is safe' err
		[[ $(grep ' id=' log | tail -n 1) == *'...Flush id='*'return=0'* ]]
		served_no_more
		serve memory file disk.raw
		vs "${mode[@]}" d.vmdk "$uri"
		served_no_more
		same disk.raw want.raw
	done
}

@test "a socket whose send buffer stays small: requests leave in parts" {
	requires strace nbdkit
	made 1
	for mode in '' --no-uring; do
		mode=(${mode:+"$mode"})
		cp --sparse=always base.raw disk.raw
		serve memory file disk.raw
		strace -f -qq -o trace -e trace=setsockopt,sendmsg -e inject=setsockopt:error=EPERM \
			"$VMDKSYNC" -q "${mode[@]}" d.vmdk "$uri"
		grep 'SO_SNDBUF.*INJECTED' trace
		grep -q 'sendmsg.* = -1 EAGAIN' trace
		served_no_more
		same disk.raw want.raw
	done
}
