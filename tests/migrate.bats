# examples/migrate.sh, from a stand-in ESXi host to loop devices, with the guest writing all the time;
# and what it does when something goes wrong.

load helpers
load esxi

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	# a profiler that is killed while it writes its counts would spoil those of all others
	export GCOV_PREFIX=$BATS_TEST_TMPDIR/gcov
	export VMDKSYNC TMPDIR=$BATS_TEST_TMPDIR
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
	chmod +x bin/date
	PATH=$PWD/bin:$PATH
}

teardown() {
	local s

	# what a killed run leaves
	for s in "$BATS_TEST_TMPDIR"/tmp.*/ssh; do
		[ ! -S "$s" ] || ssh -o ControlPath="$s" -O exit esxi 2>/dev/null || :
	done
	[ ! -d mnt ] || umount mnt 2>/dev/null || :
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
	fault slow -00000[31]- 2000
	printf '%s\n' 20000 10000 >"$ESXI/ctl/bursts"
	CLOCK=$ESXI/ctl/clock run -0 migrate --budget=1 --start='cp /dev/null started'
	[[ $output == *'rounds: 3' || $output == *'rounds: 3'$'\n'* ]]
	[[ $output == *'downtime in all: '*' s'* ]]
	[[ $output == *'snapshot.remove 12 1'* ]]
	[ -e started ]
	[ "$(cat "$ESXI/ctl/power")" = off ]
	arrived
	run -0 migrate --accept
	[ ! -s "$ESXI/ctl/snapshots" ]
	[[ $output != *'To remove them'* ]]
	grep -q 'autostartentry 12 none' "$ESXI/ctl/commands"
	arrived
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
	# the base cannot be read: a clone is; then the connection breaks in a round
	fault drop -000003- 70000
	stopped 1 'round 1 failed'
	fault -drop
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
	a=mnt/a.raw
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
	for id in 5 4 3 2 1; do
		esxi_ssh "vim-cmd vmsvc/snapshot.remove 12 $id"
	done
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
		until_true is_locked "$a"
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
	stopped 1 'cannot be read while' "${nc[@]}"
	# the last copy is of several links: it fails, and when the first is undone, too, the power goes
	wrap
	fault cut -000002- 90000
	echo "-q */undo-1.vmdk $a" >bad
	echo after >how
	run -137 migrate --now
	[[ $output == *'rolling back'* ]]
	rm bad
	fault -cut
	run -0 migrate --now "${nc[@]}"
	arrived
}

@test "wrong words on the command line" {
	for words in '' '--budget=x h v scsi0:0=t' '--via=pigeon h v scsi0:0=t' 'h v' 'h v t' \
		'--via=nc h v scsi0:0=t' '--nonsense' 'h v scsi0:0=a scsi0:0=b' '-oProxyCommand=x v scsi0:0=a'; do
		# shellcheck disable=SC2086 # words
		run -2 sh "$TOP/examples/migrate.sh" $words
		[[ $output == *"Try 'migrate.sh --help'"* ]]
	done
	run -0 sh "$TOP/examples/migrate.sh" --help
	[ "$(wc -L <<<"$output")" -le 80 ]
}
