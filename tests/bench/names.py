"""Named arrays on disk against LMDB and against plain writing: ratios of interleaved pairs.

    python tests/bench/names.py [--dir DIRECTORY] [--rounds 5] [--json FILE]

Needs the package lmdb; what is missing is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import ndarena

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import lmdb
except ImportError:
    lmdb = None

PAGE = np.arange(1024, dtype="f4")
BLOCK = np.arange(10 * 2**20 // 4, dtype="f4")
MAP = 8 << 30


def name(i: int) -> str:
    return f"name/{i * 7919 % 1_000_003:07}"


def write_ours(path: str, count: int, a: np.ndarray) -> float:
    start = time.perf_counter()
    with ndarena.open(path, "w", capacity="8GiB") as arena:
        with arena.transaction():
            for i in range(count):
                arena[name(i)] = a
        arena.flush()
        return time.perf_counter() - start


def write_lmdb(path: str, count: int, a: np.ndarray) -> float:
    start = time.perf_counter()
    with lmdb.open(path, map_size=MAP, subdir=False) as env:
        with env.begin(write=True) as txn:
            for i in range(count):
                txn.put(name(i).encode(), a.data)
        return time.perf_counter() - start


def write_plain(path: str, count: int, a: np.ndarray) -> float:
    """The floor: the same bytes one after the other, and a barrier."""
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            file.write(a.data)
        os.fdatasync(file.fileno())
        return time.perf_counter() - start


def read_ours(path: str, key: str) -> float:
    start = time.perf_counter()
    arena = ndarena.open(path)
    value = arena[key][5]
    arena.close()
    took = time.perf_counter() - start
    assert value == PAGE[5]
    return took


def read_lmdb(path: str, key: str) -> float:
    start = time.perf_counter()
    env = lmdb.open(path, map_size=MAP, subdir=False, readonly=True)
    with env.begin(buffers=True) as txn:
        a = np.frombuffer(txn.get(key.encode()), "f4")
        value = a[5]
        del a
    env.close()
    took = time.perf_counter() - start
    assert value == PAGE[5]
    return took


def replace_ours(path: str, key: str, times: int) -> float:
    with ndarena.open(path, "r+") as arena:
        start = time.perf_counter()
        for _ in range(times):
            arena[key] = PAGE
            arena.flush()
        return (time.perf_counter() - start) / times


def replace_lmdb(path: str, key: str, times: int) -> float:
    with lmdb.open(path, map_size=MAP, subdir=False) as env:
        start = time.perf_counter()
        for _ in range(times):
            with env.begin(write=True) as txn:
                txn.put(key.encode(), PAGE.data)
        return (time.perf_counter() - start) / times


def paired(first: Callable[[], float], second: Callable[[], float], rounds: int) -> dict[str, Any]:
    pairs = [(first(), second()) for _ in range(rounds)]
    return {
        "ours_ms": 1e3 * statistics.median(p[0] for p in pairs),
        "other_ms": 1e3 * statistics.median(p[1] for p in pairs),
        "ratio": statistics.median(p[0] / p[1] for p in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--json")
    args = parser.parse_args()
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        ours, theirs, plain = (os.path.join(directory, n) for n in ("ours", "lmdb", "plain"))

        def fresh(write: Callable[[str, int, np.ndarray], float], path: str, *rest: Any) -> float:
            if os.path.exists(path):
                os.unlink(path)
            return write(path, *rest)

        few = (args.names, PAGE)
        many = (args.blocks, BLOCK)
        table["write 4 KiB each / plain"] = paired(
            lambda: fresh(write_ours, ours, *few),
            lambda: fresh(write_plain, plain, *few),
            args.rounds,
        )
        table["write 10 MiB each / plain"] = paired(
            lambda: fresh(write_ours, ours, *many),
            lambda: fresh(write_plain, plain, *many),
            args.rounds,
        )
        if lmdb is not None:
            table["write 4 KiB each / LMDB"] = paired(
                lambda: fresh(write_ours, ours, *few),
                lambda: fresh(write_lmdb, theirs, *few),
                args.rounds,
            )
            key = name(args.names // 2)
            table["open, read one / LMDB"] = paired(
                lambda: read_ours(ours, key), lambda: read_lmdb(theirs, key), 40 * args.rounds
            )
            table["durable replacement / LMDB"] = paired(
                lambda: replace_ours(ours, key, 20),
                lambda: replace_lmdb(theirs, key, 20),
                args.rounds,
            )
        fresh(write_ours, ours, *few)
        used = os.stat(ours).st_blocks * 512
        table["disk used / payload"] = {"ratio": used / (args.names * PAGE.nbytes)}
    if lmdb is None:
        print("the package lmdb is not installed: rows against it are left out")
    for what, row in table.items():
        times = "".join(f"{row[k]:10.2f} ms" for k in ("ours_ms", "other_ms") if k in row)
        print(f"{what:30}{times:>26}   x {row['ratio']:.2f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
