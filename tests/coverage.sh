#!/bin/sh
# Which lines of lib/ were reached: a table, the lines that were not, and exit 1 below MIN percent.
# Usage: coverage.sh BUILD MIN
set -eu

build=$1
min=$2
out=$build/gcov
rm -rf "$out"
mkdir -p "$out"
# gcov finds the sources from here only, and writes here only
for c in lib/*.c; do
	gcov -r -o "$build/lib" "$build/${c%.c}.gcda" >/dev/null 2>&1 || :
done
mv ./*.gcov "$out"
# a header's lines count where they are used; ours have hardly any
for f in "$out"/*.c.gcov; do
	awk -F: -v name="${f##*/}" '
		{ gsub(/ /, "", $1) }
		$1 == "-" { next }
		{ lines++ }
		$1 ~ /^#/ || $1 ~ /^=/ { missed++ }
		END { printf "%6d %6d %s\n", lines, missed, name }' "$f"
done >"$out/table"
awk '
	{ lines += $1; missed += $2; sub(/\.gcov$/, "", $3)
	  printf "%-16s %5d lines %5d missed %6.1f %%\n", $3, $1, $2, 100 * ($1 - $2) / $1 }
	END { printf "%-16s %5d lines %5d missed %6.1f %%\n", "lib", lines, missed,
		100 * (lines - missed) / lines
	      exit 100 * (lines - missed) < min * lines }' min="$min" "$out/table" && code=0 || code=1
for f in "$out"/*.c.gcov; do
	awk -F: -v name="${f##*/}" '
		{ gsub(/ /, "", $1) }
		$1 ~ /^#/ || $1 ~ /^=/ { gsub(/ /, "", $2); sub(/\.gcov$/, "", name)
			text = $0; sub(/^[^:]*:[^:]*:/, "", text); print name ":" $2 ":" text }' "$f"
done >"$out/missed"
echo "missed lines: $out/missed"
exit "$code"
