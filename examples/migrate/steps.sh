# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# What is done, in one table. step NAME looks at the world, compares it with what the row says, and acts;
# where that fails it undoes what the row says, or stops. The state folder has the last step that was
# done (STEP): new seeding seeded stopping stopped applied starting started accepted spoilt.

steps() {
	cat <<-'END'
	step   | source must be | world must be                       | act     | undo      | next
	check  | any            | tools disks ours chain targets room | nothing | nothing   | seed
	freeze | any            | disks ours chain targets room       | freeze  | nothing   | seed
	base   | any            | disks ours chain targets            | base    | nothing   | sync
	round  | on             | disks ours chain targets room       | round   | nothing   | cutover
	stop   | any            | disks ours chain targets guest budget | stop    | nothing   | cutover
	last   | off            | disks ours chain targets            | last    | roll_back | cutover
	start  | off            | disks ours chain same               | start   | roll_back | accept
	accept | any            | disks ours chain same               | accept  | nothing   | status
	END
}

step() {
	local name=$1 source='' world='' act='' undo='' what=short check=''

	read -r source world act undo <<-END
	$(steps | awk -F ' *[|] *' -v s="$1" '{ gsub(/ +/, ",", $3) } $1 == s { print $2, $3, $4, $5 }')
	END
	# shellcheck disable=SC2034 # for status.json
	PHASE=$name
	# the copy renews it, too
	[ "$name" = last ] || renew_status
	case ,$world, in
	*,room,* | *,guest,* | *,tools,*) what=full ;;
	esac
	if look $what && source_is "$source"; then
		check=
		for check in $(echo "$world" | tr , ' '); do
			"check_$check" || break
			check=
		done
		[ -n "$check" ] || [ "$act" = nothing ] || dry "$name"
		[ -n "$check" ] || ! "act_$act" || return 0
	fi
	# without an answer of the host nothing can be undone either
	[ "$undo" = nothing ] || [ "$DRY" = 1 ] || [ "$WHY_STATUS,$W_POWER" = 1, ] || {
		"$undo" "$WHY"
		die 4 "$WHY: rolled back"
	}
	die "$WHY_STATUS" "$WHY"
}

# dry WHAT: a dry run ends where the first act would be
dry() {
	[ "$DRY" = 1 ] || return 0
	# shellcheck disable=SC2034 # for status.json
	CHANGED=true
	say "dry run: would go on with $1"
	exit 0
}

source_is() {
	[ "$1" = any ] || [ "$1" = "$W_POWER" ] || differs "$VM is $W_POWER on $HOST, but has to be $1 for this"
}

act_nothing() {
	:
}

# at STEP: what the next run begins with
at() {
	[ "$STEP" = "$1" ] || CHANGED=true
	STEP=$1
	put "$STATE/step" "$1"
}

# --- snapshots -----------------------------------------------------------------------------------

# act_freeze: a snapshot, where the base of a disk that was not copied is still written to
act_freeze() {
	local node='' need=0

	put "$STATE/vmx" "$VMX"
	put "$STATE/uuid" "$(world uuid)"
	[ -s "$STATE/source" ] || put "$STATE/source" "$W_POWER"
	at seeding
	for node in $NODES; do
		[ -s "$STATE/$node/copied" ] || [ "$(wc -l <"$STATE/$node/chain")" -gt 1 ] || need=1
	done
	[ $need = 0 ] || [ "$W_POWER" = off ] || take_snapshot
}

# landed NAME: the snapshot is listed, and each disk has another live link than before it was asked for; the
# listing may be ahead of the .vmx
landed() {
	local node=''

	grep -q "^snapshot	[0-9]*	$1	" "$TMP/world" || return
	for node in $NODES; do
		[ "$(live_link "$node")" != "$(get "$STATE/$node/unfrozen")" ] || return
	done
}

# await_snapshot: the one that an earlier run asked for and did not see, as it was killed or the connection broke,
# may come late: no other is asked for meanwhile. ARRIVED=1 if it came now; fails without an answer of the host.
await_snapshot() {
	local name='' end=0

	ARRIVED=0
	name=$(get "$STATE/awaited")
	[ -n "$name" ] || return 0
	if ! landed "$name"; then
		say "waiting for the snapshot $name, which an earlier run asked for"
		end=$(($(ticks) + LIMIT * 100))
		# act_stop needs to know what a short look leaves out
		until look full && landed "$name"; do
			[ "$(ticks)" -ge $end ] || { sleep 0.5; continue; }
			look full || return
			! grep -q "^snapshot	[0-9]*	$name	" "$TMP/world" ||
				{ trouble "$HOST: the snapshot $name is there, but $VM does not use it yet"; return; }
			say "the snapshot $name did not come in $LIMIT s"
			rm -f "$STATE/awaited"
			return 0
		done
		ARRIVED=1
	fi
	rm -f "$STATE/awaited"
}

take_snapshot() {
	local n=1 name='' node='' end=0 code=0

	await_snapshot || return
	[ $ARRIVED = 0 ] || { check_ours && check_chain; return; }
	while grep -qx "vmdksync-$n" "$STATE/asked" || grep -q "^snapshot	[0-9]*	vmdksync-$n	" "$TMP/world"; do
		n=$((n + 1))
	done
	name=vmdksync-$n
	for node in $NODES; do
		put "$STATE/$node/unfrozen" "$(live_link "$node")"
	done
	# noted first: what may exist is told at every exit, and awaited by the next run
	CHANGED=true
	echo "$name" >>"$STATE/asked" || { trouble "$STATE cannot be written to: is its disk full?"; return; }
	put "$STATE/awaited" "$name"
	host_snapshot "$name" "vmdksync-migrate $(uname -n):$STATE" || code=$?
	# it may come late, or although the answer was lost
	end=$(($(ticks) + LIMIT * 100))
	until look short && landed "$name"; do
		if [ $code != 0 ] && [ -n "$VIM_SAID" ] && ! grep -q "^snapshot	[0-9]*	$name	" "$TMP/world"; then
			# after a timeout of the host it may still come
			case $VIM_SAID in
			*[Tt]imed*out*) ;;
			*) rm -f "$STATE/awaited" ;;
			esac
			trouble "$HOST: no snapshot: $VIM_SAID"
			return
		fi
		[ "$(ticks)" -lt $end ] ||
			{ trouble "$HOST: the snapshot $name did not come in $LIMIT s (${VIM_SAID:-no error was told})"; return; }
		sleep 0.5
	done
	rm -f "$STATE/awaited"
	check_ours && check_chain
}

# --- copying -------------------------------------------------------------------------------------

# take FILE FROM-MIB N PIPE COMMAND...: COMMAND reads FILE of the host; fails if one of both does. A command
# that gives up does not wait for the rest of the file.
take() {
	local fifo=$4 source_pid='' file=$1 from=$2 n=$3

	TAKEN='' SENT=''
	rm -f "$fifo"
	mkfifo "$fifo" || return
	host_pull "$file" "$from" "$n" >"$fifo" 2>>"$LOG" &
	source_pid=$!
	shift 4
	"$@" <"$fifo" &
	# told to stop, it stops the source; who reads comes to an end by itself
	# shellcheck disable=SC2064 # this one
	trap "kill $source_pid 2>/dev/null; wait; exit 143" TERM
	wait $!
	TAKEN=$?
	[ $TAKEN = 0 ] || kill $source_pid 2>/dev/null
	wait $source_pid
	SENT=$?
	trap - TERM
	rm -f "$fifo"
	[ $TAKEN = 0 ] && [ $SENT = 0 ]
}

# all_disks FUNCTION ARG...: for all disks at once; fails if one fails
all_disks() {
	local what=$1 node='' n=0 failed=0 p=''

	shift
	PIDS=
	for node in $NODES; do
		: >"$STATE/$node/progress"
		one_disk "$what" "$node" $n "$@" &
		PIDS="$PIDS $!"
		n=$((n + 1))
	done
	watch_disks &
	WATCHER=$!
	for p in $PIDS; do
		wait "$p" || failed=1
	done
	PIDS=
	kill "$WATCHER" 2>/dev/null
	wait "$WATCHER" 2>/dev/null
	WATCHER=
	return $failed
}

# one_disk FUNCTION NODE ARG...: in a shell of its own, with a folder of its own for the host's answers
one_disk() {
	local what=$1

	shift
	TMP=$TMP/$1
	mkdir -p "$TMP" && "$what" "$@"
}

act_base() {
	local t=0

	t=$(now)
	all_copied || CHANGED=true
	all_disks copy_base || { trouble "a base could not be copied"; return; }
	# a step of no disk is none
	[ "$(sum_bytes)" = 0 ] || note base "$(sum_bytes)" $(($(now) - t))
	at seeded
}

copy_base() {
	local node=$1 n=$2 d='' extent=''

	d=$STATE/$node
	echo 0 >"$d/bytes"
	[ ! -s "$d/copied" ] || return 0
	extent=$(sed -n 1p "$d/chain" | cut -f 3)
	# they lead back to what is overwritten now
	rm -f "$d"/undo-*.vmdk "$d/kept"
	if [ -f "$d/clone" ] || { [ ! -s "$d/position" ] && ! host_reads "$extent"; }; then
		# of all disks at once, so not by put
		echo no >"$STATE/rounds-possible"
		copy_clone "$node" "$n" || return
	else
		base_stream "$node" "$n" "$extent" || return
	fi
	bytes_of "$node" >"$d/bytes"
	identity "$(cat "$d/target")" >"$d/identity"
	sed -n 1p "$d/chain" | cut -f 1,2 >"$d/copied"
	rm -f "$d/position"
}

# base_stream NODE N EXTENT: a whole disk; a copy that broke goes on where all is durable
base_stream() {
	local node=$1 n=$2 extent=$3 d='' from=0 raw=--raw

	d=$STATE/$node
	[ "$VIA" = ssh ] || raw=--raw=gzip
	[ ! -s "$d/position" ] || from=$($VMDKSYNC --resume="$d/position" --position 2>>"$LOG") || from=0
	[ "$from" != 0 ] || rm -f "$d/position"
	set -- -q $raw --expect-size="$(bytes_of "$node")" --progress=json:3 --resume="$d/position"
	[ "$from" = 0 ] || log "$node: the base goes on at $from bytes"
	take "$extent" $((from / 1048576)) "$n" "$d/pipe" to_target "$node" "$@" - 3>>"$d/progress" 2>"$TMP/$node.said" &&
		return
	# refused: it is not what came before
	[ "$TAKEN" != 2 ] || rm -f "$d/position"
	say "$node: the base did not come whole (source $SENT): $(tail -n 2 "$TMP/$node.said" | tr '\n' ' ')"
	return 1
}

# copy_clone NODE N: on hosts where the frozen base cannot be read, vmkfstools can. Clones in sparse
# extents hold, and send, only what is allocated, and are resumed extent by extent.
copy_clone() {
	local node=$1 n=$2 d='' base='' clone='' format=''

	d=$STATE/$node
	base=$(sed -n 1p "$d/chain" | cut -f 1)
	[ ! -f "$d/clone" ] || [ "$(sed -n 3p "$d/clone")" = "$(sed -n 1p "$d/chain" | cut -f 2)" ] ||
		drop_clone "$node" || return
	if [ ! -f "$d/clone" ]; then
		clone=${base%.vmdk}-vmdksync-clone.vmdk
		say "$node: $base cannot be read; cloning it on $HOST"
		clone_room "$node" || return
		rm -f "$d/cloned"
		printf '%s\n2gbsparse\n%s\n' "$clone" "$(sed -n 1p "$d/chain" | cut -f 2)" >"$d/clone" || return
	fi
	clone=$(sed -n 1p "$d/clone")
	format=$(sed -n 2p "$d/clone")
	if ! clone_made "$node" "$base" "$clone" "$format"; then
		[ "$format" = 2gbsparse ] && [ "$CLONE_FAILED" = 1 ] || return
		say "$node: trying a thin clone instead"
		drop_clone "$node" || return
		format=thin
		printf '%s\n%s\n%s\n' "$clone" "$format" "$(sed -n 1p "$d/chain" | cut -f 2)" >"$d/clone" || return
		if ! clone_made "$node" "$base" "$clone" "$format"; then
			[ "$CLONE_FAILED" = 0 ] || drop_clone "$node"
			return 1
		fi
	fi
	if [ "$format" = thin ]; then
		base_stream "$node" "$n" "${clone%.vmdk}-flat.vmdk" || return
	else
		copy_extents "$node" "$n" "$clone" || return
	fi
	drop_clone "$node"
}

# clone_room NODE: vmkfstools asks for none
clone_room() {
	local node=$1 folder='' need=0 free=0

	need=$(host_used "$(sed -n 1p "$STATE/$node/chain" | cut -f 3)")
	folder=$(sed -n 1p "$STATE/$node/chain" | cut -f 1 | cut -d / -f 1-4)
	free=$(host_room "$folder") || { say "$HOST: the free space of $folder cannot be told"; return 1; }
	[ "$free" -ge $((${need:-0} + 1073741824)) ] && return
	say "$node: a clone needs up to $(human "$need"), and $folder has $(human "$free") free: make room there"
	return 1
}

clone_made() {
	local node=$1 base=$2 clone=$3 code=0 lost=0

	CLONE_FAILED=0
	while :; do
		code=0
		host_cloned "$clone" || code=$?
		case $code in
		0) return 0 ;;
		1)
			CLONE_FAILED=1
			say "$node: vmkfstools failed: $(grep -v '^ended' "$TMP/clone-log" | tail -n 1)"
			return 1
			;;
		2) lost=0 ;;
		3) host_clone "$base" "$clone" "$4" || lost=$((lost + 1)) ;;
		*) lost=$((lost + 1)) ;;
		esac
		[ $lost -lt 3 ] || { say "$node: $HOST does not answer any more"; return 1; }
		sleep 1
	done
}

copy_extents() {
	local node=$1 n=$2 clone=$3 d='' type='' size=0 file='' from=0

	d=$STATE/$node
	host_get "$clone" >"$TMP/$node.clone" || { say "$node: cannot read $clone"; return 1; }
	$VMDKSYNC -q --info --json --descriptors "$TMP/$node.clone" >"$TMP/$node.info" 2>>"$LOG" || return
	[ "$(jq '.images[0].size' "$TMP/$node.info")" = "$(bytes_of "$node")" ] ||
		{ say "$node: the clone is of another size"; return 1; }
	# what the clone does not hold is zeros
	if [ ! -f "$d/cloned" ]; then
		empty_disk "$node" >"$TMP/$node.empty"
		to_target "$node" -q "$TMP/$node.empty" 2>>"$LOG" || { say "$node: $(tail -n 1 "$LOG")"; return 1; }
		: >"$d/cloned"
	fi
	jq -r '.images[0].chain[0].extents[] | [.type, .size, .file] | map(tostring) | join("\t")' \
		"$TMP/$node.info" >"$TMP/$node.extents"
	while IFS="$TAB" read -r type size file; do
		[ "$type" = SPARSE ] || { say "$node: the clone has an extent of type $type"; return 1; }
		if ! grep -qxF -- "$file" "$d/cloned"; then
			take "${clone%/*}/$file" 0 "$n" "$d/pipe" to_target "$node" -q --offset=$from \
				--progress=json:3 - 3>>"$d/progress" 2>"$TMP/$node.said" || {
				say "$node: $file did not come whole (source $SENT): $(tail -n 1 "$TMP/$node.said")"
				return 1
			}
			echo "$file" >>"$d/cloned"
		fi
		from=$((from + size))
	done <"$TMP/$node.extents"
}

drop_clone() {
	local clone=''

	[ -f "$STATE/$1/clone" ] || return 0
	clone=$(sed -n 1p "$STATE/$1/clone")
	host_clone_remove "$clone" || { say "$1: the clone $clone could not be removed"; return 1; }
	rm -f "$STATE/$1/clone" "$STATE/$1/cloned"
}

# todo NODE frozen|all: "DESCRIPTOR<tab>CID<tab>EXTENT" of the links that are not yet copied
todo() {
	local n=0

	n=$(wc -l <"$STATE/$1/copied")
	if [ "$2" = frozen ]; then
		sed '$d' "$STATE/$1/chain"
	else
		cat "$STATE/$1/chain"
	fi | cut -f 1-3 | tail -n +$((n + 1))
}

next_undo() { # NODE: the number of its next undo log
	local i=1

	while [ -e "$STATE/$1/undo-$i.vmdk" ]; do
		i=$((i + 1))
	done
	echo $i
}

# copy_links NODE N round|last: the links in todo, oldest first; each goes to `copied` but for the live one
# of a stopped VM, which may grow again. The last copy has a way back, an undo log for every link, and is
# read back from the disk.
copy_links() {
	local node=$1 n=$2 how=$3 d='' link='' cid='' extent='' got=0 bytes=0

	d=$STATE/$node
	while IFS="$TAB" read -r link cid extent; do
		set -- -q --json --progress=json:3
		if [ "$how" = last ]; then
			set -- "$@" --spool="$STATE" --read-back --undo="$d/undo-$(next_undo "$node").vmdk"
			# what was told at the start is no reason to fail now
			[ -e "$d/odd" ] || in_memory || set -- "$@" --strict
		fi
		if ! take "$extent" 0 "$n" "$d/pipe" to_target "$node" "$@" - \
			3>>"$d/progress" >"$TMP/$node.json" 2>"$TMP/$node.said"; then
			sed "s|^|  $node: |" "$TMP/$node.said" >>"$LOG"
			say "$node: $link: vmdksync ended with $TAKEN, the source with $SENT:" \
				"$(grep -v ': warning: ' "$TMP/$node.said" | tail -n 2 | tr '\n' ' ')"
			return 1
		fi
		sed "s|^|  $node: |" "$TMP/$node.said" >>"$LOG"
		got=$(jq '.written + .zeroed' "$TMP/$node.json")
		bytes=$((bytes + got))
		[ "$link" = "$(tail -n 1 "$d/chain" | cut -f 1)" ] ||
			printf '%s\t%s\n' "$link" "$cid" >>"$d/copied" || return
	done <"$d/todo"
	echo "$bytes" >"$d/bytes"
}

# --- rounds --------------------------------------------------------------------------------------

# act_round: what was frozen and not copied; a new snapshot where that is nothing
act_round() {
	local node='' link='' cid='' extent='' t=0 n=0

	t=0
	for node in $NODES; do
		[ -z "$(todo "$node" frozen)" ] || t=1
	done
	[ $t = 1 ] || take_snapshot || return
	for node in $NODES; do
		todo "$node" frozen >"$STATE/$node/todo"
		while IFS="$TAB" read -r link cid extent; do
			host_reads "$extent" && continue
			look short || return
			put "$STATE/rounds-possible" no
			say "$extent cannot be read while $VM runs: no rounds on this host"
			return 0
		done <"$STATE/$node/todo"
	done
	t=$(now)
	CHANGED=true
	all_disks copy_links round || { trouble "the round failed"; return; }
	n=$(($(get "$STATE/rounds" 0) + 1))
	put "$STATE/rounds" $n
	note "round $n" "$(sum_bytes)" $(($(now) - t))
}

# estimate: REST_BYTES that the last copy has to bring, REST_TIME in ms, of the sizes of the live links
estimate() {
	local node='' rate=0 link='' cid='' extent=''

	set --
	for node in $NODES; do
		todo "$node" all >"$TMP/$node.rest"
		while IFS="$TAB" read -r link cid extent; do
			set -- "$@" "$extent"
		done <"$TMP/$node.rest"
	done
	REST_BYTES=0
	[ $# = 0 ] || REST_BYTES=$(host_size "$@") || { trouble "$HOST does not tell the sizes of the live links"; return; }
	rate=$(get "$STATE/rate" 0)
	[ "$rate" -gt 0 ] || rate=50000000
	REST_TIME=$((REST_BYTES * 1000 / rate))
	log "the last copy: $REST_BYTES bytes at $rate bytes/s"
}

rest_text() {
	echo "the last copy: about $(human "$REST_BYTES"), $(seconds "$REST_TIME") s at $(human "$(get "$STATE/rate" 50000000)")/s"
}

# --- cutover -------------------------------------------------------------------------------------

act_stop() {
	# one that came while the last changes are copied would be in the way
	await_snapshot || return
	[ -f "$STATE/autostart" ] || put "$STATE/autostart" "$(world autostart)"
	# a restart of the host must not start it
	[ "$(world autostart | cut -d ' ' -f 1 | tr '[:upper:]' '[:lower:]')" = none ] || [ -z "$(world autostart)" ] ||
		host_autostart 'none 0 0 none 0 yes' || { trouble "$HOST: autostart was not switched off"; return; }
	at stopping
	[ "$W_POWER" = off ] || stop_source || return
	# the downtime that is told begins here
	OFF_SINCE=$(now)
	at stopped
	# shellcheck disable=SC2034 # for check_targets, until something else was done
	TARGETS_SEEN=1
}

stop_source() {
	local end=0 tries=0

	until host_shutdown || [ "$(host_power)" = off ]; do
		tries=$((tries + 1))
		[ $tries -ge 3 ] || { sleep 1; continue; }
		[ "$HARD_OFF" = 1 ] || { trouble "$HOST: the shutdown was not accepted: ${VIM_SAID:-no answer}"; return; }
		SHUTDOWN_WAIT=0
		break
	done
	end=$(($(ticks) + SHUTDOWN_WAIT * 100))
	while [ "$(host_power)" != off ]; do
		if [ "$(ticks)" -ge $end ]; then
			if [ "$HARD_OFF" != 1 ]; then
				WHY="the guest did not shut down in $SHUTDOWN_WAIT s. It may still do so: look at it."
				WHY="$WHY --hard-off would switch it off; rollback gives up"
				WHY_STATUS=3
				return 1
			fi
			HARD_OFF=2
			host_power_off || say "$VIM_SAID"
			end=$(($(ticks) + LIMIT * 100))
			while [ "$(host_power)" != off ]; do
				[ "$(ticks)" -lt $end ] || { trouble "$HOST: $VM was not switched off"; return; }
				sleep 0.3
			done
			return
		fi
		sleep 0.3
	done
}

act_last() {
	local node='' try=0 t=0 bytes=0 f=''

	t=${OFF_SINCE:-$(now)}
	CHANGED=true
	# shellcheck disable=SC2034 # for check_targets
	TARGETS_SEEN=
	while [ $try -lt 2 ]; do
		try=$((try + 1))
		[ $try = 1 ] || { say 'once more'; look short && check_ours && check_chain || return; }
		[ "$W_POWER" = off ] || { trouble "$VM was started while its last changes were copied"; return; }
		set -- "$UNLOCK_WAIT"
		for node in $NODES; do
			[ -s "$STATE/$node/copied" ] || { differs "the base of $node has to be copied again: seed"; return; }
			# what a rollback leaves, of however many tries
			[ -e "$STATE/$node/kept" ] || put_copy "$STATE/$node/copied" "$STATE/$node/kept" || return
			todo "$node" all >"$STATE/$node/todo"
			put_copy "$TMP/mirror$(tail -n 1 "$STATE/$node/chain" | cut -f 1)" "$STATE/$node/before" || return
			while IFS="$TAB" read -r _ _ f; do
				set -- "$@" "$f"
			done <"$STATE/$node/todo"
		done
		host_readable "$@" || { trouble "the disks of $VM are still locked on $HOST after $1 s"; continue; }
		all_disks copy_links last || { trouble 'the last changes could not be copied'; continue; }
		bytes=$(sum_bytes)
		look short || return
		if [ "$W_POWER" = on ]; then
			trouble "$VM was started while its last changes were copied"
			return
		fi
		check_disks && check_ours || return
		for node in $NODES; do
			cmp -s "$TMP/mirror$(tail -n 1 "$STATE/$node/chain" | cut -f 1)" "$STATE/$node/before" || {
				trouble "$VM was started while its last changes were copied"
				continue 2
			}
		done
		note 'downtime: last copy, verified' "$bytes" $(($(now) - t))
		at applied
		return 0
	done
	return 1
}

act_start() {
	local t=0

	say "starting the new VM: $START"
	t=$(now)
	at starting
	if ! MIGRATE_HOST=$HOST MIGRATE_VM=$VM MIGRATE_STATE=$STATE MIGRATE_DISKS=$(grep -v "$TAB-\$" "$STATE/disks" |
		tr '\t' '=') MIGRATE_TARGETS=$(cut -f 2 "$STATE/disks" | grep -vx -e -) \
		sh -c "$START" >>"$LOG" 2>&1 8<&-; then
		trouble 'the start hook failed'
		return
	fi
	at started
	note 'downtime: start' 0 $(($(now) - t))
}

# roll_back REASON: the targets as they were before the last copy, and the source started again
roll_back() {
	local node='' d='' i=0 undo='' force='' bad='' end=0

	say "$1: rolling back"
	case $STEP in
	applied | starting | started | spoilt)
		# a VM that ran here may have written anywhere. It must not run when the source does
		at spoilt
		check_targets || die 3 "$1, but: $WHY. Stop the new VM, then: rollback"
		;;
	esac
	sed -i '/^downtime/d' "$STATE/report" 2>/dev/null
	for node in $NODES; do
		d=$STATE/$node
		# frozen links that the last copy brought are undone, too. Noted before it is so: to bring them
		# twice does no harm, not to bring them does
		[ ! -e "$d/kept" ] || mv "$d/kept" "$d/copied"
		i=$(next_undo "$node")
		while [ $((i -= 1)) -gt 0 ]; do
			undo=$d/undo-$i.vmdk
			# what a VM that ran here wrote is no reason to stop: see above
			force=-q
			[ "$STEP" != spoilt ] || force=--force=disk
			to_target "$node" -q $force "$undo" >>"$LOG" 2>&1 || { bad="$bad $node"; break; }
			rm "$undo"
		done
		# nothing of the target can be relied on
		case $STEP:" $bad " in
		spoilt:* | *" $node "*) : >"$d/copied" ;;
		esac
	done
	[ -z "$bad" ] || say "could not roll back:$bad; seed copies the base again"
	if [ -s "$STATE/autostart" ]; then
		host_autostart "$(cat "$STATE/autostart")" || say "$HOST: autostart was not switched on again: $VIM_SAID"
	fi
	end=$(($(ticks) + LIMIT * 100))
	# it was off when this began: then it stays so
	if [ "$(get "$STATE/source")" != off ]; then
		[ "$(host_power)" = on ] || host_power_on || say "$VIM_SAID"
		until [ "$(host_power)" = on ]; do
			[ "$(ticks)" -lt $end ] || die 3 "$1, and $VM does not start on $HOST: start it by hand"
			sleep 0.5
		done
	fi
	rm -f "$STATE/autostart"
	if [ -n "$(for node in $NODES; do [ -s "$STATE/$node/copied" ] || echo "$node"; done)" ]; then
		at seeding
	else
		at seeded
	fi
}

act_accept() {
	local id='' name='' end=0 node='' left=1

	# shellcheck disable=SC2034 # for status.json
	CHANGED=true
	# a run that goes on waits for the same
	if [ ! -s "$STATE/accepting" ]; then
		for node in $NODES; do
			put "$STATE/$node/live" "$(live_link "$node")"
		done
		put "$STATE/accepting" "$(wc -l <"$STATE/ours")"
	fi
	if grep -q '^autostart	' "$TMP/world" && ! grep -qi '^autostart	none' "$TMP/world"; then
		host_autostart 'none 0 0 none 0 yes' || { trouble "$HOST: autostart was not switched off"; return; }
	fi
	# newest first: each merges into its parent
	sort -rn "$STATE/ours" >"$TMP/remove"
	while IFS="$TAB" read -r id name; do
		remove_snapshot "$id" "$name" || return
	done <"$TMP/remove"
	# the tree is empty before the disks are merged
	end=$(($(ticks) + REMOVE_WAIT * 100))
	while [ "$(get "$STATE/accepting")" != 0 ]; do
		left=0
		for node in $NODES; do
			[ "$(live_link "$node")" != "$(get "$STATE/$node/live")" ] || left=1
		done
		[ $left = 1 ] || break
		[ "$(ticks)" -lt $end ] || { trouble "$HOST: the snapshots are removed, but $VM still uses their files"; return; }
		sleep 1
		look short || return
	done
	at accepted
	say "$VM is migrated; its snapshots are removed. Its disks on $HOST may be deleted when you like"
}

# remove_snapshot ID NAME: asked for again while the host says that another task is running
remove_snapshot() {
	local id=$1 name=$2 end=0 again=0

	end=$(($(ticks) + REMOVE_WAIT * 100))
	while :; do
		[ "$(ticks)" -lt $again ] || ! host_snapshot_remove "$id" || again=$(($(ticks) + LIMIT * 100))
		if look short && ! grep -q "^snapshot	$id	" "$TMP/world"; then
			awk -F '\t' -v id="$id" '$1 != id' "$STATE/ours" >"$TMP/ours.left"
			put_copy "$TMP/ours.left" "$STATE/ours"
			return
		fi
		[ "$(ticks)" -lt $end ] || { trouble "$HOST: snapshot $name is still there: ${VIM_SAID:-no error was told}"; return; }
		sleep 1
	done
}
