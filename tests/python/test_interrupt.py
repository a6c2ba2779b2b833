"""Ctrl-C while an allocation or an opening waits for another process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONTROL = 3 * 4096  # the lock words, see docs/design/format.md

# Opens the arena beside this process and waits for what it holds.
WAITER = """
import sys, time
import numpy as np
import ndarena

arena = ndarena.open(sys.argv[1], "r+")
print("open", flush=True)
sys.stdin.readline()
try:
    try:
        {wait}
    except MemoryError:
        time.sleep(5)  # where the interpreter looks at signals
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
    {after}
    print("fine", flush=True)
"""

WAITS = {  # what waits, and what works afterwards
    "allocate": ("arena.empty(1000)", "assert arena.ones(1000).sum() == 1000"),
    "release": ("del a; len(''); time.sleep(5)", "assert arena.ones(1000).sum() == 1000"),
    "stats": ("arena.stats()", "assert arena.stats().n_blocks == 1"),
    "trim": ("arena.trim()", "arena.trim()"),
}


@pytest.fixture
def arena(tmp_path: Path):
    import ndarena

    with ndarena.open(tmp_path / "a.nda", "w", capacity="1 MiB") as arena:
        keep = arena.ones(10)
        arena.where = tmp_path / "a.nda"
        yield arena
        del keep


def start(path: Path, wait: str, after: str) -> subprocess.Popen:
    program = WAITER.replace("{wait}", wait).replace("{after}", after)
    if wait.startswith("del a"):
        program = program.replace('print("open"', 'a = arena.empty(1000)\nprint("open"')
    # A job in the background of a shell may come with SIGINT ignored.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + program
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Held:
    """The heap lock as if this process, which lives, had it and took its time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, word: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(CONTROL)
            file.write(word.to_bytes(4, "little"))

    def __enter__(self) -> None:
        self._write(1)  # slot 0 has opened it first

    def __exit__(self, *exc: object) -> None:
        self._write(0)


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_ends_a_wait(arena, what: str) -> None:
    path = arena.where
    with start(path, *WAITS[what]) as child:
        assert child.stdout.readline() == "open\n"
        with Held(path):
            child.stdin.write("go\n")
            child.stdin.flush()
            time.sleep(0.7)
            assert child.poll() is None
            begin = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            took = time.monotonic() - begin
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "fine\n"
        assert child.wait(20) == 0
    assert took < 3, "the wait alone would have been ten seconds"
    assert arena.check() == []


OTHER = """
import signal, sys
import ndarena

seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
arena = ndarena.open(sys.argv[1], "r+")
print("open", flush=True)
sys.stdin.readline()
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
a = arena.ones(1000)
stats = arena.stats()
signal.setitimer(signal.ITIMER_REAL, 0)
print(a.sum() == 1000, len(seen) > 0, stats.n_blocks, flush=True)
"""


def test_signals_with_handlers_that_return_do_not(arena) -> None:
    path = arena.where
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "open\n"
        with Held(path):
            child.stdin.write("go\n")
            child.stdin.flush()
            time.sleep(0.7)
        assert child.stdout.readline() == "True True 2\n"


def test_ctrl_c_while_another_process_opens(tmp_path: Path) -> None:
    import fcntl
    import struct

    import ndarena

    path = tmp_path / "a.nda"
    ndarena.open(path, "w", capacity="1 MiB").close()
    with path.open("r+b") as file:
        # The byte that openers hold, by a description of its own.
        request = struct.pack("hhqqi", fcntl.F_WRLCK, 0, (1 << 62) + 4000, 1, 0)
        fcntl.fcntl(file, 37, request)  # F_OFD_SETLK
        program = (
            "import signal, sys, ndarena\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "print('ready', flush=True)\n"
            "try:\n    ndarena.open(sys.argv[1], 'r+')\n"
            "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.7)
            begin = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            assert time.monotonic() - begin < 3
