# SPDX-License-Identifier: MIT
# --undo: what was overwritten comes back, whatever happened in between.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# made FORMAT CAPACITY KEY=VALUE...: d.vmdk; t, t.orig hold a pattern, want what d.vmdk makes of it.
made() {
	"$MKVMDK" pattern t.orig "$2" 9
	cp t.orig t
	cp t.orig want
	rm -f undo.vmdk
	"$MKVMDK" "$1" d.vmdk capacity="$2" "${@:3}" apply=want
}

recipes() {
	cat <<-'END'
	cowd 20481 alloc=random:900+last zero=runs:9:1:300
	cowd 9000 alloc=every:3 grain=1
	cowd 50001 alloc=all
	cowd 1 alloc=all
	hosted 40967 grain=128 alloc=random:90+last zero=random:30
	hosted 40967 grain=8 alloc=runs:60:1:40 zero=runs:20:1:60
	sesparse 65544 alloc=random:500 zero=runs:9:1:200 unmapped=random:100
	stream 40965 grain=16 alloc=runs:60:1:20+last layout=random lastgrain=short
	stream 33333 grain=128 alloc=all
	stream 4096 alloc=none
	END
}

@test "there, back, and there again by the undo of the undo: every format, ring and in line" {
	mode=
	while read -r format capacity keys; do
		echo "--- $format $capacity $keys $mode"
		# shellcheck disable=SC2086 # words are meant
		made "$format" "$capacity" $keys
		rm -f redo.vmdk
		# shellcheck disable=SC2086 # may be nothing
		vs -q $mode --undo=undo.vmdk d.vmdk t
		same t want
		# shellcheck disable=SC2086
		vs -q --strict $mode --undo redo.vmdk undo.vmdk t
		same t t.orig
		vs -q --strict redo.vmdk t
		same t want
		vs -q undo.vmdk t
		same t t.orig
		if [ "$mode" ]; then mode=; else mode=--no-uring; fi
	done < <(recipes)
}

@test "a thin target, with holes punched into it" {
	truncate -s 40M t.orig
	"$MKVMDK" pattern p 20480 5
	dd if=p of=t.orig bs=64K conv=notrunc,sparse seek=7 status=none
	cp --sparse=always t.orig t
	cp t.orig want
	"$MKVMDK" hosted d.vmdk capacity=81920 grain=16 alloc=random:300 zero=runs:100:1:30 apply=want
	vs -q --undo undo.vmdk d.vmdk t
	same t want
	vs -q undo.vmdk t
	same t t.orig
}

@test "neighbouring zeros of a log are one hole, not one for each grain of it" {
	truncate -s 40M t.orig
	cp t.orig t
	"$MKVMDK" hosted d.vmdk capacity=81920 tables=all alloc=0-63,100
	vs -q --undo undo.vmdk d.vmdk t
	cp t t2
	run -0 --separate-stderr vs --json undo.vmdk t
	grep -qF '"runs": 2,' <<<"$output"
	same t t.orig
	run -0 --separate-stderr vs --json - t2 < <(cat undo.vmdk)
	grep -qF '"runs": 2,' <<<"$output"
	same t2 t.orig
}

@test "a target larger than the disk keeps what lies behind, both ways" {
	made cowd 4097 alloc=random:300+last zero=random:50
	for f in t t.orig want; do
		yes tail | head -c 70001 >>"$f"
	done
	vs -q --undo undo.vmdk d.vmdk t
	same t want
	vs -q undo.vmdk t
	same t t.orig
}

@test "block devices with sectors of 512 and of 4096 bytes" {
	requires loop
	for sector in 512 4096; do
		made cowd 40960 alloc=random:900 zero=runs:9:1:300
		dev=$(loopdev t "$sector")
		vs -q --undo undo.vmdk d.vmdk "$dev"
		cmp "$dev" want
		vs -q undo.vmdk "$dev"
		cmp "$dev" t.orig
		rm undo.vmdk
	done
}

@test "the log is a streamOptimized VMDK: qemu-img reads it over the changed target" {
	requires qemu-img
	made hosted 40967 grain=16 alloc=random:90+last zero=random:30
	vs -q --undo undo.vmdk d.vmdk t
	qemu-img check -f vmdk undo.vmdk
	qemu-img info undo.vmdk | grep 'create type: streamOptimized'
	# unsaved grains are none of the log's: as a disk of its own they are zeros
	truncate -s $((40967 * 512)) saved
	vs -q --force=disk undo.vmdk saved
	qemu-img convert -f vmdk -O raw undo.vmdk theirs
	same theirs saved
	# the target, dressed up as the parent
	cat >parent.vmdk <<-END
	# Disk DescriptorFile
	version=1
	CID=$(grep -a '^parentCID=' undo.vmdk | cut -d= -f2)
	parentCID=ffffffff
	createType="monolithicFlat"
	RW 40967 FLAT "t" 0
	END
	qemu-img convert -O raw --image-opts \
		driver=vmdk,file.filename=undo.vmdk,backing.driver=vmdk,backing.file.filename=parent.vmdk \
		theirs
	same theirs t.orig
	same t want
}

@test "several deltas in one pass, and deltas through a pipe, in any order" {
	"$MKVMDK" pattern t.orig 40967 9
	cp t.orig want
	"$MKVMDK" cowd a.vmdk capacity=40967 alloc=random:900 zero=runs:9:1:300 seed=1 apply=want
	"$MKVMDK" hosted b.vmdk capacity=40967 grain=16 alloc=random:200+last zero=random:90 seed=2 apply=want
	"$MKVMDK" hosted c.vmdk capacity=40967 grain=8 alloc=random:400 seed=3 apply=want
	cp t.orig t
	vs -q --undo undo.vmdk a.vmdk b.vmdk c.vmdk t
	same t want
	vs -q undo.vmdk t
	same t t.orig
	for keys in 'cowd alloc=random:2000 zero=runs:9:1:300' 'cowd alloc=random:500 layout=random' \
		'hosted grain=16 alloc=random:200 layout=reverse' \
		'stream variant=A grain=16 alloc=random:200+last layout=random' \
		'stream variant=C grain=128 alloc=all layout=reverse'; do
		echo "--- $keys"
		cp t.orig want
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" ${keys%% *} p.vmdk capacity=40967 ${keys#* } apply=want
		rm undo.vmdk
		# shellcheck disable=SC2002 # a pipe is meant
		cat p.vmdk | vs -q --undo undo.vmdk - t
		same t want
		# the log through a pipe, too
		# shellcheck disable=SC2002
		cat undo.vmdk | vs -q - t
		same t t.orig
		vs -q --strict undo.vmdk t
		same t t.orig
	done
}

@test "only what is overwritten is saved, and only once" {
	made cowd 204800 alloc=1000-1003,1009,2000-2007 zero=9000-9100
	vs -q --undo undo.vmdk d.vmdk t
	# grains of 4 KiB: 125, 126, 250 and 1125 to 1137
	[ "$(vs --dry-run undo.vmdk t 2>&1 | sed -n 's/.*of data (\([0-9]*\) bytes.*/\1/p')" = $((16 * 4096)) ]
}

@test "stopped by a signal before its end, it goes back or on" {
	requires strace
	made cowd 40960 alloc=all
	for way in back on; do
		cp t.orig t
		rm -f undo.vmdk
		# the first barrier brings the signal
		run -3 --separate-stderr strace -qqf -o /dev/null -e trace=fdatasync \
			-e inject=fdatasync:signal=TERM:when=2 "$VMDKSYNC" --undo undo.vmdk d.vmdk t
		echo "$stderr"
		[[ $stderr == *'stopped by a signal after '*' bytes; running again with --undo-append is safe'* ]]
		run -1 cmp -s t t.orig
		if [ $way = on ]; then
			run -2 vs -q --undo undo.vmdk d.vmdk t
			vs -q --undo undo.vmdk --undo-append d.vmdk t
			same t want
		fi
		vs -q undo.vmdk t
		same t t.orig
	done
}

@test "a full disk of the log ends the run before anything is lost" {
	made cowd 40960 alloc=all
	# shellcheck disable=SC2016 # for the bash inside
	run -3 --separate-stderr bash -c 'ulimit -f 13000; exec "$0" --undo undo.vmdk d.vmdk t' "$VMDKSYNC"
	echo "$stderr"
	[[ ${stderr_lines[0]} == 'vmdksync: undo.vmdk: writing the undo log at byte '*': File too large' ]]
	run -1 cmp -s t t.orig
	cp t stopped
	vs -q undo.vmdk t
	same t t.orig
	# or with more room
	cp stopped t
	vs -q --undo undo.vmdk --undo-append d.vmdk t
	same t want
	vs -q undo.vmdk t
	same t t.orig
	# no room for the log at all: nothing is touched, nothing stands in the way of the next run
	rm undo.vmdk
	# shellcheck disable=SC2016
	run -2 --separate-stderr bash -c 'ulimit -f 30; exec "$0" --undo undo.vmdk d.vmdk t' "$VMDKSYNC"
	same t t.orig
	[ ! -e undo.vmdk ]
}

@test "a log that was finished and then cut short is refused, one that was not is read" {
	made cowd 4096 alloc=random:500
	vs -q --undo undo.vmdk d.vmdk t
	cp undo.vmdk whole.vmdk
	for cut in 1025 70000 200000; do
		cp whole.vmdk undo.vmdk
		truncate -s -$cut undo.vmdk
		run -2 vs undo.vmdk t
		same t want
	done
	vs -q whole.vmdk t
	same t t.orig
}

# refused WORDS OPTION...: exit 2, one line that holds the words, the target untouched, no new files.
refused() {
	local before

	before=$(ls --ignore='separate-stderr*')
	run -2 --separate-stderr vs "${@:2}" d.vmdk t
	echo "$stderr"
	[[ ${stderr_lines[0]} == *"$1"* ]]
	same t t.orig
	diff <(echo "$before") <(ls --ignore='separate-stderr*')
}

@test "FILE is refused where it exists, is an input or the target, or cannot be made" {
	made cowd 4096 alloc=random:500
	echo something >exists
	ln -s nowhere link
	refused 'exists already' --undo exists
	refused 'exists already' --undo link
	[ ! -e nowhere ]
	refused 'is the target' --undo t
	refused 'is the target' --undo t --undo-append
	refused 'is one of the inputs' --undo d.vmdk
	refused 'is one of the inputs' --undo ./d.vmdk --undo-append
	refused 'No such file or directory' --undo none/undo.vmdk
	refused 'No such file or directory' --undo undo.vmdk --undo-append
	refused 'is not an unfinished undo log' --undo exists --undo-append
	refused 'exists already' --dry-run --undo exists
	refused '--undo-append' --undo-append
	refused '--create' --undo undo.vmdk --create
	refused '--verify' --undo undo.vmdk --verify
	vs -q --dry-run --undo undo.vmdk d.vmdk t
	[ ! -e undo.vmdk ]
	# a log that is done is not gone on with, nor one of another disk
	vs -q --undo undo.vmdk d.vmdk t
	cp t.orig t
	refused 'is a finished undo log' --undo undo.vmdk --undo-append
	"$MKVMDK" pattern t.orig 5000 9
	cp t.orig t
	"$MKVMDK" cowd d.vmdk capacity=5000 alloc=random:500
	refused 'is not an unfinished undo log of a disk of 2560000 bytes' --undo undo.vmdk --undo-append
}

@test "the log is not readable by others" {
	made cowd 4096 alloc=random:500
	vs -q --undo undo.vmdk d.vmdk t
	[ "$(stat -c %a undo.vmdk)" = 600 ]
}

@test "the log and its name are durable before the first write to the target" {
	requires strace
	made cowd 4096 alloc=random:500
	# in line: the ring's writes are no system calls
	strace -f -y -o trace -e trace=pwrite64,fdatasync,fsync "$VMDKSYNC" -q --no-uring \
		--undo undo.vmdk d.vmdk t
	cat trace
	first=$(grep -n 'pwrite64([0-9]*<[^>]*/t>' trace | head -n 1 | cut -d: -f1)
	synced=$(grep -n 'fdatasync([0-9]*<[^>]*/undo.vmdk>) *= 0' trace | cut -d: -f1 |
		awk -v f="$first" '$1 < f' | tail -n 1)
	logged=$(grep -n 'pwrite64([0-9]*<[^>]*/undo.vmdk>' trace | cut -d: -f1 |
		awk -v f="$first" '$1 < f' | tail -n 1)
	folder=$(grep -n "fsync([0-9]*<[^>]*${PWD##*/}>) *= 0" trace | head -n 1 | cut -d: -f1)
	[ "$logged" -lt "$synced" ]
	[ "$synced" -lt "$first" ]
	[ "$folder" -lt "$first" ]
}

# killed_with_log N: d.vmdk goes onto t, with undo.vmdk, and is killed when that is synced for the Nth
# time.
killed_with_log() {
	run strace -qqf -o /dev/null -e trace=fdatasync -e "inject=fdatasync:signal=KILL:when=$1" \
		"$VMDKSYNC" --undo undo.vmdk d.vmdk t
	[ "$status" != 0 ]
}

@test "--undo-append: the log of another disk, and a disk that changed since, are refused" {
	requires strace
	made cowd 40960 alloc=20000-40000
	killed_with_log 3
	run -1 cmp -s t t.orig
	cp undo.vmdk log
	cp t stopped
	# what the log has not saved differs: at the beginning, in the first partition, between, at the end
	for at in 0 4097 65535 1048576 1049600 6549507 20971519; do
		cp stopped t
		printf x | dd of=t bs=1 seek=$at conv=notrunc status=none
		cp t other
		run -2 --separate-stderr vs --undo undo.vmdk --undo-append d.vmdk t
		echo "$at: $stderr"
		[[ $stderr == 'vmdksync: undo.vmdk: is the log of another disk, or t was written to without it since: bytes '* ]]
		same t other
		# nothing is lost of it
		cp stopped t
		vs -q undo.vmdk t
		same t t.orig
	done
	# a disk that the log was never of, and one that a run without it has written to
	"$MKVMDK" pattern t 40960 10
	run -2 vs --undo undo.vmdk --undo-append d.vmdk t
	made cowd 40960 alloc=all
	killed_with_log 3
	cp t stopped
	vs -q d.vmdk t
	run -2 vs --undo undo.vmdk --undo-append d.vmdk t
	same t want
	# and the right one goes on
	cp stopped t
	vs -q --undo undo.vmdk --undo-append d.vmdk t
	same t want
	vs -q undo.vmdk t
	same t t.orig
}

@test "--undo-append: the same disk under another name, and another delta, through a pipe" {
	requires strace
	made cowd 40960 alloc=random:30000
	killed_with_log 4
	run -1 cmp -s t t.orig
	"$MKVMDK" hosted other.vmdk capacity=40960 grain=8 alloc=random:3000 zero=random:900 seed=2
	ln t renamed
	run -2 --separate-stderr vs --strict --undo undo.vmdk --undo-append other.vmdk renamed
	[[ $stderr == *'undo.vmdk: was begun for t, and is resumed with renamed'* ]]
	# stopped once more, or not
	run strace -qqf -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=TERM:when=4 \
		"$VMDKSYNC" --undo undo.vmdk --undo-append d.vmdk renamed
	[ "$status" = 3 ]
	[[ $output == *'warning: undo.vmdk: was begun for t, and is resumed with renamed'* ]]
	vs -q --undo undo.vmdk --undo-append - t < <(cat other.vmdk)
	vs -q undo.vmdk t
	same t t.orig
}

@test "--undo-append: a log of which a crash left a part of its head is begun again" {
	requires strace
	made cowd 4096 alloc=random:500
	killed_with_log 1
	same t t.orig
	cp undo.vmdk head
	[ "$(stat -c %s head)" = 65536 ]
	for size in 0 512 4096 65535 65536; do
		for what in head zeros; do
			cp t.orig t
			rm undo.vmdk
			[ $what = zeros ] || cp head undo.vmdk
			truncate -s $size undo.vmdk
			vs -q --undo undo.vmdk --undo-append d.vmdk t
			same t want
			vs -q --strict undo.vmdk t
			same t t.orig
		done
	done
	# but nothing that could be somebody's
	for size in 65537 1048576; do
		rm undo.vmdk
		truncate -s $size undo.vmdk
		run -2 vs -q --undo undo.vmdk --undo-append d.vmdk t
	done
	truncate -s 0 undo.vmdk
	echo mine >undo.vmdk
	run -2 vs -q --undo undo.vmdk --undo-append d.vmdk t
	[ "$(<undo.vmdk)" = mine ]
	same t t.orig
}

# A power failure keeps of the log what was synced, and no more; SIGKILL keeps all, so it shows less.
@test "each overwrite comes after its old bytes are on stable storage, and the log ends in order" {
	requires strace python3
	made cowd 40960 alloc=random:9000 zero=runs:20:130:600
	strace -f -y -o trace -e trace=pwrite64,fdatasync,fallocate "$VMDKSYNC" -q --no-uring \
		--undo undo.vmdk d.vmdk t
	same t want
	python3 - <<-'END'
	import re, struct
	log = open('undo.vmdk', 'rb').read()
	place = {}                      # of each grain in the log
	pos = 128 * 512
	while True:
	    value, size, kind = struct.unpack_from('<QII', log, pos)
	    if size:
	        place[value // 8] = pos
	        pos += (12 + size + 511) // 512 * 512
	    elif kind == 0:
	        break
	    else:
	        pos += 512 * (1 + value)
	written, durable, checked, last = [], [], 0, []
	for line in open('trace'):
	    m = re.match(r'\d+ +(\w+)\(\d+<([^>]*)>', line)
	    if not m or 'INJECTED' in line:
	        continue
	    call, path = m.group(1), m.group(2).rsplit('/', 1)[-1]
	    if call == 'fdatasync':
	        assert line.rstrip().endswith('= 0'), line
	    numbers = re.findall(r', (\d+)', line.rsplit(')', 1)[0])
	    if path == 'undo.vmdk':
	        last.append(call)
	        if call == 'fdatasync':
	            durable += written
	            written = []
	        else:
	            count, off = int(numbers[-2]), int(numbers[-1])
	            last[-1] = off
	            written.append((off, off + count))
	    elif path == 't' and call != 'fdatasync':
	        off, count = [int(n) for n in numbers[-2:]]
	        if call == 'pwrite64':
	            off, count = count, off
	        for grain in range(off // 4096, (off + count + 4095) // 4096):
	            at = place[grain]
	            assert any(a <= at < b for a, b in durable), (line, grain, at)
	            checked += 1
	assert checked > 3000, checked
	# tables and footer, and only when these are safe the head that says so
	assert last[-4] != 0 and last[-3:] == ['fdatasync', 0, 'fdatasync'], last[-6:]
	END
}

@test "what fails while the log is not safe yet leaves the target alone" {
	requires strace
	made cowd 8192 alloc=random:60
	strace -qqf -o trace -P d.vmdk -e trace=pread64 "$VMDKSYNC" -q --no-uring --undo undo.vmdk d.vmdk t
	last=$(wc -l <trace)
	[ "$last" -gt 4 ]
	for n in $((last - 1)) "$last"; do
		cp t.orig t
		rm -f undo.vmdk
		run -2 strace -qqf -o trace -P d.vmdk -e trace=pread64 -e "inject=pread64:error=EIO:when=$n" \
			"$VMDKSYNC" --no-uring --undo undo.vmdk d.vmdk t
		[[ $output == *'d.vmdk: reading '*' at byte '*': Input/output error'* ]]
		same t t.orig
		[ ! -e undo.vmdk ]
	done
	# killed when all is in the log, and nothing of it synced: who goes on syncs it first
	strace -qqf -o trace -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=2 \
		"$VMDKSYNC" -q --undo undo.vmdk d.vmdk t || :
	same t t.orig
	strace -f -y -o trace -e trace=pwrite64,fdatasync "$VMDKSYNC" -q --no-uring \
		--undo undo.vmdk --undo-append d.vmdk t
	same t want
	grep -m1 'pwrite64([0-9]*<[^>]*/t>\|fdatasync([0-9]*<[^>]*/undo.vmdk>' trace | grep fdatasync
	# nor is anything new in it but its end
	[ "$(vs --dry-run undo.vmdk t 2>&1 | grep -c warning)" = 0 ]
	vs -q undo.vmdk t
	same t t.orig
}
