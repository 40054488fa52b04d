# What README and examples/ show is what happens.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

@test "README: the first command shows the main job and proves it" {
	requires plain make gcc qemu-img
	run -0 sh "$TOP/examples/demo.sh"
	[[ ${lines[-1]} == 'cmp: both disks are the same, byte for byte.' ]]
	grep -q '^  sh examples/demo.sh ' "$TOP/README"
}

@test "README: the second command is what .ci/run ends with" {
	command=$(sed -n 's/^  \(sh tests.*make check\) .*/\1/p' "$TOP/README")
	[ -n "$command" ]
	run -0 tail -n 1 "$TOP/.ci/run"
	[ "$output" = "$command" ]
}

# commands FILE: the command lines that it shows, each on one line
commands() {
	sed -e ':a' -e '/|$/{N;s/|\n */| /;ba' -e '}' "$1" | sed '/^\.Bd/,/^\.Ed/s/^/    /' |
		sed -nE "s/^ {2,}(.*  )?((vmdksync|ssh|nc|gzip|scp|lvcreate|sh) .*(host|vm-hda|whole\.raw|'web server').*)\$/\2/p" |
		sed -E 's/ {3}.*//'
}

# stand_in NAME: a program of that name, from standard input
stand_in() {
	mkdir -p bin
	{ echo '#!/bin/sh' && cat; } >"bin/$1"
	chmod +x "bin/$1"
}

@test "README and manual: every command line works" {
	esx_chain 2048 2
	ln -s "$VMDKSYNC" vmdksync
	# the old host is this folder, the other end of a netcat is there already
	stand_in ssh <<-'END'
	eval "$2"
	END
	stand_in scp <<-'END'
	cp "${1#*:}" copied && test "$2" = .
	END
	stand_in nc <<-'END'
	case $1 in -l) cat host-000001-delta.vmdk ;; -N) cat >sent ;; *) exit 1 ;; esac
	END
	stand_in lvcreate <<-'END'
	test "$*" = '-n vm-hda -L 42949672960b vg0'
	END
	cp host-0.raw vm-hda.raw
	for f in README vmdksync.1; do
		n=0
		while read -r line; do
			case $line in
			*examples/migrate.sh*) continue ;; # below
			*--create*) rm -f changes.raw whole.raw ;;
			*--undo=*) rm -f undo.vmdk ;;
			esac
			line=${line//\/dev\/vg0\/vm-hda/vm-hda.raw}
			PATH=$PWD:$PWD/bin:$PATH run -0 bash -o pipefail -c "${line//\/vmfs\/volumes\/ds\/host\//}"
			n=$((n + 1))
		done < <(commands "$TOP/$f")
		echo "$f: $n commands"
		[ "$n" -ge 13 ]
	done
	cmp sent <(gzip -1 <host-000001-delta.vmdk) || cmp sent host-000001-delta.vmdk
	cmp copied host-000001-delta.vmdk
}

@test "README: the command lines of migrate.sh are understood; each make has its target" {
	n=0
	while read -r line; do
		# as far as it comes without a host
		line=${line/.../scsi0:0=/dev/vg0/hda scsi0:1=/dev/vg0/hdb}
		SSH=false run -2 bash -c "${line/examples/$TOP/examples}"
		[[ $output == *'cannot log in, or no ESXi'* ]]
		n=$((n + 1))
	done < <(commands "$TOP/README" | grep migrate.sh)
	[ "$n" -ge 3 ]
	n=0
	while read -r t; do
		grep -qE "^([a-z-]+ )*$t( [a-z-]+)*:" "$TOP/Makefile"
		n=$((n + 1))
	done < <(grep -oE '(^  |&& |sudo )make [a-z][a-z-]+' "$TOP/README" | sed 's/.*make //' | sort -u)
	[ "$n" -ge 7 ]
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
