# SPDX-License-Identifier: MIT
# The command lines that README, manual, CHANGELOG and examples/ show, for tests that run them. Loaded
# after helpers.

# shown_in FILE: what looks like a command line there: it stands alone and indented, or behind two
# blanks, a prompt, "# Usage: " or a backquote, and begins with a program, which an assignment may precede.
# shellcheck disable=SC2016 # backquotes are meant
shown_in() {
	local word line

	case $1 in
	*.1) sed -e '/^\.Bd/,/^\.Ed/s/^/  /' -e 's/^\.Li \(.*[^ ).]\)[ ).]*$/`\1`/' -e 's/\\&//g' "$1" ;;
	*.sh | *.bash) sed -n -e '/^cat <<.END./,/^END/p' -e '/<<.END.$/,/^END/p' -e 's/^# \(Usage: \)/  /p' "$1" ;;
	*) cat "$1" ;;
	esac | sed -e ':a' -e '/|$/{N;s/|\n */| /;ba' -e '}' | sed -e 's/`/\n  /;s/`/\n/' -e 's/  \+/\n  /g' |
		while IFS= read -r line; do
			[[ $line == '  '* ]] || continue
			line=${line#  }
			[[ $line =~ ^([A-Z_]+=[^ ]*\ +)*([^ ]+) ]] || continue
			word=${BASH_REMATCH[2]}
			case $word in
			vmdksync | vmdksync-migrate | *.sh | sudo | sesparse | lvcreate | man | nc | scp) ;;
			sh | make | ssh | gzip | dd | cp | cat | install | bash | qemu-img) ;;
			*) continue ;;
			esac
			printf '%s\n' "$line"
		done
}

# shown: all of them, each once
shown() {
	local f

	for f in "$TOP"/README "$TOP"/vmdksync.1 "$TOP"/vmdksync-migrate.1 "$TOP"/CHANGELOG "$TOP"/examples/*; do
		[ ! -f "$f" ] || shown_in "$f"
	done | awk '!seen[$0]++'
}
