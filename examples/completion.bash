# SPDX-License-Identifier: MIT
# Completion of vmdksync for bash; `make install` puts it where bash-completion looks. The options
# are those the program itself lists.

_vmdksync()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} option='' help

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
		# the words stand in lines of their own below the option
		mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/--force=/,/^ *-/s/^ \{16,\}\([a-z]*\)  .*/\1/p' \
			<<<"$help")" -- "$cur")
		;;
	--search | --spool)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	'' | --base | --undo)
		if [[ -z $option && $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' <<<"$help" |
				grep -oE -e '-[a-zA-Z]\b|--[a-z-]+')" -- "$cur")
			return
		fi
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	--progress)
		mapfile -t COMPREPLY < <(compgen -W 'json' -- "$cur")
		;;
	esac
}

complete -F _vmdksync vmdksync
