# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# The driver for an ESXi host: every command that is run there, each with a time limit. What it answers
# is checked, and comes as lines of words between tabs, so that another driver (govc, say) can take its
# place: it needs the functions host_*, and nothing else reads the host's own output. README has the
# public source of each command.
#
# Uses of the caller: HOST VMID VMX SSH VIA LISTEN LIMIT TMP LOG, say, log, q.

# remote SECONDS COMMAND: COMMAND's standard output; 255: no connection, 124: too slow. The connection that
# it leaves for the next one does not hold the lock of the state folder.
remote() {
	# shellcheck disable=SC2086 # words
	timeout --foreground -k 5 "$1" $SSH $SSH_OPTIONS "$HOST" "$2" </dev/null 2>>"$LOG" 8<&-
}

# remote_exec COMMAND: without a limit, for data; takes the place of the shell it runs in
remote_exec() {
	# shellcheck disable=SC2086 # words
	exec $SSH $SSH_OPTIONS "$HOST" "$1" </dev/null
}

host_open() {
	SSH_OPTIONS="-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4
		-o ControlMaster=auto -o ControlPersist=120 -o ControlPath=$TMP/ssh"
}

host_close() {
	# shellcheck disable=SC2086
	[ ! -S "$TMP/ssh" ] || timeout 5 $SSH -o ControlPath="$TMP/ssh" -O exit "$HOST" 2>/dev/null
}

# vim SECONDS WORDS: vim-cmd, which may fail and end with 0 all the same
vim() {
	local code=0

	log "$HOST: vim-cmd $2"
	remote "$1" "vim-cmd $2" >"$TMP/vim" || code=$?
	sed 's/^/  /' "$TMP/vim" >>"$LOG"
	! grep -qE 'vim\.fault|vmodl\.fault|[Ff]ailed|Invalid command' "$TMP/vim" || [ $code != 0 ] || code=1
	# shellcheck disable=SC2034 # for the caller
	VIM_SAID=$(grep -E 'fault|[Ff]ailed|nvalid|not ' "$TMP/vim" | tail -n 1)
	return $code
}

# sections COMMAND...: the commands in one call; the output of number N is in $TMP/raw/N, if it ended well
sections() {
	local mark='' text='' c='' n=0

	mark=@@$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
	for c; do
		n=$((n + 1))
		text="$text echo '$mark $n'; $c; r=\$?; echo; echo '$mark' = \$r;"
	done
	rm -rf "$TMP/raw"
	mkdir "$TMP/raw"
	remote $((LIMIT + n)) "$text echo '$mark end'" >"$TMP/answer" || return
	dir=$TMP/raw mark=$mark awk '
		BEGIN { mark = ENVIRON["mark"]; dir = ENVIRON["dir"] }
		$1 == mark && $2 == "end" { whole = 1; next }
		$1 == mark && $2 == "=" { if ($3 == 0) { printf "%s", text >out; close(out) } out = ""; next }
		$1 == mark { out = dir "/" $2; text = ""; next }
		out != "" { sub(/\r$/, ""); text = text $0 "\n" }
		END { exit !whole }' "$TMP/answer" || return 255
}

# host_vms: "ID<tab>VMX<tab>NAME" of each VM; VMX is its real path, without symbolic links
host_vms() {
	# shellcheck disable=SC2016 # for the other shell
	sections 'vim-cmd vmsvc/getallvms' \
		'for d in /vmfs/volumes/*; do (cd "$d" && echo "${d##*/}	$(pwd -P)"); done' || return
	[ -f "$TMP/raw/1" ] && [ -f "$TMP/raw/2" ] || return 1
	# Vmid Name [datastore] path.vmx ..., many blanks apart, as names may hold blanks and brackets
	awk -F '\t' '
		NR == FNR { if ($2 != "") real[$1] = $2; next }
		/^[0-9]+[ \t]/ {
			id = $0; sub(/[ \t].*/, "", id)
			rest = $0; sub(/^[0-9]+[ \t]+/, "", rest)
			if (!match(rest, /[ \t][ \t]+\[/))
				next
			name = substr(rest, 1, RSTART - 1); file = substr(rest, RSTART + RLENGTH)
			if (!match(file, /\.vmx([ \t]|$)/))
				next
			file = substr(file, 1, RSTART + 3)
			ds = file; sub(/\].*/, "", ds); sub(/^[^]]*\] */, "", file)
			if (ds in real)
				printf "%s\t%s/%s\t%s\n", id, real[ds], file, name
		}' "$TMP/raw/2" "$TMP/raw/1"
}

# host_look short|full FILE...: what is known of VMID, as lines
#   power on|off|WORD, uuid, firmware, shared NODE, disk NODE DESCRIPTOR MODE, snapshot ID NAME DESCRIPTION,
#   file NUMBER for each FILE that could be read ($TMP/raw/NUMBER); full: tools WORD, autostart WORDS,
#   room FOLDER BYTES
host_look() {
	local what=$1 f='' n=6 i=0

	shift
	set -- "$@" --
	while [ "$1" != -- ]; do
		f=$1
		shift
		set -- "$@" "cat $(q "$f")"
	done
	shift
	if [ "$what" = full ]; then
		sections "vim-cmd vmsvc/power.getstate $VMID" "vim-cmd vmsvc/snapshot.get $VMID" "cat $(q "$VMX")" \
			"vim-cmd vmsvc/get.guest $VMID" 'vim-cmd hostsvc/autostartmanager/get_autostartseq' \
			'vim-cmd hostsvc/datastore/listsummary' "$@" || return
	else
		sections "vim-cmd vmsvc/power.getstate $VMID" "vim-cmd vmsvc/snapshot.get $VMID" "cat $(q "$VMX")" \
			false false false "$@" || return
	fi
	for f in 1 2 3; do
		[ -f "$TMP/raw/$f" ] || { log "$HOST: no answer to question $f of the VM"; return 1; }
	done
	sed -n 's/^Powered /power	/p; s/^Suspended/power	suspended/p' "$TMP/raw/1"
	parse_snapshots <"$TMP/raw/2"
	parse_vmx <"$TMP/raw/3"
	[ ! -f "$TMP/raw/4" ] || sed -n 's/^ *toolsRunningStatus = "\([A-Za-z]*\)".*/tools	\1/p' "$TMP/raw/4" | sed -n 1p
	[ ! -f "$TMP/raw/5" ] || parse_autostart <"$TMP/raw/5"
	[ ! -f "$TMP/raw/6" ] || parse_room <"$TMP/raw/6"
	while [ $i -lt $# ]; do
		i=$((i + 1))
		[ ! -f "$TMP/raw/$((n + i))" ] || printf 'file\t%s\t%s\n' $i "$TMP/raw/$((n + i))"
	done
}

# a description may hold any text, and lines of its own
parse_snapshots() {
	awk '
		/^[-| ]*--Snapshot Name  *: / { name = $0; sub(/^[^:]*: /, "", name) }
		/^[-| ]*--Snapshot Id  *: / { id = $0; sub(/^[^:]*: */, "", id); sub(/[^0-9].*/, "", id) }
		/^[-| ]*--Snapshot Desc?iption  *:/ {
			text = $0; sub(/^[^:]*: ?/, "", text); gsub(/\t/, " ", text); gsub(/\t/, " ", name)
			printf "snapshot\t%s\t%s\t%s\n", id, name, text
		}'
}

# Keys in any case; a value may hold "|22" for a quotation mark.
parse_vmx() {
	dir=${VMX%/*} awk '
		function plain(s,  out) {
			while (match(s, /\|[0-9A-Fa-f][0-9A-Fa-f]/)) {
				out = out substr(s, 1, RSTART - 1) byte[tolower(substr(s, RSTART + 1, 2))]
				s = substr(s, RSTART + 3)
			}
			return out s
		}
		BEGIN { for (i = 1; i < 256; i++) byte[sprintf("%02x", i)] = sprintf("%c", i) }
		/^[ \t]*[A-Za-z0-9_.:]+[ \t]*=/ {
			key = $0; sub(/[ \t]*=.*/, "", key); gsub(/[ \t]/, "", key); key = tolower(key)
			value = $0; sub(/^[^=]*=[ \t]*"?/, "", value); sub(/"?[ \t]*$/, "", value)
			value = plain(value)
			if (key ~ /^(scsi|sata|nvme|ide)[0-9]+:[0-9]+\./) {
				node = key; sub(/\..*/, "", node); sub(/^[^.]*\./, "", key)
				v[node, key] = value; seen[node] = 1
			} else if (key == "uuid.bios")
				printf "uuid\t%s\n", value
			else if (key == "firmware")
				printf "firmware\t%s\n", value
			else if (key ~ /\.sharedbus$/ && tolower(value) ~ /^(virtual|physical)$/)
				printf "shared\t%s\n", key
		}
		END {
			for (n in seen) {
				f = v[n, "filename"]
				if (tolower(f) !~ /\.vmdk$/ || toupper(v[n, "present"]) == "FALSE" ||
				    tolower(v[n, "devicetype"]) ~ /cdrom/)
					continue
				if (f !~ /^\//)
					f = ENVIRON["dir"] "/" f
				printf "disk\t%s\t%s\t%s\n", n, f, tolower(v[n, "mode"])
				if (tolower(v[n, "sharing"]) ~ /multi-writer/)
					printf "shared\t%s\n", n
			}
		}'
}

# START-ACTION START-DELAY START-ORDER STOP-ACTION STOP-DELAY WAIT, as update_autostartentry takes them
parse_autostart() {
	awk -v id="$VMID" '
		/key = / { mine = $0 ~ ("VirtualMachine:" id "[^0-9]") }
		mine && /=/ { gsub(/[",]/, ""); v[$1] = $3 }
		function word(key, none) { return v[key] == "" ? none : v[key] }
		END {
			if (v["startAction"] != "")
				printf "autostart\t%s %s %s %s %s %s\n", v["startAction"], word("startDelay", -1),
					word("startOrder", -1), word("stopAction", "systemDefault"),
					word("stopDelay", -1), word("waitForHeartbeat", "systemDefault")
		}'
}

# a datastore is known by its url, which ends with its folder, and by its name
parse_room() {
	awk '
		{ line = $0; sub(/^[^=]*= *"?/, "", line); sub(/"?,? *$/, "", line) }
		$1 == "name" { name = line }
		$1 == "url" { url = line; sub(/^ds:\/\//, "", url); sub(/\/$/, "", url) }
		$1 == "freeSpace" {
			printf "room\t/vmfs/volumes/%s\t%s\n", name, line
			if (url ~ /^\/vmfs\/volumes\//) printf "room\t%s\t%s\n", url, line
		}'
}

# host_reads FILE: a MiB of it can be read; many a file opens and does not read
host_reads() {
	[ "$(remote "$LIMIT" "dd if=$(q "$1") bs=1048576 count=1 2>/dev/null" | wc -c)" -gt 0 ]
}

# host_readable SECONDS FILE...: waits until the first bytes of all of them can be read
host_readable() {
	local text='' f=''

	text="n=0;"
	for f in "$@"; do
		[ "$f" != "$1" ] || continue
		text="$text until dd if=$(q "$f") of=/dev/null bs=512 count=1 2>/dev/null; do
			[ \$n -lt $1 ] || exit 1; n=\$((n + 1)); sleep 1; done;"
	done
	remote $(($1 + LIMIT)) "$text true"
}

# host_size FILE...: the sum of their sizes, also of files that are locked
host_size() {
	local f='' words=''

	for f; do
		words="$words $(q "$f")"
	done
	remote "$LIMIT" "ls -ln $words" | awk '{ n += $5 } END { if (!NR) exit 1; printf "%d\n", n }'
}

# host_room FOLDER: the free bytes of a datastore
host_room() {
	sections 'vim-cmd hostsvc/datastore/listsummary' && [ -f "$TMP/raw/1" ] || return
	parse_room <"$TMP/raw/1" | awk -F '\t' -v f="$1" '$2 == f { print $3; found = 1; exit } END { exit !found }'
}

host_get() { # FILE: a small one
	remote "$LIMIT" "cat $(q "$1")"
}

# host_used FILE: the bytes that it takes on its datastore
host_used() {
	remote "$LIMIT" "du -k $(q "$1")" | awk '{ printf "%d\n", $1 * 1024; exit }'
}

# host_pull FILE FROM-MIB PORT-OFFSET: FILE from there on, on standard output; ends the shell it runs in
host_pull() {
	local get='' listener='' tries=0 port=0

	get="cat $(q "$1")"
	[ "$2" = 0 ] || get="dd if=$(q "$1") bs=1048576 skip=$2 2>/dev/null"
	case $VIA in
	ssh) remote_exec "$get" ;;
	gzip) remote_exec "$get | gzip -1" ;;
	nc)
		# a stream cut short is noticed: it is not a complete gzip file
		port=$((${LISTEN##*:} + $3))
		nc -l -p "$port" </dev/null &
		listener=$!
		# shellcheck disable=SC2064 # this one
		trap "kill $listener; exit 143" TERM
		until listens "$port" || [ $tries -ge 100 ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
		(remote_exec "$get | gzip -1 | nc ${LISTEN%:*} $port") &
		wait $! || kill $listener
		wait $listener
		exit
		;;
	esac
}

# listens PORT: somebody does, here
listens() {
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$(printf ':%04X [0-9A-F]*:0000 0A ' "$1")"
}

host_snapshot() { # NAME DESCRIPTION: asks for one, without memory, not quiesced
	vim "$SNAPSHOT_LIMIT" "vmsvc/snapshot.create $VMID $(q "$1") $(q "$2") 0 0"
}

host_snapshot_remove() { # ID
	vim "$SNAPSHOT_LIMIT" "vmsvc/snapshot.remove $VMID $1"
}

host_shutdown() {
	vim "$LIMIT" "vmsvc/power.shutdown $VMID"
}

host_power_off() {
	vim "$LIMIT" "vmsvc/power.off $VMID"
}

host_power_on() {
	vim "$LIMIT" "vmsvc/power.on $VMID"
}

host_power() { # on, off, or nothing
	remote "$LIMIT" "vim-cmd vmsvc/power.getstate $VMID" | sed -n 's/^Powered //p'
}

host_autostart() { # WORDS as parse_autostart gives them, of which -1 would pass for an option
	vim "$LIMIT" "hostsvc/autostartmanager/update_autostartentry -- $VMID $1"
}

# host_clone FROM TO FORMAT: goes on if the connection breaks, so its log tells its end
host_clone() {
	log "$HOST: vmkfstools -i $1 $2 -d $3"
	remote "$LIMIT" "trap '' HUP; (vmkfstools -i $(q "$1") $(q "$2") -d $3; echo ended \$?) \
		>$(q "$2.log") 2>&1 </dev/null &"
}

# host_cloned TO: 0 done, 1 failed, 2 not yet, 3 not begun, 255 no answer; it may say "100% done" and fail
host_cloned() {
	remote "$LIMIT" "[ -e $(q "$1.log") ] || { echo none; exit 0; }; cat $(q "$1.log")" >"$TMP/clone" || return 255
	tr '\r' '\n' <"$TMP/clone" >"$TMP/clone-log"
	[ "$(cat "$TMP/clone-log")" != none ] || return 3
	grep -q '^ended' "$TMP/clone-log" || return 2
	grep -q '^ended 0' "$TMP/clone-log" && grep -q '100% done' "$TMP/clone-log" || return 1
}

host_clone_remove() { # TO
	log "$HOST: vmkfstools -U $1"
	remote "$SNAPSHOT_LIMIT" "[ ! -e $(q "$1") ] || vmkfstools -U $(q "$1") >/dev/null; rm -f $(q "$1.log")
		[ ! -e $(q "$1") ]"
}
