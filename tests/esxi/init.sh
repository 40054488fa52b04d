#!/bin/sh
# The first process of the stand-in host; when it ends, all others do.
PATH=/ctl/bin:/bin
mount -t proc proc /proc
/ctl/bin/sshd -D -e -f /etc/ssh/config &
exec /ctl/guest.sh
