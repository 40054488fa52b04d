#!/bin/sh
# SPDX-License-Identifier: MIT
# Which lines of lib/ were reached: a table, what was not reached, and exit 1 below MIN percent, or when
# there is no reason for a line.
# Usage: coverage.sh BUILD MIN
#
# What was not reached is told in blocks: lines of one file that stand together in the flow of the
# program, the first of them quoted, and why no test comes there:
#
#	memory     memory is short; memory.bats refuses every request of the main paths once, which
#	           leaves those of paths that are rare themselves, and what mmap refuses
#	handed on  gives a failure on to the caller, or puts away what was begun; the failure itself
#	           has its tests, not at each place that may see it
#	others     tests/uncovered says why, by file and quoted text, that of the line above included
#	-          nobody has said why yet
set -eu

build=$1
min=$2
out=$build/gcov
rm -rf "$out"
mkdir -p "$out"
# Each test has left its own counts (helpers.bash). gcov-tool adds two folders into a third.
sum='' next=0
for d in "$build"/counts/*; do
	if [ -z "$sum" ]; then
		sum=$d
	elif gcov-tool merge -o "$out/$next" "$sum" "$d" >"$out/merge" 2>&1; then
		sum=$out/$next next=$((1 - next))
	else
		echo "$d: left out: $(head -n 1 "$out/merge")"
	fi
done
(cd "$sum$(realpath "$build")/lib" && find . -name '*.gcda' -exec cp {} "$(realpath "$build")/lib/{}" \;)
# gcov finds the sources from here only, and writes here only
for c in lib/*/*.c; do
	gcov -r -p -o "$build/${c%/*}" "$build/${c%.c}.gcda" >/dev/null 2>&1 || :
done
# the first line of a call, where gcov gives the count to those of its arguments, is no line
for f in ./*.gcov; do
	awk '
		held != "" {
			if (/^ *[0-9]+[*]?:/)
				sub(/#####/, "    -", held)
			print held
			held = ""
		}
		/^ *#####:.*,$/ { held = $0; next }
		{ print }' "$f" >"$out/$f"
	rm "$f"
done
# a header's lines count where they are used; ours have hardly any
for f in "$out"/*.c.gcov; do
	awk -F: -v name="${f##*/lib#}" '
		{ gsub(/ /, "", $1) }
		$1 == "-" { next }
		{ lines++ }
		$1 ~ /^#/ || $1 ~ /^=/ { missed++ }
		END { printf "%6d %6d %s\n", lines, missed, name }' "$f"
done >"$out/table"
awk '
	{ lines += $1; missed += $2; sub(/\.gcov$/, "", $3); sub(/#/, "/", $3)
	  printf "%-20s %5d lines %5d missed %6.1f %%\n", $3, $1, $2, 100 * ($1 - $2) / $1 }
	END { printf "%-20s %5d lines %5d missed %6.1f %%\n", "lib", lines, missed,
		100 * (lines - missed) / lines
	      exit 100 * (lines - missed) < min * lines }' min="$min" "$out/table" && code=0 || code=1

# A block ends where a line was reached; lines without code lie between its lines.
for f in "$out"/*.c.gcov; do
	awk -v name="${f##*/lib#}" '
		function block() {
			if (first)
				printf "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", name, first, last, n,
					quoted, all, before
			first = n = 0
			all = ""
		}
		BEGIN { sub(/\.gcov$/, "", name); sub(/#/, "/", name) }
		{
			count = $0; sub(/:.*/, "", count); gsub(/ /, "", count)
			text = $0; sub(/^[^:]*:/, "", text)
			line = text + 0
			sub(/^[^:]*:/, "", text); gsub(/^[ \t]+|[ \t]+$/, "", text); gsub(/\t/, " ", text)
		}
		count ~ /^[#=]/ {
			if (!first) {
				first = line
				quoted = text
				before = above
			}
			last = line
			n++
			all = all " " text
			above = text
			next
		}
		count != "-" { block() }
		{ above = text }
		END { block() }' "$f"
done >"$out/blocks"
awk -F '\t' '
	FNR == NR {
		if ($0 !~ /^#/ && NF == 3)
			why[$1 "\t" $2] = $3
		next
	}
	{
		reason = "-"
		plain = $6
		file = $1
		sub(/.*\//, "", file)
		# what only hands on and puts away
		gsub(/return (r|rc|got|false|NULL|-errno|-r|[a-z_]+_free\([a-z]*\));|goto [a-z]+;|break;|[a-z_]*(free|close|unlink)\([^;]*\);|[a-z>.-]+ = NULL;|if \([a-z]+ >= 0\)/, "", plain)
		if ($6 ~ /out of memory|no_memory|no memory|ENOMEM|failed = true/)
			reason = "memory"
		else if (plain ~ /^[ {}]*$/)
			reason = "handed on"
		for (k in why) {
			split(k, key, "\t")
			if ((key[1] == $1 || key[1] == file) && index($7 $6, key[2]))
				reason = why[k]
		}
		lines[reason == "memory" || reason == "handed on" || reason == "-" ? reason : "others"] += $4
		printf "%s:%s  %s\n    %s\n", $1, $2 == $3 ? $2 : $2 "-" $3, substr($5, 1, 76), reason
	}
	END {
		printf "\nlines not reached:"
		for (r in lines)
			printf " %s %d;", r, lines[r]
		print ""
		exit lines["-"] > 0
	}' tests/uncovered "$out/blocks" >"$out/missed" || code=1
cat "$out/missed"
echo "(also in $out/missed)"
exit "$code"
