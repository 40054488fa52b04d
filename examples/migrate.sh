#!/bin/sh
# Moves the disks of a virtual machine from an ESXi host to this machine, with little downtime. Runs
# here, where the targets are, and needs nothing on the host but its own cat, nc, gzip, vim-cmd,
# vmkfstools and sh.
set -u

usage() {
	cat <<'END'
Usage: migrate.sh [OPTIONS] HOST VM NODE=TARGET...
       migrate.sh --accept | --rollback [OPTIONS] HOST VM NODE=TARGET...
Copies the disks of VM on the ESXi host HOST onto the TARGETs: the base while
the VM runs, then what changed meanwhile, round by round, until the rest fits
the downtime budget; then stops the VM, copies the rest, starts the new VM.
HOST is what ssh takes; NODE is the disk's place in the .vmx (scsi0:0), and -
for a TARGET leaves a disk out. The same command again goes on where the last
one stopped.

  --budget=S           seconds the last copy may take (60)
  --rounds=N           rounds of pre-copy at most (8)
  --now                stop the VM after the next round, whatever the estimate
  --start=COMMAND      starts the new VM and tells if it is well: if it fails,
                       and it has to stop the new VM then, the targets are
                       rolled back and the source is started again
  --shutdown-wait=S    seconds the guest may take to shut down (300)
  --hard-off           switch the VM off if the guest does not shut down in time
  --via=ssh|gzip|nc    how data come: ssh, ssh and gzip, netcat and gzip (ssh)
  --listen=ADDR:PORT   for nc: where this machine listens; a port for each disk
  --larger             a TARGET may be much larger than its disk
  --state=DIR          where notes, logs and undo logs lie (./migrate-VM)
  --accept             the new VM is good: remove the snapshots, stop autostart
  --rollback           it is not: roll the targets back, start the source again
  --dry-run            check all; print the remote commands that change things
                       instead of running them

SSH and VMDKSYNC in the environment: other commands for these.
Exit status: 0 done; 1 stopped before the end, the source runs or was started
again; 2 wrong usage or refused, nothing was done; 3 look at it, see the last
line; 130, 143 stopped by a signal, the last lines say whether the source runs.
END
}

say() {
	printf '%s %s\n' "$(date +%T)" "$*" | tee -a "${log:-/dev/null}" >&2
}

# die STATUS TEXT...
die() {
	status=$1
	shift
	say "migrate.sh: $*"
	exit "$status"
}

refuse() {
	die 2 "refused: $*"
}

# --- the other side ------------------------------------------------------------------------------

# q TEXT: one word for a shell
q() {
	printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

remote() {
	(remote_exec "$1")
}

# remote_exec COMMAND: takes the place of the shell it runs in
remote_exec() {
	# shellcheck disable=SC2086 # words
	exec $SSH -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
		-o ControlMaster=auto -o ControlPersist=120 -o ControlPath="$tmp/ssh" \
		"$host" "$1" </dev/null
}

# change COMMAND: a remote command that changes something
change() {
	if [ "$dry_run" = 1 ]; then
		echo "would run: $SSH $host $(q "$1")"
		return 0
	fi
	say "$host: $1"
	remote "$1" >>"$log" 2>&1
}

power() {
	remote "vim-cmd vmsvc/power.getstate $vmid" | sed -n 's/^Powered //p'
}

# confirmed_off: off, and still off after two seconds
confirmed_off() {
	[ "$(power)" = off ] && sleep 2 && [ "$(power)" = off ]
}

# snapshots: "ID<tab>NAME" of each there is; fails if they cannot be listed
snapshots() {
	remote "vim-cmd vmsvc/snapshot.get $vmid" >"$tmp/snapshots" || return
	# a description may hold any text, and lines of its own
	sed -n -e 's/^[-| ]*--Snapshot Name  *: //p' -e 's/^[-| ]*--Snapshot Id  *: \([0-9]*\).*/\1/p' \
		"$tmp/snapshots" | awk 'NR % 2 { name = $0; next } { printf "%s\t%s\n", $0, name }'
}

# listed NAME: the host has a snapshot of that name
listed() {
	snapshots | cut -f 2 | grep -qxF -- "$1"
}

# settle: a run that was stopped while it asked for a snapshot does not know whether there is one
settle() {
	name=$(tail -n 1 "$state/snapshots")
	if [ -z "$name" ] || cut -f 2 "$state/ids" | grep -qxF -- "$name"; then
		return
	fi
	for wait in 1 1 1 1 0; do
		snapshots >"$tmp/now" || die 1 "$host: cannot list the snapshots of $vm"
		if cut -f 2 "$tmp/now" | grep -qxF -- "$name"; then
			put_in_place "$tmp/now" "$state/ids"
			return
		fi
		sleep $wait
	done
	say "the snapshot '$name' was asked for, but never came"
	drop_name
}

# drop_name: the last snapshot that was noted is none
drop_name() {
	sed '$d' "$state/snapshots" >"$state/snapshots.new" && mv "$state/snapshots.new" "$state/snapshots"
}

# only_ours: fails, and says so, if the machine has a snapshot that is not ours, or lacks one
only_ours() {
	snapshots >"$tmp/now" || die 1 "$host: cannot list the snapshots of $vm"
	cut -f 2 "$tmp/now" | sort >"$tmp/names"
	sort "$state/snapshots" >"$tmp/ours"
	cmp -s "$tmp/names" "$tmp/ours" && return 0
	comm -23 "$tmp/names" "$tmp/ours" | while read -r n; do
		say "the snapshot '$n' was not made by this migration"
	done
	comm -13 "$tmp/names" "$tmp/ours" | while read -r n; do
		say "the snapshot '$n' of this migration is gone: remove $state, and copy anew"
	done
	return 1
}

# --- disks and their links -----------------------------------------------------------------------

# read_vmx: "NODE<tab>DESCRIPTOR" of each disk in $tmp/disks
read_vmx() {
	remote "cat $(q "$vmx")" >"$tmp/vmx" || die 1 "$host: cannot read $vmx"
	# not by -v, which takes a backslash for more than it is
	tr -d '\r' <"$tmp/vmx" | dir=${vmx%/*} awk '
		/^[ \t]*(scsi|sata|nvme|ide)[0-9]+:[0-9]+\./ {
			key = $1; sub(/[ \t]*=.*/, "", key)
			value = $0; sub(/^[^=]*=[ \t]*"?/, "", value); sub(/"[ \t]*$/, "", value)
			node = key; sub(/\..*/, "", node); sub(/^[^.]*\./, "", key)
			v[node, tolower(key)] = value; seen[node] = 1
		}
		END {
			for (n in seen) {
				f = v[n, "filename"]
				if (tolower(f) !~ /\.vmdk$/ || toupper(v[n, "present"]) == "FALSE" ||
				    v[n, "devicetype"] ~ /cdrom/)
					continue
				if (f !~ /^\//)
					f = ENVIRON["dir"] "/" f
				printf "%s\t%s\t%s\n", n, f, v[n, "mode"]
			}
		}' | sort >"$tmp/disks"
}

field() {
	sed -n "s/^[ \t]*$1[ \t]*=[ \t]*\"\{0,1\}\([^\"]*\)\"\{0,1\}[ \t]*\$/\1/p" "$2" | sed -n 1p
}

# read_chain NODE DESCRIPTOR: the links from the base to DESCRIPTOR, a line each, in $d/chain:
# DESCRIPTOR<tab>CID<tab>EXTENT<tab>TYPE<tab>SECTORS. The order is that of the parent hints; the numbers
# in the names say nothing, and are used again. A link is known by its name and CID.
read_chain() {
	d=$state/$1
	link=$2
	: >"$tmp/chain"
	n=0 wanted=
	while [ -n "$link" ]; do
		n=$((n + 1))
		[ $n -le 64 ] || die 1 "$1: more than 64 links, or a loop"
		remote "cat $(q "$link")" >"$tmp/raw" || die 1 "$host: cannot read $link"
		tr -d '\r' <"$tmp/raw" >"$tmp/text"
		count=$(grep -cE '^(RW|RDONLY|NOACCESS) ' "$tmp/text")
		[ "$count" = 1 ] || die 1 "$link: one extent was expected, not $count"
		# RW SECTORS TYPE "FILE", and an offset
		extent=$(sed -n 's/^RW [0-9]* [A-Z]* "\(.*\)"\( 0\)\{0,1\} *$/\1/p' "$tmp/text")
		cid=$(field CID "$tmp/text")
		[ "${cid:-none}" = "${wanted:-$cid}" ] ||
			die 1 "$link: its CID is '$cid', its child was made from '$wanted'"
		case $extent in
		'' | vsan:* | *'"'*) die 1 "$link: lies where ssh cannot read it (vSAN?)" ;;
		/*) ;;
		*) extent=${link%/*}/$extent ;;
		esac
		# shellcheck disable=SC2046 # three words
		set -- "$1" $(sed -n 's/^RW \([0-9]*\) \([A-Z]*\) .*/\2 \1/p' "$tmp/text")
		printf '%s\t%s\t%s\t%s\t%s\n' "$link" "$cid" "$extent" "$2" "$3" >>"$tmp/chain"
		parent=$(field parentFileNameHint "$tmp/text")
		wanted=$(field parentCID "$tmp/text")
		if [ "$wanted" = ffffffff ]; then
			parent=
		elif [ -z "$parent" ] || [ -z "$wanted" ]; then
			die 1 "$link: has a parent, but does not name it"
		fi
		case $parent in
		'' | /*) link=$parent ;;
		*) link=${link%/*}/$parent ;;
		esac
	done
	awk '{ line[NR] = $0 } END { for (i = NR; i; i--) print line[i] }' "$tmp/chain" >"$d/chain"
	[ "$(cut -f 5 "$d/chain" | sort -u | wc -l)" = 1 ] || die 1 "$1: the links of its chain differ in size"
	case $(sed -n 1p "$d/chain" | cut -f 4) in
	VMFS | FLAT) ;;
	VMFSRDM | VMFSPASSTHROUGHRDM) die 2 "refused: $1 is a raw device mapping" ;;
	*) die 2 "refused: $1: the lowest link is not flat" ;;
	esac
	# what was copied is still what the chain begins with
	n=$(wc -l <"$d/copied")
	cut -f 1,2 "$d/chain" | head -n "$n" >"$tmp/begin"
	[ "$n" = 0 ] || cmp -s "$tmp/begin" "$d/copied" ||
		die 3 "$1: the chain does not begin with what was copied: somebody removed or merged snapshots." \
			"Remove $state and copy anew"
}

# live_link NODE DISKS: the descriptor of its newest link
live_link() {
	awk -F '\t' -v n="$1" '$1 == n { print $2 }' "$2"
}

# look: where every disk is now
look() {
	read_vmx
	for node in $nodes; do
		link=$(live_link "$node" "$tmp/disks")
		[ -n "$link" ] || die 1 "$vm has no disk $node any more"
		read_chain "$node" "$link"
	done
}

# todo NODE frozen|all: "DESCRIPTOR<tab>CID<tab>EXTENT" of the links above the base that are not yet copied
todo() {
	d=$state/$1
	n=$(wc -l <"$d/copied")
	if [ "$2" = frozen ]; then
		sed '$d' "$d/chain"
	else
		cat "$d/chain"
	fi | cut -f 1-3 | tail -n +$((n + 1))
}

# --- copying -------------------------------------------------------------------------------------

# listens PORT: somebody does, here
listens() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$(printf ':%04X [0-9A-F]*:0000 0A ' "$1")"
}

# pull FILE PORT-OFFSET: FILE of the host on standard output; ends the shell it runs in
pull() {
	case $via in
	ssh) remote_exec "cat $(q "$1")" ;;
	gzip) remote_exec "gzip -1 <$(q "$1")" ;;
	nc)
		# A stream cut short is noticed: it is no whole gzip file.
		port=$((listen_port + $2))
		nc -l -p "$port" </dev/null &
		listener=$!
		trap 'kill $listener; exit 143' TERM
		tries=0
		until listens "$port" || [ $tries -ge 100 ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
		remote "gzip -1 <$(q "$1") | nc $listen_addr $port" &
		wait $! || kill $listener
		wait $listener
		exit
		;;
	esac
}

# take FILE PORT-OFFSET PIPE COMMAND...: COMMAND reads FILE of the host; fails if one of both does. A
# command that gives up does not wait for the rest of the file.
take() {
	taken='' sent=''
	rm -f "$3"
	mkfifo "$3" || return
	pull "$1" "$2" >"$3" 2>>"$log" &
	source_pid=$!
	fifo=$3
	shift 3
	"$@" <"$fifo" &
	# told to stop, it stops the source; who reads comes to an end by itself
	trap 'kill $source_pid; wait; exit 143' TERM
	wait $!
	taken=$?
	[ $taken = 0 ] || kill $source_pid 2>/dev/null
	wait $source_pid
	sent=$?
	trap - TERM
	rm -f "$fifo"
	[ $taken = 0 ] && [ $sent = 0 ]
}

# write_base TARGET NOTE: standard input, unpacked if it comes packed, onto TARGET. The lock is the one
# that vmdksync takes: as long as anything of this writes, vmdksync refuses the target.
write_base() {
	{
		flock -w 5 9 || { echo 'it is locked' >"$2"; return 1; }
		if [ "$via" = ssh ]; then
			cat
		else
			gzip -dc || touch "$2.bad"
		fi | LC_ALL=C dd of="$1" bs=4M iflag=fullblock conv=nocreat,notrunc,fsync 2>"$2" &&
			[ ! -e "$2.bad" ]
	} 9<"$1"
}

# copy_base NODE N: the whole base onto the target, and that it all came
copy_base() {
	d=$state/$1
	target=$(cat "$d/target")
	extent=$(sed -n 1p "$d/chain" | cut -f 3)
	bytes=$(bytes_of "$1")
	guard "$1" || return
	if ! remote "exec 3<$(q "$extent")" 2>>"$log"; then
		clone_base "$1" || return
		extent=$(cat "$d/clone")
		extent=${extent%.vmdk}-flat.vmdk
	fi
	rm -f "$d/dd.bad" "$d/kept"
	: >"$d/dd"
	# they lead back to what is overwritten now
	rm -f "$d"/undo-*.vmdk
	if ! take "$extent" "$2" "$d/pipe" write_base "$target" "$d/dd"; then
		say "$1: the base did not come whole (source $sent): $(grep -v '^[0-9]*+' "$d/dd" | tr '\n' ' ')"
		return 1
	fi
	got=$(sed -n 's/^\([0-9]*\) bytes.*/\1/p' "$d/dd")
	if [ "$got" != "$bytes" ]; then
		say "$1: the base has $bytes bytes, but $got came"
		return 1
	fi
	echo "$bytes" >"$d/bytes"
	drop_clone "$1"
	identity "$target" >"$d/identity"
	sed -n 1p "$d/chain" | cut -f 1,2 >"$d/copied"
}

# clone_base NODE: on hosts where the frozen base cannot be read, vmkfstools can
clone_base() {
	d=$state/$1
	base=$(sed -n 1p "$d/chain" | cut -f 1)
	clone=${base%.vmdk}-vmdksync-clone.vmdk
	say "$1: $base cannot be read; cloning it on the host"
	drop_clone "$1" || return
	echo "$clone" >"$d/clone" || return
	# goes on if the connection breaks, so it is waited for by its last line
	remote "trap '' HUP; (vmkfstools -i $(q "$base") $(q "$clone") -d thin; echo ended \$?) \
		>$(q "$clone.log") 2>&1 &" 2>>"$log" || {
		say "$1: vmkfstools was not started: $(tail -n 1 "$log")"
		return 1
	}
	lost=0
	: >"$tmp/$1.clone"
	until [ $lost = 0 ] && tr '\r' '\n' <"$tmp/$1.clone" >"$d/clone-log" && grep -q ^ended "$d/clone-log"; do
		sleep 2
		lost=$((lost + 1))
		! remote "cat $(q "$clone.log")" >"$tmp/$1.clone" || lost=0
		[ $lost -lt 100 ] || die 1 "$1: $host does not answer any more"
	done
	if ! grep -q '^ended 0' "$d/clone-log" || ! grep -q '100% done' "$d/clone-log"; then
		say "$1: vmkfstools failed: $(tail -n 2 "$d/clone-log" | sed -n 1p)"
		return 1
	fi
}

drop_clone() {
	[ -f "$state/$1/clone" ] || return 0
	clone=$(cat "$state/$1/clone")
	remote "[ ! -e $(q "$clone") ] || vmkfstools -U $(q "$clone")" >>"$log" 2>&1 || {
		say "$1: $clone could not be removed"
		return 1
	}
	rm "$state/$1/clone"
}

# next_undo NODE: the number of its next undo log
next_undo() {
	i=1
	while [ -e "$state/$1/undo-$i.vmdk" ]; do
		i=$((i + 1))
	done
	echo $i
}

# copy_links NODE N [last]: the links in $d/todo, oldest first; each goes to $d/copied but for the live
# one of a stopped machine, which may grow again. The last copy has a way back, an undo log for every
# link, and is read back from the disk.
copy_links() {
	d=$state/$1
	target=$(cat "$d/target")
	bytes=0
	while IFS="$tab" read -r link cid extent; do
		set -- "$1" "$2" "${3-}"
		[ -z "$3" ] || set -- "$@" --spool="$state" --read-back --undo="$d/undo-$(next_undo "$1").vmdk"
		copy_link "$@" || return
		got=$(tr -d ' \n' <"$tmp/$1.json" | sed -n 's/.*"written":\([0-9]*\).*/\1/p')
		bytes=$((bytes + ${got:-0}))
		[ "$link" = "$(tail -n 1 "$d/chain" | cut -f 1)" ] ||
			printf '%s\t%s\n' "$link" "$cid" >>"$d/copied" || return
	done <"$d/todo"
	echo "$bytes" >"$d/bytes"
}

# copy_link NODE N [last OPTION...]: $link, for copy_links
copy_link() {
	node=$1 n=$2 last=$3
	shift 3
	# shellcheck disable=SC2086 # VMDKSYNC may hold options
	take "$extent" "$n" "$d/pipe" $VMDKSYNC "$@" --json - "$target" >"$tmp/$node.json" 2>"$tmp/$node.said"
	r=$?
	while IFS= read -r line; do
		printf '%s: %s\n' "$link" "$line"
	done <"$tmp/$node.said" >>"$log"
	if [ $r != 0 ]; then
		say "$link: vmdksync ended with $taken, the source with $sent:" \
			"$(grep -v ': warning: ' "$tmp/$node.said" | tail -n 2 | tr '\n' ' ')"
		return 1
	fi
	if [ -n "$last" ] && grep -qi 'unclean' "$tmp/$node.said"; then
		say "$node: was not closed cleanly; does a machine still use it?"
		return 1
	fi
}

# all_disks FUNCTION ARG...: for all disks at once; fails if one fails
all_disks() {
	what=$1
	shift
	pids=
	n=0
	for node in $nodes; do
		"$what" "$node" $n "$@" &
		pids="$pids $!"
		n=$((n + 1))
	done
	failed=0
	for p in $pids; do
		wait "$p" || failed=1
	done
	pids=
	return $failed
}

now() {
	date +%s%3N
}

# seconds MILLISECONDS
seconds() {
	printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100))
}

sum_bytes() {
	sum=0
	for node in $nodes; do
		sum=$((sum + $(cat "$state/$node/bytes")))
	done
	echo $sum
}

# note WHAT BYTES MILLISECONDS: a line of the report
note() {
	printf '%-34s %15s bytes %9s s\n' "$1" "$2" "$(seconds "$3")" >>"$state/report"
	say "$1: $2 bytes in $(seconds "$3") s"
}

# --- the target ----------------------------------------------------------------------------------

# guard NODE: all that vmdksync asks of a target, asked with an empty disk of the same size
guard() {
	d=$state/$1
	printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n' >"$tmp/$1.vmdk"
	printf 'createType="custom"\nRW %s ZERO\n' "$(sed -n 1p "$d/chain" | cut -f 5)" >>"$tmp/$1.vmdk"
	# shellcheck disable=SC2086
	$VMDKSYNC -q --dry-run "$tmp/$1.vmdk" "$(cat "$d/target")" >"$tmp/$1.said" 2>&1 && return
	say "refused: $(tail -n 1 "$tmp/$1.said")"
	return 1
}

# bytes_of NODE: of its disk
bytes_of() {
	echo $(($(sed -n 1p "$state/$1/chain" | cut -f 5) * 512))
}

size_of() {
	if [ -b "$1" ]; then
		blockdev --getsize64 "$1"
	else
		stat -L -c %s "$1"
	fi
}

# born PID: when a process started; a number is used again, but not with the same time
born() {
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# identity TARGET: what stays with a disk when devices change their names, as after a restart
identity() {
	if [ ! -b "$1" ]; then
		stat -L -c 'file %i' "$1"
		return
	fi
	dev=/sys/dev/block/$(lsblk -dno MAJ:MIN "$1" | tr -d ' ')
	cat "$dev/dm/uuid" "$dev/md/uuid" "$dev/wwid" "$dev/device/wwid" "$dev/serial" "$dev/device/serial" \
		"$dev/../wwid" "$dev/../serial" "$dev/partition" "$dev/loop/backing_file" 2>/dev/null
	echo end
}

# lock TARGET: as long as this runs, whatever it is called; a link is made or not, nothing lies between
lock() {
	if [ -b "$1" ]; then
		l=$(stat -L -c 'device-%t:%T' "$1")
	else
		l=$(stat -L -c 'file-%d:%i' "$1" 2>/dev/null) || return 0 # refused later
	fi
	l=$lock_dir/vmdksync-migrate-$l
	case " $locks " in
	*" $l "*) refuse "$1 was given for two disks" ;;
	esac
	if ! ln -s "$$.$(born $$)" "$l" 2>/dev/null; then
		other=$(readlink "$l")
		if [ "$(born "${other%.*}")" = "${other#*.}" ]; then
			die 2 "refused: $1: another migration runs (process ${other%.*})"
		fi
		rm -f "$l"
		ln -s "$$.$(born $$)" "$l" || die 2 "refused: $1: another migration runs"
	fi
	locks="$locks $l"
}

# --- steps ---------------------------------------------------------------------------------------

find_vm() {
	remote 'vim-cmd vmsvc/getallvms' >"$tmp/vms" || die 1 "$host: vim-cmd vmsvc/getallvms failed"
	# Vmid Name [datastore] path.vmx ..., many blanks apart, as names may hold blanks and brackets
	vm=$vm awk '/^[0-9]+[ \t]/ {
		id = $1; rest = $0; sub(/^[0-9]+[ \t]+/, "", rest)
		if (!match(rest, /[ \t][ \t]+\[/))
			next
		name = substr(rest, 1, RSTART - 1); file = substr(rest, RSTART + RLENGTH)
		if (name == ENVIRON["vm"] && match(file, /\.vmx([ \t]|$)/))
			printf "%s\t%s\n", id, substr(file, 1, RSTART + 3)
	}' "$tmp/vms" >"$tmp/found"
	[ "$(wc -l <"$tmp/found")" = 1 ] ||
		refuse "$host has $(wc -l <"$tmp/found") machines named '$vm', not one"
	vmid=$(cut -f 1 "$tmp/found")
	file=$(cut -f 2 "$tmp/found")
	datastore=${file%%]*}
	# the name of a datastore is a symbolic link; what it points to stays
	dir=$(remote "cd $(q "/vmfs/volumes/$datastore") && pwd -P") || die 1 "$host: no datastore $datastore"
	vmx=$dir/${file#*] }
	if [ -f "$state/vm" ]; then
		[ "$(cat "$state/vm")" = "$host $vmid $vmx" ] || refuse "$state belongs to $(cat "$state/vm")"
	else
		echo "$host $vmid $vmx" >"$state/vm"
	fi
}

# both_sides: what is needed is there
both_sides() {
	for t in "${SSH%% *}" "${VMDKSYNC%% *}" dd awk sed blockdev lsblk gzip; do
		command -v "$t" >/dev/null || refuse "$t is not installed here"
	done
	[ "$via" != nc ] || command -v nc >/dev/null || refuse "nc is not installed here"
	# shellcheck disable=SC2016 # for the other shell
	remote 'for t in cat gzip vim-cmd vmkfstools; do
		command -v $t >/dev/null || { echo $t is missing; exit 1; }; done' >"$tmp/tools" ||
		refuse "$host: cannot log in, or no ESXi: $(cat "$tmp/tools")"
}

preflight() {
	case $(power) in
	on) ;;
	off) [ -s "$state/snapshots" ] || refuse "$vm is off: its disks can be copied as they are" ;;
	*) refuse "$vm is neither on nor off" ;;
	esac
	settle
	only_ours || refuse "$vm has snapshots that are not this migration's: remove them first, and stop" \
		"backups that take some"
	read_vmx
	while IFS="$tab" read -r node link mode; do
		case " $nodes $left_out " in
		*" $node "*) ;;
		*) refuse "$vm has a disk $node ($link): name its target, or leave it out with $node=-" ;;
		esac
		case $mode in
		*independent*) refuse "$node is an independent disk, which snapshots leave out" ;;
		esac
	done <"$tmp/disks"
	if grep -qi 'sharedBus *= *"\(virtual\|physical\)"\|sharing *= *"multi-writer"' "$tmp/vmx"; then
		refuse "$vm shares a bus or a disk with other machines"
	fi
	look
	for node in $nodes; do
		target=$(cat "$state/$node/target")
		guard "$node" || die 2 "$node: $target cannot be written"
		# a volume is rounded up to its extents
		[ $larger = 1 ] || [ "$(size_of "$target")" -lt $(($(bytes_of "$node") + 33554432)) ] ||
			refuse "$target has $(size_of "$target") bytes, $node only $(bytes_of "$node"): the wrong" \
				"one? (--larger if it is right)"
		[ ! -s "$state/$node/copied" ] || [ "$(identity "$target")" = "$(cat "$state/$node/identity")" ] ||
			refuse "$target is not the disk that $node was copied to: did it change its name?"
	done
	free=$(remote "vim-cmd hostsvc/datastore/summary $(q "$datastore")" 2>/dev/null |
		sed -n 's/.*freeSpace = \([0-9]*\).*/\1/p')
	if [ -z "$free" ]; then
		say "the free space of $datastore is unknown: see that the snapshots have room"
	elif [ "$free" -lt 1073741824 ]; then
		refuse "$datastore has only $free bytes free, and snapshots grow"
	fi
}

# at STEP: what the next run begins with
at() {
	step=$1
	echo "$step" >"$tmp/step"
	put_in_place "$tmp/step" "$state/step" ||
		die 3 "$state cannot be written to: is its disk full?"
}

take_snapshot() {
	name=vmdksync-$(($(wc -l <"$state/snapshots") + 1))
	if [ "$dry_run" = 1 ]; then
		change "vim-cmd vmsvc/snapshot.create $vmid $name vmdksync 0 0"
		return
	fi
	# noted first: what may exist is told at every exit
	echo "$name" >>"$state/snapshots" || die 1 "$state cannot be written to: is its disk full?"
	if ! change "vim-cmd vmsvc/snapshot.create $vmid $name vmdksync 0 0"; then
		listed "$name" || drop_name
		die 1 "$host: no snapshot: $(tail -n 1 "$log")"
	fi
	tries=0
	until listed "$name"; do
		tries=$((tries + 1))
		[ $tries -lt 1800 ] || die 3 "$host: snapshot $name did not appear in 15 minutes"
		sleep 0.5
	done
	snapshots >"$state/ids"
	# the listing may be ahead of the .vmx
	cp "$tmp/disks" "$tmp/disks-before"
	for node in $nodes; do
		link=$(live_link "$node" "$tmp/disks-before")
		tries=0
		while read_vmx && grep -qF "$node$tab$link$tab" "$tmp/disks"; do
			tries=$((tries + 1))
			[ $tries -lt 60 ] || die 1 "$node: snapshot $name did not give it a new file"
			sleep 1
		done
	done
	only_ours || die 1 "$vm: a snapshot of somebody else's came in between: remove it, then run this again"
}

# precopy: bases, then rounds until what is left fits the budget
precopy() {
	[ -s "$state/snapshots" ] || take_snapshot
	if [ "$dry_run" = 1 ]; then
		for node in $nodes; do
			echo "would run: $SSH $host $(q "cat $(q "$(sed -n 1p "$state/$node/chain" | cut -f 3)")") |" \
				"dd of=$(cat "$state/$node/target")"
		done
		echo "would run: up to $rounds rounds of snapshot.create and, for each disk:"
		echo "would run: $SSH $host 'cat FROZEN-EXTENT' | $VMDKSYNC - TARGET"
		return
	fi
	look
	t=$(now)
	copied=0
	for node in $nodes; do
		[ -s "$state/$node/copied" ] || copied=1
	done
	if [ $copied = 1 ]; then
		all_disks base_if_needed || die 1 "a base could not be copied; run this again"
		note 'base' "$(sum_bytes)" $(($(now) - t))
	fi
	# it stopped after all, when the last run had given up waiting: only the last copy is left
	case $(power) in
	on) ;;
	off) return 0 ;;
	*) die 1 "$host: cannot tell whether $vm is on" ;;
	esac
	last='' stuck=0
	while :; do
		round=$(cat "$state/rounds" 2>/dev/null || echo 0)
		take_snapshot
		look
		for node in $nodes; do
			todo "$node" frozen >"$state/$node/todo"
			while IFS="$tab" read -r link cid extent; do
				! remote "exec 3<$(q "$extent")" 2>>"$log" || continue
				[ $go_now = 1 ] || die 1 "$extent cannot be read while $vm runs: no rounds on this" \
					"host. Run again with --now to stop $vm and copy all that changed"
				say "$extent cannot be read while $vm runs: a single round"
				return 0
			done <"$state/$node/todo"
		done
		t=$(now)
		all_disks copy_links || die 1 "round $((round + 1)) failed; run this again"
		t=$(($(now) - t))
		bytes=$(sum_bytes)
		round=$((round + 1))
		echo $round >"$state/rounds"
		note "round $round" "$bytes" $t
		if [ $t -le $((budget * 1000)) ] || [ $go_now = 1 ]; then
			return 0
		fi
		if [ -n "$last" ] && [ "$bytes" -ge "$last" ]; then
			stuck=$((stuck + 1))
		else
			stuck=0
		fi
		if [ $stuck -ge 2 ]; then
			die 1 "not converging: round $round brought $bytes bytes, the one before $last, and that" \
				"was not less, either. The rest takes about $((t / 1000)) s: --budget=$((t / 1000 + 1)) or --now accepts that"
		fi
		last=$bytes
		[ $round -lt "$rounds" ] || die 1 "$round rounds, and the rest still takes about" \
			"$((t / 1000)) s: --budget=$((t / 1000 + 1)), --rounds or --now go on"
	done
}

base_if_needed() {
	echo 0 >"$state/$1/bytes"
	[ -s "$state/$1/copied" ] || copy_base "$1" "$2"
}

stop_source() {
	[ "$(power)" = off ] || change "vim-cmd vmsvc/power.shutdown $vmid" ||
		say "the shutdown was not accepted (no VMware Tools?)"
	waited=0
	until [ "$(power)" = off ]; do
		if [ $waited -ge $((shutdown_wait * 2)) ]; then
			[ $hard_off = 1 ] || die 1 "the guest did not shut down in $shutdown_wait s." \
				"It may still do so: look at it. --hard-off would switch it off"
			change "vim-cmd vmsvc/power.off $vmid"
			hard_off=0
			waited=0
		fi
		sleep 0.5
		waited=$((waited + 1))
	done
	confirmed_off || die 1 "$vm is on again, after it was off: what starts it?"
}

cutover() {
	if [ "$dry_run" = 1 ]; then
		change "vim-cmd vmsvc/power.shutdown $vmid"
		for node in $nodes; do
			echo "would run: $SSH $host 'cat EXTENT' | $VMDKSYNC --read-back" \
				"--undo=$state/$node/undo-1.vmdk - $(cat "$state/$node/target")"
		done
		return
	fi
	t0=$(now)
	stopping=1
	stop_source
	t1=$(now)
	at cutover
	try=0
	while :; do
		try=$((try + 1))
		only_ours || { back_to_source "a snapshot of somebody else's came in between"; }
		look
		for node in $nodes; do
			[ -s "$state/$node/copied" ] || back_to_source "the base of $node has to be copied again"
			# what a rollback leaves, of however many tries
			[ -e "$state/$node/kept" ] || put_in_place "$state/$node/copied" "$state/$node/kept" ||
				back_to_source "$state cannot be written to"
			todo "$node" all >"$state/$node/todo"
			remote "cat $(q "$(tail -n 1 "$state/$node/chain" | cut -f 1)")" >"$state/$node/before"
		done
		if all_disks copy_links last && still_the_same; then
			break
		fi
		[ "$(power)" != on ] || back_to_source "$vm was started while its last changes were copied"
		[ $try -lt 2 ] || back_to_source "the last changes could not be copied"
		say 'once more'
	done
	t2=$(now)
	at applied
	note 'downtime: shutdown, confirmed' 0 $((t1 - t0))
	note 'downtime: last copy, verified' "$(sum_bytes)" $((t2 - t1))
}

# still_the_same: the machine is off, and nobody wrote to its disks meanwhile
still_the_same() {
	[ "$(power)" = off ] || return
	for node in $nodes; do
		remote "cat $(q "$(tail -n 1 "$state/$node/chain" | cut -f 1)")" >"$tmp/after" &&
			cmp -s "$tmp/after" "$state/$node/before" || return
	done
}

start_target() {
	[ -n "$start" ] || return 0
	say "starting the new machine: $start"
	t=$(now)
	at starting
	sh -c "$start" >>"$log" 2>&1 8<&- || back_to_source 'the start hook failed'
	at started
	note 'downtime: start' 0 $(($(now) - t))
}

# put_in_place FILE COPY: a copy of FILE, all of it or nothing
put_in_place() {
	cp "$1" "$2.new" && mv "$2.new" "$2"
}

# back_to_source REASON: the targets as they were before the last copy, and the source started again
back_to_source() {
	say "$1: rolling back"
	case $step in
	applied | starting | started | spoilt)
		# a machine that ran here may have written anywhere. It must not run when the source does
		at spoilt
		for node in $nodes; do
			guard "$node" || die 3 "$1, but $node cannot be rolled back: stop the new machine, then --rollback"
		done
		;;
	esac
	sed -i '/^downtime/d' "$state/report" 2>/dev/null
	bad=
	for node in $nodes; do
		d=$state/$node
		# frozen links that the last copy brought are undone, too. Noted before it is so: to bring them
		# twice does no harm, not to bring them does
		[ ! -e "$d/kept" ] || mv "$d/kept" "$d/copied"
		i=$(next_undo "$node")
		while [ $((i -= 1)) -gt 0 ]; do
			undo=$d/undo-$i.vmdk
			# what a machine that ran here wrote is no reason to stop: see above
			force=
			[ "$step" != spoilt ] || force=--force=disk
			# shellcheck disable=SC2086
			if ! $VMDKSYNC -q $force "$undo" "$(cat "$d/target")" >>"$log" 2>&1; then
				bad="$bad $node"
				break
			fi
			rm "$undo"
		done
		# nothing of the target can be relied on
		case $step:" $bad " in
		spoilt:* | *" $node "*) : >"$d/copied" ;;
		esac
	done
	[ "$(power)" = on ] || change "vim-cmd vmsvc/power.on $vmid"
	tries=0
	until [ "$(power)" = on ]; do
		tries=$((tries + 1))
		[ $tries -lt 60 ] || die 3 "$1, and $vm does not start on $host: start it by hand"
		sleep 1
	done
	at precopy
	stopping=''
	[ -z "$bad" ] || say "could not roll back:$bad; the next run copies the base again"
	die 1 "$1: $vm runs on $host again. The next run of this goes on from here"
}

accept() {
	[ "$(power)" = off ] || die 3 "$vm runs on $host: it must not, if the new one does"
	change "vim-cmd hostsvc/autostartmanager/update_autostartentry $vmid none 0 0 none 0 yes"
	snapshots >"$tmp/now" || die 3 "$host: cannot list the snapshots of $vm"
	# newest first: each merges into its parent
	sort -rn "$tmp/now" | while IFS="$tab" read -r id name; do
		grep -qxF -- "$name" "$state/snapshots" || continue
		change "vim-cmd vmsvc/snapshot.remove $vmid $id" || die 3 "$host: snapshot $name is still there"
		[ "$dry_run" = 0 ] || continue
		tries=0
		while listed "$name"; do
			tries=$((tries + 1))
			[ $tries -lt 900 ] || die 3 "$host: snapshot $name is still there after 15 minutes: --accept again"
			sleep 1
		done
	done || exit
	[ "$dry_run" = 0 ] || return 0
	read_vmx
	for node in $nodes; do
		base=$(sed -n 1p "$state/$node/chain" | cut -f 1)
		grep -qF "$tab$base$tab" "$tmp/disks" || die 3 "$node does not point back at $base; look at $vmx"
	done
	at accepted
	: >"$state/snapshots"
	: >"$state/ids"
	say "$vm is migrated; its snapshots are removed. Its disks on $host may be deleted when you like"
}

on_exit() {
	status=$?
	trap '' INT TERM HUP
	# shellcheck disable=SC2086 # pids and names are words
	if [ -n "${pids-}" ]; then
		kill $pids 2>/dev/null
		wait
	fi
	for node in ${nodes-}; do
		[ ! -f "$state/$node/clone" ] || {
			say "a clone is left on $host; to remove it:"
			say "  $SSH $host $(q "vmkfstools -U $(q "$(cat "$state/$node/clone")")")"
		}
	done
	if [ $status != 0 ] && { [ -n "$stopping" ] || [ "$step" = cutover ]; }; then
		say "$vm is off, or about to be: the same command goes on, --rollback starts it again"
		[ $status != 1 ] || [ "$step" != cutover ] || status=3
	fi
	if [ "${dry_run-1}" = 0 ] && [ -s "${state-}/snapshots" ]; then
		say "snapshots of this migration are on $host. To remove them, when nothing of this is needed:"
		vmid=${vmid:-$(cut -d ' ' -f 2 "$state/vm")}
		# stopped before it was seen
		[ "$(wc -l <"$state/ids")" -ge "$(wc -l <"$state/snapshots")" ] ||
			{ snapshots >"$tmp/now" && cp "$tmp/now" "$state/ids"; }
		while read -r name; do
			id=$(awk -F '\t' -v n="$name" '$2 == n { print $1 }' "$state/ids")
			say "  $SSH $host vim-cmd vmsvc/snapshot.remove $vmid ${id:-ID}  # $name"
			[ -n "$id" ] || say "  (where ID is what  vim-cmd vmsvc/snapshot.get $vmid  says, if there is one)"
		done <"$state/snapshots"
	fi
	if [ -n "${tmp-}" ]; then
		$SSH -o ControlPath="$tmp/ssh" -O exit "$host" 2>/dev/null
		rm -rf "$tmp"
	fi
	# shellcheck disable=SC2086
	[ -z "${locks-}" ] || rm -f $locks
	exit $status
}

# --- the command line ----------------------------------------------------------------------------

bad_usage() {
	echo "migrate.sh: $*" >&2
	echo "Try 'migrate.sh --help'." >&2
	exit 2
}

number() {
	case ${1#*=} in
	'' | *[!0-9]* | ??????????*) bad_usage "${1%%=*}: a number is needed" ;;
	esac
}

SSH=${SSH:-ssh}
VMDKSYNC=${VMDKSYNC:-vmdksync}
tab=$(printf '\t')
action=migrate budget=60 rounds=8 go_now=0 start='' shutdown_wait=300 hard_off=0 via=ssh listen=''
larger=0 state='' dry_run=0 locks='' nodes='' left_out='' stopping='' step=''
while [ $# -gt 0 ]; do
	case $1 in
	--budget=*) number "$1" && budget=${1#*=} ;;
	--rounds=*) number "$1" && rounds=${1#*=} ;;
	--shutdown-wait=*) number "$1" && shutdown_wait=${1#*=} ;;
	--now) go_now=1 ;;
	--start=*) start=${1#*=} ;;
	--hard-off) hard_off=1 ;;
	--via=ssh | --via=gzip | --via=nc) via=${1#*=} ;;
	--listen=*:*) listen=${1#*=} ;;
	--larger) larger=1 ;;
	--state=?*) state=${1#*=} ;;
	--accept) action=accept ;;
	--rollback) action=rollback ;;
	--dry-run) dry_run=1 ;;
	-h | --help)
		usage
		exit 0
		;;
	-*) bad_usage "$1: no such option" ;;
	*) break ;;
	esac
	shift
done
[ $# -ge 3 ] || bad_usage 'HOST, VM and at least one NODE=TARGET are needed'
host=$1 vm=$2
shift 2
case $host in
-* | '') bad_usage "$host: no host" ;;
esac
if [ "$via" = nc ]; then
	[ -n "$listen" ] || bad_usage '--via=nc needs --listen=ADDR:PORT'
	listen_addr=${listen%:*} listen_port=${listen##*:}
	number "--listen=$listen_port"
	case $listen_addr in
	*[!0-9A-Za-z.:-]* | '') bad_usage "$listen: no address" ;;
	esac
fi
state=${state:-./migrate-$(printf %s "$vm" | tr ' /' '__')}
lock_dir=${TMPDIR:-/tmp}
[ ! -w /run/lock ] || lock_dir=/run/lock

mkdir -p "$state" || exit 2
state=$(cd "$state" && pwd)
log=$state/log
tmp=$(mktemp -d) || exit 2
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
command -v flock >/dev/null || refuse 'flock is not installed here'
# all that this starts has it, too: it is free when nothing of this runs any more
exec 8>>"$state/lock"
flock -n 8 || refuse "$state: another migration runs, or the rest of one that was killed: wait for it"
touch "$state/snapshots" "$state/ids"
for arg; do
	case $arg in
	[a-z]*[0-9]:[0-9]*=?*) ;;
	*) bad_usage "$arg: NODE=TARGET is needed, as in scsi0:0=/dev/vg0/disk" ;;
	esac
	node=${arg%%=*} target=${arg#*=}
	case " $nodes $left_out " in
	*" $node "*) bad_usage "$node was given twice" ;;
	esac
	if [ "$target" = - ]; then
		left_out="$left_out $node"
		continue
	fi
	case $target in
	/*) ;;
	*) target=$PWD/$target ;;
	esac
	nodes="$nodes $node"
	mkdir -p "$state/$node"
	touch "$state/$node/copied"
	if [ -f "$state/$node/target" ] && [ "$(cat "$state/$node/target")" != "$target" ]; then
		bad_usage "$node: was to go to $(cat "$state/$node/target"); remove $state to begin anew"
	fi
	printf '%s\n' "$target" >"$state/$node/target"
done
[ -n "$nodes" ] || bad_usage 'no disk is left'
say "migrate.sh: $vm on $host, notes in $state"
step=$(cat "$state/step" 2>/dev/null)
step=${step:-precopy}
both_sides
find_vm

case $action:$step in
accept:applied | accept:starting | accept:started)
	accept
	exit 0
	;;
accept:accepted | migrate:accepted | migrate:started)
	say 'done already'
	exit 0
	;;
accept:*) die 2 'nothing to accept: the migration is not done' ;;
migrate:starting) die 3 'stopped while the new machine was started: --accept if it runs well, else --rollback' ;;
migrate:spoilt) die 3 'stopped while it was rolled back: --rollback goes on' ;;
rollback:accepted) die 2 'nothing to roll back: it was accepted, the snapshots are gone' ;;
rollback:precopy)
	[ "$(power)" = off ] || die 2 'nothing to roll back: the source was not stopped'
	;;
esac
for node in $nodes; do
	lock "$(cat "$state/$node/target")"
done
if [ "$action$dry_run" = rollback1 ]; then
	for node in $nodes; do
		i=$(next_undo "$node")
		while [ $((i -= 1)) -gt 0 ]; do
			echo "would run: $VMDKSYNC $state/$node/undo-$i.vmdk $(cat "$state/$node/target")"
		done
	done
	change "vim-cmd vmsvc/power.on $vmid"
	exit 0
fi
[ $action = migrate ] || back_to_source 'rolled back by hand'
preflight
[ "$step" != precopy ] || precopy
[ "$step" = applied ] || cutover
if [ "$dry_run" = 1 ]; then
	echo "would run: ${start:-(no command to start the new machine)}"
	exit 0
fi
start_target
say 'report:'
cat "$state/report" >&2
awk '/^downtime/ { s += $(NF - 1) } END { printf "downtime in all: %.1f s\n", s }' "$state/report" |
	tee -a "$log" >&2
printf 'rounds: %s\n' "$(cat "$state/rounds" 2>/dev/null || echo 0)" >&2
say "when the new machine is good: the same command with --accept; if not, with --rollback"
