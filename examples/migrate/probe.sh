#!/bin/sh
# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# Records what an ESXi host answers to the questions of the migration. Reads only.
set -u

usage() {
	cat <<'END'
Usage: probe.sh HOST VM >FILE
Asks the ESXi host HOST all that vmdksync-migrate relies on, about VM, and
prints the answers: how vim-cmd writes them, what the descriptors hold, which
files of a running VM can be read, and how long each takes. Nothing is changed.

Names of VMs, datastores, hosts and snapshots, paths, addresses and UUIDs are
replaced. Look at FILE before you send it: it is text.
END
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
if [ $# != 2 ]; then
	usage >&2
	exit 2
fi
host=$1 vm=$2
case $host in
-*)
	usage >&2
	exit 2
	;;
esac
SSH=${SSH:-ssh}
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT

q() {
	printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

# plain TEXT: as it stands in a sed pattern
plain() {
	printf '%s' "$1" | sed 's/[][\\.*^$|/]/\\&/g'
}

remote() {
	# shellcheck disable=SC2086 # words
	timeout 60 $SSH -o BatchMode=yes -o ConnectTimeout=20 "$host" "$1" </dev/null
}

# scrub: without names; the list of them is in $tmp/names, as commands of sed, longest first
scrub() {
	sed -f "$tmp/names" | sed -E \
		-e 's/[0-9]{1,3}(\.[0-9]{1,3}){3}/192.0.2.9/g' \
		-e 's/([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}/00:50:56:00:00:00/g' \
		-e 's/([0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2}-([0-9a-fA-F]{2} ){7}[0-9a-fA-F]{2}/00 00 00 00 00 00 00 00-00 00 00 00 00 00 00 00/g' \
		-e 's/(hostName|guestFullName|annotation|displayName|text|description) *= *".*"/\1 = "x"/' \
		-e 's/(Snapshot (Name|Desciption|Description)  *: ).*/\1x/'
}

# ask COMMAND [FILTER...]: the command, its answer, its exit status and the time it took
ask() {
	local command=$1 code=0 start=0

	shift
	[ $# -gt 0 ] || set -- cat
	start=$(date +%s%3N)
	remote "$command" >"$tmp/answer" 2>"$tmp/error" || code=$?
	{
		printf '### %s\n' "$command"
		"$@" <"$tmp/answer"
		sed 's/^/#! /' "$tmp/error"
		printf '### = %s, %s ms\n' $code $(($(date +%s%3N) - start))
	} | scrub
}

own_line() { # of getallvms: other VMs are nobody's business
	awk -v id="$vmid" 'NR == 1 || $1 == id' | sed "s/\(\.vmx\).*/\1   x   vmx-x   x/"
}

disk_keys() {
	grep -iE '^[[:blank:]]*((scsi|sata|nvme|ide)[0-9]+(:[0-9]+)?\.|uuid\.bios|firmware|\.encoding)'
}

guest_keys() {
	grep -E 'tools[A-Za-z]*Status'
}

: >"$tmp/names"
remote 'vim-cmd vmsvc/getallvms' >"$tmp/vms" || { echo "probe.sh: $host: cannot log in" >&2; exit 1; }
line=$(vm=$vm awk '{ rest = $0; sub(/^[0-9]+[ \t]+/, "", rest) }
	index(rest, ENVIRON["vm"] " ") == 1 && match(substr(rest, length(ENVIRON["vm"]) + 1), /^[ \t][ \t]+\[/)' "$tmp/vms")
[ "$(printf '%s\n' "$line" | grep -c .)" = 1 ] || { echo "probe.sh: not one VM is called '$vm'" >&2; exit 2; }
vmid=${line%% *}
ds=$(printf '%s' "$line" | sed 's/^[^[]*\[\([^]]*\)\].*/\1/')
file=$(vm=$vm ds=$ds awk '{ s = "[" ENVIRON["ds"] "] "; i = index($0, s); rest = substr($0, i + length(s))
	match(rest, /\.vmx/); print substr(rest, 1, RSTART + 3) }' <<END
$line
END
)
vmx=$(remote "cd $(q "/vmfs/volumes/$ds") && pwd -P")/$file
remote "cat $(q "$vmx")" | tr -d '\r' | sed -n 's/^[^=]*[Ff][Ii][Ll][Ee][Nn][Aa][Mm][Ee] *= *"\(.*\.vmdk\)".*/\1/p' >"$tmp/disks"
# datastores, by name and by folder, the VM and its folder, the longest name first
# shellcheck disable=SC2016 # for the other shell
remote 'for d in /vmfs/volumes/*; do (cd "$d" && echo "${d##*/}	$(pwd -P)"); done' >"$tmp/volumes"
{
	awk -F '\t' '{ if (!($2 in n)) n[$2] = ++last; print $1 "\tDS" n[$2] }' "$tmp/volumes"
	printf '%s\t%s\n' "$vm" VM "${file%/*}" VM "$host" HOST
} | sort -u | awk -F '\t' 'length($1) > 1 { print length($1) "\t" $0 }' | sort -rn -k 1,1 | cut -f 2- >"$tmp/words"
tab=$(printf '\t')
while IFS="$tab" read -r word with; do
	printf 's/%s/%s/g\n' "$(plain "$word")" "$with" >>"$tmp/names"
done <"$tmp/words"
n=0
# folders and names of disks elsewhere, which may be any word: only where a path or a name begins
while IFS= read -r link; do
	n=$((n + 1))
	word=${link##*/}
	word=${word%.vmdk}
	case $word in
	*-[0-9][0-9][0-9][0-9][0-9][0-9]) word=${word%-*} ;;
	esac
	# the disk of a VM is called as the VM, as a rule
	[ "$word" = "$vm" ] || printf 's/\\(["/]\\)%s/\\1DISK%s/g\n' "$(plain "$word")" $n >>"$tmp/names"
	case $link in
	/vmfs/volumes/*/*/*)
		word=${link%/*}
		word=${word#/vmfs/volumes/*/}
		[ "$word" = "${file%/*}" ] || {
			printf 's/\\/%s\\//\\/DIR%s\\//g\n' "$(plain "$word")" $n
			# as a shell has it
			printf 's/\\/%s\\//\\/DIR%s\\//g\n' "$(plain "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")")" $n
		} >>"$tmp/names"
		;;
	esac
done <"$tmp/disks"

echo '# vmdksync probe 1'
ask 'vmware -v'
ask 'uname -r'
# shellcheck disable=SC2016 # for the other shell
ask 'for t in cat dd du gzip ls nc rm sh sleep vim-cmd vmkfstools sha256sum; do command -v $t || echo "no $t"; done'
ask 'vim-cmd vmsvc/getallvms' own_line
ask "vim-cmd vmsvc/power.getstate $vmid"
ask "vim-cmd vmsvc/snapshot.get $vmid"
ask "vim-cmd vmsvc/get.guest $vmid" guest_keys
ask 'vim-cmd hostsvc/autostartmanager/get_autostartseq'
ask 'vim-cmd hostsvc/datastore/listsummary'
ask "cat $(q "$vmx")" disk_keys
while IFS= read -r link; do
	case $link in
	/*) ;;
	*) link=${vmx%/*}/$link ;;
	esac
	depth=0
	while [ -n "$link" ] && [ $depth -lt 40 ]; do
		depth=$((depth + 1))
		ask "cat $(q "$link")"
		remote "cat $(q "$link")" 2>/dev/null | tr -d '\r' >"$tmp/text"
		extent=$(sed -n 's/^RW [0-9]* [A-Z]* "\(.*\)".*/\1/p' "$tmp/text" | sed -n 1p)
		parent=$(sed -n 's/^parentFileNameHint *= *"\(.*\)".*/\1/p' "$tmp/text")
		case $extent in
		/* | '') ;;
		*) extent=${link%/*}/$extent ;;
		esac
		if [ -n "$extent" ]; then
			ask "ls -ln $(q "$extent")"
			ask "du -k $(q "$extent")"
			# opens, and reads: two questions
			ask "dd if=$(q "$extent") of=/dev/null bs=512 count=1"
			ask "dd if=$(q "$extent") bs=1048576 count=1 2>/dev/null" wc -c
		fi
		case $parent in
		/* | '') link=$parent ;;
		*) link=${link%/*}/$parent ;;
		esac
	done
done <"$tmp/disks"
