"""Arenas travel as segment and mode; what has no name does not travel."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

import ndarena


@pytest.mark.parametrize("kind", ["file", "shared"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_named(make_arena, kind, protocol):
    arena = make_arena(kind)
    with pickle.loads(pickle.dumps(arena, protocol)) as again:
        assert again is not arena
        assert (again.kind, again.uuid, again.mode) == (kind, arena.uuid, "r+")
        assert (again.filename, again.name) == (arena.filename, arena.name)
    assert not arena.closed
    assert arena.ones(3).sum() == 3


def test_read_only(make_arena):
    path = make_arena("file").filename
    with ndarena.open(path) as arena, pickle.loads(pickle.dumps(arena)) as again:
        assert again.mode == "r"


def test_elsewhere(make_arena, tmp_path, monkeypatch):
    """A relative path means the file that was opened, wherever it is unpickled."""
    monkeypatch.chdir(tmp_path)
    with ndarena.open("relative.nda", "x", capacity="16MiB") as arena:
        data = pickle.dumps(arena)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    pickle.loads(data).close()


@pytest.mark.parametrize("kind", ["scratch", "buffer"])
def test_nameless(make_arena, kind):
    with pytest.raises(TypeError, match=r"no name .* ndarena\.shared\(\)"):
        pickle.dumps(make_arena(kind))


def test_gone(make_arena):
    arena = make_arena("file")
    data = pickle.dumps(arena)
    arena.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def test_arrays_are_copied(make_arena):
    """Pickling an array stays NumPy's, by value."""
    arena = make_arena("shared")
    a = arena.array(np.arange(1000))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        b = pickle.loads(pickle.dumps(a, protocol))
        b[0] = 99
        assert a[0] == 0
        assert not arena.owns(b)


def _child(arena, queue):
    with arena:
        queue.put((arena.uuid, float(arena.ones(100).sum()), arena.check()))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["file", "shared"])
def test_process(make_arena, kind, method):
    arena = make_arena(kind)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=_child, args=(arena, queue))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert queue.get() == (arena.uuid, 100.0, [])
    queue.close()
    assert arena.check() == []
