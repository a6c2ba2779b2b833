"""Power failures under a real file system: every write and flush of its disk is recorded.

The disk is a file of a FUSE server (fuse_disk.py) that writes down what comes, and a loop device
carries ext4 or XFS on it. A worker runs there, its marks go to the same record. Then the record is
replayed: up to any point of it, with all that was flushed before, and any subset of what was not,
in pieces of a page. Each such image is mounted, which replays the file system's own journal, and
the arena in it is opened and judged. Needs root, in a mount namespace of its own: what goes wrong
leaves no mounts behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checker import Checker
from fuse_disk import read_log
from history import History
from simulator import Tally, keep_bad

HERE = Path(__file__).resolve().parent
PIECE = 4096
MIB = 2**20
# XFS refuses less than 300 MiB
FILE_SYSTEMS = {
    "ext4": (64, ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"], []),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"], ["-o", "nouuid"]),
}
SYNC_FILE_RANGE_WRITE = 2


class Unavailable(Exception):
    """Why this cannot run here."""


def require(kind: str) -> None:
    """Raise `Unavailable` unless this machine has what it takes."""
    if os.geteuid() != 0:
        raise Unavailable("mounting needs root")
    if not os.path.exists("/dev/fuse"):
        raise Unavailable("there is no /dev/fuse")
    for program in (FILE_SYSTEMS[kind][1][0], "mount", "umount"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")


def own_mounts() -> None:
    """From here on this process's mounts are its own, and end with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x20000) != 0:  # CLONE_NEWNS
        raise Unavailable(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(what: Path, where: Path, options: list[str]) -> Iterator[None]:
    run("mount", "-o", "loop", *options, str(what), str(where))
    try:
        yield
    finally:
        run("umount", str(where))


@contextlib.contextmanager
def recorded(image: Path, log: Path, point: Path) -> Iterator[None]:
    """`point`/disk is the image; what happens to it is in the log afterwards."""
    command = [sys.executable, str(HERE / "fuse_disk.py"), str(point), str(image), str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != "mounted\n":
            raise Unavailable("a FUSE file system cannot be mounted")
        yield
        run("umount", str(point))
        if server.wait(60) != 0:
            raise OSError("the FUSE server has failed")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def copy_data(source: Path, target: Path) -> None:
    """Copy a sparse file."""
    with source.open("rb") as a, target.open("wb") as b:
        size = os.fstat(a.fileno()).st_size
        os.truncate(b.fileno(), size)
        end = 0
        while True:
            try:
                start = os.lseek(a.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(a.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, end, MIB):
                data = os.pread(a.fileno(), min(MIB, end - offset), offset)
                os.pwrite(b.fileno(), data, offset)


class Recorder:
    """Records workers on one kind of file system, and has images of each record judged."""

    def __init__(
        self,
        store: str,
        system: str,
        folder: Path,
        seed: int,
        *,
        threads: int = 1,
        keep: Path | None = None,
    ) -> None:
        self.store, self.folder, self.threads, self.keep = store, folder, threads, keep
        size, self.make, self.options = FILE_SYSTEMS[system]
        self.random = random.Random(seed)
        self.checker = Checker(store)
        self.tally = Tally()
        self.place, self.point = folder / "mnt", folder / "fuse"
        for path in (self.place, self.point):
            path.mkdir()
        self.base, self.log = folder / "base", folder / "log"
        self.base.touch()
        os.truncate(self.base, size * MIB)

    # -- recording

    def record(self, seconds: float) -> None:
        """Let a worker run on a new file system, and kill it."""
        run(*self.make, str(self.base))
        work = self.folder / "work"
        copy_data(self.base, work)
        with (
            recorded(work, self.log, self.point),
            mounted(self.point / "disk", self.place, self.options),
        ):
            self._work(seconds)
        work.unlink()

    def _work(self, seconds: float) -> None:
        file = self.place / "store"
        worker = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "worker.py"), "--store", self.store),
                *("--file", str(file), "--marks", str(self.point / "marks")),
                *("--seed", str(self.random.getrandbits(32)), "--threads", str(self.threads)),
            ],
        )
        stop = threading.Event()
        writer = threading.Thread(target=self._write_early, args=(file, stop))
        writer.start()
        try:
            worker.wait(seconds)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        finally:
            stop.set()
            writer.join()
        if worker.returncode != -signal.SIGKILL:
            self.tally.bad.append(f"the worker ended with {worker.returncode}")

    def _write_early(self, file: Path, stop: threading.Event) -> None:
        """What the kernel may do at any time: write some pages back, commit its journal."""
        rng = random.Random(self.random.getrandbits(32))
        libc = ctypes.CDLL(None)
        other = os.open(self.place / "other", os.O_RDWR | os.O_CREAT, 0o600)
        while not stop.wait(rng.uniform(0, 0.1)):
            if rng.random() < 0.2:
                os.pwrite(other, b"x", rng.randrange(PIECE))
                os.fsync(other)
            elif file.exists():
                fd = os.open(file, os.O_RDONLY)
                start = rng.randrange(os.fstat(fd).st_size // PIECE + 1) * PIECE
                length = rng.randrange(1, 64) * PIECE
                offset = ctypes.c_int64(start)
                libc.sync_file_range(fd, offset, ctypes.c_int64(length), SYNC_FILE_RANGE_WRITE)
                os.close(fd)
                self.tally.early += 1
        os.close(other)

    # -- replaying

    def replay(self, images: int) -> None:
        """Judge that many images of the record."""
        with self.log.open("rb") as log:
            kinds = [kind for kind, _, _ in read_log(log)]
        cuts = self._cuts(kinds, images)
        self.tally.rounds += 1
        self.tally.syncs += kinds.count(b"F")
        history = History()
        stable = os.open(self.base, os.O_RDWR)
        loose: list[tuple[int, bytes]] = []  # written, not flushed
        try:
            with self.log.open("rb") as log:
                for number, (kind, offset, data) in enumerate(read_log(log)):
                    for _ in range(cuts.count(number)):
                        self._judge(loose, history.allowed())
                        if self.tally.bad:
                            return
                    if kind == b"W":
                        loose.append((offset, data))
                    elif kind == b"M":
                        history.note(json.loads(data))
                    else:
                        for start, part in loose:
                            os.pwrite(stable, part, start)
                        loose.clear()
        finally:
            os.close(stable)

    def _cuts(self, kinds: list[bytes], count: int) -> list[int]:
        """Where the power fails: before flushes, when most is at stake, and anywhere."""
        first = next((n for n, kind in enumerate(kinds) if kind == b"M"), 0)
        flushes = [n for n, kind in enumerate(kinds) if kind == b"F" and n > first]
        cuts = []
        for _ in range(count):
            if flushes and self.random.random() < 0.6:
                cuts.append(self.random.choice(flushes))
            else:
                cuts.append(self.random.randrange(first, len(kinds)))
        return cuts

    def _judge(self, loose: list[tuple[int, bytes]], allowed: dict[str, Any]) -> None:
        image = self.folder / "image"
        copy_data(self.base, image)
        fd = os.open(image, os.O_RDWR)
        for offset, data in self._survivors(loose):
            os.pwrite(fd, data, offset)
        os.close(fd)
        self.tally.images += 1
        self.tally.moments += 1
        found = b""
        with mounted(image, self.place, self.options):
            file = self.place / "store"
            if self.keep is not None and file.exists():
                found = file.read_bytes()
            self.checker.submit({"image": str(file), "allowed": allowed})
            request, answer = self.checker.answer()
            if "bad" in answer or answer["found"] < 0:
                self.checker.close()  # it may keep what it could not open
        image.unlink()
        if "bad" in answer:
            self.tally.bad.append(answer["bad"])
            if self.keep is not None:
                keep_bad(self.keep, request, answer, found)
        elif answer["found"] < 0:
            self.tally.nothing += 1
        elif answer["found"] == min(s["number"] for s in allowed["states"]):
            self.tally.kept_state += 1
        else:
            self.tally.later_state += 1

    def _survivors(self, loose: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Which of the unflushed writes, or which pages of them, have got there."""
        rng = self.random
        way = rng.randrange(6)
        if way == 0:
            return loose
        if way == 1:
            return loose[: rng.randrange(len(loose) + 1)]
        if way == 2:
            return [write for write in loose if rng.random() < 0.5]
        if way == 3 and loose:  # one is missing
            one = rng.randrange(len(loose))
            return loose[:one] + loose[one + 1 :]
        if way == 4 and loose:  # only one is there
            return [rng.choice(loose)]
        share = rng.choice((0.05, 0.5, 0.95))
        return [
            (offset + start, data[start : start + PIECE])
            for offset, data in loose
            for start in range(0, len(data), PIECE)
            if rng.random() < share
        ]

    def run(self, images: int, *, per_record: int = 100, seconds: float = 4) -> Tally:
        while self.tally.images < images and not self.tally.bad:
            self.record(seconds)
            if not self.tally.bad:
                self.replay(min(per_record, images - self.tally.images))
        self.checker.close()
        return self.tally
