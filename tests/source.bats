# Inputs as the system gives them: what a descriptor may have opened, files that change while they are
# read, senders that do not close the pipe.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export TMPDIR=$BATS_TEST_TMPDIR
}

# not_opened NAME COMMAND...: the command, which ends with 2, does not open NAME, except with O_PATH.
not_opened() {
	local name=$1

	shift
	run -2 strace -qq -f -y -o trace -e trace=open,openat,openat2 timeout 60 "$@"
	echo "$output"
	! grep -F "$name" trace | grep -v O_PATH
}

@test "a device or FIFO that a descriptor names is never opened" {
	requires strace
	mkfifo fifo
	"$MKVMDK" cowd e-delta.vmdk capacity=2048 alloc=7
	for name in /dev/null /dev/tty "$PWD/fifo"; do
		descriptor d.vmdk 2 1 vmfsSparse "$name" 'RW 2048 VMFSSPARSE "e-delta.vmdk"'
		not_opened "$name" "$VMDKSYNC" --full --create d.vmdk got.raw
		not_opened "$name" "$VMDKSYNC" --map d.vmdk
		# trouble with the parents is no failure of --info
		not_opened "$name" sh -c '"$VMDKSYNC" --info d.vmdk; exit 2'
		# an extent: a link beside it, as the name itself is refused where it is parsed
		ln -sf "$name" x.raw
		descriptor d.vmdk 2 ffffffff monolithicFlat '' 'RW 1 FLAT "x.raw" 0'
		not_opened "$name" "$VMDKSYNC" --info d.vmdk
		[[ $output == *' is a '*', no image can be read from it'* ]]
		rm x.raw
		# nor named by hand, where it is no FIFO
		[ "$name" = "$PWD/fifo" ] || not_opened "$name" "$VMDKSYNC" --info "$name"
	done
	[ ! -e got.raw ]
}

@test "a block device that only a descriptor names is not opened; one named by hand, or linked to, is read" {
	requires strace loop
	"$MKVMDK" pattern base.raw 2048 3
	dev=$(loopdev base.raw)
	descriptor d.vmdk 2 1 vmfsSparse "$dev" 'RW 2048 VMFSSPARSE "d-delta.vmdk"'
	cp base.raw want.raw
	"$MKVMDK" cowd d-delta.vmdk capacity=2048 alloc=5-9 apply=want.raw
	not_opened "$dev" "$VMDKSYNC" --full --create d.vmdk got.raw
	[[ $output == *"d.vmdk: names a block device, which is not opened: $dev (--base names"* ]]
	run -0 vs --full --base="$dev" --create d-delta.vmdk got.raw
	same want.raw got.raw
	rm got.raw
	ln -s "$dev" flat.raw
	descriptor f.vmdk 2 ffffffff monolithicFlat '' 'RW 2048 FLAT "flat.raw" 0'
	run -0 vs --full --create f.vmdk got.raw
	same base.raw got.raw
}

@test "files are opened where there is no /proc, too" {
	requires root unshare
	truncate -s 1M t want
	"$MKVMDK" cowd d.vmdk capacity=2048 alloc=5-9,100-300 apply=want
	mkfifo fifo
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount bash -c 'mount -t tmpfs none /proc && "$VMDKSYNC" -q d.vmdk t &&
		{ cat d.vmdk >fifo & } && "$VMDKSYNC" -q --verify --spool-first fifo t &&
		ln -s /dev/null null && ! "$VMDKSYNC" --info null' 2>err
	cat err
	grep -q 'null: is a character device' err
	same t want
	vs --verify d.vmdk t
}
