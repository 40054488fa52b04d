# SPDX-License-Identifier: MIT
# The command line: options, names, messages, exit status, signals, and what happens when the system
# refuses something in the middle.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
	# who stands still does not hear that the terminal is gone
	[ -z "${goes-}" ] || kill -KILL "$pid" || :
	[ -z "${TMUX_TMPDIR-}" ] || tmux -L here kill-server 2>/dev/null || :
	[ ! -d "$BATS_TEST_TMPDIR/mnt" ] || umount --lazy "$BATS_TEST_TMPDIR/mnt" 2>/dev/null || :
	helpers_teardown
}

# make_case [SECTORS [KEY=VALUE...]]: delta.vmdk, the disk base.raw, what it shall become want.raw,
# and the target t.raw.
make_case() {
	local size=${1:-20480}

	shift || :
	"$MKVMDK" pattern base.raw "$size" 7
	cp base.raw want.raw
	"$MKVMDK" hosted delta.vmdk capacity="$size" grain=128 alloc=every:3 zero=1,4,7-8 \
		version=2 flags=5 seed=3 layout=random "$@" apply=want.raw >/dev/null
	cp base.raw t.raw
}

# A big delta whose writing takes a while, onto a sparse target of zeros.
make_big() {
	"$MKVMDK" hosted delta.vmdk capacity=256M grain=128 alloc=all seed=5 layout=random \
		>/dev/null
	rm -f want.raw
	truncate -s 256M want.raw t.raw
	"$MKVMDK" hosted delta.vmdk capacity=256M grain=128 alloc=all seed=5 layout=random \
		apply=want.raw >/dev/null
}

# refused WORDS: the run before was a usage error, with a hint.
refused() {
	[ "$status" = 2 ]
	[ -z "$output" ]
	[[ $stderr == *"$1"* ]]
	[[ $stderr == *"Try 'vmdksync --help'."* ]]
}

# gave_up: what each failure after the first write must say.
gave_up() {
	[ "$status" = 3 ]
	[[ $stderr == *'running again is safe'* ]]
	[[ $stderr == *t.raw* ]]
}

repaired() {
	vs -q delta.vmdk "${1:-t.raw}"
	same want.raw "${1:-t.raw}"
}

@test "unit tests" {
	run "$UNIT"
	echo "$output"
	[ "$status" = 0 ]
}

@test "--help fits a screen" {
	for o in --help -h; do
		run --separate-stderr vs "$o"
		[ "$status" = 0 ]
		[ -z "$stderr" ]
		[[ $output == 'Usage: vmdksync'* ]]
		[ "$(wc -l <<<"$output")" -le 45 ]
		[ "$(wc -L <<<"$output")" -le 80 ]
		[[ $output == *'man vmdksync'* ]]
		[ "$(grep -c '^  \(vmdksync\|ssh\) ' <<<"$output")" = 4 ]
	done
	# it wins over what is missing, and what comes after does not matter
	run --separate-stderr vs --help a b c d --nonsense
	[ "$status" = 0 ]
}

@test "--help names each option there is, and no other is taken" {
	run -0 vs --help
	# rows with a space behind the name take no value; each is known to the program that prints it
	while read -r o; do
		case $o in
		*'[='*) words=("${o%%[*}") ;;
		*=*) words=("${o%%=*}=") ;;
		*) words=("$o=x") ;;
		esac
		run --separate-stderr vs "${words[0]}"
		[ "$status" = 2 ]
		[[ $stderr != *unrecognized* ]]
		[[ $o == *=* || $stderr == *': takes no value'* ]]
	done < <(sed -n 's/^\( *-.*[^ ]\)  .*/\1/p' <<<"$output" | grep -oE -- '--[^ ,]+')
	run --separate-stderr vs --nonsense a b
	refused '--nonsense: unrecognized or ambiguous option'
	# a part of a name that stands for two
	run --separate-stderr vs --undo- --spool=. a b
	refused 'undo'
	run --separate-stderr vs --ver a b
	refused '--ver: unrecognized or ambiguous option'
	run --separate-stderr vs --memory=0 a b
	refused '--memory: must be greater than 0'
	run --separate-stderr vs --expect-size=0 a b
	refused '--expect-size: must be greater than 0'
}

@test "--version" {
	for o in --version -V; do
		run --separate-stderr vs "$o"
		[ "$status" = 0 ]
		[ -z "$stderr" ]
		[[ ${lines[0]} =~ ^vmdksync\ [0-9]+\.[0-9]+ ]]
		[[ ${lines[1]} =~ ^'liburing '[^\ ]+', zlib '[0-9.]+', Linux '[^\ ]+' ('(io_uring|in line)')'$ ]]
	done
}

@test "help that cannot be written is an error" {
	for o in --help --version; do
		status=0
		vs "$o" >/dev/full || status=$?
		[ "$status" = 2 ]
	done
}

@test "usage errors" {
	run --separate-stderr vs
	refused 'needed'
	run --separate-stderr vs delta.vmdk
	refused 'needed'
	run --separate-stderr vs --chain --full a b
	refused 'exclude'
	run --separate-stderr vs --create --base c a b
	refused 'base'
	run --separate-stderr vs --info
	refused 'IMAGE is needed'
	run --separate-stderr vs --map --info a
	refused 'exclude'
	run --separate-stderr vs --map=text a
	refused '--map=text: only list is known'
	run --separate-stderr vs --info --create a
	refused 'write nothing'
	run --separate-stderr vs --search= a b
	refused 'search'
	run --separate-stderr vs --offset 1s a b c
	refused 'one extent'
	run --separate-stderr vs --offset 100 a b
	refused '--offset: 100 is not a whole number of sectors'
	run --separate-stderr vs --offset one a b
	refused 'is not a number of bytes'
	run --separate-stderr vs --offset -1 a b
	refused 'is not a number of bytes'
	run --separate-stderr vs --offset 1Mi a b
	refused 'is not a number of bytes in range'
	run --separate-stderr vs --nonsense a b
	refused 'nonsense'
	run --separate-stderr vs -Z a b
	refused 'Z'
	run --separate-stderr vs --force=everything a b
	refused 'everything'
	run --separate-stderr vs --force= a b
	refused 'busy'
	run --separate-stderr vs a b --force
	refused 'force'
	run --separate-stderr vs --force=gd --force=rgd a b
	refused 'exclude'
	run --separate-stderr vs --dry-run=yes a b
	refused 'dry-run'
	run --separate-stderr vs --force=$'x\e[31m' a b
	refused 'x\x1b[31m'
	[[ $stderr != *$'\e'* ]]
}

@test "options before, between and behind the names; --" {
	make_case 2048
	vs -q delta.vmdk t.raw
	same want.raw t.raw
	cp base.raw t.raw
	vs delta.vmdk -q t.raw
	same want.raw t.raw
	cp base.raw t.raw
	vs delta.vmdk t.raw -q
	same want.raw t.raw
	cp base.raw t.raw
	vs -qv -- delta.vmdk t.raw
	same want.raw t.raw
	run --separate-stderr vs -- delta.vmdk -q
	[ "$status" = 2 ]
	[[ $stderr == *'-q: does not exist'* ]]
}

@test "odd names: spaces, dashes, newline, escape" {
	make_case 2048
	cp delta.vmdk 'my delta.vmdk'
	cp t.raw 'my disk.raw'
	vs -q 'my delta.vmdk' 'my disk.raw'
	same want.raw 'my disk.raw'

	cp delta.vmdk ./-d
	cp base.raw ./--create
	vs -q ./-d ./--create
	same want.raw ./--create
	cp base.raw ./--create
	vs -q -- -d --create
	same want.raw ./--create

	odd=$'a\nb\e[31mc'
	cp delta.vmdk "$odd"
	cp base.raw "$odd.raw"
	run --separate-stderr vs -v "$odd" "$odd.raw"
	[ "$status" = 0 ]
	same want.raw "$odd.raw"
	[[ $stderr == *'a\x0ab\x1b[31mc:'* ]]
	[[ $stderr == *'a\x0ab\x1b[31mc.raw:'* ]]
	[[ $stderr != *$'\e'* ]]
	run --separate-stderr vs "$odd.none" t.raw
	[ "$status" = 2 ]
	[[ $stderr == *'a\x0ab\x1b[31mc.none'* ]]
	[[ $stderr != *$'\e'* ]]
}

@test "--dry-run writes nothing and says what it would" {
	make_case 2048
	touch -d '2001-02-03' t.raw
	run --separate-stderr vs --dry-run delta.vmdk t.raw
	[ "$status" = 0 ]
	[ -z "$output" ]
	same base.raw t.raw
	[ "$(date -r t.raw +%F)" = 2001-02-03 ]
	[[ $stderr =~ [0-9]+' bytes' ]]
	[[ $stderr =~ in\ [0-9]+\ runs ]]
	[[ $stderr == *'nothing was written'* ]]
	[[ $stderr != *'read-only'* ]]
	# a target that may only be read will do, and that is said
	chmod 400 t.raw
	run -0 --separate-stderr vs --dry-run delta.vmdk t.raw
	[[ $stderr == *'t.raw: dry run, nothing was written; it is read-only, so it could not be'* ]]
}

@test "--dry-run finds damage" {
	make_case 2048
	"$MKVMDK" hosted bad.vmdk capacity=2048 grain=128 alloc=all gte=3:0x7fffffff >/dev/null
	run -2 vs --dry-run bad.vmdk t.raw
	run -2 vs bad.vmdk t.raw
	same base.raw t.raw
}

@test "a summary by default, nothing with --quiet, more with -v" {
	make_case 2048
	run --separate-stderr vs delta.vmdk t.raw
	[ "$status" = 0 ]
	[ -z "$output" ]
	[ "$(wc -l <<<"$stderr")" = 1 ]
	[[ $stderr == 'vmdksync: t.raw: '*written*zeroed*runs*'stable storage' ]]
	[[ $stderr != *%* ]]
	[[ $stderr != *$'\r'* ]]

	for o in -q --quiet; do
		run --separate-stderr vs "$o" delta.vmdk t.raw
		[ "$status" = 0 ]
		[ -z "$output$stderr" ]
	done
	# but errors are told
	run --separate-stderr vs -q delta.vmdk none.raw
	[ "$status" = 2 ]
	[[ $stderr == *none.raw* ]]

	run --separate-stderr vs -v delta.vmdk t.raw
	[ "$status" = 0 ]
	[[ $stderr == *hosted* ]]
	[[ $stderr == *'2048 sectors'* ]]
	[[ $stderr =~ in\ [0-9]+\ runs ]]
	[[ $stderr =~ t.raw:\ (io_uring|in\ line), ]]
	[[ $stderr =~ [0-9]+\ writes? ]]
	run --separate-stderr vs -v --no-uring delta.vmdk t.raw
	[[ $stderr == *'in line'* ]]
}

# bats test_tags=slow
@test "--progress without a terminal" {
	requires strace
	make_case 20480
	run --separate-stderr strace -f -qq -o /dev/null -e trace=pwrite64 \
		-e inject=pwrite64:delay_enter=20000 "$VMDKSYNC" --no-uring -p delta.vmdk t.raw
	[ "$status" = 0 ]
	same want.raw t.raw
	[[ $stderr =~ [0-9]+% ]]
	[[ $stderr == *$'\r'* ]]
	[[ ${stderr##*$'\r'} == *'stable storage' ]]
	run --separate-stderr strace -f -qq -o /dev/null -e trace=pwrite64 \
		-e inject=pwrite64:delay_enter=20000 "$VMDKSYNC" --no-uring delta.vmdk t.raw
	[ "$status" = 0 ]
	[[ $stderr != *[0-9]%* ]]
}

@test "a bar under a terminal" {
	requires strace script
	make_case 20480
	cat >go <<-'END'
	exec strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=20000 \
		"$VMDKSYNC" --no-uring "$@" delta.vmdk t.raw
	END
	run -0 script -qec 'sh go' /dev/null
	[[ $output =~ [0-9]+% ]]
	[[ $output == *'stable storage'* ]]
	same want.raw t.raw
	run -0 script -qec 'sh go -q' /dev/null
	[[ $output != *%* ]]
}

@test "SIGTERM, SIGINT, SIGHUP in the middle" {
	requires strace
	make_case 20480
	stopped=0
	for sig in TERM INT HUP; do
		cp base.raw t.raw
		status=0
		# the signal arrives with the tenth write
		strace -f -qq -o /dev/null -e trace=pwrite64 \
			-e inject=pwrite64:signal="SIG$sig":when=10 \
			"$VMDKSYNC" --no-uring delta.vmdk t.raw 2>err || status=$?
		stderr=$(<err)
		gave_up
		[[ $stderr == *'stopped by a signal'* ]]
		[[ $stderr != *'stable storage'* ]]
		repaired
		stopped=$((stopped + 1))
	done
	[ "$stopped" = 3 ]
}

# bats test_tags=slow
@test "SIGTERM at any moment, then again" {
	make_big
	for ms in 020 060 100 150; do
		rm t.raw
		truncate -s 256M t.raw
		status=0
		timeout --preserve-status -s TERM "0.$ms" "$VMDKSYNC" delta.vmdk t.raw 2>err ||
			status=$?
		stderr=$(<err)
		case $status in
		0) ;;
		3) gave_up ;;
		# before the first write, or before the handler was there
		2 | 143) run -1 grep -q 'stable storage' err ;;
		*) return 1 ;;
		esac
	done
	repaired
}

@test "--version where the kernel allows no ring" {
	requires strace
	run -0 strace -f -qq -o /dev/null -e trace=io_uring_setup -e inject=io_uring_setup:error=EPERM \
		"$VMDKSYNC" --version
	[[ ${lines[1]} == *' (in line)' ]]
}

# limited ARG...: no file of ours may grow beyond, or be written behind, 64 MiB (ulimit: KiB).
limited() {
	(
		ulimit -f 65536
		vs "$@"
	)
}

# bats test_tags=slow
@test "a file size limit: exit 3, where, and repaired" {
	make_big
	for o in --no-uring -v; do
		rm t.raw
		truncate -s 256M t.raw
		run --separate-stderr limited "$o" delta.vmdk t.raw
		gave_up
		[[ $stderr =~ at\ byte\ [0-9]+:\ File\ too\ large ]]
		[ "$(stat -c %s t.raw)" = 268435456 ]
	done
	repaired
}

# bats test_tags=slow
@test "a full file system: exit 3, and repaired when there is room" {
	requires root
	make_big
	mkdir mnt
	mount -t tmpfs -o size=64M none mnt || skip 'cannot mount here'
	truncate -s 256M mnt/t.raw
	run --separate-stderr vs delta.vmdk mnt/t.raw
	gave_up
	[[ $stderr =~ at\ byte\ [0-9]+:\ No\ space ]]
	mount -o remount,size=400M mnt
	repaired mnt/t.raw
}

# injected FILE WHAT [OPTION...]: a run in which a system call fails, on FILE (-: anywhere).
injected() {
	local what=$2 path=()

	[ "$1" = - ] || path=(-P "$PWD/$1")
	shift 2
	run --separate-stderr strace -f -qq -o /dev/null "${path[@]}" \
		-e trace="${what%%:*}" -e inject="$what" "$VMDKSYNC" "$@" delta.vmdk t.raw
}

@test "fdatasync fails: exit 3" {
	requires strace
	make_case 2048
	injected - fdatasync:error=EIO
	gave_up
	[[ $stderr == *'fdatasync: Input/output error'* ]]
	[[ $stderr != *'stable storage'* ]]
	repaired
}

@test "a read fails: of the metadata, exit 2; of data, exit 3" {
	requires strace
	make_case 2048
	injected delta.vmdk pread64:error=EIO --no-uring
	[ "$status" = 2 ]
	[[ $stderr == *delta.vmdk*'Input/output error'* ]]
	same base.raw t.raw

	strace -f -o trace -P "$PWD/delta.vmdk" -e trace=pread64 \
		"$VMDKSYNC" -q --no-uring delta.vmdk t.raw
	same want.raw t.raw
	cp base.raw t.raw
	n=$(grep -c pread64 trace)
	injected delta.vmdk "pread64:error=EIO:when=$n" --no-uring
	# the first write may have been under way, or not
	[ "$status" = 3 ] || [ "$status" = 2 ]
	[[ $stderr == *delta.vmdk*'Input/output error'* ]]
	[ "$status" = 2 ] || gave_up
	repaired
}

@test "a write fails: exit 3" {
	requires strace
	make_case 20480
	injected t.raw pwrite64:error=EIO:when=5 --no-uring
	gave_up
	[[ $stderr =~ at\ byte\ [0-9]+:\ Input/output\ error ]]
	repaired
}

@test "interrupted transfers are finished" {
	requires strace
	make_case 2048
	injected t.raw pwrite64:error=EINTR:when=1+3 --no-uring
	[ "$status" = 0 ]
	same want.raw t.raw
	cp base.raw t.raw
	for f in delta.vmdk t.raw; do
		cp base.raw t.raw
		injected "$f" pread64:error=EINTR:when=2+2 --no-uring
		[ "$status" = 0 ]
		same want.raw t.raw
	done
	cp base.raw t.raw
	injected t.raw pwrite64:error=EAGAIN:when=1+2 --no-uring
	[ "$status" = 0 ]
	same want.raw t.raw
}

@test "no io_uring: falls back" {
	requires strace
	make_case 2048
	for errno in ENOSYS EPERM ENOMEM EINVAL; do
		cp base.raw t.raw
		injected - "io_uring_setup:error=$errno" -v
		[ "$status" = 0 ]
		[[ $stderr == *'t.raw: in line'* ]]
		same want.raw t.raw
	done
}

# slowed COMMAND...: every write to t.raw takes 20 ms
slowed() {
	strace -f -qq -o /dev/null -P "$PWD/t.raw" -e trace=pwrite64 \
		-e inject=pwrite64:delay_enter=20000 "$@"
}

@test "--progress=json: an object a line, on stderr or a descriptor; the last one tells all" {
	requires strace jq
	make_case 20480
	run --separate-stderr slowed "$VMDKSYNC" --no-uring -q --progress=json delta.vmdk t.raw
	[ "$status" = 0 ]
	same want.raw t.raw
	jq -es '(.[0] | .phase == "scan" and .bytes == 0 and .total == null) and (.[1:] | length > 2 and
		all(.bytes <= .total and .rate >= 0 and .seconds >= 0 and has("left") and .schema == 1)
		and .[-1].bytes == .[-1].total and .[-1].left == 0 and ([.[].bytes] | . == sort) and
		([.[].phase] | unique) == ["sync", "write"] and .[-1].phase == "sync" and .[-1].seconds > 0 and
		([.[].end] | unique) == [null, true] and (.[-1] | .end and .exit == 0 and .error == null))' <<<"$stderr"
	cp base.raw t.raw
	run --separate-stderr slowed "$VMDKSYNC" --no-uring --progress=json:5 delta.vmdk t.raw 5>fd5
	[ "$status" = 0 ]
	[[ $stderr != *'{'* ]]
	jq -es 'length > 2' fd5
	# the size of a stream is not known
	cp base.raw t.raw
	"$VMDKSYNC" -q --progress=json:5 - t.raw 5>fd5 < <(cat delta.vmdk)
	jq -es '.[-1] | .total == null and .left == null and .bytes > 0' fd5
	# the last object tells how it ended: differences, a failure, a signal, options that do not fit
	requires jsonschema
	ends() {
		status=0
		"${@:3}" 5>end >/dev/null 2>&1 || status=$?
		[ "$status" = "$1" ]
		jq -es --argjson exit "$1" --argjson error "$2" '(.[-1] | .end and .exit == $exit and .error == $error) and
			([.[].end] | map(select(.)) | length) == 1' end
		cat end >>all
	}
	ends 0 null "$VMDKSYNC" --progress=json:5 --read-back delta.vmdk t.raw
	jq -es '([.[].phase] | unique) == ["scan", "sync", "verify", "write"] and .[-1].phase == "verify"' end
	ends 0 null "$VMDKSYNC" --progress=json:5 --info --json delta.vmdk
	ends 1 null "$VMDKSYNC" --progress=json:5 --verify delta.vmdk base.raw
	ends 2 '"not_found"' "$VMDKSYNC" --progress=json:5 --json delta.vmdk none
	ends 2 '"usage"' "$VMDKSYNC" --progress=json:5 --nonsense delta.vmdk t.raw
	ends 3 '"stopped"' strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=TERM:when=3 \
		"$VMDKSYNC" --no-uring --progress=json:5 delta.vmdk t.raw
	cat fd5 >>all
	"$TOP/tests/schema/check.py" -l all
	for bad in xml json:x json:77 json: json:0 json:5x; do
		run --separate-stderr vs --progress=$bad delta.vmdk t.raw
		refused --progress
	done
}

@test "warnings are counted in the last line, listed in --json also with -q, refused by --strict" {
	"$MKVMDK" pattern base.raw 20480 7
	cp base.raw want.raw
	"$MKVMDK" cowd delta.vmdk capacity=20480 alloc=0,7,9 zero=5 unclean=1 apply=want.raw
	cp base.raw t.raw
	run -0 --separate-stderr vs delta.vmdk t.raw
	[ "$(grep -c '^vmdksync: warning: ' <<<"$stderr")" = 2 ]
	[[ $stderr == *'; on stable storage; 2 warnings' ]]
	run -0 --separate-stderr vs --verify delta.vmdk t.raw
	[[ $stderr == *' s; 2 warnings' ]]
	run -0 --separate-stderr vs --dry-run delta.vmdk t.raw
	[[ $stderr == *': dry run, nothing was written; 2 warnings'* ]]
	same t.raw want.raw
	for job in '' --dry-run --verify --read-back; do
		# shellcheck disable=SC2086 # words
		run -0 --separate-stderr vs -q --json $job delta.vmdk t.raw
		[[ $stderr != *warning:* ]]
		jq -e '(.warnings | length) == 2 and (.warnings[0] | test("unclean-shutdown"))' <<<"$output"
	done
	cp base.raw t.raw
	run -2 --separate-stderr vs --strict delta.vmdk t.raw
	[[ $stderr == *'(--strict)' ]]
	same t.raw base.raw
}

@test "SIGUSR1 asks for one line of progress" {
	requires strace
	make_case 20480
	for o in -q -v; do
		cp base.raw t.raw
		run --separate-stderr strace -f -qq -o /dev/null -P "$PWD/t.raw" -e trace=pwrite64 \
			-e inject=pwrite64:signal=SIGUSR1:when=4+100 \
			"$VMDKSYNC" --no-uring $o delta.vmdk t.raw
		[ "$status" = 0 ]
		same want.raw t.raw
		[[ $stderr =~ vmdksync\ +[0-9]+%\ \ [0-9.]+\ [KM]iB\ /\ [0-9.]+\ [KM]iB\ \ .*/s\ .*left ]]
	done
}

# bats test_tags=slow
@test "the line of progress in a real terminal of 80, 40 and 20 columns, also when that is resized" {
	requires unsanitized strace tmux
	make_case 122880
	short_dir
	export TMUX_TMPDIR=$SHORT_DIR
	declare -A form=(
		[80]='^vmdksync +[0-9]+%  [0-9.]+ .iB / [0-9.]+ MiB  [0-9.]+ .iB/s  [0-9:-]+ left$'
		[40]='^ *[0-9]+%  [0-9.]+ .iB  [0-9.]+ .iB/s  [0-9:-]+ left$'
		[20]='^ *[0-9]+%  [0-9:-]+ left$'
	)
	# The program stops itself at every tenth write, and is let go on until it has drawn a line; it
	# stays so for longer than from one line to the next.
	tmux -L here -f /dev/null new-session -d -x 80 -y 10 "seq -f 'line %g' 9; exec strace -f -qq -o trace \
		-P '$PWD/t.raw' -e trace=pwrite64 -e inject=pwrite64:signal=STOP:when=10+10 \
		'$VMDKSYNC' --no-uring delta.vmdk t.raw"
	until_true stopped 0
	pid=$(sed -n '$s/ .*//p' trace)
	goes=0
	for columns in 80 40 20 80 20 40; do
		tmux -L here resize-window -x $columns
		until shows "${form[$columns]}"; do
			goes=$((goes + 1))
			kill -CONT "$pid"
			until_true stopped $goes || break
			sleep 0.3
		done
		tmux -L here capture-pane -p | sed "s/^/$columns: /"
		shows "${form[$columns]}"
	done
	kill -TERM "$pid"
	until_true gone
	goes=
}

# shows FORM: a line like this, behind what was there before, and nothing else
shows() {
	local picture

	picture=$(tmux -L here capture-pane -p | grep .)
	[ "$(sed '$d' <<<"$picture" | grep -vc '^line [1-9]$')" = 0 ] && [[ ${picture##*$'\n'} =~ $1 ]]
}

gone() {
	! kill -CONT "$pid" 2>/dev/null
}

# stopped N: it stands still, after it was told N times to go on
stopped() {
	[ "$(grep -sc -- '--- SIGCONT' trace)" = "$1" ] && tail -n 1 trace | grep -q 'stopped by SIGSTOP'
}
