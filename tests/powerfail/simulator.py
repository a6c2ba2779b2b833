"""Power failures without root: what reaches the disk is decided page by page.

The worker runs with `stable.c` preloaded, on a file in memory. Its calls of fdatasync, fsync and
msync(MS_SYNC) come here and wait: the pages that differ from `disk` are copied there, in no
particular order as far as anybody can see. Between syncs some pages get there early, as the kernel
may write back what it likes. At a *moment* the worker is stopped (SIGSTOP shows just what SIGKILL
would leave), and images are made: the disk, with any subset of the pages that differ, sometimes
with sectors of a page torn, and the old or the new file size. Moments are: as a sync begins, when
all that it has to make durable is still missing; right after it; at some other calls; and at
random times, in the middle of anything. A round ends with a real SIGKILL, and most go on from an
image of the one before, so recovery is interrupted, too.

Stopping instead of killing makes many images of one process, and needs no more of the preloaded
library than to tell of syncs. Working on a real file leaves locks, mappings and identity alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from checker import Checker
from history import History, from_state

HERE = Path(__file__).resolve().parent
PAGE, SECTOR = 4096, 512
REQUEST = struct.Struct("<QQQ")
LOOK, SYNC = 0, 1
EIO = 5


def build_library(folder: Path) -> Path:
    """Compile the preloaded library; CalledProcessError or FileNotFoundError without a compiler."""
    library = folder / "stable.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, HERE / "stable.c"]
    subprocess.run([*command, "-ldl"], check=True)
    return library


class Disk:
    """What is stored of one file, and what the kernel believes to be stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored = np.zeros((0, PAGE // 8), np.uint64)
        self.size = 0
        self.clean = self.stored.copy()  # differs from `stored` where a sync failed

    def read(self) -> tuple[np.ndarray[Any, Any], int]:
        """The file as the process sees it."""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            pages = np.zeros((-(-size // PAGE), PAGE // 8), np.uint64)
            if size:
                file.readinto(memoryview(pages).cast("B")[:size])
        return pages, size

    def _reach(self, count: int) -> None:
        for name in ("stored", "clean"):
            old = getattr(self, name)
            if len(old) < count:
                new = np.zeros((count, PAGE // 8), np.uint64)
                new[: len(old)] = old
                setattr(self, name, new)

    def dirty(self, now: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Numbers of the pages that still have to be written."""
        self._reach(len(now))
        return np.flatnonzero((now != self.clean[: len(now)]).any(axis=1))

    def sync(self, offset: int, length: int, failing: random.Random | None) -> None:
        """Store what is dirty; if it fails, some of it is lost and yet no longer dirty."""
        now, size = self.read()
        pages = self.dirty(now)
        if length:
            last = (offset + length - 1) // PAGE
            pages = pages[(pages >= offset // PAGE) & (pages <= last)]
        written = pages if failing is None else subset(failing, pages)
        self.stored[written] = now[written]
        self.clean[pages] = now[pages]
        self.size = size

    def write_early(self, rng: random.Random) -> None:
        now, _ = self.read()
        pages = subset(rng, self.dirty(now))
        self.stored[pages] = now[pages]
        self.clean[pages] = now[pages]

    def images(self, rng: random.Random, count: int) -> list[bytes]:
        """What may be found if the power fails now."""
        now, size = self.read()
        pages = self.dirty(now)
        made = []
        for _ in range(count if len(pages) else 1):
            image = self.stored.copy()
            chosen = subset(rng, pages)
            image[chosen] = now[chosen]
            if len(chosen) and rng.random() < (0.5 if len(pages) < 4 else 0.15):
                tear(rng, image, self.stored, chosen)
            length = rng.choice((self.size, size))
            made.append(image.tobytes()[:length].ljust(length, b"\0"))
        return made


def subset(rng: random.Random, pages: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Any of the pages: few, half, most, just one, all but one, a beginning."""
    if not len(pages):
        return pages
    kind = rng.randrange(8)
    if kind >= 6:
        one = rng.randrange(len(pages))
        return pages[one : one + 1] if kind == 6 else np.delete(pages, one)
    if kind == 5:
        return pages[: rng.randrange(len(pages) + 1)]
    share = (0.0, 0.1, 0.5, 0.9, 1.0)[kind]
    draw = np.random.default_rng(rng.getrandbits(32)).random(len(pages))
    return pages[draw < share]


def tear(
    rng: random.Random,
    image: np.ndarray[Any, Any],
    before: np.ndarray[Any, Any],
    pages: np.ndarray[Any, Any],
) -> None:
    """One page (the lowest are the roots) gets there in part; only sectors are written whole."""
    page = int(rng.choice(pages[:2] if rng.random() < 0.5 else pages))
    words = SECTOR // 8
    for sector in range(PAGE // SECTOR):
        if rng.random() < 0.5:
            part = slice(sector * words, (sector + 1) * words)
            image[page, part] = before[page, part]


@dataclass
class Tally:
    """What a campaign has seen."""

    images: int = 0
    moments: int = 0
    syncs: int = 0
    failed_syncs: int = 0
    early: int = 0
    rounds: int = 0
    kept_state: int = 0  # images in the state of the last flush that returned
    later_state: int = 0
    nothing: int = 0
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.images} images ({self.kept_state} with the last flush, {self.later_state} with "
            f"one under way, {self.nothing} before the first) of {self.moments} moments in "
            f"{self.rounds} rounds, {self.syncs} syncs ({self.failed_syncs} failed), {self.early} "
            f"early writes: {len(self.bad)} bad"
        )


def keep_bad(folder: Path, request: dict[str, Any], answer: dict[str, Any], image: bytes) -> None:
    """For `checker.py --store KIND < bad1.json`, which judges it again (and changes it)."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json"))) + 1
    path = (folder / f"bad{number}.image").resolve()
    path.write_bytes(image)
    again = {**request, "image": str(path), "why": answer["bad"]}
    path.with_suffix(".json").write_text(json.dumps(again) + "\n")


class Simulator:
    """Runs workers, fails their power, has the images judged."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        seed: int,
        *,
        library: Path,
        threads: int = 1,
        keep: Path | None = None,
    ) -> None:
        self.kind, self.folder, self.threads, self.keep = kind, folder, threads, keep
        self.library = library
        self.random = random.Random(seed)
        self.checker = Checker(kind)
        self.tally = Tally()
        self.file = folder / "store"
        self.address = str(folder / "socket")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.address)
        self.listener.listen(64)
        self.serial = 0x10000
        self.made = 0
        self.next: tuple[bytes, dict[str, Any], int] | None = None  # where a round goes on

    # -- one round

    def round(self, enough: int, *, errors: bool) -> None:
        """One worker, from its start to its death."""
        self.tally.rounds += 1
        self.disk = Disk(self.file)
        self.file.unlink(missing_ok=True)
        start: dict[str, Any] = {"serial": self.serial}
        self.history = History()
        if self.next is not None and self.random.random() < 0.75:
            image, allowed, number = self.next
            self.file.write_bytes(image)
            self.disk.sync(0, 0, None)
            self.history = from_state(allowed, number)
            blocks = self.history.blocks
            start |= {
                "names": self.history.start,
                "shapes": {n: block.shape for n, block in blocks.items()},
                "known": [n for n, block in blocks.items() if block.layers is not None],
            }
        self.next = None
        self.errors, self.text = errors, b""
        marks, theirs = os.pipe()
        os.set_blocking(marks, False)
        command = [
            *(sys.executable, str(HERE / "worker.py"), "--store", self.kind),
            *("--file", str(self.file), "--marks", str(theirs), "--threads", str(self.threads)),
            *("--seed", str(self.random.getrandbits(32)), "--start", json.dumps(start)),
        ]
        environment = {
            **os.environ,
            "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {self.library}".strip(),
            "POWERFAIL_FILE": str(self.file),
            "POWERFAIL_SOCKET": self.address,
        }
        worker = subprocess.Popen(
            command, env=environment, pass_fds=[theirs], stderr=subprocess.PIPE
        )
        os.close(theirs)
        self.marks, self.worker = marks, worker
        try:
            self._serve(self.tally.images + enough)
        finally:
            worker.kill()
            worker.wait()
            assert worker.stderr is not None
            errors_seen = worker.stderr.read().decode().strip()
            worker.stderr.close()
            self._drain()
            os.close(marks)
            self._hang_up()
        if worker.returncode != -signal.SIGKILL:
            last = errors_seen.splitlines()[-1:] or [""]
            self.tally.bad.append(f"the worker ended with {worker.returncode}: {last[0]}")
            sys.stderr.write(errors_seen + "\n")
            return
        self._moment(4, last=True)
        while self.checker.waiting:
            self._collect()
        self.serial += 2**20

    def _serve(self, until: int) -> None:
        """Answer the worker until there are enough images, something is bad, or it ends."""
        poll = select.poll()
        for fd in (self.listener.fileno(), self.marks):
            poll.register(fd, select.POLLIN)
        quiet = time.monotonic() + 180
        failed = self.tally.failed_syncs
        while self.tally.images < until and not self.tally.bad:
            if self.tally.failed_syncs != failed:  # little happens from then on
                failed = self.tally.failed_syncs
                until = min(until, self.tally.images + 30)
            ready = poll.poll(self.random.choice((1, 20, 100, 100)))
            for fd, event in ready:
                if fd == self.marks:
                    quiet = time.monotonic() + 180
                    if not self._drain() and event & select.POLLHUP:
                        return  # it has ended
                else:
                    self._answer()
            if not ready:
                self._stopped_moment()
            if time.monotonic() > quiet:
                self.tally.bad.append("the worker does nothing any more")
                os.kill(self.worker.pid, signal.SIGABRT)  # which shows where it is
                self.worker.wait()

    def _drain(self) -> bool:
        """Note the marks that have been sent."""
        got = False
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.marks, 2**16):
                self.text += more
                got = True
        *lines, self.text = self.text.split(b"\n")
        for line in lines:
            self.history.note(json.loads(line))
        return got

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
            if len(request) < REQUEST.size:
                return  # it died as it asked
            kind, offset, length = REQUEST.unpack(request)
            answer = 0
            if kind == LOOK:
                self._stopped_moment()
            else:
                self.tally.syncs += 1
                self._stopped_moment(3)
                failing = self.errors and self.random.random() < 0.2
                self.disk.sync(offset, length, self.random if failing else None)
                self.tally.failed_syncs += failing
                answer = EIO if failing else 0
                if self.random.random() < 0.2:
                    self._stopped_moment()
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(struct.pack("<i", answer))

    def _hang_up(self) -> None:
        """What the dead have asked is not for the next round."""
        self.listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        self.listener.setblocking(True)

    # -- images

    def _stopped_moment(self, count: int = 1) -> None:
        """Nothing moves while the state of the file and that of the marks are compared."""
        os.kill(self.worker.pid, signal.SIGSTOP)
        ended = os.waitid(os.P_PID, self.worker.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if ended is not None and ended.si_code == os.CLD_STOPPED:
            self._drain()
            if self.file.exists():
                if self.random.random() < 0.3:
                    self.tally.early += 1
                    self.disk.write_early(self.random)
                self._moment(count)
            os.kill(self.worker.pid, signal.SIGCONT)

    def _moment(self, count: int, *, last: bool = False) -> None:
        if not self.file.exists():
            return
        self.tally.moments += 1
        allowed = self.history.allowed()
        for data in self.disk.images(self.random, count):
            while len(self.checker.waiting) >= 4:
                self._collect()
            self.made += 1
            path = self.folder / f"image{self.made}"
            path.write_bytes(data)
            if self.keep is not None:  # judging changes it
                path.with_suffix(".kept").write_bytes(data)
            request = {"image": str(path), "allowed": allowed}
            self.checker.submit(request)
            if last:
                self._collect_until(request, data)

    def _collect_until(self, request: dict[str, Any], data: bytes) -> None:
        """The next round may go on from an image of this one."""
        while request in self.checker.waiting:
            found = self._collect()
        if found is not None and found >= 0:
            self.next = (data, request["allowed"], found)

    def _collect(self) -> int | None:
        request, answer = self.checker.answer()
        path = Path(request["image"])
        path.unlink()
        self.tally.images += 1
        if "bad" in answer:
            self.tally.bad.append(answer["bad"])
        if self.keep is not None:
            kept = path.with_suffix(".kept")
            if "bad" in answer:
                keep_bad(self.keep, request, answer, kept.read_bytes())
            kept.unlink()
        if "bad" in answer:
            return None
        found: int = answer["found"]
        if found < 0:
            self.tally.nothing += 1
        elif found == min(s["number"] for s in request["allowed"]["states"]):
            self.tally.kept_state += 1
        else:
            self.tally.later_state += 1
        return found

    def run(self, images: int, *, per_round: int = 60, errors: float = 0.3) -> Tally:
        """Fail the power until there are enough images, or one is bad.

        In a share of the rounds, `errors`, syncs may fail.
        """
        while self.tally.images < images and not self.tally.bad:
            self.round(per_round, errors=self.random.random() < errors)
        self.close()
        return self.tally

    def close(self) -> None:
        self.checker.close()
        self.listener.close()
        Path(self.address).unlink(missing_ok=True)
