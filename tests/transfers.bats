# SPDX-License-Identifier: MIT
# How the target is written: what is zeroed by one call, what is synced, what goes through the page cache.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# zeroed OPTION...: 64 MiB of t.raw, all written, are zeroed by --full
zeroed() {
	strace -f -qq -o trace -P "$PWD/t.raw" -e trace=fallocate "$@" "$VMDKSYNC" --full d.vmdk t.raw \
		2>err </dev/null
}

@test "a whole disk of zeros is zeroed in parts: a stop is heard between two of them" {
	requires strace fallocate
	"$MKVMDK" hosted d.vmdk capacity=131072 alloc=none desc=1 parentcid=ffffffff
	"$MKVMDK" pattern t.raw 131072 7
	sync t.raw
	cp t.raw probe.raw
	fallocate -z -n -o 0 -l 65536 probe.raw || skip 'no FALLOC_FL_ZERO_RANGE here'
	rm probe.raw
	run -3 zeroed -e inject=fallocate:signal=SIGINT:when=2
	cat err trace
	grep -q 'stopped by a signal after 33554432 of 67108864 bytes' err
	[ "$(grep -c 'fallocate(.* = 0' trace)" = 2 ]
	cmp -n 33554432 t.raw /dev/zero
	"$MKVMDK" pattern want.raw 131072 7
	cmp -i 33554432 t.raw want.raw
	rm want.raw
	zeroed -s 64
	[ "$(grep -c ', 16777216) *= 0' trace)" -ge 2 ]
	cmp -n 67108864 t.raw /dev/zero
	rm t.raw
}

@test "a delta without grains ends with a sync, too" {
	requires strace
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=none
	"$MKVMDK" pattern t.raw 2048 7
	cp t.raw want.raw
	strace -f -qq -o trace -e trace=fdatasync,fsync "$VMDKSYNC" d.vmdk t.raw 2>err
	grep -q 'on stable storage' err
	grep -q 'fdatasync(.* = 0' trace
	run -2 strace -f -qq -o trace -e trace=fdatasync -e inject=fdatasync:error=EIO \
		"$VMDKSYNC" d.vmdk t.raw
	[[ $output == *'t.raw: fdatasync: Input/output error'* ]]
	strace -f -qq -o trace -e trace=fdatasync "$VMDKSYNC" --dry-run d.vmdk t.raw
	[ ! -s trace ]
	same t.raw want.raw
}

@test "a direct write that is refused goes through the page cache, and so do all after it" {
	requires strace
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=runs:40:1:300 seed=3
	"$MKVMDK" pattern base.raw 20480 7
	cp base.raw want.raw
	"$MKVMDK" cowd again.vmdk capacity=20480 alloc=runs:40:1:300 seed=3 apply=want.raw
	cp base.raw t.raw
	sync t.raw
	vs -v d.vmdk t.raw 2>err
	grep -q 'direct where allocated' err || skip 'no direct I/O here'
	for errno in EINVAL:Invalid\ argument EOPNOTSUPP:Operation\ not\ supported; do
		cp base.raw t.raw
		sync t.raw
		strace -f -qq -o trace -P "$PWD/t.raw" -e trace=pwrite64 \
			-e "inject=pwrite64:error=${errno%:*}:when=1" \
			"$VMDKSYNC" -v --no-uring d.vmdk t.raw 2>err
		cat err
		grep -F "t.raw: direct I/O was refused (${errno#*:}); written through the page cache" err
		grep -q 't.raw: in line, buffered, ' err
		same t.raw want.raw
		[ "$(sed -n 's/.*pwrite64(\([0-9]*\),.*/\1/p' trace | uniq | wc -l)" = 2 ]
	done
	# other errors are not
	cp base.raw t.raw
	sync t.raw
	run -3 strace -f -qq -o trace -P "$PWD/t.raw" -e trace=pwrite64 \
		-e inject=pwrite64:error=EIO:when=1 "$VMDKSYNC" -v --no-uring d.vmdk t.raw
	# and a buffered one is not made again for ever
	run -3 strace -f -qq -o trace -P "$PWD/t.raw" -e trace=pwrite64 \
		-e inject=pwrite64:error=EINVAL "$VMDKSYNC" -v --no-uring d.vmdk t.raw
}

@test "blocks of the file system larger than a page: no two writes in flight share one" {
	requires root loop unshare mkfs.xfs
	truncate -s 512M fs.raw
	mkfs.xfs -q -b size=64k -s size=4096 fs.raw 2>/dev/null || skip 'mkfs.xfs makes no such blocks'
	dev=$(loopdev fs.raw 4096)
	mkdir m
	mounted "$dev" m || skip 'the kernel takes no such blocks'
	m=/proc/$(cat .mounted)/root$PWD/m
	# two grains of 4 KiB in one block of the file system: one write
	"$MKVMDK" pattern base.raw 20505 7
	"$MKVMDK" cowd d.vmdk capacity=20505 alloc=0-7+64-71
	cp base.raw "$m/t"
	sync "$m/t"
	run -0 vs -v d.vmdk "$m/t"
	[[ $output == *', direct where allocated, 1 write'$'\n'* ]]
	# the last sectors are no whole block of the disk, and are written through the page cache
	for seed in {1..25}; do
		cp base.raw want.raw
		"$MKVMDK" cowd d.vmdk capacity=20505 alloc=runs:1200:8:9+20380-20390+20400-20413+20420-20429+20440-20450+20504 seed="$seed" apply=want.raw
		cp base.raw "$m/t"
		sync "$m/t"
		run -0 vs d.vmdk "$m/t"
		cmp "$m/t" want.raw
	done
}

@test "a thread that cannot wake the one that waits tries again" {
	requires strace gzip
	"$MKVMDK" pattern t.orig 8192 9
	cp t.orig want
	"$MKVMDK" stream d.vmdk capacity=8192 grain=8 alloc=random:300 apply=want
	# whether a thread has to wake anybody is a matter of moments
	for error in EINTR EIO; do
		for ((tries = 1; ; tries++)); do
			[ $tries -le 60 ]
			cp t.orig t
			timeout 60 strace -f -qq -o trace -e trace=write -e "inject=write:error=$error:when=1+2" \
				"$VMDKSYNC" -q d.vmdk t
			same t want
			! grep -q INJECTED trace || break
		done
	done
}
