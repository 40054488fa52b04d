# SPDX-License-Identifier: MIT
# examples/migrate/, from a stand-in ESXi host to loop devices and files, with the guest writing all the
# time; after every run the checker of migrate.bash looks.

load helpers
load esxi
load migrate
load shown

setup() {
	migrate_setup
}

teardown() {
	migrate_teardown
}

@test "an old host, verb by verb: two disks, COWD and SEsparse, two rounds, accepted" {
	esxi_requires
	requires loop jq
	targets 512 8M 16M
	esxi_start 16384 32768
	# the first round takes long, all else takes no time
	echo 0 >"$ESXI/ctl/clock"
	export CLOCK=$ESXI/ctl/clock
	fault slow server-000003- 70000
	printf '%s\n' 4000 8000 >"$ESXI/ctl/bursts"
	# the lines of the manual
	printf '#!/bin/sh\n[ "$*" = "start web" ] && exec "%s"\n' "$PWD/start" >bin/virsh
	ln -s "$TOP/examples/migrate/vmdksync-migrate" bin/
	chmod +x bin/virsh
	mkdir migrate-web_server
	ln -s migrate-web_server state
	new_vm >/dev/null
	as_shown --list
	[[ $output == *'lvcreate'* ]]
	as_shown check
	[ "$(count snapshot.create)" = 0 ]
	as_shown seed
	given=()
	guest_runs
	as_shown sync
	guest_runs
	[ "$(cat state/rounds)" = 2 ]
	as_shown cutover
	[[ $output == *'downtime in all: '*' s'* ]]
	grep -q "^MIGRATE_DISKS=scsi0:0=$a" hook
	[ "$(cut -d ' ' -f 1 "$ESXI/ctl/autostart")" = none ]
	# each again: nothing is left to do
	n=$(wc -l <"$ESXI/ctl/commands")
	for v in seed sync cutover; do
		runs 0 $v
	done
	[ "$(sed "1,${n}d" "$ESXI/ctl/commands" | grep -cE 'create|power.(on|off|shutdown)|remove')" = 0 ]
	as_shown accept
	[ ! -s "$ESXI/ctl/snapshots" ]
	runs 0 accept
	runs 0 check
	runs 0 status
	migrate status --json | jq -e '.step == "accepted" and .rounds == 2 and (.disks | length) == 2 and
		(.downtime | length) == 2'
}

# as_shown VERB...: as the manual shows it
as_shown() {
	local line

	line=$(shown_in "$TOP/vmdksync-migrate.1" | grep -- "^vmdksync-migrate $* e\|^vmdksync-migrate $* --budget")
	[ "$(wc -l <<<"$line")" = 1 ]
	line=${line/\/dev\/vg0\/hda/$a}
	line=${line/\/dev\/vg0\/hdb/$b}
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -0 here timeout 300 sh -c "$line" 3>&-
	holds "$1"
}

@test "what else the manual shows: run, status, rollback" {
	small
	ln -s "$TOP/examples/migrate/vmdksync-migrate" bin/
	mkdir migrate-web_server
	ln -s migrate-web_server state
	as_shown run --now
	as_shown status --json
	# each field is in the manual
	for f in $(sed -n '/^{/,/^}/p' <<<"$output" | jq -r 'keys[]'); do
		grep -q "^\.It Cm .*\<$f\>" "$TOP/vmdksync-migrate.1"
	done
	as_shown rollback --dry-run --json
	as_shown rollback
	guest_runs
}

# small: a host and two files as targets
small() {
	esxi_requires
	requires jq
	files 1M 2M
	esxi_start $(($(stat -c %s a.raw) / 512)) $(($(stat -c %s b.raw) / 512))
}

@test "ESXi 8: the base by a clone, one round, an estimate, cutover on command" {
	small
	fault base-unreadable
	fault links-unreadable
	echo all >"$ESXI/ctl/fault/clone-fails"
	runs 1 seed
	[[ $output == *'vmkfstools failed: Failed to clone disk'* ]]
	fault -clone-fails
	runs 0 seed
	guest_runs
	[ "$(grep -c 'vmkfstools -i .*2gbsparse' "$ESXI/ctl/commands")" -ge 2 ]
	[ -z "$(find "$ESXI/vmfs" -name '*clone*')" ]
	# a round is not even tried
	runs 0 sync
	[[ $output == *'no rounds on this host'*'the last copy: about '*' s at '* ]]
	[ "$(count snapshot.create)" = 1 ]
	# the budget is looked at before the VM is stopped
	echo 1 >state/rate
	runs 3 cutover
	[[ $output == *'the budget is 60 s'* ]]
	guest_runs
	runs 0 cutover --now
	runs 0 accept
}

@test "ESXi 8: a clone in sparse extents is cut, and goes on; or only a thin one can be made; no room" {
	small
	fault base-unreadable
	fault cut -s002 70000
	runs 1 seed
	grep -q 's001' state/scsi0:0/cloned
	[[ $output == *'a clone is left on esxi'*'vmkfstools -U'* ]]
	fault -cut
	n=$(grep -c 'vmkfstools -i' "$ESXI/ctl/commands")
	runs 0 seed
	[ "$(grep -c 'vmkfstools -i' "$ESXI/ctl/commands")" = "$n" ]
	runs 0 run
	esxi_reset
	echo 1073741900 >"$ESXI/ctl/room.5f1b-bbbb"
	fault base-unreadable
	runs 1 seed
	[[ $output == *'scsi0:1: a clone needs up to '* ]]
	rm "$ESXI/ctl/room.5f1b-bbbb"
	echo 2gbsparse >"$ESXI/ctl/fault/clone-fails"
	runs 0 seed
	[[ $output == *'trying a thin clone'* ]]
	runs 0 cutover
}

# esxi_reset: another VM of the same disks, as if the migration had not begun
esxi_reset() {
	rm -rf state "$ESXI"/ctl/fault/*
	# shellcheck disable=SC2016 # for the shell inside
	on_host 'lock; merge; rm -f /ctl/target-on; [ "$(cat /ctl/power)" = on ] || power_on; unlock'
	"$MKVMDK" pattern a.raw $(($(stat -c %s a.raw) / 512)) 77
	"$MKVMDK" pattern b.raw $(($(stat -c %s b.raw) / 512)) 78
}

@test "a VM that is off is copied at once; one that comes on meanwhile is noticed" {
	small
	on_host 'lock; power_off; unlock'
	runs 0 seed
	[ "$(count snapshot.create)" = 0 ]
	runs 0 sync
	runs 0 run "$(new_vm)"
	runs 0 accept
	esxi_reset
	on_host 'lock; power_off; unlock'
	runs 0 seed
	on_host 'lock; power_on; unlock'
	sleep 0.5
	runs 3 cutover
	[[ $output == *'runs on the base that was copied'* ]]
	on_host 'lock; power_off; unlock'
	runs 3 cutover
	[[ $output == *'does not begin with what was copied'* ]]
	rm -r state
	runs 0 run
}

@test "a VM with two older snapshots keeps them" {
	small
	on_host 'lock; snapshot older-1; unlock'
	sleep 0.3
	on_host 'lock; snapshot "older 2"; unlock'
	runs 0 seed
	# its base is frozen already
	[ "$(count snapshot.create)" = 0 ]
	runs 0 sync
	runs 0 cutover
	runs 0 accept
	[ "$(wc -l <"$ESXI/ctl/snapshots")" = 2 ]
	# one of them goes away
	rm -r state
	runs 0 seed
	sed -i '/older-1/d' "$ESXI/ctl/snapshots"
	runs 3 cutover
	[[ $output == *'snapshots that are not of this migration came or went'* ]]
}

@test "stories B and B2: the source is started again after the cutover: never both, nothing stale is accepted" {
	small
	runs 0 run
	[[ $output == *'now start the new VM'* ]]
	on_host 'lock; power_on; unlock'
	sleep 0.5
	runs 3 cutover "$(new_vm)"
	[ ! -e "$ESXI/ctl/target-on" ]
	runs 3 accept
	[[ $output == *'was started on esxi again'* ]]
	# off again: what it wrote is still missing
	on_host 'lock; power_off; unlock'
	runs 3 accept
	runs 3 run "$(new_vm)"
	[[ $output == *'ran on esxi after its last copy'* ]]
	[ ! -e "$ESXI/ctl/target-on" ]
	[ "$(cut -d ' ' -f 1 "$ESXI/ctl/autostart")" = none ]
	runs 0 rollback
	guest_runs
	[ "$(cat "$ESXI/ctl/autostart")" = 'powerOn 120 2 systemDefault -1 no' ]
	runs 0 run "$(new_vm)"
	rm "$ESXI/ctl/target-on"
	# it came on for a moment and wrote nothing that matters; the user says so
	fault idle
	on_host 'lock; power_on; power_off; unlock'
	runs 3 accept
	runs 0 accept --stale
}

@test "story C: what the descriptors refuse is refused before anything is copied" {
	small
	link="$ESXI/vmfs/volumes/5f1a-aaaa/web server/web server.vmdk"
	cp "$link" base.vmdk
	while IFS='|' read -r word from to; do
		sed "s|$from|$to|" base.vmdk >"$link"
		runs 2 run
		[[ $output == *"$word"* ]]
		rm -r state
	done <<-'END'
	encrypted|^version=3|version=3\nencryptionKeys="vmware:key/list"
	raw device mapping|VMFS |VMFSRDM 
	vSAN|web server-flat.vmdk|vsan://52c5/x
	vVol|web server-flat.vmdk|vvol://52c5/x
	one extent was expected, not 2|^RW.*|&\nRDONLY 8 ZERO
	END
	[ ! -e "$ESXI/ctl/commands" ] || [ "$(count snapshot.create)" = 0 ]
	cp base.vmdk "$link"
	# and of the machine
	echo 'scsi0:1.mode = "independent-persistent"' >>"$ESXI/ctl/vmx.head"
	on_host write_vmx
	runs 2 check
	[[ $output == *independent* ]]
	sed -i '$d' "$ESXI/ctl/vmx.head"
	echo 'SCSI0.sharedBus = "physical"' >>"$ESXI/ctl/vmx.head"
	on_host write_vmx
	runs 2 check
	[[ $output == *shares* ]]
	sed -i '$d' "$ESXI/ctl/vmx.head"
	on_host write_vmx
	echo 1000 >"$ESXI/ctl/room.5f1b-bbbb"
	runs 2 check
	[[ $output == *'/vmfs/volumes/5f1b-bbbb has only 1000 bytes free'* ]]
	rm "$ESXI/ctl/room.5f1b-bbbb"
	given=("scsi0:0=$a")
	rm -r state
	runs 2 check
	[[ $output == *'has a disk scsi0:1'* ]]
	given=("scsi0:0=$b" "scsi0:1=$a")
	rm -r state
	runs 2 check
	[[ $output == *"$a"* ]]
	given=("scsi0:0=$a" "scsi0:1=$b")
	rm -r state
	name='web  server' runs 2 check
	[[ $output == *"has 0 VMs named 'web  server'"* ]]
}

@test "story Q: a disk that is added while the base is copied, by a key in upper case" {
	small
	runs 0 seed
	esxi_disk 2 SCSI0:2 cowd 2048 1 '/vmfs/volumes/5f1a-aaaa/web server' '' added
	# shellcheck disable=SC2016 # for the shell inside
	on_host 'lock; write_vmx; held "$(extent 2 added.vmdk)"; unlock'
	runs 3 sync
	[[ $output == *'has a disk scsi0:2'*'has no target'* ]]
	runs 3 cutover
	guest_runs
	"$MKVMDK" pattern c.raw 1M 79
	c=$PWD/c.raw
	given=("scsi0:2=$c")
	runs 0 seed
	given=()
	runs 0 run
	runs 0 accept
}

@test "story O: the VM goes off by itself while the base is copied: nobody cuts over" {
	small
	fault drop server-flat 300000
	runs 1 run
	fault -drop
	on_host 'lock; power_off; unlock'
	runs 3 run "$(new_vm)"
	[[ $output == *'this migration did not stop it'* ]]
	[ ! -e "$ESXI/ctl/target-on" ]
	[ "$(cat state/step)" = seeded ]
	# who types cutover means it
	runs 0 cutover "$(new_vm)"
}

@test "a frozen link that opens and does not read: no rounds, and the cutover copies it" {
	small
	fault links-mute
	runs 0 seed
	runs 0 sync
	[[ $output == *'no rounds on this host'* ]]
	runs 0 cutover --now
	runs 0 accept
}

@test "--shutdown-wait is a time, not a number of questions that the host may be slow to answer" {
	small
	fault idle
	fault shutdown-ignored
	runs 0 seed
	fault slow-vim '*power.getstate*' 1
	: >trace
	runs 3 cutover --now --shutdown-wait=3
	# one before the wait, and one a second at most
	[ "$(grep -c '^vim-cmd vmsvc/power.getstate' trace)" -le 5 ]
	fault -slow-vim
	runs 0 rollback
}

@test "files that stay locked after the power-off are waited for" {
	small
	runs 0 seed
	runs 0 sync
	echo 4 >"$ESXI/ctl/fault/locked"
	runs 0 cutover
	[ "$(count power.shutdown)" = 1 ]
	esxi_reset
	MIGRATE_UNLOCK=1
	export MIGRATE_UNLOCK
	runs 0 seed
	echo 30 >"$ESXI/ctl/fault/locked"
	runs 4 cutover --now
	[[ $output == *'still locked'* ]]
	guest_runs
}

@test "a round that fails and is run again takes no other snapshot" {
	small
	runs 0 seed
	fault cut -000003- 9000
	for i in 1 2 3; do
		runs 1 sync
	done
	[ "$(count snapshot.create)" = 2 ]
	fault -cut
	runs 0 sync
	[ "$(count snapshot.create)" = 2 ]
	runs 0 cutover
}

@test "vim-cmd that hangs, lies, is slow; a busy host; snapshots that take a while to remove" {
	small
	export MIGRATE_LIMIT=3
	fault hang '*power.getstate*'
	runs 1 check
	fault -hang
	fault lie '*snapshot.create*'
	runs 1 seed
	[[ $output == *'no snapshot: '*TaskInProgress* ]]
	fault -lie
	export MIGRATE_LIMIT=20
	fault slow-vim '*snapshot.create*' 2
	runs 0 seed
	fault -slow-vim
	# no Tools: known before it is waited for
	echo guestToolsNotRunning >"$ESXI/ctl/tools"
	runs 2 cutover
	[[ $output == *'VMware Tools do not run'* ]]
	[ "$(count power.shutdown)" = 0 ]
	echo guestToolsRunning >"$ESXI/ctl/tools"
	fault shutdown-ignored
	runs 3 cutover --now --shutdown-wait=1
	[[ $output == *'did not shut down in 1 s'* ]]
	guest_runs
	runs 0 rollback
	[ "$(cut -d ' ' -f 1 "$ESXI/ctl/autostart")" = powerOn ]
	runs 0 cutover --now --shutdown-wait=1 --hard-off
	echo 2 >"$ESXI/ctl/fault/slow-removal"
	echo 2 >"$ESXI/ctl/fault/busy"
	runs 0 accept
	[ "$(count snapshot.remove)" -ge 3 ]
	grep -q '"data.vmdk"\|/data.vmdk"' "$ESXI/$(cat "$ESXI/ctl/vmx")"
}

@test "a snapshot that comes after its run was killed is awaited; if two come, both are told and removed" {
	small
	# it is done after the next run has looked
	fault held-snapshot vmdksync-1
	echo '*snapshot.create* killed' >./at
	SETSID=setsid run -137 migrate seed 3>&-
	until_true flock -n state/lock true
	[ ! -s "$ESXI/ctl/snapshots" ]
	keep
	migrate seed >run.log 2>&1 3>&- &
	pid=$!
	waits() {
		grep -q 'waiting for the snapshot vmdksync-1' run.log || [ "$(count snapshot.create)" != 1 ]
	}
	until_true waits
	fault -held-snapshot
	wait $pid
	[ "$(count snapshot.create)" = 1 ]
	status=0 output=$(<run.log)
	holds seed
	runs 0 sync
	[ "$(cut -d ' ' -f 2 "$ESXI/ctl/snapshots" | xargs)" = 'vmdksync-1 vmdksync-2' ]
	# it does not come in time, and then comes all the same
	put_back
	MIGRATE_LIMIT=5 runs 0 seed
	[[ $output == *'snapshot vmdksync-1 did not come in 5 s'* ]]
	on_host 'lock; snapshot vmdksync-1'
	# and a host that makes it twice
	on_host 'lock; snapshot vmdksync-1'
	runs 0 status
	[ "$(grep -c 'snapshot.remove .*# vmdksync-' <<<"$output")" = 3 ]
	runs 0 run --now
	runs 0 accept
	[ ! -s "$ESXI/ctl/snapshots" ]
}

@test "vMotion gives another number; a VM that is gone; a second migration elsewhere" {
	small
	runs 0 seed
	run -2 --separate-stderr migrate seed --state=other
	[[ $stderr == *"belongs to another migration ("*"state)"* && $stderr != *'snapshot.remove'* ]]
	echo 57 >"$ESXI/ctl/vmid"
	runs 3 sync --uuid=564d1122-3344-5566-7788-99aabbccdd00
	[[ $output == *'has uuid.bios 56 4d 11 '*', not 564d1122-'* ]]
	runs 0 sync --uuid=564D1122-3344-5566-7788-99AABBCCDDEE
	echo 'gone/web server.vmx' >"$ESXI/ctl/vmx-file"
	runs 3 cutover
	[[ $output == *'is not registered on esxi any more'* ]]
	echo 'web server/web server.vmx' >"$ESXI/ctl/vmx-file"
	runs 0 cutover
}

@test "names with blanks, brackets, quotes and umlauts" {
	small
	# shellcheck disable=SC2016 # signs
	name='Wäb [2] "it'\''s" $x `y`'
	dir="/vmfs/volumes/5f1a-aaaa/$name"
	mv "$ESXI/vmfs/volumes/5f1a-aaaa/web server" "$ESXI$dir"
	printf '%s\n' "$name" >"$ESXI/ctl/name"
	printf '%s\n' "$name/web server.vmx" >"$ESXI/ctl/vmx-file"
	printf '%s\n' "$dir/web server.vmx" >"$ESXI/ctl/vmx"
	printf '%s\n' "$dir" >"$ESXI/ctl/disk/0/dir"
	runs 0 run
	runs 0 accept
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -0 here sh "$TOP/examples/migrate/vmdksync-migrate" --list esxi "$name"
	[[ $output == *'scsi0:0: 1048576 bytes'*'lvcreate'*'qemu-img create'*'rbd create'*'next: '*scsi0:1=* ]]
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -0 here sh "$TOP/examples/migrate/vmdksync-migrate" --list esxi
	[[ $output == *"$name"* ]]
}

@test "failures of the last copy: the source runs again, the targets are what they were" {
	small
	runs 0 seed
	runs 0 sync
	fault cut -000001- 9000
	runs 4 cutover --now
	[[ $output == *'the last changes could not be copied: rolling back'* ]]
	guest_runs
	fault -cut
	# a snapshot of somebody else that comes while the VM is off
	fault restart -000001-
	runs 4 cutover --now
	[[ $output == *'was started while its last changes were copied'* ]]
	fault -restart
	guest_runs
	# on and off again while its disks are read: what was read is not all there is
	fault bounce -000001- -000001-
	runs 0 cutover --now
	[[ $output == *'once more'* ]]
	runs 0 rollback
	runs 0 seed
	# the new VM does not come up; it wrote to its disk
	runs 4 cutover --now --start="dd if=/dev/urandom of=$a bs=4096 count=1 conv=notrunc; false"
	[[ $output == *'the start hook failed: rolling back'* ]]
	guest_runs
	runs 0 seed
	echo '77 backup' >>"$ESXI/ctl/snapshots"
	runs 3 cutover --now
	[[ $output == *'backup'*'remove those that came'* ]]
	sed -i '/backup/d' "$ESXI/ctl/snapshots"
	runs 0 run "$(new_vm)"
}

@test "a disk left open by the VM is not taken for its last state" {
	small
	runs 0 seed
	runs 0 sync
	fault left-open 0
	runs 4 cutover --now
	fault left-open 1
	runs 4 cutover --now
	fault -left-open
	runs 0 cutover --now
}

@test "refused targets: missing, too small, twice, mounted, given to two migrations" {
	small
	given=("scsi0:0=/dev/vg0/typo" "scsi0:1=$b")
	runs 2 check
	[ ! -e /dev/vg0 ]
	rm -r state
	given=("scsi0:0=$a" "scsi0:1=$a")
	run -2 migrate check
	[[ $output == *'was given for two disks'* ]]
	rm -r state
	truncate -s 512K short.raw
	given=("scsi0:0=$PWD/short.raw" "scsi0:1=$b")
	runs 2 check
	rm -r state
	# shellcheck disable=SC2034 # of migrate.bash
	given=("scsi0:0=$a" "scsi0:1=$b")
	flock -F "$a" sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked "$a"
	runs 2 check
	[[ $output == *"scsi0:0: $a cannot be written"* ]]
}

# wrap: vmdksync is a wrapper from now on, which goes wrong where its words match what is in the file
# `bad`: as `how` tells, its writes fail, or all is done and the migration is killed then. Before the
# last copy it keeps a copy of the target in before-NAME.
wrap() {
	printf '#!/bin/bash\nreal=%q here=%q\n' "$VMDKSYNC" "$PWD" >wrapped
	cat >>wrapped <<-'END'
	target=${!#}
	case "$*" in
	*--undo=*) [ -e "$here/before-${target##*/}" ] || cp "$target" "$here/before-${target##*/}" ;;
	esac
	# shellcheck disable=SC2053 # a pattern
	[ -e "$here/bad" ] && [[ "$*" == $(<"$here/bad") ]] || exec "$real" "$@"
	if [ "$(<"$here/how")" = after ]; then
		"$real" "$@"
		kill -9 $PPID
	fi
	exec strace -f -qq -o /dev/null -P "$(realpath "$target")" -e trace=pwrite64 \
		-e inject=pwrite64:error="$(<"$here/how")":when=2+ "$real" --no-uring "$@"
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

@test "a full disk: in the base, in a round, in the last copy, which is rolled back; one that is not" {
	small
	requires strace
	mkdir mnt
	mount -t tmpfs -o size=600K none mnt || skip 'cannot mount here'
	truncate -s 1M mnt/a.raw
	a=$PWD/mnt/a.raw
	given=("scsi0:0=$a" "scsi0:1=$b")
	wrap
	printf '%s\n' 1500 1200 >"$ESXI/ctl/bursts"
	runs 1 seed
	[[ $output == *'No space left on device'* ]]
	mount -o remount,size=8M mnt
	runs 0 seed
	echo "*--json* - $a" >bad
	echo ENOSPC >how
	runs 1 sync
	[[ $output == *'No space left on device'*'the round failed'* ]]
	echo "*--undo=*/undo-*.vmdk* - $a" >bad
	runs 4 cutover --now
	[[ $output == *'the last changes could not be copied: rolling back'* ]]
	rolled_back
	# a rollback that fails on one of the disks: its base is copied again
	echo "*-q */undo-*.vmdk $a" >bad
	echo EIO >how
	fault cut data-000001- 9000
	runs 4 cutover --now
	[[ $output == *'could not roll back: scsi0:0; seed copies the base again'* ]]
	same "$b" "before-${b##*/}"
	rm bad
	fault -cut
	runs 0 run --now
	umount mnt
}

# interrupted KILL|INT PATTERN BYTES VERB OPTION...: the signal comes after BYTES of that file
interrupted() {
	local signal=$1 status_got=0 i

	fault hold "$2" "$3"
	shift 3
	rm -f "$ESXI/ctl/held"
	# what bats starts behind an '&' ignores SIGINT
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" env --default-signal=INT \
		nsenter -t "$ESXI_HERE" --net setsid sh "$TOP/examples/migrate/vmdksync-migrate" "$1" --state=state \
		"${@:2}" esxi 'web server' "${given[@]}" >run.log 2>&1 3>&- &
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
		run -2 migrate check 3>&-
		[[ $output == *'another migration runs'* ]]
		run -0 --separate-stderr migrate status --json 3>&-
		jq -e .running <<<"$output"
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
		fault -hold
		status=130 output=$(<run.log)
		holds "$1"
	fi
}

@test "killed, or stopped by hand, in the base, in a round, in the last copy: the next run goes on" {
	small
	printf '%s\n' 1500 1500 1500 1500 >"$ESXI/ctl/bursts"
	interrupted INT server-flat 500000 seed
	interrupted KILL server-flat 300000 seed
	guest_runs
	runs 0 seed
	interrupted INT server-000003- 300000 sync
	interrupted KILL server-000003- 300000 sync
	guest_runs
	runs 0 sync
	interrupted INT server-00000[12]- 10000 cutover --now
	grep -q 'is off, .*rollback' run.log
	interrupted KILL server-00000[12]- 10000 cutover --now
	runs 0 cutover
}

@test "over netcat; frozen links that cannot be read: one round, and a way back of several links" {
	small
	requires nc
	nc=(--via=nc --listen=192.0.2.2:31310)
	fault links-unreadable
	fault gzip-cut 100000
	runs 1 seed "${nc[@]}"
	[[ $output == *'the base did not come whole'* ]]
	fault -gzip-cut
	# the way is noted, too
	runs 0 seed
	runs 0 sync
	[[ $output == *'no rounds on this host'* ]]
	fault gzip-cut 9000
	runs 4 cutover --now
	fault -gzip-cut
	runs 0 cutover --now --via=gzip
}

@test "the disk is full under the undo logs and the notes" {
	small
	mkdir mnt
	mount -t tmpfs -o size=700K none mnt || skip 'cannot mount here'
	ln -s mnt state
	printf '%s\n' 1500 1500 >"$ESXI/ctl/bursts"
	fault links-unreadable
	wrap
	runs 0 seed
	runs 0 sync
	runs 4 cutover --now
	[[ $output == *'No space left on device'* ]]
	rolled_back
	mount -o remount,size=80M mnt
	runs 0 cutover --now
	umount mnt
}

@test "a target of its own disk, and one onto a qcow2 by NBD" {
	small
	requires qemu-img qemu-storage-daemon
	[ -x "$TOP/examples/with-disk.sh" ] || skip 'needs with-disk.sh'
	qemu-img create -q -f qcow2 b.qcow2 2M
	# zeros take no room in a thin target
	rm a.raw
	truncate -s 1M a.raw
	given=("scsi0:0=$a" "scsi0:1=with-disk:$PWD/b.qcow2")
	for verb in seed sync cutover; do
		run -0 migrate "$verb" 3>&-
	done
	qemu-img convert -O raw b.qcow2 b.raw
	arrived
}

@test "a base that breaks goes on where all is durable, and from its beginning if it was changed there" {
	esxi_requires
	requires jq
	files 8M 1M
	esxi_start 16384 2048
	# the connection breaks
	fault drop server-flat 5500000
	runs 1 seed
	[[ $output == *'scsi0:0: the base did not come whole'* ]]
	fault -drop
	from=$(vs --resume=state/scsi0:0/position --position)
	[ "$from" -ge 1048576 ]
	: >trace
	runs 0 seed
	grep -q "^dd if=.*server-flat.vmdk' bs=1048576 skip=$((from / 1048576)) " trace
	runs 0 cutover --now
	# what is there now is not what came: refused, and copied anew
	esxi_reset
	fault drop server-flat 5500000
	runs 1 seed
	fault -drop
	"$MKVMDK" pattern a.raw 16384 99
	runs 1 seed
	runs 0 run --now
}

# told VERB OPTION...: its JSON is in `json`, whatever its end; nothing else is on standard output
told() {
	run --separate-stderr migrate "$@" --json 3>&-
	json=$output
	printf '%s\n' "$json" "$stderr"
	jq -es 'length == 1' <<<"$json"
	jq -e '.schema == 1 and .verb == "'"${1#--}"'" and .vm == "web server" and .host == "esxi"' <<<"$json"
	jq -e --argjson exit "$status" 'if $exit == 0 then .error == null else .error.exit == $exit and
		.error.message != "" and .error.hint != "" end' <<<"$json"
}

# is FILTER: holds for what was told
is() {
	jq -e "$1" <<<"$json"
}

@test "each verb tells by --json what it changed; a dry run touches nothing and tells what it would" {
	small
	: >>"$ESXI/ctl/commands"
	for verb in seed sync cutover accept; do
		before=$(acts) sums=$(sums)
		told "$verb" --dry-run
		is ".error == null and .changed and .dry_run and (.next | contains(\" $verb \"))"
		[ "$sums" = "$(sums)" ]
		[ "$(acts)" = "$before" ]
		told "$verb"
		is '.error == null and .changed and (.dry_run | not) and (.running | not) and (.disks | length) == 2'
		# the targets were noted
		given=()
		for again in '' --dry-run; do
			# shellcheck disable=SC2086 # or nothing
			told "$verb" $again
			is '.error == null and (.changed | not)'
		done
		told check
		is '.changed | not'
		told status
		is '(.changed | not) and .disks[0].base_copied'
	done
	is '.step == "accepted" and .source == "off" and .rounds == 1 and .snapshots == []'
	[ "$(jq -r .step state/status.json)" = accepted ]
	# nothing known yet, and nothing made for it
	told status --state=none
	is '.step == "new" and .disks == [] and .source == "off"'
	[ ! -e none ]
}

# acts: how many commands of the host were not questions
acts() {
	grep -vcE 'get|list' "$ESXI/ctl/commands" || :
}

# sums: of all that a dry run must not touch
sums() {
	find state a.raw b.raw -type f -exec sha256sum {} + 2>/dev/null
	find state
	cat "$ESXI"/ctl/{snapshots,power,autostart}
} 2>/dev/null

@test "errors in JSON: their code, exit status and what to do" {
	small
	given=()
	told seed
	[ "$status" = 2 ]
	is '.step == null and .error.code == "refused" and (.error.message | contains("no disk has a target"))'
	given=("scsi0:0=$a" "scsi0:1=$b")
	: >gone
	told check
	[ "$status" = 1 ]
	is '.error.code == "retry" and .source == null'
	told status
	[ "$status" = 1 ]
	rm gone
	echo guestToolsNotRunning >"$ESXI/ctl/tools"
	runs 0 seed
	runs 0 sync
	told cutover --dry-run
	is '.error.code == "refused" and (.error.message | contains("Tools"))'
	echo guestToolsRunning >"$ESXI/ctl/tools"
	told cutover --dry-run --budget=0
	is '.error.code == "decision" and .error.exit == 3 and (.changed | not)'
	fault cut -000001- 9000
	told cutover --now
	is '.error.code == "rolled_back" and .error.exit == 4 and .changed and .step == "seeded"'
	fault -cut
	told cutover --now
	told rollback --dry-run
	is '.changed and .step == "applied"'
	on_host 'lock; power_on; unlock'
	told status
	[ "$status" = 3 ]
	is '.error.message | contains("was started on esxi again")'
	told --list
	is '.source == "on" and .disks[1].size == 2097152 and .disks[1].links == 3 and (.snapshots | length) == 2'
}

@test "accept is cut off after the host removed a snapshot: it goes on" {
	small
	runs 0 run
	echo 2 >"$ESXI/ctl/fault/slow-removal"
	# the last one: the host still merges
	echo '*snapshot.remove*1 then-gone' >./at
	MIGRATE_LIMIT=2 runs 1 accept
	[ ! -s "$ESXI/ctl/snapshots" ]
	runs 2 rollback
	[[ $output == *'accept goes on'* ]]
	runs 0 accept
	[ ! -e "$ESXI/vmfs/volumes/5f1a-aaaa/web server/web server-000001.vmdk" ]
}

@test "probe.sh: the answers of a host without its names; the stand-in replays them" {
	small
	on_host 'lock; snapshot "a customer"; unlock'
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" here sh "$TOP/examples/migrate/probe.sh" esxi 'web server' >answers 3>&-
	cat answers
	run ! grep -iE "web|5f1a|5f1b|fast ds|customer|56 4d 11|esxi " answers
	grep -q '^### vim-cmd vmsvc/snapshot.get 12$' answers
	grep -q 'toolsRunningStatus = "guestToolsRunning"' answers
	grep -q 'parentFileNameHint="VM.vmdk"' answers
	# what it answered is what it answers now
	esxi_replay answers
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" run -0 here sh "$TOP/examples/migrate/vmdksync-migrate" --list esxi VM 3>&-
	[[ $output == *'scsi0:0: 1048576 bytes'*' 2 links'* ]]
}

@test "wrong words on the command line" {
	for words in '' 'fly h v' 'check --budget=x h v scsi0:0=t' 'seed --via=pigeon h v scsi0:0=t' 'check h' 'check h v t' \
		'seed --via=nc h v scsi0:0=t' 'check --nonsense' 'check h v scsi0:0=a scsi0:0=b' 'check h v' \
		'check -oProxyCommand=x v scsi0:0=a' 'cutover --at=never h v scsi0:0=a'; do
		# shellcheck disable=SC2086 # words
		run -2 sh "$TOP/examples/migrate/vmdksync-migrate" $words
		[[ $output == *"Try 'vmdksync-migrate --help'"* ]]
		rm -rf migrate-v
	done
	SSH=false run -1 sh "$TOP/examples/migrate/vmdksync-migrate" check h v scsi0:0=disk
	[[ $output == *'cannot log in'*'next: '* ]]
}

# each verb with its commands: the state of everything before it is kept, and put back for each try
keep() {
	rm -rf kept
	mkdir kept
	until_true mkdir "$ESXI/ctl/lock" 2>/dev/null
	mkdir kept/ctl
	cp -a "$ESXI"/ctl/{disk,power,next,snapshots,numbers,autostart} kept/ctl/
	cp -a "$ESXI/vmfs" a.raw b.raw kept/
	[ ! -e state ] || cp -a state kept/
	rmdir "$ESXI/ctl/lock"
}

put_back() {
	until_true mkdir "$ESXI/ctl/lock" 2>/dev/null
	rm -rf state "$ESXI/vmfs"/volumes/*
	cp -a kept/vmfs/volumes/* "$ESXI/vmfs/volumes/"
	rm -rf "$ESXI"/ctl/disk "$ESXI"/ctl/description.*
	cp -a kept/ctl/disk "$ESXI/ctl/"
	for f in power next snapshots numbers autostart; do
		cp "kept/ctl/$f" "$ESXI/ctl/$f"
	done
	rm -f "$ESXI"/ctl/{target-on,both-on} gone at count
	cp kept/a.raw kept/b.raw .
	[ ! -e kept/state ] || cp -a kept/state .
	rmdir "$ESXI/ctl/lock"
}

# hit NUMBER FAULT VERB OPTION...: the verb, struck once, then what it says is next until it is done
hit() {
	local n=$1 fault=$2 verb=$3 i

	shift 2
	echo "$n $fault" >./at
	echo "--- $verb, command $n $fault"
	run migrate "$@" 3>&-
	printf '%s\n' "$output"
	case $fault in
	kill*) until_true flock -n state/lock true ;;
	# nobody holds it now
	reboot*) reboot && { [ ! -e state ] || flock -n state/lock true; } ;;
	*) until_true flock -n state/lock true && holds "$verb" ;;
	esac
	[[ $status =~ ^([01234]|137|143)$ ]]
	rm -f gone at
	[ ! -e "$ESXI/ctl/both-on" ]
	for ((i = 0; i < 4; i++)); do
		# what comes late has come
		[ "$fault" != late ] || sleep 1.2
		run migrate "$@" 3>&-
		printf '%s\n' "$output"
		holds "$verb"
		[ "$status" != 0 ] || break
		case $status,$output in
		*'next: '*' seed '*) run -0 migrate seed 3>&- ;;
		# who rolls back has stopped the new VM
		*'next: '*' rollback '*) rm -f "$ESXI/ctl/target-on" && run -0 migrate rollback 3>&- ;;
		esac
	done
	[ "$status" = 0 ] || { echo 'the same again did not end well'; return 1; }
	# all that was done before and after is worth nothing if it does not end well
	case $fault,$verb in
	*,accept) ;;
	kill* | reboot*) runs 0 run --now ;;
	esac
}

# strike VERB OPTION...: each command of the verb with each of the faults, or a sample: each EVERYth command, with
# one of them
strike() {
	local fault n all i=0
	local -a faults

	read -ra faults <<<"${FAULTS:-fails hangs lost late gone}"
	export MIGRATE_LIMIT=5
	keep
	: >trace
	runs 0 "$@"
	all=$(wc -l <trace)
	rm trace
	[ "$all" -ge 2 ]
	for ((n = 1; n <= all; n++)); do
		for fault in "${faults[@]}"; do
			if [ -z "${MIGRATE_ALL-}" ]; then
				[ $((n % ${EVERY:-4})) = 0 ] || continue
				[ "$fault" = "${faults[i % ${#faults[@]}]}" ] || continue
			fi
			put_back
			hit $n "$fault" "$@"
		done
		[ $((n % ${EVERY:-4})) != 0 ] || i=$((i + 1))
	done
	put_back
	rm -f at
	runs 0 "$@"
}

# bats test_tags=slow
@test "each command of check and seed fails, hangs, is lost, late, or the host is gone" {
	small
	strike seed
}

# bats test_tags=slow
@test "each command of sync fails, hangs, is lost, late, or the host is gone" {
	small
	runs 0 seed
	strike sync
}

# bats test_tags=slow
@test "each command of cutover fails, hangs, is lost, late, or the host is gone" {
	small
	runs 0 seed
	runs 0 sync
	strike cutover --now --shutdown-wait=15 "$(new_vm)"
}

# bats test_tags=slow
@test "each command of accept and rollback fails, hangs, is lost, late, or the host is gone" {
	small
	runs 0 run
	strike accept
	put_back
	strike rollback
}

# killed_in VERB OPTION...: at each note that it makes, each run of vmdksync, each command of the host; or all of
# this machine goes down then
killed_in() {
	: >points
	EVERY=${EVERY:-17} FAULTS='killed reboot kill rebooted' SETSID=setsid strike "$@"
	rm points
}

# bats test_tags=slow
@test "killed, or rebooted, at each step of seed and sync: the next run goes on" {
	small
	killed_in seed
	killed_in sync
}

# bats test_tags=slow
@test "killed, or rebooted, at each step of cutover: the next run goes on" {
	small
	runs 0 seed
	runs 0 sync
	EVERY=24 killed_in cutover --now --shutdown-wait=15 "$(new_vm)"
}

# bats test_tags=slow
@test "killed, or rebooted, at each step of accept and rollback: the next run goes on" {
	small
	runs 0 run
	killed_in accept
	put_back
	killed_in rollback
}
