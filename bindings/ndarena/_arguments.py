"""Checks of the arguments that arenas are opened with."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ._sizes import parse_size
from .errors import ReadOnlyError

if TYPE_CHECKING:
    from ._sizes import Size

__all__ = ["check_mode", "exporter", "parse_alignment", "parse_ceiling"]

_LARGEST_ALIGNMENT = 2 * 2**20
_MODES = {
    "r": "read an existing arena",
    "r+": "read and write an existing one",
    "w": "create, replacing what is there",
    "w-": "create, fail if it exists",
    "x": "same as 'w-'",
    "a": "read and write, create if it does not exist",
}


def check_mode(mode: str) -> str:
    """Return an open mode unchanged; the ValueError for others lists the valid ones.

    Parameters
    ----------
    mode : str
        The argument.

    Returns
    -------
    str
        One of the six modes.
    """
    if mode not in _MODES:
        valid = ", ".join(f"{name!r} ({meaning})" for name, meaning in _MODES.items())
        raise ValueError(f"mode must be one of {valid}, not {mode!r}")
    return mode


def parse_ceiling(capacity: Size | None) -> int:
    """Return a capacity for the extension module, which takes 0 for its default.

    Parameters
    ----------
    capacity : int, str or None
        At least one byte, or None.

    Returns
    -------
    int
        Bytes, 0 for None.
    """
    if capacity is None:
        return 0
    number = parse_size(capacity, "capacity")
    if number < 1:
        raise ValueError("capacity must be at least one byte: leave it out for the default")
    return number


def exporter(buffer: object) -> object:
    """Return what exports a buffer's memory, refusing what an arena cannot use.

    Parameters
    ----------
    buffer : object
        The argument of `Arena`.

    Returns
    -------
    object
        The same, or a SharedMemory's ``buf``.

    Raises
    ------
    TypeError, ReadOnlyError, ValueError
        If it exports no memory, or memory that is read-only or not contiguous.
    """
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except TypeError:
        inner = getattr(buffer, "buf", None)  # multiprocessing.shared_memory.SharedMemory
        if not isinstance(inner, memoryview):
            raise TypeError(
                f"Arena() wants an object of the buffer protocol, not {type(buffer).__name__}: "
                "pass an mmap.mmap, a SharedMemory or another writable buffer, or use "
                "ndarena.open() for files"
            ) from None
        return exporter(inner)
    name = f"this {type(buffer).__name__}"
    with view:
        if view.readonly:
            raise ReadOnlyError(errno.EROFS, f"{name} is read-only: pass writable memory")
        if not view.c_contiguous:
            raise ValueError(
                f"{name} is not C-contiguous: pass the whole buffer, not a part with gaps"
            )
    return buffer


def parse_alignment(alignment: int | None) -> int:
    """Return an alignment for the extension module, which takes 0 for unspecified.

    Parameters
    ----------
    alignment : int or None
        A power of two from 16 to 2 MiB, or None.

    Returns
    -------
    int
        The same, 0 for None.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if alignment is None:
        return 0
    number = parse_size(alignment, "alignment")
    if not 16 <= number <= _LARGEST_ALIGNMENT or number & (number - 1):
        raise ValueError(
            f"alignment must be a power of two from 16 bytes to 2 MiB, not {alignment!r}: write 64"
        )
    return number
