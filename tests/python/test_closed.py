"""Closed arenas: what they refuse, what stays harmless, what stays valid."""

from __future__ import annotations

import contextlib
import gc
import warnings

import numpy as np
import pytest

import ndarena

REFUSED = {
    "handler": lambda arena: arena.handler(),
    "enter": lambda arena: arena.__enter__(),
    "empty": lambda arena: arena.empty(3),
    "zeros": lambda arena: arena.zeros(3),
    "ones": lambda arena: arena.ones(3),
    "full": lambda arena: arena.full(3, 1),
    "array": lambda arena: arena.array([1]),
    "asarray": lambda arena: arena.asarray(np.ones(3)),
    "empty_like": lambda arena: arena.empty_like([1]),
    "zeros_like": lambda arena: arena.zeros_like([1]),
    "stats": lambda arena: arena.stats(),
    "check": lambda arena: arena.check(),
    "trim": lambda arena: arena.trim(),
    "grow": lambda arena: arena.grow("1GB"),
    "unlink": lambda arena: arena.unlink(),
    "owns": lambda arena: arena.owns(np.ones(3)),
    "offset_of": lambda arena: arena.offset_of(np.ones(3)),
    "plot": lambda arena: arena.plot(),
    "install": lambda arena: ndarena.install(arena),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(make_arena, name):
    arena = make_arena()
    arena.close()
    with pytest.raises(ndarena.ClosedError, match="closed"):
        REFUSED[name](arena)


def test_harmless(arena):
    known = (arena.kind, arena.filename, arena.name, arena.mode, arena.alignment, arena.uuid)
    segment_name = arena.name
    if arena.kind == "shared":
        arena.unlink()
    arena.close()
    arena.close()
    arena.close(flush=False)
    assert arena.closed
    assert not arena
    assert (
        arena.kind,
        arena.filename,
        segment_name,
        arena.mode,
        arena.alignment,
        arena.uuid,
    ) == known
    assert arena.live_arrays == 0
    assert arena.nbytes >= 0
    assert arena.capacity >= 0
    assert repr(arena).startswith("<Closed ndarena.Arena ")
    assert "Closed" in arena._repr_html_()


def test_with_closes(make_arena):
    arena = make_arena()
    with arena as same:
        assert same is arena
    assert arena.closed
    other = make_arena()
    with pytest.raises(KeyError), other:
        raise KeyError
    assert other.closed


def test_arrays_stay_valid(arena):
    a = arena.array(np.arange(100_000))
    view = a[::2]
    if arena.kind == "shared":
        arena.unlink()
    arena.close()
    a += 1
    assert (view == np.arange(1, 100_001, 2)).all()
    assert arena.live_arrays == 1
    del a
    gc.collect()
    assert view.sum() == np.arange(1, 100_001, 2).sum()


def test_resize_after_close(make_arena):
    """Growing in a closed arena is refused or works; it never loses the values."""
    arena = make_arena()
    a = arena.array(np.arange(1000))
    arena.close()
    with contextlib.suppress(MemoryError):
        a.resize(100_000, refcheck=False)
    assert (a[:1000] == np.arange(1000)).all()


def test_handler_of_a_closed_arena(make_arena):
    arena = make_arena()
    handler = arena.handler()
    with handler:
        a = np.ones(10)
        arena.close()
        with pytest.raises(MemoryError):
            np.ones(10)
        del a
    assert np.ones(10).sum() == 10
    with pytest.raises(ndarena.ClosedError), handler:
        pass
    assert ndarena.handler_of(np.ones(1)) == "default_allocator"


def test_fallback_handler_of_a_closed_arena(make_arena):
    arena = make_arena()
    with arena.handler(fallback=True):
        arena.close()
        assert ndarena.handler_of(np.ones(10)) is not None
        assert np.ones(10).sum() == 10


@pytest.mark.parametrize("trace", [False, True])
def test_forgotten(tmp_path, trace):
    import tracemalloc

    if trace:
        tracemalloc.start()
    try:
        arena = ndarena.scratch(dir=tmp_path, capacity="16MiB")
        a = arena.full(10, 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del arena
            gc.collect()
        (warning,) = [w for w in caught if w.category is ResourceWarning]
        assert "unclosed <ndarena.Arena scratch" in str(warning.message)
        assert a.sum() == 30
        if trace:
            assert warning.source is not None
    finally:
        if trace:
            tracemalloc.stop()


def test_closed_is_not_forgotten(make_arena):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arena = ndarena.scratch(capacity="16MiB")
        arena.close()
        del arena
        gc.collect()


def test_arena_of_does_not_own(make_arena):
    """Looking an arena up and dropping the result must not close it."""
    arena = make_arena()
    a = arena.ones(3)
    found = ndarena.arena_of(a)
    assert found is arena
    del found
    gc.collect()
    assert not arena.closed
