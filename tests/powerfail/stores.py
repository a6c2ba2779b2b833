"""What the harnesses are run on: an arena, or the small store they are proved with."""

from __future__ import annotations

from typing import Any

from record_file import BUGS, RecordFile

CAPACITY = 12 * 2**20  # small, so that space is reused quickly
KINDS = ("ndarena", "record", *(f"record:{bug}" for bug in BUGS))


def open_store(kind: str, path: str, capacity: int = CAPACITY) -> Any:
    """Open for writing, create it if there is nothing."""
    if kind == "ndarena":
        import ndarena

        return ndarena.open(path, "a", capacity=capacity)
    _, _, bug = kind.partition(":")
    return RecordFile(path, capacity, bug)


def open_found(kind: str, path: str, *, read_only: bool = False) -> Any:
    """Open what a power failure has left; it must be there."""
    if kind == "ndarena":
        import ndarena

        return ndarena.open(path, "r" if read_only else "r+")
    _, _, bug = kind.partition(":")
    return RecordFile(path, 0, bug)


def refusals(kind: str) -> tuple[type[Exception], ...]:
    """How opening says that something is not a store, or only part of a new one."""
    if kind == "ndarena":
        import ndarena

        return (ndarena.FormatError, ndarena.CorruptionError, FileNotFoundError)
    return (ValueError, FileNotFoundError)
