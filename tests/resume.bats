# SPDX-License-Identifier: MIT
# --resume: broken at any byte, and gone on with. BREAKS: how many of a stream (8), half as many of files.

load helpers

BREAKS=${BREAKS:-8}
SIZE=$((96 << 20))
RATE=$((64 << 20))

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	RANDOM=${RESUME_SEED:-$$}
	echo "RESUME_SEED=${RESUME_SEED:-$$}"
}

random() { # below $1
	echo $(((RANDOM << 30 | RANDOM << 15 | RANDOM) % $1))
}

# disk NAME SEED: data, with zeros and holes between them
disk() {
	"$MKVMDK" pattern "$1" $((SIZE / 512)) "$2"
	fallocate --punch-hole --offset 20M --length 900K "$1"
	dd if=/dev/zero of="$1" bs=1K seek=40001 count=3000 conv=notrunc status=none
}

# vmdksync as long as the target is held by one that was killed
patient() {
	local tries status

	for ((tries = 300; ; tries--)); do
		status=0
		"$VMDKSYNC" -q "$@" 2>said || status=$?
		cat said >&2
		[ $status = 2 ] && [ $tries != 0 ] &&
			grep -qE 'in use by another program|is locked by|open for writing elsewhere' said ||
			return $status
		sleep 0.1
	done
}

serve() { # FILE: $uri is an export of it
	local tries

	uri="nbd+unix:///d?socket=$SHORT_DIR/s"
	rm -f "$SHORT_DIR/s"
	qemu-nbd -f raw --discard=unmap -x d -k "$SHORT_DIR/s" -t "$1" 3>&- 4>&- >server.log 2>&1 &
	server=$!
	echo "$server" >>pids
	echo "$server" >server
	for ((tries = 0; tries < 200; tries++)); do
		[ ! -S "$SHORT_DIR/s" ] || return 0
		sleep 0.05
	done
	cat server.log
	return 1
}

unserved() {
	kill "$server" 2>/dev/null || :
	wait "$server" || :
	rm -f pids "$SHORT_DIR/s"
}

# send_once POSITION COUNT: one run, which may be broken; its exit status
send_once() {
	local status=0

	rm -f victim port
	set -- "$1" "$2" --raw --expect-size=$SIZE --resume=ck "${more[@]}" - "$target"
	case $how in
	reset)
		"$TOP/tests/resume-sender.py" disk "$1" "$2" $RATE reset port 3>&- &
		until_true test -e port
		patient "${@:3}" <"/dev/tcp/127.0.0.1/$(<port)" || status=$?
		wait $!
		;;
	kill)
		mkfifo victim.pipe
		"$TOP/tests/resume-sender.py" disk "$1" "$2" $RATE kill victim >victim.pipe 3>&- &
		sender=$!
		"$VMDKSYNC" -q "${@:3}" <victim.pipe 3>&- &
		echo $! >victim
		wait $! || status=$?
		wait $sender
		rm victim.pipe
		;;
	server)
		"$TOP/tests/resume-sender.py" disk "$1" "$2" $RATE kill server |
			patient "${@:3}" || status=$?
		;;
	end) "$TOP/tests/resume-sender.py" disk "$1" "$2" $RATE end | patient "${@:3}" || status=$? ;;
	esac
	return $status
}

# break_all KIND...: streams onto a target of each kind, broken BREAKS times in all
break_all() {
	local breaks=0 kinds=("$@") disks=0 position status n

	while [ $breaks -lt "$BREAKS" ]; do
		disks=$((disks + 1))
		kind=${kinds[RANDOM % ${#kinds[@]}]}
		disk disk $disks
		more=()
		rm -f target ck sent
		target=target
		case $kind in
		new) more=(--create) ;;
		old) "$MKVMDK" pattern target $((SIZE / 512 + 100)) 9 ;;
		loop)
			truncate -s $SIZE target
			target=$(loopdev target 4096)
			;;
		nbd)
			truncate -s $SIZE target
			serve target
			target=$uri
			;;
		esac
		n=0
		for ((tries = 0; ; tries++)); do
			position=$("$VMDKSYNC" --resume=ck --position)
			hows=(end kill reset)
			[ "$kind" != nbd ] || hows+=(server server)
			how=${hows[RANDOM % ${#hows[@]}]}
			echo "--- $breaks: $kind $how from $position"
			status=0
			send_once "$position" "$(random $((SIZE / 2)))" || status=$?
			[ "$kind" != nbd ] || kill -0 "$server" 2>/dev/null || serve target
			[ $status != 0 ] || break
			# nothing is written before the first MiB is there
			[ $status != 2 ] || ! grep -q 'does not bring' said
			n=$((n + 1))
			[ $n -lt 60 ]
		done
		breaks=$((breaks + n))
		[ ! -e ck ] && [ ! -e ck.new ]
		[ "$kind" != nbd ] || unserved
		[ "$kind" != loop ] || unloop "$target"
		cmp -n $SIZE disk target
		sum=$(awk '{ n += $1 } END { print n }' sent)
		echo "sent $sum of $SIZE with $n breaks"
		[ "$sum" -le $((SIZE + n * (RATE / 2 + 2097152))) ]
	done
	echo "$breaks breaks of $disks disks"
}

@test "a stream, broken at any byte, gone on with until all is there; what is sent again is bounded" {
	kinds=(new old)
	[ "$(id -u)" != 0 ] || ! helpers_loop_works || kinds+=(loop)
	if command -v qemu-nbd >/dev/null; then
		short_dir
		kinds+=(nbd)
	fi
	break_all "${kinds[@]}"
}

# broken COUNT [OPTION...]: a checkpoint of a stream of `disk` that ended after so many bytes
broken() {
	rm -f target ck
	run -3 vs --raw --expect-size=$SIZE --resume=ck --create "${@:2}" - target < <(head -c "$1" disk)
	[[ $output == *"--resume=ck --position' prints where the sender has to begin"* ]]
	position=$(vs --resume=ck --position)
	[ $((position % 1048576)) = 0 ]
	[ "$position" -ge $(($1 / 1048576 * 1048576 - 1048576 * 8)) ] && [ "$position" -lt "$1" ]
	cp --sparse=always target was
	cp ck ck.was
}

# refused WORDS SKIP FILE [OPTION...]
refused() {
	run -2 --separate-stderr vs --raw --expect-size=$SIZE --resume=ck "${@:4}" - target \
		< <(tail -c +$(($2 + 1)) "$3")
	[[ $stderr == *"$1"* ]]
	same was target
	same ck.was ck
}

@test "every other stream is refused, and nothing has changed" {
	disk disk 1
	disk other 2
	for n in 3000000 30000000 50000001 $((SIZE - 1)); do
		echo "--- $n"
		broken "$n"
		for skip in $((position + 1048576)) $((position - 1048576)) 0 $((position + 512)) $((position - 1)); do
			[ "$skip" -ge 0 ] && [ "$skip" != "$position" ] || continue
			if [ $((SIZE - skip)) -ge 1048576 ]; then
				refused "does not bring what target holds from byte $position on" "$skip" disk
			else
				refused 'ended after' "$skip" disk
			fi
		done
		refused 'does not bring what target holds' "$position" other
		head -c $((position + 1048575)) disk >short
		refused 'ended after 1048575 bytes: it has to bring' "$position" short
		refused 'ended after 0 bytes' "$SIZE" disk
	done
	run -2 vs --raw --expect-size=$((SIZE - 512)) --resume=ck - target < <(tail -c +$((position + 1)) disk)
	[[ $output == *"ck: is of a raw disk of $SIZE bytes from a stream"* ]]
	run -2 vs --raw --resume=ck disk target
	[[ $output == *'ck: is of a raw disk'* ]]
	same was target
	same ck.was ck
	# and the right one is not
	vs -q --raw --expect-size=$SIZE --resume=ck --create - target < <(tail -c +$((position + 1)) disk)
	same disk target
	[ ! -e ck ]
}

@test "a stream with an undo log, broken, gone on with and read back, is rolled back whole" {
	disk disk 1
	"$MKVMDK" pattern target $((SIZE / 512)) 9
	cp target orig
	run -3 vs --raw --expect-size=$SIZE --resume=ck --undo=undo.vmdk - target < <(head -c 50000001 disk)
	[[ $output == *"; 'vmdksync undo.vmdk target' brings back what was there"* ]]
	position=$(vs --resume=ck --position)
	vs -q --raw --expect-size=$SIZE --resume=ck --undo=undo.vmdk --read-back - target \
		< <(tail -c +$((position + 1)) disk)
	same disk target
	[ ! -e ck ]
	vs -q undo.vmdk target
	same orig target
}

@test "where a disk is all alike, the stream begins before that" {
	truncate -s $SIZE disk
	dd if=/dev/urandom of=disk bs=1M seek=28 count=3 conv=notrunc status=none
	broken $((35 << 20))
	[ "$position" = $((30 << 20)) ]
	broken $((90 << 20))
	[ "$position" = $((89 << 20)) ]
	vs -q --raw --expect-size=$SIZE --resume=ck --create - target < <(tail -c +$((position + 1)) disk)
	same disk target
}

@test "position: 0 without a checkpoint; of files, or of what is damaged, none" {
	disk disk 1
	run -0 vs --resume=none --position
	[ "$output" = 0 ]
	run -2 vs --position
	run -2 vs --resume=none --position name
	broken 30000000
	run -0 vs --resume=ck --position
	[ "$output" = "$position" ]
	run -0 vs --resume=ck --position --json
	[ "$output" = "{\"schema\": 1, \"job\": \"position\", \"position\": $position, \"error\": null}" ]
	run -2 --separate-stderr vs --position --json
	[[ $output == '{"schema": 1, "job": "position", '*'"code": "usage"'* ]]
	size=$(stat -c %s ck)
	for ((at = 0; at < size; at += 5)); do
		cp ck.was ck
		printf '\001' | dd of=ck bs=1 seek=$at conv=notrunc status=none
		run -2 vs --resume=ck --position
		[[ $output == 'vmdksync: ck: is no checkpoint, or is damaged: name a new file'* ]]
		head -c $at ck.was >ck
		run -2 vs --resume=ck --position
	done
	{ cat ck.was; echo; } >ck
	run -2 vs --raw --expect-size=$SIZE --resume=ck - target < <(cat disk)
	same was target
	sed s/.check.*/check\ 00000000/ ck.was >ck
	run -2 vs --resume=ck --position
	head -c 100000 /dev/zero >ck
	run -2 vs --resume=ck --position
	mkdir folder
	run -2 vs --resume=folder --position
	[[ $output == *'cannot be read'* ]]
	mkfifo fifo
	run -2 timeout 20 "$VMDKSYNC" --resume=fifo --position
}

@test "a checkpoint of another target, and one that is in use" {
	disk disk 1
	broken 30000000
	cp target twin
	run -2 vs --raw --expect-size=$SIZE --resume=ck - twin < <(tail -c +$((position + 1)) disk)
	[[ $output == *'ck: is of another target than twin: remove it'* ]]
	cmp target twin
	truncate -s +1M twin
	mv twin target
	run -2 vs --raw --expect-size=$SIZE --resume=ck - target < <(tail -c +$((position + 1)) disk)
	# held while another one goes on
	rm -f ck
	mkfifo slow
	"$VMDKSYNC" -q --raw --expect-size=$SIZE --resume=ck - target <slow 3>&- &
	pid=$!
	echo $pid >pids
	exec 8>slow
	head -c 40000000 disk >&8
	until_true test -s ck
	run -2 vs --raw --expect-size=$SIZE --resume=ck - target < <(cat disk)
	[[ $output == *'target: '* ]]
	exec 8>&-
	wait $pid || [ $? = 3 ]
	rm pids
	position=$(vs --resume=ck --position)
	vs -q --raw --expect-size=$SIZE --resume=ck - target < <(tail -c +$((position + 1)) disk)
	cmp -n $SIZE disk target
}

@test "what cannot be resumed is refused, and where no checkpoint can be" {
	"$MKVMDK" pattern disk 4096 1
	"$MKVMDK" cowd d.vmdk capacity=4096 alloc=random:20
	"$MKVMDK" pattern target 4096 9
	cp target was
	run -2 vs --resume=ck - target < <(cat d.vmdk)
	[[ $output == *'a VMDK from a stream cannot be resumed'*'sshfs'* ]]
	run -2 vs --resume=ck --spool-first - target < <(cat d.vmdk)
	for option in --verify --info --map; do
		run -2 vs --resume=ck $option d.vmdk target
	done
	run -2 vs --raw --resume=ck --offset=1M --expect-size=1M - target < <(cat disk)
	run -2 vs --raw --resume=ck --spool-first --expect-size=2M - target < <(cat disk)
	run -2 vs --raw --resume=no/such/folder disk target
	[[ $output == *'no/such/folder: the checkpoint cannot be written: No such file or directory' ]]
	run -2 vs --raw --resume=new --undo=./new disk target
	[[ $output == *'new: was made meanwhile: name another file' ]]
	run -2 vs --raw --resume=new --create disk ./new
	run -2 vs --resume=d.vmdk d.vmdk target
	[[ $output == *'d.vmdk: is no checkpoint'* ]]
	same was target
	[ ! -e ck ] && [ ! -e new ]
	run -0 vs --raw --resume=ck --dry-run disk target
	[ ! -e ck ]
	same was target
}

@test "a checkpoint that cannot be renewed is warned of, and the disk is written" {
	disk disk 1
	mkdir folder
	truncate -s $SIZE target
	run -0 vs --raw --expect-size=$SIZE --resume=folder/ck - target \
		< <("$TOP/tests/resume-sender.py" disk 0 50000000 $RATE remove folder)
	[[ $output == *'warning: folder/ck: the checkpoint cannot be renewed: No such file or directory'*'; 1 warning' ]]
	same disk target
}

# slow OPTION... &: files, with some time for each write, so that there is one to be killed in; vmdksync
# is the only child of $!
slow() {
	exec strace -qqf -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=8000 \
		"$VMDKSYNC" -q --no-uring "$@" 3>&-
}

@test "files: --full, --chain, several deltas, --raw, with an undo log, killed and gone on with" {
	requires strace
	esx_chain $((SIZE / 512)) 2
	breaks=0 middle=0
	local way=0 ways=('--full host-000002.vmdk' '--chain host-000002.vmdk' 'host-000001.vmdk host-000002.vmdk'
		'--raw host-flat.vmdk' '--full --undo=undo.vmdk host-000002.vmdk' '--read-back --full host-000002.vmdk')
	while [ $breaks -lt $((BREAKS / 2)) ] || [ $way -lt ${#ways[@]} ]; do
		read -r -a words <<<"${ways[way++ % ${#ways[@]}]}"
		rm -f target undo.vmdk ck
		cp host-0.raw target
		want=host-2.raw
		[ "${words[0]}" != --raw ] || { want=host-0.raw; "$MKVMDK" pattern target $((SIZE / 512)) 7; }
		[[ ${words[*]} != *--full* ]] || "$MKVMDK" pattern target $((SIZE / 512)) 7
		cp --sparse=always target orig
		for ((round = 0; round < 2; round++)); do
			slow --resume=ck "${words[@]}" target &
			pid=$!
			sleep "0.$((RANDOM % 90 + 10))"
			pkill -KILL -P $pid 2>/dev/null || :
			wait $pid 2>/dev/null || :
			[ -e ck ] || break
			breaks=$((breaks + 1))
			read -r _ durable _ < <(grep durable ck)
			[ "$durable" = 0 ] || middle=$((middle + 1))
			echo "--- ${words[*]}: broken at $durable"
			run -2 vs --resume=ck --position
			[[ $output == *'is of files, which are read where they lie'* ]]
		done
		if [ -e ck ] || [ ! -e undo.vmdk ]; then
			patient --resume=ck "${words[@]}" target
		fi
		[ ! -e ck ]
		same $want target
		if [ -e undo.vmdk ]; then
			vs -q undo.vmdk target
			same orig target
		fi
	done
	echo "$breaks breaks, $middle in the middle"
	[ $middle -gt 0 ]
}

@test "files: only what lies behind the position is written; other inputs, options and targets are refused" {
	requires strace
	esx_chain $((SIZE / 512)) 1
	"$MKVMDK" pattern target $((SIZE / 512)) 7
	for ((round = 0; round < 40; round++)); do
		slow --resume=ck --full host-000001.vmdk target &
		pid=$!
		until_true grep -q 'durable [1-9]' ck
		pkill -KILL -P $pid 2>/dev/null || :
		wait $pid 2>/dev/null || :
		[ ! -e ck ] || break
	done
	cp target was
	cp ck ck.was
	read -r _ durable _ < <(grep durable ck)
	run -2 vs --resume=ck --full host.vmdk target
	[[ $output == *'ck: is of another input'* ]]
	run -2 vs --resume=ck host-000001.vmdk target
	[[ $output == *'ck: is of another input'* ]]
	cp target twin
	run -2 vs --resume=ck --full host-000001.vmdk twin
	[[ $output == *'ck: is of another target'* ]]
	run -2 vs --raw --expect-size=$SIZE --resume=ck - target < <(cat host-0.raw)
	[[ $output == *'ck: is of another input'* ]]
	touch -d '1 hour ago' host-000001-delta.vmdk
	run -2 vs --resume=ck --full host-000001.vmdk target
	touch -r host-000001.vmdk host-000001-delta.vmdk
	same was target
	same ck.was ck
	# the last data before the position are not there
	rm ck
	cp host-0.raw target
	slow --resume=ck --full host-000001.vmdk target &
	pid=$!
	until_true grep -q 'durable [1-9]' ck
	pkill -KILL -P $pid 2>/dev/null || :
	wait $pid 2>/dev/null || :
	read -r _ durable _ < <(grep durable ck)
	cp --sparse=always target good
	dd if=/dev/zero of=target bs=1 seek=$((durable - 100)) count=100 conv=notrunc status=none
	run -2 vs --resume=ck --full host-000001.vmdk target
	[[ $output == *'ck: target does not hold what it says at byte'* ]]
	# what lies before is not written again
	cp good target
	dd if=/dev/zero of=target bs=4096 count=1 conv=notrunc status=none
	run -0 vs --json --resume=ck --full host-000001.vmdk target
	[[ $output == *"\"resumed_at\": $durable"* ]]
	cmp -i 4096 host-1.raw target
	run -1 cmp -n 4096 host-1.raw target
}
