"""Resources and adaptors: what they do with arrays, how they combine, what they are called."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import ndarena
from ndarena import _core

# Everything with one upstream, as functions of it.
ADAPTORS = {
    "aligned": lambda up: ndarena.Aligned(4096, up),
    "fallback": lambda up: ndarena.Fallback(up, ndarena.Default()),
    "large": lambda up: ndarena.Threshold("8 KiB", up),
    "limiting": lambda up: ndarena.Limiting("32MiB", up),
    "locked": ndarena.Locked,
    "small": lambda up: ndarena.Threshold(2000, ndarena.Default(), up),
    "statistics": ndarena.Statistics,
}


def exercise(seed: int) -> None:
    """Arrays of many sizes, with known contents, in all the ways that NumPy asks for memory."""
    rng = np.random.default_rng(seed)
    kept = []
    for size in rng.integers(0, 60_000, 12):
        kept.append((np.full(size, size % 251, np.uint8), size % 251))
        assert not np.zeros(size, np.uint8).any()
        if size % 3 == 0:
            kept.pop(int(rng.integers(len(kept))))
    grown = np.arange(100)
    for size in (20_000, 50, 3000):
        grown.resize(size, refcheck=False)
        assert (grown[:50] == np.arange(50)).all()
        assert not grown[100:].any()
    for array, value in kept:
        assert (array == value).all()
    assert np.sort(rng.random(2000)).sum() == pytest.approx(1000, rel=0.1)
    assert np.array(["text", None, 3], object)[2] == 3


@pytest.fixture(autouse=True, scope="module")
def _caches() -> None:
    """What NumPy and pytest keep from the first call on is not a chain's."""
    exercise(0)


@pytest.mark.parametrize("names", list(itertools.permutations(ADAPTORS, 2)), ids="-".join)
def test_any_order_before_an_arena(scratch, names) -> None:
    chain = scratch.handler()
    for name in names:
        chain = ADAPTORS[name](chain)
    with chain:
        exercise(1)
    stats = chain.stats()
    assert (stats.n_live, stats.allocated, stats.n_failed) == (0, 0, 0)
    assert stats.n_allocations == stats.n_deallocations > 20
    assert scratch.stats().n_blocks == 0


@pytest.mark.parametrize("name", ADAPTORS)
def test_alone_before_numpy(name) -> None:
    made = ADAPTORS[name](None)
    with made as entered:
        assert entered is made
        exercise(2)
    assert made.stats().n_live == 0
    assert made.stats().peak_allocated > 0


def test_all_at_once(arena) -> None:
    chain = arena
    for name in ("aligned", "fallback", "large", "limiting", "locked", "statistics"):
        chain = ADAPTORS[name](chain)
    with chain:
        exercise(3)
        a = np.ones(20_000)
    assert arena.owns(a)
    assert a.ctypes.data % 4096 == 0
    del a
    assert arena.stats().n_blocks == 0


def test_names_tell_the_chain(scratch, make_arena) -> None:
    chain = ndarena.Threshold("64 KiB", scratch.handler(), ndarena.Default())
    assert chain.name == "threshold(64 KiB, arena[scratch], default)"
    assert repr(chain) == f"<ndarena.Threshold {chain.name}>"
    with chain:
        assert ndarena.handler_of(np.zeros(3)) == chain.name
    shared = make_arena("shared")
    assert (
        ndarena.Limiting("1.5 GiB", shared).name == f"limiting(1.5 GiB, arena[shm:{shared.name}])"
    )
    assert ndarena.Aligned(64).name == "aligned(64, previous)"
    with ndarena.Statistics(), ndarena.Aligned(64):
        assert ndarena.handler_of(np.zeros(3)) == "aligned(64, statistics(default))"
    handler = scratch.handler(min_size="10 KiB", fallback=True)
    expected = "threshold(10 KiB, fallback(arena[scratch], previous), previous)"
    assert ndarena.Locked(handler).name == f"locked({expected})"
    long = ndarena.Statistics()
    for _ in range(30):
        long = ndarena.Statistics(long)
    with long:
        name = ndarena.handler_of(np.zeros(3))
    assert name is not None
    assert name.endswith("…")
    assert len(name.encode()) == 126


def test_two_alignments_never_mix() -> None:
    one, other = ndarena.Aligned(64), ndarena.Aligned(2**21)
    arrays = []
    for size in range(1, 200, 7):
        with one:
            arrays.append((np.full(size, 1), 64))
        with other:
            arrays.append((np.full(size, 1), 2**21))
    for array, alignment in arrays:
        assert array.ctypes.data % alignment == 0
        array.resize(len(array) + 1000, refcheck=False)
        assert array.ctypes.data % alignment == 0
    # By chance one would be aligned so far now and then, not always.
    assert any(a.ctypes.data % 2**21 for a, alignment in arrays if alignment == 64)


@pytest.mark.parametrize("alignment", [0, -16, 3, 48, 2**22])
def test_impossible_alignments(alignment) -> None:
    with pytest.raises(ValueError, match="power of two"):
        ndarena.Aligned(alignment)


def test_alignment_is_an_integer() -> None:
    with pytest.raises(TypeError):
        ndarena.Aligned(64.0)  # type: ignore[arg-type]


def test_an_upstream_that_is_none() -> None:
    with pytest.raises(TypeError, match=r"upstream is to be a resource.* not str"):
        ndarena.Statistics("default")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="large is to be"):
        ndarena.Threshold(1, 5)  # type: ignore[arg-type]


def test_limiting_refuses_and_says_so() -> None:
    limited = ndarena.Limiting("1 MiB")
    with limited:
        kept = np.zeros(900 * 1024, np.uint8)
        with pytest.raises(MemoryError):
            np.zeros(200 * 1024, np.uint8)
    with pytest.raises(MemoryError) as caught, limited:
        np.zeros(200 * 1024, np.uint8)
    if sys.version_info >= (3, 11):
        assert any("900 KiB of 1 MiB are in use" in note for note in caught.value.__notes__)
    assert limited.stats().n_failed == 2
    del kept
    with limited:
        np.zeros(2**20, np.uint8)
    # One limit, wherever the object is used.
    with ndarena.Statistics(limited):
        kept = np.zeros(600 * 1024, np.uint8)
    with limited, pytest.raises(MemoryError):
        np.zeros(600 * 1024, np.uint8)
    del kept


def test_fallback_when_the_arena_is_full(make_arena) -> None:
    arena = make_arena(capacity=2**20)
    with ndarena.Fallback(arena) as both:
        arrays = [np.full(50_000, n, np.uint8) for n in range(40)]
    inside = [a for a in arrays if arena.owns(a)]
    assert 10 < len(inside) < 30
    for n, a in enumerate(arrays):
        a.resize(60_000, refcheck=False)
        assert (a[:50_000] == n).all()
    assert both.stats().n_failed == 0
    assert arena.check() == []


def test_previous_is_what_was_current(scratch) -> None:
    aligned = ndarena.Aligned(4096)
    with scratch.handler(), aligned, aligned:  # entering twice does not nest
        a = np.zeros(100)
        assert ndarena.handler_of(a) == "aligned(4096, ndarena)"
    assert scratch.owns(a)
    with aligned:
        assert not scratch.owns(np.zeros(100))
    # An arena's handler before, and after, an adaptor.
    with aligned, scratch.handler(min_size=1000):
        small, large = np.zeros(10), np.zeros(1000)
    assert small.ctypes.data % 4096 == 0
    assert scratch.owns(large)


def test_default_is_numpys_own_while_another_is_installed(scratch) -> None:
    ndarena.install(scratch)
    try:
        a = np.zeros(1000)
        with ndarena.Default():
            b = np.zeros(1000)
    finally:
        ndarena.uninstall()
    assert scratch.owns(a)
    assert not scratch.owns(b)


def test_statistics() -> None:
    statistics = ndarena.Statistics()
    with statistics:
        a = np.empty(1000, np.uint8)
        before = statistics.stats()
        b = np.empty(500, np.uint8)
        del b
    after = statistics.stats()
    assert (after.n_live, after.allocated) == (before.n_live, before.allocated) == (1, 1000)
    assert after.n_allocations == before.n_allocations + 1
    assert after.peak_allocated == 1500
    a.resize(3000, refcheck=False)
    assert statistics.stats().allocated == 3000
    assert statistics.stats().n_allocations == after.n_allocations
    del a
    assert statistics.stats().n_live == 0


def test_a_chain_counts_at_every_link() -> None:
    inner = ndarena.Statistics(ndarena.Default())
    outer = ndarena.Threshold(1000, inner)
    with outer:
        arrays = [np.empty(n, np.uint8) for n in (10, 100, 1000, 10_000)]
    assert outer.stats().n_live == 4
    assert inner.stats().n_live == 2
    assert inner.stats().allocated == 11_000
    del arrays


def test_capsule_for_other_code(scratch) -> None:
    """A mem_handler is all that NEP 49 asks for; what it leads to lives as long as it does."""
    counted = ndarena.Statistics(scratch)
    for handler in (counted, scratch.handler()):
        previous = _core.set_handler(handler.capsule)
        try:
            a = np.arange(1000)
        finally:
            _core.set_handler(previous)
        assert scratch.owns(a)
    assert counted.stats().n_allocations == 1
    with pytest.raises(ValueError, match="mem_handler"):
        _core.set_handler(object())  # type: ignore[arg-type]


def test_a_capsule_as_an_upstream(scratch) -> None:
    inner = ndarena.Statistics(scratch)
    with ndarena.Aligned(4096, inner.capsule) as outer:
        a = np.arange(100)
    assert outer.name == "aligned(4096, statistics(arena[scratch]))"
    assert scratch.owns(a)
    assert a.ctypes.data % 4096 == 0
    assert (inner.stats().n_live, outer.stats().n_live) == (1, 1)
    alive = weakref.ref(inner)
    del inner, outer
    assert (a == np.arange(100)).all()
    assert alive() is not None, "the array keeps the capsule"
    del a
    assert alive() is None
    with pytest.raises(ValueError, match="mem_handler"):
        ndarena.Statistics(ndarena._C_API)  # a capsule of another kind


def test_disabled(monkeypatch) -> None:
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    with ndarena.Statistics() as statistics:
        assert ndarena.handler_of(np.zeros(10)) == "default_allocator"
    assert statistics.stats().n_allocations == 0


def test_decorated_functions_coroutines_and_generators() -> None:
    statistics = ndarena.Statistics()

    @statistics
    def function():
        return np.zeros(10)

    @statistics
    async def coroutine():
        a = np.zeros(10)
        await asyncio.sleep(0)
        return a, np.zeros(10)

    @statistics
    def generator():
        yield np.zeros(10)

    async def beside():
        for _ in range(5):
            assert ndarena.handler_of(np.zeros(3)) == "default_allocator"
            await asyncio.sleep(0)

    async def both():
        return (await asyncio.gather(coroutine(), beside()))[0]

    for a in (function(), *asyncio.run(both()), *generator()):
        assert ndarena.handler_of(a) == "statistics(default)"
    assert ndarena.handler_of(np.zeros(3)) == "default_allocator"


def test_threads_share_one_resource() -> None:
    statistics = ndarena.Statistics(ndarena.Aligned(128, ndarena.Limiting("1GiB")))

    def work(seed: int) -> None:
        with statistics:
            exercise(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statistics.stats().n_live == 0
    assert statistics.stats().n_failed == 0


def test_arrays_are_freed_in_a_fork_child(scratch) -> None:
    chain = ndarena.Fallback(ndarena.Limiting("1MiB", scratch), ndarena.Default())
    with chain:
        arrays = [np.full(300_000, n, np.uint8) for n in range(6)]
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert all((a == n).all() for n, a in enumerate(arrays))
                arrays.clear()
                exercise(5)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert all((a == n).all() for n, a in enumerate(arrays))


@pytest.mark.nosan  # sanitizers turn mlock into nothing
def test_locked_pages_are_in_memory() -> None:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 2**20 and os.geteuid() != 0:
        pytest.skip("this process may not lock a MiB (ulimit -l)")

    def locked_kib() -> int:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmLck"))

    before = locked_kib()
    with ndarena.Locked():
        a, b = np.zeros(500_000, np.uint8), np.zeros(100, np.uint8)
    assert locked_kib() - before == 492 + 4
    assert a.ctypes.data % 4096 == b.ctypes.data % 4096 == 0
    del a
    assert locked_kib() - before == 4
    del b
    assert locked_kib() == before


@pytest.mark.nosan  # sanitizers turn mlock into nothing
def test_locked_beyond_the_limit_says_which() -> None:
    code = """if True:
        import os, resource
        import numpy as np, ndarena
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)  # root may lock what it wants
        locked = ndarena.Locked()
        try:
            with locked:
                kept = np.zeros(40_000, np.uint8)
                np.zeros(40_000, np.uint8)
        except MemoryError as error:
            notes = getattr(error, "__notes__", ["ulimit -l, is 64 KiB"])
            assert "ulimit -l, is 64 KiB" in notes[0], notes
        else:
            raise AssertionError("more was locked than may be")
        assert locked.stats().n_live == 1 and locked.stats().n_failed == 1
        del kept
        with locked:
            np.zeros(40_000, np.uint8)
        print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
