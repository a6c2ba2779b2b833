"""A resource lives exactly until the last array made with it is gone."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import ndarena

TIMES = 10_000
LIBC = ctypes.CDLL("libc.so.6")
LIBC.malloc.restype, LIBC.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]


class Plain(ndarena.PythonResource):
    def allocate(self, nbytes: int) -> int:
        return LIBC.malloc(nbytes)

    def deallocate(self, address: int, nbytes: int) -> None:
        LIBC.free(address)


MAKERS = {
    "aligned": lambda: ndarena.Aligned(256),
    "callback": lambda: ndarena.Callback("malloc", "free"),
    "default": ndarena.Default,
    "fallback": lambda: ndarena.Fallback(ndarena.Limiting(100), ndarena.Default()),
    "library": lambda: ndarena.Library(LIBC),
    "limiting": lambda: ndarena.Limiting("1MiB"),
    "locked": ndarena.Locked,
    "previous": ndarena.Previous,
    "pymem": lambda: ndarena.PyMem("obj"),
    "python": Plain,
    "statistics": ndarena.Statistics,
    "threshold": lambda: ndarena.Threshold(100, ndarena.Statistics()),
    "tracing": lambda: ndarena.Tracing(max_events=100),
    "tracing frames": lambda: ndarena.Tracing(frames=2, max_events=100),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_ten_thousand_times(make) -> None:
    gc.collect()
    gc.disable()  # references alone decide
    try:
        for n in range(TIMES):
            made = make()
            with made:
                a = np.empty(10 + n % 50)
            alive = weakref.ref(made)
            references = sys.getrefcount(made)
            view = a[1:]
            assert sys.getrefcount(made) == references, "only arrays that own memory count"
            del made, a
            assert alive() is not None, "a view keeps the array"
            del view
            assert alive() is None
    finally:
        gc.enable()


def test_each_chain_keeps_one_reference() -> None:
    statistics = ndarena.Statistics()
    alone = sys.getrefcount(statistics)
    with statistics:
        arrays = [np.empty(10) for _ in range(5)]  # of one activation
    assert sys.getrefcount(statistics) == alone + 1
    del arrays
    assert sys.getrefcount(statistics) == alone


def test_upstreams_live_with_the_chain(make_arena) -> None:
    arena = make_arena("buffer")
    inner = ndarena.Statistics(arena)
    outer = ndarena.Aligned(128, inner)
    with outer:
        a = np.ones(1000)
    alive = weakref.ref(inner), weakref.ref(outer)
    del inner, outer
    arena.close()
    assert (a == 1).all()
    assert None not in [r() for r in alive]
    del a
    gc.collect()
    assert [r() for r in alive] == [None, None]


def test_the_last_array_dies_in_another_thread() -> None:
    for _ in range(200):
        statistics = ndarena.Statistics(ndarena.Limiting("1MiB"))
        with statistics:
            arrays = [np.empty(100)]
        alive = weakref.ref(statistics)
        del statistics
        thread = threading.Thread(target=arrays.clear)
        thread.start()
        thread.join()
        assert alive() is None


def test_an_exception_is_pending_while_the_last_array_dies() -> None:
    alive = []

    def fail() -> None:
        with ndarena.Statistics(ndarena.Fallback(ndarena.Limiting(10))) as statistics:
            alive.append(weakref.ref(statistics))
            a = np.empty(100)
            raise KeyError(a.size)

    with pytest.raises(KeyError, match="100"):
        fail()
    gc.collect()
    assert alive[0]() is None


def test_at_exit() -> None:
    """Arrays of every kind of chain, global, in cycles and in a running thread, at the end."""
    code = """if True:
        import threading, time
        import numpy as np, ndarena

        arena = ndarena.scratch(capacity="64MiB")
        chain = ndarena.Statistics(ndarena.Fallback(ndarena.Threshold(1000, arena)))
        chain = ndarena.Aligned(4096, ndarena.Limiting("10MiB", ndarena.Locked(chain)))
        with chain:
            a, b = np.ones(5000), np.ones(5)

        class Cycle:
            pass

        c = Cycle()
        c.me, c.arrays = c, [a[1:], b[1:]]
        chain.__enter__()  # and it is still current
        started = threading.Event()

        def run():
            with chain:
                d = np.ones(3000)
                started.set()
                time.sleep(600)

        threading.Thread(target=run, daemon=True).start()
        started.wait()
        print("end", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)
