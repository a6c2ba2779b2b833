"""A process of the soak: allocates, exchanges references, forks, and dies somewhere in it.

One death in three or so comes at a chosen store to the arena's own tables: in an operation, in a
fork, or in putting right what another has died in.

Every block carries a serial number and a pattern, which are verified whenever it changes
hands and before it is freed. Nobody writes to a block that has been sent. So a wrong byte is
memory that was reused while somebody held it, and a stale reference is memory that was
freed too early: both end the soak.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import random
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING

import numpy as np

import ndarena
from ndarena import _core, _refs

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from pattern import LARGEST, SMALLEST, Counters, fill, verify
from stores import VARIABLE, Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pattern import Row

FAILED = 3  # exit status
MOST_LIVE = 16
MOST_KNOWN = 64
FORGERIES = 40  # at a time
MOST_STORES = 400  # to the tables, of nearly every operation
_message = 2048  # more than any has; below PIPE_BUF, so that it goes in one piece


def starved_seconds() -> float:
    """How long this process has waited for a CPU."""
    with open("/proc/self/schedstat", "rb") as file:
        return int(file.read().split()[1]) / 1e9


class Worker:
    """What one process has, and what it may do next."""

    def __init__(
        self,
        arena: ndarena.Arena,
        pipe: tuple[int, int],
        row: Row,
        seed: int,
        *,
        messages: bool = True,
        stores: Stores | None = None,
    ) -> None:
        self.arena, self.pipe, self.row, self.stores = arena, pipe, row, stores
        self.random = random.Random(seed)
        self.live: list[tuple[np.ndarray, int]] = []
        # What messages named that were read, perhaps long ago: place, view, serial.
        self.known: list[tuple[tuple, tuple, int]] = []
        self.actions = [self.allocate] * 6 + [self.free] * 4 + [self.resize, self.look]
        if messages:
            self.actions += [self.send] * 5 + [self.receive] * 5 + [self.recall] * 2 + [self.forge]

    def run(self, operations: int) -> None:
        for _ in range(operations):
            self.row.add("operations")
            before, starved = time.monotonic(), starved_seconds()
            with self.perhaps_the_last("died_at_store", 0.02):
                self.random.choice(self.actions)()
            self.row.note_wait(time.monotonic() - before, starved_seconds() - starved)

    def perhaps_the_last(
        self, what: str, probability: float
    ) -> contextlib.AbstractContextManager[None]:
        """Die at some store to the tables in the body, or come through."""
        if self.stores is None or self.random.random() >= probability:
            return contextlib.nullcontext()
        number = round(math.exp(self.random.uniform(0, math.log(MOST_STORES))))
        return self.stores.last(number, self.row, what)

    def inherit(self) -> None:
        """A child dies in the middle of an operation; so does this one, in taking over from it."""
        pid = os.fork()
        if pid == 0:
            self.random.seed(os.getpid())
            while True:
                with self.perhaps_the_last("died_at_store", 1):
                    self.allocate()
        os.waitpid(pid, 0)
        if self.stores is not None and self.stores.is_locked_by(pid):
            with self.perhaps_the_last("died_as_heir", 1):
                self.allocate()

    def size(self) -> int:
        most = self.random.choice((64, 5000, LARGEST))
        return self.random.randrange(SMALLEST, most)

    def allocate(self) -> None:
        serial = self.random.getrandbits(62)
        try:
            a = self.arena.empty(self.size(), np.uint8)
        except MemoryError:
            self.row.add("refused")
            self.live.clear()
            return
        fill(a, serial)
        self.keep(a, serial)

    def keep(self, a: np.ndarray, serial: int) -> None:
        self.live.append((a, serial))
        if len(self.live) > MOST_LIVE:
            self.free()

    def free(self) -> None:
        if self.live:
            a, serial = self.live.pop(self.random.randrange(len(self.live)))
            verify(a, serial)
            self.row.add("checks")

    def look(self) -> None:
        for a, serial in self.live:
            verify(a, serial)
        self.row.add("checks", len(self.live))
        if self.random.random() < 0.1:
            self.arena.reclaim()

    def resize(self) -> None:
        """Only what this process has not sent may be resized; it starts a new life.

        A fork relative may have the block too, or have sent it: then the array moves. One that
        keeps its size would stay.
        """
        size = self.size()
        for index, (a, serial) in enumerate(self.live):
            if a.flags.owndata and len(a) != size:
                kept = min(len(a), size)
                old = a[:kept].tobytes()
                del self.live[index]
                try:
                    a.resize(size, refcheck=False)
                except MemoryError:
                    self.row.add("refused")
                    return
                assert a[:kept].tobytes() == old, f"block {serial} was changed by resize"
                fill(a, serial + 1)
                self.keep(a, serial + 1)
                return

    def send(self) -> None:
        if not self.live:
            return
        a, serial = self.random.choice(self.live)
        readers = self.random.choice((1, 1, 1, 2))
        try:
            data = pickle.dumps((serial, ndarena.ref(a, readers=readers)))
        except MemoryError:
            self.row.add("refused")
            return
        assert len(data) < _message
        for _ in range(readers):
            try:
                os.write(self.pipe[1], data)
                self.row.add("sent")
            except BlockingIOError:
                pickle.loads(data)  # nobody else will take its hold over

    def receive(self) -> None:
        try:
            data = os.read(self.pipe[0], _message)
        except BlockingIOError:
            return
        serial, reference = pickle.loads(data)
        a = reference.get()
        verify(a, serial)
        self.row.add("received")
        self.row.add("checks")
        if self.random.random() < 0.7:
            self.keep(a, serial)
        place = _core.describe_block(reference._block)
        self.known.append((place, tuple(reference._view), serial))
        if len(self.known) > MOST_KNOWN:
            del self.known[self.random.randrange(MOST_KNOWN)]

    def recall(self) -> None:
        """A message that was read before leads to what it named then, or nowhere."""
        if not self.known:
            return
        place, view, serial = self.random.choice(self.known)
        try:
            a = _refs._receive(place, _refs._NO_TOKEN, view, None).get()
        except ndarena.StaleRefError:
            self.row.add("stale")
            return
        verify(a, serial)
        self.row.add("recalled")

    def forge(self) -> None:
        """References with wrong numbers lead nowhere, or to a block that the numbers name."""
        if not self.known:
            return
        rng = self.random
        named = {place[3:]: serial for place, _, serial in self.known}
        for _ in range(FORGERIES):
            (mine, *_), (other, *_) = rng.choice(self.known), rng.choice(self.known)
            record, number, offset = (
                rng.choice((right, right, right, similar, near, rng.getrandbits(bits)))
                for right, similar, near, bits in (
                    (mine[3], other[3], mine[3] + rng.choice((1, -1)), 32),
                    (mine[4], other[4], rng.getrandbits(64), 64),
                    (mine[5], other[5], mine[5] + rng.choice((64, -64, 4096)), 64),
                )
            )
            place = (*mine[:3], record % 2**32, number, offset % 2**64)
            token = (rng.choice((0, 1, rng.randrange(64), 2**32 - 1)), rng.getrandbits(64))
            self.row.add("forged")
            try:
                found = _refs._receive(place, token, ("|u1", (16,), (1,), 0, True), None)
            except ndarena.StaleRefError:
                continue
            verify(found.get(), named[place[3:]])
            self.row.add("served")


def live_and_die(worker: Worker, child_row: Row) -> None:
    """Go on until something ends this process: itself, a timer, its parent."""
    rng = worker.random
    while True:
        fate = rng.random()
        if fate < 0.15:  # wherever it is at that moment
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0001, 0.02))
        worker.run(rng.randrange(1, 60))
        if fate < 0.2:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fate < 0.25:
            os._exit(0)
        elif fate < 0.3:
            worker.live.clear()
        elif fate < 0.5:
            worker.row.add("forks")
            with worker.perhaps_the_last("died_at_fork", 0.3):
                pid = os.fork()
            if pid == 0:
                worker.row, worker.random = child_row, random.Random(rng.random() + os.getpid())
                worker.look()  # everything it has inherited
                worker.run(rng.randrange(30))
                os.kill(os.getpid(), signal.SIGKILL)
        elif fate < 0.6 and worker.stores is not None:
            worker.inherit()
        for _ in ended_children():
            pass


def ended_children() -> Iterator[tuple[int, int]]:
    """Process numbers and wait statuses of children that have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def guarded(worker: Worker, child_row: Row, failures: int) -> None:
    """Live; what goes wrong is written down for the one who started all this."""
    try:
        live_and_die(worker, child_row)
    except BaseException:
        text = f"process {os.getpid()}:\n{traceback.format_exc()}"
        try:
            os.write(failures, text.encode())
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
    finally:
        os._exit(FAILED)


def main() -> None:
    """As a program of its own, which finds the arena by its name."""
    kind, where = sys.argv[1:3]
    reader, writer, counters, failures, rows, index, messages = map(int, sys.argv[3:])
    table = Counters(counters, rows)
    arena = ndarena.shared(where, "r+") if kind == "shared" else ndarena.open(where, "r+")
    seed = int.from_bytes(os.urandom(8), "little")
    stores = Stores(arena) if VARIABLE in os.environ else None
    pipe, row = (reader, writer), table.row(index)
    worker = Worker(arena, pipe, row, seed, messages=bool(messages), stores=stores)
    if seed % 4 == 0:  # the way most programs end
        worker.run(200)
        for a, serial in worker.live:
            verify(a, serial)
        return
    guarded(worker, table.row(index + rows // 2), failures)


if __name__ == "__main__":
    main()
