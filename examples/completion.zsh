#compdef vmdksync
# SPDX-License-Identifier: MIT
# Completion of vmdksync for zsh; `make install` puts it where zsh looks. The options are those the program
# itself lists.

# VMDKs first; behind the first name, block devices as well, as TARGET comes last.
_vmdksync_names() {
	local -a devices

	((names)) || { _files -g '*.vmdk' || _files; return; }
	devices=(${(f)"$(lsblk -pnro NAME 2>/dev/null)"})
	compadd -a devices
	_files
}

_vmdksync() {
	setopt localoptions extendedglob
	local -a help rows
	local line head text option names=0 word

	for word in "${(@)words[2,CURRENT-1]}"; do
		[[ -z $word || $word == -* ]] || names=$((names + 1))
	done
	help=("${(@f)$("$words[1]" --help 2>/dev/null)}")
	for line in "${help[@]}"; do
		[[ $line == (#b)' '#(-*[^ ])'  '#([^ ]*) ]] || continue
		head=${line##  #} text=${head##*  } head=${head%%  *}
		text=${${text//\[/(}//\]/)} text=${text//:/,}
		for option in ${(s:, :)head}; do
			case $option in
			--raw*) rows+=("--raw=-[$text]::value:(gzip)") ;;
			--map*) rows+=("--map=-[$text]::value:(list)") ;;
			*'[='*) rows+=("${option%%\[*}=-[$text]::value:(json)") ;;
			--search=* | --spool=*) rows+=("${option%%=*}=[$text]:folder:_files -/") ;;
			--force=*) rows+=("*--force=[$text]:check:(${help[(i)*--force=*]:+${help[$((${help[(i)*--force=*]} + 1))]}})") ;;
			*=*) rows+=("${option%%=*}=[$text]:value:_files") ;;
			*) rows+=("${option}[$text]") ;;
			esac
		done
	done
	_arguments -s -S "${rows[@]}" '*:name:_vmdksync_names'
}

_vmdksync "$@"
