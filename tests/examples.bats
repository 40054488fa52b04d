# SPDX-License-Identifier: MIT
# Every script of examples/ does what it says; demo.sh is in readme.bats, migrate/ in migrate.bats.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export VMDKSYNC
	ex=$TOP/examples
}

# one_delta: base.raw, the delta d.vmdk, what it shall become want.raw, and the target t.raw
one_delta() {
	"$MKVMDK" pattern base.raw 16M 7
	cp base.raw want.raw
	"$MKVMDK" "${1:-cowd}" d.vmdk capacity=16M alloc=random:300 zero=5 seed=3 apply=want.raw >/dev/null
	cp base.raw t.raw
}

@test "each script tells how it is used, in 80 columns, and refuses anything else" {
	for s in "$ex"/*.sh "$ex/migrate/vmdksync-migrate" "$ex/migrate/probe.sh"; do
		[ "${s##*/}" != demo.sh ] || continue
		[ -x "$s" ]
		[ "${s##*/}" != migrate.sh ] || continue
		for o in -h --help; do
			run -0 "$s" "$o"
			[[ $output == "Usage: ${s##*/} "* ]]
			[ "$(wc -L <<<"$output")" -le 80 ]
		done
		run "$s"
		[ "$status" = 2 ] || [ "$status,${s##*/}" = 1,oneswap-sesparse.sh ]
		run "$s" --nonsense
		[ "$status" = 2 ] || [ "$status,${s##*/}" = 1,oneswap-sesparse.sh ]
	done
}

@test "receive.sh: packed, or with a size; a cut stream changes nothing" {
	requires plain nc root unshare ip
	one_delta
	size=$(stat -c %s d.vmdk)
	# a network of our own, so that any port is free
	# shellcheck disable=SC2016 # for the shell inside
	run -0 unshare --net bash -ec '
		ip link set lo up
		send() { for _ in {1..600}; do nc -N 127.0.0.1 "$1" 2>/dev/null && return; sleep 0.1; done; }
		gzip -1 <d.vmdk | send 5001 &
		"$0"/receive.sh 5001 gzip t.raw
		cmp t.raw want.raw
		cp base.raw t.raw
		send 5002 <d.vmdk &
		"$0"/receive.sh 5002 "$1" t.raw
		cmp t.raw want.raw
		cp base.raw t.raw
		gzip -1 <d.vmdk | head -c 20000 | send 5003 &
		! "$0"/receive.sh 5003 gzip t.raw || exit 3
		cmp t.raw base.raw
		head -c $(($1 - 512)) d.vmdk | send 5004 &
		! "$0"/receive.sh 5004 "$1" t.raw || exit 4
		cmp t.raw base.raw
		wait' "$ex" "$size"
	run -2 "$ex/receive.sh" x 5 t.raw
	run -2 "$ex/receive.sh" 5001 5k t.raw
	run -2 "$ex/receive.sh" 5001 gzip none.raw
}

@test "rollback.sh: there and back" {
	one_delta
	run -0 "$ex/rollback.sh" d.vmdk t.raw undo.vmdk
	[[ $output == *'t.raw is what it was, byte for byte.' ]]
	same base.raw t.raw
	[ -s undo.vmdk ]
	run -2 "$ex/rollback.sh" d.vmdk t.raw undo.vmdk
	run -2 "$ex/rollback.sh" none.vmdk t.raw undo2.vmdk
	[ ! -e undo2.vmdk ]
}

@test "rollback.sh: an apply that fails in the middle" {
	requires strace
	one_delta
	VMDKSYNC="strace -f -qq -o /dev/null -P $PWD/t.raw -e trace=pwrite64 \
		-e inject=pwrite64:error=EIO:when=20 $VMDKSYNC --no-uring" \
		run ! "$ex/rollback.sh" d.vmdk t.raw undo.vmdk
	[ -s undo.vmdk ]
	vs -q undo.vmdk t.raw
	same base.raw t.raw
}

# chain FORMAT: base.raw, host.vmdk over it, host-000001.vmdk over that one; want.raw is the whole disk
chain() {
	"$MKVMDK" pattern base.raw 16M 7
	cp base.raw want.raw
	printf '# Disk DescriptorFile\nversion=1\nCID=01234567\nparentCID=ffffffff\ncreateType="vmfs"\n' >host.vmdk
	printf 'RW 32768 VMFS "base.raw"\n' >>host.vmdk
	"$MKVMDK" "$1" d1 capacity=16M alloc=random:300 seed=3 apply=want.raw >/dev/null
	"$MKVMDK" "$1" d2 capacity=16M alloc=random:300 seed=4 apply=want.raw >/dev/null
	kind=VMFSSPARSE
	[ "$1" = cowd ] || kind=SESPARSE
	printf '# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=01234567\nparentFileNameHint="host.vmdk"\ncreateType="custom"\nRW 32768 %s "d1"\n' $kind >host-000001.vmdk
	printf '# Disk DescriptorFile\nversion=1\nCID=22222222\nparentCID=11111111\nparentFileNameHint="host-000001.vmdk"\ncreateType="custom"\nRW 32768 %s "d2"\n' $kind >host-000002.vmdk
}

@test "verify-later.sh: the same, different, and without the base" {
	chain sesparse
	run -0 "$ex/verify-later.sh" host-000002.vmdk want.raw
	[[ $output == *'every byte.' ]]
	cp want.raw bad.raw
	printf x | dd of=bad.raw bs=1 seek=5000000 conv=notrunc status=none
	run -1 "$ex/verify-later.sh" host-000002.vmdk bad.raw
	mkdir away
	mv host.vmdk base.raw away
	run -0 "$ex/verify-later.sh" host-000002.vmdk want.raw --search=away
	run ! "$ex/verify-later.sh" host-000002.vmdk want.raw
	# a bare delta says nothing about the rest
	run -2 "$ex/verify-later.sh" d2 want.raw
}

@test "clones.sh: many linked clones at once" {
	chain cowd
	for n in 3 4 5; do
		cp want.raw want$n.raw
		"$MKVMDK" cowd c$n capacity=16M alloc=random:50 seed=$n apply=want$n.raw >/dev/null
		sed "s/22222222/3333333$n/; s/11111111/22222222/; s/host-000001/host-000002/; s/d2/c$n/" \
			host-000002.vmdk >clone$n.vmdk
	done
	run -0 "$ex/clones.sh" 2 out clone3.vmdk clone4.vmdk clone5.vmdk
	for n in 3 4 5; do
		same want$n.raw out/clone$n.raw
	done
	run -1 "$ex/clones.sh" 2 out clone3.vmdk host-000002.vmdk
	[[ $output == *'clone3.raw exists already'* ]]
	same want3.raw out/clone3.raw
	same want.raw out/host-000002.raw
	rm d1
	run -1 "$ex/clones.sh" 1 new clone3.vmdk
	[ ! -e new/clone3.raw ]
	run -2 "$ex/clones.sh" 0 new clone3.vmdk
	run -2 "$ex/clones.sh" 1 new clone3.vmdk away/clone3.vmdk
}

@test "oneswap-sesparse.sh: takes either format, and knows one failure" {
	for f in sesparse cowd; do
		one_delta $f
		run -0 "$ex/oneswap-sesparse.sh" d.vmdk t.raw
		same want.raw t.raw
	done
	run -1 "$ex/oneswap-sesparse.sh" none.vmdk t.raw
	run -1 "$ex/oneswap-sesparse.sh" d.vmdk
}

@test "README and manual name each script, and vmdksync-migrate with options it has" {
	for s in "$ex"/*.sh; do
		grep -qw "${s##*/}" "$TOP/README"
		[ "${s##*/}" = demo.sh ] || grep -q "${s##*/}" "$TOP/vmdksync.1"
	done
	help=$(sh "$ex/migrate/vmdksync-migrate" --help)
	n=0
	while read -r o; do
		grep -q -- "^  .*${o}[= |]" <<<"$help "
		n=$((n + 1))
	done < <(grep '^vmdksync-migrate' "$TOP/vmdksync-migrate.1" | grep -o -- '--[a-z-]*')
	[ "$n" -ge 3 ]
	# the former name
	diff <(sh "$ex/migrate.sh" --help) <(echo "$help")
}
