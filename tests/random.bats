# SPDX-License-Identifier: MIT
# Random deltas, options, kinds of targets and kills against mkvmdk's model, see random-runs.py.
# RANDOM_TIME: seconds (60). RANDOM_SEED: to see the same again; RANDOM_CASE: one case of it alone.

# bats file_tags=quick

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

@test "random deltas, options, file systems and kills: the whole target is what the model says" {
	requires python3
	[ "$FLAVOUR" = plain ] || export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
	run -0 python3 "$TOP/tests/random-runs.py" --time "${RANDOM_TIME:-60}" \
		${RANDOM_SEED:+--seed "$RANDOM_SEED"} ${RANDOM_CASE:+--case "$RANDOM_CASE"}
	printf '# %s\n' "${lines[@]}" >&3
	[[ $output == *' runs: '* ]]
}

@test "the random runs notice a wrong byte and a wrong status" {
	requires python3
	cat >liar <<-END
	#!/bin/bash
	"$VMDKSYNC" "\$@" || exit
	printf '\0\1' | dd of="\${!#}" bs=1 seek=100 conv=notrunc status=none
	END
	chmod +x liar
	VMDKSYNC=$PWD/liar run -1 python3 "$TOP/tests/random-runs.py" --seed 1 --case 0 --place here
	[[ $output == *'sectors differ, the first at 0'* ]]
	printf '#!/bin/sh\n"%s" "$@"\nexit 3\n' "$VMDKSYNC" >liar
	VMDKSYNC=$PWD/liar run -1 python3 "$TOP/tests/random-runs.py" --seed 1 --case 0 --place here
	[[ $output == *'exit status 3'* ]]
}
