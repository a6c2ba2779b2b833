"""Contents that can be recognised, and counters that outlive the process that counts."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

SMALLEST, LARGEST = 16, 200_000
_NOISE = np.random.Generator(np.random.PCG64(1)).integers(0, 256, 2**20, np.uint8)


def fill(a: np.ndarray[Any, Any], serial: int) -> None:
    """Write a block's serial number and what follows from it."""
    start = serial * 4099 % (len(_NOISE) - LARGEST)
    a[8:] = _NOISE[start : start + len(a) - 8]
    a[:8] = np.frombuffer(serial.to_bytes(8, "little"), np.uint8)


def verify(a: np.ndarray[Any, Any], serial: int) -> None:
    """Raise AssertionError if it is not, to the last byte, what was written.

    The start of a block, of eight bytes and more, can be verified by itself.
    """
    found = int.from_bytes(a[:8].tobytes(), "little")
    assert found == serial, f"block {serial} holds the serial number {found}"
    start = serial * 4099 % (len(_NOISE) - LARGEST)
    differs = a[8:] != _NOISE[start : start + len(a) - 8]
    assert not differs.any(), f"block {serial}: {int(differs.sum())} of {len(a)} bytes differ"


class Counters:
    """One row of numbers for each process, in a file that all of them map.

    A row has one writer at a time; the owner of the file sums them up.
    """

    names = (
        *("operations", "checks", "sent", "received", "refused", "forks"),
        *("stale", "recalled", "forged", "served", "worst_us", "raw_us", "starved_us"),
        *("died_at_store", "died_at_fork", "died_as_heir"),
    )

    def __init__(self, descriptor: int, rows: int) -> None:
        memory = mmap.mmap(descriptor, rows * len(self.names) * 8)
        self.table = np.frombuffer(memory, np.int64).reshape(rows, -1)

    def row(self, index: int) -> Row:
        return Row(self.table[index])

    def total(self, name: str) -> int:
        column = self.table[:, self.names.index(name)]
        return int(column.max() if name.endswith("_us") else column.sum())


class Row:
    """Counters of one process."""

    def __init__(self, numbers: np.ndarray[Any, Any]) -> None:
        self._numbers = numbers

    def add(self, name: str, count: int = 1) -> None:
        self._numbers[Counters.names.index(name)] += count

    def address(self, name: str) -> int:
        """Where a counter lies, for code that is not Python."""
        return self._numbers[Counters.names.index(name) :].ctypes.data

    def note_wait(self, seconds: float, starved: float) -> None:
        """Keep the longest: without the time spent waiting for a CPU, with it, and only it."""
        waits = {"worst_us": seconds - starved, "raw_us": seconds, "starved_us": starved}
        for name, value in waits.items():
            index = Counters.names.index(name)
            self._numbers[index] = max(self._numbers[index], int(value * 1e6))
