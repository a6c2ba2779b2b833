"""What resources cost: nanoseconds for making and dropping an array, side by side.

    python tests/bench/resources.py [--rounds 9] [--json F]

Every number is the fastest of several rounds: whatever else the machine does only adds. Within a
round all resources take turns. Payload is never touched. Ratios are to NumPy's default in the same
run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import time
from pathlib import Path

import numpy as np

import ndarena

SIZES = (64, 4096, 2**20)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]


def resources(arena: ndarena.Arena) -> dict[str, object]:
    functions = (libc.malloc, libc.free, libc.calloc, libc.realloc)
    return {
        "NumPy's default": contextlib.nullcontext(),
        "`arena.handler()`": arena.handler(),
        "`Default()`": ndarena.Default(),
        "`Statistics()`": ndarena.Statistics(),
        "`Statistics(arena)`": ndarena.Statistics(arena),
        "`Aligned(4096)`": ndarena.Aligned(4096),
        '`Threshold("64 KiB", arena)`': ndarena.Threshold("64 KiB", arena),
        "`Fallback(arena)`": ndarena.Fallback(arena),
        '`Limiting("1 GiB")`': ndarena.Limiting("1 GiB"),
        "`Locked()`": ndarena.Locked(),
        "`Callback`, C functions": ndarena.Callback(*functions),
        "`Callback`, Python functions": ndarena.Callback(
            lambda nbytes: libc.malloc(nbytes), lambda address: libc.free(address)
        ),
        '`Library("libc.so.6")`': ndarena.Library("libc.so.6", calloc="calloc", realloc="realloc"),
        '`PyMem("mem")`': ndarena.PyMem("mem"),
        "`Tracing()`": ndarena.Tracing(),
        "`Tracing(frames=5)`": ndarena.Tracing(frames=5),
    }


def time_one(nbytes: int, repeats: int) -> float:
    empty, dtype = np.empty, np.dtype(np.uint8)
    began = time.perf_counter_ns()
    for _ in range(repeats):
        empty(nbytes, dtype)
    return (time.perf_counter_ns() - began) / repeats


def measure(rounds: int, repeats: int) -> dict[str, dict[int, float]]:
    with ndarena.scratch() as arena:
        made = resources(arena)
        times: dict[str, dict[int, list[float]]] = {
            name: {size: [] for size in SIZES} for name in made
        }
        for turn in range(rounds + 1):
            for name, resource in made.items():
                slow = "Python" in name or "Locked" in name
                with resource:  # type: ignore[attr-defined]
                    for size in SIZES:
                        took = time_one(size, repeats // (10 if slow else 1))
                        if turn:  # the first warms up
                            times[name][size].append(took)
    return {name: {size: min(values) for size, values in of.items()} for name, of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    table = measure(arguments.rounds, arguments.repeats)
    base = table["NumPy's default"]
    print("| | " + " | ".join(f"{size} B | x default" for size in SIZES) + " |")
    print("|---|" + "--:|--:|" * len(SIZES))
    for name, row in table.items():
        cells = " | ".join(f"{row[size]:.0f} ns | {row[size] / base[size]:.2f}" for size in SIZES)
        print(f"| {name} | {cells} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
