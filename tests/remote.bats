# SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # the inner shell expands it
# Disks read where they lie: by sshfs, over HTTPS, by nbdkit; and extents that are sent one by one.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	PATH=$PWD/bin:${VMDKSYNC%/*}:$PATH
}

teardown() {
	! mountpoint -q mnt || fusermount3 -uz mnt
	! mountpoint -q disk || fusermount3 -uz disk
	# the sessions first: they are children of the daemon
	[ ! -f sshd.pid ] || cut_sessions || :
	helpers_teardown
}

# host: an ssh daemon of this test, at $port, on which `esxi` is this machine; ssh, sshfs and nbdkit find it. Each
# session of SFTP ends after as many bytes as the file `limit` says, where there is one.
host() {
	local i

	requires root plain ssh unshare stdbuf
	[ -x /usr/sbin/sshd ] || skip 'needs sshd'
	mkdir bin
	ssh-keygen -q -t ed25519 -N '' -f key
	ssh-keygen -q -t ed25519 -N '' -f hostkey
	cat >sftp <<-END
	#!/bin/sh
	[ -e $PWD/limit ] || exec /usr/lib/openssh/sftp-server
	# it does not notice by itself that nobody listens while it has nothing to say
	/usr/lib/openssh/sftp-server | { stdbuf -o0 head -c "\$(cat $PWD/limit)"; pkill -KILL -P \$\$ -x sftp-server; }
	END
	chmod +x sftp
	for ((i = 0; i < 50; i++)); do
		port=$((20000 + RANDOM % 20000))
		cat >sshd_config <<-END
		ListenAddress 127.0.0.1:$port
		HostKey $PWD/hostkey
		PidFile $PWD/sshd.pid
		AuthorizedKeysFile $PWD/key.pub
		PermitRootLogin yes
		StrictModes no
		UsePAM no
		MaxStartups 100
		Subsystem sftp $PWD/sftp
		END
		# it wants a folder that only the system's own daemon makes
		unshare --mount sh -c 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"' sh \
			/usr/sbin/sshd -D -f "$PWD/sshd_config" -E "$PWD/sshd.log" >/dev/null 2>&1 3>&- &
		sshd=$!
		until [ -e sshd.pid ] || ! kill -0 "$sshd" 2>/dev/null; do
			sleep 0.05
		done
		[ ! -e sshd.pid ] || break
	done
	echo "$sshd" >>pids
	printf '[127.0.0.1]:%s %s\n' "$port" "$(cat hostkey.pub)" >known_hosts
	cat >ssh_config <<-END
	Host esxi
		HostName 127.0.0.1
		Port $port
		User root
		IdentityFile $PWD/key
		UserKnownHostsFile $PWD/known_hosts
		LogLevel ERROR
	END
	for i in ssh sshfs; do
		printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$(command -v $i)" "$PWD/ssh_config" >bin/$i
		chmod +x bin/$i
	done
}

# below PID: all that it started, and what those did.
below() {
	local pid

	for pid in $(pgrep -P "$1"); do
		echo "$pid"
		below "$pid"
	done
}

# What is connected now is cut. Which process of a session has the socket depends on the version of sshd.
cut_sessions() {
	below "$(cat sshd.pid)" | xargs -r kill -KILL 2>/dev/null || :
}

# chain SECTORS [ALLOC]: host.vmdk, its base, and two deltas of some MiB in vmfs/; old.raw, full of old data;
# host-2.raw, the disk.
chain() {
	local i before=host.vmdk

	mkdir vmfs
	(
		cd vmfs || return
		"$MKVMDK" pattern host-flat.vmdk "$1" 1
		descriptor host.vmdk 10000000 ffffffff vmfs '' "RW $1 VMFS \"host-flat.vmdk\""
		cp host-flat.vmdk ../base.raw
		cp host-flat.vmdk ../host-2.raw
		for i in 1 2; do
			"$MKVMDK" cowd host-00000$i-delta.vmdk capacity="$1" alloc="${2-runs:40:100:400}" \
				seed=$((i + 1)) apply=../host-2.raw
			descriptor host-00000$i.vmdk 1000000$i 1000000$((i - 1)) vmfsSparse "$before" \
				"RW $1 VMFSSPARSE \"host-00000$i-delta.vmdk\""
			before=host-00000$i.vmdk
		done
	)
	"$MKVMDK" pattern old.raw "$1" 77
}

# shown PROGRAM: the command lines of the manual that begin with it, where this test has its files.
shown() {
	sed -e ':a' -e '/|$/{N;s/|\n */| /;ba' -e '}' "$TOP/vmdksync.1" | sed -n "s/^\($1 .*\)/\1/p" |
		sed -e "s:/vmfs/volumes/ds/host:$PWD/vmfs:g; s: /mnt: $PWD/mnt:g; s:/dev/vg0/vm-hda:target:g"
}

mount_it() {
	local line

	mkdir -p mnt
	line=$(shown sshfs)
	[ "$line" ]
	echo "$line"
	bash -c "$line"
	mountpoint -q mnt
}

# sshfs ends when its connection does, or is about to.
not_mounted() {
	fusermount3 -uz mnt 2>/dev/null || :
	until_true eval '! mountpoint -q mnt'
}

# bats test_tags=quick
@test "manual: by sshfs, --full and --chain, then --verify against the source" {
	host
	requires sshfs fusermount3
	chain 65536
	mount_it
	cp old.raw target
	while IFS= read -r line; do
		echo "--- $line"
		bash -c "$line"
		same target host-2.raw
	done < <(shown 'vmdksync --full' | grep mnt && shown 'vmdksync --verify' | grep mnt)
	cp base.raw target
	vs -q --chain mnt/host-000002.vmdk target
	same target host-2.raw
	vs -q --verify mnt/host-000002.vmdk target
	# nothing holds what is served
	fusermount3 -u mnt
}

# bats test_tags=quick
@test "by sshfs, and the connection is cut: exit 3, words that fit; mounted again, the same command ends right" {
	host
	requires sshfs fusermount3
	# far more than the tables and what is read ahead of each of them
	chain 131072 runs:40:1000:2000
	for job in --full --chain; do
		cp old.raw target
		# its data are not needed, and samples of them would be read first
		[ $job = --full ] || { mv vmfs/host-flat.vmdk . && cp base.raw target; }
		cp target before
		echo 12000000 >limit
		mount_it
		run -3 --separate-stderr vs --resume=point $job mnt/host-000002.vmdk target
		echo "$stderr"
		[[ $stderr == *"vmdksync: mnt/host-"*.vmdk:*' at byte '*@(connection|connected|error)* ]]
		[[ $stderr == *'gave up after '* ]]
		run ! cmp -s target before
		not_mounted
		rm limit
		mount_it
		[ -s point ]
		# a file that was just written looks like one whose server makes times up: not so later
		sleep 3
		vs -q --resume=point $job mnt/host-000002.vmdk target
		same target host-2.raw
		[ ! -e point ]
		fusermount3 -u mnt
	done
}

# bats test_tags=quick
@test "by sshfs, and the host is gone before anything is written: exit 2, and the target is untouched" {
	host
	requires sshfs fusermount3
	chain 65536
	cp old.raw target
	mount_it
	cut_sessions
	run -2 --separate-stderr vs --full mnt/host-000002.vmdk target
	same target old.raw
	not_mounted
}

# folder MODE: a web server of this test as ESXi's /folder is, at https://esxi: a password, 206 for a range,
# and no word on accepting ranges; whole: it answers any range with 200 and everything; cut: it closes the
# connection in the middle.
folder() {
	requires python3 openssl curl
	[ -e esxi.pem ] || openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=esxi -addext subjectAltName=DNS:esxi \
		-days 2 -keyout esxi.key -out esxi.pem 2>/dev/null
	rm -f port
	python3 - "$1" "$PWD" >web.log 2>&1 3>&- <<-'END' &
	import base64, http.server, os, re, ssl, sys, urllib.parse
	mode, top = sys.argv[1:]
	class Folder(http.server.BaseHTTPRequestHandler):
	    protocol_version = "HTTP/1.1"
	    def do_GET(self):
	        url = urllib.parse.urlsplit(self.path)
	        if self.headers["Authorization"] != "Basic " + base64.b64encode(b"root:secret").decode():
	            self.send_response(401)
	            self.send_header("WWW-Authenticate", 'Basic realm="VMware HTTP server"')
	            self.send_header("Content-Length", "0")
	            return self.end_headers()
	        if urllib.parse.parse_qs(url.query) != {"dcPath": ["ha-datacenter"], "dsName": ["ds"]}:
	            return self.send_error(404)
	        with open(top + "/vmfs/" + os.path.basename(url.path), "rb") as f:
	            data = f.read()
	        size, first = len(data), 0
	        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
	        if wanted and mode != "whole":
	            first = int(wanted[1])
	            self.send_response(206)
	            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
	        else:
	            self.send_response(200)
	        data = data[first:]
	        self.send_header("Content-Length", str(len(data)))
	        self.end_headers()
	        self.wfile.write(data[:len(data) // 2] if mode == "cut" else data)
	        self.close_connection = mode == "cut"
	server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Folder)
	tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
	tls.load_cert_chain(top + "/esxi.pem", top + "/esxi.key")
	server.socket = tls.wrap_socket(server.socket, server_side=True)
	with open(top + "/port.new", "w") as f:
	    f.write(str(server.server_address[1]))
	os.rename(top + "/port.new", top + "/port")
	server.serve_forever()
	END
	echo $! >>pids
	until_true [ -e port ]
	# what a user's ~/.curlrc and ~/.netrc would say
	printf 'cacert = "%s"\nconnect-to = "esxi:443:127.0.0.1:%s"\n' "$PWD/esxi.pem" "$(cat port)" >.curlrc
	echo 'machine esxi login root password secret' >.netrc
	export HOME=$PWD
}

# bats test_tags=quick
@test "manual: curl from the host's /folder, whole; one that is cut is exit 3" {
	chain 32768
	cp base.raw want
	vs -q vmfs/host-000001-delta.vmdk want
	line=$(shown curl)
	echo "$line"
	folder range
	cp base.raw target
	bash -o pipefail -c "$line"
	same target want
	# a wrong password is an error of curl's, and nothing is written
	echo 'machine esxi login root password wrong' >.netrc
	cp base.raw target
	run -2 bash -c "$line"
	[[ $output == *401* ]]
	same target base.raw
	folder cut
	run -3 bash -c "$line"
	[[ $output == *'ends after '*' bytes'* ]]
	folder range
	bash -o pipefail -c "$line"
	same target want
}

# bats test_tags=quick
@test "curl by range goes on where a connection broke; 200 for a range is refused, the target unchanged" {
	chain 32768
	size=$(stat -c %s base.raw)
	cp base.raw vmfs/host-flat.vmdk
	url='https://esxi/folder/host/host-flat.vmdk?dcPath=ha-datacenter&dsName=ds'
	# from_there: what the checkpoint asks for, onto the target
	from_there() {
		curl -fsSn --range "$(vs --resume=ck --position)-" "$url" |
			"$VMDKSYNC" -q --raw --expect-size="$size" --resume=ck - target
	}
	truncate -s "$size" target
	folder cut
	run -3 from_there
	[ "$(vs --resume=ck --position)" -gt 0 ]
	cp target broken
	cp ck ck.broken
	folder whole
	run -2 from_there
	[[ $output == *'does the sender begin there'* ]]
	same target broken
	cmp ck ck.broken
	folder range
	run -0 from_there
	same target base.raw
	[ ! -e ck ]
}

# bats test_tags=quick
@test "manual: one extent by nbdkit's ssh plugin and nbdfuse" {
	host
	requires nbdkit nbdfuse fusermount3
	nbdkit --dump-plugin ssh >/dev/null 2>&1 || skip "needs nbdkit's ssh plugin"
	chain 32768
	cp base.raw target
	cp base.raw want
	vs -q vmfs/host-000001-delta.vmdk want
	mkdir mnt
	# it reads no configuration that could be given to it
	line=$(shown nbdfuse | sed "s: &\$::; s:host=esxi:host=127.0.0.1 port=$port user=root identity=$PWD/key known-hosts=$PWD/known_hosts:")
	echo "$line"
	bash -c "exec $line" >/dev/null 2>&1 3>&- &
	echo $! >>pids
	until_true [ -e mnt/delta.vmdk ]
	bash -c "$(shown vmdksync | grep mnt/delta)"
	same target want
	fusermount3 -u mnt
	wait $!
}

# --- extents one by one -------------------------------------------------------------------------------

# bats test_tags=quick
@test "a disk in 40 sparse extents, streamed one by one onto old data, broken and resumed between them" {
	requires qemu-img
	declare -a line offset
	sectors=0
	for ((i = 1; i <= 40; i++)); do
		name=$(printf 'clone-s%03d.vmdk' "$i")
		# some are empty, some hold all; the last is a short one
		case $((i % 4)) in
		0) alloc=none ;;
		1) alloc=all ;;
		*) alloc=random:9 ;;
		esac
		size=$((i < 40 ? 2048 : 640))
		"$MKVMDK" hosted "$name" capacity=$size grain=128 alloc=$alloc zero=3 desc=0 seed=$i
		offset[i]=$sectors
		line[i]="RW $size SPARSE \"$name\""
		sectors=$((sectors + size))
	done
	descriptor clone.vmdk 1 ffffffff twoGbMaxExtentSparse '' "${line[@]}"
	qemu-img convert -f vmdk -O raw clone.vmdk want.raw
	[ "$(stat -c %s want.raw)" = $((sectors * 512)) ]
	# what lies behind the disk stays
	"$MKVMDK" pattern target $((sectors + 3000)) 7
	tail -c $((3000 * 512)) target >>want.raw
	broken=0
	for ((i = 1; i <= 40; i++)); do
		name=$(printf 'clone-s%03d.vmdk' "$i")
		# the line breaks in every third one, which is sent again
		if [ $((i % 3)) = 0 ]; then
			head -c -70000 "$name" >short
			run vs -q --full --offset="${offset[i]}s" - target < <(cat short)
			[ "$status" = 3 ] || [ "$status" = 2 ]
			[ "$status" = 2 ] || broken=$((broken + 1))
		fi
		vs -q --full --offset="${offset[i]}s" - target < <(cat "$name")
	done
	[ $broken -ge 8 ]
	same target want.raw
}

# --- copy-base.sh -------------------------------------------------------------------------------------

# stand_in_ssh: runs the command here, but for dd: of each line of the file `limits` so many bytes are sent,
# and the connection is lost; of "hold N" they are sent, and nothing more comes. What was asked is in `asked`.
stand_in_ssh() {
	mkdir -p bin
	cat >bin/ssh <<-'END'
	#!/bin/sh
	while [ $# -gt 1 ]; do
		host=$1
		shift
	done
	echo "$host $1" >>asked
	[ ! -e away ] || exit 255
	case $1 in
	dd*)
		if [ -s limits ]; then
			n=$(head -n 1 limits)
			sed -i 1d limits
			sh -c "$1" 2>/dev/null | head -c "${n#hold }"
			case $n in
			hold*)
				touch held
				exec sleep 300
				;;
			esac
			exit 255
		fi
		;;
	esac
	exec sh -c "$1"
	END
	chmod +x bin/ssh
}

# base_disk: "it's a-flat.vmdk", of 24 MiB, and a target of old data, 1 MiB longer, that becomes `want`
base_disk() {
	base="$PWD/it's a-flat.vmdk"
	"$MKVMDK" pattern "$base" 12M 3
	truncate -s 24M "$base"
	"$MKVMDK" pattern target 25M 5
	{ cat "$base" && tail -c 1M target; } >want
}

copy_base() {
	sh "$TOP/examples/copy-base.sh" -w 0 "$@"
}

# bats test_tags=quick
@test "copy-base.sh: resumes where the line broke, until all is there; a log with dates" {
	base_disk
	stand_in_ssh
	# nothing; some of it; less than tells whether it is the right disk; some more
	printf '%s\n' 0 7000000 100 3000000 >limits
	run -0 copy_base -l log esxi "$base" target --read-back
	same target want
	[ ! -e target.checkpoint ]
	[ ! -s limits ]
	grep -q "^esxi dd if='$PWD/it'.''s a-flat.vmdk' bs=1M skip=0$" asked
	mapfile -t skips < <(sed -n 's/.*bs=1M skip=//p' asked)
	[ "${#skips[@]}" = 5 ]
	[ "${skips[0]} ${skips[1]}" = '0 0' ]
	[ "${skips[2]}" -ge 4 ] && [ "${skips[3]}" = "${skips[2]}" ] && [ "${skips[4]}" -gt "${skips[3]}" ]
	[ "$(grep -cE '^20[0-9-]{8} [0-9:]{8} copy-base.sh: try [1-5]: esxi:' log)" = 5 ]
	grep -qE 'copy-base.sh: [0-9]+ of 24 MiB, [0-9]+ MiB/s, [0-9]+ s left$' log
	grep -q '^  vmdksync: standard input: ended after 7000000 of 25165824 bytes' log
	[[ $(tail -n 1 log) == *'all 25165824 bytes are on target' ]]
	# the same, onto a new file
	run -0 copy_base -c other.checkpoint esxi "$base" new.raw --create
	same new.raw "$base"
}

# bats test_tags=quick
@test "copy-base.sh: gives up without progress, and goes on later; -r is pv's" {
	base_disk
	stand_in_ssh
	printf '%s\n' 9000000 0 0 0 >limits
	run -1 copy_base -t 3 esxi "$base" target
	[[ ${lines[-1]} == *'gave up after 3 tries without progress, at byte '*'; the same command resumes' ]]
	[ ! -s limits ]
	# the host does not answer
	: >away
	run -1 copy_base -t 2 esxi "$base" target
	[[ $output == *'esxi does not answer'* ]]
	rm away
	printf '#!/bin/sh\necho "$*" >pv-said\nexec cat\n' >bin/pv
	chmod +x bin/pv
	run -0 copy_base -r 20m esxi "$base" target
	[ "$(cat pv-said)" = '-q -L 20m' ]
	same target want
}

# bats test_tags=quick
@test "copy-base.sh: INT and TERM stop it, what came is durable, and the same command goes on" {
	base_disk
	stand_in_ssh
	for signal in INT TERM; do
		rm -f held
		echo 'hold 8000000' >limits
		env --default-signal=INT sh "$TOP/examples/copy-base.sh" -w 0 esxi "$base" target >said 2>&1 3>&- &
		pid=$!
		until_true [ -e held ]
		kill -$signal $pid
		code=0
		wait $pid || code=$?
		cat said
		[ $code = 3 ]
		[[ $(tail -n 1 said) == *'stopped at byte '[1-9]*'; the same command resumes' ]]
		[ -s target.checkpoint ]
	done
	run -0 copy_base esxi "$base" target
	same target want
}

# bats test_tags=quick
@test "copy-base.sh: what is refused, and the target untouched" {
	base_disk
	stand_in_ssh
	cp target was
	run -2 copy_base esxi "$base"
	run -2 copy_base -t x esxi "$base" target
	run -2 copy_base -oProxyCommand=touch esxi "$base" target
	run -2 copy_base -- -oProxyCommand=touch "$base" target
	[[ $output == *'is no host'* ]]
	run -2 copy_base esxi flat.vmdk target
	[[ $output == *'FILE is a path from / on'* ]]
	[ ! -e asked ]
	run -2 copy_base esxi "$PWD/none; touch gone" target
	echo "$output"
	[[ $output == *'was not found there'* ]]
	[ ! -e gone ]
	run -2 copy_base esxi /dev/null target
	[[ $output == *'is it a file with a disk in it?'* ]]
	run -2 copy_base esxi "$base" none.raw
	[[ $output == *'none.raw: '* ]]
	run -2 copy_base -c was esxi "$base" target
	[[ $output == *'is no checkpoint'* ]]
	same target was
	# another file by the time of the next try
	echo 9000000 >limits
	sed -i 's/^esac$/&\n[ "${n-}" != 9000000 ] || touch -d "2 days ago" "$PWD"\/*-flat.vmdk/' bin/ssh
	sed -i 's/^\t\texit 255$/\t\ttouch -d "2 days ago" *-flat.vmdk; exit 255/' bin/ssh
	run -2 copy_base esxi "$base" target
	[[ $output == *'has changed: '* ]]
}

# bats test_tags=quick
@test "copy-base.sh: over a real ssh whose connection is cut" {
	host
	base_disk
	# it stands still in the middle, until the connection is gone
	cat >bin/pv <<-'END'
	#!/bin/sh
	[ ! -e go ] || exec cat
	head -c 9000000
	touch held
	until [ -e go ]; do
		sleep 0.05
	done
	exec cat
	END
	chmod +x bin/pv
	copy_base -r 1g esxi "$base" target >said 2>&1 3>&- &
	pid=$!
	until_true [ -e held ]
	cut_sessions
	touch go
	wait $pid
	cat said
	grep -q 'try 2: ' said
	same target want
}
