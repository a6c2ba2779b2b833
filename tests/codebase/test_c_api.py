"""`ndarena/c_api.h`: an extension in C brings an allocator, uses resources, asks for offsets."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import sysconfig
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndarena

from extensions import built, exercise, module, run


@pytest.fixture
def c() -> Any:
    made = module("c_user")
    exercise(0)  # what NumPy keeps from its first calls on
    return made


# ---- an allocator of the extension's ----


@pytest.mark.parametrize("resize", [False, True])
def test_an_allocator_becomes_a_resource(c, resize) -> None:
    resource, number = c.new_resource("pool", resize)
    assert isinstance(resource, ndarena.Resource)
    assert resource.name == "pool"
    with resource as entered:
        assert entered is resource
        exercise(1)
        a = np.arange(1000.0)
    assert ndarena.handler_of(a) == "pool"
    assert c.look(number)[:3] == (1, 8000, 0), "exactly NumPy's sizes"
    assert bool(c.look(number)[3]) is resize
    stats = resource.stats()
    assert (stats.n_live, stats.allocated, stats.n_failed) == (1, 8000, 0)
    alive = weakref.ref(resource)
    del resource, entered
    assert alive() is not None, "the array keeps it"
    assert (a == np.arange(1000.0)).all()
    del a
    assert alive() is None
    assert c.look(number) == 1, "destroyed, once, with the GIL"


def test_it_composes_with_every_adaptor(c, tmp_path) -> None:
    resource, number = c.new_resource("pool", 1)
    with ndarena.scratch(capacity="64MiB", dir=tmp_path) as arena:
        for chain in (
            ndarena.Aligned(4096, resource),
            ndarena.Statistics(ndarena.Limiting("64MiB", resource)),
            ndarena.Threshold("8 KiB", resource, arena),
            ndarena.Threshold("8 KiB", arena, resource),
            ndarena.Fallback(ndarena.Limiting(5000, arena), resource),
            ndarena.Aligned(128, ndarena.Fallback(resource)),
        ):
            with chain:
                exercise(2)
            assert chain.stats().n_live == 0
            assert c.look(number)[:3] == (0, 0, 0), chain.name
    with ndarena.Aligned(4096, resource):
        a = np.empty(10)
    assert a.ctypes.data % 4096 == 0
    assert ndarena.handler_of(a) == "aligned(4096, pool)"
    assert c.look(number)[:2] == (1, 80), "the extension aligns by itself"


@pytest.mark.parametrize("resize", [False, True])
def test_refusals(c, resize) -> None:
    resource, number = c.new_resource("pool", resize)
    with resource:
        a = np.arange(100)
        for refuse, crooked in ((1, 0), (0, 1)):
            c.order(number, refuse, crooked)
            with pytest.raises(MemoryError):
                np.empty(100)
            if refuse:
                with pytest.raises(MemoryError):
                    a.resize(1000, refcheck=False)
            c.order(number, 0, 0)
            assert (a == np.arange(100)).all()
            assert c.look(number)[:3] == (1, 800, 0), "what was crooked is given back"
        with pytest.raises(MemoryError):
            np.empty(2**62, np.uint8)
    assert resource.stats().n_failed >= 4


def test_a_resource_that_cannot_be_made(c) -> None:
    with pytest.raises(ValueError, match="may not be null"):
        c.new_resource("pool", 0, 1)
    resource, _ = c.new_resource(None, 0)
    assert resource.name == "foreign"
    assert repr(resource) == "<ndarena.ForeignResource foreign>"


def test_its_state_goes_with_the_last_array_wherever_that_is(c) -> None:
    for _ in range(5):
        resource, number = c.new_resource("pool", 0)
        with ndarena.Aligned(256, ndarena.Statistics(resource)):
            arrays = [np.empty(100)]
        bound = c.bind(resource)
        del resource
        gc.collect()
        thread = threading.Thread(target=arrays.clear)
        thread.start()
        thread.join()
        assert c.look(number)[:3] == (0, 0, 0)
        del bound
        assert c.look(number) == 1


# ---- resources as allocators of the extension's ----


def kinds(arena: ndarena.Arena) -> dict[str, Any]:
    return {
        "arena": arena,
        "handler": arena.handler(),
        "adaptor": ndarena.Aligned(128, arena),
        "small": arena.handler(min_size=1000, fallback=True),
        "default": ndarena.Default(),
        "capsule": ndarena.Statistics(arena).capsule,
        "current": None,
        "python": ndarena.Callback(libc.malloc, libc.free),
    }


libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
NAMES = ["arena", "handler", "adaptor", "small", "default", "capsule", "current", "python"]


@pytest.fixture
def arena(tmp_path):
    with ndarena.scratch(capacity="64MiB", dir=tmp_path) as made:
        yield made
        assert made.closed or made.check() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_resource_as_an_allocator(c, arena, name) -> None:
    before = arena.stats().n_blocks
    bound = c.bind(kinds(arena)[name])
    for alignment in (0, 16, 64, 4096):
        p = c.allocate(bound, 5000, alignment, 1)
        assert p
        assert p % max(alignment, 16) == 0
        assert ctypes.string_at(p, 5000) == bytes(5000)
        ctypes.memset(p, 5, 5000)
        p = c.reallocate(bound, p, 5000, 20_000, alignment)
        assert p % max(alignment, 16) == 0
        assert ctypes.string_at(p, 5000) == b"\5" * 5000
        p = c.reallocate(bound, p, 20_000, 10, alignment)
        assert ctypes.string_at(p, 10) == b"\5" * 10
        c.deallocate(bound, p, 10, alignment)
    p = c.allocate(bound, 0, 16, 0)
    assert p
    p = c.reallocate(bound, p, 0, 0, 16)
    assert p
    c.deallocate(bound, p, 0, 16)
    p = c.reallocate(bound, 0, 0, 100, 32)
    assert p % 32 == 0
    assert not c.reallocate(bound, p, 100, 2**62, 32)
    c.deallocate(bound, p, 100, 32)
    c.deallocate(bound, 0, 100, 16)
    assert not c.allocate(bound, 2**62, 16, 0)
    assert not c.allocate(bound, 100, 48, 0), "no power of two"
    assert c.in_threads(bound) == 0
    del bound
    assert arena.stats().n_blocks == before


def test_what_is_current_is_what_was_when_it_was_bound(c, arena) -> None:
    with arena.handler():
        bound = c.bind(None)
    p = c.allocate(bound, 1000, 16, 0)
    assert arena.stats().n_blocks == 1
    c.deallocate(bound, p, 1000, 16)
    assert arena.stats().n_blocks == 0


def test_a_bound_resource_is_kept_and_counts(c, arena) -> None:
    statistics = ndarena.Statistics(arena)
    bound = c.bind(statistics)
    p = c.allocate(bound, 777, 64, 0)
    assert (statistics.stats().n_live, statistics.stats().allocated) == (1, 777)
    c.deallocate(bound, p, 777, 64)
    assert statistics.stats().n_live == 0
    alive = weakref.ref(statistics)
    del statistics
    gc.collect()
    assert alive() is not None
    del bound
    assert alive() is None


def test_what_cannot_be_bound(c, arena) -> None:
    for wrong in (5, "default", np.zeros(3), object):
        with pytest.raises(TypeError, match="is to be a resource"):
            c.bind(wrong)
    with pytest.raises(ValueError, match="mem_handler"):
        c.bind(ndarena._C_API)
    bound = c.bind(arena)
    p = c.allocate(bound, 100, 16, 0)
    arena.close()
    assert not c.allocate(bound, 100, 16, 0), "closed"
    ctypes.memset(p, 1, 100)  # still there
    c.deallocate(bound, p, 100, 16)
    with pytest.raises(ndarena.ClosedError):
        c.bind(arena)


# ---- where arrays lie ----


def test_offsets(c, arena) -> None:
    a = arena.zeros((100, 10))
    for array in (a, a[3:], a[::2, 4], a.T, a[5:5]):
        offset, base = c.offset(array)
        assert offset == arena.offset_of(array)
        assert base + offset == array.ctypes.data
    assert c.offset(np.zeros(100)) == (-1, 0)
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        c.offset([1, 2])
    expected = c.offset(a)
    arena.close()
    assert c.offset(a) == expected, "the array keeps the mapping"


def test_offsets_are_the_same_in_every_process(c, tmp_path) -> None:
    with ndarena.open(tmp_path / "x.nda", "a", capacity="1MiB") as arena:
        arena["x"] = np.arange(100.0)
        offset, _ = c.offset(arena["x"])
        code = f"""if True:
            import sys
            sys.path.insert(0, {str(built())!r})
            import c_user, ndarena
            with ndarena.open({str(tmp_path / "x.nda")!r}) as arena:
                print(c_user.offset(arena["x"][2:])[0])
        """
        assert int(run(sys.executable, "-c", code, cwd=tmp_path)) == offset + 16


# ---- versions ----


def test_versions(c, monkeypatch) -> None:
    version, size, ours = c.import_again()
    assert version == 1
    assert size == ours

    def pretend(version: int, size: int) -> None:
        table = (ctypes.c_uint32 * (ours // 4))(version, size)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        capsule = make(ctypes.addressof(table), b"ndarena._C_API", None)
        kept.append(table)
        monkeypatch.setattr(ndarena, "_C_API", capsule)

    kept: list[object] = []
    pretend(1, ours + 8)  # functions have been appended
    assert c.import_again() == (1, ours + 8, ours)
    pretend(2, ours)
    with pytest.raises(ImportError, match=r"compiled for version 1 .* has version 2"):
        c.import_again()
    pretend(1, ours - 8)
    with pytest.raises(ImportError, match="newer ndarena than the installed one"):
        c.import_again()
    monkeypatch.setattr(ndarena, "_C_API", "something else")
    with pytest.raises(ImportError, match="has no C API"):
        c.import_again()
    monkeypatch.delattr(ndarena, "_C_API")
    with pytest.raises(ImportError, match="has no C API"):
        c.import_again()
    monkeypatch.setitem(sys.modules, "ndarena", None)
    with pytest.raises(ImportError, match="ndarena"):
        c.import_again()


C_COMPILERS = [compiler for compiler in ("gcc", "clang") if shutil.which(compiler)]


@pytest.mark.parametrize("standard", ["c11", "c17", "c++17", "c++20"])
@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_the_header_compiles_alone(compiler, standard, tmp_path) -> None:
    source = Path(tmp_path, "alone.cpp" if "+" in standard else "alone.c")
    source.write_text("#include <ndarena/c_api.h>\n#include <ndarena/c_api.h>\n")
    cpp = ("-Wold-style-cast",) if "+" in standard else ("-Wstrict-prototypes",)
    run(
        *(compiler, f"-std={standard}", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic"),
        *("-Wconversion", "-Wshadow", "-Werror", *cpp, f"-I{ndarena.get_include()}"),
        *("-isystem", sysconfig.get_path("include"), source),
        cwd=tmp_path,
    )


def test_at_exit() -> None:
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(built())!r})
        import numpy as np, c_user, ndarena
        resource, number = c_user.new_resource("pool", 1)
        class Cycle: pass
        cycle = Cycle()
        with ndarena.Aligned(64, resource):
            kept, cycle.me, cycle.array = np.ones(100), cycle, np.ones(1000)
        bound = c_user.bind(resource)
        resource.__enter__()
        late = np.ones(10)
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
