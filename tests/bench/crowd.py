"""Many processes in one segment: throughput, the longest wait, attaching, reaping.

python tests/bench/crowd.py --processes 64
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import signal
import time
from typing import Any

import ndarena

SMALL = 1000  # items of float64: 8 kB


def churn(arena: ndarena.Arena, start: Any, seconds: float, out: Any) -> None:
    held: list[Any] = [None] * 16
    worst, n = 0.0, 0
    start.wait()
    end = time.perf_counter() + seconds
    with arena.handler():
        while (begin := time.perf_counter()) < end:
            held[n % 16] = arena.empty(SMALL)
            worst = max(worst, time.perf_counter() - begin)
            n += 1
    out.send((n, worst))


def hoard(arena: ndarena.Arena, blocks: int, out: Any) -> None:
    held = [arena.empty(16) for _ in range(blocks)]
    out.send(len(held))
    time.sleep(3600)


def crowd(processes: int, seconds: float) -> None:
    with ndarena.shared(capacity="1 GiB") as arena:
        start = mp.Event()
        pipes, workers = [], []
        for _ in range(processes):
            ours, theirs = mp.Pipe(duplex=False)
            worker = mp.Process(target=churn, args=(arena, start, seconds, theirs))
            worker.start()
            pipes.append(ours)
            workers.append(worker)
        time.sleep(1)
        start.set()
        results = [pipe.recv() for pipe in pipes]
        for worker in workers:
            worker.join()
        total = sum(n for n, _ in results)
        print(
            f"{processes:3} processes: {total / seconds / 1e6:.2f} million allocations a second "
            f"in all, the longest took {max(w for _, w in results) * 1e3:.1f} ms"
        )
        assert arena.check() == []


def attach() -> None:
    for blocks in (0, 100_000):
        with ndarena.shared(capacity="1 GiB") as arena:
            held = [arena.empty(16) for _ in range(blocks)]
            ours, theirs = mp.Pipe()
            child = mp.get_context("spawn").Process(target=time_attach, args=(theirs,))
            child.start()
            ours.send(arena.name)
            took = ours.recv()
            child.join()
            print(f"attach to a segment with {blocks} live blocks: {took * 1e6:.0f} us (median)")
            del held


def time_attach(pipe: Any) -> None:
    name = pipe.recv()
    times = []
    for _ in range(51):
        begin = time.perf_counter()
        ndarena.shared(name, "r+").close()
        times.append(time.perf_counter() - begin)
    pipe.send(sorted(times)[25])


def reap(blocks: int) -> None:
    with ndarena.shared(capacity="1 GiB") as arena:
        ours, theirs = mp.Pipe(duplex=False)
        child = mp.Process(target=hoard, args=(arena, blocks, theirs), daemon=True)
        child.start()
        ours.recv()
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        begin = time.perf_counter()
        freed = arena.reclaim()
        took = time.perf_counter() - begin
        print(f"reaping {freed} blocks of a killed process: {took * 1e3:.1f} ms")
        assert arena.check() == []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    for processes in sorted({1, 2, 8, arguments.processes}):
        crowd(processes, arguments.seconds)
    attach()
    reap(100_000)


if __name__ == "__main__":
    main()
