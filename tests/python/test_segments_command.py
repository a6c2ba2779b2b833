"""``ndarena segments``: listing, cleaning up after the dead, removing names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ndarena

HOLDER = """
import sys, ndarena
arena = ndarena.shared(sys.argv[1] or None, capacity="16MiB")
a = arena.ones(100_000)
print(arena.name, flush=True)
sys.stdin.read()
"""


def segments(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ndarena", "segments", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def listed() -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(segments("--json").stdout)["segments"]}


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen, str]]:
    """A process with an array in a private segment, and the segment's name."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_lists(holder) -> None:
    process, name = holder
    row = listed()[name]
    assert row["processes"] == 1
    assert row["arrays"] == 1
    assert row["allocated"] >= 800_000
    assert row["memory"] >= 800_000
    assert row["in_transit"] == 0
    text = segments().stdout
    assert name in text
    assert text.splitlines()[0].split()[:2] == ["name", "memory"]
    assert process.poll() is None


def test_a_segment_goes_with_its_process(holder) -> None:
    process, name = holder
    process.stdin.close()
    assert process.wait(20) == 0
    assert not Path("/dev/shm", name).exists()


def test_what_was_killed_is_removed(holder) -> None:
    process, name = holder
    process.kill()
    process.wait(20)
    # Any other test that begins to share memory may be faster.
    assert segments("--reclaim").returncode == 0
    assert not Path("/dev/shm", name).exists()


def test_a_named_segment_stays_and_is_emptied() -> None:
    name = f"ndarena-test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline().strip() == name
        process.kill()
    try:
        assert segments("--reclaim").returncode == 0
        assert listed()[name]["arrays"] == 0
    finally:
        assert segments("--unlink", name).returncode == 0
    assert name not in listed()


def test_unlink_asks_for_force(holder) -> None:
    process, name = holder
    done = segments("--unlink", name)
    assert done.returncode == 2
    assert "1 process has it open" in done.stderr
    assert name in listed()
    assert segments("--unlink", name, "--force").returncode == 0
    assert name not in listed()
    assert process.poll() is None


def test_unlink_of_something_else(tmp_path) -> None:
    done = segments("--unlink", "no-such-segment")
    assert done.returncode == 2
    assert "no-such-segment" in done.stderr


def test_received_arenas_are_forgotten_silently() -> None:
    code = (
        "import pickle, ndarena, warnings\n"
        "warnings.simplefilter('error')\n"
        "with ndarena.shared(capacity='1MiB') as arena:\n"
        "    message = pickle.dumps(arena)\n"
        "    again = pickle.loads(message)\n"
        "    assert again is not arena\n"
        "    del again\n"
        "    assert arena.ones(3).sum() == 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_private_segment_has_a_name_until_it_is_closed() -> None:
    with ndarena.shared(capacity="1MiB") as arena:
        assert Path("/dev/shm", arena.name).exists()
        a = arena.ones(3)
    assert Path("/dev/shm", arena.name).exists(), "the array is still there"
    del a
    assert not Path("/dev/shm", arena.name).exists()
