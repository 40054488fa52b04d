# SPDX-License-Identifier: MIT
# Each system call of an apply, an undo run, a roll-back and a pipe fails, one at a time: see inject.py.

load helpers

@test "system calls that fail: no exit status lies, nothing hangs" {
	requires strace python3 plain gzip
	cd "$BATS_TEST_TMPDIR"
	# a sample in make check; INJECT_ALL=1: all of them, which takes an hour
	limit=60
	[ -z "${INJECT_ALL-}" ] || limit=all
	python3 "$TOP/tests/inject.py" "$VMDKSYNC" "$MKVMDK" $limit
}
