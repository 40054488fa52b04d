#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Injects a failure into each system call of vmdksync, from outside, with strace.

usage: inject.py VMDKSYNC MKVMDK SECONDS|all

In the current folder. Each scenario is run once to count its calls, then again and again with one call
failing. No exit status may lie: 0 needs right bytes and a sync that did not fail, 2 an untouched target; after
3 the undo log, or a second run, makes it right. No run may hang or crash. Prints a table; ends with 1 where
something was wrong.
"""
import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

# What each call may fail with. Left out: what glibc itself ends the process for, or what strace would swallow
# (a futex wake that is not made is a hang of strace's making), calls that cannot fail, and ENXIO of lseek, which
# is an answer: there is no data from here on.
ERRORS = {
    'openat': 'EACCES EIO ENOMEM EMFILE', 'openat2': 'ENOSYS EPERM EIO',
    'read': 'EIO EINTR', 'pread64': 'EIO EINTR ENOMEM', 'preadv': 'EIO EINTR',
    'write': 'EIO ENOSPC EINTR', 'pwrite64': 'EIO ENOSPC EINTR EAGAIN', 'pwritev': 'EIO ENOSPC EINTR',
    'writev': 'EIO ENOSPC', 'fallocate': 'EIO ENOSPC EINTR EOPNOTSUPP',
    'fdatasync': 'EIO ENOSPC EINTR EDQUOT', 'fsync': 'EIO ENOSPC EINTR', 'ftruncate': 'EIO ENOSPC EINTR',
    'mmap': 'ENOMEM', 'mremap': 'ENOMEM', 'brk': 'ENOMEM', 'madvise': 'EINVAL ENOMEM', 'mincore': 'ENOMEM EAGAIN',
    'munmap': 'EINVAL', 'mprotect': 'ENOMEM', 'fstat': 'EIO', 'newfstatat': 'EIO ENOENT EACCES', 'statx': 'EIO ENOSYS',
    'statfs': 'EIO', 'fstatfs': 'EIO', 'lseek': 'EIO EINVAL', 'ioctl': 'EIO ENOTTY', 'fcntl': 'EINVAL ENOMEM EINTR',
    'flock': 'EINTR ENOLCK EAGAIN', 'readlink': 'EIO', 'faccessat2': 'EACCES', 'getdents64': 'EIO',
    'io_uring_setup': 'ENOMEM ENOSYS EPERM', 'io_uring_enter': 'EINTR EAGAIN EBUSY EIO EPERM',
    'io_uring_register': 'EINVAL ENOMEM', 'clone3': 'EAGAIN ENOMEM', 'clone': 'EAGAIN', 'poll': 'EINTR ENOMEM',
    'ppoll': 'EINTR', 'splice': 'EINVAL EIO EINTR EAGAIN', 'pipe2': 'EMFILE', 'eventfd2': 'EMFILE',
    'unlink': 'EIO', 'fadvise64': 'EINVAL', 'close': 'EIO EINTR', 'prlimit64': 'EPERM', 'dup': 'EMFILE',
    'sched_getaffinity': 'EINVAL', 'sysinfo': 'ENOSYS', 'getrandom': 'ENOSYS EINTR', 'clock_nanosleep': 'EINTR',
    'rt_sigaction': 'EINVAL', 'rt_sigprocmask': 'EINVAL', 'uname': 'EFAULT', 'access': 'EACCES', 'lstat': 'EIO',
    'memfd_create': 'EMFILE', 'sched_setaffinity': 'EPERM', 'getcwd': 'ENOMEM', 'rename': 'EIO',
}
SYNCS = ('fdatasync', 'fsync')
# name, input ('' or how it comes), options and names, expected target, undo log
SCENARIOS = [
    ('apply', '', ['d.vmdk', 't'], 'want', False),
    ('apply in line', '', ['--no-uring', 'd.vmdk', 't'], 'want', False),
    ('undo', '', ['--undo=u.vmdk', 'd.vmdk', 't'], 'want', True),
    ('undo in line', '', ['--no-uring', '--undo=u.vmdk', 'd.vmdk', 't'], 'want', True),
    ('roll back', '', ['log.vmdk', 't'], 't.orig', False),
    ('pipe', 'd.vmdk', ['-', 't'], 'want', False),
    ('pipe in line', 'd.vmdk', ['--no-uring', '-', 't'], 'want', False),
    ('gzip, read back', 'd.vmdk.gz', ['--read-back', '-', 't'], 'want', False),
    ('spooled', 'd.vmdk', ['--spool-first', '-', 't'], 'want', False),
    ('create', '', ['--create', 'd.vmdk', 'new'], 'fresh', False),
    ('verify', '', ['--verify', 'd.vmdk', 't'], 'want', False),
]


def same(a, b):
    with open(a, 'rb') as x, open(b, 'rb') as y:
        return x.read() == y.read()


def run(program, trace, scenario):
    """Exit status (negative: a signal; None: it hung), and what it said."""
    _, sent, args, want, _ = scenario
    for name in ('u.vmdk', 'new', 't'):
        if os.path.exists(name):
            os.unlink(name)
    start = {'t.orig': 'want', 'want': 't.orig', 'fresh': None}[want]
    if args[0] == '--verify':
        start = 'want'
    if start:
        shutil.copyfile(start, 't')
    command = ['strace', '-f', '-qq', '-o', 'trace'] + trace + [program] + args
    sender = subprocess.Popen(['cat', sent], stdout=subprocess.PIPE) if sent else None
    p = subprocess.Popen(command, stdin=sender.stdout if sender else subprocess.DEVNULL, start_new_session=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, said = p.communicate(timeout=60)
        return p.returncode, said.decode(errors='replace')
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)  # the program, too: it holds the lock of the target
        p.communicate()
        return None, ''
    finally:
        if sender:
            sender.stdout.close()
            sender.wait()


def judge(program, scenario, call, error, status, said):
    """What is wrong, or None."""
    _, _, args, want, undo = scenario
    target = args[-1]
    before = 't.orig' if want == 'want' else 'want'
    if args[0] == '--verify':
        before = want
    if status is None:
        return 'hangs'
    if status == 127 and 'loading shared libraries' in said or status in (127, 126):
        status = 2  # of the loader: nothing was begun
    if status not in (0, 2, 3):
        return f'exit status {status}'
    if status == 0:
        if args[0] != '--verify' and not same(target, want):
            return 'exit 0, wrong bytes'
        injected = open('trace', encoding='utf-8', errors='replace').read().count('INJECTED')
        if call in SYNCS and error != 'EINTR' and injected and args[0] != '--verify':
            return 'exit 0, not durable'
        return None
    if not said.strip():
        return 'says nothing'
    if args[0] == '--verify' or status == 2:
        if target == 'new':
            return 'exit 2, a target is left' if os.path.exists('new') else None
        return None if same('t', before) else f'exit {status}, target touched'
    if undo:
        if not os.path.exists('u.vmdk'):
            return 'exit 3, no undo log'
        again = subprocess.run([program, '-q', 'u.vmdk', 't'], capture_output=True, check=False)
        if again.returncode or not same('t', 't.orig'):
            return f'exit 3, cannot be rolled back: {again.returncode} {again.stderr.decode()}'
        return None
    source = args[-2] if args[-2] != '-' else 'd.vmdk'
    again = subprocess.run([program, '-q', source, target], capture_output=True, check=False)
    return None if not again.returncode and same(target, want) else 'exit 3, a second run is not right'


def positions(before, count, every):
    """Of how many calls of a thread, which fail; not those before main()."""
    all_of_them = range(before + 1, count + 1)
    if every:
        return all_of_them
    some = {before + 1, before + 2, before + 3, (before + count) // 2, count - 1, count}
    return sorted(some & set(all_of_them))


def main():
    program, mkvmdk, limit = sys.argv[1:]
    every = limit == 'all'
    until = time.monotonic() + (1e9 if every else float(limit))
    os.environ['TMPDIR'] = os.getcwd()
    subprocess.run([mkvmdk, 'pattern', 't.orig', '8192', '9'], check=True)
    shutil.copyfile('t.orig', 'want')
    subprocess.run([mkvmdk, 'cowd', 'd.vmdk', 'capacity=8192', 'alloc=random:300', 'zero=runs:5:40:200',
                    'apply=want'], check=True)
    subprocess.run(['gzip', '-kf', 'd.vmdk'], check=True)
    for name in ('fresh', 't'):
        shutil.copyfile('t.orig', name)
    subprocess.run([program, '-q', '--undo=log.vmdk', 'd.vmdk', 't'], check=True)
    os.unlink('fresh')
    subprocess.run([program, '-q', '--create', 'd.vmdk', 'fresh'], check=True)

    work = []
    for scenario in SCENARIOS:
        status, said = run(program, ['-e', 'trace=all'], scenario)
        if status != 0:
            sys.exit(f'{scenario[0]}: {status} {said}')
        threads, first = collections.Counter(), None
        for line in open('trace', encoding='utf-8', errors='replace'):
            m = re.match(r'(\d+) +(\w+)\(', line)
            if m:
                threads[m.groups()] += 1
            # main() begins: the loader does not survive all failures, and is not ours
            if first is None and 'RLIMIT_NOFILE' in line:
                first = {call: n for (_, call), n in threads.items()}
        calls = collections.Counter()
        for (_, call), n in threads.items():
            calls[call] = max(calls[call], n)
        for call, n in calls.items():
            for error in ERRORS.get(call, '').split():
                for when in positions(first.get(call, 0), n, every and n < 200):
                    work.append((scenario, call, error, when))
    seed = int(os.environ.get('INJECT_SEED', random.randrange(1 << 30)))
    random.Random(seed).shuffle(work)

    table, bad, tried = {}, [], 0
    for scenario, call, error, when in work:
        if time.monotonic() > until:
            break
        tried += 1
        how = 'retval=0' if call == 'brk' else f'error={error}'  # a brk that fails returns no errno
        trace = ['-e', f'trace={call}', '-e', f'inject={call}:{how}:when={when}']
        status, said = run(program, trace, scenario)
        wrong = judge(program, scenario, call, error, status, said)
        row = table.setdefault((call, error), collections.Counter())
        row[status if status is not None else 'hung'] += 1
        if wrong:
            bad.append(f'{scenario[0]}: {call} {error} when={when}: {wrong}\n    {said.strip()}')
    print(f'{tried} of {len(work)} failures tried, seed {seed}')
    print(f'{"call":18} {"error":11} {"runs":>5}  exit status: runs')
    for (call, error), row in sorted(table.items()):
        print(f'{call:18} {error:11} {sum(row.values()):5}  ' +
              ', '.join(f'{k}: {n}' for k, n in sorted(row.items(), key=str)))
    for line in bad:
        print('WRONG', line)
    sys.exit(1 if bad else 0)


main()
