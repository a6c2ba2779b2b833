"""Allocators of others: Python callables, functions of C, libraries."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from test_resources import exercise

import ndarena
from ndarena import _core

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.calloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free.restype = None
NATIVE = Path(__file__).with_name("native") / "pages.c"


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Path:
    """The library of native/pages.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    built = tmp_path_factory.mktemp("native") / "libpages.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-pthread", "-o", str(built), str(NATIVE)], check=True
    )
    return built


class Ledger:
    """malloc in Python, which knows what is alive."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self.calls: list[str] = []

    def malloc(self, nbytes: int) -> int:
        self.calls.append("malloc")
        address = libc.malloc(nbytes)
        assert address not in self.live
        self.live[address] = nbytes
        return address

    def calloc(self, count: int, size: int) -> int:
        address = self.malloc(count * size)
        self.calls[-1] = "calloc"
        ctypes.memset(address, 0, count * size)
        return address

    def realloc(self, address: int, nbytes: int) -> int:
        self.calls.append("realloc")
        del self.live[address]
        moved = libc.realloc(address, nbytes)
        self.live[moved] = nbytes
        return moved

    def free(self, address: int) -> None:
        self.calls.append("free")
        del self.live[address]
        libc.free(address)


@pytest.mark.parametrize("names", [(), ("calloc",), ("realloc",), ("calloc", "realloc")])
def test_python_callables(names, unraisable) -> None:
    exercise(0)  # what NumPy keeps from its first calls on
    ledger = Ledger()
    callback = ndarena.Callback(
        ledger.malloc, ledger.free, **{name: getattr(ledger, name) for name in names}
    )
    with callback:
        exercise(1)
        a = np.ones(123)
        assert ledger.live[a.ctypes.data] == 984, "exactly what NumPy asked for"
    assert ndarena.handler_of(a) == "callback(Ledger.malloc)"
    assert callback.stats().n_live == len(ledger.live) == 1
    del a
    assert not ledger.live
    assert not unraisable
    assert set(ledger.calls) == {"malloc", "free", *names}


def test_functions_of_c_addresses_and_symbols() -> None:
    address = ctypes.cast(libc.malloc, ctypes.c_void_p).value
    for malloc in (libc.malloc, address, "malloc", np.intp(address)):
        callback = ndarena.Callback(malloc, libc.free, "calloc", libc.realloc)
        with callback:
            exercise(2)
            a = np.zeros(77)
        assert callback.stats().n_live == 1
        assert a.ctypes.data % 16 == 0
        del a


def test_functions_that_ctypes_made() -> None:
    ledger = Ledger()
    malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(ledger.malloc)
    free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ledger.free)
    with ndarena.Callback(malloc, free) as callback:
        a = np.ones(100)
    del malloc, free, callback  # the array keeps them
    gc.collect()
    b = a + 1
    assert list(ledger.live.values()) == [800]
    del a
    assert not ledger.live
    assert (b == 2).all()


@pytest.mark.parametrize(
    ("functions", "error", "words"),
    [
        ((None, libc.free), TypeError, "malloc is to be a function"),
        ((libc.malloc, None), TypeError, "free is to be a function"),
        ((b"malloc", "free"), TypeError, "malloc is to be a function, not bytes"),
        ((True, "free"), TypeError, "not bool"),
        ((0, libc.free), ValueError, "malloc is a null pointer"),
        (("malloc", "no_such_free"), ValueError, "no symbol 'no_such_free'"),
        ((libc.malloc, print), TypeError, "either all functions are Python's or none"),
    ],
)
def test_what_cannot_be_called(functions, error, words) -> None:
    with pytest.raises(error, match=words):
        ndarena.Callback(*functions)


@pytest.mark.parametrize("answer", [None, 0, ZeroDivisionError(), "text", -1, 1 << 80])
def test_refusals_of_python_callables(answer, unraisable) -> None:
    def malloc(nbytes: int) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    callback = ndarena.Callback(malloc, lambda address: None)
    with pytest.raises(MemoryError), callback:
        np.empty(100)
    assert callback.stats().n_failed == 1
    if answer in (None, 0):
        assert not unraisable
    elif answer == -1:
        assert "aligned" in str(unraisable[0])
    else:
        expected = {str: TypeError, int: OverflowError}.get(type(answer), type(answer))
        assert [type(e) for e in unraisable] == [expected]


def test_free_runs_clean_of_the_pending_exception(unraisable) -> None:
    ledger = Ledger()
    seen = []

    def free(address: int) -> None:
        seen.append(sys.exc_info()[0])
        int("5")  # fails at once if an exception is pending
        ledger.free(address)

    def numbers():
        yield from range(50)
        raise KeyError("the generator's")

    with ndarena.Callback(ledger.malloc, free), pytest.raises(KeyError, match="the generator's"):
        np.fromiter(numbers(), float)
    assert seen  # it grew a few times, and was freed while the exception was pending
    assert not ledger.live
    assert not unraisable


def test_an_exception_in_free_is_reported(unraisable) -> None:
    ledger = Ledger()

    def free(address: int) -> None:
        ledger.free(address)
        raise RuntimeError("from free")

    with ndarena.Callback(ledger.malloc, free):
        held = [np.empty(10)]

        def lose() -> None:
            try:
                raise KeyError("mine")
            finally:
                held.clear()

        with pytest.raises(KeyError, match="mine"):
            lose()
    assert [str(e) for e in unraisable] == ["from free"]
    assert not ledger.live


def test_a_failed_realloc_leaves_the_array(unraisable) -> None:
    ledger = Ledger()

    def realloc(address: int, nbytes: int) -> int:
        raise MemoryError("no")

    with ndarena.Callback(ledger.malloc, ledger.free, realloc=realloc):
        a = np.arange(100)
        with pytest.raises(MemoryError):
            a.resize(1000, refcheck=False)
        assert (a == np.arange(100)).all()
        del a
    assert not ledger.live
    assert len(unraisable) == 1


def test_callbacks_may_make_arrays(unraisable) -> None:
    ledger = Ledger()

    def malloc(nbytes: int) -> int:
        assert np.ones(1000).sum() == 1000
        return ledger.malloc(nbytes)

    def free(address: int) -> None:
        assert np.ones(1000).sum() == 1000
        ledger.free(address)

    with ndarena.Statistics() as outer, ndarena.Callback(malloc, free) as inner:
        a = np.empty(5)
        assert inner.stats().n_live == 1
        del a
    assert outer.stats().n_allocations >= 2
    assert not ledger.live
    assert not unraisable


def test_threads_and_calls_without_the_gil() -> None:
    ledger = Ledger()
    callback = ndarena.Callback(ledger.malloc, ledger.free, realloc=ledger.realloc)
    text = " ".join(str(n) for n in range(30_000))  # grows, and NumPy has let the GIL go

    def work() -> None:
        with callback:
            for _ in range(3):
                assert np.fromstring(text, sep=" ").sum() == 449_985_000

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.calls.count("realloc") > 12
    assert not ledger.live


class _Table(ctypes.Structure):  # PyDataMem_Handler of NumPy
    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


class _Job(ctypes.Structure):
    _fields_ = (
        ("malloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("nbytes", ctypes.c_size_t),
        ("result", ctypes.c_void_p),
    )


def test_threads_that_python_does_not_know(pages) -> None:
    ledger = Ledger()
    capsule = ndarena.Callback(ledger.malloc, ledger.free).capsule
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = _Table.from_address(pointer(capsule, b"mem_handler"))
    job = _Job(table.malloc, table.free, table.context, 5000)
    native = ctypes.CDLL(str(pages))
    native.in_a_thread.restype = ctypes.c_void_p
    for _ in range(20):
        assert native.in_a_thread(ctypes.byref(job)) not in (None, 0)
    assert ledger.calls == ["malloc", "free"] * 20
    assert not ledger.live


@pytest.mark.parametrize("kind", ["callback", "resource", "cfunction"])
def test_during_exit(kind) -> None:
    code = f"""if True:
        import atexit, ctypes, threading, numpy as np, ndarena
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        class Mine(ndarena.PythonResource):
            def allocate(self, nbytes):
                return libc.malloc(nbytes)
            def deallocate(self, address, nbytes):
                libc.free(address)
        made = {{
            "callback": lambda: ndarena.Callback(lambda n: libc.malloc(n), lambda p: libc.free(p)),
            "resource": Mine,
            "cfunction": lambda: ndarena.Callback(libc.malloc, libc.free),
        }}["{kind}"]()
        class Cycle:
            pass
        with made:
            kept = np.ones(10_000)
            cycle = Cycle()
            cycle.self, cycle.array = cycle, np.ones(10_000)
        made.__enter__()                      # and current at the end
        late = np.ones(10)
        atexit.register(lambda: np.ones(1000).sum())
        threading.Thread(target=lambda: np.ones(1000).sum()).start()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


class Mine(ndarena.PythonResource):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()

    def allocate(self, nbytes: int) -> int:
        return self.ledger.malloc(nbytes)

    def deallocate(self, address: int, nbytes: int) -> None:
        assert self.ledger.live[address] == nbytes
        self.ledger.free(address)


def test_a_resource_written_in_python(unraisable) -> None:
    exercise(0)
    mine = Mine()
    with mine:
        exercise(3)
        a = np.ones(1000)
    assert ndarena.handler_of(a) == mine.name == "python(Mine)"
    assert list(mine.ledger.live.values()) == [8000]
    with ndarena.Aligned(4096, mine):
        b = np.ones(1000)
    assert b.ctypes.data % 4096 == 0
    assert sorted(mine.ledger.live.values()) == [8000, 12096]
    alive = weakref.ref(mine)
    ledger = mine.ledger
    del mine, b
    assert alive() is not None
    del a
    gc.collect()
    assert alive() is None
    assert not ledger.live
    assert not unraisable


def test_a_resource_without_its_methods() -> None:
    class Half(ndarena.PythonResource):
        def allocate(self, nbytes: int) -> int:
            return 0

    with pytest.raises(TypeError, match="deallocate"):
        Half()


def test_a_resource_that_forgot_its_base() -> None:
    class Careless(Mine):
        def __init__(self) -> None:  # no super().__init__()
            self.ledger = Ledger()

    with pytest.raises(TypeError, match=r"super\(\).__init__\(\)"), Careless():
        pass


OPTIONS = {
    "malloc": {},
    "calloc": {"calloc": "pages_calloc"},
    "all": {"calloc": "pages_calloc", "realloc": "pages_realloc"},
    "aligned": {"aligned_alloc": "pages_aligned_alloc"},
    "only aligned": {"malloc": None, "aligned_alloc": "pages_aligned_alloc"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_library(pages, options) -> None:
    exercise(0)
    options = {"malloc": "pages_malloc", "free": "pages_free", **options}
    library = ndarena.Library(pages, **options)
    live = ctypes.c_long.in_dll(library.library, "pages_live")
    asked = ctypes.c_size_t.in_dll(library.library, "pages_asked")
    with library:
        exercise(4)
        a = np.empty(100)
        if "only aligned" not in options and options["malloc"] is not None:
            assert asked.value == 800, "exactly what NumPy asked for"
    assert ndarena.handler_of(a) == "library(libpages.so)"
    assert a.ctypes.data % 4096 == 0
    assert live.value == library.stats().n_live == 1
    with ndarena.Aligned(1024, library):
        b = np.zeros(10)
    assert b.ctypes.data % 1024 == 0
    assert not b.any()
    refuse = ctypes.c_long.in_dll(library.library, "pages_refuse")
    refuse.value = 1
    with pytest.raises(MemoryError), library:
        np.empty(10)
    refuse.value = 0
    del a, b
    assert live.value == 0


def test_library_stays_loaded(pages) -> None:
    with ndarena.Library(ctypes.CDLL(str(pages)), "pages_malloc", "pages_free"):
        a = np.ones(10)
    gc.collect()
    assert (a * 2 == 2).all()


def test_library_with_too_little_alignment(pages) -> None:
    library = ndarena.Library(pages, "pages_crooked", "pages_uncrook")
    live = ctypes.c_long.in_dll(library.library, "pages_live")
    with pytest.raises(MemoryError), library:
        np.empty(10)
    assert live.value == 0


def test_libraries_that_do_not_fit(pages, tmp_path) -> None:
    with pytest.raises(OSError, match="no_such_library"):
        ndarena.Library(tmp_path / "no_such_library.so")
    with pytest.raises(ValueError, match=r"libpages\.so has no symbol 'pages_mallocate'"):
        ndarena.Library(pages, "pages_mallocate", "pages_free")
    # The library's handle leads to the C library that it needs, too.
    with pytest.raises(ValueError, match=r"pages_malloc, free come from several.*libpages\.so"):
        ndarena.Library(pages, "pages_malloc", "free")
    with pytest.raises(ValueError, match="needs aligned_alloc"):
        ndarena.Library(pages, malloc=None)


def test_before_and_after_adaptors_and_arenas(scratch, pages) -> None:
    library = ndarena.Library(pages, "pages_malloc", "pages_free")
    live = ctypes.c_long.in_dll(library.library, "pages_live")
    ledger = Ledger()
    large = ndarena.Threshold(4000, scratch.handler(), ndarena.Callback(ledger.malloc, ledger.free))
    with ndarena.Statistics(ndarena.Threshold(100_000, library, large)):
        exercise(5)
        arrays = [np.empty(n, np.uint8) for n in (10, 10_000, 1_000_000)]
    assert list(ledger.live) == [arrays[0].ctypes.data]
    assert scratch.owns(arrays[1])
    assert live.value == 1
    del arrays
    assert (live.value, len(ledger.live)) == (0, 0)
    assert _core.name_of_handler(library.capsule) == "library(libpages.so)"
