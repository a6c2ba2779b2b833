"""Handing arrays to another process and back: what it costs against what others offer.

    python tests/bench/sharing.py

One worker process, one pipe each way. Every case sends one array and waits for a byte that
says that the worker has read one element a page; the ping-pong of 64 bytes over the same
pipes and the local read of the same pages are the floor. The cases of a size take turns.
*Back* times are of results that the worker makes (filled, so that every byte is new).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import pickle
import statistics
import time
from multiprocessing import shared_memory
from typing import Any

import numpy as np

import ndarena
from ndarena.integrations.multiprocessing import register, unregister

PAGE = 4096 // 8
SIZES = {"64 KiB": 2**16, "1 MiB": 2**20, "64 MiB": 2**26, "512 MiB": 2**29}


def touch(a: np.ndarray) -> float:
    return float(a[::PAGE].sum())


def worker(pipe: Any, arena: ndarena.Arena) -> None:
    register()
    known: dict[str, shared_memory.SharedMemory] = {}
    while True:
        what, value = pipe.recv()
        if what == "stop":
            return
        if what == "ping":
            pipe.send(value)
        elif what == "array":
            pipe.send(touch(value))
        elif what == "segment":
            name, items, keep = value
            segment = known.get(name) or shared_memory.SharedMemory(name)
            pipe.send(touch(np.ndarray(items, np.float64, segment.buf)))
            if keep:
                known[name] = segment
            else:
                segment.close()
        elif what == "make":
            with arena.handler():
                made = np.empty(value)
                made.fill(1.0)
            pipe.send(made)
        elif what == "make_copy":
            made = np.empty(value)
            made.fill(1.0)
            pipe.send(made)
        value = None


class Bench:
    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.arena = ndarena.shared(capacity="4 GiB")
        self.pipe, other = mp.Pipe()
        context = mp.get_context("spawn")
        self.process = context.Process(target=worker, args=(other, self.arena))
        self.process.start()
        self.ask("ping", None)

    def ask(self, what: str, value: Any) -> Any:
        self.pipe.send((what, value))
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(("stop", None))
        self.process.join()
        self.arena.close()

    def cases(self, nbytes: int) -> dict[str, Any]:
        items = nbytes // 8
        inside = self.arena.ones(items)
        outside = np.ones(items)
        warm = shared_memory.SharedMemory(create=True, size=nbytes)
        np.ndarray(items, np.float64, warm.buf)[:] = 1.0
        local = np.ones(items)

        def copied_in() -> None:
            self.ask("array", self.arena.array(outside))

        def pickled() -> None:
            unregister()
            try:
                self.ask("array", outside)
            finally:
                register()

        def created() -> None:
            segment = shared_memory.SharedMemory(create=True, size=nbytes)
            view = np.ndarray(items, np.float64, segment.buf)
            view[:] = outside
            self.ask("segment", (segment.name, items, False))
            del view
            segment.close()
            segment.unlink()

        self.release = lambda: (warm.close(), warm.unlink())
        return {
            "ping-pong of 64 bytes": lambda: self.ask("ping", b"x" * 64),
            "local read": lambda: touch(local),
            "in the arena, by reference": lambda: self.ask("array", inside),
            "copied in, by reference": copied_in,
            "SharedMemory, mapped before": lambda: self.ask("segment", (warm.name, items, True)),
            "SharedMemory, created and copied": created,
            "pickled": pickled,
            "back: local fill": lambda: local.fill(1.0),
            "back: made in the arena": lambda: self.ask("make", items),
            "back: pickled": lambda: self.ask("make_copy", items),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    sizes = dict(list(SIZES.items())[:2]) if arguments.quick else SIZES
    for name, nbytes in sizes.items():
        bench = Bench(3 if arguments.quick else 400 if nbytes <= 2**20 else 9)
        cases = bench.cases(nbytes)
        taken: dict[str, list[float]] = {case: [] for case in cases}
        for case in cases.values():
            case()
        for _ in range(bench.rounds):
            for case, run in cases.items():
                begin = time.perf_counter()
                run()
                taken[case].append(time.perf_counter() - begin)
        bench.release()
        del cases
        bench.close()
        for case, times in taken.items():
            rows.append({"size": name, "case": case, "ms": statistics.median(times) * 1e3})
    print(f"{'':36}" + "".join(f"{size:>12}" for size in sizes) + "   (ms, median)")
    for case in taken:
        cells = [r["ms"] for r in rows if r["case"] == case]
        print(f"{case:36}" + "".join(f"{ms:12.4f}" for ms in cells))
    a = np.ones(10)
    print(f"pickle.dumps stays by value: {len(pickle.dumps(a))} bytes")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
