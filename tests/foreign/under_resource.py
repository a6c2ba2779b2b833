"""Runs pytest with every array of the main thread from a resource.

    python tests/foreign/under_resource.py KIND ARGUMENTS...

KIND is one of the names below; the arguments are pytest's. Threads that the tests start allocate
from NumPy's default, as always.
"""

from __future__ import annotations

import ctypes
import sys

import pytest

import ndarena

libc = ctypes.CDLL(None)
KINDS = {
    "aligned": lambda: ndarena.Aligned(4096),
    "callback": lambda: ndarena.Callback(libc.malloc, libc.free, libc.calloc, libc.realloc),
    "library": lambda: ndarena.Library("libc.so.6", calloc="calloc", realloc="realloc"),
    "pymem": lambda: ndarena.PyMem("mem"),
    "statistics": ndarena.Statistics,
    "tracing": lambda: ndarena.Tracing(max_events=100_000),
}


def main() -> int:
    kind, *arguments = sys.argv[1:]
    with KINDS[kind]() as resource:
        status = pytest.main(arguments)
    stats = resource.stats()
    print(f"{resource.name}: {stats}")
    if stats.n_allocations == 0:
        print("no array came from it")
        return 1
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
