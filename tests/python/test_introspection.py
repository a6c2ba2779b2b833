"""Asking arrays and arenas: handler_of, arena_of, owns, offset_of, stats, pictures."""

from __future__ import annotations

import dataclasses
import gc
import pickle

import numpy as np
import pytest

import ndarena
from ndarena._heapmap import STATES, HeapMap, draw_text, legend, reduce_blocks


def test_arrays(arena):
    a = arena.array(np.arange(24).reshape(4, 6))
    name = ndarena.handler_of(a)
    assert name not in (None, "default_allocator")
    for view in (a, a[1:], a[::-1], a.T, a.reshape(-1), a[2, 3, ...], a.view("u1"), a[:, None]):
        assert arena.owns(view)
        assert ndarena.arena_of(view) is arena
        assert ndarena.handler_of(view) == name


def test_arrays_without_elements(arena):
    for empty in (arena.empty(0), arena.empty((3, 0)), arena.zeros((0, 2))[1:]):
        assert arena.owns(empty)
        assert ndarena.arena_of(empty) is arena
    scalar = arena.array(5)
    assert scalar.shape == ()
    assert arena.owns(scalar)
    assert arena.offset_of(scalar) > 0


def test_other_arrays(arena):
    others = [np.ones(3), np.frombuffer(b"12345678"), np.zeros(0), np.ones(10)[2:]]
    for array in others:
        assert not arena.owns(array)
        assert ndarena.arena_of(array) is None
        with pytest.raises(ValueError, match="not in"):
            arena.offset_of(array)
    assert ndarena.handler_of(others[0]) == "default_allocator"
    assert ndarena.handler_of(others[1]) is None


def test_frombuffer_over_an_array(arena):
    a = arena.array(np.arange(10))
    view = np.frombuffer(a, dtype="i4")
    assert ndarena.arena_of(view) is arena
    assert arena.offset_of(view) == arena.offset_of(a)
    assert ndarena.arena_of(np.asarray(memoryview(a)[3:])) is arena


def test_two_arenas(make_arena):
    one, two = make_arena(), make_arena()
    a, b = one.ones(3), two.ones(3)
    assert (one.owns(a), one.owns(b), two.owns(a), two.owns(b)) == (True, False, False, True)
    assert ndarena.arena_of(a) is one
    assert ndarena.arena_of(b) is two


def test_offsets(arena):
    a = arena.array(np.arange(100.0))
    offset = arena.offset_of(a)
    assert offset % arena.alignment == 0
    assert arena.offset_of(a[10:]) == offset + 80
    assert arena.offset_of(a[::-1]) == offset + 99 * 8
    b = arena.array(np.arange(100.0))
    assert abs(arena.offset_of(b) - offset) >= a.nbytes
    assert arena.offset_of(b) - offset == b.ctypes.data - a.ctypes.data


def test_arena_of_a_closed_arena(make_arena):
    arena = make_arena()
    a = arena.ones(3)
    arena.close()
    assert ndarena.arena_of(a) is None
    assert ndarena.handler_of(a) != "default_allocator"


@pytest.mark.parametrize("what", [None, 3, [1, 2], "a", np.float64(3)])
def test_only_arrays(arena, what):
    for function in (ndarena.arena_of, ndarena.handler_of, arena.owns, arena.offset_of):
        with pytest.raises(TypeError, match=r"numpy\.ndarray"):
            function(what)


def test_attributes(make_arena):
    arena = make_arena("file")
    assert arena.live_arrays == 0
    assert arena.nbytes == 0
    arrays = [arena.ones(1000) for _ in range(5)]
    assert arena.live_arrays == 5
    assert arena.nbytes >= 5 * 8000
    del arrays
    gc.collect()
    assert arena.live_arrays == 0
    assert arena.nbytes == 0
    assert bool(arena)
    assert len(arena.uuid) >= 32
    assert (arena.kind, arena.name) == ("file", None)


def test_stats(arena):
    before = arena.stats()
    a = arena.ones(2**20, "u1")
    during = arena.stats()
    assert during.allocated - before.allocated >= 2**20
    assert during.n_blocks == before.n_blocks + 1
    del a
    after = arena.stats()
    assert after.allocated == before.allocated
    assert after.peak_allocated >= during.allocated
    assert after.capacity == arena.capacity
    assert 0 < after.largest_free <= after.capacity
    assert after.processes >= 1
    with pytest.raises(MemoryError):
        arena.empty(2 * arena.capacity, "u1")
    assert arena.stats().oom_count == after.oom_count + 1


def test_stats_object(scratch):
    stats = scratch.stats()
    assert list(stats.as_dict()) == [field.name for field in dataclasses.fields(stats)]
    assert all(type(value) is int for value in stats.as_dict().values())
    assert "capacity=64.0 MiB" in repr(dataclasses.replace(stats, capacity=64 * 2**20))
    assert "n_blocks=0" in repr(stats)
    assert pickle.loads(pickle.dumps(stats)) == stats
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.capacity = 1
    assert not hasattr(stats, "__dict__")


def test_trim(arena):
    a = arena.ones(8 * 2**20, "u1")
    del a
    arena.trim()
    again = arena.trim()
    assert again == 0
    assert arena.check() == []
    assert (arena.full(8 * 2**20, 7, "u1") == 7).all()


def test_blocks_cover_what_is_allocated(arena):
    arrays = [arena.ones(n) for n in (1, 1000, 100_000)]
    blocks = arena._open_core().blocks()
    assert blocks.dtype == np.int64
    assert (np.diff(blocks[:, 0]) > 0).all()
    assert (blocks[:-1, 0] + blocks[:-1, 1] <= blocks[1:, 0]).all()
    for array in arrays:
        offset = arena.offset_of(array)
        holding = blocks[(blocks[:, 0] <= offset) & (offset < blocks[:, 0] + blocks[:, 1])]
        assert holding[:, 2].tolist() == [3]
        assert offset + array.nbytes <= holding[0, :2].sum()


def test_repr(make_arena):
    arena = make_arena("file")
    a = arena.ones(2**17)
    assert repr(arena).startswith('<ndarena.Arena "0.nda" mode=r+ 1.00 MiB of ')
    assert repr(arena).endswith(", 1 array>")
    b = arena.ones(1)
    assert repr(arena).endswith(", 2 arrays>")
    del a, b
    arena.close()
    assert repr(arena) == '<Closed ndarena.Arena "0.nda">'


def test_html(arena):
    a = arena.ones(100_000)
    text = arena._repr_html_()
    assert "<svg" in text
    assert STATES[3].colour in text
    assert "allocated" in text
    assert "<ndarena" not in text
    del a
    arena.close()
    assert "Closed" in arena._repr_html_()


def test_plot(arena):
    figure_module = pytest.importorskip("matplotlib.figure")
    ax = figure_module.Figure().add_subplot()
    a = arena.ones(100_000)
    assert arena.plot(ax=ax) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(label.startswith("allocated, ") for label in labels)
    assert "committed" in ax.get_title()
    del a


def test_plot_without_matplotlib(scratch, monkeypatch):
    import sys

    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'ndarena\[plot\]'"):
        scratch.plot()


def test_reduction():
    page = 4096
    blocks = np.array(
        [
            (0, page, 4),
            (page, 2 * page, 3),
            (3 * page, page, 1),
            (4 * page, page // 2, 3),
            (4 * page + page // 2, page // 2, 2),
            (5 * page, 1000 * page, 0),
        ],
        np.int64,
    )
    heap = reduce_blocks(blocks, 100)
    assert heap.cell_size == page
    assert heap.dominant().tolist() == [4, 3, 3, 1, 3]
    assert heap.undrawn == 1000 * page
    assert heap.cells.sum() == 5 * page
    assert heap.totals.tolist() == [1000 * page, page, page // 2, 5 * page // 2, page, 0]
    coarse = reduce_blocks(blocks, 3)
    assert coarse.cell_size == 2 * page
    assert coarse.cells[:, 3].tolist() == [page, page, page // 2]
    assert coarse.cells.sum() + coarse.undrawn == blocks[:, 1].sum()
    again = HeapMap.from_dict(coarse.as_dict())
    np.testing.assert_array_equal(again.cells, coarse.cells)
    np.testing.assert_array_equal(again.totals, coarse.totals)


def test_reduction_keeps_every_byte():
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 10**6, 1000)
    blocks = np.stack([np.cumsum(sizes) - sizes, sizes, generator.integers(1, 6, 1000)], axis=1)
    for n_cells in (1, 7, 64, 5000):
        heap = reduce_blocks(blocks, n_cells)
        assert heap.n_cells <= n_cells
        np.testing.assert_array_equal(heap.cells.sum(axis=0), heap.totals)
        assert (heap.cells.sum(axis=1)[:-1] == heap.cell_size).all()


def test_reduction_of_nothing():
    heap = reduce_blocks(np.empty((0, 3), np.int64), 10)
    assert heap.n_cells == 1
    assert legend(heap) == []
    assert len(draw_text(heap)) == 1


def test_text():
    blocks = np.array([(0, 4096, 4), (4096, 8192, 3), (12288, 4096, 0)], np.int64)
    heap = reduce_blocks(blocks, 10)
    assert draw_text(heap, 2) == ["  0 bytes ▒█", " 8.00 KiB █"] or draw_text(heap, 2) == [
        " 0 bytes ▒█",
        "8.00 KiB █",
    ]
    coloured = draw_text(heap, 3, colour=True)
    assert "\033[38;5;31m█" in coloured[0]
    assert coloured[0].endswith("\033[0m")
    assert [(state.name, size) for state, size in legend(heap)] == [
        ("allocated", "8.00 KiB"),
        ("metadata", "4.00 KiB"),
        ("pristine", "4.00 KiB"),
    ]
