# SPDX-License-Identifier: MIT
# Rules of the tree itself: who may include whom, who may print, what the compilers and shellcheck say.

# bats file_tags=quick

load helpers

setup() {
	cd "$TOP" || return
	# Set on the command line of the make that runs us, they would reach the make we run.
	unset CFLAGS CPPFLAGS LDFLAGS BUILD CC CI TESTS PREFIX DESTDIR
}

# What each folder may include: other folders, then single headers and <libraries>. Its own headers are
# always its own business; a row may hold folders of rows before it only.
folders() {
	cat <<-'END'
	base
	input   base <zlib>
	run     base input
	vmdk    base input run <zlib>
	chain   base input run vmdk
	output  base input run <liburing>
	jobs    base input run chain output vmdk/undo vmdk/undonote <zlib>
	cli     base run chain jobs input/source
	main    base input/source chain output jobs cli
	END
}

@test "a folder includes only what it may know, and none goes in a circle" {
	bad=0
	known=' '
	while read -r folder may; do
		for word in $may; do
			case $word in
			'<'*) continue ;;
			esac
			[[ $known == *" ${word%%/*} "* ]] || { echo "$folder: $word stands further down"; bad=1; }
		done
		known+="$folder "
		files=$(find "lib/$folder" -name '*.[ch]' 2>/dev/null || :)
		[ "$folder" != main ] || files=vmdksync.c
		for f in $files; do
			# shellcheck disable=SC2013 # one word a line
			for i in $(sed -n -e 's/^[ \t]*#[ \t]*include[ \t]*"\(.*\)\.h".*/\1/p' \
				-e 's/^[ \t]*#[ \t]*include[ \t]*<\(liburing\|zlib\)[^>]*>.*/<\1>/p' "$f"); do
				case " $folder $may " in
				*" ${i%%/*} "* | *" $i "*) ;;
				*) echo "$f: may not include $i"; bad=1 ;;
				esac
			done
		done
	done < <(folders)
	for d in lib/*/; do
		d=${d#lib/}
		[[ $known == *" ${d%/} "* ]] || { echo "lib/$d: is no folder of the table"; bad=1; }
	done
	[ -z "$(find lib -maxdepth 1 -name '*.[ch]')" ]
	[ "$bad" = 0 ]
}

# Pairs "FILE FILE it includes", without endings: a .c and its header are one, and so are a header that is
# private to some files and each of these.
included() {
	local f m
	for f in "$@"; do
		m=${f#*lib/}
		m=${m%.[ch]}
		sed 6q "$f" | grep -qi 'private to .*\.c' ||
			sed -n 's/^#include "\(.*\)\.h"/\1/p' "$f" | grep -vx "$m" | sed "s|^|$m |"
	done
}

@test "no circle of files in lib/" {
	mkdir -p "$BATS_TEST_TMPDIR/lib/x"
	cd "$BATS_TEST_TMPDIR"
	echo '#include "x/b.h"' >lib/x/a.h
	echo '#include "x/c.h"' >lib/x/b.c
	echo '#include "x/a.h"' >lib/x/c.h
	run -1 tsort <(included lib/x/*.[ch])
	{ echo "/* Private to b.c. */"; echo "#include \"x/a.h\""; } >lib/x/c.h
	run -0 tsort <(included lib/x/*.[ch])
	cd "$TOP"
	run -0 --separate-stderr tsort <(included lib/*/*.[ch])
}

# The words a C file is left with when its comments and strings are gone.
code() {
	gcc -fpreprocessed -dD -E -P "$1" 2>/dev/null | sed 's/"\([^"\\]\|\\.\)*"/""/g'
}

@test "only vmdksync.c prints or exits" {
	requires gcc
	calls='v?f?printf|v?dprintf|puts|fputs|putc|fputc|putchar|fwrite|perror|psignal'
	calls+='|exit|_exit|_Exit|quick_exit|abort|errx?|warnx?|syslog|stdout|stderr'
	bad=0
	for f in lib/*/*.[ch]; do
		if code "$f" | grep -nE "(^|[^A-Za-z0-9_>.])(($calls) *\\(|std(out|err)\\b)"; then
			echo "$f: prints or exits"
			bad=1
		fi
	done
	[ "$bad" = 0 ]
}

@test "the jobs know no stdio" {
	run -1 grep -n '<stdio' lib/jobs/*.h lib/jobs/apply.c
}

# In kernel style only a function has its braces at the beginning of lines.
long_functions() {
	awk '
		/^\{/ { begun = FNR }
		/^\}/ && begun {
			if (FNR - begun - 1 > 100)
				print FILENAME ":" begun ": a function of " FNR - begun - 1 " lines"
			begun = 0
		}' "$@"
}

@test "no function is over 100 lines, and no file over 800" {
	{
		echo '{'
		seq 100
		printf '}\n{\n'
		seq 101
		echo '}'
	} >"$BATS_TEST_TMPDIR/long.c"
	run -0 long_functions "$BATS_TEST_TMPDIR/long.c"
	[ "$output" = "$BATS_TEST_TMPDIR/long.c:103: a function of 101 lines" ]
	{
		long_functions lib/*/*.c vmdksync.c tests/unit/*.c tests/mkvmdk/*.c
		wc -l lib/*/*.[ch] tests/unit/*.[ch] tests/mkvmdk/*.[ch] | awk '$1 > 800 && $2 != "total" { print $2 ": " $1 " lines" }'
	} | tee "$BATS_TEST_TMPDIR/long"
	[ ! -s "$BATS_TEST_TMPDIR/long" ]
}

@test "shellcheck has nothing to say" {
	requires make shellcheck
	make lint-shell
}

# bats test_tags=slow
@test "gcc builds everything without a warning" {
	requires make gcc
	make BUILD="$BATS_TEST_TMPDIR/b" CC=gcc WERROR=1 everything
}

# bats test_tags=slow
@test "clang builds everything without a warning" {
	requires make clang
	make BUILD="$BATS_TEST_TMPDIR/b" CC=clang WERROR=1 everything
}

@test "every source file names its licence" {
	find . \( -name .git -o -path ./build \) -prune -o -type f \( -name '*.[ch]' -o -name '*.sh' \
		-o -name '*.bash' -o -name '*.bats' -o -name '*.py' -o -name Makefile -o -perm -u+x \) \
		-print | while read -r f; do
		sed 2q "$f" | grep -qaE '^(#|/\*) SPDX-License-Identifier: MIT( \*/)?$' ||
			echo "$f: its first line, after #!, should be: SPDX-License-Identifier: MIT"
	done | tee "$BATS_TEST_TMPDIR/lost"
	[ ! -s "$BATS_TEST_TMPDIR/lost" ]
}

@test "the top level holds what belongs there, and no more" {
	requires git
	files=$(git -C "$TOP" ls-files) || skip 'no checkout'
	[ "$(cut -d/ -f1 <<<"$files" | grep -v '^\.' | sort -u | tr '\n' ' ')" = \
		'CHANGELOG LICENSE Makefile README examples lib tests vmdksync-migrate.1 vmdksync.1 vmdksync.c ' ]
}
