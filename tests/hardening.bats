# SPDX-License-Identifier: MIT
# How the program is built, and what it leaves open or untidy.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

@test "position independent, full RELRO, no executable stack, stack protector, fortified" {
	requires plain readelf
	elf() {
		readelf -W "$@" "$VMDKSYNC"
	}
	elf -h | grep -q 'Type: *DYN'
	elf -d | grep -q 'FLAGS_1.*PIE'
	elf -d | grep -q 'BIND_NOW'
	elf -l | grep -q 'GNU_RELRO'
	elf -l | grep 'GNU_STACK' | grep -q 'RW '
	elf --dyn-syms | grep -q '__stack_chk_fail'
	elf --dyn-syms | grep -q '_chk@'
}

memcheck() {
	local code=0

	# valgrind 3.24 takes descriptors that bats left open for leaks of the program
	(
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -le 2 ] || eval "exec $fd>&-"
		done
		exec valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=all \
			--show-leak-kinds=all --track-fds=yes --log-file=valgrind.log "$VMDKSYNC" "$@"
	) || code=$?
	cat valgrind.log
	# 0, 1 and 2 remain
	[ "$(grep -c 'Open file descriptor' valgrind.log)" = "$(grep -c 'inherited from parent' valgrind.log)" ] ||
		return 98
	return $code
}

# bats test_tags=slow
@test "valgrind: no errors, no leaks, no open descriptors on the main paths" {
	requires plain valgrind
	"$MKVMDK" pattern t 5000 3
	cp t t.orig
	cp t want
	"$MKVMDK" hosted d.vmdk capacity=5000 grain=8 alloc=random:60 zero=random:20 apply=want \
		descriptor=d-desc.vmdk
	# valgrind knows io_uring's system calls, but not what the kernel writes through it
	memcheck -q --no-uring --undo undo.vmdk d.vmdk t
	same t want
	memcheck -q --no-uring undo.vmdk t
	same t t.orig
	"$MKVMDK" stream s.vmdk capacity=5000 grain=8 alloc=random:60 layout=random
	memcheck -q --no-uring s.vmdk t
	"$MKVMDK" cowd c.vmdk capacity=5000 alloc=random:60
	memcheck -q --no-uring --dry-run c.vmdk t
	memcheck -q --no-uring --read-back c.vmdk t
	memcheck -q --no-uring --verify c.vmdk t
	"$MKVMDK" sesparse e.vmdk capacity=5000 alloc=random:60
	memcheck -q --no-uring c.vmdk e.vmdk t
	# and where it ends early
	"$MKVMDK" cowd bad.vmdk capacity=5000 alloc=random:60 gde=0:1
	code=0
	memcheck -q --no-uring bad.vmdk t || code=$?
	[ "$code" = 2 ]
	code=0
	memcheck -q --no-uring --undo c.vmdk c.vmdk t || code=$?
	[ "$code" = 2 ]
}

@test "no descriptor is left open" {
	requires strace
	"$MKVMDK" pattern t 5000 3
	"$MKVMDK" hosted d.vmdk capacity=5000 grain=8 alloc=random:60 zero=random:20
	strace -f -o trace -e trace=openat,open,close,io_uring_setup,dup,dup2,memfd_create,exit_group \
		"$VMDKSYNC" -q --undo undo.vmdk d.vmdk t
	opened=$(grep -cE '(openat2?|open|io_uring_setup|dup|dup2|memfd_create)\(.* = [0-9]+$' trace)
	closed=$(grep -cE 'close\([0-9]+\) += 0' trace)
	echo "$opened opened, $closed closed"
	[ "$opened" -gt 0 ]
	[ "$opened" = "$closed" ]
}

@test "nothing is opened for writing but the target and the undo log" {
	requires strace
	[ "$FLAVOUR" != coverage ] || skip 'counters are written'
	"$MKVMDK" pattern t 5000 3
	"$MKVMDK" hosted d.vmdk capacity=5000 grain=8 alloc=random:60 zero=random:20
	strace -f -o trace -e trace=openat,open,execve "$VMDKSYNC" -q --undo undo.vmdk d.vmdk t
	grep -E 'O_RDWR|O_WRONLY|O_CREAT' trace >writes
	cat writes
	[ "$(grep -c '"t"' writes)" = 1 ]
	[ "$(grep -c '"undo.vmdk"' writes)" = 1 ]
	# the target once more, by its own descriptor, for direct writes
	run -1 grep -vE '"t"|"undo.vmdk"|"/proc/self/fd/[0-9]+"' writes
	[ "$(grep -c execve trace)" = 1 ]
}

@test "two runs on one target: the second refuses, the first is not disturbed" {
	requires strace
	"$MKVMDK" pattern t 20000 3
	cp t want
	"$MKVMDK" cowd d.vmdk capacity=20000 alloc=all apply=want
	# it stands still when all is written
	strace -f -o trace -e trace=fdatasync -e inject=fdatasync:signal=STOP:when=1 \
		"$VMDKSYNC" -q d.vmdk t 3>&- &
	first=$!
	echo $first >pids
	until_true grep -q 'stopped by SIGSTOP' trace
	run -2 --separate-stderr vs d.vmdk t
	[[ $stderr == *'is locked by process '*', vmdksync: wait for it, or stop it' ]]
	pkill -CONT -P $first
	wait $first
	same t want
}

# deaf COMMAND...: its standard error is a pipe that nobody reads any more; so is descriptor 5
deaf() {
	rm -f fifo
	mkfifo fifo
	exec 4<>fifo
	exec 5>fifo
	exec 4>&-
	env --default-signal=PIPE "$@" 2>&5
}

@test "nobody listens: what writes ends in order, a list ends in silence" {
	"$MKVMDK" pattern t.orig 20480 3
	cp t.orig want
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=every:2 apply=want
	cp t.orig t
	status=0
	deaf "$VMDKSYNC" -v --progress d.vmdk t || status=$?
	[ "$status" = 2 ]
	same t t.orig
	status=0
	deaf "$VMDKSYNC" --json d.vmdk t >&5 || status=$?
	[ "$status" = 3 ]
	vs -q d.vmdk t
	same t want
	# more than a pipe holds
	[ "$(vs --map d.vmdk | wc -c)" -gt 200000 ]
	for o in --map '--map --json'; do
		# shellcheck disable=SC2086,SC2016 # words; for the bash inside
		env --default-signal=PIPE bash -c '"$0" "$@" d.vmdk | head -c 9 >/dev/null; exit ${PIPESTATUS[0]}' \
			"$VMDKSYNC" $o 2>err || status=$?
		[ "$status" = 141 ]
		[ ! -s err ]
	done
}

@test "signals end the run in order: drained, synced, a line that says how far" {
	requires strace
	"$MKVMDK" pattern t.orig 61440 3
	cp t.orig want
	"$MKVMDK" cowd d.vmdk capacity=61440 alloc=all apply=want
	for sig in INT TERM PIPE HUP; do
		cp t.orig t
		# in line, each MiB is one write; the signal comes with the fifth
		run -3 --separate-stderr strace -f -o trace -e trace=pwrite64,fdatasync,io_uring_enter \
			-e inject=pwrite64:signal=$sig:when=5 "$VMDKSYNC" --no-uring d.vmdk t
		echo "$sig: $stderr"
		[[ $stderr =~ 'stopped by a signal after '([0-9]+)' of 31457280 bytes; running again is safe' ]]
		[ "${BASH_REMATCH[1]}" -ge 4194304 ]
		[ "${BASH_REMATCH[1]}" -lt 31457280 ]
		cmp -n "${BASH_REMATCH[1]}" t want
		# the last call is the sync, behind all writes
		tail -n 3 trace | grep -q 'fdatasync(.*) *= 0'
		vs -q d.vmdk t
		same t want
	done
	# before anything was written: exit 2
	cp t.orig t
	run -2 strace -qqf -o /dev/null -P d.vmdk -e trace=pread64 -e inject=pread64:signal=TERM:when=2 \
		"$VMDKSYNC" d.vmdk t
	[[ $output == *'stopped by a signal before anything was written'* ]]
	same t t.orig
}
