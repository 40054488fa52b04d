# SPDX-License-Identifier: MIT
# --info, --map and --json.

# bats file_tags=quick

load helpers

setup() {
	requires jq
	cd "$BATS_TEST_TMPDIR" || return
}

@test "--info of a chain: amounts, CIDs, files, warnings" {
	esx_chain 20485 2
	run -0 --separate-stderr vs --info host-000002.vmdk
	[ -z "$stderr" ]
	diff - <(grep -v ': read as zeros' <<<"$output") <<-'END'
	host-000002.vmdk: 10.0 MiB (10488320 bytes), holds 10.0 MiB in 96 runs
	  image             kind       size      holds  CID       checked
	  host-000002.vmdk  COWD   10.0 MiB   42.5 KiB  10000002
	  host-000001.vmdk  COWD   10.0 MiB   47.5 KiB  10000001  yes
	  host.vmdk         flat   10.0 MiB   10.0 MiB  10000000  yes
	  next: vmdksync --dry-run --chain host-000002.vmdk TARGET
	END
	[[ $output == *$'\n  warning: '*'read as zeros'* ]]
	[[ $output != *incomplete* && $output != *GiB* ]]
	# with -v all that is known of each
	run -0 --separate-stderr vs --info -v host-000002.vmdk
	[[ $output == *$'\nhost-000002.vmdk: COWD version 1\n  disk '*'(10488320 bytes), grains of 512 bytes'* ]]
	[[ $output == *$'\n  parent  CID 10000001, host-000001.vmdk\n  host-000001.vmdk: COWD'* ]]
	[[ $output == *$'\n    host.vmdk: flat\n'* ]]
	# what is still to be written takes other room then
	sync ./*
	vs --info --json host-000002.vmdk >j
	[ "$(wc -l <j)" = 1 ]
	jq -e '.images[0] | .complete and .incomplete_reason == null and (.warnings | length) == 2 and
		.size == 10488320 and .data + .zero == .size and .unallocated == 0' j
	jq -e '[.images[0].chain[] | [.cid, .parent_cid, .parent_hint, .create_type]] == [
		["10000002", "10000001", "host-000001.vmdk", "vmfsSparse"],
		["10000001", "10000000", "host.vmdk", "vmfsSparse"],
		["10000000", null, null, "vmfs"]]' j
	for i in 0 1 2; do
		jq -c ".images[0].chain[$i].files[]" j | while read -r f; do
			name=$(jq -r .name <<<"$f")
			[ "$(jq -r .size <<<"$f")" = "$(stat -c %s "$name")" ]
			[ "$(jq -r .allocated <<<"$f")" = $(($(stat -c %b "$name") * 512)) ]
		done
	done
	# each layer is what it is alone
	vs --dry-run --json host-000002-delta.vmdk host-2.raw >one
	jq -e --slurpfile one one '.images[0].chain[0] | [.data, .zero, .runs, .unallocated] ==
		($one[0] | [.data, .zero, .runs, .unallocated])' j
}

@test "--info tells what is wrong with the parents, and is content" {
	esx_chain 2048 2
	mv host.vmdk away
	run -0 --separate-stderr vs --info host-000002.vmdk
	[[ $output == *'incomplete: host-000001.vmdk: its parent (CID 10000000) is not there'* ]]
	vs --info --json host-000002.vmdk | jq -e '.images[0] | .complete == false and .unallocated > 0 and
		(.incomplete_reason | contains("not there")) and (.chain | length) == 2'
	sed s/^CID=.*/CID=77/ away >host.vmdk
	vs --info --json host-000002.vmdk | jq -e '.images[0].incomplete_reason | contains("CID 00000077")'
	vs --info --json host-000002-delta.vmdk | jq -e '.images[0].incomplete_reason | contains("CID 00000077")'
	cp host-000002-delta.vmdk alone.vmdk
	vs --info --json alone.vmdk | jq -e '.images[0].incomplete_reason | contains("no descriptor")'
	run -2 --separate-stderr vs --info --json host-000002.vmdk missing.vmdk
	[ "$(jq -r '.error | "\(.code) \(.file)"' <<<"$output")" = 'not_found missing.vmdk' ]
	[ "${#stderr_lines[@]}" = 1 ]
	printf X | dd of=host-000001-delta.vmdk bs=1 seek=2051 conv=notrunc status=none
	run -2 --separate-stderr vs --info host-000002.vmdk
	[ -z "$output" ]
	[[ $stderr == *host-000001-delta.vmdk* ]]
}

@test "--info of each format" {
	for kind in 'cowd COWD' 'hosted hosted sparse' 'sesparse SEsparse' 'stream streamOptimized'; do
		"$MKVMDK" "${kind%% *}" one.vmdk capacity=20480 grain=8 alloc=0,5,9 2>/dev/null ||
			"$MKVMDK" "${kind%% *}" one.vmdk capacity=20480 alloc=0,5,9
		vs --info --json one.vmdk | jq -e --arg format "${kind#* }" '.images[0].chain[0] |
			.format == $format and .data == 3 * .grain and .data + .unallocated == .size'
	done
}

@test "names that are no text, or full of signs, make sound JSON" {
	"$MKVMDK" pattern flat.raw 100
	for name in $'a"b\\c\td\ne.vmdk' $'x\377\376y.vmdk' 'ünï.vmdk' $'cut\303'; do
		descriptor "$name" 1 ffffffff vmfs '' 'RW 100 VMFS "flat.raw"'
		vs --info --json "$name" | iconv -f utf-8 -t utf-8 | jq -e '.images[0].size == 51200'
		vs --map --json "$name" | iconv -f utf-8 -t utf-8 | jq -e '.map[0].length == 51200'
	done
}

# as_qemu TOP: the map is that of qemu-img, stretch by stretch.
as_qemu() {
	cat >data.jq <<-'END'
	[(.map? // .)[] | select(.data and (.zero | not)) | {start, length, depth, offset}] |
	reduce .[] as $r ([]; if length > 0 and .[-1].depth == $r.depth and
		.[-1].start + .[-1].length == $r.start and .[-1].offset + .[-1].length == $r.offset
		then .[-1].length += $r.length else . + [$r] end)
	END
	vs -q --map --json "$1" >map.json
	qemu-img map --output=json "$1" >qemu.json
	diff <(jq -f data.jq map.json) <(jq -f data.jq qemu.json)
	[ "$(jq ".map | length" map.json)" -gt 10 ]
}

# bats test_tags=slow
@test "--map is that of qemu-img" {
	requires qemu-img
	esx_chain 20485 0
	before=host.vmdk parent=10000000
	for i in 1 2 3; do
		"$MKVMDK" hosted "h$i.vmdk" capacity=20485 grain=8 alloc=runs:20:1:9 seed=$i parentcid=$parent \
			parent=$before
		before=h$i.vmdk parent=aabbccdd
		as_qemu "$before"
	done
	"$MKVMDK" cowd c-delta.vmdk capacity=20485 alloc=runs:20:1:9 seed=9
	descriptor c.vmdk 77 aabbccdd vmfsSparse h3.vmdk 'RW 20485 VMFSSPARSE "c-delta.vmdk"'
	as_qemu c.vmdk
}

@test "--map covers the disk once, in order; of a bare delta what it holds" {
	"$MKVMDK" hosted a.vmdk capacity=20485 alloc=every:3 zero=1,4 version=2 flags=5 parentcid=ffffffff
	vs --map --json a.vmdk | jq -e '.map | (map(.length) | add) == 10488320 and
		([range(1; length) as $i | .[$i].start == .[$i-1].start + .[$i-1].length] | all) and
		([.[] | select(.present | not) | .zero and .depth == null and .layer == null] | all) and
		([.[] | select(.data) | .file == "a.vmdk"] | all) and
		([.[] | select(.zero and .present) | .layer == "a.vmdk"] | length) == 2'
	"$MKVMDK" cowd b.vmdk capacity=2048 alloc=5-9,20
	vs --map --json b.vmdk | jq -e '.map | map([.start, .length]) == [[2560, 2560], [10240, 512]]'
	run -0 vs --map b.vmdk
	[ "${#lines[@]}" = 3 ]
	[[ ${lines[1]} =~ ^2560\ +2560\ +[0-9]+\ +b.vmdk$ ]]
	run -0 vs --map a.vmdk
	[[ ${lines[2]} =~ ^65536\ +65536\ +zeros\ +a.vmdk$ ]]
	[[ ${lines[3]} =~ ^131072\ +65536\ +nothing\ *$ ]]
	"$MKVMDK" stream s.vmdk capacity=2048 grain=16 alloc=7
	run -0 vs --map s.vmdk
	[[ ${lines[2]} =~ ^57344\ +8192\ +compressed\ +s.vmdk$ ]]
	# its bytes are there
	read -r at < <(vs --map --json b.vmdk | jq '.map[1].offset')
	"$MKVMDK" pattern want.raw 1
	truncate -s 1M got.raw
	vs -q b.vmdk got.raw
	cmp <(tail -c +$((at + 1)) b.vmdk | head -c 512) <(tail -c +10241 got.raw | head -c 512)
}

@test "--json of apply, dry run and verify" {
	esx_chain 20485 2
	cp host-0.raw got.raw
	vs -q --json --dry-run --chain host-000002.vmdk got.raw 2>/dev/null >dry
	vs -q --json --chain host-000002.vmdk got.raw >apply
	vs -q --json --verify host-000002.vmdk got.raw >verify
	jq -e '.job == "dry-run" and .written == null and .full_disk == false and .size == 10488320' dry
	jq -e --slurpfile dry dry '.job == "apply" and .data == $dry[0].data and
		.target == {"name": "got.raw", "kind": "file", "size": 10488320} and
		.written == .data and .zeroed == .zero and .writes > 0 and .unallocated > 0 and .equal == null and
		(.chain | length) == 3' apply
	jq -e '.job == "verify" and .full_disk and .equal and .differences == [] and .different == 0 and
		.unallocated == 0 and .written == null' verify
	printf X | dd of=got.raw bs=1 seek=5000000 conv=notrunc status=none
	status=0
	vs -q --json --verify host-000002.vmdk got.raw >verify || status=$?
	[ "$status" = 1 ]
	[ "$(wc -l <verify)" = 1 ]
	jq -e '.equal == false and .different == 1 and .ranges == 1 and
		.differences == [{"start": 5000000, "length": 1, "zero": false, "layer": "host.vmdk"}]' verify
	vs -q --json --read-back --chain host-000002.vmdk got.raw | jq -e .equal
	cp host-0.raw piped.raw
	# shellcheck disable=SC2002 # a pipe is meant
	cat host-000001-delta.vmdk | vs -q --json - piped.raw | jq -e '.job == "apply" and .written > 0 and
		.data == .written and .zero == .zeroed and .unallocated + .data + .zero == .size'
	same host-1.raw piped.raw
	run -2 --separate-stderr vs --json --chain host-000002.vmdk missing.raw
	jq -e '.error.code == "not_found" and .target == {"name": "missing.raw", "kind": null, "size": null}' <<<"$output"
	status=0
	"$VMDKSYNC" --json -q --info host-000002.vmdk >/dev/full 2>/dev/null || status=$?
	[ "$status" = 2 ]
	# what was written is no untouched target
	cp host-0.raw got.raw
	status=0
	"$VMDKSYNC" --json -q --chain host-000002.vmdk got.raw >/dev/full 2>/dev/null || status=$?
	[ "$status" = 3 ]
	same host-2.raw got.raw
}

# bare_chain: the descriptors of three links and none of their extents
bare_chain() {
	descriptor base.vmdk 10000000 ffffffff vmfs '' 'RW 2048 VMFS "base-flat.vmdk"'
	descriptor one.vmdk 10000001 10000000 vmfsSparse base.vmdk 'RW 2048 VMFSSPARSE "one-delta.vmdk"'
	descriptor two.vmdk 10000002 10000001 seSparse one.vmdk 'RW 1024 SESPARSE "two.vmdk"' 'RW 1024 SESPARSE "b"'
}

@test "--info --descriptors: the chain without its extents, and what is refused in it" {
	bare_chain
	run -2 vs --info --json two.vmdk
	vs --info --json --descriptors two.vmdk >j
	jq -e '.images[0] | .complete and .incomplete_reason == null and .size == 1048576 and (has("data") | not)' j
	jq -ec '[.images[0].chain[] | [.name, .cid, .parent_cid, .parent_hint, .create_type, .size]] == [
		["two.vmdk", "10000002", "10000001", "one.vmdk", "seSparse", 1048576],
		["one.vmdk", "10000001", "10000000", "base.vmdk", "vmfsSparse", 1048576],
		["base.vmdk", "10000000", null, null, "vmfs", 1048576]]' j
	jq -e '.images[0].chain[0].extents == [
		{"type": "SESPARSE", "size": 524288, "offset": 0, "file": "two.vmdk"},
		{"type": "SESPARSE", "size": 524288, "offset": 0, "file": "b"}]' j
	jq -e '.families == []' j
	run -0 vs --info --descriptors two.vmdk
	[[ $output == *'extent  VMFSSPARSE, 1.0 MiB: one-delta.vmdk'* ]]
	[[ $output == *'parent  CID 10000000, base.vmdk'* ]]
	# a parent that is not there, or another one
	mv base.vmdk away
	vs --info --json --descriptors two.vmdk | jq -e '.images[0] | .complete == false and
		(.incomplete_reason | contains("not there")) and (.chain | length) == 2'
	sed s/^CID=.*/CID=77/ away >base.vmdk
	vs --info --json --descriptors two.vmdk | jq -e '.images[0].incomplete_reason | contains("CID 00000077")'
	# of each kind that cannot be copied, as the image and as a parent
	while IFS='|' read -r word from to; do
		sed "s|$from|$to|" away >base.vmdk
		run -2 vs --info --descriptors base.vmdk
		[[ $output == *"$word"* ]]
		vs --info --json --descriptors two.vmdk | jq -e --arg word "$word" '.images[0] |
			.complete == false and (.incomplete_reason | contains($word))'
	done <<-'END'
	encrypted|^version=1|version=1\nencryptionKeys="vmware:key/list"
	raw device mapping|RW 2048 VMFS |RW 2048 VMFSRDM 
	raw device mapping|vmfs"|vmfsPassthroughRawDeviceMap"
	vSAN|base-flat.vmdk|vsan://52c5/x
	vVol|base-flat.vmdk|vvol://52c5/x
	END
	sed 's/^version=1/&\nisNativeSnapshot="yes"/' one.vmdk >native.vmdk
	run -2 vs --info --descriptors native.vmdk
	[[ $output == *'native snapshot'* ]]
	# nothing else is read
	"$MKVMDK" cowd one-delta.vmdk capacity=2048 alloc=1
	run -2 vs --info --descriptors one-delta.vmdk
	[[ $output == *'not a text descriptor'* ]]
	run -2 vs --descriptors one.vmdk base.vmdk
	[[ $output == *'--descriptors is for --info'* ]]
}

@test "--info of a folder, and of a .vmx file: the newest links, and the command for each" {
	mkdir vm other
	cd vm || return
	esx_chain 2048 2
	"$MKVMDK" hosted 'my disk.vmdk' capacity=2048 grain=8 alloc=1-9 parentcid=ffffffff
	"$MKVMDK" cowd bare-delta.vmdk capacity=2048 alloc=5
	echo text >notes.vmdk
	mkfifo pipe.vmdk
	ln -s /dev/null device.vmdk
	cat >vm.vmx <<-'END'
	.encoding = "UTF-8"
	scsi0:0.fileName = "host-000002.vmdk"
	scsi0:1.fileName = "/vmfs/volumes/ds/vm/my disk.vmdk"
	ide1:0.fileName = "/vmfs/volumes/iso/cd.iso"
	END
	cd .. || return
	for name in vm vm/ "$PWD/vm"; do
		run -0 timeout 20 "$VMDKSYNC" --info "$name"
		diff - <(grep '  next: ' <<<"$output") <<-END
		  next: vmdksync --dry-run ${name%/}/bare-delta.vmdk TARGET
		  next: vmdksync --dry-run --chain ${name%/}/host-000002.vmdk TARGET
		  next: vmdksync --full --create '${name%/}/my disk.vmdk' NEW.raw
		END
	done
	run -0 vs --info vm/vm.vmx
	diff - <(grep '  next: ' <<<"$output") <<-'END'
	  next: vmdksync --dry-run --chain vm/host-000002.vmdk TARGET
	  next: vmdksync --full --create 'vm/my disk.vmdk' NEW.raw
	END
	# what it says is to be done can be done
	cp vm/host-0.raw TARGET
	bash -c "PATH=${VMDKSYNC%/*}:$PATH; $(sed -n 's/  next: //p' <<<"$output")"
	[ "$(stat -c %s NEW.raw)" = 1048576 ]
	vs --info --json vm | jq -e '[.images[].name] == ["vm/bare-delta.vmdk", "vm/host-000002.vmdk", "vm/my disk.vmdk"]'
	vs --info --json --descriptors vm/vm.vmx || [ "$?" = 2 ]
	# one that cannot be read is a warning, and hides no other
	mv vm/host-000002-delta.vmdk .
	run -0 --separate-stderr vs --info vm
	[[ $output == *bare-delta.vmdk* && $output == *'my disk.vmdk'* ]]
	[[ $stderr == *'warning: '*host-000002-delta.vmdk* ]]
	run -2 vs --info --strict vm
	run -2 vs --info other
	[[ $output == *'other: holds no VMDK that can be read'* ]]
	echo nothing >other/x.vmx
	run -2 vs --info other/x.vmx
	[[ $output == *'x.vmx: names no disk'* ]]
	run -2 vs --info missing
	# a name that a shell would take apart
	cp vm/bare-delta.vmdk $'other/a\nb\'c.vmdk'
	run -0 vs --info other
	bash -c "PATH=${VMDKSYNC%/*}:$PATH; $(sed -n 's/  next: //p' <<<"$output")"
}
