"""Threads that get in each other's way: closing, opening, installing and looking meanwhile.

Every array carries what it must contain, and is verified by whoever drops it. The tests run on
every interpreter; without a GIL the threads really are inside at the same time.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import pickle
import queue
import random
import sysconfig
import threading

import numpy as np
import pytest
import sharing_workers

import ndarena

THREADS = 8
# What an arena that another thread is closing may say.
REFUSED = (MemoryError, ndarena.ClosedError)


def made(rng: random.Random, handler: ndarena.ArenaHandler) -> np.ndarray:
    """An array of this handler: each element is the first one, that one is drawn at random."""
    with handler:
        array = np.empty(rng.choice((1, 3, 40, 600, 5000, 40_000)), "u8")
    array[:] = rng.randrange(2**63)
    return array


def verify(array: np.ndarray) -> None:
    assert (array == array[0]).all(), f"{np.unique(array)[:5]} in {array.shape}"


def default_is_current() -> bool:
    return ndarena.handler_of(np.empty(10)) == "default_allocator"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_importing_leaves_the_gil_off(python):
    result = python("-W", "error", "-c", "import ndarena, sys; print(sys._is_gil_enabled())")
    assert (result.returncode, result.stdout, result.stderr) == (0, "False\n", "")


def test_arrays_change_hands(arena, run_threads):
    handler = arena.handler()
    shelf: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def work(number):
        rng = random.Random(number)
        for _ in range(300):
            shelf.put(made(rng, handler))
            array = shelf.get(timeout=60)
            verify(array)
            if rng.random() < 0.5:
                mark = array[0]
                array.resize(rng.choice((1, 2 * len(array), 70_000)), refcheck=False)
                array[:] = mark
            if rng.random() < 0.7:
                shelf.put(array)
                array = shelf.get(timeout=60)
                verify(array)
            del array
        assert default_is_current()

    run_threads(work, THREADS)
    gc.collect()
    assert (arena.live_arrays, arena.nbytes, arena.check()) == (0, 0, [])


def test_one_handler_entered_by_all(make_arena, run_threads):
    arena, other = make_arena(), make_arena()
    outer, inner = arena.handler(min_size=100, fallback=True), other.handler()

    @inner
    def squares(count):
        return np.arange(count) ** 2

    @outer
    def numbered(number):
        for turn in range(20):
            yield np.full(1000, number * turn)

    def work(number):
        for _ in range(60):
            with outer, outer:
                a = np.full(1000, number)
                with inner:
                    b = a + 1
                c = squares(1000)
                d = np.ones(3)
            assert (arena.owns(a), other.owns(b), other.owns(c)) == (True, True, True)
            assert not arena.owns(d)
            assert (b == number + 1).all()
            assert c[-1] == 999**2
            for turn, e in enumerate(numbered(number)):
                assert arena.owns(e)
                assert (e == number * turn).all()
            assert default_is_current()

    run_threads(work, THREADS)


@pytest.mark.parametrize("kind", ["buffer", "file", "scratch", "shared"])
def test_closed_by_one_while_others_allocate(make_arena, run_threads, kind):
    for turn in range(10):
        arena = make_arena(kind)
        kept: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        under_way = threading.Semaphore(0)

        def work(number, arena=arena, kept=kept, under_way=under_way, turn=turn):
            rng = random.Random(f"{turn} {number}")
            if number == 0:
                for _ in range(20):
                    assert under_way.acquire(timeout=60)
                arena.close()
                arena.close()
                return
            try:
                handler = arena.handler()
                while not arena.closed:
                    array = made(rng, handler)
                    under_way.release()
                    verify(array)
                    if rng.random() < 0.1 and kept.qsize() < 30:
                        kept.put(array)
                    del array
            except REFUSED:
                assert arena.closed
            assert default_is_current()
            with contextlib.suppress(queue.Empty):
                verify(kept.get_nowait())

        run_threads(work, THREADS)
        while not kept.empty():
            verify(kept.get())
        gc.collect()
        assert arena.live_arrays == 0


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_all_open_and_close_the_same_file(tmp_path, run_threads, mode):
    path = tmp_path / "shared.nda"
    with ndarena.open(path, "w", capacity="64MiB"):
        pass

    def work(number):
        rng = random.Random(number)
        for turn in range(40):
            with ndarena.open(path, mode) as arena:
                a, b = made(rng, arena.handler()), arena.full(2000, turn)
                assert ndarena.arena_of(a) is not None
                if turn % 5 == 0:
                    with ndarena.open(path, "r") as reader:
                        assert reader.stats().capacity == arena.capacity
                assert arena.owns(a)
                assert arena.uuid
            verify(a)
            assert (b == turn).all()

    run_threads(work, THREADS)
    gc.collect()
    with ndarena.open(path, "r+") as arena:
        assert (arena.check(), arena.nbytes, arena.stats().processes) == ([], 0, 1)


def test_created_once_in_mode_a(tmp_path, run_threads):
    for turn in range(20):
        path = tmp_path / f"{turn}.nda"
        seen = []

        def work(number, path=path, seen=seen):
            with ndarena.open(path, "a", capacity="16MiB") as arena:
                seen.append(arena.uuid)
                verify(made(random.Random(number), arena.handler()))

        run_threads(work, THREADS)
        assert (len(seen), len(set(seen))) == (THREADS, 1)


def test_looking_while_others_work(arena, run_threads):
    handler = arena.handler()
    working = [True] * (THREADS // 2)
    capacity = arena.capacity

    def work(number):
        rng = random.Random(number)
        if number < THREADS // 2:
            try:
                for _ in range(200):
                    verify(made(rng, handler))
            finally:
                working[number] = False
            return
        mine = made(rng, handler)
        offset = arena.offset_of(mine)
        while any(working):
            assert arena.check() == []
            stats = arena.stats()
            assert mine.nbytes <= stats.allocated <= stats.peak_allocated <= stats.capacity
            blocks = arena._handle.blocks()
            assert (blocks[:-1, 0] + blocks[:-1, 1] == blocks[1:, 0]).all()
            assert "<svg" in arena._repr_html_()
            assert 0 < arena.live_arrays < 10_000
            assert arena.capacity == capacity
            assert arena.offset_of(mine) == offset
            assert arena.owns(mine[1:])
            assert ndarena.arena_of(mine) is arena
            arena.trim()
            verify(mine)

    run_threads(work, THREADS)


def test_trimming_refuses_nobody(make_arena, run_threads):
    # Pages that are being given back are on no list, but they are not lost to a full arena.
    arena = make_arena(capacity=3 * 2**20)
    handler = arena.handler()
    working = [True] * 4

    def work(number):
        if number >= len(working):
            while any(working):
                arena.trim()
            return
        try:
            rng = random.Random(number)
            for _ in range(1000):
                verify(made(rng, handler))
        finally:
            working[number] = False

    run_threads(work, THREADS)
    assert arena.check() == []


def test_grown_by_all(make_arena, run_threads):
    arena = make_arena("file", capacity=2**20)

    def work(number):
        rng = random.Random(number)
        for turn in range(1, 40):
            arena.grow((2 + turn + number) * 2**20)
            verify(made(rng, arena.handler()))

    run_threads(work, THREADS)
    assert arena.capacity == (2 + 39 + THREADS - 1) * 2**20


def test_installed_and_uninstalled_by_all(make_arena, run_threads):
    arenas = [make_arena() for _ in range(3)]
    try:

        def work(number):
            rng = random.Random(number)
            for turn in range(150):
                if number < 3:
                    (ndarena.uninstall if turn % 3 else lambda: ndarena.install(arenas[number]))()
                a = np.full(rng.choice((10, 1000, 50_000)), rng.randrange(2**31))
                b = a * 2
                verify(a)
                assert (b == 2 * a[0]).all()
                del a, b

        run_threads(work, THREADS)
    finally:
        ndarena.uninstall()
    gc.collect()
    assert default_is_current()
    assert [arena.live_arrays for arena in arenas] == [0, 0, 0]


def test_closing_one_leaves_another_installed(make_arena, run_threads):
    # All install an arena of their own, all but one close it: none of those stays installed.
    for _ in range(30):
        arenas = [make_arena(capacity=2**20) for _ in range(4)]

        def work(number, arenas=arenas):
            ndarena.install(arenas[number])
            if number:
                arenas[number].close()
                a = np.full(1000, number)
                verify(a)
                assert ndarena.arena_of(a) in (None, *arenas)

        try:
            run_threads(work, 4)
            a = np.ones(1000)
            owner = ndarena.arena_of(a)
            assert owner in (None, arenas[0])
            if owner is None:
                assert ndarena._core.installed() is None
            else:
                assert ndarena._core.installed() is arenas[0]._handle
            del a, owner
        finally:
            ndarena.uninstall()
        for arena in arenas:
            arena.close()


def test_all_are_given_the_same_object(make_arena, run_threads):
    for kind in ("scratch", "file"):
        for _ in range(50):
            arena = make_arena(kind)
            a = arena.ones(10)
            found: list[ndarena.Arena | None] = [None] * THREADS

            def work(number, a=a, found=found):
                found[number] = ndarena.arena_of(a)

            run_threads(work, THREADS)
            assert all(each is arena for each in found)
            arena.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_all_are_given_the_same_object_for_what_was_forgotten(tmp_path, run_threads):
    ndarena.install(ndarena.scratch(dir=tmp_path, capacity="16MiB"))
    a = np.ones(1000)
    ndarena.uninstall()
    gc.collect()  # nobody has the object any more, but the array is there
    for _ in range(100):
        found: list[ndarena.Arena | None] = [None] * THREADS

        def work(number, found=found):
            found[number] = ndarena.arena_of(a)

        run_threads(work, THREADS)
        assert all(each is found[0] for each in found)
        del found


def test_buffer_released_by_any_thread(run_threads):
    # The last array decides when the exporter is free again, whichever thread drops it.
    for _ in range(20):
        memory = bytearray(2**20)
        arena = ndarena.Arena(memory)
        arrays = queue.SimpleQueue()
        for number in range(THREADS):
            arrays.put(arena.full(1000, number))
        arena.close()
        del arena

        def work(number, arrays=arrays):
            array = arrays.get(timeout=60)
            verify(array)
            del array

        run_threads(work, THREADS)
        gc.collect()
        memory.append(0)  # BufferError while it is exported


def test_messages_opened_by_all(running, run_threads):
    # More segments than references keep open, each made by another process and opened here by
    # whoever unpickles a message from it first.
    segments = 24
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with running(context, sharing_workers.offer_messages, theirs, segments, THREADS):
        messages = ours.recv()

        def work(number):
            for place in random.Random(number).sample(range(segments), segments):
                array = pickle.loads(messages[place][number]).get()
                assert (array == place).all()

        run_threads(work, THREADS)
        assert 0 < len(ndarena._refs._attached) < segments
        ndarena._refs._attached.clear()
        gc.collect()
        ours.send("done")
