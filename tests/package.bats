# SPDX-License-Identifier: MIT
# What is installed and packed: install, uninstall, dist, static, deb; the manual; the completion.

load helpers

setup() {
	cd "$TOP" || return
	# Set on the command line of the make that runs us, they would reach the make we run.
	unset CFLAGS CPPFLAGS LDFLAGS BUILD CC CI TESTS PREFIX DESTDIR LIBS
	root="$BATS_TEST_TMPDIR/root dir"
}

# copy NAME: a copy of the source as it is now, built nowhere yet, committed once.
copy() {
	mkdir "$BATS_TEST_TMPDIR/$1"
	cp -R .ci .gitignore LICENSE Makefile README CHANGELOG vmdksync*.1 vmdksync.c lib tests \
		examples "$BATS_TEST_TMPDIR/$1"
	cd "$BATS_TEST_TMPDIR/$1" || return
	git init -q
	git add -A
	git -c user.name=tester -c user.email=tester@localhost commit -qm 'all'
}

@test "make dist: the same bytes every time; they build, install and uninstall" {
	requires make gcc git
	copy a
	make dist
	cd "$BATS_TEST_TMPDIR"
	sleep 1.1
	(
		umask 077
		git -c safe.directory='*' clone -q a b
		cd b
		git config tar.umask user
		make dist
	)
	same a/build/vmdksync-*.tar.gz b/build/vmdksync-*.tar.gz
	run -0 tar tvf a/build/vmdksync-*.tar.gz
	[ "$(awk '{ print $2 }' <<<"$output" | sort -u)" = root/root ]
	[ "$(awk '{ print $4, $5 }' <<<"$output" | sort -u | wc -l)" = 1 ]

	tar xf a/build/vmdksync-*.tar.gz
	cd vmdksync-*/
	mkdir bin
	printf '#!/bin/sh\nexec "$@"\n' >bin/sudo
	chmod +x bin/sudo
	PATH=$PWD/bin:$PATH
	export DESTDIR=$root PREFIX=/opt/x
	sh tests/setup.sh build && make && sudo make install
	[ "$("$root/opt/x/bin/vmdksync" --version)" = "$(vs --version)" ]
	same vmdksync.1 "$root/opt/x/share/man/man1/vmdksync.1"
	same vmdksync-migrate.1 "$root/opt/x/share/man/man1/vmdksync-migrate.1"
	same examples/completion.bash "$root/opt/x/share/bash-completion/completions/vmdksync"
	same examples/completion.zsh "$root/opt/x/share/zsh/site-functions/_vmdksync"
	same examples/completion.fish "$root/opt/x/share/fish/vendor_completions.d/vmdksync.fish"
	# it finds what it is made of
	run -0 "$root/opt/x/bin/vmdksync-migrate" --help
	SSH=false run -1 "$root/opt/x/bin/vmdksync-migrate" --list host
	[[ $output == *'cannot log in'* ]]
	[ "$(stat -c %a "$root/opt/x/share/man/man1/vmdksync.1")" = 644 ]
	sudo make uninstall
	run -0 find "$root" ! -type d
	[ -z "$output" ]
	# the same step by step
	sh tests/setup.sh build
	make && sudo make install
	make install
	[ -x "$root/opt/x/bin/vmdksync" ]
}

@test "make static: a program that needs no library" {
	requires make gcc ldd git
	for l in uring z; do
		[[ $(gcc -print-file-name=lib$l.a) == /* ]] || skip "needs lib$l.a"
	done
	copy c
	make static
	run ldd build/static/vmdksync
	[[ $output == *'statically linked'* || $output == *'not a dynamic'* ]]
	"$MKVMDK" pattern base.raw 2048
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=every:3 seed=3
	cp base.raw want.raw
	vs -q d.vmdk want.raw
	build/static/vmdksync -q d.vmdk base.raw
	same want.raw base.raw
}

@test "make m32: builds for 32 bits without a warning, and passes the unit tests" {
	requires plain make gcc
	# M32: see the Makefile; in the environment it is make's, too
	printf '%s\n' '#include <liburing.h>' '#include <zlib.h>' 'int main(void) { return zlibCompileFlags() == 0; }' |
		gcc -m32 -x c - ${M32:+-I"$M32/usr/include" -L"$M32/usr/lib/i386-linux-gnu"} -o "$BATS_TEST_TMPDIR/probe" \
			-l:liburing.a -l:libz.a 2>/dev/null || skip 'no gcc-multilib, or no liburing and zlib for i386'
	"$BATS_TEST_TMPDIR/probe" || skip 'programs of 32 bits do not run here'
	run -0 make m32
	[[ $output == *' 0 failed'* ]]
	file=$(head -c 5 "$TOP/build/m32/vmdksync" | od -An -tx1)
	[ "$file" = ' 7f 45 4c 46 01' ]
}

@test "make deb: a package that lintian accepts, the same every time" {
	requires make gcc git dpkg-deb dpkg-shlibdeps lintian
	copy d
	make deb
	cp build/deb/*.deb first.deb
	run -0 lintian --fail-on error,warning --tag-display-limit 0 first.deb
	[[ $output != *:\ vmdksync:* ]]
	make deb
	same first.deb build/deb/*.deb
	dpkg-deb -x first.deb x
	[ "$(x/usr/bin/vmdksync --version)" = "$(vs --version)" ]
	[ -f x/usr/share/man/man1/vmdksync.1.gz ]
	diff LICENSE <(sed '1,/^$/d' x/usr/share/doc/vmdksync/copyright)
	[ -f x/usr/share/bash-completion/completions/vmdksync ]
	diff -r examples/ansible x/usr/share/doc/vmdksync/examples/ansible
	dpkg-deb -f first.deb Depends | grep -q liburing
	# what the sources lie in is left alone
	run -0 git status --porcelain
	[ "$(wc -l <<<"$output")" = 2 ]
}

@test "the manuals have no fault that mandoc knows" {
	requires mandoc
	run -0 mandoc -Tlint -Wwarning vmdksync.1 vmdksync-migrate.1
	[ -z "$output" ]
	run -0 mandoc -Tutf8 -Owidth=78 vmdksync.1
	[[ $output == *'write VMware snapshot deltas'* ]]
}

# complete WORD...: what bash offers for the last word.
complete_words() {
	# shellcheck disable=SC2016 # for the bash inside
	PATH=${VMDKSYNC%/*}:$PATH bash --norc -c '
		. "$0"/examples/completion.bash
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_vmdksync vmdksync
		printf "%s\n" "${COMPREPLY[@]}"' "$TOP" "$@"
}

@test "bash completion: options, words, folders, files" {
	cd "$BATS_TEST_TMPDIR"
	mkdir folder
	touch file.vmdk other.raw
	run -0 complete_words vmdksync --dry
	[ "$output" = --dry-run ]
	run -0 complete_words vmdksync --force = rg
	[ "$output" = rgd ]
	run -0 complete_words vmdksync --force =
	[[ $'\n'$output$'\n' == *$'\nbusy\n'* ]]
	run -0 complete_words vmdksync --search = f
	[ "$output" = folder ]
	run -0 complete_words vmdksync --search f
	[ "$output" = folder ]
	run -0 complete_words vmdksync -q file
	[ "$output" = file.vmdk ]
	run -0 complete_words vmdksync file.vmdk o
	[ "$output" = other.raw ]
	run -0 complete_words vmdksync --map = ''
	[ "$output" = list ]
	# VMDKs and folders first, then devices as well
	run -0 complete_words vmdksync ''
	[ "$output" = $'file.vmdk\nfolder' ]
	run -0 complete_words vmdksync file.vmdk ''
	[ "${lines[0]}" = file.vmdk ]
	[[ $'\n'$output == *$'\nother.raw'* ]]
	while read -r dev; do
		[[ $'\n'$output$'\n' == *$'\n'"$dev"$'\n'* ]]
	done < <(lsblk -pnro NAME)
}

@test "fish completion: options, words, folders, files" {
	requires fish lsblk
	cd "$BATS_TEST_TMPDIR"
	mkdir folder
	touch file.vmdk other.raw
	# offered WORDS ITEM...: fish offers these for the last word, and these only
	# shellcheck disable=SC2016 # for the fish inside
	offered() {
		PATH=${VMDKSYNC%/*}:$PATH HOME=$PWD run -0 fish --no-config -c \
			'source $argv[1]; complete -C $argv[2]' "$TOP/examples/completion.fish" "$1"
		diff <(cut -f 1 <<<"$output" | sort) <(printf '%s\n' "${@:2}" | sort)
	}
	offered 'vmdksync --dry' --dry-run
	offered 'vmdksync --force=rg' --force=rgd
	offered 'vmdksync --map=' --map=list
	offered 'vmdksync --search=f' --search=folder/
	offered 'vmdksync ' file.vmdk folder/
	offered 'vmdksync file.vmdk o' other.raw
	# shellcheck disable=SC2046 # words
	offered 'vmdksync file.vmdk ' file.vmdk $(lsblk -pnro NAME) other.raw folder/
}

@test "zsh completion: options, words, folders, files" {
	requires zsh
	cd "$BATS_TEST_TMPDIR"
	mkdir folder functions
	touch file.vmdk other.raw
	cp "$TOP/examples/completion.zsh" functions/_vmdksync
	# the line as it is when Tab was pressed behind it
	cat >complete.zsh <<-'END'
	zmodload zsh/zpty
	zpty z zsh -f -i
	zpty -w z 'bindkey -e; fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D'
	zpty -w z 'show() { print "\nLINE=$BUFFER="; }; zle -N show; bindkey "^T" show; print READY'
	zpty -r z out $'*\nREADY*'
	zpty -n -w z "$1"$'\t\x14'
	zpty -r z out $'*\nLINE=*=*'
	out=${out##*LINE=}
	print -r -- "${out%%=$'\r'*}"
	zpty -d z
	END
	while read -r line want; do
		PATH=${VMDKSYNC%/*}:$PATH HOME=$PWD timeout 20 zsh -f complete.zsh "vmdksync ${line//+/ }" "$want"
	done <<-'END'
	--dry --dry-run
	--force=rg --force=rgd
	--map=l --map=list
	--search=fo --search=folder/
	fi file.vmdk
	file.vmdk+o file.vmdk\ other.raw
	END
}
