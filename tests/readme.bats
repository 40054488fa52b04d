# What README and examples/ show is what happens.

load helpers
load shown

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

@test "README: the first command shows the main job and proves it" {
	requires plain make gcc qemu-img
	cd "$TOP"
	run -0 sh examples/demo.sh
	[[ ${lines[-1]} == 'cmp: both disks are the same, byte for byte.' ]]
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

# not_run: what looks like a command line, and is none. A program's name alone is none, either.
not_run() {
	cat <<-'END'
	examples/migrate.sh does it for all disks of a VM at once, see SCRIPTS.
	vmdksync [OPTIONS] DELTA... TARGET
	vmdksync --verify [OPTIONS] IMAGE... TARGET
	vmdksync --info | --map [OPTIONS] IMAGE...
	as DELTA, or any other VMDK
	examples/migrate.sh does these steps for all disks of a VM on an ESXi host, with the downtime of
	examples/oneswap-sesparse.sh takes the place of
	last part of its name beside the child, and in every --search DIR; and at last as it is named,
	nc has to end when its input does: -N does that where the sending side is OpenBSD's nc, -q0 where
	write what DELTA and its parents hold, but for the base
	make TARGET, a new sparse file of the disk's size; never replaces one
	look for parents and extents in DIR, too; may be repeated
	who uses it. --verify --force=busy compares it all the same.
	qemu-img cannot read a delta from a pipe, nor one without its descriptor; it takes a delta that
	make bench (BENCH_SIZE=MiB) makes deltas of several shapes, and runs vmdksync, the limit of the
	dd of as many bytes, direct, COWD
	qemu-img commit, COWD
	qemu-img commit, hosted sparse
	qemu-img convert, COWD
	nbdcopy from qemu-nbd, COWD
	qemu-img convert, hosted sparse
	nbdcopy from qemu-nbd, hosted
	qemu-img convert
	qemu-img compare (--verify)
	install with apt what the build needs
	bash completion
	migrate.sh --accept | --rollback [OPTIONS] HOST VM NODE=TARGET...
	END
}

# sort_shown: sorts what is shown: `here` is run below, `elsewhere` stands in another test as it
# is shown, `migrate` is run by migrate.bats
sort_shown() {
	local line

	: >here
	: >elsewhere
	: >migrate
	shown | sed 's/ *$//' >all
	not_run | sort >none
	# none that is shown no more
	run -0 comm -23 none <(sort all)
	[ -z "$output" ]
	while IFS= read -r line; do
		case $line in
		*' '*) ;;
		*) continue ;;
		esac
		! grep -qxF -- "$line" none || continue
		case $line in
		'sh examples/migrate.sh '*) echo "$line" >>migrate ;;
		make\ * | sudo\ * | sh\ *) echo "$line" >>elsewhere ;;
		*) echo "$line" >>here ;;
		esac
	done <all
}

@test "README, manual, CHANGELOG, examples: every command line works" {
	esx_chain 2048 2
	# the old host is this folder, the other end of a netcat is there already
	stand_in ssh <<-'END'
	eval "$2"
	END
	stand_in scp <<-'END'
	cp "${1#*:}" copied && test "$2" = .
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
	cp "$TOP"/examples/*.sh .
	ln -s "$VMDKSYNC" bin/vmdksync
	cp host-0.raw vm-hda.raw
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
		line=${line//\/dev\/vg0\/vm-hda/vm-hda.raw}
		line=${line//\/usr\/lib\/one/bin}
		line=${line//\/vmfs\/volumes\/ds\/host\//}
		echo "$line"
		PATH=$PWD/bin:$PWD:$PATH run -0 bash -o pipefail -c "$line" </dev/null
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
	cmp copied host-000001-delta.vmdk
}

@test "README and CHANGELOG: what is to be built, installed, packed stands in a test as it is shown" {
	sort_shown
	while IFS= read -r line; do
		sed 's/^	*//; s/^run -0 //' "$TOP"/tests/{package,readme,bench}.bats "$TOP/.ci/run" | grep -qxF -- "$line"
	done <elsewhere
	[ "$(wc -l <elsewhere)" -ge 9 ]
	# those of migrate.sh are taken from README there
	diff migrate <(shown_in "$TOP/README" | grep '^sh examples/migrate.sh ')
	[ "$(wc -l <migrate)" -ge 3 ]
}

@test "scripts: the options they speak of are vmdksync's, or their own" {
	run -0 vs --help
	ours=$output
	for s in "$TOP"/examples/*.sh; do
		own=
		[ "${s##*/}" = demo.sh ] || own=$(sh "$s" --help)
		n=0
		while read -r o; do
			# the last one is blockdev's
			grep -qE -- "$o([^a-z-]|$)" <<<"$ours$own --getsize64"
			n=$((n + 1))
		done < <(grep -oE -- '(^|[^-a-zA-Z])--[a-z][a-z-]+' "$s" | grep -oE -- '--[a-z-]+' | sort -u)
		echo "${s##*/}: $n"
	done
	# and those of migrate.sh are what it takes
	diff <(sh "$TOP/examples/migrate.sh" --help | grep -oE -- '^  --[a-z-]+' | tr -d ' ' | sort -u) \
		<(sed -n '/^while \[ \$# -gt 0 \]/,/^done/p' "$TOP/examples/migrate.sh" |
			grep -oE -- '^	(-h \| )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | grep -v -- --help | sort -u)
}

@test "README, --help, the manual and the completion list the same options" {
	run -0 vs --help
	diff <(grep -oE -- '--[a-z][a-z-]+' <<<"$output" | sort -u) \
		<(sed -n '/^OPTIONS/,/^EXIT/p' "$TOP/README" | grep -oE -- '--[a-z][a-z-]+' | sort -u)
	diff <(grep -oE -- '^ +(busy|gd|rgd|[a-z]+)  ' <<<"$output" | tr -d ' ' | sort -u) \
		<(sed -n '/^OPTIONS/,/^EXIT/p' "$TOP/README" | grep -oE -- '^ +[a-z]+  ' | tr -d ' ' | sort -u)
	diff <(grep -oE -- '(^| )-[a-zA-Z],|--[a-z][a-z-]+' <<<"$output" | tr -d ' ,' | sort -u) \
		<(sed -n '/^The options:/,/^\.Ss/s/^\.It Fl //p' "$TOP/vmdksync.1" | sed 's/ Ns.*//; s/ , /\n/' |
			sed 's/^/-/' | sort -u)
	# shellcheck disable=SC2016 # for the bash inside
	diff <(grep -oE -- '(^| )-[a-zA-Z],|--[a-z][a-z-]+' <<<"$output" | tr -d ' ,' | sort -u) \
		<(PATH=${VMDKSYNC%/*}:$PATH bash --norc -c '
			. "$0"
			COMP_WORDS=(vmdksync -) COMP_CWORD=1
			_vmdksync vmdksync
			printf "%s\n" "${COMPREPLY[@]}" | sort -u' "$TOP/examples/completion.bash")
	diff <(grep -oE -- '^ +[a-z]+  ' <<<"$output" | tr -d ' ' | sort -u) \
		<(sed -n '/^The words are:/,/^\.El/s/^\.It Cm //p' "$TOP/vmdksync.1" | sort -u)
}
