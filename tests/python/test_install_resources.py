"""Resources for the whole process, and which one is current."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest
from test_resources import exercise

import ndarena
from ndarena import _core


@pytest.fixture(autouse=True)
def _uninstalled():
    exercise(0)
    yield
    ndarena.uninstall()


def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_every_thread_allocates_from_it(scratch) -> None:
    large = ndarena.Aligned(4096, scratch)
    chain = ndarena.Threshold("8 KiB", large)
    ndarena.install(chain)
    a = in_a_thread(lambda: np.ones(10_000))
    b = in_a_thread(lambda: np.ones(10))
    exercise(1)
    ndarena.uninstall()
    c = np.ones(10_000)
    assert scratch.owns(a)
    assert a.ctypes.data % 4096 == 0
    assert chain.owns(a)
    assert chain.owns(b[2:])
    assert not chain.owns(c)
    assert not scratch.owns(b)
    assert large.stats().n_live == 1
    a.resize(5, refcheck=False)  # crosses the threshold, long after
    assert chain.stats().n_live == 2
    del a, b
    assert chain.stats().n_live == 0


def test_previous_is_numpys_own() -> None:
    """Also while another one is installed: nothing may lead to itself."""
    first, second = ndarena.Statistics(), ndarena.Statistics(ndarena.Previous())
    ndarena.install(first)
    ndarena.install(second)
    a = np.ones(100)
    assert (first.stats().n_live, second.stats().n_live) == (0, 1)
    callback_arrays = []

    class Greedy(ndarena.PythonResource):
        def allocate(self, nbytes: int) -> int:
            callback_arrays.append(np.ones(3))
            self.kept = np.empty(nbytes + 16, np.uint8)
            return self.kept.ctypes.data + -self.kept.ctypes.data % 16

        def deallocate(self, address: int, nbytes: int) -> None:
            del self.kept

    ndarena.install(Greedy())
    b = np.empty(1000)
    ndarena.uninstall()
    assert len(callback_arrays) == 1
    del a, b, callback_arrays[:]


def test_entered_ones_come_first(scratch) -> None:
    installed, entered = ndarena.Statistics(), ndarena.Statistics()
    ndarena.install(installed)
    with entered, scratch.handler():
        a = np.ones(10)
    with entered:
        b = np.ones(10)  # comes after what is installed
    assert scratch.owns(a)
    assert installed.stats().n_live == entered.stats().n_live == 1
    assert entered.owns(b)
    assert not installed.owns(b)


def test_it_is_kept_until_its_last_array_is_gone() -> None:
    class Mine(ndarena.PythonResource):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[int, np.ndarray] = {}

        def allocate(self, nbytes: int) -> int:
            memory = np.empty(nbytes + 16, np.uint8)
            address = memory.ctypes.data + -memory.ctypes.data % 16
            self.kept[address] = memory
            return address

        def deallocate(self, address: int, nbytes: int) -> None:
            del self.kept[address]

    mine = Mine()
    ndarena.install(mine)
    a = np.ones(1000)
    ndarena.uninstall()
    alive = weakref.ref(mine)
    del mine
    ndarena.uninstall()
    gc.collect()
    assert alive() is not None
    assert (a == 1).all()
    del a
    ndarena.uninstall()  # looks whether anything may go
    gc.collect()
    assert alive() is None


def test_disabled(monkeypatch) -> None:
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    statistics = ndarena.Statistics()
    ndarena.install(statistics)
    a = np.ones(10)
    assert statistics.stats().n_allocations == 0
    assert ndarena.current().name == "default"
    del a


def test_what_cannot_be_installed() -> None:
    with pytest.raises(TypeError, match="not int"):
        ndarena.install(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use Threshold and Fallback"):
        ndarena.install(ndarena.Default(), min_size=5)


def test_threads_while_it_changes() -> None:
    ending = threading.Event()

    def work() -> bool:
        while not ending.is_set():
            exercise(3)
        return True

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    made = [ndarena.Statistics() for _ in range(200)]
    for statistics in made:
        ndarena.install(statistics)
        if statistics is made[100]:
            ndarena.uninstall()
    ending.set()
    for thread in threads:
        thread.join()
    ndarena.uninstall()
    assert sum(s.stats().n_live for s in made) < 10, "what NumPy keeps"


def test_current(scratch) -> None:
    assert isinstance(ndarena.current(), ndarena.Default)
    assert str(ndarena.current()) == "default"
    handler = scratch.handler(min_size=100, fallback=True)
    with handler:
        assert ndarena.current() == handler
        assert ndarena.current().name == handler.name
        with ndarena.Aligned(4096) as aligned:
            assert ndarena.current() is aligned
            with ndarena.current() as again:
                assert again is aligned
        assert ndarena.current() == handler
        assert ndarena.current() != scratch.handler()
    assert isinstance(in_a_thread(ndarena.current), ndarena.Default)
    ndarena.install(aligned)
    assert ndarena.current() is aligned
    assert in_a_thread(ndarena.current) is aligned
    ndarena.install(handler)
    assert in_a_thread(ndarena.current) == handler
    with ndarena.Default() as default:
        assert ndarena.current() is default
    scratch.close()
    assert isinstance(ndarena.current(), ndarena.Default)


def test_current_in_tasks() -> None:
    async def inner(statistics):
        with statistics:
            await asyncio.sleep(0)
            return ndarena.current() is statistics

    async def outer():
        own = [ndarena.Statistics() for _ in range(10)]
        return await asyncio.gather(*map(inner, own)), ndarena.current()

    found, outside = asyncio.run(outer())
    assert all(found)
    assert isinstance(outside, ndarena.Default)


def test_a_handler_of_somebody_else() -> None:
    """As a capsule it can be an upstream; when it is current it has a name."""
    statistics = ndarena.Statistics()
    capsule = statistics.capsule
    with ndarena.Aligned(1024, capsule) as chain:  # type: ignore[arg-type]
        a = np.ones(10)
    assert a.ctypes.data % 1024 == 0
    assert chain.name == "aligned(1024, statistics(default))"
    assert statistics.stats().n_live == 1
    previous = _core.set_handler(capsule)
    try:
        assert ndarena.current() is statistics
    finally:
        _core.set_handler(previous)
    with pytest.raises(TypeError, match="upstream is to be"):
        ndarena.Aligned(64, object())  # type: ignore[arg-type]


def test_statistics_of_an_arenas_handler(scratch) -> None:
    with scratch.handler() as handler:
        before = handler.stats()
        a, b = np.empty(1000), np.empty(10)
        del b
        with pytest.raises(MemoryError):
            np.empty(1 << 45, np.uint8)
        a.resize(5000, refcheck=False)
    now = handler.stats()
    assert now.n_allocations - before.n_allocations >= 2
    assert now.allocated - before.allocated == a.nbytes
    assert now.n_live - before.n_live == 1
    assert now.peak_allocated >= a.nbytes
    assert now.n_failed - before.n_failed == 1
