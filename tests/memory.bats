# SPDX-License-Identifier: MIT
# Each request for memory is refused once, and from each on all of them: the run ends with a message and
# the right exit status, or does without; it never crashes, and what it began a second run finishes.

load helpers

NOMEM_SO=${NOMEM_SO:-$TOP/build/plain/nomem.so}

setup() {
	case $FLAVOUR in
	asan | ubsan) skip "not with $FLAVOUR" ;;
	esac
	cd "$BATS_TEST_TMPDIR" || return
	input=/dev/null
}

# without N COMMAND...: the same with memory refused; fails where it is killed.
without() {
	code=0
	LD_PRELOAD=$NOMEM_SO NOMEM=$1 timeout 120 "${@:2}" >out 2>err < <(cat "$input") || code=$?
}

# requests COMMAND...: how many there are when all goes well.
requests() {
	LD_PRELOAD=$NOMEM_SO NOMEM=0 "$@" 2>&1 >/dev/null < <(cat "$input") | sed -n 's/^nomem: //p'
}

# tried VS-ARGUMENT...: an apply to t, which was t.orig and becomes want.
tried() {
	local n total

	cp t.orig t
	rm -f undo.vmdk
	total=$(requests "$VMDKSYNC" "$@")
	echo "--- $*: $total requests"
	[ "$total" -gt 10 ]
	same t want
	for ((n = 1; n <= total; n++)); do
		for all in '' +; do
			cp t.orig t
			rm -f undo.vmdk
			without "$n$all" "$VMDKSYNC" "$@"
			case $code in
			0) same t want ;;
			2) same t t.orig && [ ! -e undo.vmdk ] ;;
			3) grep -q 'running again' err ;;
			*) false ;;
			esac || {
				echo "$n$all: exit $code: $(<err)"
				return 1
			}
			[ "$code" = 0 ] || grep -q '^vmdksync: .*memory\|no thread can be made' err || {
				echo "$n$all: exit $code: $(<err)"
				return 1
			}
			if [ "$code" = 3 ]; then
				again=()
				[ ! -e undo.vmdk ] || again=(--undo-append)
				vs "${again[@]}" "$@" < <(cat "$input")
				same t want
			fi
		done
	done
}

made() {
	"$MKVMDK" pattern t.orig "$2" 9
	cp t.orig want
	"$MKVMDK" "$1" d.vmdk capacity="$2" "${@:3}" apply=want
}

# told_of VS-ARGUMENT...: an error by --json is an object on standard output; else nothing is there
told_of() {
	if [[ " $* " == *' --json '* ]]; then
		jq -e '.error.code == "memory" and .error.exit == 2' out >/dev/null
	else
		[ ! -s out ]
	fi
}

# read_only VS-ARGUMENT...: exit 0 with the same words as ever, or what is missing and why, or 2.
read_only() {
	local n total

	total=$(requests "$VMDKSYNC" "$@")
	echo "--- $*: $total requests"
	[ "$total" -gt 10 ]
	vs "$@" >right 2>/dev/null
	for ((n = 1; n <= total; n++)); do
		all=
		((n % 2)) || all=+
		without "$n$all" "$VMDKSYNC" "$@"
		if [ "$code" = 0 ]; then
			cmp -s out right || grep -q memory out
		elif [ "$code" != 2 ] || ! told_of "$@" || ! grep -q '^vmdksync: .*memory' err; then
			echo "$n$all: exit $code: $(<err)"
			return 1
		fi
	done
}

@test "apply: COWD, hosted sparse, SEsparse, streamOptimized" {
	made cowd 8192 alloc=random:900 zero=runs:5:40:100
	tried -q d.vmdk t
	made hosted 8192 grain=8 alloc=random:40 zero=random:20
	tried -q d.vmdk t
	made sesparse 8192 alloc=random:50 zero=random:20
	tried -q --no-uring d.vmdk t
	made stream 8192 grain=128 alloc=random:5 layout=reverse
	tried -q d.vmdk t
	made stream 8192 grain=128 alloc=random:5 layout=random poke=footer:4:0
	tried -q --force=accounts d.vmdk t
}

@test "apply with an undo log, and going on with one" {
	requires strace
	made cowd 8192 alloc=random:900 zero=runs:5:40:100
	tried -q --undo undo.vmdk d.vmdk t
	cp t.orig t
	rm -f undo.vmdk
	run strace -qqf -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=3 \
		"$VMDKSYNC" --undo undo.vmdk d.vmdk t
	cp t stopped
	cp undo.vmdk log
	set -- -q --undo undo.vmdk --undo-append d.vmdk t
	total=$(requests "$VMDKSYNC" "$@")
	[ "$total" -gt 10 ]
	for ((n = 1; n <= total; n++)); do
		cp stopped t
		cp log undo.vmdk
		without "$n" "$VMDKSYNC" "$@"
		echo "$n: $code: $(<err)"
		case $code in
		0) same t want ;;
		2) same t stopped ;;
		3) vs "$@" && same t want ;;
		*) false ;;
		esac
		vs -q undo.vmdk t
		same t t.orig
	done
}

@test "apply from a pipe: plain, gzip, spooled, and read back" {
	made cowd 8192 alloc=random:900 zero=runs:5:40:100 layout=tables-last
	gzip -k d.vmdk
	for input in d.vmdk d.vmdk.gz; do
		tried -q - t
		tried -q --memory=1 --read-back - t
		tried -q --spool-first --no-uring - t
	done
}

@test "what only reads: verify, info, map, a chain with its parents" {
	requires jq
	esx_chain 2048 2
	cp host-2.raw t
	read_only --verify host-000002.vmdk t
	read_only --verify --base host-flat.vmdk host-000001-delta.vmdk host-1.raw
	read_only --info host-000002.vmdk
	read_only --info --json host-000002.vmdk
	read_only --map --json host-000001-delta.vmdk
}
