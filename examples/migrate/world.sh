# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# One function that looks at the world, look, and the checks that compare it with the state folder. They
# run before every act that cannot be taken back. What is unlike the state stops the run: see differs.
#
# look leaves in $TMP/world the lines that host_look tells, and in W_POWER the power of the source.

# differs TEXT...: unlike what this migration knows; nothing was done if it has not begun
differs() {
	WHY=$*
	[ "$STEP" = new ] && WHY_STATUS=2 || WHY_STATUS=3
	return 1
}

# refused TEXT...: as it is this cannot be done
refused() {
	WHY=$*
	WHY_STATUS=2
	return 1
}

# trouble TEXT...: trying again may help
trouble() {
	WHY=$*
	WHY_STATUS=1
	return 1
}

# find_vm: VMID and VMX; the number may be another one after vMotion or a new registration
find_vm() {
	local found='' n=0 known=''

	host_vms >"$TMP/vms" || { trouble "$HOST: cannot log in, or vim-cmd does not answer: $(last_log)"; return; }
	known=$(get "$STATE/vmx")
	if [ -n "$known" ]; then
		found=$(vmx=$known awk -F '\t' '$2 == ENVIRON["vmx"]' "$TMP/vms")
		[ -n "$found" ] || { differs "$VM ($known) is not registered on $HOST any more (vMotion?):" \
			"name the host where it is now"; return; }
	else
		found=$(vm=$VM awk -F '\t' '$3 == ENVIRON["vm"]' "$TMP/vms")
		n=$(printf '%s' "$found" | grep -c .)
		[ "$n" = 1 ] || { refused "$HOST has $n VMs named '$VM', not one"; return; }
	fi
	VMID=$(printf '%s\n' "$found" | cut -f 1)
	VMX=$(printf '%s\n' "$found" | cut -f 2)
}

last_log() {
	tail -n 3 "$LOG" | grep -v '^[0-9-]* [0-9:]* ' | tail -n 1
}

# look short|full: everything that this relies on, as it is now; tried three times
look() {
	local tries=0

	while :; do
		tries=$((tries + 1))
		look_once "$1" && return
		[ "$WHY_STATUS" = 1 ] && [ $tries -lt 3 ] || return
		sleep 0.5
	done
}

look_once() {
	local what=$1 uuid='' n=0 file='' link=''

	# unknown until it answers
	W_POWER=
	[ -n "$VMID" ] || find_vm || return
	set --
	while IFS= read -r link; do
		set -- "$@" "$link"
	done <<-END
	$(cat "$STATE/links" 2>/dev/null)
	END
	[ $# -gt 1 ] || [ -n "${1-}" ] || set --
	host_look "$what" "$@" >"$TMP/world" || {
		VMID=
		trouble "$HOST does not answer as it should: $(last_log)"
		return
	}
	W_POWER=$(world power)
	uuid=$(world uuid)
	case $W_POWER in
	on | off) ;;
	*) differs "$VM is neither on nor off, but '$W_POWER'"; return ;;
	esac
	[ -z "$(get "$STATE/uuid")" ] || [ "$(get "$STATE/uuid")" = "$uuid" ] ||
		{ differs "$VMX has another uuid.bios than the VM that this migration began with"; return; }
	[ -z "$UUID" ] || [ "$(hex "$UUID")" = "$(hex "$uuid")" ] || { differs "$VMX has uuid.bios $uuid, not $UUID"; return; }
	rm -rf "$TMP/mirror"
	while IFS="$TAB" read -r what n file; do
		[ "$what" = file ] || continue
		eval "link=\${$((n))}"
		mirrored "$link" || return
		printf '%s\t%s\n' "$file" "$TMP/mirror$link"
	done <"$TMP/world" >"$TMP/copies"
	# by one process, as the source is off meanwhile
	awk -F '\t' '{ while ((getline line <$1) > 0) print line >$2; close($1); close($2) }' "$TMP/copies"
}

# hex UUID: its digits alone, as it is written in more than one way
hex() {
	printf %s "$1" | tr 'A-F' 'a-f' | tr -cd '0-9a-f'
}

# world KEY [FIELD]: of the first line of that kind
world() {
	awk -F '\t' -v k="$1" -v f="${2-2}" '$1 == k { print $f; exit }' "$TMP/world"
}

# mirror DESCRIPTOR FILE: as on the host, below $TMP/mirror
mirror() {
	mirrored "$1" && cp "$2" "$TMP/mirror$1"
}

# mirrored DESCRIPTOR: there is a folder for it
mirrored() {
	case $1 in
	*/../*/../*/../* | [!/]*) refused "$1: a strange path"; return ;;
	esac
	[ -d "$TMP/mirror${1%/*}" ] || mkdir -p "$TMP/mirror${1%/*}"
}

live_link() { # NODE
	awk -F '\t' -v n="$1" '$1 == "disk" && $2 == n { print $3; exit }' "$TMP/world"
}

# --- chains --------------------------------------------------------------------------------------

# fetch DESCRIPTOR: from the host
fetch() {
	if ! sections "cat $(q "$1")" || [ ! -f "$TMP/raw/1" ]; then
		trouble "$HOST: cannot read $1"
		return
	fi
	mirror "$1" "$TMP/raw/1"
}

# chain_of DESCRIPTOR FILE: its links from the base on, one a line:
# DESCRIPTOR<tab>CID<tab>EXTENT<tab>TYPE<tab>BYTES. The order is that of the parent hints; vmdksync reads
# them, and tells what cannot be copied. A link is known by its name and CID.
chain_of() {
	local link=$1 out=$2 cid='' size='' count='' type='' extent='' hint='' dir='' n=0 complete=''

	while :; do
		[ -f "$TMP/mirror$link" ] || fetch "$link" || return
		n=$((n + 1))
		[ $n -le 64 ] || { refused "$1: more than 64 links, or a loop"; return; }
		# shellcheck disable=SC2086 # words
		if ! $VMDKSYNC -q --info --json --descriptors "$TMP/mirror$1" >"$TMP/info" 2>"$TMP/said"; then
			refused "$(sed "s|^vmdksync: $TMP/mirror||" "$TMP/said" | tail -n 1)"
			return
		fi
		jq -r '.images[0] | .complete, (.chain[] | [.cid // "-", .size, (.extents | length), .extents[0].type,
			.extents[0].file // "-", .parent_hint // "-"] | map(tostring) | join("\t"))' "$TMP/info" >"$TMP/links"
		: >"$TMP/chain"
		link=$1
		{
			read -r complete
			while IFS="$TAB" read -r cid size count type extent hint; do
				dir=${link%/*}
				[ "$count" = 1 ] || { refused "$link: one extent was expected, not $count"; return; }
				case $extent in
				/*) ;;
				*) extent=$dir/$extent ;;
				esac
				printf '%s\t%s\t%s\t%s\t%s\n' "$link" "$cid" "$extent" "$type" "$size" >>"$TMP/chain"
				case $hint in
				/* | -) link=$hint ;;
				*) link=$dir/$hint ;;
				esac
			done
		} <"$TMP/links"
		if [ "$complete" = true ]; then
			break
		elif [ "$link" = - ] || [ -f "$TMP/mirror$link" ]; then
			WHY=$(jq -r '.images[0].incomplete_reason' "$TMP/info" | sed "s|$TMP/mirror||g")
			# a descriptor may be read while the host changes it
			trouble "$WHY"
			return
		fi
	done
	awk '{ line[NR] = $0 } END { for (i = NR; i; i--) print line[i] }' "$TMP/chain" >"$out"
	IFS="$TAB" read -r _ _ _ type _ <"$out"
	case $type in
	VMFS | FLAT) ;;
	*) refused "$1: the lowest link is not flat"; return ;;
	esac
}

# --- the checks, by the names that the table of steps uses -----------------------------------------

# check_disks: the VM has the disks that were named, and no others
check_disks() {
	local node='' link='' mode=''

	while IFS="$TAB" read -r _ node link mode; do
		[ -n "$node" ] || continue
		if ! target_of "$node" >/dev/null; then
			differs "$VM has a disk $node ($link) that has no target: name one ($node=TARGET), or leave" \
				"it out ($node=-)"
			return
		fi
		case $mode in
		*independent*)
			[ "$(target_of "$node")" = - ] ||
				{ refused "$node is an independent disk, which snapshots leave out"; return; }
			;;
		esac
	done <<-END
	$(grep '^disk' "$TMP/world")
	END
	for node in $NODES; do
		[ -n "$(live_link "$node")" ] || { differs "$VM has no disk $node (any more)"; return; }
	done
	! grep -q '^shared' "$TMP/world" ||
		refused "$VM shares $(world shared) with other VMs"
}

# check_ours: the snapshots of the VM are those that it had when this began, and ours
check_ours() {
	local id='' name='' text=''

	: >"$TMP/ours"
	: >"$TMP/others"
	while IFS="$TAB" read -r _ id name text; do
		[ -n "$id" ] || continue
		if grep -qxF -- "$name" "$STATE/asked"; then
			printf '%s\t%s\n' "$id" "$name" >>"$TMP/ours"
			continue
		fi
		case $name,$text in
		vmdksync-*,"vmdksync-migrate "*)
			refused "the snapshot '$name' belongs to another migration (${text#vmdksync-migrate }): go on" \
				"there. Do not remove it while that one may still be used"
			return
			;;
		esac
		printf '%s\t%s\n' "$id" "$name" >>"$TMP/others"
	done <<-END
	$(grep '^snapshot' "$TMP/world")
	END
	[ "$STEP" != new ] || cp "$TMP/others" "$STATE/others"
	if [ -f "$STATE/others" ] && ! cmp -s "$TMP/others" "$STATE/others"; then
		differs "snapshots that are not of this migration came or went ($(diff "$STATE/others" "$TMP/others" |
			sed -n 's/^[<>] [0-9]*	/ /p' | tr '\n' ',')): remove those that came, and stop backups that take some"
		return
	fi
	while IFS="$TAB" read -r id name; do
		# a run that was stopped may have removed it
		grep -q "$TAB$name\$" "$TMP/ours" || [ -e "$STATE/accepting" ] || { differs "the snapshot '$name' of this migration was removed by" \
			"somebody: remove $NOTES and begin anew"; return; }
	done <"$STATE/ours"
	cp "$TMP/ours" "$STATE/ours"
}

# check_chain: what was copied is still what the chains begin with; the chains as they are now
check_chain() {
	local node='' d='' n=0 live=''

	: >"$TMP/all-links"
	for node in $NODES; do
		d=$STATE/$node
		live=$(live_link "$node")
		[ -n "$live" ] || { differs "$VM has no disk $node any more"; return; }
		chain_of "$live" "$d/chain" || { WHY="$node: $WHY"; return 1; }
		cut -f 1 "$d/chain" >>"$TMP/all-links"
		# the snapshots go away
		[ ! -e "$STATE/accepting" ] || continue
		n=$(wc -l <"$d/copied")
		cut -f 1,2 "$d/chain" | head -n "$n" >"$TMP/begin"
		cmp -s "$TMP/begin" "$d/copied" ||
			{ differs "$node: the chain does not begin with what was copied: snapshots were removed or" \
				"merged, or the VM wrote to its base. Remove $NOTES and begin anew"; return; }
		[ "$W_POWER" = off ] || [ "$n" = 0 ] || [ "$n" -lt "$(wc -l <"$d/chain")" ] ||
			{ differs "$node: $VM runs on the base that was copied while it was off: remove $STATE and" \
				"begin anew"; return; }
	done
	sort -u "$TMP/all-links" >"$STATE/links"
}

# check_same: off, and nobody wrote to its disks since the last copy
check_same() {
	local node='' now='' before=''

	if [ "$W_POWER" != off ]; then
		differs "$VM was started on $HOST again after its last copy, and must not run when the new VM does." \
			"What it writes now is not in the targets. Either switch it off and roll back (rollback), or" \
			"switch it off and accept what is lost (accept --stale)"
		return
	fi
	[ "$STALE" = 0 ] || return 0
	for node in $NODES; do
		now=$TMP/mirror$(tail -n 1 "$STATE/$node/chain" | cut -f 1) before=$STATE/$node/before
		cmp -s "$now" "$before" && continue
		# once accept removes snapshots, the live link merges into its parent, or gets another parent
		[ -e "$STATE/accepting" ] && { grep '^CID=' "$before" | grep -qxF -f - "$now" ||
			! grep '^RW ' "$before" | grep -qxF -f - "$now"; } && continue
		differs "$node: $VM ran on $HOST after its last copy, and wrote to this disk. Either roll back" \
			"(rollback), or accept what is lost (accept --stale)"
		return
	done
}

# check_room: on every datastore where its disks or snapshots grow
check_room() {
	local node='' folder='' free=''

	for node in $NODES; do
		folder=$(live_link "$node" | cut -d / -f 1-4)
		free=$(awk -F '\t' -v f="$folder" '$1 == "room" && $2 == f { print $3; exit }' "$TMP/world")
		if [ -z "$free" ]; then
			say "the free space of $folder is unknown: see that the snapshots have room"
		elif [ "$free" -lt 1073741824 ]; then
			refused "$folder has only $(human "$free") free, and snapshots grow"
			return
		fi
	done
}

# check_guest: it can be shut down; found out before it is waited for
check_guest() {
	[ "$W_POWER" = on ] && [ "$HARD_OFF" = 0 ] || return 0
	case $(world tools) in
	guestToolsRunning | '') ;;
	*) refused "VMware Tools do not run in $VM, so it cannot be shut down: do that inside, or --hard-off" ;;
	esac
}

# check_budget: the last copy is short enough, while the source still runs
check_budget() {
	[ "$STEP" = seeded ] && [ "$NOW" = 0 ] || return 0
	estimate || return
	say "$(rest_text) (budget: $BUDGET s)"
	[ "$REST_TIME" -le $((BUDGET * 1000)) ] || {
		WHY="$(rest_text), and the budget is $BUDGET s: --budget=$((REST_TIME / 1000 + 1)) or --now accepts that"
		WHY_STATUS=3
		return 1
	}
}

# check_targets: all that vmdksync asks of a target, asked with an empty disk of the same size
check_targets() {
	local node='' d='' bytes='' target=''

	# seen before the source was stopped; what writes looks once more itself
	[ -z "$TARGETS_SEEN" ] || return 0
	for node in $NODES; do
		d=$STATE/$node
		target=$(cat "$d/target")
		bytes=$(bytes_of "$node")
		empty_disk "$node" >"$TMP/$node.vmdk"
		rm -f "$d/odd"
		if ! to_target "$node" -q --strict --full --dry-run "$TMP/$node.vmdk" >"$TMP/$node.said" 2>&1; then
			to_target "$node" -q --full --dry-run "$TMP/$node.vmdk" >"$TMP/$node.said2" 2>&1 || {
				refused "$node: $target cannot be written: $(tail -n 1 "$TMP/$node.said2")"
				return
			}
			say "$node: $(tail -n 1 "$TMP/$node.said")"
			: >"$d/odd"
		fi
		if [ -e "$target" ] && [ ! -s "$d/copied" ] && [ "$LARGER" != 1 ] &&
			[ "$(size_of "$target")" -ge $((bytes + 33554432)) ]; then
			refused "$target has $(size_of "$target") bytes, $node only $bytes: the wrong one?" \
				"(--larger if it is right)"
			return
		fi
		[ ! -s "$d/copied" ] || [ "$(identity "$target")" = "$(cat "$d/identity")" ] ||
			{ refused "$target is not the disk that $node was copied to: did it change its name?"; return; }
	done
}

# check_tools: what is needed here
check_tools() {
	local t=''

	for t in "${VMDKSYNC%% *}" jq flock timeout; do
		command -v "$t" >/dev/null || { refused "$t is not installed here"; return; }
	done
	! in_memory || say "$NOTES lies in memory: after a crash nothing of it is left"
}

in_memory() {
	case $(stat -f -c %T "$NOTES" 2>/dev/null) in
	tmpfs | ramfs) ;;
	*) return 1 ;;
	esac
}

# --- targets -------------------------------------------------------------------------------------

# target_of NODE: what was named for it; - where it is left out; fails where nothing was
target_of() {
	node=$1 awk -F '\t' '$1 == ENVIRON["node"] { print $2; found = 1 } END { exit !found }' "$STATE/disks"
}

# bytes_of NODE: of its disk
bytes_of() {
	sed -n 1p "$STATE/$1/chain" | cut -f 5
}

# empty_disk NODE: the descriptor of a disk of its size that holds zeros
empty_disk() {
	printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
	printf 'createType="custom"\nRW %s ZERO\n' $(($(bytes_of "$1") / 512))
}

# to_target NODE WORDS...: vmdksync WORDS TARGET; with-disk:IMAGE is attached for it
to_target() {
	local target=''

	target=$(cat "$STATE/$1/target")
	shift
	# shellcheck disable=SC2086 # words
	case $target in
	with-disk:*) "$WITH_DISK" "${target#with-disk:}" $VMDKSYNC "$@" DISK ;;
	*) $VMDKSYNC "$@" "$target" ;;
	esac
}

size_of() {
	if [ -b "$1" ]; then
		blockdev --getsize64 "$1"
	else
		stat -L -c %s "$1"
	fi
}

# identity TARGET: what stays with a disk when devices change their names, as after a restart
identity() {
	local dev=''

	if [ ! -b "$1" ]; then
		[ ! -e "$1" ] || stat -L -c 'file %i' "$1"
		[ -e "$1" ] || echo "$1"
		return
	fi
	dev=/sys/dev/block/$(lsblk -dno MAJ:MIN "$1" | tr -d ' ')
	cat "$dev/dm/uuid" "$dev/md/uuid" "$dev/wwid" "$dev/device/wwid" "$dev/serial" "$dev/device/serial" \
		"$dev/../wwid" "$dev/../serial" "$dev/partition" "$dev/loop/backing_file" 2>/dev/null
	echo end
}

# born PID: when a process started; a number is used again, but not with the same time
born() {
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# lock TARGET: as long as this runs, whatever it is called; a link is made or not, nothing lies between
lock() {
	local l='' other=''

	if [ -b "$1" ]; then
		l=$(stat -L -c 'device-%t:%T' "$1")
	else
		l=$(stat -L -c 'file-%d:%i' "$1" 2>/dev/null) || return 0 # refused later
	fi
	l=$LOCK_DIR/vmdksync-migrate-$l
	case " $LOCKS " in
	*" $l "*) die 2 "refused: $1 was given for two disks" ;;
	esac
	if ! ln -s "$$.$(born $$)" "$l" 2>/dev/null; then
		other=$(readlink "$l")
		[ "$(born "${other%.*}")" != "${other#*.}" ] ||
			die 2 "refused: $1: another migration runs (process ${other%.*})"
		rm -f "$l"
		ln -s "$$.$(born $$)" "$l" || die 2 "refused: $1: another migration runs"
	fi
	LOCKS="$LOCKS $l"
}
