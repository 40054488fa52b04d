# SPDX-License-Identifier: MIT
# Completion of vmdksync for bash; `make install` puts it where bash-completion looks. The options
# are those the program itself lists.

# _vmdksync_names WORD NAMES: files for the name that follows NAMES names: for the first, VMDKs; for a later
# one block devices as well, as TARGET comes last.
_vmdksync_names()
{
	local dev

	compgen -G "$1*.vmdk"
	if [ "$2" -gt 0 ]; then
		for dev in $(lsblk -pnro NAME 2>/dev/null) /dev/*/*; do
			[[ $dev == "$1"* && -b $dev ]] && printf '%s\n' "$dev"
		done
	fi
	if [ "$2" -eq 0 ] && compgen -G "$1*.vmdk" >/dev/null; then
		compgen -d -- "$1"
	else
		compgen -f -- "$1"
	fi
}

_vmdksync()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} option='' help names=0 i

	COMPREPLY=()
	help=$("$1" --help 2>/dev/null)
	# --option=value comes as three words
	if [[ $cur == '=' ]]; then
		option=$prev cur=''
	elif [[ $prev == '=' ]]; then
		option=${COMP_WORDS[COMP_CWORD - 2]}
	elif [[ $prev == --?* && $help == *"$prev="* ]]; then
		option=$prev
	fi
	# --option[=value] takes its value only behind a '='
	[[ $option != "$prev" || $help != *"${prev}[="* ]] || option=''

	case $option in
	--force)
		# the words stand below the option
		mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/--force=/,/^ *-/{/^ \{20,\}[a-z]/p}' <<<"$help")" -- "$cur")
		;;
	--search | --spool)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	--base | --undo | --resume)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	--raw)
		mapfile -t COMPREPLY < <(compgen -W 'gzip' -- "$cur")
		;;
	--progress)
		mapfile -t COMPREPLY < <(compgen -W 'json' -- "$cur")
		;;
	--map)
		mapfile -t COMPREPLY < <(compgen -W 'list' -- "$cur")
		;;
	'')
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^\( *-.*[^ ]\)  .*/\1/p' <<<"$help" |
				grep -oE -e '-[a-zA-Z]\b|--[a-z-]+')" -- "$cur")
			return
		fi
		for ((i = 1; i < COMP_CWORD; i++)); do
			[[ ${COMP_WORDS[i]} == -* || ${COMP_WORDS[i]} == '=' || ${COMP_WORDS[i - 1]} == '=' ]] ||
				names=$((names + 1))
		done
		compopt -o filenames -o nosort 2>/dev/null
		mapfile -t COMPREPLY < <(_vmdksync_names "$cur" "$names" | awk '!seen[$0]++')
		;;
	esac
}

complete -F _vmdksync vmdksync
