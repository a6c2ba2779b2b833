"""Full file systems: a MemoryError, never SIGBUS, and the space comes back.

A small tmpfs and a loop-mounted ext4, so these need root. Each scenario runs in a child
process, because what they guard against would kill it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.nosan]

SIZE_MIB = 64


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    limited = ("timeout", "-k", "1", "20", *command)
    return subprocess.run(limited, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def _mounted(kind: str, where: Path) -> Iterator[Path]:
    place = where / "mnt"
    place.mkdir()
    with contextlib.ExitStack() as stack:
        if kind == "tmpfs":
            done = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "none", str(place))
        else:
            if shutil.which("mkfs.ext4") is None:
                pytest.skip("mkfs.ext4 is not installed")
            # The image lies in memory: what is tested is ext4, not how busy a disk is.
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
            image = Path(folder, "image")
            with image.open("wb") as file:
                file.truncate(SIZE_MIB * 2**20)
            done = _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
            if done.returncode == 0:
                done = _run("mount", "-o", "loop", str(image), str(place))
        if done.returncode != 0:
            pytest.skip(f"cannot mount a {kind} here: {done.stderr.strip()}")
        stack.callback(_run, "umount", str(place))
        yield place


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request, tmp_path) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with _mounted(request.param, tmp_path) as place:
        yield place


START = """
import os, sys
import numpy as np
import ndarena

disk = sys.argv[1]
arena = ndarena.scratch(dir=disk, capacity="1GiB")

def free():
    s = os.statvfs(disk)
    return s.f_bavail * s.f_frsize

def refused(nbytes):
    before = free()
    try:
        arena.zeros(nbytes, np.uint8)
    except MemoryError as error:
        assert "device" in arena._handle.last_error(), arena._handle.last_error()
        # a failed reservation gives back what it had taken
        assert free() >= before - 2**20, (before, free())
        assert arena.check() == []
        return True
    return False

def fill(path, leave=0):
    with open(path, "wb", buffering=0) as file:
        try:
            while free() > leave:
                file.write(bytes(min(2**16, max(free() - leave, 1))))
        except OSError:
            pass
        os.fsync(file.fileno())
"""

SCENARIOS = {
    "too large at once": """
        assert refused(200 * 2**20)
        a = arena.ones(8 * 2**20, np.uint8)
        assert a.all()
    """,
    "little by little": """
        kept = []
        try:
            while True:
                kept.append(arena.ones(2**20, np.uint8))
        except MemoryError:
            pass
        assert len(kept) > 40, len(kept)
        assert all(a.all() for a in kept)
        assert arena.check() == []
        del kept[::2]
        kept.append(arena.ones(2**20, np.uint8))
        assert all(a.all() for a in kept)
    """,
    "small ones": """
        kept = []
        try:
            while True:
                kept.append(arena.full(3000, 7, np.uint8))
        except MemoryError:
            pass
        assert all((a == 7).all() for a in kept)
        assert arena.check() == []
        del kept
        assert arena.stats().allocated == 0
    """,
    "foreign file after trim": """
        a = arena.ones(40 * 2**20, np.uint8)
        keep = arena.full(2**20, 3, np.uint8)
        del a
        before = free()
        assert arena.trim() >= 40 * 2**20
        assert free() >= before + 39 * 2**20
        fill(disk + "/foreign")
        assert refused(30 * 2**20)      # lies over pages that are gone
        assert refused(30 * 2**20)
        assert (keep == 3).all()
        os.unlink(disk + "/foreign")
        b = arena.ones(30 * 2**20, np.uint8)
        assert b.all() and (keep == 3).all()
    """,
    "full before the first array": """
        fill(disk + "/foreign")
        assert refused(8 * 2**20)
        os.unlink(disk + "/foreign")
        assert arena.ones(8 * 2**20, np.uint8).all()
    """,
    "committed space stays usable": """
        a = arena.empty(16 * 2**20, np.uint8)   # reserved, not yet touched
        fill(disk + "/foreign")
        a[:] = 9                                # no SIGBUS: it has its blocks
        assert (a == 9).all()
    """,
    "growing in place": """
        a = arena.full(2**20, 5, np.uint8)
        try:
            a.resize(100 * 2**20, refcheck=False)
        except MemoryError:
            pass
        assert len(a) == 2**20 and (a == 5).all()
        assert arena.check() == []
    """,
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_full_disk(python, disk, scenario):
    program = START + textwrap.dedent(SCENARIOS[scenario]) + "\nassert arena.check() == []\n"
    program += "arena.close()\nprint('done')\n"
    result = python("-c", program, disk)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_arena_on_a_full_disk(python, disk):
    """Not even the tables fit: an error with the directory's name, and nothing left behind."""
    program = START.replace("arena = ", "arena = None  # ") + textwrap.dedent(
        """
        fill(disk + "/foreign")
        for make in (
            lambda: ndarena.scratch(dir=disk),
            lambda: ndarena.open(disk + "/a.nda", "w"),
        ):
            try:
                make()
            except MemoryError as error:
                assert "space" in str(error), error
            else:
                raise AssertionError("opened on a full disk")
        left = {"foreign", "lost+found"}
        assert set(os.listdir(disk)) <= left, os.listdir(disk)
        print("done")
        """
    )
    result = python("-c", program, disk)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
