# SPDX-License-Identifier: MIT
# --json as an interface: every code of an error, the schemas, and the manual's list of members.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# codes: those of the program
codes() {
	sed -n 's/^#define ERR_[A-Z_]* "\([a-z_]*\)"$/\1/p' "$TOP/lib/base/base.h"
}

# told CODE EXIT: standard output, in out, is one object that says so, and agrees with standard error
told() {
	local code=$1 exit=$2

	echo "--- $code, status $status: $(<err)"
	cat out
	[ "$status" = "$exit" ]
	[ "$(wc -l <out)" = 1 ]
	jq -es --arg code "$code" --argjson exit "$exit" --rawfile err err 'length == 1 and (.[0] |
		.schema == 1 and .error.code == $code and .error.exit == $exit and
		(.error.message as $m | $err | contains("vmdksync: " + $m)))' out
	echo "$code" >>"$BATS_TEST_TMPDIR/provoked"
}

# fails CODE EXIT ARGUMENT...
fails() {
	local code=$1 exit=$2

	shift 2
	status=0
	vs --json "$@" >out 2>err || status=$?
	told "$code" "$exit"
}

# of WHAT: what jq says of the error
of() {
	jq -r ".error | $1" out
}

# wrapped CODE EXIT COMMAND...: the same, of a command that runs the program
wrapped() {
	local code=$1 exit=$2

	status=0
	"${@:3}" >out 2>err || status=$?
	mkdir -p "$BATS_FILE_TMPDIR/json"
	cp out "$BATS_FILE_TMPDIR/json/$code.$status"
	told "$code" "$exit"
}

from_files() {
	fails usage 2 --nonsense d.vmdk t
	fails usage 2 d.vmdk t --max-ranges=x
	[ "$(of '.message, .hint')" = $'--max-ranges: x is not a number of bytes\n\'vmdksync --help\' lists the options' ]
	"$VMDKSYNC" --forze=raw --json >out 2>err || :
	[ "$(of .hint)" = "did you mean --force?; 'vmdksync --help' lists the options" ]
	fails not_found 2 d.vmdk none
	[ "$(of '.file, .hint')" = $'none\n--create makes a new file' ]
	fails not_a_disk 2 d.vmdk .
	cp t image && printf KDMV | dd of=image conv=notrunc status=none
	fails not_a_disk 2 d.vmdk image
	[ "$(of .force)" = raw ]
	head -c 1000448 t >small
	fails too_small 2 d.vmdk small
	[ "$(of '[.file, .have, .need] | @csv')" = '"small",1000448,10485760' ]
	jq -e '.target == {"name": "small", "kind": null, "size": null} and .written == 0 and .undo == null' out
	chmod 400 t
	fails permission 2 d.vmdk t
	chmod 600 t
	head -c 500000 d.vmdk >cut.vmdk
	fails truncated 2 cut.vmdk t
	jq -e '.error | .have == 500000 and .need > .have and (.object | test("^grain ")) and
		.hint == "is it truncated? expected at least \(.need) bytes"' out
	fails truncated 2 - t < <(head -c 1000 d.vmdk)
	"$MKVMDK" hosted bad.vmdk capacity=20480 grain=128 alloc=all gte=3:1 >/dev/null
	fails damaged 2 bad.vmdk t
	[ "$(of .file)" = bad.vmdk ]
	fails damaged 2 --info bad.vmdk
	fails damaged 2 --map bad.vmdk
	fails unsupported 2 "$TOP/README" t
	"$MKVMDK" stream s.vmdk capacity=20480 grain=128 alloc=all
	head -c 65536 /dev/urandom >>s.vmdk
	fails accounts 2 s.vmdk t
	[ "$(of .force)" = accounts ]
	"$MKVMDK" cowd odd.vmdk capacity=20480 alloc=1 unclean=1
	fails strict 2 --strict odd.vmdk t
	{ echo '# Disk DescriptorFile' && head -c 2M /dev/zero | tr '\0' '#'; } >long.vmdk
	fails too_large 2 long.vmdk t
	fails wrong_size 2 --expect-size=1000 - t <d.vmdk
	same t orig
}

from_chains() {
	esx_chain 2048 3
	fails wrong_order 2 host-000003.vmdk host-1.raw
	[ "$(of '.force, .hint')" = $'base\n'"$(sed -n 's/.*\(apply it first.*\)/\1/p' err)" ]
	jq -e '.error.offset >= 0 and .target.kind == "file" and .target.size == 1048576' out
	tr '\0-\377' '\1-\377\0' <host-0.raw >other
	fails wrong_disk 2 host-000001.vmdk other
	mkdir -p sub
	sed s,host.vmdk,../host.vmdk, host-000001.vmdk >sub/host-000001.vmdk
	cp host-000001-delta.vmdk sub
	fails confined 2 --full --confine sub/host-000001.vmdk t
	mv host-000002.vmdk away
	fails missing_parent 2 --chain host-000003.vmdk host-0.raw
	sed s/^CID=.*/CID=77/ away >host-000002.vmdk
	fails wrong_parent 2 --chain host-000003.vmdk host-0.raw
	[ "$(of .force)" = cid ]
}

from_logs() {
	cp orig t
	vs -q --undo=u d.vmdk t
	fails exists 2 --undo=u d.vmdk t
	jq -e '.undo == {"name": "u", "finished": false}' out
	fails finished 2 --undo=u --undo-append - t < <(cat d.vmdk)
	"$MKVMDK" cowd few.vmdk capacity=20480 alloc=1-5
	cp orig t
	vs -q --undo=log.vmdk few.vmdk t
	tr '\0-\377' '\1-\377\0' <orig >other
	fails wrong_disk 2 log.vmdk other
	[ "$(of .force)" = disk ]
	cp orig t
}

limited() (
	ulimit -f 2048
	"$VMDKSYNC" --json -q --no-uring d.vmdk t
)

from_systems() {
	wrapped busy 2 flock t "$VMDKSYNC" --json d.vmdk t
	[ "$(of .force)" = busy ]
	fails connection 2 d.vmdk "nbd+unix:///x?socket=$PWD/nobody"
	wrapped io 2 strace -qqf -o /dev/null -P "$PWD/d.vmdk" -e trace=pread64 -e inject=pread64:error=EIO \
		"$VMDKSYNC" --json d.vmdk t
	jq -e '.error.offset >= 0' out
	same t orig
	wrapped no_space 3 limited
	jq -e '.error | .file == "t" and .offset >= 0 and .hint == "running again is safe"' out
	vs -q d.vmdk t
	same t want
	cp orig t
	wrapped stopped 3 strace -qqf -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=TERM:when=3 \
		"$VMDKSYNC" --json --no-uring --undo=s.log d.vmdk t
	jq -e '.written > 0 and .undo.name == "s.log" and .error.hint ==
		"running again with --undo-append is safe, and the undo log rolls back"' out
	cp orig t
	wrapped stopped 2 strace -qqf -o /dev/null -P "$PWD/d.vmdk" -e trace=pread64 \
		-e inject=pread64:signal=INT:when=2 "$VMDKSYNC" --json d.vmdk t
	wrapped memory 2 env LD_PRELOAD="$TOP/build/plain/nomem.so" NOMEM=20+ "$VMDKSYNC" --json d.vmdk t
	same t orig
	held --json d.vmdk t
	touch d.vmdk
	status=0
	let_go || status=$?
	told changed 3
	[ "$(of .force)" = changed ]
}

@test "every code of an error: one object, that of the schema, and the exit status" {
	requires unsanitized strace flock jq
	"$MKVMDK" pattern orig 20480 3
	cp orig t
	cp orig want
	"$MKVMDK" cowd d.vmdk capacity=20480 alloc=every:2 apply=want
	from_files
	from_chains
	from_logs
	from_systems
	diff <(sort -u provoked) <(codes)
}

# in_manual ITEM: the members that the manual names there
in_manual() {
	sed -n '/^\.Ss JSON/,/^\.Ss /p' "$TOP/vmdksync.1" | sed -n "/^\.It .*$1\$/,/^\.\(It\|El\)/p" |
		sed -n 's/^\.Va//p' | grep -oE '[a-z_]+' | sort -u
}

# in_schema NAME...: the members of schemas, without those for names that are no text
in_schema() {
	local name

	for name; do
		"$TOP/tests/schema/check.py" -p "$name.json"
	done | grep -v '_hex$' | sort -u
}

@test "the manual lists the members of the schemas, and the codes of the program, and no others" {
	every=$(in_manual 'every object')
	while read -r item schemas; do
		echo "$item"
		# shellcheck disable=SC2086 # words
		diff <(sort -u <(echo "$every") <(in_manual "$item")) <(sort -u <(echo "$every") <(in_schema $schemas))
	done <<-'END'
	others apply verify
	failures error
	info info
	map map
	-position position
	END
	diff <(sed -n '/^\.It Fl p , -progress/,/^\.Dv/s/^\.Va //p' "$TOP/vmdksync.1" | sort) <(in_schema progress)
	diff <(sort -u <<<"$every") <({
		echo schema && echo job && echo error
		jq -r '.definitions.error.properties | keys[]' "$TOP/tests/schema/common.json" | grep -v '_hex$'
	} | sort -u)
	codes >known
	sort -c known
	diff known <(jq -r '.definitions.code.enum[]' "$TOP/tests/schema/common.json")
	diff known <(sed -n '/^The codes of errors/,/^\.El/s/^\.It Cm //p' "$TOP/vmdksync.1")
	# the words of --force
	diff <(sed -n '/^\.It Fl -force/,/^\.El/s/^\.It Cm //p' "$TOP/vmdksync.1" | sort) \
		<(jq -r '.definitions.error.properties.force.enum[] | strings' "$TOP/tests/schema/common.json" | sort)
}

@test "the schemas check what the tests print" {
	requires jsonschema
	esx_chain 2048 1
	mkdir bad
	vs --map host-000001-delta.vmdk --json >bad/map.0
	"$TOP/tests/schema/check.py" bad
	sed 's/"start": /"begin": /' bad/map.0 >bad/renamed.0
	cp bad/map.0 bad/status.2
	cat bad/map.0 bad/map.0 >bad/two.0
	sed 's/"schema": 1/"schema": 1, "more": 2/' bad/map.0 >bad/more.0
	: >bad/none.0
	run -1 "$TOP/tests/schema/check.py" bad
	[ "$(grep -c '^[a-z]*\.[02]$' <<<"$output")" = 5 ]
}

# hex: standard input as hexadecimal digits
hex() {
	od -An -v -tx1 | tr -d ' \n'
}

@test "a name that is no text, or looks like an escape, can be opened again" {
	"$MKVMDK" pattern orig 2048 3
	for name in $'\377x.vmdk' $'a\nb' 'c\x0ad' $'\303'; do
		rm -rf dir
		mkdir dir
		"$MKVMDK" cowd "dir/$name" capacity=2048 alloc=1-5
		cp orig "dir/$name.raw"
		want=$(printf %s "dir/$name" | hex)
		vs -q --json --undo="dir/$name.log" "dir/$name" "dir/$name.raw" >out
		jq -e --arg want "$want" '.chain_hex == [$want] and .target.name_hex == $want + "2e726177" and
			.undo.name_hex == $want + "2e6c6f67" and (.target.name | test("x[0-9a-f][0-9a-f]"))' out
		vs --json --info "dir/$name" | jq -e --arg want "$want" '.images[0] | .name_hex == $want and
			.chain[0].name_hex == $want and .chain[0].files[0].name_hex == $want'
		vs --json --map "dir/$name" | jq -e --arg want "$want" '.chain_hex == [$want] and
			.map[0].layer_hex == $want and .map[0].file_hex == $want'
		vs --json --info "dir/$name.log" | jq -e --arg want "$want" '.images[0].chain[0].undo |
			.disk_hex == $want + "2e726177" and .applied_hex == $want'
		run -2 --separate-stderr vs --json "dir/$name" "dir/$name.none"
		jq -e --arg want "$want" '.error.file_hex == $want + "2e6e6f6e65"' <<<"$output"
	done
	# plain names need no second member
	"$MKVMDK" cowd 'ünï "d\.vmdk' capacity=2048 alloc=1
	vs --json --info 'ünï "d\.vmdk' | jq -e '[.. | objects | keys[] | select(endswith("_hex"))] == [] and
		.images[0].name == "ünï \"d\\.vmdk"'
}
