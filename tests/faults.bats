# SPDX-License-Identifier: MIT
# Disks that fail: the run ends with exit 3 and a line that says where, it never hangs or says that all
# is well, and a second run, when the fault is gone, makes the target whole.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	local pid

	cd "$BATS_TEST_TMPDIR" || return
	if [ -f pids ]; then
		while read -r pid; do
			kill -KILL "$pid" 2>/dev/null || :
		done <pids
		rm pids
	fi
	for pid in fuse.*; do
		# what has lost its server is no directory to anyone else
		fusermount3 -u -z "$pid" 2>/dev/null || :
	done
	helpers_teardown
}

# made SECTORS KEY=VALUE...: d.vmdk (COWD), the disk t.orig beneath it, and want.
made() {
	"$MKVMDK" pattern t.orig "$1" 9
	cp t.orig want
	"$MKVMDK" cowd d.vmdk capacity="$1" "${@:2}" apply=want
}

# fails WORDS COMMAND...: exit 3 within two minutes, the first line has the words and an offset in it, the
# last one says how far.
fails() {
	local code=0

	timeout 120 "${@:2}" >out 2>err </dev/null || code=$?
	echo "$code: $(<err)"
	[ "$code" = 3 ] || return 1
	[[ $(head -n 1 err) == "vmdksync: "*" at byte "*"$1"* ]] || return 1
	[[ $(tail -n 1 err) == *'gave up after '*' bytes; '*'running again'* ]]
}

# fuse NAME [FILTER...] -- ARGUMENT...: fuse.NAME/disk is what nbdkit shows of a file.
fuse() {
	local name=fuse.$1 filters=()

	shift
	mkdir -p "$name"
	while [ "$1" != -- ]; do
		filters+=("--filter=$1")
		shift
	done
	shift
	nbdfuse "$name/disk" --command nbdkit -s --exit-with-parent "${filters[@]}" file "$@" 3>&- 7>&- &
	echo $! >>pids
	until_true [ -f "$name/disk" ]
}

requires_fuse() {
	requires nbdkit nbdfuse fusermount3
	[ -w /dev/fuse ] || skip 'no FUSE here'
	made 512 alloc=none
	cp t.orig probe
	mkdir fuse.probe
	nbdfuse fuse.probe/disk --command nbdkit -s --exit-with-parent file probe 3>&- &
	echo $! >>pids
	(until_true [ -f fuse.probe/disk ]) >/dev/null || skip 'FUSE does not work here'
	fusermount3 -u -z fuse.probe
	# by itself it ends only when nobody's namespace has a copy of the mount any more
	kill $! 2>/dev/null || :
	wait $! || :
	rm -r fuse.probe pids
}

# behind_the_limit TEXT: of what is written at once, anything behind 4 MiB may be the first to fail
behind_the_limit() {
	[[ $1 =~ at\ byte\ ([0-9]+):\ File\ too\ large ]]
	[ "${BASH_REMATCH[1]}" -ge 4194304 ]
}

@test "EFBIG: a limit on file sizes in the middle of a sparse target" {
	made 16384 alloc=all
	for mode in --no-uring -q; do
		rm -f t
		truncate -s 8M t
		# shellcheck disable=SC2016 # for the bash inside
		fails ': File too large' bash -c 'ulimit -f 4096; exec "$@"' bash \
			"$VMDKSYNC" $mode d.vmdk t
		behind_the_limit "$(<err)"
		cmp -n 4194304 t want || cmp -n 1048576 t want
		vs -q d.vmdk t
		same t want
		# the same through a pipe
		rm -f t
		truncate -s 8M t
		# shellcheck disable=SC2016
		run -3 bash -c 'ulimit -f 4096; cat d.vmdk | "$@"' bash "$VMDKSYNC" $mode - t
		[[ $output == 'vmdksync: t: writing '*' at byte '*': File too large'*'; running again is safe' ]]
		behind_the_limit "$output"
		cmp -n 4194304 t want || cmp -n 1048576 t want
		vs -q d.vmdk t
		same t want
	done
}

@test "ENOSPC: a full tmpfs, a sparse target" {
	requires root unshare
	made 16384 alloc=all
	export -f fails
	# shellcheck disable=SC2016
	unshare -m bash -euc '
		mkdir full
		mount -t tmpfs -o size=3M tmpfs full
		truncate -s 8M full/t
		for mode in --no-uring -q; do
			fails "No space left on device" "$VMDKSYNC" $mode d.vmdk full/t
		done
		mount -o remount,size=20M full
		"$VMDKSYNC" -q d.vmdk full/t
		cmp full/t want'
}

@test "ENOSPC: a full ext4, a sparse target, and the undo log beside it" {
	requires root unshare mkfs.ext4 loop
	made 16384 alloc=all
	truncate -s 16M fs
	# nothing that the kernel does to it by and by
	mkfs.ext4 -q -m 0 -E lazy_itable_init=0,lazy_journal_init=0 fs
	export -f fails
	# shellcheck disable=SC2016
	unshare -m bash -euc '
		mkdir full
		mount -o loop fs full
		free() { stat -f -c "%a * %S" full; }
		head -c $(($(free) - 3000000)) /dev/zero >full/ballast
		for mode in --no-uring -q; do
			truncate -s 8M full/t
			fails "No space left on device" "$VMDKSYNC" $mode d.vmdk full/t
			truncate -s 0 full/t
		done
		cp t.orig t
		fails "full/undo.vmdk: writing the undo log" "$VMDKSYNC" --undo full/undo.vmdk d.vmdk t ||
			[ ! -e full/undo.vmdk ]
		cmp t t.orig
		rm full/ballast
		truncate -s 8M full/t
		"$VMDKSYNC" -q d.vmdk full/t
		cmp full/t want
		umount full'
}

@test "ENOSPC: a thin device whose pool is full" {
	requires root unshare loop
	made 16384 alloc=all
	export -f loopdev
	# shellcheck disable=SC2016
	unshare -m bash -euc '
		mkdir full
		mount -t tmpfs -o size=3M tmpfs full
		truncate -s 8M full/backing
		dev=$(loopdev full/backing)
		for mode in --no-uring -q; do
			code=0
			timeout 120 "$VMDKSYNC" $mode d.vmdk "$dev" 2>err || code=$?
			cat err
			[ $code = 3 ]
			grep -q "Input/output error\|No space left" err
		done
		mount -o remount,size=20M full
		"$VMDKSYNC" -q d.vmdk "$dev"
		cmp "$dev" want'
}

# late_tables: moves the tables 8 to 15 of d.vmdk behind the grains they name, where a pipe brings them
# last.
late_tables() {
	local i at gd

	gd=$("$MKVMDK" cowd x.vmdk capacity=65536 alloc=all print=gd)
	at=$(($(stat -c %s d.vmdk) / 512))
	truncate -s $((at * 512)) d.vmdk
	for ((i = 8; i < 16; i++)); do
		dd if=d.vmdk of=d.vmdk bs=512 count=32 conv=notrunc status=none seek=$at \
			skip=$(($("$MKVMDK" cowd x.vmdk capacity=65536 alloc=all print=gt:$i) / 512))
		# shellcheck disable=SC2059 # the format is what is printed
		printf "$(printf '\\x%02x' $((at & 255)) $((at >> 8 & 255)) $((at >> 16)) 0)" |
			dd of=d.vmdk bs=1 seek=$((gd + 4 * i)) conv=notrunc status=none
		at=$((at + 32))
	done
	rm x.vmdk
}

@test "ENOSPC: a full spool, before the first write and in the middle" {
	requires root unshare
	made 65536 alloc=all
	late_tables
	# shellcheck disable=SC2016 # for the bash inside
	unshare -m bash -euc '
		full="the spool in full cannot take [0-9]* more bytes after [0-9]*: No space left on device; --spool names another folder"
		mkdir full
		mount -t tmpfs -o size=3M tmpfs full
		for mode in --no-uring -q --undo=u.vmdk; do
			code=0
			cp t.orig t
			timeout 120 "$VMDKSYNC" -q $mode --spool=full - t < <(cat d.vmdk) 2>err || code=$?
			echo "$code: $(<err)"
			[ $code = 3 ]
			head -n 1 err | grep -q "^vmdksync: standard input: $full\$"
			tail -n 1 err | grep -q "gave up after [0-9]* bytes, .*; running again"
			# all that came before it, in order, and nothing else
			cmp -n 8388608 t want
			cmp -i 16777216 t t.orig
			if [ -e u.vmdk ]; then
				"$VMDKSYNC" -q u.vmdk t
				cmp t t.orig
			fi
			"$VMDKSYNC" -q - t < <(cat d.vmdk)
			cmp t want
		done
		# before anything was written
		for mode in --spool-first --memory=1 "--spool-first --undo=v.vmdk"; do
			code=0
			cp t.orig t
			timeout 120 "$VMDKSYNC" -q $mode --spool=full - t < <(cat d.vmdk) 2>err || code=$?
			echo "$code: $(<err)"
			[ $code = 2 ]
			[ "$(wc -l <err)" = 1 ]
			grep -q "^vmdksync: standard input: $full\$" err
			cmp t t.orig
			[ ! -e v.vmdk ]
		done
		# there is room now
		mount -o remount,size=60M full
		"$VMDKSYNC" -q --spool-first --spool=full - t < <(cat d.vmdk)
		cmp t want'
}

@test "EIO from fdatasync is no success" {
	requires strace
	made 4096 alloc=random:500
	for errno in EIO ENOSPC EDQUOT; do
		cp t.orig t
		run -3 --separate-stderr timeout 120 strace -qqf -o /dev/null -e trace=fdatasync \
			-e inject=fdatasync:error=$errno "$VMDKSYNC" d.vmdk t
		echo "$stderr"
		[[ ${stderr_lines[0]} == 'vmdksync: t: fdatasync: '* ]]
		[[ $stderr != *'on stable storage'* ]]
		# and of the undo log: nothing may have been overwritten
		cp t.orig t
		run -2 --separate-stderr timeout 120 strace -qqf -o /dev/null -e trace=fdatasync \
			-e inject=fdatasync:error=$errno:when=2 "$VMDKSYNC" --undo u.vmdk d.vmdk t
		echo "$stderr"
		[[ ${stderr_lines[0]} == 'vmdksync: u.vmdk: fdatasync of the undo log: '* ]]
		same t t.orig
		[ ! -e u.vmdk ]
	done
	vs -q d.vmdk t
	same t want
}

# bats test_tags=quick
@test "errors of single calls, one after the other" {
	requires strace
	made 4096 alloc=random:300 zero=runs:5:130:200
	for call in pread64:error=EIO pwrite64:error=EIO pwrite64:error=ENOSPC fallocate:error=EIO; do
		for when in 1 3 9 33; do
			code=0
			cp t.orig t
			timeout 120 strace -qqf -o /dev/null -P d.vmdk -P t -e "trace=${call%%:*}" -e "inject=$call:when=$when" \
				"$VMDKSYNC" --no-uring d.vmdk t 2>err || code=$?
			echo "--- $call $when: $code: $(<err)"
			case $code in
			0) same t want ;;
			2) same t t.orig ;;
			3) grep -q ' at byte [0-9]*: ' err ;;
			*) false ;;
			esac
			[ $code = 0 ] || vs -q d.vmdk t
			same t want
		done
	done
}

# bats test_tags=quick
@test "EINTR is no error, wherever it comes from" {
	requires strace
	[ "$FLAVOUR" != asan ] || skip 'the sanitizer reads, too'
	made 8192 alloc=random:2000 zero=runs:5:40:100
	gzip -k d.vmdk
	calls=pread64,pwrite64,read,fdatasync,fsync,fallocate,io_uring_enter
	interrupted() {
		cp t.orig t
		rm -f u.vmdk
		run -0 timeout 120 strace -qqf -o trace -e "trace=$calls" \
			-e "inject=$calls:error=EINTR:when=$when" "$VMDKSYNC" -q "$@"
		[ "$(grep -c INJECTED trace)" -gt 5 ]
		same t want
	}
	# every other call; the first that is read is the dynamic linker's
	for when in 6+2 7+3; do
		interrupted --no-uring d.vmdk t
		interrupted --undo u.vmdk d.vmdk t
		vs -q u.vmdk t
		same t t.orig
		interrupted --read-back d.vmdk t
		interrupted --memory=1 --read-back - t <d.vmdk.gz
		interrupted --undo u.vmdk - t < <(cat d.vmdk.gz)
		interrupted --no-uring - t < <(cat d.vmdk)
	done
}

@test "zeros that cannot be had for nothing are written; when that fails, it is told" {
	requires strace loop
	made 8192 alloc=random:300 zero=runs:9:130:300
	refused() {
		run timeout 120 strace -qqf -o trace -P "$1" -e trace=fallocate,ioctl \
			-e inject=fallocate:error="$2" "$VMDKSYNC" "${@:3}" d.vmdk "$1"
		cat trace
		echo "$output"
		grep -q 'fallocate.*INJECTED' trace
	}
	for mode in -v --no-uring --undo=u.vmdk; do
		for errno in EOPNOTSUPP ENOSYS; do
			cp t.orig t
			rm -f u.vmdk
			refused t $errno "$mode"
			[ "$status" = 0 ]
			same t want
		done
		[ ! -e u.vmdk ] || vs -q u.vmdk t
		cp t.orig t
		rm -f u.vmdk
		refused t EIO "$mode"
		[ "$status" = 3 ]
		[[ $output == *'vmdksync: t: zeroing '*' bytes at byte '*': Input/output error'* ]]
		rm -f u.vmdk
		vs -q d.vmdk t
		same t want
		# those of a device go through the ring, where strace cannot refuse them
		truncate -s 4M backing
		dev=$(loopdev backing)
		dd if=t.orig of="$dev" bs=1M conv=notrunc,fsync status=none
		rm -f u.vmdk
		refused "$dev" EOPNOTSUPP --no-uring "$mode" --force=busy
		[ "$status" = 0 ]
		cmp "$dev" want
	done
}

@test "a ring that fails: busy is waited for, broken ends the run" {
	requires strace
	made 16384 alloc=random:9000
	cp t.orig t
	vs -v d.vmdk t 2>log
	grep -q io_uring log || skip 'no io_uring here'
	for errno in EAGAIN EBUSY EINTR; do
		cp t.orig t
		run -0 timeout 120 strace -qqf -o trace -e trace=io_uring_enter \
			-e inject=io_uring_enter:error=$errno:when=2+2 "$VMDKSYNC" -q d.vmdk t
		grep -q INJECTED trace
		same t want
	done
	# what refuses the first call is a filter: the same calls are made in line
	for errno in EPERM EACCES ENOSYS EIO; do
		cp t.orig t
		run -0 timeout 120 strace -qqf -o trace -e trace=io_uring_enter \
			-e inject=io_uring_enter:error=$errno "$VMDKSYNC" -v d.vmdk t
		grep -q INJECTED trace
		[[ $output == *'vmdksync: t: in line, '* ]]
		same t want
	done
	for when in 2 3 5; do
		cp t.orig t
		run timeout 120 strace -qqf -o trace -e trace=io_uring_enter \
			-e inject=io_uring_enter:error=EIO:when=$when+ "$VMDKSYNC" d.vmdk t
		echo "$when: $status: $output"
		[ "$status" = 3 ] || [ "$status" = 2 ]
		[[ ${lines[0]} == 'vmdksync: '*': Input/output error' ]]
		[ "$status" = 3 ] || same t t.orig
		vs -q d.vmdk t
		same t want
	done
}

@test "a target that cannot be opened, sized or synced, and a log that cannot" {
	requires strace
	made 4096 alloc=random:300
	cp t.orig t
	# said SYSCALL:ERRNO WORDS OPTION... FILE...: exit 2, one line, the target as it was
	said() {
		run -2 timeout 120 strace -qqf -o trace -P t -P "$PWD/new" -P new -P u.vmdk -P "$PWD/u.vmdk" -P "$PWD" -P d.vmdk \
			-e "trace=${1%%:*}" -e "inject=${1%%:*}:error=${1#*:}" "$VMDKSYNC" -q "${@:3}"
		echo "$*: $output"
		grep -q INJECTED trace
		output=$(grep -v '^strace: ' <<<"$output")
		[[ $output == "vmdksync: "*"$2"* && $output != *$'\n'* ]]
		same t t.orig
		[ ! -e new ]
		[ ! -e u.vmdk ]
	}
	said openat:EAGAIN:when=3 't: is in use by another program' d.vmdk t
	said openat:ETXTBSY:when=3 't: is in use by another program' d.vmdk t
	said openat:EROFS:when=3 't: is read-only: Read-only file system' d.vmdk t
	said openat:EACCES:when=3 't: cannot be opened for writing: Permission denied' d.vmdk t
	said openat:EIO:when=1 'd.vmdk: Input/output error' d.vmdk t
	said ftruncate:EFBIG 'new: a file of 2097152 bytes cannot be made: File too large' --create d.vmdk new
	said fsync:EIO 'u.vmdk: fsync of its directory: Input/output error' --undo u.vmdk d.vmdk t
	said openat:ENOSPC:when=4 'u.vmdk: cannot be opened as undo log: No space left on device' \
		--undo u.vmdk d.vmdk t
	# a new target is as lasting as its name
	run -3 strace -qqf -o trace -P "$PWD" -e trace=fsync -e inject=fsync:error=EIO \
		"$VMDKSYNC" --create d.vmdk new
	[[ $output == *'vmdksync: new: fsync of its directory: Input/output error'* ]]
}

@test "an input that becomes shorter while it is read" {
	# what is missing is more than is read ahead of the first write
	made 49152 alloc=all
	cp d.vmdk whole.vmdk
	for mode in -v --no-uring; do
		cp t.orig t
		cp whole.vmdk d.vmdk
		held $mode d.vmdk t
		truncate -s 20000000 d.vmdk
		code=0
		let_go || code=$?
		[ "$code" = 3 ]
		grep -q '^vmdksync: d.vmdk: reading .* at byte [0-9]*: the file became shorter while it was read' err
		vs -q whole.vmdk t
		same t want
	done
}

@test "an input on a device whose backing file was cut: read errors" {
	requires loop
	made 16384 alloc=all
	cp d.vmdk whole.vmdk
	truncate -s %512 d.vmdk
	dev=$(loopdev d.vmdk)
	truncate -s 8000000 d.vmdk
	for mode in --no-uring -q; do
		cp t.orig t
		fails 'Input/output error' "$VMDKSYNC" $mode "$dev" t
		vs -q whole.vmdk t
		same t want
	done
}

@test "a target on a device whose backing file was cut" {
	requires loop
	made 16384 alloc=all
	cp t.orig t
	dev=$(loopdev t 4096)
	truncate -s 3000000 t
	# the old bytes are gone: there is nothing that could be saved, so nothing is overwritten there
	fails 'Input/output error' "$VMDKSYNC" --undo u.vmdk d.vmdk "$dev" || [ "$(head -c 9 err)" = vmdksync: ]
	code=0
	timeout 120 "$VMDKSYNC" -q d.vmdk "$dev" || code=$?
	[ "$code" = 0 ] || [ "$code" = 3 ]
	[ "$code" = 3 ] || cmp -n 8388608 "$dev" want
}

@test "nbdkit: every write to the target fails, then none" {
	requires_fuse
	made 16384 alloc=all
	cp t.orig t
	touch trigger
	fuse t error -- t error=EIO error-pwrite-rate=100% error-zero-rate=100% error-trim-rate=100% \
		error-file="$PWD/trigger"
	for mode in --no-uring -q; do
		fails 'Input/output error' "$VMDKSYNC" $mode d.vmdk fuse.t/disk
	done
	same t t.orig
	rm trigger
	vs -q d.vmdk fuse.t/disk
	cmp fuse.t/disk want
}

@test "nbdkit: some reads of the delta and some writes fail" {
	requires_fuse
	made 16384 alloc=all zero=random:40
	cp t.orig t
	touch trigger
	fuse t error -- t error=ENOSPC error-pwrite-rate=40% error-file="$PWD/trigger"
	fuse d error -- d.vmdk error=EIO error-pread-rate=20% error-file="$PWD/trigger"
	for _ in 1 2 3 4; do
		code=0
		timeout 120 "$VMDKSYNC" fuse.d/disk fuse.t/disk 2>err || code=$?
		echo "$code: $(<err)"
		# what succeeded has to be right
		[ "$code" != 0 ] || cmp fuse.t/disk want
		[ "$code" = 0 ] || [ "$code" = 2 ] || [ "$code" = 3 ]
		[ "$code" = 0 ] || grep -q 'Input/output error\|No space left\|fdatasync' err
	done
	rm trigger
	vs -q fuse.d/disk fuse.t/disk
	cmp fuse.t/disk want
}

@test "nbdkit: a slow target; a signal still ends the run in order" {
	requires_fuse
	# 16 writes of 128 KiB
	made 4096 alloc=all
	cp t.orig t
	fuse t delay -- t delay-write=100ms
	for sig in TERM INT HUP; do
		"$VMDKSYNC" d.vmdk fuse.t/disk 2>err &
		pid=$!
		until_true differ fuse.t/disk t.orig
		code=0
		kill -$sig $pid
		wait $pid || code=$?
		echo "$sig: $code: $(<err)"
		[ "$code" = 3 ] || [ "$code" = 0 ]
		[ "$code" = 0 ] || grep -q 'stopped by a signal after [0-9]* of 2097152 bytes; running again' err
		vs -q d.vmdk fuse.t/disk
		cmp fuse.t/disk want
		dd if=t.orig of=t conv=notrunc bs=1M status=none
	done
}

differ() {
	! cmp -s "$1" "$2"
}

@test "nbdkit: a slow device and a fast pipe: no bytes come in over those still being written" {
	requires_fuse
	requires loop
	# the windows are gone through several times
	made 131072 alloc=all
	cp t.orig t
	fuse t delay -- t delay-write=10ms
	dev=$(loopdev fuse.t/disk)
	# shellcheck disable=SC2002 # a pipe is what is tested
	cat d.vmdk | vs -q - "$dev"
	unloop "$dev"
	cmp fuse.t/disk want
}

@test "nbdkit: a delta and a target that are cut short are refused before the first write" {
	requires_fuse
	made 16384 alloc=all
	cp t.orig t
	fuse d truncate -- d.vmdk truncate=3000320
	run -2 timeout 120 "$VMDKSYNC" fuse.d/disk t
	[[ $output == *'outside the file'* ]]
	same t t.orig
	fuse t truncate -- t truncate=3000320
	run -2 timeout 120 "$VMDKSYNC" d.vmdk fuse.t/disk
	[[ $output == *'has 3000320 bytes, the disk needs 8388608'* ]]
	same t t.orig
}

@test "a target that vanishes" {
	requires_fuse
	made 16384 alloc=all
	cp t.orig t
	fuse t -- t
	server=$(tail -n 1 pids)
	held d.vmdk fuse.t/disk
	kill -KILL "$server"
	# it is gone only when it has ended
	wait "$server" || :
	code=0
	let_go || code=$?
	[ "$code" = 3 ]
	grep -q 'Transport endpoint is not connected\|Input/output error\|Software caused connection abort' err
	fusermount3 -u -z fuse.t
	vs -q d.vmdk t
	same t want
}
