# SPDX-License-Identifier: MIT
# What the tests of examples/migrate/ share: a stand-in host, targets, and the one checker that looks after
# every run of the script (runs). Loaded after helpers and esxi.

migrate_setup() {
	cd "$BATS_TEST_TMPDIR" || return
	short_dir # for the sockets of ssh
	export VMDKSYNC TMPDIR=$SHORT_DIR MIGRATE_LIMIT=20
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
	# What happens when the migration asks the host for something. `trace`: each command is noted there.
	# The file `at` holds "NUMBER FAULT": what happens to the command of that number, counted in `count`:
	# fails (never sent), hangs (never sent, no answer), lost (done, but no answer), late (done a second
	# after it failed), gone (no answer from then on), then-gone (done before that), kill (the migration is killed before it), killed
	# (after it), or in place of the number a pattern.
	cat >bin/ssh <<-END
	#!/bin/bash
	real=$(command -v ssh)
	here=$PWD
	END
	cat >>bin/ssh <<-'END'
	case " $* " in
	*' -O '*) exec "$real" "$@" ;;
	esac
	[ ! -e "$here/trace" ] || printf '%s\n' "${!#}" | tr '\n' ' ' | { cat; echo; } >>"$here/trace"
	[ ! -e "$here/gone" ] || exit 255
	if read -r which fault 2>/dev/null <"$here/at"; then
		exec 5>>"$here/count.lock"
		flock 5
		n=$(($(cat "$here/count" 2>/dev/null || echo 0) + 1))
		echo $n >"$here/count"
		flock -u 5
		# shellcheck disable=SC2053 # a pattern
		if [ "$which" = $n ] || [[ $which != [0-9]* && ${!#} == $which ]]; then
			rm "$here/at"
			group=$(ps -o pgid= $$)
			case $fault in
			fails) exit 255 ;;
			hangs) exec sleep 60 ;;
			lost) "$real" "$@" >/dev/null 2>&1; exit 255 ;;
			late) (sleep 1; "$real" "$@") >/dev/null 2>&1 3>&- 5>&- 8>&- & exit 255 ;;
			gone) : >"$here/gone"; exit 255 ;;
			then-gone) "$real" "$@"; : >"$here/gone"; exit 255 ;;
			kill) kill -KILL -- -$group ;;
			killed) "$real" "$@"; kill -KILL -- -$group ;;
			INT | TERM) kill -"$fault" -- -$group; exit 255 ;;
			esac
		fi
	fi
	exec "$real" "$@"
	END
	chmod +x bin/*
	PATH=$PWD/bin:$PATH
}

migrate_teardown() {
	local s

	# what a killed run leaves
	for s in "$SHORT_DIR"/tmp.*/ssh; do
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
	given=("scsi0:0=$a" "scsi0:1=$b")
}

# files SIZE SIZE: the same, as files
files() {
	"$MKVMDK" pattern a.raw "$1" 77
	"$MKVMDK" pattern b.raw "$2" 78
	a=$PWD/a.raw b=$PWD/b.raw
	given=("scsi0:0=$a" "scsi0:1=$b")
}

# migrate VERB OPTION...: with both targets
migrate() {
	local verb=$1

	shift
	SSH="ssh -F $BATS_TEST_TMPDIR/ssh_config" here timeout 300 "${SETSID-env}" \
		sh "$TOP/examples/migrate/vmdksync-migrate" "$verb" --state=state "$@" esxi "${name-web server}" "${given[@]}"
}

# runs STATUS VERB OPTION...: the migration ends so, and what has to hold after every run does
runs() {
	local wanted=$1

	shift
	rm -f gone
	run "-$wanted" migrate "$@" 3>&-
	holds "$1"
}

# holds VERB: whatever happened. `status` and `output` are those of the run.
holds() {
	local id name

	# the words that are noted were right, and nothing is lost in silence
	[[ $output == *'next: '* ]] || { echo 'no next step was shown'; return 1; }
	[ ! -e "$ESXI/ctl/both-on" ] || { echo 'both VMs ran at a time'; return 1; }
	[ ! -e "$ESXI/ctl/target-on" ] || [ "$(cat "$ESXI/ctl/power")" = off ] || { echo 'both VMs run'; return 1; }
	while read -r id name; do
		case $name in
		vmdksync-*) grep -q "snapshot.remove .* \($id\|ID\)  # $name" <<<"$output" ||
			{ echo "snapshot $name was not mentioned"; return 1; } ;;
		esac
	done <"$ESXI/ctl/snapshots"
	case $1,$status in
	cutover,0 | run,0 | accept,0)
		[ "$(cat "$ESXI/ctl/power")" = off ] || { echo 'done, but the source is on'; return 1; }
		arrived
		;;
	esac
	if [ -e state/status.json ]; then
		jq -e '.next != "" and .step != ""' state/status.json >/dev/null
	fi
}

# arrived: the targets are what the guest saw last
arrived() {
	same "$a" "$(truth 0)"
	same "$b" "$(truth 1)"
	[ ! -e "$ESXI/ctl/disk/2" ] || same "$c" "$(truth 2)"
}

guest_runs() {
	[ "$(cat "$ESXI/ctl/power")" = on ]
}

# on_host WORDS...: shell of the stand-in VM, in its namespaces
on_host() {
	nsenter -t "$ESXI_NET" --mount --pid --root --wd=/ /bin/sh -c ". /ctl/vm.sh; $*"
}

# new_vm: a command for --start; it notes that the new VM runs, and whether it does alone
new_vm() {
	cat >start <<-END
	#!/bin/sh
	[ "\$(cat "$ESXI/ctl/power")" = off ] || echo 'target started' >>"$ESXI/ctl/both-on"
	: >"$ESXI/ctl/target-on"
	env | grep ^MIGRATE_ >"$PWD/hook"
	END
	chmod +x start
	echo "--start=$PWD/start"
}

count() {
	grep -c "$1" "$ESXI/ctl/commands" || :
}
