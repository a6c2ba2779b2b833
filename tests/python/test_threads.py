"""Many threads in one arena: contents are verified, not only survival."""

from __future__ import annotations

import gc
import queue
import random
import threading

import numpy as np
import pytest

import ndarena

THREADS = 4
TURNS = 1500


def verify(array: np.ndarray, mark: int) -> None:
    assert (array == mark).all(), f"expected {mark}, found {np.unique(array)[:5]}"


@pytest.mark.parametrize("kind", ["buffer", "scratch", "shared"])
def test_allocate_free_resize(make_arena, run_threads, kind):
    arena = make_arena(kind)
    handler = arena.handler()

    def work(number):
        rng = random.Random(number)
        live: list[tuple[np.ndarray, int]] = []
        for turn in range(TURNS):
            mark = (number * TURNS + turn) % 251
            with handler:
                size = rng.choice((1, 16, 100, 1000, 10_000, 70_000))
                array = np.full(size, mark, "u1")
            live.append((array, mark))
            del array
            if rng.random() < 0.3:
                index = rng.randrange(len(live))
                array, mark = live[index]
                length = len(array)
                array.resize(rng.choice((length // 2 + 1, length * 2)), refcheck=False)
                verify(array[:length], mark)
                array[:] = mark
                del array
            while len(live) > 20:
                array, mark = live.pop(rng.randrange(len(live)))
                verify(array, mark)
                del array
        for array, mark in live:
            verify(array, mark)
        live.clear()

    run_threads(work, THREADS)
    gc.collect()
    assert arena.live_arrays == 0
    assert arena.nbytes == 0
    assert arena.check() == []


def test_free_on_another_thread(scratch, run_threads):
    channels = [queue.Queue(maxsize=8) for _ in range(THREADS)]

    def work(number):
        # Make arrays for the neighbour, free those of the other neighbour.
        for turn in range(TURNS):
            with scratch.handler():
                array = np.full(1 + (turn * 37) % 5000, number, "u1")
            channels[(number + 1) % THREADS].put(array)
            del array
            received = channels[number].get(timeout=60)
            verify(received, (number - 1) % THREADS)
            del received

    run_threads(work, THREADS)
    gc.collect()
    assert scratch.live_arrays == 0
    assert scratch.check() == []


def test_all_threads_by_install(scratch, run_threads):
    def work(number):
        for turn in range(200):
            a = np.full(10_000, number, "i4")
            b = a * 2 + turn
            verify(b, number * 2 + turn)
            assert np.argsort(a[::-1]).size == a.size
            del a, b

    ndarena.install(scratch, min_size=1000)
    try:
        run_threads(work, THREADS)
    finally:
        ndarena.uninstall()
    assert scratch.check() == []


def test_asking_meanwhile(scratch, run_threads):
    done = threading.Event()
    findings = []

    def ask():
        while not done.is_set():
            findings.extend(scratch.check())
            stats = scratch.stats()
            assert 0 <= stats.allocated <= stats.capacity
            scratch.trim()
            repr(scratch)

    def work(number):
        if number == 0:
            ask()
            return
        for turn in range(500):
            with scratch.handler():
                a = np.full(1 + turn * 97 % 50_000, number, "u1")
            verify(a, number)
            del a
            if turn == 499 and number == 1:
                done.set()

    run_threads(work, THREADS)
    assert findings == []


def test_full_arena(make_arena, run_threads):
    arena = make_arena(capacity=4 * 2**20)

    def work(number):
        for _ in range(200):
            try:
                a = arena.full(2**20, number, "u1")
            except MemoryError:
                continue
            verify(a, number)
            del a

    run_threads(work, 8)
    assert arena.live_arrays == 0
    assert arena.check() == []
    arena.empty(2**20, "u1")
