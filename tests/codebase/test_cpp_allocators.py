"""`ndarena/numpy.hpp`: C++ allocators of many kinds hold NumPy's arrays."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import ndarena

from extensions import Table, built, exercise, module, run

WELL, THROWS_BAD_ALLOC, THROWS_INT, GIVES_NULL, GIVES_CROOKED = range(5)
MUCH = 1 << 40


@pytest.fixture
def cpp() -> Any:
    made = module("cpp_allocators")
    exercise(0)  # what NumPy keeps from its first calls on
    return made


class Look(NamedTuple):
    """What a ledger says."""

    live: int
    nbytes: int
    allocated: int
    wrong: int
    holders: int


def look(cpp: Any, number: int) -> Look:
    return Look(*cpp.look(number))


@contextlib.contextmanager
def current(cpp: Any, capsule: object) -> Iterator[None]:
    previous = cpp.use(capsule)
    try:
        yield
    finally:
        cpp.use(previous)


KINDS = ["standard", "polymorphic", "fancy"]
COUNTED = ["counting", "resource", "pool", "unsynchronized", "monotonic"]


def make(cpp: Any, kind: str) -> tuple[object, int | None]:
    if kind == "standard":
        return cpp.standard(kind), None
    if kind in COUNTED:
        return cpp.__dict__[kind]()
    if not hasattr(cpp, kind):
        pytest.skip("needs Boost")
    return cpp.__dict__[kind](), None


@pytest.mark.parametrize("kind", KINDS + COUNTED)
def test_arrays(cpp, kind) -> None:
    capsule, number = make(cpp, kind)
    with current(cpp, capsule):
        exercise(1)
        a = np.arange(1000.0)
    assert ndarena.handler_of(a) == kind
    assert a.ctypes.data % 16 == 0
    assert (np.sort(a)[::-1] == np.arange(999.0, -1, -1)).all()
    if number is None:
        return
    seen = look(cpp, number)
    assert seen.allocated > 0
    assert seen.wrong == 0
    if kind in ("counting", "resource"):
        assert (seen.live, seen.nbytes) == (1, 8000)
    assert seen.holders == 1
    del capsule
    assert look(cpp, number).holders == 1, "the array keeps the allocator"
    view = a[1:]
    del a
    assert look(cpp, number).holders == 1
    del view
    assert look(cpp, number)[:1] + look(cpp, number)[3:] == (0, 0, 0), "and nothing else does"


def test_fancy_pointers_lead_into_their_segment(cpp) -> None:
    capsule, _ = make(cpp, "fancy")
    used, _, start, size = cpp.segment()
    with current(cpp, capsule):
        arrays = [np.full(n, n) for n in range(0, 3000, 61)]
        with pytest.raises(MemoryError):
            np.empty(size)
        for a in arrays:
            a.resize(len(a) * 2, refcheck=False)
    for n, a in zip(range(0, 3000, 61), arrays, strict=True):
        assert start <= a.ctypes.data < start + size
        assert (a[:n] == n).all()
        assert not a[n:].any()
    assert cpp.segment()[1], "check_sanity"
    del arrays, a
    assert cpp.segment()[:2] == (used, True)


def test_sizes_are_ours_not_numpys(cpp) -> None:
    """free's size is wrong now and then; the allocator is told what it was asked for."""
    for make_one in (cpp.counting, cpp.resource):
        capsule, number = make_one()
        table = Table.of(capsule)
        for nbytes in (1, 15, 16, 17, 1000, 4096):
            p = table.malloc(nbytes)
            assert look(cpp, number).nbytes == -(-nbytes // 16) * 16
            table.free(p, nbytes + 12345)
        assert look(cpp, number)[:2] == (0, 0)
        assert look(cpp, number).wrong == 0


@pytest.mark.parametrize("kind", KINDS + COUNTED)
def test_every_size_is_aligned(cpp, kind) -> None:
    """Pools of libstdc++ do not keep to the alignment that is asked of them (GCC 12)."""
    capsule, _ = make(cpp, kind)
    table = Table.of(capsule)
    blocks = [(table.malloc(n), n) for n in range(1, 700) for _ in range(3)]
    for p, n in blocks:
        assert p is not None, n
        assert p % 16 == 0
        ctypes.memset(p, n % 251, n)
    for p, n in blocks:
        assert ctypes.string_at(p, n) == bytes([n % 251]) * n
        table.free(p)


def test_the_table_of_functions(cpp) -> None:
    capsule, number = cpp.resource()
    table = Table.of(capsule)
    assert table.version == 1
    table.free(None, 77)  # routine
    assert look(cpp, number).allocated == 0
    for p in (table.malloc(0), table.calloc(0, 8), table.calloc(8, 0), table.realloc(None, 0)):
        assert p is not None
        assert p % 16 == 0
        table.free(p)
    p = table.calloc(30, 100)
    assert ctypes.string_at(p, 3000) == bytes(3000)
    ctypes.memset(p, 7, 3000)
    p = table.realloc(p, 5000)
    assert ctypes.string_at(p, 3000) == b"\7" * 3000
    p = table.realloc(p, 100)
    assert ctypes.string_at(p, 100) == b"\7" * 100
    p = table.realloc(p, 0)
    assert p is not None
    assert look(cpp, number)[:2] == (1, 16)
    table.free(p)
    table.free(p)  # twice, and somebody else's: left alone
    table.free(id(table))
    assert table.realloc(id(table), 10) is None
    p = table.realloc(None, 64)
    assert look(cpp, number)[:2] == (1, 64)
    table.free(p)
    assert look(cpp, number)[:2] == (0, 0)
    assert look(cpp, number).wrong == 0


@pytest.mark.parametrize("make_one", ["counting", "resource"])
@pytest.mark.parametrize("mood", [THROWS_BAD_ALLOC, THROWS_INT, GIVES_NULL, GIVES_CROOKED])
def test_refusals(cpp, make_one, mood) -> None:
    capsule, number = cpp.__dict__[make_one]()
    table = Table.of(capsule)
    p = table.malloc(100)
    ctypes.memset(p, 9, 100)
    cpp.order(number, mood, MUCH)
    assert table.malloc(50) is None
    assert table.calloc(50, 2) is None
    assert table.realloc(p, 10_000) is None
    assert table.realloc(p, 10) is None
    with pytest.raises(MemoryError), current(cpp, capsule):
        np.empty(100)
    assert look(cpp, number).live == 1, "what was crooked is given back"
    assert ctypes.string_at(p, 100) == b"\11" * 100
    cpp.order(number, WELL, MUCH)
    p = table.realloc(p, 200)
    assert ctypes.string_at(p, 100) == b"\11" * 100
    table.free(p)
    assert look(cpp, number)[:2] == (0, 0)
    assert look(cpp, number).wrong == 0


def test_sizes_that_overflow(cpp) -> None:
    for capsule in (cpp.counting()[0], cpp.resource()[0], cpp.standard("x"), cpp.polymorphic()):
        table = Table.of(capsule)
        p = table.malloc(10)
        most = 2 * sys.maxsize + 1
        for count, size in ((2**32, 2**32), (most, 2), (3, most // 2), (most, 1), (1, most - 7)):
            assert table.calloc(count, size) is None
        for nbytes in (most, most - 15, most - 16, sys.maxsize):
            assert table.malloc(nbytes) is None
            assert table.realloc(p, nbytes) is None
        table.free(p)


def test_a_failed_resize_leaves_the_array(cpp) -> None:
    capsule, number = cpp.counting()
    with current(cpp, capsule):
        a = np.arange(100)
        cpp.order(number, WELL, 1000)
        with pytest.raises(MemoryError):
            a.resize(1000, refcheck=False)
    assert (a == np.arange(100)).all()


def test_the_pending_exception_stays(cpp, monkeypatch) -> None:
    """The last array, and with it the allocator, dies while an exception is on its way."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))
    events: list[str] = []

    def said() -> None:
        events.append("gone")
        int("5")  # fails at once if an exception is pending

    def numbers() -> Iterator[int]:
        yield from range(50)
        cpp.use(previous)  # from here on the array alone has the capsule
        events.append("raised")
        raise KeyError("the generator's")

    previous = cpp.use(cpp.farewell(said))
    with pytest.raises(KeyError, match="the generator's"):
        np.fromiter(numbers(), float)
    assert events == ["raised", "gone"]
    assert unraisable == []


def test_the_last_array_dies_in_another_thread(cpp) -> None:
    for _ in range(50):
        capsule, number = cpp.resource()
        with current(cpp, capsule):
            arrays = [np.empty(100)]
        del capsule
        thread = threading.Thread(target=arrays.clear)
        thread.start()
        thread.join()
        assert look(cpp, number)[:1] + look(cpp, number)[3:] == (0, 0, 0)


def test_names(cpp) -> None:
    def name_of(name: str | None) -> str:
        with current(cpp, cpp.standard(name)):
            found = ndarena.handler_of(np.empty(3))
        assert found is not None
        return found

    assert name_of("mine") == "mine"
    assert name_of(None) == name_of("") == "cpp_allocator"
    assert name_of("x" * 126) == "x" * 126
    assert name_of("x" * 127) == "x" * 123 + "…"
    for shift in range(4):  # never in the middle of a character
        cut = name_of("x" * shift + "€" * 60)
        assert cut.endswith("€…")
        assert 120 < len(cut.encode()) <= 126


def test_what_cannot_be_made(cpp) -> None:
    with pytest.raises(ValueError, match="null pointer"):
        cpp.no_resource()
    with pytest.raises(MemoryError):
        cpp.unlucky("memory")
    with pytest.raises(RuntimeError, match="dropped while moving"):
        cpp.unlucky("runtime")
    with pytest.raises(RuntimeError, match="could not be moved"):
        cpp.unlucky("other")


@pytest.mark.parametrize("kind", ["counting", "unsynchronized", "monotonic"])
def test_allocators_without_locks_serve_threads_without_the_gil(cpp, kind) -> None:
    """Calls come one at a time: the ledger counts it as a mistake if two are inside."""
    capsule, number = make(cpp, kind)
    assert cpp.fork_while_busy(capsule, 4, 0) == 0
    table = Table.of(capsule)

    def work() -> None:
        for n in range(1, 2000):  # ctypes lets the GIL go
            p = table.realloc(table.malloc(n), 2 * n)
            assert p is not None
            table.free(p)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert look(cpp, number).wrong == 0
    if kind == "counting":
        assert look(cpp, number)[:2] == (0, 0)


def test_children_of_a_fork_find_no_lock_held(cpp) -> None:
    capsules = [cpp.standard("a"), cpp.standard("b")]
    for capsule in capsules:
        assert cpp.fork_while_busy(capsule, 3, 150) == 0


def test_without_ndarena() -> None:
    """The modules need the headers when they are built, and nothing later."""
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(built())!r})
        import numpy as np, cpp_allocators as cpp
        assert "ndarena" not in sys.modules
        cpp.use(cpp.counting()[0])
        class Cycle: pass
        c = Cycle()
        c.me, c.array = c, np.arange(1000.)
        kept = np.sqrt(c.array) + 1
        print(cpp.look(0)[0] >= 2, cpp.look(0)[3])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True 0\n", "", 0)


COMPILERS = [c for c in ("g++", "clang++") if shutil.which(c)]
HEADERS = ["numpy.hpp", "numpy_handler.hpp", "numpy_sizes.hpp"]


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_each_header_compiles_alone(compiler, standard, tmp_path) -> None:
    (includes,) = run(sys.executable, "-m", "ndarena", "--includes", cwd=tmp_path).splitlines()
    assert includes == f"-I{ndarena.get_include()}"
    for header in HEADERS:
        source = Path(tmp_path, "alone.cpp")
        source.write_text(f"#include <ndarena/{header}>\n#include <ndarena/{header}>\n")
        run(
            *(compiler, f"-std={standard}", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic"),
            *("-Wconversion", "-Wold-style-cast", "-Wshadow", "-Werror", includes),
            "-DNPY_NO_DEPRECATED_API=NPY_1_22_API_VERSION",  # NumPy 1 warns of not having it
            *("-isystem", np.get_include(), "-isystem", sysconfig.get_path("include")),
            source,
            cwd=tmp_path,
        )
