#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# A sender that breaks, for resume.bats: resume-sender.py FILE FROM COUNT RATE BREAK [ARG]
# Sends bytes of FILE from byte FROM on, RATE bytes a second (0: as fast as it can), and after COUNT of them
# breaks: "end" ends the stream, "reset" cuts the TCP connection (it listens, and writes its port to
# the file ARG), "kill" kills with KILL the process whose number is in the file ARG, and goes on; "remove" removes
# the folder ARG with all in it, and goes on. What was sent is added to the file "sent".
import os
import shutil
import signal
import socket
import struct
import sys
import time

name, start, count, rate, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
arg = sys.argv[6] if len(sys.argv) > 6 else None
out, connection = 1, None
if how == "reset":
    with socket.create_server(("127.0.0.1", 0)) as s:
        with open(arg + ".new", "w") as f:
            f.write(str(s.getsockname()[1]))
        os.rename(arg + ".new", arg)
        connection, _ = s.accept()
    out = connection.fileno()
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
sent, begun, broken = 0, time.monotonic(), False
with open(name, "rb") as f:
    f.seek(start)
    try:
        while True:
            if sent >= count and not broken:
                broken = True
                if how == "end":
                    break
                if how == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                    break
                if how == "kill":
                    while not os.path.exists(arg):
                        time.sleep(0.01)
                    with open(arg) as victim:
                        os.kill(int(victim.read()), signal.SIGKILL)
                if how == "remove":
                    shutil.rmtree(arg)
            data = f.read(min(65536, count - sent) if not broken else 65536)
            if not data:
                break
            while data:
                n = os.write(out, data)
                sent += n
                data = data[n:]
            if rate:
                time.sleep(max(0, begun + sent / rate - time.monotonic()))
    except (BrokenPipeError, ConnectionResetError, ProcessLookupError):
        pass
with open("sent", "a") as f:
    f.write(f"{sent}\n")
