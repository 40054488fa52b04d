# SPDX-License-Identifier: MIT
# What the tests of examples/ansible/ share: stand-in hosts of several VMs each, and an inventory of them.
# Loaded after helpers, esxi and migrate, whose checker looks after each VM.

ansible_setup() {
	cd "$BATS_TEST_TMPDIR" || return
	short_dir # for the sockets of ssh
	export VMDKSYNC TMPDIR=$SHORT_DIR MIGRATE_LIMIT=20 ANSIBLE_HOME=$SHORT_DIR/ansible ANSIBLE_NOCOLOR=1
	export ANSIBLE_CONFIG=$TOP/examples/ansible/ansible.cfg ANSIBLE_INVENTORY=$PWD/plan.yml
}

ansible_teardown() {
	local p

	for p in $(ours .) ${CLUSTER-}; do
		kill -9 "$p" 2>/dev/null || :
	done
	# shellcheck disable=SC2086 # pids
	[ -z "${CLUSTER-}" ] || wait $CLUSTER 2>/dev/null || :
	helpers_teardown
}

# ours PATTERN: the processes of plays of this test whose command line matches
ours() {
	local p

	for p in /proc/[0-9]*; do
		{ tr '\0' '\n' <"$p/environ" | grep -qxF "ANSIBLE_TEST=$BATS_TEST_TMPDIR"; } 2>/dev/null || continue
		! { tr '\0' ' ' <"$p/cmdline" | grep -q -e "$1"; } 2>/dev/null || echo "${p#/proc/}"
	done
}

# play STATUS WORD...: the playbook ends so
play() {
	local wanted=$1

	shift
	LC_ALL=C.UTF-8 ANSIBLE_TEST=$BATS_TEST_TMPDIR run "-$wanted" timeout 1800 ansible-playbook \
		"$TOP/examples/ansible/migrate.yml" "$@" 3>&-
}

# cluster HOSTS VMS: hosts esxi1 ... with VMs of two disks of 1 MiB each, a plan, and a folder for each VM: vm101,
# vm102 of esxi1 and so on. In it are its targets, its notes (state), its hook, and ctl of its stand-in. At most
# host_limit and datastore_limit are copied at a time.
cluster() {
	local h v dir here=$BATS_TEST_TMPDIR

	CLUSTER=''
	VMS=''
	: >ssh_config
	cat >plan.yml <<-END
	all:
	  vars:
	    ansible_connection: local
	    ansible_python_interpreter: /usr/bin/python3
	    vmdksync_command: $here/migrate
	    vmdksync_state: $here/{{ inventory_hostname }}/state
	    vmdksync_locks: $here/locks
	    vmdksync_host_limit: ${host_limit:-2}
	    vmdksync_datastore_limit: ${datastore_limit:-2}
	  children:
	END
	for ((h = 1; h <= $1; h++)); do
		dir=$here/host$h
		mkdir "$dir"
		BATS_TEST_TMPDIR=$dir esxi_start 2048 2048
		CLUSTER+=" $ESXI_PID $ESXI_HERE"
		# the VM that it was made with does no more
		until_true mkdir "$ESXI/ctl/lock" 2>/dev/null
		kill -STOP "$ESXI_NET"
		rmdir "$ESXI/ctl/lock"
		# each VM has links to what all have
		mv "$ESXI/ctl/bin" "$ESXI/tools"
		ln -s /tools "$ESXI/ctl/bin"
		# BusyBox has one that wants / to be a mount
		rm "$ESXI/tools/unshare"
		esxi_bring "$(command -v unshare)" /tools
		cat >>ssh_config <<-END
		Host esxi$h
			HostKeyAlias esxi$h
			User root
			IdentityFile $dir/key
			ProxyCommand nsenter -t $ESXI_HERE --net nc $ESXI_ADDRESS 22
			StrictHostKeyChecking no
			UserKnownHostsFile $here/known_hosts
			LogLevel ERROR
			Ciphers aes128-gcm@openssh.com
		END
		printf '    esxi%s:\n      vars:\n        vmdksync_esxi: esxi%s\n      hosts:\n' "$h" "$h" >>plan.yml
		for ((v = 1; v <= $2; v++)); do
			cluster_vm "$h$(printf %02d "$v")"
		done
		cp "$TOP/tests/esxi/many.sh" "$ESXI/ctl/vm.sh"
		ln -sf /ctl/vm.sh "$ESXI/bin/vim-cmd"
		ln -s /ctl/vm.sh "$ESXI/ctl/guests"
		nsenter -t "$ESXI_NET" --mount --pid --root --wd=/ /ctl/guests >/dev/null 2>&1 3>&- &
	done
	export SSH="ssh -F $here/ssh_config"
	counted
}

# cluster_vm ID: a copy of the VM that the host was made with
cluster_vm() {
	local id=$1 ctl=$ESXI/vms/$1 n f

	VMS+=" vm$id"
	mkdir -p "$ESXI/vms" "vm$id"
	cp -a "$ESXI/ctl" "$ctl"
	ln -s "$ctl" "vm$id/ctl"
	echo on >"$ctl/power"
	echo "$id" >"$ctl/vmid"
	echo "VM $id's" >"$ctl/name"
	echo 3 >"$ctl/pace"
	cp -a "$ESXI/vmfs/volumes/5f1a-aaaa/web server" "$ESXI/vmfs/volumes/5f1a-aaaa/vm$id"
	cp -a "$ESXI/vmfs/volumes/5f1b-bbbb/web's" "$ESXI/vmfs/volumes/5f1b-bbbb/vm$id"
	for f in vmx vmx-file disk/0/dir disk/1/dir disk/1/name; do
		sed -i "s/web server\//vm$id\//;s/web server$/vm$id/;s/web's/vm$id/" "$ctl/$f"
	done
	sed -i "s/^uuid.bios = .*/uuid.bios = \"56 4d 11 22 33 44 55 66-77 88 99 aa bb cc 0${id%??} ${id#?}\"/" "$ctl/vmx.head"
	for n in 0 1; do
		: >"$ctl/disk/$n/dirty"
		"$MKVMDK" pattern "$ctl/disk/$n/model.raw" 2048 "$id"
		"$MKVMDK" pattern "vm$id/$n.raw" 2048 7
	done
	# shellcheck disable=SC2016 # for the shell inside
	unshare --mount chroot "$ESXI" /bin/sh -c '/ctl/bin/mount --bind "/vms/$1" /ctl; . /ctl/vm.sh; write_vmx' sh "$id"
	(cd "vm$id" && ESXI=$PWD new_vm >/dev/null)
	cat >>plan.yml <<-END
	        vm$id:
	          vmdksync_vm: VM $id's
	          vmdksync_uuid: 564d1122-3344-5566-7788-99aabbcc0$id
	          vmdksync_datastores: [ds$((id % 2))]
	          vmdksync_disks:
	            scsi0:0: $PWD/vm$id/0.raw
	            scsi0:1: $PWD/vm$id/1.raw
	          vmdksync_start: $PWD/vm$id/start
	END
}

# counted: ./migrate is vmdksync-migrate, and notes in the file `running` how many that copy run at a time,
# of each host and datastore. It is told by locks, which are free when nothing of a run is left.
counted() {
	mkdir running.d
	printf '#!/bin/bash\nhere=%q real=%q\n' "$PWD" "$TOP/examples/migrate/vmdksync-migrate" >migrate
	cat >>migrate <<-'END'
	case $1 in
	seed | sync | cutover | accept | rollback) ;;
	*) exec sh "$real" "$@" ;;
	esac
	[[ " $* " != *' --dry-run '* ]] || exec sh "$real" "$@"
	[[ " $* " =~ ' '(esxi[0-9]*)' VM '([0-9]*)"'s " ]]
	host=${BASH_REMATCH[1]} id=${BASH_REMATCH[2]}
	for name in "$host" "ds$((id % 2))"; do
		exec {fd}>>"$here/running.d/$name.$id"
		flock $fd
		VMDKSYNC_SLOTS+=" $fd"
	done
	held() {
		local f

		for f; do
			flock -ns "$f" true || echo "$f"
		done
	}
	for name in "$host" "ds$((id % 2))"; do
		# one that ended while this looked may have given its slot to another: what is held still was so at once
		first=$(held "$here/running.d/$name".*)
		echo "$name $(held $first | wc -l) VM $id $1" >>"$here/running"
	done
	exec sh "$real" "$@"
	END
	chmod +x migrate
}

# look_at VM VERB: what migrate.bash asks of it, as if VERB had just ended well
look_at() (
	cd "$1" || return
	# shellcheck disable=SC2034 # of migrate.bash
	ESXI=$PWD a=$PWD/0.raw b=$PWD/1.raw
	run -0 sh "$TOP/examples/migrate/vmdksync-migrate" status --state=state "esxi${1:2:1}" "VM ${1#vm}'s" 3>&-
	echo "$1: $output"
	holds "$2"
)

# all_moved: every VM is done
all_moved() {
	local vm

	for vm in $VMS; do
		[ "$(step "$vm")" = started ] || { echo "$vm: $(step "$vm")"; return 1; }
		look_at "$vm" cutover || return
	done
}

# kept NAME LIMIT...: no more of those copied at a time, ever
kept() {
	while [ $# -gt 0 ]; do
		echo "$1: at most $(most "$1") of $2 at a time"
		[ "$(most "$1")" -ge 1 ] && [ "$(most "$1")" -le "$2" ] || return
		shift 2
	done
}

# most NAME: how many of that host or datastore ran at a time
most() {
	awk -v n="$1" '$1 == n && $2 > max { max = $2 } END { print max + 0 }' running
}

# step VM: the last step that it has done
step() {
	cat "$1/state/step" 2>/dev/null || echo new
}
