"""What a handler costs NumPy, and what recycled memory gains it.

    python tests/bench/handler.py [--quick] [--json FILE]

Every line is the median over interleaved rounds of NumPy's default, warm memory (an array that
exists already) and an arena's handler. "touched" writes one byte per page, "filled" all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ndarena

KIB, MIB = 1 << 10, 1 << 20
PAGE = 4096


def seconds(function: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def interleaved(cases: dict[str, tuple[object, Callable[[], object]]], repeats: int, rounds: int):
    """Medians in µs; `cases` are pairs of a context maker (or None) and what to time."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, (context, function) in cases.items():
            if context is None:
                took = seconds(function, repeats)
            else:
                with context():
                    took = seconds(function, repeats)
            if turn:  # the first round warms up
                taken[name].append(took)
    return {name: statistics.median(values) * 1e6 for name, values in taken.items()}


def small(arena: ndarena.Arena, quick: bool) -> dict[str, float]:
    def make():
        np.empty(100)

    cases = {
        "default": (None, make),
        "handler": (arena.handler, make),
        "handler, min_size 4 KiB": (lambda: arena.handler(min_size=4096), make),
    }
    return interleaved(cases, 2000 if quick else 20000, 5 if quick else 25)


def recycled(arena: ndarena.Arena, size: int, touch: str, quick: bool) -> dict[str, float]:
    warm = np.zeros(size, np.uint8)
    step = PAGE if touch == "touched" else 1

    def use_warm():
        if step == 1:
            warm.fill(1)
        else:
            warm[::step] = 1

    def make():
        fresh = np.empty(size, np.uint8)
        if step == 1:
            fresh.fill(1)
        else:
            fresh[::step] = 1

    cases = {"warm": (None, use_warm), "default": (None, make), "handler": (arena.handler, make)}
    budget = (16 if quick else 128) * MIB
    return interleaved(cases, max(1, min(500, budget // size)), 3 if quick else 15)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, up to 16 MiB")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    sizes = [64 * KIB, MIB, 16 * MIB] + ([] if arguments.quick else [64 * MIB, 256 * MIB])
    with ndarena.scratch(capacity="2GiB") as arena:
        print("np.empty(100), µs:")
        for name, took in small(arena, arguments.quick).items():
            print(f"  {name:25} {took:8.3f}")
            results.append({"what": "np.empty(100)", "case": name, "us": took})
        print("| size | use | warm µs | default µs | handler µs | x warm | x default |")
        print("|--:|---|--:|--:|--:|--:|--:|")
        for size in sizes:
            for touch in ("touched", "filled"):
                us = recycled(arena, size, touch, arguments.quick)
                print(
                    f"| {size // KIB} KiB | {touch} | {us['warm']:.2f} | {us['default']:.2f} "
                    f"| {us['handler']:.2f} | {us['handler'] / us['warm']:.2f} "
                    f"| {us['handler'] / us['default']:.2f} |"
                )
                results += [
                    {"what": f"{size} {touch}", "case": name, "us": took}
                    for name, took in us.items()
                ]
        assert arena.check() == []
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
