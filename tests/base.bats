# SPDX-License-Identifier: MIT
# What TARGET and the folder of a delta tell before the first write: deltas of different disks, the
# descriptor beside a bare delta, samples of the parents, and deltas that were applied before.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# refused TARGET SUM WORDS...: exit 2, TARGET is untouched, and one line on standard error, but for
# warnings, has all of the words.
refused() {
	local line word

	[ "$status" = 2 ]
	[ "$(sum "$1")" = "$2" ]
	line=$(grep -v ': warning: ' <<<"$stderr")
	[ "$(wc -l <<<"$line")" = 1 ]
	for word in "${@:3}"; do
		[[ $line == *"$word"* ]]
	done
}

# chain N: esx_chain with clean tables, so that --strict has nothing to refuse.
chain() {
	esx_chain 20480 0
	local i

	for ((i = 1; i <= $1; i++)); do
		cp "host-$((i - 1)).raw" "host-$i.raw"
		"$MKVMDK" sesparse "host-00000$i-sesparse.vmdk" capacity=20480 alloc=runs:9:1:20 zero=random:9 \
			seed="$((i + 1))" apply="host-$i.raw"
		descriptor "host-00000$i.vmdk" "1000000$i" "1000000$((i - 1))" seSparse \
			"$([ "$i" = 1 ] && echo host.vmdk || echo "host-00000$((i - 1)).vmdk")" \
			"RW 20480 SESPARSE \"host-00000$i-sesparse.vmdk\""
	done
}

@test "deltas of different disks in one call are refused, and no zeros are made up" {
	"$MKVMDK" pattern got.raw 60000 1
	cp got.raw want.raw
	"$MKVMDK" cowd small-delta.vmdk capacity=6000 alloc=1-40 apply=want.raw
	"$MKVMDK" cowd large-delta.vmdk capacity=60000 alloc=30-60,59999 seed=2 apply=want.raw
	before=$(sum got.raw)
	for order in 'small large' 'large small'; do
		read -r a b <<<"$order"
		run --separate-stderr vs "$a-delta.vmdk" "$b-delta.vmdk" got.raw
		refused got.raw "$before" "$b-delta.vmdk: has" "parent $a-delta.vmdk has" \
			'do not belong to one disk' --force=size
	done
	run -0 --separate-stderr vs --force=size small-delta.vmdk large-delta.vmdk got.raw
	[[ $stderr == *'; 1 warning' ]]
	same want.raw got.raw
	# a capacity that is rounded up to a whole grain is no other size
	"$MKVMDK" hosted exact.vmdk capacity=60001 grain=128 alloc=3 parentcid=aabbccdd
	"$MKVMDK" hosted round.vmdk capacity=60032 grain=128 alloc=5 desc=0
	truncate -s $((60032 * 512)) got.raw
	run -0 vs --strict exact.vmdk round.vmdk got.raw
	run -0 vs --strict round.vmdk exact.vmdk got.raw
}

@test "a bare delta: its descriptor is found, under any name, and used" {
	chain 3
	cp host-0.raw got.raw
	before=$(sum got.raw)
	# their order is checked
	run --separate-stderr vs host-000002-sesparse.vmdk host-000001-sesparse.vmdk got.raw
	refused got.raw "$before" host-000001-sesparse.vmdk 'its parent has CID 10000000' --force=cid
	# and that none is left out
	run --separate-stderr vs host-000001-sesparse.vmdk host-000003-sesparse.vmdk got.raw
	refused got.raw "$before" host-000003-sesparse.vmdk 'its parent has CID 10000002'
	run --separate-stderr vs host-000001.vmdk host-000001-sesparse.vmdk got.raw
	refused got.raw "$before" 'named twice'
	run -0 --separate-stderr vs --strict --json host-00000[123]-sesparse.vmdk got.raw
	same host-3.raw got.raw
	[ "$(jq -r .base_checked <<<"$output")" = true ]
	# --chain by another name than the usual one, and from another folder
	mv host-000003.vmdk top.vmdk
	cp host-0.raw got.raw
	run -0 vs --strict --chain "$PWD/host-000003-sesparse.vmdk" got.raw
	same host-3.raw got.raw
	mkdir texts
	mv host.vmdk host-000001.vmdk host-000002.vmdk top.vmdk texts/
	cp host-0.raw got.raw
	run -0 --separate-stderr vs --strict --chain --search texts --search . host-000003-sesparse.vmdk got.raw
	same host-3.raw got.raw
	# two that differ say nothing
	cp texts/top.vmdk .
	sed s/^parentCID.*/parentCID=77/ top.vmdk >another.vmdk
	run -2 --separate-stderr vs --chain host-000003-sesparse.vmdk got.raw
	[[ $stderr == *'has no descriptor'* ]]
}

@test "a bare delta: its descriptor has another size, is of another kind, or no descriptor at all" {
	"$MKVMDK" pattern got.raw 6000 1
	cp got.raw want.raw
	"$MKVMDK" cowd a-delta.vmdk capacity=6000 alloc=1-40 apply=want.raw
	descriptor a.vmdk 2 1 vmfsSparse b.vmdk 'RW 5999 VMFSSPARSE "a-delta.vmdk"'
	before=$(sum got.raw)
	run --separate-stderr vs a-delta.vmdk got.raw
	refused got.raw "$before" 'a-delta.vmdk: holds 6000 sectors' 'a.vmdk says 5999' --force=size
	cp got.raw forced.raw
	run -0 vs --force=size a-delta.vmdk forced.raw
	same want.raw forced.raw
	descriptor a.vmdk 2 1 seSparse b.vmdk 'RW 5999 SESPARSE "a-delta.vmdk"'
	run -0 vs --strict a-delta.vmdk got.raw
	same want.raw got.raw
	# what cannot be read is passed over: a FIFO, a folder, a device, damage, what is long
	rm a.vmdk
	mkfifo a.vmdk
	mkdir b.vmdk
	ln -s /dev/zero c.vmdk
	ln -s missing d.vmdk
	echo '# Disk DescriptorFile' >e.vmdk
	{ echo '# Disk DescriptorFile' && head -c 2M /dev/zero; } >f.vmdk
	run -0 timeout 60 "$VMDKSYNC" --strict a-delta.vmdk got.raw
	# with --confine no link leads out of the folder
	rm a.vmdk
	mkdir in
	mv a-delta.vmdk in/
	descriptor a.vmdk 2 1 vmfsSparse b.vmdk 'RW 5999 VMFSSPARSE "a-delta.vmdk"'
	ln -s ../a.vmdk in/a.vmdk
	run -2 vs in/a-delta.vmdk got.raw
	run -0 vs --confine in/a-delta.vmdk got.raw
}

@test "a folder of a thousand files is searched in a moment" {
	"$MKVMDK" pattern got.raw 6000 1
	"$MKVMDK" cowd a-delta.vmdk capacity=6000 alloc=1-40
	for ((i = 0; i < 1000; i++)); do
		echo '# Disk DescriptorFile' >"x$i.vmdk"
	done
	requires strace
	run -0 strace -f -qq -o trace -e trace=openat "$VMDKSYNC" -q a-delta.vmdk got.raw
	[ "$(grep -c 'x[0-9]*\.vmdk' trace)" -le 512 ]
}

@test "a delta that is alone, or has only its descriptor, gives no warning" {
	chain 2
	cp host-1.raw got.raw
	mkdir alone
	cp host-000002-sesparse.vmdk alone/
	for files in sesparse both; do
		[ $files = sesparse ] || cp host-000002.vmdk alone/
		for job in --dry-run '' --verify; do
			# shellcheck disable=SC2086 # none is a word, too
			run -0 --separate-stderr vs --strict -v --json $job alone/host-000002-sesparse.vmdk got.raw
			[[ $stderr != *warning* ]]
			[ "$job" = --verify ] || {
				[[ $stderr == *'not compared with the parents'* ]]
				[ "$(jq -c '[.base_checked, .already_present]' <<<"$output")" = '[false,null]' ]
			}
		done
	done
	same host-2.raw got.raw
}

@test "a delta that was left out, and another disk, are noticed" {
	chain 3
	cp host-0.raw got.raw
	before=$(sum got.raw)
	for delta in host-000002-sesparse.vmdk host-000002.vmdk; do
		for job in --dry-run ''; do
			# shellcheck disable=SC2086 # none is a word, too
			run --separate-stderr vs $job "$delta" got.raw
			refused got.raw "$before" 'got.raw: does not hold host-000001.vmdk: apply it first, or use --chain' \
				--force=base
		done
	done
	# of two, the one that comes first
	run --separate-stderr vs host-000003.vmdk got.raw
	refused got.raw "$before" 'does not hold host-000001.vmdk'
	run -0 vs --strict host-000001.vmdk got.raw
	run --separate-stderr vs host-000003.vmdk got.raw
	refused got.raw "$(sum got.raw)" 'does not hold host-000002.vmdk'
	run -0 vs --strict host-000002.vmdk got.raw
	run -0 vs --strict host-000003.vmdk got.raw
	same host-3.raw got.raw
	# no undo log is left behind, and --force=base writes all the same
	cp host-0.raw got.raw
	cp got.raw want.raw
	run --separate-stderr vs --undo=undo.vmdk host-000002.vmdk got.raw
	refused got.raw "$before" 'does not hold'
	[ ! -e undo.vmdk ]
	"$MKVMDK" sesparse x.vmdk capacity=20480 alloc=runs:9:1:20 zero=random:9 seed=3 apply=want.raw
	run -0 --separate-stderr vs --json --force=base host-000002.vmdk got.raw
	same want.raw got.raw
	[[ $stderr == *'warning: got.raw: does not hold host-000001.vmdk'*'; 1 warning' ]]
	[ "$(jq .base_checked <<<"$output")" = false ]
	# another disk
	"$MKVMDK" pattern got.raw 20480 9
	before=$(sum got.raw)
	for mode in '' --chain; do
		# shellcheck disable=SC2086 # none is a word, too
		run --separate-stderr vs $mode host-000001.vmdk got.raw
		refused got.raw "$before" 'got.raw: does not hold host.vmdk: is it another disk' --force=base
	done
	run -0 vs --strict --full host-000003.vmdk got.raw
	same host-3.raw got.raw
}

@test "a VM that was started on TARGET is noticed, also where the base holds zeros" {
	esx_chain 2048 0
	truncate -s 0 host-flat.vmdk
	truncate -s 1M host-flat.vmdk
	cp host-flat.vmdk got.raw
	"$MKVMDK" cowd host-000001-delta.vmdk capacity=2048 alloc=5-9
	descriptor host-000001.vmdk 10000001 10000000 vmfsSparse host.vmdk \
		'RW 2048 VMFSSPARSE "host-000001-delta.vmdk"'
	run -0 vs --strict host-000001.vmdk got.raw
	yes | head -c 300K | dd of=got.raw bs=64K seek=3 conv=notrunc status=none
	run --separate-stderr vs host-000001.vmdk got.raw
	refused got.raw "$(sum got.raw)" 'does not hold host.vmdk' 'was it written to'
}

@test "the same command again is fine: whole, in part, with all deltas or the last" {
	chain 3
	cp host-0.raw got.raw
	# as a run that was stopped leaves it
	dd if=host-3.raw of=got.raw bs=1M count=4 conv=notrunc status=none
	run -0 vs --strict --chain host-000003.vmdk got.raw
	same host-3.raw got.raw
	run -0 --separate-stderr vs --strict --json --chain host-000003.vmdk got.raw
	[[ $stderr == *'got.raw: already held about 100 % of this delta'* ]]
	[ "$(jq -c '[.base_checked, .already_present]' <<<"$output")" = '[true,null]' ]
	same host-3.raw got.raw
	run -0 --separate-stderr vs --strict --dry-run host-000003.vmdk got.raw
	[[ $stderr == *'the target holds about 100 % of the delta'* ]]
	# a first apply says nothing of that
	cp host-2.raw got.raw
	run -0 --separate-stderr vs --strict host-000003.vmdk got.raw
	[[ $stderr != *already* ]]
}

@test "applied before: an undo log counts the bytes, and a new one is a warning" {
	chain 1
	cp host-0.raw got.raw
	run -0 --separate-stderr vs --strict --json --undo=a.vmdk host-000001.vmdk got.raw
	[[ $stderr != *already* ]]
	# the exact figure, by an independent count of the sectors that did not change
	want=$(python3 - <<-'END'
	a, b = open("host-0.raw", "rb").read(), open("host-1.raw", "rb").read()
	print(sum(512 for i in range(0, len(a), 512) if a[i:i + 512] != b[i:i + 512]))
	END
	)
	all=$(jq '.written + .zeroed' <<<"$output")
	[ "$(jq .already_present <<<"$output")" = $((all - want)) ]
	run --separate-stderr vs --strict --undo=b.vmdk host-000001.vmdk got.raw
	refused got.raw "$(sum host-1.raw)" 'already holds nearly all of this delta' 'does not roll back'
	[ ! -e b.vmdk ]
	run -0 --separate-stderr vs --json --undo=b.vmdk host-000001.vmdk got.raw
	[[ $stderr == *'warning: got.raw: already holds nearly all of this delta'* ]]
	[[ $stderr == *"already held $all of $all bytes of this delta"* ]]
	[ "$(jq .already_present <<<"$output")" = "$all" ]
	# from a pipe, where that is known at the end
	run -0 --separate-stderr vs --json --undo=c.vmdk - got.raw < <(cat host-000001-sesparse.vmdk)
	[[ $stderr == *'warning: got.raw: already holds nearly all of this delta'* ]]
	[ "$(jq -c '[.already_present, .base_checked]' <<<"$output")" = "[$all,false]" ]
	# the first log leads back, without a warning; the way back and forth is no second apply
	run -0 vs --strict --undo=redo.vmdk a.vmdk got.raw
	same host-0.raw got.raw
	run -0 vs --strict redo.vmdk got.raw
	same host-1.raw got.raw
	# zeros onto zeros are no second apply
	truncate -s 10M zeros.raw
	printf X | dd of=zeros.raw bs=1 seek=9000000 conv=notrunc status=none
	"$MKVMDK" sesparse z.vmdk capacity=20480 zero=0-900 alloc=1000
	run -0 vs --strict --undo=d.vmdk z.vmdk zeros.raw
	run -0 vs --strict --undo=e.vmdk - zeros.raw < <("$MKVMDK" sesparse y.vmdk capacity=20480 zero=0-90 \
		alloc=1001 && cat y.vmdk)
}

@test "not compared: --create, --full, an empty TARGET, a pipe, the base itself as TARGET" {
	chain 2
	run -0 --separate-stderr vs --strict -v --json --create host-000002.vmdk new.raw
	[ "$(jq .base_checked <<<"$output")" = false ]
	[[ $stderr == *'not compared with the parents of host-000002.vmdk: --full, --raw and --create'* ]]
	truncate -s 10M empty.raw
	run -0 --separate-stderr vs --strict -v host-000002.vmdk empty.raw
	[[ $stderr == *'holds nothing yet'* ]]
	same new.raw empty.raw
	"$MKVMDK" pattern got.raw 20480 9
	run -0 vs --strict --full host-000002.vmdk got.raw
	same host-2.raw got.raw
	"$MKVMDK" pattern got.raw 20480 9
	run -0 --separate-stderr vs --strict -v - got.raw < <(cat host-000002-sesparse.vmdk)
	[[ $stderr == *'a stream is read only once'* ]]
	# the copy of the base is where the descriptors are
	run -0 vs --strict host-000001-sesparse.vmdk host-flat.vmdk
	same host-1.raw host-flat.vmdk
	run -0 vs --strict host-000002-sesparse.vmdk host-flat.vmdk
	same host-2.raw host-flat.vmdk
}

@test "parents that are missing or damaged do not stop a delta that does not need them" {
	chain 2
	cp host-1.raw got.raw
	# the base is gone: its child is compared all the same
	mkdir away
	mv host-flat.vmdk away/
	run -0 --separate-stderr vs --strict -v host-000002.vmdk got.raw
	[[ $stderr == *'holds what the parents of host-000002.vmdk hold'* ]]
	cp host-0.raw got.raw
	run --separate-stderr vs host-000002.vmdk got.raw
	refused got.raw "$(sum host-0.raw)" 'does not hold host-000001.vmdk'
	# a search folder has it
	"$MKVMDK" pattern other.raw 20480 9
	cp other.raw got.raw
	run --separate-stderr vs --search away host-000001.vmdk got.raw
	refused got.raw "$(sum other.raw)" 'does not hold host.vmdk'
	# damaged, with another CID, outside of the folder
	cp host-1.raw got.raw
	truncate -s 5000 host-000001-sesparse.vmdk
	run -0 --separate-stderr vs --strict -v host-000002.vmdk got.raw
	[[ $stderr == *'not compared with the parents of host-000002.vmdk: '*host-000001-sesparse.vmdk* ]]
	same host-2.raw got.raw
	chain 2
	sed -i s/^CID=.*/CID=77/ host-000001.vmdk
	run -0 --separate-stderr vs --strict -v host-000002.vmdk got.raw
	[[ $stderr == *'not compared'*'CID 00000077'* ]]
	mkdir in
	mv host-000002* in/
	sed -i 's|^parentFileN.*|parentFileNameHint="../host-000001.vmdk"|' in/host-000002.vmdk
	run -0 --separate-stderr vs --strict -v in/host-000002.vmdk got.raw
	[[ $stderr == *'not compared'* ]]
}

@test "--base is compared with TARGET, and not written" {
	chain 2
	cp host-000001-sesparse.vmdk alone.vmdk
	cp host-0.raw got.raw
	run -0 --separate-stderr vs --strict --json --base host-0.raw alone.vmdk got.raw
	same host-1.raw got.raw
	[ "$(jq .base_checked <<<"$output")" = true ]
	# with the delta applied it is still a copy of that base, but not of another one
	run -0 vs --strict --base host.vmdk alone.vmdk got.raw
	"$MKVMDK" pattern other.raw 20480 9
	run --separate-stderr vs --base other.raw alone.vmdk got.raw
	refused got.raw "$(sum host-1.raw)" 'does not hold other.raw'
	run -0 --separate-stderr vs --base got.raw alone.vmdk got.raw
	[[ $stderr == *'warning: got.raw: was not compared with --base'* ]]
	# what a base has behind the end of the disk does not matter
	cp host-0.raw large.raw
	head -c 30M other.raw >>large.raw
	head -c 30M /dev/zero | tr '\0' x >>large.raw
	run -0 vs --strict --base large.raw alone.vmdk got.raw
	run --separate-stderr vs --base missing.raw alone.vmdk got.raw
	refused got.raw "$(sum host-1.raw)" 'missing.raw'
}

@test "a compressed base, a hosted chain with embedded descriptors, a device" {
	"$MKVMDK" pattern pattern.raw 20480 1
	qemu-img convert -f raw -O vmdk -o subformat=streamOptimized pattern.raw base.vmdk
	cid=$(strings base.vmdk | sed -n 's/^CID=//p' | head -n 1)
	cp pattern.raw want.raw
	"$MKVMDK" hosted top.vmdk capacity=20480 alloc=random:9 parentcid="$cid" parent=base.vmdk apply=want.raw
	cp pattern.raw got.raw
	run -0 --separate-stderr vs -v --strict top.vmdk got.raw
	[[ $stderr == *'holds what the parents of top.vmdk hold'* ]]
	same want.raw got.raw
	"$MKVMDK" pattern got.raw 20480 2
	run --separate-stderr vs top.vmdk got.raw
	refused got.raw "$(sum got.raw)" 'does not hold base.vmdk'
	requires loop
	cp pattern.raw got.raw
	dev=$(loopdev got.raw)
	run -0 vs --strict top.vmdk "$dev"
	cmp want.raw "$dev"
	dd if=/dev/urandom of="$dev" bs=1M count=10 conv=notrunc,fsync status=none
	run --separate-stderr vs top.vmdk "$dev"
	[ "$status" = 2 ]
	[[ $stderr == *"$dev: does not hold base.vmdk"* ]]
}

@test "at most 256 places of TARGET are read for the parents, and as many for the delta" {
	requires strace
	truncate -s 1G host-flat.vmdk
	"$MKVMDK" pattern pattern.raw 40960 1
	dd if=pattern.raw of=host-flat.vmdk bs=1M seek=7 conv=notrunc status=none
	dd if=pattern.raw of=host-flat.vmdk bs=1M seek=999 conv=notrunc status=none
	descriptor host.vmdk 10000000 ffffffff vmfs '' 'RW 2097152 VMFS "host-flat.vmdk"'
	cp host-flat.vmdk got.raw
	"$MKVMDK" cowd host-000001-delta.vmdk capacity=2097152 alloc=random:3000
	descriptor host-000001.vmdk 10000001 10000000 vmfsSparse host.vmdk \
		'RW 2097152 VMFSSPARSE "host-000001-delta.vmdk"'
	run -0 strace -f -y -qq -o trace -e trace=pread64 "$VMDKSYNC" --dry-run host-000001-delta.vmdk got.raw
	n=$(grep -c 'got.raw>.*, 4096, \|got.raw>.*, 512, ' trace)
	[ "$n" -gt 200 ]
	[ "$n" -le 520 ]
	rm ./*.raw host-flat.vmdk
}
