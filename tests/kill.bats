# SPDX-License-Identifier: MIT
# Killed at any moment, a second run gives what one good run gives, and an undo log gives back what
# was there. KILLS: how many, for each of the two (20).

# bats file_tags=quick

load helpers

KILLS=${KILLS:-20}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	RANDOM=${KILL_SEED:-$$}
	echo "KILL_SEED=${KILL_SEED:-$$}"
}

formats() {
	cat <<-'END'
	cowd 16391 alloc=random:2000+last zero=runs:9:1:300
	cowd 9001 alloc=all
	hosted 16391 grain=16 alloc=random:500 zero=random:100
	sesparse 16392 alloc=random:900 zero=runs:9:1:40 unmapped=random:60
	stream 16391 grain=16 variant=A alloc=random:600 layout=random
	END
}

# Makes, for each format, FORMAT.vmdk, what the disk was and what it will be.
make_disks() {
	local i=0 format capacity keys

	while read -r format capacity keys; do
		"$MKVMDK" pattern orig.$i "$capacity" 9
		# some of it thin
		fallocate --punch-hole --offset 1048576 --length 1048576 orig.$i
		cp --sparse=always orig.$i want.$i
		# shellcheck disable=SC2086 # words are meant
		"$MKVMDK" "$format" d.$i capacity="$capacity" $keys apply=want.$i
		i=$((i + 1))
	done < <(formats)
	disks=$i
}

# Chooses what the next run is like: disk, target, options, where the delta comes from.
choose() {
	n=$((RANDOM % disks))
	mode=()
	[ $((RANDOM % 2)) = 0 ] || mode+=(--no-uring)
	from=d.$n
	if [ "$pipes" ] && [ $((RANDOM % 3)) = 0 ]; then
		from=-
	fi
	if [ "$dev" ] && [ $((RANDOM % 3)) = 0 ]; then
		target=$dev
		dd if=orig.$n of="$dev" bs=1M conv=fsync,notrunc status=none
	else
		target=t
		rm -f t
		cp --sparse=always orig.$n t
	fi
}

# run_it OPTION...: a run that was killed holds the target until its last writes are done.
run_it() {
	local tries status

	for ((tries = 300; ; tries--)); do
		status=0
		run_once "$@" 2>said || status=$?
		cat said >&2
		[ $status = 2 ] && [ $tries != 0 ] &&
			grep -qE 'in use by another program|is locked by|open for writing elsewhere' said ||
			return $status
		sleep 0.1
	done
}

run_once() {
	if [ "$from" = - ]; then
		"$VMDKSYNC" -q "${mode[@]}" "$@" - "$target" < <(cat d.$n)
	else
		"$VMDKSYNC" -q "${mode[@]}" "$@" "$from" "$target"
	fi
}

# killed OPTION...: runs it, and kills it: after some time, or when it calls the system for the nth
# time for something that has to do with writing.
killed() {
	local pid input=/dev/null calls=pwrite64,fdatasync,fallocate,ftruncate,io_uring_enter,ioctl

	[ "$from" != - ] || input=d.$n
	set -- "$VMDKSYNC" -q "${mode[@]}" "$@" "$from" "$target"
	if [ "$traces" ] && [ $((RANDOM % 4)) != 0 ]; then
		# a pipeline: strace would wait for what < <(...) makes its child, and that for strace
		cat <"$input" | strace -qqf -o /dev/null -e "trace=$calls" \
			-e "inject=$calls:signal=KILL:when=$((1 + RANDOM % 40 * (1 + RANDOM % 4)))" \
			"$@" 2>/dev/null || :
		return 0
	fi
	"$@" < <(cat "$input") &
	pid=$!
	sleep "0.0$((RANDOM % 70 + 10))"
	kill -KILL $pid 2>/dev/null || :
	wait $pid || :
}

# is FILE: the target begins with what is in FILE.
is() {
	cmp -n "$(stat -c %s "$1")" "$target" "$1"
}

prepare() {
	make_disks
	pipes='' dev='' traces=''
	cp orig.0 t
	! vs -q --dry-run - t <d.0 >probe 2>&1 || pipes=1
	rm t
	if [ "$(id -u)" = 0 ] && helpers_loop_works; then
		truncate -s 9M backing
		dev=$(loopdev backing)
	fi
	! strace -o /dev/null true 2>/dev/null || traces=1
	export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
	done_=0 untouched=0 between=0
}

count() {
	if is want.$n >/dev/null; then
		done_=$((done_ + 1))
	elif is orig.$n >/dev/null; then
		untouched=$((untouched + 1))
	else
		between=$((between + 1))
	fi
}

@test "killed, then run again" {
	prepare
	for ((i = 0; i < KILLS || (between == 0 && i < 20 * KILLS); i++)); do
		choose
		echo "--- $i: $from $target ${mode[*]}"
		killed
		count
		run_it
		is want.$n
	done
	echo "killed $i times: $between in the middle, $untouched before, $done_ behind"
	[ "$between" -gt 0 ]
}

@test "killed with an undo log, then taken back, or gone on with and taken back" {
	prepare
	for ((i = 0; i < KILLS || (between == 0 && i < 20 * KILLS); i++)); do
		choose
		echo "--- $i: $from $target ${mode[*]}"
		rm -f undo.vmdk
		killed --undo undo.vmdk
		count
		if [ $((i % 2)) = 1 ]; then
			# again and again: what was saved is not saved as it is now
			[ $((RANDOM % 2)) = 0 ] || [ ! -e undo.vmdk ] ||
				killed --undo undo.vmdk --undo-append
			if [ ! -e undo.vmdk ]; then
				run_it --undo undo.vmdk
			elif ! is want.$n >/dev/null || ! vs -q --strict --dry-run undo.vmdk "$target" 2>/dev/null; then
				run_it --undo undo.vmdk --undo-append
			fi
			is want.$n
		fi
		if [ -s undo.vmdk ]; then
			vs -q undo.vmdk "$target"
		fi
		is orig.$n
	done
	echo "killed $i times: $between in the middle, $untouched before, $done_ behind"
	[ "$between" -gt 0 ]
}
