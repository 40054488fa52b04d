# SPDX-License-Identifier: MIT
# make bench, small: it must not rot. Its numbers are no business of a test.

load helpers

@test "a tiny benchmark runs through, and all who take part write the same" {
	local targets='alloc sparse loop4096'

	requires plain jq qemu-img
	[ "$(id -u)" != 0 ] || helpers_loop_works || targets='alloc sparse'
	helpers_teardown
	rm -f "$BATS_TEST_TMPDIR"/.lo*
	LIMIT=${LIMIT:-$TOP/build/plain/limit} BENCH_DIR=$BATS_TEST_TMPDIR BENCH_SIZE=tiny \
		BENCH_TARGETS=$targets \
		BENCH_JSON=$BATS_TEST_TMPDIR/json "$TOP/tests/bench/run.sh"
	jq -e '.results | map(select(.who == "vmdksync")) | length > 9' "$BATS_TEST_TMPDIR/json"
	jq -e '.results | map(select(.who == "direct" and .part == "apply")) | length > 3' \
		"$BATS_TEST_TMPDIR/json"
	[ "$(ls -A "$BATS_TEST_TMPDIR")" = json ]
}
