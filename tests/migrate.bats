# examples/migrate.sh, from a stand-in ESXi host to loop devices, with the guest writing all the time;
# and what it does when something goes wrong.

load helpers
load esxi
load shown

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	short_dir # for the sockets of ssh
	export VMDKSYNC TMPDIR=$SHORT_DIR
	# What takes how long is the test's business, not the machine's: /ctl/clock on the host holds the
	# milliseconds that have passed.
	mkdir bin
	cat >bin/date <<-'END'
	#!/bin/sh
	case $*,$CLOCK in
	+%s%3N,?*) exec cat "$CLOCK" ;;
	esac
	exec /bin/date "$@"
	END
	# What happens when the migration asks the host for something: a line in the file `at`,
	# fail|before|after SIGNAL PATTERN, holds for the first command that matches.
	cat >bin/ssh <<-END
	#!/bin/bash
	real=$(command -v ssh)
	at=$PWD/at
	END
	cat >>bin/ssh <<-'END'
	group=$(ps -o pgid= $$)
	if read -r when signal pattern 2>/dev/null <"$at" && [[ ${!#} == $pattern ]]; then
		rm "$at"
		case $when in
		fail) exit 255 ;;
		after) "$real" "$@" ;;
		esac
		case $signal in
		KILL) kill -KILL $group ;;
		*) kill -"$signal" -- -$group ;;
		esac
		exit 255
	fi
	exec "$real" "$@"
	END
	chmod +x bin/*
	PATH=$PWD/bin:$PATH
}

teardown() {
	local s

	# what a killed run leaves
	for s in "$SHORT_DIR"/tmp.*/ssh; do
		[ ! -S "$s" ] || ssh -o ControlPath="$s" -O exit esxi 2>/dev/null || :
	done
	[ ! -d mnt ] || umount mnt 2>/dev/null || :
	let_go_of_all
	esxi_stop
	helpers_teardown
}

# targets [SECTOR_SIZE [SIZE SIZE]]: $a and $b, loop devices of the disks' sizes, full of old bytes
targets() {
	"$MKVMDK" pattern a.raw "${2:-64M}" 77
	"$MKVMDK" pattern b.raw "${3:-128M}" 78
	a=$(loopdev a.raw "${1:-512}")
	b=$(loopdev b.raw "${1:-512}")
}

# migrate OPTION...: to both targets
# shellcheck disable=SC2120 # bats passes them on
migrate() {
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" here timeout 300 sh "$TOP/examples/migrate.sh" \
		--state=state "$@" esxi 'web server' "scsi0:0=$a" "scsi0:1=$b"
}

# arrived: the targets are what the guest saw last
arrived() {
	same "$a" "$(truth 0)"
	same "$b" "$(truth 1)"
}

guest_runs() {
	[ "$(cat "$ESXI/ctl/power")" = on ]
}

@test "two disks, COWD and SEsparse, under writes: rounds, cutover, verified, accepted" {
	esxi_requires
	requires loop
	targets
	esxi_start
	# the first two rounds take longer than the budget, all else takes no time
	echo 0 >"$ESXI/ctl/clock"
	export CLOCK=$ESXI/ctl/clock
	fault slow -00000[31]- 70000
	printf '%s\n' 20000 10000 >"$ESXI/ctl/bursts"
	printf '#!/bin/sh\n[ "$*" = "start web" ] && : >started\n' >bin/virsh
	chmod +x bin/virsh
	# the lines of README
	export SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config"
	readme '--dry-run '
	[[ $output == *'would run: '*"snapshot.create 12 vmdksync-1 vmdksync 0 0'"* ]]
	[ ! -e "$ESXI/ctl/commands" ] || [ "$(count snapshot.create)" = 0 ]
	readme '--budget='
	[[ $output == *'rounds: 3' || $output == *'rounds: 3'$'\n'* ]]
	[[ $output == *'downtime in all: '*' s'* ]]
	[[ $output == *'snapshot.remove 12 1'* ]]
	[ -e started ]
	[ "$(cat "$ESXI/ctl/power")" = off ]
	arrived
	# the new machine runs, and holds its disks
	flock -F "$a" sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked "$a"
	readme '--accept '
	[ ! -s "$ESXI/ctl/snapshots" ]
	[[ $output != *'To remove them'* ]]
	grep -q 'autostartentry 12 none' "$ESXI/ctl/commands"
	arrived
	run -0 migrate --state=migrate-web_server
	[[ $output == *'done already' ]]
}

# readme WORDS: the line of README that begins with the script and the words
readme() {
	local line

	line=$(shown_in "$TOP/README" | grep "^sh examples/migrate.sh $1")
	[ "$(wc -l <<<"$line")" = 1 ]
	line=${line/.../scsi0:0=$a scsi0:1=$b}
	line=${line/\/dev\/vg0\/hda/$a}
	line=${line/\/dev\/vg0\/hdb/$b}
	run -0 here timeout 300 sh -c "${line/examples/$TOP/examples}"
}

# stopped STATUS TEXT [OPTION...]: ends so, says so, tells of every snapshot there is, and the guest runs
stopped() {
	local status_wanted=$1 text=$2 id

	shift 2
	run "-$status_wanted" migrate "$@"
	[[ $output == *"$text"* ]]
	while read -r id _; do
		[[ $output == *"snapshot.remove 12 $id"* ]]
	done <"$ESXI/ctl/snapshots"
	guest_runs
}

count() {
	grep -c "$1" "$ESXI/ctl/commands" || :
}

@test "refused before anything is done; failures while the guest runs; each next run goes on" {
	esxi_requires
	requires loop mkfs.ext4
	targets
	esxi_start
	good_a=$a good_b=$b

	# the target
	a=/dev/vg0/typo stopped 2 'no device of that name'
	[ ! -e /dev/vg0 ]
	rm -r state
	a=$good_b b=$good_a stopped 2 'the wrong one?'
	rm -r state
	ln -s "$good_a" again
	b=$PWD/again stopped 2 'was given for two disks'
	rm -r state
	truncate -s 8M small.raw
	b=small.raw stopped 2 'small.raw'
	rm -r state
	mkdir mnt
	mkfs.ext4 -q "$a"
	mounted "$a" mnt
	stopped 2 'mounted'
	unmounted
	rm -r state
	# the machine
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -2 here sh "$TOP/examples/migrate.sh" \
		--state=s2 esxi 'web server' "scsi0:0=$a"
	[[ $output == *'has a disk scsi0:1'* ]]
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -2 here sh "$TOP/examples/migrate.sh" \
		--state=s3 esxi 'web  server' "scsi0:0=$a"
	[[ $output == *"has 0 machines named 'web  server'"* ]]
	sed -i '1i scsi0:1.mode = "independent-persistent"' "$ESXI/ctl/vmx.head"
	chroot "$ESXI" /bin/sh -c '. /ctl/vm.sh; write_vmx'
	stopped 2 'independent'
	sed -i 1d "$ESXI/ctl/vmx.head"
	chroot "$ESXI" /bin/sh -c '. /ctl/vm.sh; write_vmx'
	# a chain that is none: another size, another parent
	link='/vmfs/volumes/5f1a-aaaa/web server/web server.vmdk'
	cp "$ESXI$link" base.vmdk
	sed -i 's/^RW.*/&\nRDONLY 8 ZERO/' "$ESXI$link"
	stopped 1 'one extent was expected, not 2'
	cp base.vmdk "$ESXI$link"
	# a host that is not the one it was
	echo "$ESXI_ADDRESS $(cut -d ' ' -f 1,2 key.pub)" >other_hosts
	sed -e 's/StrictHostKeyChecking no/StrictHostKeyChecking ask/' -e 's/known_hosts/other_hosts/' \
		ssh_config >strict_config
	SSH="ssh -F $PWD/strict_config" run -2 here sh "$TOP/examples/migrate.sh" --state=s4 esxi 'web server' \
		"scsi0:0=$a" "scsi0:1=$b"
	[[ $output == *'Host key verification failed'* ]]
	# only a look
	run -0 migrate --dry-run
	[[ $output == *'would run: '*snapshot.create* ]]
	[ "$(count snapshot.create)" = 0 ]

	# no snapshot: not tried again by itself
	fault snapshot-fails
	stopped 1 'no snapshot: Snapshot not taken'
	[ "$(count snapshot.create)" = 1 ]
	fault -snapshot-fails
	# the base is cut short
	fault cut web?server-flat 1000000
	stopped 1 '67108864 bytes, but 1000000 came'
	fault -cut
	# a base that was written to since its child was made; a child of another size
	cp "$ESXI$link" base.vmdk
	sed -i 's/^CID=.*/CID=0badc0de/' "$ESXI$link"
	stopped 1 "its CID is '0badc0de', its child was made from"
	cp base.vmdk "$ESXI$link"
	sed -i 's/^RW [0-9]*/RW 8/' "$ESXI$link"
	stopped 1 'the links of its chain differ in size'
	cp base.vmdk "$ESXI$link"
	# the base cannot be read: a clone is; then the connection breaks in a round
	fault drop -000003- 70000
	stopped 1 'round 1 failed'
	fault -drop
	# what was copied was made anew under the same names
	child=${link%.vmdk}-000003.vmdk
	cp "$ESXI$link" base.vmdk
	cp "$ESXI$child" child.vmdk
	sed -i 's/^CID=.*/CID=0badc0de/' "$ESXI$link"
	sed -i 's/^parentCID=.*/parentCID=0badc0de/' "$ESXI$child"
	stopped 3 'does not begin with what was copied'
	cp base.vmdk "$ESXI$link"
	cp child.vmdk "$ESXI$child"
	# cut short in a round
	fault cut -000003- 90000
	stopped 1 'round 1 failed'
	fault -cut
	# two at once
	fault hold -000003- 0
	migrate --budget=60 >first.log 2>&1 3>&- &
	first=$!
	echo "$first" >pids
	until_true grep -q 'notes in' first.log || cat first.log
	run -2 migrate
	[[ $output == *'another migration runs'* ]]
	# nor by another name, from other notes
	a=$PWD/again b=$PWD/again run -2 migrate --state=s5
	[[ $output == *'/again: another migration runs'* ]]
	fault -hold
	wait "$first" || { cat first.log && false; }
	arrived
}

@test "failures of the cutover: the source runs again, and the next run arrives" {
	esxi_requires
	requires loop
	targets 4096
	esxi_start
	fault shutdown-ignored
	fault base-unreadable
	stopped 1 'did not shut down' --now --shutdown-wait=1
	grep -q 'vmkfstools -i' "$ESXI/ctl/commands"
	grep -q 'vmkfstools -U' "$ESXI/ctl/commands"
	fault -shutdown-ignored
	# somebody else's snapshot
	echo '77 backup' >>"$ESXI/ctl/snapshots"
	run -2 migrate --now
	[[ $output == *"'backup' was not made by this migration"* ]]
	sed -i '/backup/d' "$ESXI/ctl/snapshots"
	# the last copy is cut, both times
	fault cut -000002- 90000
	stopped 1 'runs on esxi again' --now
	fault -cut
	# switched on again while its disks are read
	fault restart -000005-
	stopped 1 'was started while' --now
	fault -restart
	# and off again: what was read is not all there is
	fault bounce -000004- -000004-
	run -0 migrate --now
	[[ $output == *'once more'* ]]
	arrived
	stopped 1 'rolled back by hand' --rollback
	# left open: COWD has a mark for that, SEsparse a journal
	fault left-open 0
	stopped 1 'was not closed cleanly' --now
	fault left-open 1
	stopped 1 'journal' --now
	fault -left-open
	# the new machine does not come up; it wrote to its disk
	stopped 1 'the start hook failed' --now --start="dd if=/dev/urandom of=$a bs=4096 count=1; false"
	fault shutdown-ignored
	run -0 migrate --now --shutdown-wait=1 --hard-off --start=true
	arrived
	# the operator is not content after all
	stopped 1 'rolled back by hand' --rollback
}

# wrap: vmdksync is a wrapper from now on, which goes wrong where its words match what is in the file
# `bad`: as `how` tells, its writes fail, or all is done and the migration is killed then. Before the
# last copy it keeps a copy of the target in before-NAME.
wrap() {
	printf '#!/bin/bash\nreal=%q\n' "$VMDKSYNC" >wrapped
	cat >>wrapped <<-'END'
	target=${!#}
	case "$*" in
	*--undo=*) [ -e "before-${target##*/}" ] || cp "$target" "before-${target##*/}" ;;
	esac
	# shellcheck disable=SC2053 # a pattern
	[ -e bad ] && [[ "$*" == $(<bad) ]] || exec "$real" "$@"
	if [ "$(<how)" = after ]; then
		"$real" "$@"
		kill -9 $PPID
	fi
	exec strace -f -qq -o /dev/null -P "$(realpath "$target")" -e trace=pwrite64 \
		-e inject=pwrite64:error="$(<how)":when=3+ "$real" --no-uring "$@"
	END
	chmod +x wrapped
	VMDKSYNC=$PWD/wrapped
}

# rolled_back: the targets are what they were before the last copy
rolled_back() {
	same "$a" "before-${a##*/}"
	same "$b" "before-${b##*/}"
	rm before-*
}

@test "a full disk: in the base, in a round, in the last copy, which is rolled back" {
	esxi_requires
	requires loop strace
	targets
	mkdir mnt
	mount -t tmpfs -o size=40M none mnt || skip 'cannot mount here'
	truncate -s 64M mnt/a.raw
	a=$PWD/mnt/a.raw
	esxi_start
	wrap
	printf '%s\n' 12000 9000 >"$ESXI/ctl/bursts"
	stopped 1 'No space left on device'
	[[ $output == *'the base did not come whole'* ]]
	mount -o remount,size=80M mnt
	echo "*--json - $a" >bad
	echo ENOSPC >how
	stopped 1 'No space left on device'
	[[ $output == *'round 1 failed'* ]]
	echo "--spool=*--undo=*/undo-*.vmdk --json - $a" >bad
	stopped 1 'No space left on device' --now
	[[ $output == *'the last changes could not be copied: rolling back'* ]]
	rolled_back
	rm bad
	run -0 migrate --now
	arrived
	umount mnt
}

@test "the delta never gets smaller; its snapshots are taken away" {
	esxi_requires
	requires loop
	targets
	esxi_start
	fault idle
	printf '%s\n' 2000 6000 12000 >"$ESXI/ctl/bursts"
	stopped 1 'not converging: round 3 brought 6' --budget=0
	stopped 1 '4 rounds, and the rest still takes' --budget=0 --rounds=4
	fault -idle
	# by the lines that it has shown
	sed -n 's/^.*  \(ssh .* vim-cmd vmsvc.snapshot.remove .*\)/\1/p' <<<"$output" >remove
	[ "$(wc -l <remove)" = 5 ]
	here sh -e remove
	[ ! -s "$ESXI/ctl/snapshots" ]
	run -2 migrate
	[[ $output == *"the snapshot 'vmdksync-1' of this migration is gone"* ]]
	guest_runs
	rm -r state
	run -0 migrate --now
	arrived
}

@test "a rollback that fails on one of the disks" {
	esxi_requires
	requires loop strace
	targets
	esxi_start
	wrap
	printf '%s\n' 8000 12000 >"$ESXI/ctl/bursts"
	fault cut data-000001- 90000
	echo "-q */undo-*.vmdk $a" >bad
	echo EIO >how
	stopped 1 'could not roll back: scsi0:0; the next run copies the base again' --now
	same "$b" "before-${b##*/}"
	rm bad before-*
	# the undo logs of before that base are no way back any more
	fault cut data-000002- 90000
	stopped 1 'the last changes could not be copied' --now
	rolled_back
	fault -cut
	run -0 migrate --now
	arrived
}

is_taken() {
	! flock -n "$1" true
}

# interrupted KILL|INT PATTERN BYTES OPTION...: the signal comes after BYTES of that file
interrupted() {
	local signal=$1 status_got=0 i id

	fault hold "$2" "$3"
	shift 3
	rm -f "$ESXI/ctl/held"
	# what bats starts behind an '&' ignores SIGINT
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" env --default-signal=INT \
		nsenter -t "$ESXI_HERE" --net setsid sh "$TOP/examples/migrate.sh" --state=state "$@" \
		esxi 'web server' "scsi0:0=$a" "scsi0:1=$b" >run.log 2>&1 3>&- &
	migration=$!
	for ((i = 0; i < 3000; i++)); do
		[ ! -e "$ESXI/ctl/held" ] || break
		kill -0 "$migration" || break
		sleep 0.1
	done
	[ -e "$ESXI/ctl/held" ] || { cat run.log && return 1; }
	if [ "$signal" = KILL ]; then
		kill -KILL "$migration"
		wait "$migration" || status_got=$?
		[ "$status_got" = 137 ]
		# what it has started goes on: nobody else may write now
		run -2 migrate
		[[ $output == *'another migration runs'* ]]
		# by a program that has ended; /proc/locks of a PID namespace does not tell of that
		until_true is_taken "$a"
		fault -hold
		until_true flock -n state/lock true
	else
		# the terminal sends it to all
		kill -INT -- "-$migration"
		timeout 100 tail --pid="$migration" -f /dev/null
		wait "$migration" || status_got=$?
		cat run.log
		[ "$status_got" = 130 ]
		# nothing goes on
		flock -n state/lock true
		while read -r id _; do
			grep -q "snapshot.remove 12 $id" run.log
		done <"$ESXI/ctl/snapshots"
		fault -hold
	fi
}

@test "killed, or stopped by hand, in the base, in a round, in the last copy: the next run goes on" {
	esxi_requires
	requires loop
	targets
	esxi_start
	printf '%s\n' 12000 12000 12000 12000 >"$ESXI/ctl/bursts"
	interrupted INT server-flat 30000000
	interrupted KILL server-flat 20000000
	guest_runs
	interrupted INT server-000003- 3000000
	interrupted KILL server-000001- 3000000
	guest_runs
	interrupted INT server-000005- 3000000 --now
	grep -q 'is off, .*--rollback' run.log
	interrupted KILL server-000005- 3000000
	run -0 migrate
	arrived
}

@test "over netcat; frozen links that cannot be read: one round" {
	esxi_requires
	requires loop nc
	targets 512 16M 64M
	esxi_start 32768 131072
	nc=(--via=nc --listen=192.0.2.2:31310)
	fault links-unreadable
	fault gzip-cut 1000000
	stopped 1 'the base did not come whole' "${nc[@]}"
	fault -gzip-cut
	stopped 1 'cannot be read while' "${nc[@]}"
	# the last copy is of several links: it fails, and when the first is undone, too, the power goes
	wrap
	fault gzip-cut 30000
	echo "-q */undo-1.vmdk $a" >bad
	echo after >how
	run -137 migrate --now --via=gzip
	[[ $output == *'rolling back'* ]]
	# what that one had started is gone
	until_true flock -n state/lock true
	rm bad
	fault -gzip-cut
	run -0 migrate --now "${nc[@]}"
	arrived
}

# struck WHEN SIGNAL PATTERN OPTION...: the migration, at that command, see bin/ssh; its exit status
struck() {
	local code=0

	echo "$1 $2 $3" >"$BATS_TEST_TMPDIR/at"
	shift 3
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" env --default-signal=INT \
		nsenter -t "$ESXI_HERE" --net timeout --foreground 300 setsid --wait \
		sh "$TOP/examples/migrate.sh" --state=state "$@" \
		esxi 'web server' "scsi0:0=$a" "scsi0:1=$b" >run.log 2>&1 3>&- || code=$?
	cat run.log
	# nothing goes on
	until_true flock -n state/lock true
	[ ! -e at ]
	return $code
}

@test "struck when it asks the host: snapshot, power-off, power-on, removal; the disk of another name" {
	esxi_requires
	requires loop setsid
	targets 512 16M 16M
	esxi_start 32768 32768
	disk=$a
	a=$PWD/disk
	ln -s "$disk" disk
	# a snapshot that never came
	run -130 struck before INT '*snapshot.create*'
	[ ! -s "$ESXI/ctl/snapshots" ]
	# one that nobody waited for
	run -137 struck after KILL '*snapshot.create*'
	run -143 struck before TERM '*exec 3<*'
	[[ $output == *'snapshot.remove 12 1 '* ]]
	[ "$(count snapshot.create)" = 1 ]
	guest_runs
	# the power cannot be asked for: no reason to stop the machine
	fault links-unreadable
	stopped 1 'cannot be read while'
	run -1 struck fail - '*snapshot.create*'
	guest_runs
	# another disk has the name now
	"$MKVMDK" pattern other.raw 16M 79
	ln -sfn "$(loopdev other.raw)" disk
	stopped 2 "is not the disk that scsi0:0 was copied to"
	ln -sfn "$disk" disk
	run -143 struck after TERM '*power.shutdown*' --now
	[[ $output == *'is off, or about to be'* ]]
	# goes on; its new machine is started, and then?
	# shellcheck disable=SC2016 # for the hook
	run -137 migrate --start='kill -9 $PPID'
	until_true flock -n state/lock true
	run -3 migrate
	[[ $output == *'--accept if it runs well, else --rollback'* ]]
	# a way back that is only looked at
	run -0 migrate --rollback --dry-run
	[[ $output == *'would run: '*undo-1.vmdk* ]]
	arrived
	# not while the new machine holds its disk
	flock -F "$a" sleep 1000 3>&- &
	holder=$!
	echo "$holder" >>pids
	until_true is_locked "$disk"
	run -3 migrate --rollback
	[[ $output == *'stop the new machine'* ]]
	[ "$(cat "$ESXI/ctl/power")" = off ]
	arrived
	kill "$holder"
	wait "$holder" || :
	run -130 struck before INT '*power.on*' --rollback
	run -3 migrate
	[[ $output == *'--rollback goes on'* ]]
	stopped 1 'rolled back by hand' --rollback
	# the whole way, and the snapshots away in two goes
	run -0 migrate --now
	arrived
	run -0 migrate --accept --dry-run
	run -143 struck after TERM '*snapshot.remove*' --accept
	[ -s "$ESXI/ctl/snapshots" ]
	run -0 migrate --accept
	[ ! -s "$ESXI/ctl/snapshots" ]
	arrived
}

@test "the disk is full under the undo logs and the notes" {
	esxi_requires
	requires loop
	targets 512 16M 16M
	mkdir mnt
	mount -t tmpfs -o size=3M none mnt || skip 'cannot mount here'
	ln -s mnt state
	esxi_start 32768 32768
	# two links are left for the last copy, as neither can be read before; there is room for one
	printf '%s\n' 2000 12000 >"$ESXI/ctl/bursts"
	fault links-unreadable
	stopped 1 'cannot be read while'
	wrap
	stopped 1 'the last changes could not be copied: rolling back' --now
	[[ $output == *'No space left on device'* ]]
	rolled_back
	mount -o remount,size=80M mnt
	run -0 migrate --now
	arrived
	umount mnt
}

@test "wrong words on the command line" {
	SSH=false run -2 sh "$TOP/examples/migrate.sh" --state=s h v scsi0:0=disk
	[[ $output == *'cannot log in'* ]]
	SSH=false run -2 sh -c "mkdir there && cd there && sh '$TOP/examples/migrate.sh' --state=../s h v scsi0:0=disk"
	[[ $output == *"was to go to $PWD/disk"* ]]
	for words in '' '--budget=x h v scsi0:0=t' '--via=pigeon h v scsi0:0=t' 'h v' 'h v t' \
		'--via=nc h v scsi0:0=t' '--nonsense' 'h v scsi0:0=a scsi0:0=b' '-oProxyCommand=x v scsi0:0=a'; do
		# shellcheck disable=SC2086 # words
		run -2 sh "$TOP/examples/migrate.sh" $words
		[[ $output == *"Try 'migrate.sh --help'"* ]]
	done
	run -0 sh "$TOP/examples/migrate.sh" --help
	[ "$(wc -L <<<"$output")" -le 80 ]
}

# let_go_of_all: what a target was given to in use() gives it back, whatever the test did
let_go_of_all() {
	[ ! -f in-use ] || tac in-use | while read -r line; do
		eval "$line" >/dev/null 2>&1 || :
	done
	rm -f in-use
}

# in_use COMMAND...: that ends the use of what the next command takes
in_use() {
	printf '%q ' "$@" >>in-use
	echo >>in-use
}

# refused_kept: the target $a is refused, and holds what it held
refused_kept() {
	local was

	was=$(sum "$a")
	stopped 2 "$a: is mounted or in use by another program"
	[[ $output == *'scsi0:0: '*' cannot be written'* ]]
	[ "$(sum "$a")" = "$was" ]
	let_go_of_all
}

@test "a target that is swap space" {
	esxi_requires
	requires loop mkswap swapon
	targets 512 16M 16M
	esxi_start 32768 32768
	mkswap "$a"
	in_use swapoff "$a"
	swapon "$a" || skip 'may not swap here'
	refused_kept
	# nor between two runs; then it is free
	fault links-unreadable
	stopped 1 'cannot be read while'
	in_use swapoff "$a"
	mkswap "$a"
	swapon "$a"
	refused_kept
}

@test "a target that the device mapper, LVM or MD has" {
	esxi_requires
	requires loop
	local held=0 missing=

	targets 512 16M 16M
	esxi_start 32768 32768
	if [ ! -e /dev/mapper/control ] || ! dmsetup create "vmdksync-test-$$" --table "0 2048 zero" 2>/dev/null; then
		missing="no device mapper"
	else
		dmsetup remove "vmdksync-test-$$"
		in_use dmsetup remove --retry "vmdksync-test-$$"
		dmsetup create "vmdksync-test-$$" --table "0 32768 linear $a 0"
		refused_kept
		held=1
		if command -v vgcreate && command -v lvcreate; then
			in_use pvremove -ff -y "$a"
			in_use vgremove -f -y "vmdksync-test-$$"
			vgcreate -y "vmdksync-test-$$" "$a"
			lvcreate -y -an -Zn -n disk -l 1 "vmdksync-test-$$"
			lvchange -y -ay "vmdksync-test-$$/disk"
			refused_kept
		else
			missing="no LVM"
		fi
	fi
	if [ -e /proc/mdstat ] && command -v mdadm; then
		in_use mdadm --stop "/dev/md/vmdksync-test-$$"
		mdadm --create "/dev/md/vmdksync-test-$$" --run --level=1 --raid-devices=2 --metadata=1.2 "$a" missing
		refused_kept
		held=1
	else
		missing="$missing, no MD"
	fi
	[ "$held" = 1 ] || skip "$missing here"
}
