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
	# after it failed), gone (no answer from then on), then-gone (done before that), kill or reboot (the
	# migration is killed before it), killed or rebooted (after it); in place of the number a pattern.
	# Where `points` exists, notes and runs of vmdksync are counted, too.
	cat >bin/point <<-END
	here=$PWD
	END
	cat >>bin/point <<-'END'
	# point TEXT: its fault in `fault`, if it is its turn
	point() {
		local which n f

		fault=
		# without the blanks in front of a small number
		group=$(ps -o pgid= $$ | tr -d ' ')
		[ ! -e "$here/trace" ] || { printf %s "$1" | tr '\n' ' '; echo; } >>"$here/trace"
		read -r which f 2>/dev/null <"$here/at" || return 0
		exec 5>>"$here/count.lock"
		flock 5
		n=$(($(cat "$here/count" 2>/dev/null || echo 0) + 1))
		echo $n >"$here/count"
		flock -u 5
		exec 5>&-
		# shellcheck disable=SC2053 # a pattern
		[ "$which" = $n ] || [[ $which != [0-9]* && $1 == $which ]] || return 0
		rm "$here/at"
		fault=$f
	}

	# strike COMMAND...: runs it, and kills the migration before or after it
	strike() {
		case $fault in
		kill | reboot) kill -KILL -- "-$group" ;;
		killed | rebooted) "$@"; kill -KILL -- "-$group" ;;
		*) exec "$@" ;;
		esac
		# a command that is run after all, or twice, is none that was killed
		echo 'the migration was not killed' >&2
		exit 1
	}
	END
	for f in mv vmdksync; do
		real=$(command -v "$([ $f = mv ] && echo mv || echo "$VMDKSYNC")")
		cat >bin/$f <<-END
		#!/bin/bash
		. "$PWD/bin/point"
		[ -e "\$here/points" ] || exec "$real" "\$@"
		case " \$*" in
		*/status.json | *' --help' | *' --info '*) exec "$real" "\$@" ;;
		esac
		point "$f \$*"
		strike "$real" "\$@"
		END
	done
	cat >bin/ssh <<-END
	#!/bin/bash
	real=$(command -v ssh)
	. "$PWD/bin/point"
	END
	cat >>bin/ssh <<-'END'
	case " $* " in
	*' -O '*) exec "$real" "$@" ;;
	esac
	[ ! -e "$here/gone" ] || exit 255
	point "${!#}"
	case $fault in
	'') exec "$real" "$@" ;;
	fails) exit 255 ;;
	hangs) exec sleep 60 ;;
	lost) "$real" "$@" >/dev/null 2>&1; exit 255 ;;
	late) (sleep 1; "$real" "$@") >/dev/null 2>&1 3>&- 8>&- & exit 255 ;;
	gone) : >"$here/gone"; exit 255 ;;
	then-gone) "$real" "$@"; : >"$here/gone"; exit 255 ;;
	INT | TERM) kill -"$fault" -- -$group; exit 255 ;;
	esac
	strike "$real" "$@"
	END
	chmod +x bin/*
	PATH=$PWD/bin:$PATH
	VMDKSYNC=$PWD/bin/vmdksync
}

# reboot: of this machine, after all was killed. Of the migration the state folder and the targets are left.
reboot() {
	local p f

	for p in /proc/[0-9]*; do
		tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -qF -e "$SHORT_DIR/tmp." -e "$BATS_TEST_TMPDIR/state" || continue
		# the host goes on
		[ "$(readlink "$p/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || continue
		kill -KILL "${p#/proc/}" 2>/dev/null || :
	done
	rm -rf "$SHORT_DIR"/tmp.*
	for f in "$a" "$b"; do
		rm -f {/run/lock,"$SHORT_DIR"}/vmdksync-migrate-"$(stat -L -c 'file-%d:%i' "$f")"
	done
	# shellcheck disable=SC2016 # for the shell inside
	on_host 'for p in $(pidof sshd sshd-session); do [ "$p" = "$(cat /ctl/sshd.pid)" ] || kill -9 "$p"; done' || :
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
