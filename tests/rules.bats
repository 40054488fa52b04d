# Rules of the tree itself: who may include whom, who may print, what the compilers and shellcheck say.

# bats file_tags=quick

load helpers

setup() {
	cd "$TOP" || return
	# Set on the command line of the make that runs us, they would reach the make we run.
	unset CFLAGS CPPFLAGS LDFLAGS BUILD CC CI TESTS PREFIX DESTDIR
}

# What each file may include: our headers without .h, then <libraries>. base.h is everyone's. A .h
# and a .c of one name share a line.
rooms() {
	cat <<-'END'
	base
	inflow      inflow <zlib>
	source      source inflow
	lend        source
	run         source run
	descriptor  source run format descriptor
	format      source run
	gtree       source run format gtree
	gstream     source run format gtree
	cowd        source run format gtree
	hosted      source run format gtree grain stream undonote zerolog
	sesparse    source run format gtree
	grain       source run grain <zlib>
	stream      source run format grain stream
	flat        source run format gtree
	undonote    undonote <zlib>
	zerolog     source run zerolog
	undo        source run format undo undonote <zlib>
	lookup      source lookup
	beside      source descriptor lookup beside
	image       source run descriptor format lookup beside undonote image
	chain       source run descriptor format lookup image chain
	ring        ring <liburing>
	served      served
	guard       guard
	hints       hints
	target      served guard hints target
	workers     workers
	pump        source run ring workers target pump
	jobs        run undo image chain target pump jobs
	rollback    run undonote undo image chain target pump jobs
	apply       run undo image chain target pump jobs
	look        source run undo image chain target pump jobs
	scan        workers jobs
	verify      source run undo image chain target pump jobs <zlib>
	info        run undo image chain target pump jobs info
	progress    progress
	json        json
	options     hints progress options
	report      source run image chain jobs info json report
	vmdksync    source run hints image chain target jobs progress options report
	END
}

@test "a file includes only what its room may know" {
	bad=0
	for f in vmdksync.c lib/*.[ch]; do
		[ -e "$f" ] || continue
		room=${f##*/}
		room=${room%.*}
		line=$(rooms | awk -v r="$room" '$1 == r { $1 = "base"; print }')
		if [ -z "$line" ]; then
			echo "$f: belongs to no room, see rooms() in $BATS_TEST_FILENAME"
			bad=1
		fi
		includes=$(sed -n -e 's/^[ \t]*#[ \t]*include[ \t]*"\(.*\)".*/\1/p' \
			-e 's/^[ \t]*#[ \t]*include[ \t]*\(<liburing[^>]*\.h>\).*/\1/p' \
			-e 's/^[ \t]*#[ \t]*include[ \t]*\(<zlib\.h>\).*/\1/p' "$f")
		for i in $includes; do
			name=${i/.h/}
			case $i in
			'<liburing'*) name='<liburing>' ;;
			esac
			if [[ " $line " != *" $name "* ]]; then
				echo "$f: may not include $i"
				bad=1
			fi
		done
	done
	[ "$bad" = 0 ]
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
	for f in lib/*.[ch]; do
		if code "$f" | grep -nE "(^|[^A-Za-z0-9_>.])(($calls) *\\(|std(out|err)\\b)"; then
			echo "$f: prints or exits"
			bad=1
		fi
	done
	[ "$bad" = 0 ]
}

@test "the jobs know no stdio" {
	run -1 grep -n '<stdio' lib/jobs.h lib/apply.c
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

@test "the top level holds what belongs there, and no more" {
	requires git
	files=$(git -C "$TOP" ls-files) || skip 'no checkout'
	[ "$(cut -d/ -f1 <<<"$files" | grep -v '^\.' | sort -u | tr '\n' ' ')" = \
		'CHANGELOG Makefile README examples lib tests vmdksync.1 vmdksync.c ' ]
}
