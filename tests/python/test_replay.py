"""Recorded traces of real programs, replayed with content.

Every block is filled and looked at again before it goes, and a second model knows which
addresses are taken. The short form replays the beginning of each trace; with
``NDARENA_TEST_TRACES=whole`` all of them are replayed to the end.
"""

from __future__ import annotations

import bisect
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

TRACES = sorted((Path(__file__).parents[1] / "data" / "traces").glob("*.ndt.xz"))
WHOLE = os.environ.get("NDARENA_TEST_TRACES") == "whole"
RECORDS = None if WHOLE else 5_000 if os.environ.get("NDARENA_TEST_SANITIZE") else 50_000
PAGE = 4096
FILLED_BELOW = 2**20 if WHOLE else 2**16  # larger blocks: every page is stamped


def read_trace(path: Path) -> tuple[list[int], list[int], list[int]]:
    data = lzma.decompress(path.read_bytes())
    assert data[:8] == b"NDTRACE1"
    n = int.from_bytes(data[8:16], "little")
    op = np.frombuffer(data, "u1", n, 64)
    back = np.frombuffer(data, "<u4", n, 64 + 2 * n).astype("i8")
    size = np.frombuffer(data, "<u8", n, 64 + 6 * n)
    made = np.cumsum(op <= 2)
    block = np.where(op <= 2, made - 1, made - back)
    return op[:RECORDS].tolist(), block[:RECORDS].tolist(), size[:RECORDS].tolist()


class Addresses:
    """The second model: which addresses are taken, told by what arrays say of themselves."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, array) -> None:
        start = address(array)
        end = start + array.nbytes
        i = bisect.bisect_right(self._starts, start)
        assert i == 0 or self._ends[i - 1] <= start, "overlaps the block before"
        assert i == len(self._starts) or end <= self._starts[i], "overlaps the block after"
        self._starts.insert(i, start)
        self._ends.insert(i, end)

    def remove(self, start: int) -> None:
        i = bisect.bisect_left(self._starts, start)
        assert self._starts[i] == start
        del self._starts[i], self._ends[i]

    def __len__(self) -> int:
        return len(self._starts)


def address(array) -> int:
    return array.__array_interface__["data"][0]


def value_of(block: int) -> int:
    return block * 167 % 251 + 1


def stamp(array, block: int) -> None:
    value = value_of(block)
    if array.size < FILLED_BELOW:
        array.fill(value)
    else:
        array[::PAGE] = value
        array[-1] = value


def holds(array, value: int, size: int) -> bool:
    """The first `size` bytes have the content that `stamp` or calloc gave them."""
    part = array[:size]
    if array.size < FILLED_BELOW:
        return part.tobytes().count(value) == size
    return bool((part[::PAGE] == value).all())


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split(".")[0])
@pytest.mark.timeout(3600 if WHOLE else 300)
def test_content(make_arena, path):
    operations = zip(*read_trace(path), strict=True)
    arena = make_arena("scratch", capacity=6 * 2**30)
    live: dict[int, np.ndarray] = {}
    taken = Addresses()
    with arena.handler():
        for op, block, size in operations:
            if op <= 2:
                array = np.zeros(size, "u1") if op == 2 else np.empty(size, "u1")
                assert op == 1 or holds(array, 0, size), "calloc gave bytes that are not zero"
            else:
                array = live.pop(block)
                taken.remove(address(array))
                value, old = value_of(block), array.size
                assert holds(array, value, old)
                assert array[-1] == value
                if op == 4:
                    continue
                array.resize(size, refcheck=False)
                kept = min(old, size)
                if (old < FILLED_BELOW) == (size < FILLED_BELOW):
                    assert size > old or holds(array, value, kept)
                assert array[0] == value
            taken.add(array)
            stamp(array, block)
            live[block] = array
        array = None
    assert arena.live_arrays == len(live) == len(taken)
    assert arena.check() == []
    for block, array in live.items():
        assert arena.owns(array)
        assert holds(array, value_of(block), array.size)
    array = None
    live.clear()
    assert arena.live_arrays == 0
    assert arena.nbytes == 0


def test_the_traces_are_there():
    assert len(TRACES) == 5
