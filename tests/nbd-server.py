#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An NBD server that does one thing wrong. Usage: nbd-server.py SOCKET SIZE FAULT [ARGUMENT]

It serves SIZE bytes of memory to one connection after the other, says "ready" when it listens, and
"writes N" for each connection that ends. FAULT is one of those below, or `none`.
"""
import os
import select
import socket
import struct
import sys
import time

path, size, fault = sys.argv[1], int(sys.argv[2]), sys.argv[3]
argument = int(sys.argv[4]) if len(sys.argv) > 4 else 0
disk = bytearray(size)

MAGIC, OPTION, REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
ACK, INFO, ERR = 1, 3, 1 << 31
FLAGS = 1 | 4 | 64  # flush, write zeroes


class Gone(Exception):
    pass


def get(c, n):
    data = b""
    while len(data) < n:
        part = c.recv(n - len(data))
        if not part:
            raise Gone
        data += part
    return data


def reply(c, option, kind, data=b""):
    c.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)


def handshake(c):
    """Whether structured replies were agreed on."""
    structured = False
    if fault == "magic":
        c.sendall(b"SSH-2.0-OpenSSH_9.2 and more\r\n")
        raise Gone
    if fault == "oldstyle":
        c.sendall(struct.pack(">QQQI124x", MAGIC, 0x420281861253, size, FLAGS))
        raise Gone
    if fault == "mute":
        time.sleep(1000)
    if fault == "close-greeting":
        c.sendall(struct.pack(">Q", MAGIC))
        raise Gone
    c.sendall(struct.pack(">QQH", MAGIC, OPTION, 0 if fault == "not-fixed" else 3))
    get(c, 4)
    while True:
        _, option, n = struct.unpack(">QII", get(c, 16))
        get(c, n)
        if fault == "tls":
            reply(c, option, ERR + 5)
        elif fault == "reply-magic":
            c.sendall(struct.pack(">QIII", 7, option, ACK, 0))
        elif fault == "reply-long":
            c.sendall(struct.pack(">QIII", REPLY, option, ACK, 1 << 30))
        elif option == 8 and fault == "simple":
            reply(c, option, ERR + 1)
        elif option == 8:
            structured = True
            reply(c, option, ACK)
        elif option != 7:
            reply(c, option, ERR + 1)
        elif fault == "unknown":
            reply(c, option, ERR + 6, b"look elsewhere \x1b[31m")
        elif fault == "policy":
            reply(c, option, ERR + 2, b"not today")
        elif fault == "no-go":
            reply(c, option, ERR + 1)
        elif fault == "no-info":
            reply(c, option, ACK)
        else:
            flags = FLAGS
            if fault == "read-only":
                flags |= 2
            if fault == "no-flush":
                flags &= ~4
            if fault == "no-zeroes":
                flags &= ~64
            if fault == "block":
                reply(c, option, INFO, struct.pack(">HIII", 3, argument, 65536, 1 << 25))
            if fault == "maximum":
                reply(c, option, INFO, struct.pack(">HIII", 3, 1, 4096, argument))
            reply(c, option, INFO, struct.pack(">HH", 77, 0))  # unknown, to be ignored
            reply(c, option, INFO, struct.pack(">HQH", 0, (1 << 63) if fault == "huge" else size, flags))
            reply(c, option, ACK)
            return structured


def chunk(c, kind, cookie, data, done=True):
    c.sendall(struct.pack(">IHHQI", 0x668E33EF, int(done), kind, cookie, len(data)) + data)


def simple(c, cookie, error=0, data=b""):
    c.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + data)


def answer_read(c, structured, cookie, off, n):
    data = bytes(disk[off:off + n])
    if not structured:
        simple(c, cookie, 0, data)
    elif fault == "short":
        chunk(c, 1, cookie, struct.pack(">Q", off) + data[:n // 2])
    elif fault == "outside":
        chunk(c, 1, cookie, struct.pack(">Q", off + 1) + data)
    elif fault == "twice":
        chunk(c, 1, cookie, struct.pack(">Q", off) + data, False)
        chunk(c, 1, cookie, struct.pack(">Q", off) + data)
    elif fault == "overlap":
        chunk(c, 1, cookie, struct.pack(">Q", off) + data[:n // 2], False)
        chunk(c, 1, cookie, struct.pack(">Q", off + n // 4) + data[n // 4:n // 4 + n // 2])
    elif fault == "islands":
        # so many pieces, each second one first
        step = n // argument
        for i in [*range(0, n, 2 * step), *range(step, n, 2 * step)]:
            chunk(c, 1, cookie, struct.pack(">Q", off + i) + data[i:i + step], False)
        chunk(c, 0, cookie, b"")
    elif fault == "hole-outside":
        chunk(c, 2, cookie, struct.pack(">QI", off, n + 1))
    elif fault == "simple-read":
        simple(c, cookie, 0, data)
    elif fault == "read-error":
        chunk(c, 1 << 15 | 2, cookie, struct.pack(">IH3sQ", 5, 3, b"bad", off))
    elif fault == "pieces" and n > 1024:
        # from behind, with a hole where there are zeros
        half = n // 2 & ~511
        if data[half:].strip(b"\0"):
            chunk(c, 1, cookie, struct.pack(">Q", off + half) + data[half:], False)
        else:
            chunk(c, 2, cookie, struct.pack(">QI", off + half, n - half), False)
        chunk(c, 1, cookie, struct.pack(">Q", off) + data[:half], False)
        chunk(c, 0, cookie, b"")
    else:
        chunk(c, 1, cookie, struct.pack(">Q", off) + data)


def transmit(c, structured):
    writes = flushes = 0
    held = []
    try:
        while True:
            # answers come in another order than requests
            if held and (len(held) >= 16 or not select.select([c], [], [], 0.02)[0]):
                for cookie in reversed(held):
                    simple(c, cookie)
                held = []
            magic, _, command, cookie, off, n = struct.unpack(">IHHQQI", get(c, 28))
            assert magic == 0x25609513
            if command == 1:
                data = get(c, n)
            if command == 2:
                raise Gone
            if command in (1, 6):
                writes += 1
                if fault == "kill" and writes >= argument:
                    os._exit(0)
                if fault == "silent" and writes >= argument:
                    time.sleep(1000)
                if fault == "write-error" and writes >= argument:
                    simple(c, cookie, 28)
                    continue
                if fault == "strange-error" and writes >= argument:
                    simple(c, cookie, 4711)
                    continue
                disk[off:off + n] = data if command == 1 else bytes(n)
                if fault == "cookie" and writes >= argument:
                    cookie += 1 << 20
                if fault == "garbage" and writes >= argument:
                    c.sendall(b"this is no reply at all")
                if fault == "chunk-type" and writes >= argument:
                    chunk(c, 9, cookie, b"?")
                if fault == "bad-error" and writes >= argument:
                    chunk(c, 1 << 15 | 1, cookie, struct.pack(">IH", 5, 100))
                if fault == "zeroes-unsupported" and command == 6:
                    simple(c, cookie, 95)
                    continue
                if fault == "shuffle":
                    held.append(cookie)
                    continue
                simple(c, cookie)
            elif command == 3:
                flushes += 1
                simple(c, cookie, 5 if fault == "flush-error" else 0)
            else:
                answer_read(c, structured, cookie, off, n)
    finally:
        print("writes", writes, "flushes", flushes, flush=True)


s = socket.socket(socket.AF_UNIX)
s.bind(path)
s.listen(4)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    try:
        transmit(c, handshake(c))
    except (Gone, ConnectionError):
        pass
    c.close()
    with open("served.raw", "wb") as f:
        f.write(disk)
