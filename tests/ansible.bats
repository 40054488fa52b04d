# SPDX-License-Identifier: MIT
# examples/ansible/: the role and the playbook against stand-in hosts of several VMs. After a play the checker of
# migrate.bash looks at each VM.

load helpers
load esxi
load migrate
load ansible

setup() {
	ansible_setup
}

teardown() {
	[ ! -d mnt ] || umount mnt 2>/dev/null || :
	ansible_teardown
}

ansible_requires() {
	esxi_requires
	requires ansible-playbook jq nc
}

limits() {
	bash "$TOP/examples/ansible/roles/vmdksync/files/limits.sh" locks state "$@" 3>&-
}

@test "limits.sh: a slot is free when nothing that was started in it is left; windows" {
	requires flock
	run -0 limits now '' '' a=1 'b/c d=2' -- echo 'one  word'
	[ "$output" = 'one  word' ]
	[ "$(ls locks)" = $'a.1\nb_c d.1' ]
	# killed, but a child goes on
	run -137 limits now '' '' a=1 -- sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! >child; kill -9 $$'
	cat child >>pids
	run -1 flock -n locks/a.1 true
	limits now '' '' a=1 -- touch got 3>&- &
	sleep 1.5
	[ ! -e got ]
	kill "$(cat child)"
	wait $!
	[ -e got ]
	# what works in the state folder is waited for
	mkdir state
	flock -F state/lock sleep 1000 3>&- &
	echo $! >>pids
	until_true is_locked state/lock
	run -0 limits now '' '' a=1 -- true
	run -124 timeout 2 bash "$TOP/examples/ansible/roles/vmdksync/files/limits.sh" locks state wait '' '' a=1 -- true
	run -75 limits now tomorrow '' a=1 -- touch never
	[[ $output == *'outside of its window, from tomorrow until ever' ]]
	run -75 limits now '' yesterday a=1 -- touch never
	run -0 limits now yesterday tomorrow a=1 -- true
	# the VM is off already
	echo stopped >state/step
	run -0 limits now '' yesterday a=1 -- true
	run -2 limits now someday '' a=1 -- touch never
	run -2 limits now '' '' a=0 -- touch never
	[ ! -e never ]
}

# tree: all that lies on the hosts, in the targets, in the notes, but for what tells of questions
tree() {
	find host?/esxi/vms host?/esxi/vmfs vm* ! -name commands ! -path '*/vms/*/lock' \
		\( -printf '%p %y %m\n' -type f -exec sha256sum {} + \) | sort
}

# unchanged: no VM was changed by the play
unchanged() {
	[[ $output == *'PLAY RECAP'* && $output != *changed=[1-9]* ]]
}

@test "check mode touches nothing; a second play changes nothing; accepted" {
	ansible_requires
	cluster 1 2
	for vm in $VMS; do
		: >"$vm/ctl/fault/idle"
	done
	sleep 0.5
	tree >before
	play 0 --check --tags check,seed,sync,cutover
	[[ $output == *'changed: [vm101]'*'changed=1 '*'changed=1 '* ]]
	tree | diff before -
	[ ! -e vm101/state ]
	run ! grep -E 'create|remove|power\.(on|off|shutdown)|update_' host1/esxi/vms/*/commands
	play 0
	[[ $output == *changed=[2-9]* ]]
	play 0
	unchanged
	tree >before
	play 0 --check --tags check,seed,sync,cutover
	[[ $output == *'changed=1 '* ]]
	tree | diff before -
	play 0 --tags sync,cutover
	[[ $output == *'changed=1 '*'changed=1 '* ]]
	all_moved
	[[ $output == *'vm101 '*' esxi1 '*' started '*' off '*' accept '* ]]
	play 0 --tags check,seed,sync,cutover
	unchanged
	play 0 --tags accept
	[[ $output == *'changed=1 '*'changed=1 '* ]]
	play 0 --tags check,seed,sync,cutover,accept
	unchanged
	[ ! -s vm101/ctl/snapshots ]
}

@test "a disk that fails tells why, and stops nobody else; windows; rollback; a hook that leaves something" {
	ansible_requires
	mkdir mnt
	mount -t tmpfs -o size=600K none mnt || skip 'cannot mount here'
	host_limit=1 cluster 1 2
	sed -i "s|vmdksync_start: $PWD/vm102/start|&; sleep 1000 \& echo \$! >>$PWD/pids|" plan.yml
	truncate -s 1M mnt/0.raw
	sed -i "s|$PWD/vm101/0.raw|$PWD/mnt/0.raw|" plan.yml
	cat >>plan.yml <<-END
	    wave1:
	      vars:
	        vmdksync_window: {from: tomorrow, until: tomorrow 4:00}
	      hosts: {vm101: }
	    wave2:
	      vars:
	        vmdksync_window: {from: yesterday, until: tomorrow}
	      hosts: {vm102: }
	END
	play 2
	echo "$output"
	[[ $output == *'fatal: [vm101]: FAILED! => '*"VM 101's: "*'No space left on device'*'(retry). '* ]]
	[[ $output == *'vm101 '*' esxi1 '*' seeding '*'No space left'*'vm102 '*' esxi1 '*' seeded '*' cutover '* ]]
	mount -o remount,size=8M mnt
	play 0 --tags check,seed,sync,cutover
	echo "$output"
	[[ $output == *"VM 101's is not cut over: outside of its window, from tomorrow until tomorrow 4:00"* ]]
	[ "$(step vm101)" = seeded ]
	[ "$(step vm102)" = started ]
	look_at vm102 cutover
	# the new VM runs, the slot is free
	kill -0 "$(tail -n 1 pids)"
	flock -n locks/host-esxi1.1 true
	kill "$(tail -n 1 pids)"
	rm vm102/ctl/target-on
	play 0 --tags rollback --limit vm102
	[ "$(cat vm102/ctl/power)" = on ]
	# a VM of the same name that is another one
	play 2 -e vmdksync_uuid=1234 --limit vm102
	[[ $output == *'fatal: [vm102]'*'has uuid.bios '*', not 1234'* ]]
	kept esxi1 1
}

# start_play: all that is due
start_play() {
	LC_ALL=C.UTF-8 ANSIBLE_TEST=$BATS_TEST_TMPDIR ansible-playbook "$TOP/examples/ansible/migrate.yml" \
		--tags check,seed,sync,cutover >>plays 2>&1 3>&- &
	playing=$!
}

# struck N: N processes of plays are killed at random: the playbook, a migration, a vmdksync, an ssh
struck() {
	local n=0 kind='' p=''

	RANDOM=${SEED:-$$}
	echo "SEED=${SEED:-$$}"
	start_play
	until [ $n = "$1" ]; do
		sleep $((RANDOM % ${PAUSE:-4})).$((RANDOM % 10))
		case $((RANDOM % 4)) in
		0) kind=ansible-playbook ;;
		1) kind=examples/migrate/vmdksync-migrate ;;
		2) kind="^$VMDKSYNC " ;;
		3) kind='^ssh' ;;
		esac
		p=$(ours "$kind" | shuf -n 1)
		if [ -n "$p" ] && kill -KILL "$p" 2>/dev/null; then
			n=$((n + 1))
			echo "$n: $kind killed"
		fi
		kill -0 "$playing" 2>/dev/null || { wait "$playing" || :; start_play; }
	done
	# a worker that was killed may have held a lock of Ansible's, which then waits for ever
	timeout "${PATIENCE-60}" tail --pid="$playing" -f /dev/null || kill -KILL "$playing"
	wait "$playing" || :
}

# run_again: as the operator does: the same again; where a decision is needed the new VM is stopped, and rolled back
run_again() {
	local i vm

	for ((i = 0; i < 5; i++)); do
		LC_ALL=C.UTF-8 ANSIBLE_TEST=$BATS_TEST_TMPDIR run timeout 1800 ansible-playbook \
			"$TOP/examples/ansible/migrate.yml" --tags check,seed,sync,cutover 3>&-
		printf '%s\n' "$output" | sed '1,/TASK .Table/d'
		[ "$status" != 0 ] || return 0
		for vm in $VMS; do
			case $(step "$vm") in
			starting | spoilt)
				rm -f "$vm/ctl/target-on"
				play 0 --tags rollback --limit "$vm"
				;;
			esac
		done
	done
	return 1
}

# bats test_tags=slow
@test "four VMs on two hosts, two random kills: run again, all are done, the limits were kept" {
	ansible_requires
	[ -n "${ANSIBLE_ALL-}" ] || skip 'takes minutes: ANSIBLE_ALL=1 runs it'
	datastore_limit=1 cluster 2 2
	struck 2
	run_again
	all_moved
	kept esxi1 2 esxi2 2 ds0 1 ds1 1
}

# bats test_tags=slow
@test "30 VMs on three hosts, 20 random kills: run again, all are done, the limits were kept" {
	ansible_requires
	[ -n "${ANSIBLE_ALL-}" ] || skip 'takes ten minutes: ANSIBLE_ALL=1 runs it'
	cluster 3 10
	PATIENCE=300 PAUSE=8 struck 20
	run_again
	all_moved
	kept esxi1 2 esxi2 2 esxi3 2 ds0 2 ds1 2
	wc -l <running
}
