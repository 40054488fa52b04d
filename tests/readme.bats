# SPDX-License-Identifier: MIT
# What README and examples/ show is what happens.

# bats file_tags=quick

load helpers
load shown

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

@test "README: the first command shows the main job and proves it" {
	requires plain make gcc qemu-img
	cd "$TOP"
	run -0 sh examples/demo.sh
	[[ $output == *'cmp: both disks are the same, byte for byte.'* ]]
	[[ ${lines[-1]} == 'cmp: the disk is the base again, byte for byte.' ]]
	# it builds no more than that needs
	run -0 make -n BUILD="$BATS_TEST_TMPDIR/b" "$BATS_TEST_TMPDIR"/b/{vmdksync,mkvmdk}
	[[ $output != */fuzz/* && $output != */unit* ]]
	grep -q '^  sh examples/demo.sh ' "$TOP/README"
}

@test "README: the second command is what .ci/run ends with" {
	command=$(sed -n 's/^  \(sh tests.*make check\) .*/\1/p' "$TOP/README")
	[ -n "$command" ]
	run -0 tail -n 1 "$TOP/.ci/run"
	[ "$output" = "$command" ]
}

# stand_in NAME: a program of that name, from standard input
stand_in() {
	mkdir -p bin
	{ echo '#!/bin/sh' && cat; } >"bin/$1"
	chmod +x "bin/$1"
}

# not_run: how lines begin that look like a command line, and are none: a paragraph may begin a line with
# the name of a program. A program's name alone is no command line, either.
not_run() {
	cat <<-'END'
	vmdksync-migrate does all
	vmdksync-migrate moves
	qemu-img convert
	qemu-img commit
	qemu-img compare
	nbdcopy from
	dd, the same
	oneswap-sesparse.sh, migrate.sh
	copy-base.sh, receive.sh
	receive.sh, with-disk.sh
	examples/copy-base.sh for
	END
}

# sort_shown: sorts what is shown: `here` is run below, `elsewhere` stands in another test as it
# is shown, `migrate` is run by migrate.bats, `disks` by disks.bats
sort_shown() {
	local line

	: >here
	: >elsewhere
	: >migrate
	: >disks
	shown | sed 's/ *$//' >all
	not_run >none
	while IFS= read -r line; do
		case $line in
		'vmdksync-migrate '*esxi*) echo "$line" >>migrate && continue ;;
		*' '*) ;;
		*) continue ;;
		esac
		! awk -v line="$line" 'index(line, $0) == 1 { found = 1 } END { exit !found }' none || continue
		case $line in
		*with-disk.sh\ *) echo "$line" >>disks ;;
		make\ * | sudo\ * | sh\ *) echo "$line" >>elsewhere ;;
		*) echo "$line" >>here ;;
		esac
	done <all
}

# same_shape: numbers that differ from run to run, and line breaks, do not count
same_shape() {
	tr -s ' \n' ' ' <"$1" | sed -E -e 's/[0-9.]+ s, [0-9.]+ [KMG]iB\/s/T, R/g; s/[0-9.]+ [KMGT]iB are free/N are free/' \
		-e 's/; [0-9.]+ s( |$)/; T\1/g' -e 's/ $//'
}

@test "README: the commands on its first page say what is shown" {
	requires script
	"$MKVMDK" pattern host-flat.vmdk 64M 1
	"$MKVMDK" cowd host-000001-delta.vmdk capacity=64M alloc=runs:500:8:128 layout=random seed=2 \
		descriptor=host-000001.vmdk base=host-flat.vmdk
	cp host-flat.vmdk vm-hda.raw
	sed -n '/^THREE COMMANDS/,/^DOES IT FIT/{/^  /p}' "$TOP/README" >shown
	grep '^  \$ ' shown | while IFS= read -r line; do
		echo "$line"
		PATH=${VMDKSYNC%/*}:$PATH script -qec "stty cols 78; ${line#  $ }" /dev/null </dev/null
	done | tr '\r' '\n' | sed 's/\x1b\[J//g' | grep -v ' left$' >said
	[ "$(grep -c '^  \$ ' shown)" = 4 ]
	diff <(same_shape shown) <(same_shape said)
	cmp vm-hda.raw host-flat.vmdk
}

@test "README is short, and fits a terminal" {
	[ "$(wc -c <"$TOP/README")" -le 10240 ]
	[ "$(wc -L <"$TOP/README")" -le 80 ]
}

@test "README, manual, CHANGELOG, examples: every command line works" {
	esx_chain 2048 2
	# the old host is this folder, the other end of a netcat is there already
	stand_in ssh <<-'END'
	eval "$2"
	END
	stand_in scp <<-'END'
	f=${1#*:} && cp "$f" "copied.${f##*/}" && test "$2" = .
	END
	stand_in nc <<-'END'
	case $* in
	'-l 31310' | '-l -p 31310') cat host-000001-delta.vmdk ;;
	'-N newhost 31310' | '-w 60 HERE PORT') cat >>sent ;;
	*) exit 1 ;;
	esac
	END
	stand_in lvcreate <<-'END'
	case $* in
	'-n vm-hda -L 42949672960b vg0') ;;
	'-s -n vm-hda-cutover -L 10G vm-hda.raw') cp host-2.raw vm-hda.raw-cutover ;;
	*) exit 1 ;;
	esac
	END
	stand_in man <<-END
	test -s "$TOP/\$1.1"
	END
	cp "$TOP"/examples/*.sh .
	ln -s "$VMDKSYNC" bin/vmdksync
	cp host-0.raw vm-hda.raw
	cp host-000001-delta.vmdk delta.vmdk
	"$MKVMDK" hosted clone-s003.vmdk capacity=1024 alloc=0-3 desc=0
	sort_shown
	# it takes the place of another program from the start
	{ grep '^install ' here && grep -v '^install ' here; } >in-order
	n=0
	while IFS= read -r line; do
		case $line in
		*--create*) rm -f changes.raw whole.raw ;;
		*--undo=*) rm -f undo.vmdk ;;
		*DELTA* | *FILE* | *delta\ target*)
			line=${line/DELTA/host-000001-delta.vmdk}
			line=${line/delta target/host-000001-delta.vmdk vm-hda.raw}
			line=${line/FILE/undo.vmdk}
			line=${line/TARGET/vm-hda.raw}
			;;
		esac
		line=${line/--expect-size=42949672960/--expect-size=1M}
		line=${line//\/dev\/vg0\/vm-hda/vm-hda.raw}
		line=${line/8384512s/1024s}
		line=${line/\/mnt\//}
		line=${line//\/usr\/lib\/one/bin}
		line=${line//\/vmfs\/volumes\/ds\/host\//}
		echo "$line"
		PATH=$PWD/bin:$PWD:$PATH run -0 bash -o pipefail -c "$line" </dev/null
		# what comes next may be about the first delta alone, and a later one is noticed
		[[ $line != *@(host-000002|clone)*\ vm-hda.raw || $line == *--full\ host-* ]] ||
			cp host-0.raw vm-hda.raw
		n=$((n + 1))
	done <in-order
	echo "$n commands"
	[ "$n" -ge 25 ]
	# all that was sent
	for i in cat gzip gzip cat; do
		case $i in
		gzip) gzip -1 <host-000001-delta.vmdk ;;
		*) cat host-000001-delta.vmdk ;;
		esac
	done >all-sent
	cmp sent all-sent
	cmp copied.host-000001-delta.vmdk host-000001-delta.vmdk
	cmp copied.host-000001.vmdk host-000001.vmdk
}

@test "README and CHANGELOG: what is to be built, installed, packed stands in a test as it is shown" {
	sort_shown
	while IFS= read -r line; do
		echo "--- $line"
		sed 's/^	*//; s/^run -0 //' "$TOP"/tests/{package,readme,bench}.bats "$TOP/.ci/run" | grep -qxF -- "$line"
	done <elsewhere
	[ "$(wc -l <elsewhere)" -ge 3 ]
	# those of vmdksync-migrate are taken from its manual there
	diff <(sort migrate) <(shown_in "$TOP/vmdksync-migrate.1" | grep '^vmdksync-migrate .*esxi' | sort)
	[ "$(wc -l <migrate)" -ge 10 ]
	# and those of with-disk.sh there, from README and manual
	diff disks <({ shown_in "$TOP/README"; shown_in "$TOP/vmdksync.1"; } | grep 'with-disk\.sh ' | awk '!seen[$0]++')
	[ "$(wc -l <disks)" -ge 6 ]
}

@test "scripts: the options they speak of are vmdksync's, or their own" {
	run -0 vs --help
	ours=$output
	# those of blockdev, qemu-storage-daemon, setpriv, env, rbd
	theirs=' --getsize64 --blockdev --export --nbd-server --object --pidfile --pdeathsig --default-signal --conf --id'
	for s in "$TOP"/examples/*.sh; do
		own=
		case ${s##*/} in
		demo.sh) ;;
		migrate.sh) continue ;;
		*) own=$(sh "$s" --help) ;;
		esac
		n=0
		while read -r o; do
			grep -qE -- "$o([^a-z-]|$)" <<<"$ours$own$theirs"
			n=$((n + 1))
		done < <(grep -oE -- '(^|[^-a-zA-Z])--[a-z][a-z-]+' "$s" | grep -oE -- '--[a-z-]+' | sort -u)
		echo "${s##*/}: $n"
	done
	# and those of vmdksync-migrate are what it takes, but for the former ways of saying a verb
	diff <(sh "$TOP/examples/migrate/vmdksync-migrate" --help | grep -oE -- '^  --[a-z-]+' | tr -d ' ' | sort -u) \
		<(sed -n '/^while \[ \$# -gt 0 \]/,/^done/p' "$TOP/examples/migrate/vmdksync-migrate" |
			grep -oE -- '^	(-h \| )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | grep -v -e --help -e --accept | sort -u)
	diff <(sh "$TOP/examples/migrate/vmdksync-migrate" --help | grep -oE -- '^  --[a-z-]+' | tr -d ' ' | sort -u) \
		<(sed -n 's/^\.It Fl -\([a-z-]*\).*/--\1/p' "$TOP/vmdksync-migrate.1" | sort -u)
}

# option_rows: of --help, from standard input: one a line as "--name", "--name=N", "-p --name[=WORD]".
option_rows() {
	sed -n 's/^\( *-.*[^ ]\)  .*/\1/p' | grep -oE -- '(-[a-zA-Z], )?--[a-z][^ ,]+' | sed 's/, / /' | sort
}

@test "--help, the manual and the completion list the same options, with the same values" {
	run -0 vs --help
	option_rows <<<"$output" >rows
	[ "$(wc -l <rows)" -ge 28 ]
	# ".It Fl p , -progress Ns Op Cm =json Ns Op : Ns Ar fd" is "-p --progress[=json[:FD]]"
	# (and --map=list)
	diff rows <(sed -n '/^The options:/,/^\.Ss/s/^\.It Fl //p' "$TOP/vmdksync.1" |
		sed -e 's/^\(.\) , /\1 -/; s/^\([a-zA-Z]\) /-\1 /; t' -e 's/^/-/' |
		sed -e 's/ Ns Op Cm \(=[a-z]*\)$/[\1]/; s/ Ns Op Cm \(=[a-z]*\) Ns Op : Ns Ar \(.*\)/[\1[:\U\2]]/' -e 's/ Ns = Ns Ar \(.*\)/=\U\1/' |
		sort)
	# what takes a file, a folder or a word has that completed
	mkdir dir-of-mine
	# shellcheck disable=SC2016 # for the bash inside
	while read -r o; do
		o=${o##* }
		case ${o#*=} in
		FILE | DIR) want=dir-of-mine ;;
		WORD) want=busy ;;
		'json[:FD]]') want=json ;;
		'list]') want=list ;;
		*) continue ;;
		esac
		o=${o%%=*} o=${o%[}
		run -0 env PATH="${VMDKSYNC%/*}:$PATH" bash --norc -c '
			. "$0"
			COMP_WORDS=(vmdksync "$1" = "${2:0:1}") COMP_CWORD=3
			_vmdksync vmdksync
			printf "%s\n" "${COMPREPLY[@]}"' "$TOP/examples/completion.bash" "$o" "$want"
		[[ $'\n'$output$'\n' == *$'\n'"$want"$'\n'* ]]
	done <rows
	run -0 vs --help
	sed -n '/--force=/,/^ *-/{/^ \{20,\}[a-z]/p}' <<<"$output" | tr -s ' ' '\n' | grep . | sort >words
	[ "$(wc -l <words)" -ge 11 ]
	# shellcheck disable=SC2016 # for the bash inside
	diff <(sed -n 's/^\( *-.*[^ ]\)  .*/\1/p' <<<"$output" | grep -oE -- '-[a-zA-Z]\b|--[a-z][a-z-]+' | sort -u) \
		<(PATH=${VMDKSYNC%/*}:$PATH bash --norc -c '
			. "$0"
			COMP_WORDS=(vmdksync -) COMP_CWORD=1
			_vmdksync vmdksync
			printf "%s\n" "${COMPREPLY[@]}" | sort -u' "$TOP/examples/completion.bash")
	diff words <(sed -n '/^The words are:/,/^\.El/s/^\.It Cm //p' "$TOP/vmdksync.1" | sort -u)
}

@test "README, manuals, --help and messages use the words of the field" {
	{
		vs --help
		cat "$TOP"/README "$TOP"/*.1
		# of the sources what stands between quotation marks, joined where it goes on in the next line
		for f in "$TOP"/lib/*/*.c "$TOP/vmdksync.c"; do
			gcc -fpreprocessed -dD -E -P "$f" 2>/dev/null
		done | sed -e ':a' -e '/"$/{N;s/"\n[ \t]*"//;ta' -e '}' | grep -oE '"([^"\\]|\\.)*"'
	} >said
	run ! grep -nwiE 'stretch(es)?|odd|unpack(s|ed)|come too early|brought|announced|way back|goes in a circle' said
	run ! grep -nwiE 'at night|told by its content|stands for itself|take[ns]? (the first one )?back|too few|lent' said
	run ! grep -nwiE 'lies beneath|but for the base|override|were to come|was cut short|is no VMDK' said
}
