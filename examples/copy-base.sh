#!/bin/sh
# SPDX-License-Identifier: MIT
# A base disk over ssh, straight onto its new disk, resumed where the line breaks until it is whole.
set -u

usage() {
	cat <<'END'
Usage: copy-base.sh [OPTION...] HOST FILE TARGET [VMDKSYNC-OPTION...]
Copies FILE, a whole disk on HOST (NAME-flat.vmdk, or a device), onto TARGET.
What breaks is tried again, from where TARGET is durable. HOST needs ls and dd,
and a key that asks for no password. FILE must not change: the VM is off, or
runs on a snapshot.

  -c FILE     the checkpoint (NAME-OF-TARGET.checkpoint here); gone when all is
              done; as long as it is there the same command resumes
  -l LOG      messages with dates are added to LOG as well
  -r RATE     at most so many bytes a second, as pv -L takes it (20m)
  -t TRIES    give up after so many tries in a row without progress (10)
  -w SECONDS  wait between tries (10)

VMDKSYNC, SSH in the environment: other commands for them.
Exit status: 0 all is on TARGET, on stable storage; 1 gave up, 3 stopped by a
signal: the same command resumes; 2 refused, see the messages.
END
}

log=/dev/null

say() {
	printf '%s copy-base.sh: %s\n' "$(date '+%F %T')" "$*" | tee -a "$log" >&2
}

refuse() {
	say "$*"
	exit 2
}

# q WORD: as a word of the shell at the other end
q() {
	printf "'%s'" "$(printf '%s.' "$1" | sed "s/'/'\\\\''/g" | sed '$s/\.$//')"
}

# number WORD OPTION: refuses what is none
number() {
	case $1 in
	'' | *[!0-9]* | ??????????*) refuse "$2: $1 is no number" ;;
	esac
}

checkpoint='' limit='' tries=10 pause=10
case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
while getopts c:l:r:t:w: option; do
	case $option in
	c) checkpoint=$OPTARG ;;
	l) log=$OPTARG ;;
	r) limit=$OPTARG ;;
	t) number "$OPTARG" -t && tries=$OPTARG ;;
	w) number "$OPTARG" -w && pause=$OPTARG ;;
	*)
		usage >&2
		exit 2
		;;
	esac
done
shift $((OPTIND - 1))
if [ $# -lt 3 ]; then
	usage >&2
	exit 2
fi
host=$1 file=$2 target=$3
shift 3
case $host in
'' | -*) refuse "'$host' is no host" ;;
esac
case $file in
/*) ;;
*) refuse "$file: FILE is a path from / on" ;;
esac
case $target in
-*) target=./$target ;;
esac
[ -n "$checkpoint" ] || checkpoint=${target##*/}.checkpoint
if [ -n "$limit" ] && ! command -v pv >/dev/null; then
	refuse 'pv is not installed; -r needs it'
fi
: >>"$log" || exit 2
tmp=$(mktemp -d) || exit 2
stopped=

# A signal stops vmdksync, which makes durable what it has; then nothing waits for ssh.
# shellcheck disable=SC2317 # trap calls it
stop() {
	stopped=yes
	for p in vmdksync ssh pause; do
		[ ! -s "$tmp/$p" ] || kill "$(cat "$tmp/$p")" 2>/dev/null
	done
}
trap stop INT TERM HUP
trap 'rm -rf "$tmp"' EXIT

# as NAME COMMAND...: its process id is in $tmp/NAME
as() {
	name=$1
	shift
	# shellcheck disable=SC2016 # for the shell inside
	sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$tmp/$name" "$@"
}

# until PID is gone: a signal only interrupts `wait`
gone() {
	while kill -0 "$1" 2>/dev/null; do
		wait "$1"
	done
}

remote() {
	# shellcheck disable=SC2086 # SSH may hold options
	as ssh ${SSH:-ssh} -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 \
		-o ServerAliveCountMax=4 "$host" "$1" </dev/null 2>"$tmp/ssh.err"
}

# What they said, but for the counts of dd.
told() {
	cat "$tmp/ssh.err" "$tmp/err" 2>/dev/null | grep -vE '^[0-9]+\+[0-9]+ records|^[0-9]+ bytes .*(copied|s, )' |
		sed 's/^/  /' | tee -a "$log" >&2
	rm -f "$tmp/ssh.err" "$tmp/err"
}

position() {
	# shellcheck disable=SC2086 # VMDKSYNC may hold options
	${VMDKSYNC:-vmdksync} --resume="$checkpoint" --position
}

# ask: what ls says of FILE is in $found, its size in $size. 1: the host did not answer.
ask() {
	found=$(remote "ls -lnL $(q "$file")")
	code=$?
	rm -f "$tmp/ssh"
	[ $code = 0 ] || return 1
	size=$(printf '%s\n' "$found" | awk '{ print $5 }')
	case $size in
	'' | 0 | *[!0-9]*) refuse "$file: $host says '$found': is it a file with a disk in it?" ;;
	esac
}

# progress: a line for the log each time when 5 % more are there
progress() {
	shown=0
	while IFS= read -r line; do
		bytes=${line#*\"bytes\":} rate=${line#*\"rate\":} left=${line#*\"left\":}
		bytes=${bytes%%[!0-9]*} rate=${rate%%[!0-9]*} left=${left%%[!0-9]*}
		[ $((${bytes:-0} / (size / 20 + 1))) -gt "$shown" ] || continue
		shown=$((bytes / (size / 20 + 1)))
		say "$((bytes >> 20)) of $((size >> 20)) MiB, $((${rate:-0} >> 20)) MiB/s, ${left:-?} s left"
	done
}

# receive VMDKSYNC-OPTION...
receive() {
	# shellcheck disable=SC2086
	as vmdksync ${VMDKSYNC:-vmdksync} --raw --expect-size="$size" --resume="$checkpoint" \
		--progress=json:3 "$@" - "$target" 3>"$tmp/progress" 2>"$tmp/err"
	echo $? >"$tmp/status"
}

# copy POSITION VMDKSYNC-OPTION...: one try; its status is vmdksync's
copy() {
	command="dd if=$(q "$file") bs=1M skip=$(($1 >> 20))"
	shift
	rm -f "$tmp/status" "$tmp/progress"
	mkfifo "$tmp/progress" || return 2
	progress <"$tmp/progress" &
	shower=$!
	if [ -n "$limit" ]; then
		remote "$command" | pv -q -L "$limit" | receive "$@" &
	else
		remote "$command" | receive "$@" &
	fi
	gone $!
	gone "$shower"
	rm -f "$tmp/ssh" "$tmp/vmdksync"
	return "$(cat "$tmp/status" 2>/dev/null || echo 3)"
}

first='' failed=0 try=0
while [ -z "$stopped" ]; do
	before=$(position) || exit 2
	try=$((try + 1)) code=255
	if ! ask; then
		# at the very beginning it is a wrong name more likely than a line that is down
		[ -n "$first" ] || [ -e "$checkpoint" ] || {
			told
			refuse "$host: $file was not found there"
		}
		say "try $try: $host does not answer"
	elif [ "$found" != "${first:=$found}" ]; then
		refuse "$file: has changed: '$first' became '$found'"
	else
		say "try $try: $host:$file, $size bytes, from byte $before on, onto $target"
		copy "$before" "$@"
		code=$?
	fi
	short=
	grep -qE 'ended after|ends after|is empty' "$tmp/err" 2>/dev/null && short=yes
	told
	case $code in
	0)
		say "all $size bytes are on $target"
		exit 0
		;;
	2) [ -n "$short" ] || exit 2 ;;
	esac
	after=$(position) || exit 2
	failed=$((failed + 1))
	[ "$after" -le "$before" ] || failed=0
	[ -z "$stopped" ] || break
	if [ "$failed" -ge "$tries" ]; then
		say "gave up after $failed tries without progress, at byte $after; the same command resumes"
		exit 1
	fi
	as pause sleep "$pause" &
	gone $!
	rm -f "$tmp/pause"
done
say "stopped at byte $(position); the same command resumes"
exit 3
