"""Deaths at a chosen store to an arena's metadata, as stores.cpp makes them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pattern import Row

    import ndarena

SOURCE = Path(__file__).with_suffix(".cpp")
VARIABLE = "NDARENA_SOAK_STORES"  # where started programs find the library
_PAGE = 4096


def build(folder: str) -> None:
    """Compile it, for this process and those that it starts.

    Raises
    ------
    RuntimeError
        If the machine is of another kind than it is written for.
    """
    if platform.machine() != "x86_64":
        raise RuntimeError(f"no deaths at single stores on {platform.machine()}")
    library = Path(folder) / "stores.so"
    compiler = os.environ.get("CXX", "c++")
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", SOURCE, "-o", library], check=True
    )
    os.environ[VARIABLE] = str(library)


def _base_of(arena: ndarena.Arena) -> int:
    while True:
        try:
            probe = arena.empty(1, np.uint8)
        except MemoryError:  # the others have all of it at this moment
            time.sleep(0.001)
        else:
            return probe.ctypes.data - arena.offset_of(probe)


class Stores:
    """The metadata of one arena: the tables, and the first chunk of records."""

    def __init__(self, arena: ndarena.Arena) -> None:
        self._library = ctypes.CDLL(os.environ[VARIABLE])
        self._library.die_at_store.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_void_p),
        )
        self._library.survive.restype = ctypes.c_uint64
        self._base = _base_of(arena)
        # docs/design/format.md: the header page, and the layout of a chunk.
        header = ctypes.string_at(self._base, _PAGE)
        (shift, slots) = struct.unpack_from("<2I", header, 76)
        self._control, *_, self._slots, _, data = struct.unpack_from("<7Q", header, 120)
        chunk = (64 << shift) + (slots << shift) // 8
        self._size = data + -(-chunk // _PAGE) * _PAGE

    def is_locked_by(self, pid: int) -> bool:
        """Whether that process has taken the heap's lock and not given it back."""
        (word,) = struct.unpack("<I", ctypes.string_at(self._base + self._control, 4))
        slot = self._base + self._slots + 64 * ((word & 0xFFF) - 1)
        return word != 0 and struct.unpack("<I", ctypes.string_at(slot + 8, 4)) == (pid,)

    @contextlib.contextmanager
    def last(self, number: int, row: Row, what: str) -> Iterator[None]:
        """Die in the body at its `number`-th store, if it comes to that; `what` is counted."""
        self._library.die_at_store(self._base, self._size, number, row.address(what))
        try:
            yield
        finally:
            self._library.survive()
