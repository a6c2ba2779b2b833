"""Draw docs/images/heapmap.png: an arena file in the middle of its life.

    python docs/images/make_heapmap.py [OUTPUT.png]

Sizes and order come from a fixed seed and purging by age is switched off, so the same
picture comes out every time. Needs matplotlib, half a second and 200 MB of disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import ndarena

KIB, MIB = 2**10, 2**20


def work(arena: ndarena.Arena) -> list[np.ndarray]:
    """Allocate and free like a simulation that keeps some snapshots of its fields."""
    rng = np.random.default_rng(7)

    def block() -> np.ndarray:
        return arena.ones(int(2 ** rng.uniform(13, 20.5)), np.uint8)

    def drop(arrays: list[np.ndarray], count: int) -> None:
        for _ in range(count):
            arrays.pop(int(rng.integers(len(arrays))))

    fields = [arena.ones(3 * MIB, np.uint8) for _ in range(3)]
    snapshots = [block() for _ in range(200)]
    drop(snapshots, 90)
    arena.trim()  # what is free now goes back to the file system
    for _ in range(4):
        snapshots += [block() for _ in range(30)]
        drop(snapshots, 28)
    fields += [arena.ones(5 * MIB, np.uint8)]
    return [*fields, *snapshots]


def main() -> None:
    """Make the arena, and have `ndarena map` draw it while its arrays live."""
    default = Path(__file__).resolve().with_name("heapmap.png")
    output = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else default)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "simulation.nda")
        with ndarena.open(path, "w", capacity="4 GiB") as arena:
            arena._open_core().set_purge(-1, 2**40)  # never by age or amount
            live = work(arena)
            assert arena.check() == []
            command = [sys.executable, "-m", "ndarena", "map", path, "-o", output]
            subprocess.run(command, check=True)  # noqa: S603  our own command
            del live


if __name__ == "__main__":
    main()
