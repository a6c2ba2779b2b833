"""install and uninstall: the whole process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ndarena
from ndarena import _core


@pytest.fixture(autouse=True)
def _uninstalled():
    yield
    ndarena.uninstall()


def inside(arena: ndarena.Arena) -> bool:
    return arena.owns(np.empty(1000))


def in_new_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def test_everywhere(arena):
    ndarena.install(arena)
    assert inside(arena)
    assert in_new_thread(inside, arena)
    assert contextvars.Context().run(inside, arena)

    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, inside, arena)

    assert asyncio.run(main())
    ndarena.uninstall()
    assert not inside(arena)
    assert not in_new_thread(inside, arena)


def test_running_threads(scratch):
    installed, checked = threading.Event(), threading.Event()
    results = []

    def work():
        results.append(inside(scratch))
        checked.set()
        installed.wait(60)
        results.append(inside(scratch))

    thread = threading.Thread(target=work)
    thread.start()
    checked.wait(60)
    ndarena.install(scratch)
    installed.set()
    thread.join()
    assert results == [False, True]


def test_arrays_from_before_and_after(scratch):
    before = np.arange(100_000)
    ndarena.install(scratch)
    during = np.arange(100_000)
    before.resize(200_000, refcheck=False)
    assert (before[:100_000] == during).all()
    del before
    gc.collect()
    ndarena.uninstall()
    during.resize(200_000, refcheck=False)
    assert (during[:100_000] == np.arange(100_000)).all()
    del during
    gc.collect()
    assert scratch.live_arrays == 0


def test_freed_after_uninstall_and_close(make_arena):
    arena = make_arena()
    ndarena.install(arena)
    a = np.ones(100_000)
    ndarena.uninstall()
    arena.close()
    assert a.sum() == 100_000
    del a
    gc.collect()
    assert arena.live_arrays == 0


def test_min_size(scratch):
    ndarena.install(scratch, min_size="1 kB")
    assert not scratch.owns(np.empty(999, "u1"))
    assert scratch.owns(np.empty(1000, "u1"))


def test_no_silent_copy_in_memory(make_arena):
    arena = make_arena(capacity=2**20)
    ndarena.install(arena, min_size=1000)
    with pytest.raises(MemoryError):
        np.ones(2**21, "u1")
    assert not arena.owns(np.ones(10, "u1"))
    ndarena.install(arena, min_size=1000, fallback=True)
    assert not arena.owns(np.ones(2**21, "u1"))


def test_a_handler_brings_its_options(scratch):
    ndarena.install(scratch.handler(min_size=1000))
    assert not scratch.owns(np.empty(1))
    assert inside(scratch)
    ndarena.install(scratch.handler(min_size=1000), min_size=0)
    assert scratch.owns(np.empty(1))


def test_replaced(make_arena):
    one, two = make_arena(), make_arena()
    ndarena.install(one)
    a = np.ones(1000)
    ndarena.install(two)
    ndarena.install(two)
    b = np.ones(1000)
    assert (one.owns(a), two.owns(b)) == (True, True)
    ndarena.uninstall()
    ndarena.uninstall()
    assert (a + b == 2).all()
    assert not inside(one)
    assert not inside(two)


def test_handlers_come_first(make_arena):
    installed, entered = make_arena(), make_arena()
    ndarena.install(installed)
    with entered.handler(min_size=1000):
        small, large = np.empty(10, "u1"), np.empty(1000, "u1")
    assert installed.owns(small)
    assert entered.owns(large)
    assert inside(installed)


def test_closing_uninstalls(make_arena):
    arena = make_arena()
    ndarena.install(arena)
    a = np.ones(1000)
    arena.close()
    b = np.ones(1000)
    assert _core.installed() is None
    assert (a == b).all()
    assert ndarena.arena_of(b) is None


def test_the_installed_arena_stays_open(tmp_path):
    ndarena.install(ndarena.scratch(dir=tmp_path, capacity="16MiB"))
    gc.collect()
    a = np.ones(1000)
    arena = ndarena.arena_of(a)
    assert arena is not None
    assert arena.owns(a)
    arena.close()


def test_disable(scratch, monkeypatch):
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    ndarena.install(scratch)
    assert not inside(scratch)


def test_wrong_arguments(make_arena):
    arena = make_arena()
    with pytest.raises(TypeError, match="Arena"):
        ndarena.install(3)
    with pytest.raises(ValueError, match="min_size"):
        ndarena.install(arena, min_size="huge")
    arena.close()
    with pytest.raises(ndarena.ClosedError):
        ndarena.install(arena)
    assert ndarena.arena_of(np.empty(1)) is None
