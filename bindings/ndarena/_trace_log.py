"""Logs of allocations in RMM's format: what `Tracing` writes, and RMM itself."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pathlib

__all__ = ["TraceLog", "read_log"]

_FREES = ("free", "deallocate")
_FAILURES = ("allocate failure",)


class TraceLog(NamedTuple):
    """A log, with numbers instead of addresses.

    Attributes
    ----------
    steps : list of (int, int)
        Block and bytes of each allocation; block and 0 of each free.
    threads : list of int
        Who did it, as many, counted from 0.
    n_blocks : int
        How many blocks were allocated.
    peak_bytes : int
        The most bytes in use at once.
    n_skipped : int
        Frees of what was allocated before the log began, and failures.
    """

    steps: list[tuple[int, int]]
    threads: list[int]
    n_blocks: int
    peak_bytes: int
    n_skipped: int


def read_log(path: str | os.PathLike[str] | pathlib.Path) -> TraceLog:
    """Read a log.

    Parameters
    ----------
    path : str or os.PathLike
        A CSV file with the columns Thread, Action, Pointer and Size, in any order.

    Returns
    -------
    TraceLog
        What is in it.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such log; the line is named.
    """
    steps: list[tuple[int, int]] = []
    threads: list[int] = []
    numbers: dict[str, int] = {}
    alive: dict[int, tuple[int, int]] = {}  # by address: block and size
    n_blocks = live = peak = skipped = 0
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        try:
            thread, action, pointer, size = map(
                header.index, ("Thread", "Action", "Pointer", "Size")
            )
        except ValueError:
            raise ValueError(
                f"{os.fspath(path)}: not a log of allocations: "
                "the first line has no columns Thread, Action, Pointer, Size"
            ) from None
        for row in rows:
            try:
                what, address, nbytes = row[action], int(row[pointer], 0), int(row[size])
                who = row[thread]
                if nbytes < 0 or what not in ("allocate", *_FREES, *_FAILURES):
                    raise ValueError(what)
            except (IndexError, ValueError) as error:
                # The last line of a program that was killed may be torn.
                if next(rows, None) is None:
                    break
                raise ValueError(
                    f"{os.fspath(path)}, line {rows.line_num - 1}: not an event: {error}"
                ) from None
            if what == "allocate":
                if address in alive:  # freed where nobody looked
                    live -= alive[address][1]
                alive[address] = (n_blocks, nbytes)
                steps.append((n_blocks, max(nbytes, 1)))
                n_blocks += 1
                live += nbytes
                peak = max(peak, live)
            elif what in _FREES and address in alive:
                block, nbytes = alive.pop(address)
                steps.append((block, 0))
                live -= nbytes
            else:
                skipped += 1
                continue
            threads.append(numbers.setdefault(who, len(numbers)))
    return TraceLog(steps, threads, n_blocks, peak, skipped)
