"""Soak: processes share one arena and die all the time; nothing may go wrong or be left.

    python tests/soak/sharing.py [--seconds 30] [--workers 5] [--kind shared|file] [--scarce]

With `--scarce` there is room for a part of what the processes want, and no message keeps
anything: all the room must be there again for whoever asks after all the others have died.

Exit status 1 and what was found, if anything was; a summary line otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # idle threads of every process

import numpy as np
from pattern import LARGEST, Counters, fill, verify
from stores import VARIABLE, Stores, build
from worker import FAILED, Worker, ended_children, guarded

import ndarena

PR_SET_CHILD_SUBREAPER = 36
CAPACITY = 20 * 2**20  # what the dead held is needed again soon
SCARCE = 3 * 2**20  # and at once
PIECE = 64 * 2**10
SPARE = 6  # pieces that tables may split or take when there are more blocks
LONGEST_WAIT = 1.0  # seconds, of a process that has a CPU, for others that have
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")


class Soak:
    """The process that starts all others, kills them, and looks at what they leave."""

    def __init__(
        self,
        arena: ndarena.Arena,
        workers: int,
        seed: int,
        *,
        scarce: bool = False,
        stores: Stores | None = None,
    ) -> None:
        self.arena, self.workers, self.scarce, self.stores = arena, workers, scarce, stores
        self.random = random.Random(seed)
        self.storms = 0
        self.running: dict[int, int] = {}  # process number: row
        self.programs: dict[int, subprocess.Popen[bytes]] = {}
        self.deaths = self.exits = self.started = 0
        self.findings: list[str] = []
        # Packets: a message is read whole, by one reader, or not at all.
        self.pipe = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.pipe[1], fcntl.F_SETPIPE_SZ, 2**20)
        self.failures = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.rows = 2 * workers
        self.memory = os.memfd_create("counters")
        os.ftruncate(self.memory, self.rows * len(Counters.names) * 8)
        self.counters = Counters(self.memory, self.rows)
        self.witnesses = [(arena.empty(LARGEST, np.uint8), n) for n in range(5)]
        for a, serial in self.witnesses:
            fill(a, serial)
        self.pieces = self.fill_up() if scarce else 0
        # Orphans come to this process, not to whoever started the soak.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, row: int) -> None:
        self.started += 1
        if self.started % 40 == 0:
            self.start_program(row)
            return
        seed = self.random.getrandbits(60)
        pid = os.fork()
        if pid == 0:
            messages = not self.scarce
            row_of_numbers = self.counters.row(row)
            worker = Worker(
                self.arena, self.pipe, row_of_numbers, seed, messages=messages, stores=self.stores
            )
            guarded(worker, self.counters.row(row + self.workers), self.failures[1])
        self.running[pid] = row

    def start_program(self, row: int) -> None:
        arena = self.arena
        inherited = (*self.pipe, self.memory, self.failures[1])
        command = [sys.executable, PROGRAM, arena.kind, arena.name or str(arena.filename)]
        process = subprocess.Popen(
            [*command, *map(str, (*inherited, self.rows, row, int(not self.scarce)))],
            pass_fds=inherited,
        )
        self.programs[process.pid] = process
        self.running[process.pid] = row

    def reap(self) -> None:
        for pid, status in ended_children():
            if os.WIFSIGNALED(status):
                self.deaths += 1
                if os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGALRM):
                    self.findings.append(f"process {pid} ended by signal {os.WTERMSIG(status)}")
            else:
                self.exits += 1
                if os.WEXITSTATUS(status) != 0:
                    known = "" if os.WEXITSTATUS(status) == FAILED else ", and says no more"
                    self.findings.append(
                        f"process {pid} failed with {os.WEXITSTATUS(status)}{known}"
                    )
            if pid in self.programs:
                self.programs.pop(pid).returncode = status
            self.running.pop(pid, None)

    def look(self) -> None:
        self.findings += self.arena.check()
        for a, serial in self.witnesses:
            verify(a, serial)
        with contextlib.suppress(BlockingIOError):
            self.findings.append(os.read(self.failures[0], 65536).decode())

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        next_look = 0.0
        next_storm = time.monotonic() + 1
        while time.monotonic() < end and not self.findings:
            self.reap()
            free = set(range(self.workers)) - set(self.running.values())
            for row in free:
                self.start(row)
            time.sleep(self.random.uniform(0, 0.01))
            if self.random.random() < 0.3 and self.running:
                os.kill(self.random.choice(list(self.running)), signal.SIGKILL)
            if time.monotonic() > next_look:
                self.look()
                if not self.scarce:
                    self.arena.reclaim()
                next_look = time.monotonic() + 1
            if self.scarce and time.monotonic() > next_storm:
                self.storm()
                next_storm = time.monotonic() + 1

    def fill_up(self) -> int:
        """Take all the room there is and let it go; how much that was."""
        pieces = []
        with contextlib.suppress(MemoryError):
            while True:
                pieces.append(self.arena.empty(PIECE, np.uint8))
        return len(pieces)

    def storm(self) -> None:
        """All die at once; a moment later their room is somebody else's, unasked."""
        if not self.end_all():
            return
        self.storms += 1
        pieces = self.fill_up()
        if pieces < self.pieces - SPARE:
            self.findings.append(
                f"of room for {self.pieces} pieces {pieces} were left when all others were dead"
            )

    def end_all(self) -> bool:
        """Kill all processes, and wait for those that they have started."""
        deadline = time.monotonic() + 30
        while self.running or has_children():
            for pid in self.running:
                os.kill(pid, signal.SIGKILL)
            self.reap()
            if time.monotonic() > deadline:
                self.findings.append("processes do not end")
                return False
            time.sleep(0.001)
        return True

    def finish(self) -> None:
        """End all processes; then nothing may be left of them."""
        if not self.end_all():
            return
        self.look()
        self.read_all()
        self.arena.reclaim(transit=0)
        gc.collect()
        stats = self.arena.stats()
        left = (stats.n_blocks - len(self.witnesses), stats.in_transit, stats.processes - 1)
        if left != (0, 0, 0):
            self.findings.append("left: {} blocks, {} messages, {} processes".format(*left))
        self.look()
        worst = self.counters.total("worst_us") / 1e6
        # Whoever it waited for may have been without a CPU as long as any of them ever was.
        starved = self.counters.total("starved_us") / 1e6
        if worst > LONGEST_WAIT + starved:
            self.findings.append(
                f"one operation took {worst:.2f} s; none waited more than {starved:.2f} s for a CPU"
            )
        self.witnesses.clear()
        if self.arena.stats().n_blocks != 0:
            self.findings.append("blocks are left that nobody holds")
        kinds = {n: self.counters.total(n) for n in Counters.names if n.startswith("died_")}
        if self.stores is not None and 0 in kinds.values():
            self.findings.append(f"not every kind of death has occurred: {kinds}")
        if self.scarce and (self.counters.total("refused") == 0 or self.storms == 0):
            self.findings.append("nothing was scarce: this has shown nothing")

    def read_all(self) -> None:
        """What was sent can still be read, though all senders are dead."""
        try:
            while True:
                serial, reference = pickle.loads(os.read(self.pipe[0], 4096))
                verify(reference.get(), serial)
        except BlockingIOError:
            pass
        except (ndarena.StaleRefError, AssertionError) as error:
            self.findings.append(f"a message of the dead: {error}")

    def summary(self) -> str:
        total = self.counters.total
        return (
            f"{self.deaths} deaths ({total('died_at_store')} at a chosen store to the tables, "
            f"{total('died_at_fork')} at one in a fork, {total('died_as_heir')} at one after a "
            f"child that had died with the lock), {self.exits} exits, "
            f"{total('forks')} forks by workers, "
            f"{total('received')} exchanges, {total('checks')} content checks, "
            f"{total('operations')} operations, {total('refused')} refused for want of room, "
            f"{total('recalled')} old references that still led to their block and "
            f"{total('stale')} that were stale, {total('forged')} forged of which "
            f"{total('served')} happened to be right, {self.storms} times all died at once, "
            f"longest operation {total('worst_us') / 1e3:.0f} ms "
            f"({total('raw_us') / 1e3:.0f} ms with waiting for a CPU, for which the longest "
            f"wait was {total('starved_us') / 1e3:.0f} ms)"
        )


def has_children() -> bool:
    """Whether a child is still running; it is not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Processes share an arena and die.")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--kind", choices=("shared", "file"), default="shared")
    parser.add_argument("--scarce", action="store_true")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(folder)
        except RuntimeError as error:
            print(error, flush=True)
        capacity = SCARCE if options.scarce else CAPACITY
        if options.kind == "shared":
            arena = ndarena.shared(capacity=capacity)
        else:
            arena = ndarena.open(os.path.join(folder, "soak.nda"), "x", capacity=capacity)
        with arena:
            stores = Stores(arena) if VARIABLE in os.environ else None
            soak = Soak(arena, options.workers, options.seed, scarce=options.scarce, stores=stores)
            try:
                soak.run(options.seconds)
            finally:
                soak.finish()
        if arena.kind == "shared" and os.path.exists(f"/dev/shm/{arena.name}"):
            soak.findings.append("the segment's name is left in /dev/shm")
    print(soak.summary())
    for finding in soak.findings:
        print(finding, file=sys.stderr)
    return 1 if soak.findings else 0


if __name__ == "__main__":
    sys.exit(main())
