#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random deltas, options, file systems and kills, against mkvmdk's model: a differential test.

Usage: tests/random-runs.py [--time SECONDS] [--seed N] [--case N] [--dir DIR] [--place NAME]

Each case makes a disk, one to three deltas, and what mkvmdk says the disk is with them; then runs
vmdksync, maybe killed and run again, or rolled back, and compares the whole target, what lies behind
the disk included. Case N of a seed is always the same but for the moment of a kill by time. --case
runs that one alone, --place only those on NAME.

As root the targets lie on file systems of its own and on loop devices, all of that in memory, and in
DIR; else in DIR alone. It goes away with this process: the mounts with their namespace, the loop
devices with the last who has them open.

VMDKSYNC, MKVMDK: the programs. Exit: 0 all right; 1 a wrong byte, a wrong status or a hang; the
commands of the case are printed, and its files are in DIR/failed.
"""
import argparse
import atexit
import collections
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VMDKSYNC = os.environ.get('VMDKSYNC', f'{TOP}/build/plain/vmdksync')
MKVMDK = os.environ.get('MKVMDK', f'{TOP}/build/plain/mkvmdk')
SECTOR = 512
DEVICE_SECTORS = 49152
LIMIT = 180  # seconds for one command: longer is a hang
# the calls at which strace kills: those that change something, or wait for it
CALLS = 'pwrite64,pwritev,pwritev2,fdatasync,fallocate,ftruncate,io_uring_enter,ioctl,unlinkat,renameat2'
HELD = re.compile('in use by another program|is locked by|open for writing elsewhere')


class Wrong(Exception):
    """What the program did is not what it has to do."""


# --- where targets lie ---------------------------------------------------------------------------


class Place:
    """A folder for targets, or a block device that is the target."""

    def __init__(self, name, folder=None, device=None, reflink=False):
        self.name = name
        self.folder = folder
        self.device = device
        self.reflink = reflink
        self.again = None  # forgets what is cached

    def __str__(self):
        return self.name


def quiet(*words):
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


def loop(image, sector):
    """The device goes when it is closed by the last who has it open or mounted; the first is us."""
    for left in reversed(range(100)):
        try:
            device = quiet('losetup', '--find', '--show', '--sector-size', str(sector), image).strip()
            break
        except subprocess.CalledProcessError as e:
            # to find a device and to take it are two steps, and other tests do the same now
            if not left:
                raise OSError(f'losetup: {e.stderr.strip()}') from e
            time.sleep(0.1)
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    quiet('losetup', '--detach', device)
    return device, fd


def file_system(name, kind, megabytes, make=(), sector=512, options='discard'):
    """Mounts a new one, or says why there is none."""
    image, folder = f'{name}.img', f'{os.getcwd()}/{name}'
    if not shutil.which(f'mkfs.{kind}'):
        raise OSError(f'there is no mkfs.{kind}')
    with open(image, 'wb') as f:
        f.truncate(megabytes << 20)
    device, fd = loop(image, sector)
    try:
        try:
            quiet(f'mkfs.{kind}', '-q', *make, device)
            os.makedirs(folder, exist_ok=True)
            quiet('mount', '-t', kind, '-o', options, device, folder)
        except subprocess.CalledProcessError as e:
            with open('/proc/filesystems', encoding='ascii') as f:
                if kind not in f.read().split():
                    raise OSError(f'the kernel has no {kind}') from e
            raise RuntimeError(f'{name}: {" ".join(e.cmd)}: {e.stderr.strip()}') from e
    finally:
        os.close(fd)
    place = Place(name, folder=folder, reflink=kind in ('xfs', 'btrfs'))
    place.again = lambda: quiet('mount', '-o', 'remount', folder)
    return place


def memory():
    folder = f'{os.getcwd()}/tmpfs'
    os.makedirs(folder, exist_ok=True)
    quiet('mount', '-t', 'tmpfs', '-o', 'size=200M', 'tmpfs', folder)
    return Place('tmpfs', folder=folder)


def block_device(sector):
    image = f'loop-{sector}.img'
    with open(image, 'wb') as f:
        f.truncate(DEVICE_SECTORS * SECTOR)
    device, fd = loop(image, sector)
    place = Place(f'loop-{sector}', device=device)
    place.fd = fd  # to keep it
    place.again = lambda: quiet('blockdev', '--flushbufs', device)
    return place


def places(here, may_mount):
    """All of them, None for what is not to be had, and a line for each of these."""
    found, lacks = [Place('here', folder=here)], []
    kinds = (
        ('ext4', lambda n: file_system(n, 'ext4', 160)),
        ('ext4-1k', lambda n: file_system(n, 'ext4', 160, ('-b', '1024'))),
        ('ext4-on-4096', lambda n: file_system(n, 'ext4', 160, sector=4096)),
        ('xfs', lambda n: file_system(n, 'xfs', 320)),
        ('btrfs', lambda n: file_system(n, 'btrfs', 256)),
        ('btrfs-zstd', lambda n: file_system(n, 'btrfs', 256, options='discard,compress-force=zstd')),
        ('tmpfs', lambda n: memory()),
        ('loop-512', lambda n: block_device(512)),
        ('loop-4096', lambda n: block_device(4096)),
    )
    for name, make in kinds:
        try:
            if not may_mount:
                raise OSError('needs root, and a namespace for its mounts')
            found.append(make(name))
        except OSError as e:
            found.append(None)  # so that a case has the same place everywhere
            lacks.append(f'{name} ({e})')
    return found, lacks


# --- disks and deltas ----------------------------------------------------------------------------


def grains(r, total):
    """A SPEC of mkvmdk."""
    parts = []
    for _ in range(r.choice((1, 1, 1, 2))):
        longest = r.randint(1, min(total, r.choice((1, 4, 40, 400))))
        runs = r.randint(1, max(1, min(60, total // longest // 2)))
        parts.append(r.choice((
            f'random:{r.randint(1, total)}' if total < 5000 else f'random:{r.randint(1, 1500)}',
            f'runs:{runs}:1:{longest}',
            f'runs:{runs}:1:{longest}',
            f'every:{r.randint(1, 9)}',
            'all',
            'last',
            '0',
            'none',
        )))
    return '+'.join(parts)


def recipe(r, capacity):
    """FORMAT and the keys of a random delta."""
    form = r.choice(('cowd', 'cowd', 'hosted', 'sesparse', 'stream'))
    grain = {
        'cowd': (1, 1, 1, 8, 16, 128),
        'hosted': (128, 128, 1, 8, 16, 64),
        'sesparse': (8,),
        'stream': (128, 128, 8, 16),
    }[form]
    grain = r.choice(grain)
    total = -(-capacity // grain)
    keys = [f'seed={r.randint(1, 1 << 30)}', f'alloc={grains(r, total)}']
    if form != 'sesparse':
        keys.append(f'grain={grain}')
    layouts = ['seq', 'random', 'runs', 'reverse'] + (['tables-last'] if form in ('cowd', 'hosted') else [])
    keys.append(f'layout={r.choice(layouts)}')
    if form != 'stream' and r.random() < 0.5:
        keys.append(f'zero={grains(r, total)}')
    if form == 'sesparse' and r.random() < 0.4:
        keys.append(f'unmapped={grains(r, total)}')
    if form == 'hosted':
        keys.append(f'rgd={r.randint(0, 1)}')
    if form == 'stream':
        keys.append(f'variant={r.choice("ABC")}')
    if r.random() < 0.2:
        keys.append('tables=all')
    return form, keys


EXTENTS = {'cowd': 'VMFSSPARSE', 'sesparse': 'SESPARSE', 'hosted': 'SPARSE', 'stream': 'SPARSE'}
TYPES = {'cowd': 'vmfsSparse', 'sesparse': 'seSparse', 'hosted': 'monolithicSparse', 'stream': 'streamOptimized'}


def descriptor(name, kind, extent, cid, parent='', parent_cid='ffffffff'):
    with open(name, 'w', encoding='ascii') as f:
        f.write(f'# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent_cid}\n')
        f.write(f'createType="{kind}"\n')
        if parent:
            f.write(f'parentFileNameHint="{parent}"\n')
        f.write(f'# Extent description\n{extent}\n')


def stretches(r, size):
    """Random stretches of a disk, [(start, end)], as often as not at odd places."""
    cuts = set()
    for _ in range(r.choice((0, 1, 4, 12))):
        align = r.choice((1, 512, 4096, 65536))
        cuts.add(r.randrange(size) // align * align)
    cuts = sorted(cuts | {0, size})
    return [(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


def disk(r, name, capacity):
    """The disk before: a pattern, with stretches that are zero or of one byte. Returns the former."""
    subprocess.run([MKVMDK, 'pattern', name, str(capacity), str(r.randint(1, 1 << 30))], check=True)
    zeros = []
    with open(name, 'r+b') as f:
        for start, end in stretches(r, capacity * SECTOR):
            kind = r.random()
            if kind < 0.35:
                zeros.append((start, end))
            if kind < 0.5:
                f.seek(start)
                f.write((b'\0' if kind < 0.35 else b'x') * (end - start))
    return zeros


def lay(r, place, source, zeros, tail):
    """The target: holds what SOURCE does and TAIL behind it; returns its path and a note."""
    with open(source, 'rb') as f:
        data = f.read()
    if place.device:
        with open(place.device, 'r+b') as f:
            f.write(data + tail)
            f.write(b'T' * (DEVICE_SECTORS * SECTOR - len(data) - len(tail)))
            f.flush()
            os.fsync(f.fileno())
        return place.device, 'device'
    path = f'{place.folder}/target'
    prepared = r.random() < 0.3
    notes = collections.Counter()
    with open(path, 'xb') as f:
        if prepared:
            os.posix_fallocate(f.fileno(), 0, len(data) + len(tail))
            notes['unwritten'] += 1
        f.truncate(len(data) + len(tail))
        at = 0
        for start, end in zeros + [(len(data), len(data))]:
            f.seek(at)
            f.write(data[at:start])
            if r.random() < 0.3:
                f.write(data[start:end])
                notes['zeros'] += 1
            else:
                notes['holes'] += not prepared and start < end
            at = end
        f.seek(len(data))
        f.write(tail)
        f.flush()
        if r.random() < 0.7:  # else its blocks may not have places on the disk yet
            os.fsync(f.fileno())
            notes['synced'] += 1
    if place.reflink and r.random() < 0.4:
        quiet('cp', '--reflink=always', path, f'{place.folder}/sibling')
        notes['reflinked'] += 1
    return path, ' '.join(sorted(k for k, n in notes.items() if n)) or 'dense'


# --- one case ------------------------------------------------------------------------------------


class Case:
    def __init__(self, seed, number, place, tools):
        self.r = random.Random(f'{seed}:{number}')
        self.place = place
        self.tools = tools
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def make(self):
        """Deltas d0 ..., orig, want and the target."""
        r = self.r
        largest = DEVICE_SECTORS - 64
        self.capacity = r.randint(1, 300) if r.random() < 0.15 else r.randint(300, min(40000, largest))
        if r.random() < 0.5:
            self.capacity = -(-self.capacity // 8) * 8
        self.job = r.choice(('apply', 'apply', 'apply', 'several', 'chain', 'full'))
        zeros = disk(r, 'orig', self.capacity)
        shutil.copyfile('orig', 'want')
        self.deltas = []
        before, cid = 'base.vmdk', '10000000'
        descriptor(before, 'vmfs', f'RW {self.capacity} VMFS "orig"', cid)
        for i in range(1 if self.job == 'apply' else r.randint(1, 3)):
            form, keys = recipe(r, self.capacity)
            if form in ('hosted', 'stream'):
                keys += [f'parent={before}', f'parentcid={cid}']
            words = [MKVMDK, form, f'd{i}', f'capacity={self.capacity}', *keys, 'apply=want']
            self.say(shlex.join(words))
            subprocess.run(words, check=True)
            self.deltas.append(f'd{i}')
            # mkvmdk puts this CID into the descriptors inside of what it makes
            mine = 'aabbccdd' if form in ('hosted', 'stream') else f'1000000{i + 1}'
            descriptor(f'd{i}.vmdk', TYPES[form], f'RW {self.capacity} {EXTENTS[form]} "d{i}"', mine, before, cid)
            before, cid = f'd{i}.vmdk', mine
        self.images = self.deltas
        if self.job in ('chain', 'full'):
            self.images = [before]

        tail = b''
        if self.place.device or r.random() < 0.3:
            tail = b'tail of the target '[:r.randint(1, 19)] * r.randint(1, 500)
            if self.place.device:
                tail = tail[:(largest - self.capacity) * SECTOR]
        self.create = self.job == 'full' and not self.place.device and r.random() < 0.4
        self.before = 'orig'
        if self.job == 'full':
            # the target may hold anything
            self.before = 'garbage'
            zeros = disk(r, 'garbage', self.capacity)
        if self.create:
            self.target, note, tail = f'{self.place.folder}/target', 'not there', b''
        else:
            self.target, note = lay(r, self.place, self.before, zeros, tail)
        self.tail = tail
        if self.place.device:
            self.tail += b'T' * (DEVICE_SECTORS * SECTOR - self.capacity * SECTOR - len(tail))
        self.say(f'target: {self.place}, {note}, {len(self.tail)} bytes behind the disk')

    def choose(self):
        """How it is run."""
        r = self.r
        self.options = []
        if r.random() < 0.3:
            self.options.append('--no-uring')
        if r.random() < 0.25:
            self.options.append('--read-back')
        if self.job in ('chain', 'full'):
            self.options.append(f'--{self.job}')
        if self.create:
            self.options.append('--create')
        self.pipe = None
        if self.job == 'apply' and r.random() < 0.5:
            self.pipe = 'd0'
            if r.random() < 0.4:
                with open('d0.gz', 'wb') as f:
                    subprocess.run(['gzip', f'-{r.choice("16")}c', 'd0'], stdout=f, check=True)
                self.pipe = 'd0.gz'
            self.images = ['-']
            if r.random() < 0.25:
                self.options.append('--spool-first')
            if r.random() < 0.3:
                self.options.append(f'--memory={r.choice(("1", "4K", "64K", "1M"))}')
            if r.random() < 0.3:
                self.options.append(f'--expect-size={os.path.getsize("d0")}')
            chunks = ','.join(str(r.choice((511, 4095, 4096, 65537, 1000003, r.randint(300, 300000))))
                              for _ in range(r.randint(1, 5)))
            self.feed = r.choice((['cat', self.pipe], [MKVMDK, 'dribble', self.pipe, chunks]))
        self.undo = not self.create and r.random() < 0.45
        self.kills = r.choice((0, 0, 1, 1, 2)) if not self.create else 0
        self.was_killed = False

    def run(self, *words, feed=False, kill=None):
        """Runs vmdksync and returns its status, None where it was killed."""
        status, said = self.run_once(*words, feed=feed, kill=kill)
        # a run that was killed holds the target until its last writes are done
        until = time.monotonic() + LIMIT
        while self.was_killed and status == 2 and HELD.search(said) and time.monotonic() < until:
            time.sleep(0.1)
            status, said = self.run_once(*words, feed=feed, kill=kill)
        self.was_killed = status is None
        return status

    def run_once(self, *words, feed=False, kill=None):
        r = self.r
        words = [VMDKSYNC, '-q', *words]
        env = dict(os.environ)
        if kill == 'call':
            when = 1 + r.randrange(40) * r.choice((1, 1, 3))
            words = ['strace', '-qqf', '-o', '/dev/null', '-e', f'trace={CALLS}', '-e',
                     f'inject={CALLS}:signal=KILL:when={when}', *words]
            env['ASAN_OPTIONS'] = env.get('ASAN_OPTIONS', '') + ':detect_leaks=0'
        self.say((f'{shlex.join(self.feed)} | ' if feed else '') + shlex.join(words) +
                 (f'  # {kill}' if kill in ('KILL', 'INT') else ''))
        feeder = None
        if feed:
            # the feeder dies of a closed pipe, as it is the custom; Python has it ignored
            feeder = subprocess.Popen(self.feed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                      stdin=subprocess.DEVNULL, restore_signals=True)
        with subprocess.Popen(words, stdin=feeder.stdout if feed else subprocess.DEVNULL, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
            if feed:
                feeder.stdout.close()
            try:
                if kill in ('KILL', 'INT'):
                    try:
                        said = p.communicate(timeout=r.choice((0.002, 0.01, 0.03, 0.08)))[0]
                    except subprocess.TimeoutExpired:
                        p.send_signal(getattr(signal, f'SIG{kill}'))
                        said = p.communicate(timeout=LIMIT)[0]
                else:
                    said = p.communicate(timeout=LIMIT)[0]
            except subprocess.TimeoutExpired as e:
                p.kill()
                raise Wrong(f'a hang: nothing for {LIMIT} s') from e
            finally:
                if p.poll() is None:
                    p.kill()
                if feeder:
                    feeder.kill()
                    feeder.wait()
        said = said.decode(errors='replace')
        for line in said.splitlines():
            self.say(f'    {line}')
        status = None if p.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) else p.returncode
        self.say(f'    -> {"killed" if status is None else status}')
        return status, said

    def is_like(self, want):
        """The target holds WANT, and behind it what it held there."""
        with open(want, 'rb') as f:
            data = f.read() + self.tail
        with open(self.target, 'rb') as f:
            return f.read() == data

    def has_to_be(self, want):
        if self.place.again and self.r.random() < 0.3:
            self.place.again()
        if self.is_like(want):
            return
        with open(want, 'rb') as f:
            data = f.read() + self.tail
        with open(self.target, 'rb') as f:
            got = f.read()
        if len(got) != len(data):
            raise Wrong(f'the target has {len(got)} bytes, not {len(data)} as in {want}')
        bad = [i for i in range(0, len(data), SECTOR) if data[i:i + SECTOR] != got[i:i + SECTOR]]
        raise Wrong(f'the target is not {want}: {len(bad)} sectors differ, the first at {bad[0]}, the last at {bad[-1]}')

    def apply(self, *more, kill=None):
        return self.run(*self.options, *more, *self.images, self.target, feed=bool(self.pipe), kill=kill)

    def ends_well(self, *more):
        status = self.apply(*more)
        if status != 0:
            raise Wrong(f'exit status {status}, not 0')
        self.has_to_be('want')

    def rolls_back(self):
        """By the log; then, maybe, there again by the log of that."""
        r = self.r
        more = r.choice(([], [], ['--undo=redo.vmdk']))
        status = self.run(*more, 'undo.vmdk', self.target)
        if status != 0:
            raise Wrong(f'the way back: exit status {status}, not 0')
        self.has_to_be(self.before)
        if more and self.finished:
            if self.run('redo.vmdk', self.target) != 0:
                raise Wrong('the way back from the way back: exit status is not 0')
            self.has_to_be('want')

    def killed(self):
        """Killed once or twice; then on, or back."""
        r = self.r
        for n in range(self.kills):
            kill = r.choice(('KILL', 'INT', 'call', 'call') if self.tools['strace'] else ('KILL', 'INT'))
            status = self.apply(*self.undo_words(), kill=kill)
            if status is not None:
                if status not in ((0, 2, 3, -signal.SIGINT) if kill == 'INT' else (0,)):
                    raise Wrong(f'exit status {status}')
                if status == 0:
                    self.has_to_be('want')
                # -SIGINT: before it was asked for
                if status in (2, -signal.SIGINT) and n == 0:
                    self.has_to_be(self.before)
            if status == 0:
                break
        if not self.undo:
            self.ends_well()
            return
        self.finished = False
        if r.random() < 0.5:
            self.goes_on()
            self.finished = True
        if os.path.exists('undo.vmdk') and os.path.getsize('undo.vmdk'):
            self.rolls_back()
        else:
            self.has_to_be(self.before)

    def undo_words(self):
        if not self.undo:
            return []
        return ['--undo=undo.vmdk'] + (['--undo-append'] if os.path.exists('undo.vmdk') else [])

    def goes_on(self):
        # a log that is finished belongs to a target that is
        if os.path.exists('undo.vmdk') and self.is_like('want') and \
                self.run('--strict', '--dry-run', 'undo.vmdk', self.target) == 0:
            return
        self.ends_well(*self.undo_words())

    def verifies(self):
        """Equal as it is; a byte that differs is found."""
        images = self.deltas if self.pipe else self.images
        words = ['--verify', *(w for w in self.options if w == '--no-uring'), *images, self.target]
        status = self.run(*words)
        if status != 0:
            raise Wrong(f'--verify of what is equal: exit status {status}')
        with open('orig', 'rb') as f, open('want', 'rb') as g:
            old, new = f.read(), g.read()
        where = [i for i in range(0, len(new), SECTOR) if old[i:i + SECTOR] != new[i:i + SECTOR]]
        if not where:
            return
        at = self.r.choice(where) + self.r.randrange(SECTOR)
        with open(self.target, 'r+b') as f:
            f.seek(at)
            f.write(bytes((new[at] ^ 0x10,)))
        status = self.run(*words)
        if status != 1:
            raise Wrong(f'--verify with byte {at} changed: exit status {status}')

    def go(self):
        self.make()
        self.choose()
        self.finished = True
        if self.kills:
            self.killed()
        else:
            self.ends_well(*self.undo_words())
            if self.r.random() < 0.3:
                self.verifies()
            elif self.undo:
                self.rolls_back()
        if os.path.exists(f'{self.place.folder}/sibling') and not self.sibling_is():
            raise Wrong('the file that shared its blocks with the target changed')

    def sibling_is(self):
        with open(self.before, 'rb') as f:
            data = f.read() + self.tail
        with open(f'{self.place.folder}/sibling', 'rb') as f:
            return f.read() == data

    def clean(self):
        for name in os.listdir('.'):
            if os.path.isfile(name) and not name.endswith('.img'):
                os.remove(name)
        if self.place.folder:
            for name in os.listdir(self.place.folder):
                path = f'{self.place.folder}/{name}'
                if os.path.isfile(path):
                    os.remove(path)


# --- all of them ---------------------------------------------------------------------------------


def keep(case, folder):
    os.makedirs(folder, exist_ok=True)
    for path in [name for name in os.listdir('.') if os.path.isfile(name) and not name.endswith('.img')]:
        quiet('cp', '--sparse=always', path, folder)
    if os.path.exists(case.target):
        quiet('cp', '--sparse=always', case.target, f'{folder}/target')


def remove(work, here, mounted):
    os.chdir('/')
    if mounted:
        quiet('umount', '--recursive', '--lazy', work)
    shutil.rmtree(work)
    shutil.rmtree(here)


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument('--time', type=float, default=60)
    p.add_argument('--seed', type=int, default=int(time.time() * 1000) % 1000000007)
    p.add_argument('--case', type=int)
    p.add_argument('--dir', default='.')
    p.add_argument('--place')
    p.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    may_mount = subprocess.run(['unshare', '--mount', 'true'], capture_output=True, check=False).returncode == 0
    if may_mount and not args.inside:
        os.execvp('unshare', ['unshare', '--mount', sys.executable, *sys.argv, '--inside', '--seed', str(args.seed)])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    top = os.path.abspath(args.dir)
    work, here = (tempfile.mkdtemp(prefix=name, dir=top) for name in ('work.', 'here.'))
    if may_mount:
        # What lies beneath the file systems need not last, and a disk that others use takes its time.
        quiet('mount', '-t', 'tmpfs', '-o', 'size=2G', 'tmpfs', work)
    os.chdir(work)
    atexit.register(remove, work, here, may_mount)
    tools = {'strace': shutil.which('strace') and
             subprocess.run(['strace', '-o', '/dev/null', 'true'], capture_output=True, check=False).returncode == 0}
    print(f'RANDOM_SEED={args.seed}', flush=True)
    found, lacks = places(here, may_mount)
    for line in lacks:
        print(f'skipped: {line}')
    if not tools['strace']:
        print('skipped: kills at a system call (strace may not trace here)')
    count = collections.Counter()
    end = time.monotonic() + args.time
    number = args.case if args.case is not None else 0
    while args.case == number or (args.case is None and time.monotonic() < end):
        place = found[number % len(found)]
        if place and args.place in (None, place.name):
            case = Case(args.seed, number, place, tools)
            case.clean()
            try:
                case.go()
            except BaseException as e:
                print(f'--- case {number}, on {place}, seed {args.seed}')
                print('\n'.join(case.lines))
                print(f'{type(e).__name__}: {e}')
                if isinstance(e, Wrong):
                    keep(case, f'{top}/failed')
                    print(f'again: RANDOM_SEED={args.seed} RANDOM_CASE={number}; its files: {top}/failed')
                    sys.exit(1)
                raise
            if args.case is not None:
                print('\n'.join(case.lines))
            case.clean()
            count[place.name] += 1
            count['killed'] += case.kills > 0
            count[case.job] += 1
        number += 1
    print(f'{sum(count[f.name] for f in found if f)} runs: ' + ', '.join(f'{n} {k}' for k, n in count.items()))


if __name__ == '__main__':
    main()
