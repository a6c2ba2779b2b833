"""One suite for every resource and every adaptor: whoever makes arrays cannot tell which it is.

The suite in tests/cpp/resources is the same for those that need no Python.
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
from test_foreign import Mine
from test_resources import exercise

import ndarena

LIBC = ctypes.CDLL(None)  # like the names below: those of the process, a sanitizer's or glibc's
LEAVES = {
    "default": lambda arena: ndarena.Default(),
    "previous": lambda arena: ndarena.Previous(),
    "callback c": lambda arena: ndarena.Callback(LIBC.malloc, LIBC.free, "calloc", "realloc"),
    "library": lambda arena: ndarena.Library("libc.so.6", aligned_alloc="aligned_alloc"),
    "pymem mem": lambda arena: ndarena.PyMem("mem"),
    "pymem obj": lambda arena: ndarena.PyMem("obj"),
    "pymem raw": lambda arena: ndarena.PyMem("raw"),
    "pymem of a resource": lambda arena: ndarena.PyMem(ndarena.Default().pymem_capsule),
    "python": lambda arena: Mine(),
}
ADAPTORS = {
    "aligned": lambda arena: ndarena.Aligned(4096, arena),
    "fallback": lambda arena: ndarena.Fallback(ndarena.Limiting(9000, arena), ndarena.Default()),
    "limiting": lambda arena: ndarena.Limiting("64MiB", arena),
    "locked": lambda arena: ndarena.Locked(arena),
    "statistics": lambda arena: ndarena.Statistics(arena),
    "threshold": lambda arena: ndarena.Threshold(5000, arena, ndarena.PyMem("mem")),
    "tracing": lambda arena: ndarena.Tracing(arena, frames=2, max_events=100),
    "a handler of somebody": lambda arena: ndarena.Aligned(64, ndarena.Statistics(arena).capsule),
}
KINDS = LEAVES | ADAPTORS


@pytest.fixture(autouse=True, scope="module")
def _caches() -> None:
    exercise(0)


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def resource(request, scratch):
    return request.param(scratch)


def test_contents_counts_and_names(resource) -> None:
    with resource as entered:
        exercise(11)
        a, b = np.zeros(1000), np.empty(3)
        assert ndarena.current() is resource is entered
    assert not a.any()
    assert all(x.ctypes.data % 16 == 0 for x in (a, b))
    assert resource.owns(a)
    assert resource.owns(b[1:])
    assert ndarena.handler_of(a) is not None
    stats = resource.stats()
    assert (stats.n_live, stats.allocated) == (2, 8024)
    assert stats.peak_allocated > 8024
    assert stats.n_failed == 0
    del a, b
    assert resource.stats().n_live == 0


def test_a_refusal_changes_nothing(resource, unraisable) -> None:
    with resource:
        a = np.arange(100)
        with pytest.raises(MemoryError):
            np.empty(1 << 62, np.uint8)
        with pytest.raises(MemoryError):
            a.resize(1 << 59, refcheck=False)
    assert (a == np.arange(100)).all()
    assert resource.stats().n_failed == 2
    assert resource.stats().n_live == 1
    assert isinstance(resource, ndarena.PythonResource) or not unraisable


def test_threads(resource) -> None:
    def work(seed: int) -> None:
        with resource:
            for n in range(3):
                exercise(seed + n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resource.stats().n_live == 0


def test_as_an_upstream_and_for_the_process(resource) -> None:
    with ndarena.Aligned(8192, resource):
        a = np.ones(700)
    assert a.ctypes.data % 8192 == 0
    ndarena.install(resource)
    try:
        exercise(5)
        b = np.ones(700)
        assert resource.owns(b)
    finally:
        ndarena.uninstall()
    a.resize(50_000, refcheck=False)
    assert (a[:700] == b).all()
    assert resource.stats().n_live == 2
