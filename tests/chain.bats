# SPDX-License-Identifier: MIT
# Parents: where they are found, which are refused; several deltas in one pass; --chain, --full and
# --base against what qemu-img reads.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# refused WORDS...: exit 2 and one line on standard error that has all of them; no target was made.
refused() {
	local words

	[ "$status" = 2 ]
	[ "${#stderr_lines[@]}" = 1 ]
	for words; do
		[[ $stderr == *"$words"* ]]
	done
	[ ! -e got.raw ]
}

# whole TOP WANT: --full makes WANT of it, and --verify agrees.
whole() {
	rm -f got.raw
	vs -q --full --create "$1" got.raw
	same "$2" got.raw
	vs -q --verify "$1" got.raw
}

@test "several deltas in one pass are what one after the other is" {
	esx_chain 20485 4
	deltas=(host-00000[1-4]-delta.vmdk)
	cp host-0.raw got.raw
	run -0 vs "${deltas[@]}" got.raw
	same host-4.raw got.raw
	# of descriptors, and of both
	cp host-0.raw got.raw
	run -0 vs host-000001.vmdk host-000002-delta.vmdk host-000003.vmdk host-000004.vmdk got.raw
	same host-4.raw got.raw
	run -0 --separate-stderr vs --verify "${deltas[@]}" got.raw
	[[ $stderr != *'100.0 %'* ]]
}

@test "more deltas in one pass than have pages lent at a time" {
	"$MKVMDK" pattern got.raw 4096 9
	cp got.raw want.raw
	deltas=()
	for ((i = 0; i < 24; i++)); do
		"$MKVMDK" hosted "d$i.vmdk" capacity=4096 grain=128 alloc=$i,31 seed=$i apply=want.raw
		deltas+=("d$i.vmdk")
	done
	cat "${deltas[@]}" >/dev/null # what is not in the cache is not lent
	vs -q "${deltas[@]}" got.raw
	same want.raw got.raw
}

@test "deltas in the wrong order are refused where descriptors tell" {
	esx_chain 2048 2
	run -2 --separate-stderr vs --create host-000002.vmdk host-000001.vmdk got.raw
	refused host-000001.vmdk host-000002.vmdk 'CID 10000000' 'CID 10000002'
	run -2 --separate-stderr vs --create host-000001.vmdk ./host-000001.vmdk got.raw
	refused 'named twice'
}

@test "--chain is all above the base, --full the base as well" {
	esx_chain 20485 3
	cp host-0.raw got.raw
	run -0 vs --chain host-000003.vmdk got.raw
	same host-3.raw got.raw
	whole host-000003.vmdk host-3.raw
	whole host-000001.vmdk host-1.raw
	whole host.vmdk host-0.raw
	rm got.raw
	run -2 --separate-stderr vs --chain --create host.vmdk got.raw
	refused 'has no parent'
	# a bare delta has its descriptor beside it
	cp host-0.raw got.raw
	run -0 vs --chain host-000003-delta.vmdk got.raw
	same host-3.raw got.raw
	whole host-000003-delta.vmdk host-3.raw
	rm got.raw
	cp host-000003-delta.vmdk alone.vmdk
	run -2 --separate-stderr vs --chain --create alone.vmdk got.raw
	refused 'has no descriptor' --base
	run -2 --separate-stderr vs --full --create alone.vmdk got.raw
	refused 'has no descriptor' --base
}

@test "--chain does not need the data of the base, --full does" {
	esx_chain 2048 2
	rm host-flat.vmdk
	cp host-0.raw got.raw
	run -0 vs --chain host-000002.vmdk got.raw
	same host-2.raw got.raw
	rm got.raw
	run -2 --separate-stderr vs --full --create host-000002.vmdk got.raw
	refused host.vmdk host-flat.vmdk
	# nor can it be read where it lies between others
	cp host-000001-delta.vmdk alone.vmdk
	run -2 --separate-stderr vs -q --chain --create alone.vmdk host.vmdk host-000001.vmdk got.raw
	refused 'host.vmdk: some of its extents are not there'
	run -0 vs --info --chain host-000002.vmdk
	[[ $output == *'incomplete: '*host-flat.vmdk* ]]
}

@test "--full onto a disk that holds something: gaps become zeros" {
	truncate -s $((20485 * 512)) want.raw
	"$MKVMDK" hosted base.vmdk capacity=20485 alloc=every:3 parentcid=ffffffff apply=want.raw
	"$MKVMDK" hosted top.vmdk capacity=20485 alloc=random:40 zero=random:10 version=2 flags=5 seed=3 \
		parentcid=aabbccdd parent=base.vmdk apply=want.raw
	"$MKVMDK" pattern got.raw 30000 5
	cp got.raw rest.raw
	run -0 vs --full top.vmdk got.raw
	head -c $((20485 * 512)) got.raw >head.raw
	same want.raw head.raw
	dd if=want.raw of=rest.raw conv=notrunc status=none
	same rest.raw got.raw
	run -0 --separate-stderr vs --verify top.vmdk got.raw
	[[ $stderr == *'100.0 % of the disk'* ]]
	rm got.raw
	run -0 vs --full --create top.vmdk got.raw
	same want.raw got.raw
	[ "$(du -B1 got.raw | cut -f1)" -lt $((15000 * 512)) ]
}

@test "--base: a raw disk, a device's worth of it more, a VMDK with parents of its own" {
	esx_chain 20485 3
	run -0 vs --full --base host-2.raw --create host-000003-delta.vmdk got.raw
	same host-3.raw got.raw
	run -0 --separate-stderr vs --verify --base host-2.raw host-000003-delta.vmdk got.raw
	[[ $stderr == *'100.0 % of the disk'* ]]
	rm got.raw
	cp host-0.raw large.raw
	truncate -s 20M large.raw
	run -0 vs --full --base large.raw --create host-00000[1-3]-delta.vmdk got.raw
	same host-3.raw got.raw
	rm got.raw
	run -0 vs --full --base host-000001.vmdk --create host-00000[23]-delta.vmdk got.raw
	same host-3.raw got.raw
	rm got.raw
	run -2 --separate-stderr vs --full --base host-000001.vmdk --create host-000003.vmdk got.raw
	refused host-000003.vmdk 'CID 10000002' host-000001.vmdk 'CID 10000001'
	truncate -s 20971521 large.raw
	run -2 --separate-stderr vs --full --base large.raw --create host-00000[1-3]-delta.vmdk got.raw
	refused large.raw '20971521 bytes are not a whole number of sectors'
}

@test "no file of any layer is a target" {
	esx_chain 2048 2
	for f in host.vmdk host-flat.vmdk host-00000[12].vmdk host-00000[12]-delta.vmdk; do
		before=$(sum "$f")
		for mode in --full --chain; do
			run -2 --separate-stderr vs $mode host-000002.vmdk "$f"
			[[ $stderr == *'is one of the inputs'* ]]
		done
		[ "$(sum "$f")" = "$before" ]
	done
}

@test "CIDs are numbers; fffffffe, and that of the parent, are like others" {
	esx_chain 2048 2
	sed -i 's/^CID=.*/CID=fffffffe/' host.vmdk host-000001.vmdk
	sed -i 's/^parentCID=.*/parentCID=FFFFFFFE/' host-000001.vmdk host-000002.vmdk
	whole host-000002.vmdk host-2.raw
	sed -i 's/^CID=.*/CID=00000ab/' host.vmdk
	sed -i 's/^parentCID=.*/parentCID=AB/' host-000001.vmdk
	whole host-000002.vmdk host-2.raw
}

@test "a parent with another CID is refused, or taken with --force=cid" {
	esx_chain 2048 2
	sed -i 's/^CID=.*/CID=7b7644b2/' host.vmdk
	run -2 --separate-stderr vs --full --create host-000002.vmdk got.raw
	refused 'host-000001.vmdk: its parent has CID 10000000, but host.vmdk has CID 7b7644b2' --force=cid
	run -2 --separate-stderr vs --verify host-000002.vmdk host-2.raw
	refused 7b7644b2
	run -0 --separate-stderr vs --full --force=cid --create host-000002.vmdk got.raw
	[[ $stderr == *'warning: host-000001.vmdk: its parent has CID 10000000, but host.vmdk has CID 7b7644b2'* ]]
	same host-2.raw got.raw
	rm got.raw
	run -2 vs --strict --full --force=cid --create host-000002.vmdk got.raw
	sed -i '/^CID/d' host.vmdk
	run -2 --separate-stderr vs --full --create host-000002.vmdk got.raw
	refused host.vmdk 'no CID'
}

@test "a parent that is missing, is not named, or is a loop" {
	esx_chain 2048 3
	mkdir gone
	mv host-000001.vmdk gone/
	run -2 --separate-stderr vs --full --create host-000003.vmdk got.raw
	refused host-000002.vmdk 'not there: host-000001.vmdk' 'CID 10000001' --search
	# what is there is compared all the same
	run -0 --separate-stderr vs --verify host-000003.vmdk host-3.raw
	[[ $stderr == *'warning: '*'not there'*' % of the disk'* ]]
	[[ $stderr != *'100.0 %'* ]]
	run -2 vs --strict --verify host-000003.vmdk host-3.raw
	mv gone/* .
	sed -i '/^parentFileNameHint/d' host-000001.vmdk
	run -2 --separate-stderr vs --full --create host-000003.vmdk got.raw
	refused host-000001.vmdk 'does not name it' --base
	for hint in host-000001.vmdk ./host-000001.vmdk host-000003.vmdk "$PWD/host-000002.vmdk"; do
		sed -i '/^parentFileNameHint/d' host-000001.vmdk
		sed -i "/^createType/aparentFileNameHint=\"$hint\"" host-000001.vmdk
		run -2 --separate-stderr vs --full -q --create host-000003.vmdk got.raw
		refused host-000001.vmdk 'contains a loop'
	done
	ln -s host-000002.vmdk another.vmdk
	sed -i 's/^parentFileNameHint.*/parentFileNameHint="another.vmdk"/' host-000001.vmdk
	run -2 --separate-stderr vs --full -q --create host-000003.vmdk got.raw
	refused 'contains a loop'
}

# deep N: d0.vmdk to dN.vmdk, each the parent of the next, of one sector of data each; want.raw.
deep() {
	local i

	truncate -s $(($1 * 512 + 512)) want.raw
	: >z.raw
	for ((i = 0; i <= $1; i++)); do
		"$MKVMDK" cowd "d$i-delta.vmdk" capacity=$(($1 + 1)) alloc="$i" seed="$i" apply=want.raw
		descriptor "d$i.vmdk" "$(printf %08x $((i + 1)))" "$(printf %08x "$i")" vmfsSparse \
			"d$((i - 1)).vmdk" "RW $(($1 + 1)) VMFSSPARSE \"d$i-delta.vmdk\""
	done
	sed -i -e 's/^parentCID.*/parentCID=ffffffff/' -e /Hint/d d0.vmdk
}

# bats test_tags=slow
@test "a chain of 255 images is read, one more is refused" {
	deep 254
	whole d254.vmdk want.raw
	rm got.raw
	deep 255
	run -2 --separate-stderr vs --full --create d255.vmdk got.raw
	refused '255 images'
	# where all are named there has to be room for a base
	deltas=()
	for ((i = 0; i < 256; i++)); do deltas+=(d1.vmdk); done
	run -2 --separate-stderr vs "${deltas[@]}" want.raw
	refused '256 images are more than 254'
}

@test "images of different size are refused; --force=size reads them as qemu-img does" {
	"$MKVMDK" pattern host-flat.vmdk 3000 1
	cp host-flat.vmdk want.raw
	truncate -s $((5000 * 512)) want.raw
	descriptor host.vmdk 1 ffffffff vmfs '' 'RW 3000 VMFS "host-flat.vmdk"'
	"$MKVMDK" cowd a-delta.vmdk capacity=5000 alloc=10,2999-3001,4999 apply=want.raw
	descriptor a.vmdk 2 1 vmfsSparse host.vmdk 'RW 5000 VMFSSPARSE "a-delta.vmdk"'
	for mode in --full --chain; do
		run -2 --separate-stderr vs $mode --create a.vmdk got.raw
		refused 'a.vmdk: has 5000 sectors' 'parent host.vmdk has 3000' --force=size
	done
	run -0 --separate-stderr vs --full --force=size --create a.vmdk got.raw
	[[ $stderr == *'warning: a.vmdk: has 5000 sectors, its parent host.vmdk has 3000'* ]]
	same want.raw got.raw
	qemu-img convert -f vmdk -O raw a.vmdk qemu.raw
	same qemu.raw got.raw
	# --chain writes no zeros that no layer holds
	"$MKVMDK" pattern got.raw 5000 77
	cp got.raw chain.raw
	"$MKVMDK" cowd a-delta.vmdk capacity=5000 alloc=10,2999-3001,4999 apply=chain.raw
	run -0 vs --chain --force=size a.vmdk got.raw
	same chain.raw got.raw
	# what a grandparent has behind the end of the parent is not seen
	"$MKVMDK" cowd b-delta.vmdk capacity=3000 alloc=1,2900 apply=want.raw
	rm got.raw
	descriptor b.vmdk 3 2 vmfsSparse a.vmdk 'RW 3000 VMFSSPARSE "b-delta.vmdk"'
	run -2 --separate-stderr vs --full -q --create b.vmdk got.raw
	refused 'b.vmdk: has 3000 sectors' 'parent a.vmdk has 5000' --force=size
	run -0 vs --full --force=size --create b.vmdk got.raw
	head -c $((3000 * 512)) want.raw >head.raw
	same head.raw got.raw
	descriptor c.vmdk 4 3 vmfsSparse b.vmdk 'RW 5000 VMFSSPARSE "c-delta.vmdk"'
	truncate -s $((5000 * 512)) head.raw
	"$MKVMDK" cowd c-delta.vmdk capacity=5000 alloc=7,4000 apply=head.raw
	rm got.raw
	run -0 vs --full --force=size --create c.vmdk got.raw
	same head.raw got.raw
	# nor is it written by --chain
	"$MKVMDK" pattern got.raw 5000 77
	cp got.raw chain.raw
	"$MKVMDK" cowd a-delta.vmdk capacity=5000 alloc=10,2999 apply=chain.raw
	"$MKVMDK" cowd a-delta.vmdk capacity=5000 alloc=10,2999-3001,4999
	"$MKVMDK" cowd b-delta.vmdk capacity=3000 alloc=1,2900 apply=chain.raw
	"$MKVMDK" cowd c-delta.vmdk capacity=5000 alloc=7,4000 apply=chain.raw
	run -0 vs --chain --force=size c.vmdk got.raw
	same chain.raw got.raw
	# a raw disk beneath may be larger, as devices are, but not smaller
	rm got.raw
	run -2 --separate-stderr vs --full --base host-flat.vmdk --create a-delta.vmdk got.raw
	refused 'has 5000 sectors' 'parent host-flat.vmdk has 3000' --force=size
}

# hint TEXT [ENCODING]: what host-000001.vmdk calls its parent.
hint() {
	descriptor host-000001.vmdk 10000001 10000000 vmfsSparse "$1" \
		'RW 2048 VMFSSPARSE "host-000001-delta.vmdk"'
	[ -z "${2-}" ] || sed -i "s/^encoding=.*/encoding=\"$2\"/" host-000001.vmdk
}

@test "where a parent is found" {
	esx_chain 2048 1
	mkdir 'other place' far here
	cp host-000001-delta.vmdk here/
	mv host.vmdk host-flat.vmdk far/
	cd here || return

	for name in 'host.vmdk' 'a base #1 = α.vmdk' ' lead.vmdk' "it's.vmdk"; do
		# beside the child
		cp ../far/host.vmdk "$name"
		cp ../far/host-flat.vmdk .
		for h in "$name" "./$name" "E:\\obsd\\basedisk\\$name" "/vmfs/volumes/4e/vm/$name" \
			"\\\\server\\share\\$name" "sub\\$name" "../gone/$name" "C:$name"; do
			hint "$h"
			run -0 --separate-stderr vs --full --create host-000001.vmdk got.raw
			[[ $stderr != *': names '* ]]
			same ../host-1.raw got.raw
			rm got.raw
		done
		# in a search folder
		mv "$name" host-flat.vmdk '../other place/'
		for h in "$name" "E:\\obsd\\basedisk\\$name" "/vmfs/volumes/4e/vm/$name" "../gone/$name"; do
			hint "$h"
			run -2 --separate-stderr vs --full --create host-000001.vmdk got.raw
			refused 'not there'
			run -0 vs --search /nonexistent --search '../other place' --full --create \
				host-000001.vmdk got.raw
			same ../host-1.raw got.raw
			rm got.raw
		done
		# beneath, outside
		mkdir -p sub
		cp "../other place/"* sub/
		hint "sub/$name"
		run -0 --separate-stderr vs --confine --full --create host-000001.vmdk got.raw
		[[ $stderr != *': names '* ]]
		rm got.raw
		for h in "../other place/$name" "$PWD/../other place/$name"; do
			hint "$h"
			run -0 --separate-stderr vs --full --create host-000001.vmdk got.raw
			[[ $stderr == *'warning: '*'outside its folder, which is followed: '*"$name"* ]]
			same ../host-1.raw got.raw
			rm got.raw
			run -2 --separate-stderr vs --strict --full --create host-000001.vmdk got.raw
			refused outside
			run -2 --separate-stderr vs --confine --full --create host-000001.vmdk got.raw
			refused outside --confine
		done
		rm -r sub '../other place/'*
	done
}

@test "a descriptor with CRLF, in another encoding" {
	esx_chain 2048 1
	mv host.vmdk 'тест\.vmdk'
	hint "$(printf 'E:\\\\x\\\\\362\345\361\362\\\\.vmdk')" windows-1251
	mv 'тест\.vmdk' .vmdk
	whole host-000001.vmdk host-1.raw
	# the second byte of this character is that of a backslash
	mv .vmdk 'ソ.vmdk'
	hint "$(printf 'E:\\\\x\\\\\203\134.vmdk')" Shift_JIS
	sed -i 's/$/\r/' host-000001.vmdk 'ソ.vmdk'
	whole host-000001.vmdk host-1.raw
	# bytes that are no text in that encoding stay what they are
	mv 'ソ.vmdk' "$(printf 'x\377.vmdk')"
	hint "$(printf 'x\377.vmdk')"
	whole host-000001.vmdk host-1.raw
}

@test "of several files that may be the parent the one with the right CID is taken" {
	esx_chain 2048 1
	mkdir right wrong
	mv host.vmdk host-flat.vmdk right/
	sed s/^CID=.*/CID=bad/ right/host.vmdk >wrong/host.vmdk
	sed s/^CID=.*/CID=bad/ right/host.vmdk >host.vmdk
	cp right/host-flat.vmdk wrong/
	"$MKVMDK" pattern host-flat.vmdk 2048 99
	run -2 --separate-stderr vs --full --create host-000001.vmdk got.raw
	refused 00000bad
	run -0 vs --full --create --search wrong --search right host-000001.vmdk got.raw
	same host-1.raw got.raw
	# nor is a child its own parent because of its name
	mkdir clone
	cp host-000001.vmdk clone/host.vmdk
	cp host-000001-delta.vmdk clone/
	sed -i 's|^parentF.*|parentFileNameHint="../right/host.vmdk"|' clone/host.vmdk
	rm got.raw
	run -0 vs --full --create clone/host.vmdk got.raw
	same host-1.raw got.raw
	# a guess is said to be one
	cp right/host* clone/
	mv clone/host.vmdk clone/top.vmdk
	cp right/host.vmdk clone/
	sed 's|^parentF.*|parentFileNameHint="../right/host.vmdk"|' host-000001.vmdk >clone/top.vmdk
	run -0 --separate-stderr vs --verify clone/top.vmdk host-1.raw
	[[ $stderr == *'warning: clone/top.vmdk: names clone/../right/host.vmdk, which is there as well, but clone/host.vmdk is taken'* ]]
}

# beneath: --confine lets nothing out, whatever the way.
beneath() {
	local options=("$@")

	run -0 "${options[@]}" "$VMDKSYNC" --confine --full --create in/host-000001.vmdk got.raw
	same host-1.raw got.raw
	rm got.raw
	cp in/host.vmdk good.vmdk
	for line in 'RW 2048 VMFS "../host-0.raw"' "RW 2048 VMFS \"$PWD/host-0.raw\"" \
		'RW 2048 VMFS "link.raw"' 'RW 2048 VMFS "up/host-0.raw"' 'RW 2048 VMFS "sub/../../host-0.raw"' \
		'RW 2048 VMFS "absolute.raw"'; do
		descriptor in/host.vmdk 10000000 ffffffff vmfs '' "$line"
		run -0 "$VMDKSYNC" -q --full --create in/host-000001.vmdk got.raw
		same host-1.raw got.raw
		rm got.raw
		run -2 --separate-stderr "${options[@]}" "$VMDKSYNC" -q --confine --full --create \
			in/host-000001.vmdk got.raw
		refused --confine
	done
	cp good.vmdk in/host.vmdk
}

confined() {
	esx_chain 2048 1
	mkdir -p in/sub
	cp host.vmdk host-flat.vmdk host-000001* in/
	ln -s ../host-0.raw in/link.raw
	ln -s "$PWD/host-0.raw" in/absolute.raw
	ln -s .. in/up
}

@test "--confine: neither names nor symbolic links lead out" {
	confined
	beneath env
	# one that stays within is followed
	mv in/host.vmdk in/sub/host.vmdk
	mv in/host-flat.vmdk in/sub/
	ln -s sub/host.vmdk in/host.vmdk
	ln -s sub/host-flat.vmdk in/host-flat.vmdk
	run -0 vs --confine --full --create in/host-000001.vmdk got.raw
	# a folder named by hand is as good, but not what lies outside of it
	mkdir far
	mv in/sub/host* far/
	rm in/host.vmdk in/host-flat.vmdk
	rm got.raw
	run -0 vs --confine --search far --full --create in/host-000001.vmdk got.raw
	rm got.raw far/host.vmdk
	ln -s ../host.vmdk far/host.vmdk
	run -2 --separate-stderr vs --confine --search far --full --create in/host-000001.vmdk got.raw
	refused --confine
}

@test "--confine: the same where the kernel has no openat2" {
	requires strace
	confined
	beneath strace -f -o trace -e trace=openat2 -e inject=openat2:error=ENOSYS
	grep -q 'openat2.*INJECTED' trace
	# folders within are walked through, even by way of "."
	mv in/host-flat.vmdk in/sub/
	descriptor in/host.vmdk 10000000 ffffffff vmfs '' 'RW 2048 VMFS "./sub//host-flat.vmdk"'
	run -0 strace -qqf -o trace -e trace=openat2 -e inject=openat2:error=ENOSYS \
		"$VMDKSYNC" -q --confine --full --create in/host-000001.vmdk got.raw
	same host-1.raw got.raw
}

@test "a parent that is a FIFO, a device, a folder or no VMDK at all" {
	esx_chain 2048 1
	rm host.vmdk
	mkfifo host.vmdk
	run -2 --separate-stderr timeout 120 "$VMDKSYNC" --full --create host-000001.vmdk got.raw
	refused 'a FIFO'
	rm host.vmdk
	mkdir host.vmdk
	run -2 --separate-stderr vs --full --create host-000001.vmdk got.raw
	refused 'a directory'
	rmdir host.vmdk
	"$MKVMDK" pattern host.vmdk 2048
	run -2 --separate-stderr vs --full --create host-000001.vmdk got.raw
	refused host.vmdk 'not a recognized VMDK'
}

@test "forty extents of odd sizes on forty others" {
	local i n=0 total=0 at=0 lines=()

	: >want.raw
	for i in {1..40}; do
		n=$((i * 37 % 211 + 1))
		"$MKVMDK" pattern one.raw $n "$i"
		case $((i % 3)) in
		0)
			rm one.raw
			truncate -s $((n * 512)) one.raw
			lines+=("RW $n ZERO")
			;;
		1)
			cp one.raw "f$i.raw"
			lines+=("RW $n FLAT \"f$i.raw\" 0")
			;;
		2)
			"$MKVMDK" hosted "s$i.vmdk" capacity=$n alloc=all desc=0 seed="$i"
			lines+=("RW $n SPARSE \"s$i.vmdk\"")
			;;
		esac
		cat one.raw >>want.raw
		total=$((total + n))
	done
	descriptor base.vmdk 1 ffffffff custom '' "${lines[@]}"
	whole base.vmdk want.raw

	# the same total in forty extents of other sizes, each with a hole in its middle
	lines=()
	for ((i = 1; at < total; i++)); do
		n=$((i < 40 && total - at > i * 13 % 190 + 3 ? i * 13 % 190 + 3 : total - at))
		tail -c +$((at * 512 + 1)) want.raw | head -c $((n * 512)) >one.raw
		"$MKVMDK" hosted "t$i.vmdk" capacity=$n grain=1 alloc=0,last zero=$((n / 2)) version=2 flags=5 \
			desc=0 seed=$((i + 50)) apply=one.raw
		dd if=one.raw of=want.raw bs=512 seek=$at conv=notrunc status=none
		lines+=("RW $n SPARSE \"t$i.vmdk\"")
		at=$((at + n))
	done
	descriptor top.vmdk 2 1 twoGbMaxExtentSparse base.vmdk "${lines[@]}"
	[ "${#lines[@]}" -ge 35 ]
	whole top.vmdk want.raw
}
