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

@test "README and manual: every vmdksync command line of the examples works" {
	capacity=2048
	esx_chain $capacity 2
	cp host-0.raw vm-hda.raw
	n=0
	while read -r line; do
		case $line in
		*--create*) rm -f changes.raw whole.raw ;;
		*--undo=*) rm -f undo.vmdk ;;
		esac
		read -ra words <<<"${line//\/dev\/vg0\/vm-hda/vm-hda.raw}"
		# what may come from a pipe here is a delta
		run -0 "$VMDKSYNC" "${words[@]:1}" < <(cat host-000001-delta.vmdk)
		n=$((n + 1))
	done < <(sed -n -e 's/^ *[0-9]*\.* *\(vmdksync [^[]*\.vmdk .*\)$/\1/p' "$TOP/README" "$TOP/vmdksync.1" |
		sed 's/ *,$//')
	[ "$n" -ge 4 ]
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
