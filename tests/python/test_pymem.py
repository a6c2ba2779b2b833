"""Python's allocators for arrays, and resources as allocators of Python."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from test_resources import exercise

import ndarena

DOMAINS = ["mem", "obj", "raw"]


class Table(ctypes.Structure):
    """Python's PyMemAllocatorEx."""

    _fields_ = (
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        (
            "calloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
        ),
        (
            "realloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
        ("free", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)),
    )


def table_in(capsule: object) -> Table:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return Table.from_address(pointer(capsule, b"PyMemAllocatorEx"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains(domain) -> None:
    exercise(0)
    python = ndarena.PyMem(domain)
    with python:
        exercise(1)
        a = np.empty(100)
    assert ndarena.handler_of(a) == f"pymem({domain})"
    assert python.stats().n_live == 1
    with ndarena.Aligned(4096, python):
        assert np.zeros(10).ctypes.data % 4096 == 0
    del a
    assert python.stats().allocated == 0


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_the_gil(domain) -> None:
    text = " ".join(str(n) for n in range(30_000))  # realloc comes without the GIL
    python = ndarena.PyMem(domain)

    def work() -> None:
        with python:
            for _ in range(5):
                assert np.fromstring(text, sep=" ").sum() == 449_985_000

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert python.stats().n_live == 0


def test_tracemalloc_sees_them() -> None:
    tracemalloc.start()
    try:
        with ndarena.PyMem("mem"):
            before = tracemalloc.take_snapshot()
            a = np.empty(1_000_000, np.uint8)
            after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = sum(s.size_diff for s in after.compare_to(before, "filename"))
    # Twice: NumPy reports its arrays by itself, and Python's domain does.
    assert grown >= 2 * len(a)


@pytest.mark.nosan  # the sanitizers find it first
@pytest.mark.parametrize("domain", DOMAINS)
def test_debug_hooks_catch_an_overrun_at_free(domain) -> None:
    code = f"""if True:
        import ctypes, numpy as np, ndarena
        with ndarena.PyMem("{domain}"):
            a = np.zeros(100, np.uint8)
        print("made", flush=True)
        ctypes.memset(a.ctypes.data, 1, {{length}})
        del a
        print("freed")
    """
    for length, caught in ((100, False), (101, True)):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", code.format(length=length)],
            env={"PYTHONMALLOC": "debug", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split() == (["made"] if caught else ["made", "freed"]), done.stderr
        assert ("bad trailing pad byte" in done.stderr) == caught
        assert (done.returncode != 0) == caught


@pytest.mark.parametrize(
    ("allocator", "error", "words"),
    [
        ("memory", ValueError, "'raw', 'mem' and 'obj', not 'memory'"),
        (0, ValueError, "not null"),
        (1.5, TypeError, "float"),
        (ndarena.Default().capsule, ValueError, "NumPy handler"),
    ],
)
def test_what_is_no_allocator(allocator, error, words) -> None:
    with pytest.raises(error, match=words):
        ndarena.PyMem(allocator)


def test_a_resource_as_an_allocator_of_python(scratch) -> None:
    inner = ndarena.Statistics(scratch)
    capsule = inner.pymem_capsule
    table = table_in(capsule)
    context = table.context
    p = table.malloc(context, 1000)
    assert p % 16 == 0
    assert inner.stats().allocated == 1000
    assert ctypes.string_at(table.calloc(context, 10, 20), 200) == bytes(200)
    assert table.calloc(context, 2**40, 2**40) is None, "more bytes than there are numbers"
    assert table.malloc(context, 0) is not None
    ctypes.memset(p, 7, 1000)
    q = table.realloc(context, p, 100_000)
    assert ctypes.string_at(q, 1000) == b"\7" * 1000
    assert table.realloc(context, 12345, 10) is None, "not its own"
    table.free(context, 12345)
    table.free(context, None)
    table.free(context, q)
    assert inner.stats().n_live == 2
    assert table.malloc(context, 2**60) is None
    r = table.realloc(context, None, 50)
    assert inner.stats().n_live == 3
    assert r is not None


def test_there_and_back(scratch) -> None:
    exercise(0)
    inner = ndarena.Statistics(scratch)
    for made in (
        ndarena.PyMem(inner.pymem_capsule),
        ndarena.PyMem(ctypes.addressof(table_in(keep := inner.pymem_capsule)), gil=False),
    ):
        with made:
            exercise(2)
            a = np.ones(1000)
        assert scratch.owns(a)
        assert inner.stats().n_live == made.stats().n_live == 1
        del a
    assert keep is not None
    assert inner.stats().allocated == 0


@pytest.mark.nosan  # what Python itself makes meanwhile is freed by another
def test_python_itself_can_use_it() -> None:
    """New objects of a domain come from a resource, in a process of its own."""
    code = """if True:
        import ctypes, os, numpy as np, ndarena, sys
        sys.path.insert(0, os.path.dirname(os.environ["TABLE"]))
        from test_pymem import table_in
        arena = ndarena.scratch()
        capsule = ndarena.Statistics(arena).pymem_capsule
        mem = ndarena.PyMem(capsule)
        old = (ctypes.c_void_p * 5)()
        api = ctypes.pythonapi
        api.PyMem_GetAllocator(1, old)
        p = ctypes.PyDLL(None).PyMem_Malloc
        p.restype, p.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        ours, exchange = ctypes.byref(table_in(capsule)), api.PyMem_SetAllocator
        exchange(1, ours)
        address = p(12345)
        exchange(1, old)
        base = arena.empty(1).ctypes.data
        print(abs(address - base) < 2**36, arena.stats().n_blocks, flush=True)
        os._exit(0)  # what Python freed meanwhile was not the arena's
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "TABLE": __file__},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    near, blocks = done.stdout.split()
    assert near == "True"
    assert int(blocks) >= 1


def test_what_it_keeps() -> None:
    statistics = ndarena.Statistics()
    python = ndarena.PyMem(statistics.pymem_capsule)
    with python:
        a = np.ones(1000)
    alive = weakref.ref(statistics)
    del statistics, python
    gc.collect()
    assert alive() is not None
    assert (a == 1).all()
    del a
    gc.collect()
    assert alive() is None
