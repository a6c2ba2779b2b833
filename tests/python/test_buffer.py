"""Arenas over buffers: who keeps whom, and for how long."""

from __future__ import annotations

import gc
import mmap
import sys
import warnings
from multiprocessing import shared_memory

import numpy as np
import pytest

import ndarena
from ndarena import _core

SIZE = 4 * 2**20


def assert_in_use(memory: mmap.mmap) -> None:
    with pytest.raises(BufferError):
        memory.close()


def test_the_mmap_lives_as_long_as_its_arrays():
    memory = mmap.mmap(-1, SIZE)
    arena = ndarena.Arena(memory)
    a = arena.array(np.arange(1000))
    view = a[::2]
    assert_in_use(memory)
    arena.close()
    assert_in_use(memory)
    del arena, a
    gc.collect()
    assert_in_use(memory)
    assert (view == np.arange(0, 1000, 2)).all()
    del view
    memory.close()
    assert memory.closed


def test_arrays_of_a_handler_keep_the_mmap():
    memory = mmap.mmap(-1, SIZE)
    with ndarena.Arena(memory) as arena:
        with arena.handler():
            a = np.arange(1000) + 1
        assert arena.owns(a)
    assert_in_use(memory)
    a += 1
    assert a[0] == 2
    del a
    memory.close()


def test_the_arena_alone_keeps_the_mmap():
    memory = mmap.mmap(-1, SIZE)
    arena = ndarena.Arena(memory)
    assert_in_use(memory)
    arena.close()
    memory.close()


def test_nobody_else_needs_to_keep_the_mmap():
    arena = ndarena.Arena(mmap.mmap(-1, SIZE))
    a = arena.full(1000, 3)
    arena.close()
    del arena
    gc.collect()
    assert a.sum() == 3000


def test_no_reference_is_leaked():
    memory = mmap.mmap(-1, SIZE)
    gc.collect()
    references = sys.getrefcount(memory)
    capsules = _core.handler_live_capsules()
    for _ in range(10_000):
        arena = ndarena.Arena(memory)
        with arena.handler():
            a = np.empty(100)
        view = a[1:]
        arena.close()
        del a, view, arena
    assert sys.getrefcount(memory) == references
    assert _core.handler_live_capsules() == capsules
    memory.close()


def test_attach_what_is_there():
    memory = mmap.mmap(-1, SIZE)
    with ndarena.Arena(memory) as first:
        uuid = first.uuid
        with ndarena.Arena(memory) as second:
            assert second.uuid == uuid
            a = first.full(100, 1)
            assert second.owns(a)
    del a
    with ndarena.Arena(memory) as third:
        assert third.uuid == uuid
    with ndarena.Arena(memory, format=True) as fourth:
        assert fourth.uuid != uuid
    memory.close()


@pytest.mark.parametrize("kind", ["memoryview", "bytearray", "memmap", "mmap of a file", "ndarray"])
def test_other_buffers(kind, tmp_path):
    if kind == "memoryview":
        owner = bytearray(SIZE)
        buffer = memoryview(owner)
    elif kind == "bytearray":
        buffer = bytearray(SIZE)
    elif kind == "memmap":
        buffer = np.memmap(tmp_path / "m", np.uint8, "w+", shape=(SIZE,))
    elif kind == "ndarray":
        buffer = np.zeros(SIZE // 8)
    else:
        (tmp_path / "m").write_bytes(bytes(SIZE))
        with open(tmp_path / "m", "r+b") as file:
            buffer = mmap.mmap(file.fileno(), SIZE)
    with ndarena.Arena(buffer) as arena:
        assert arena.kind == "buffer"
        assert arena.capacity <= SIZE
        a = arena.array(np.arange(5000))
        assert arena.check() == []
        assert 0 < arena.offset_of(a) < SIZE
    assert (a == np.arange(5000)).all()


def test_bytearray_cannot_be_resized_while_in_use():
    buffer = bytearray(SIZE)
    with ndarena.Arena(buffer) as arena:
        a = arena.ones(10)
    with pytest.raises(BufferError):
        buffer.append(0)
    del a
    buffer.append(0)


@pytest.mark.parametrize("part", ["object", "buf"])
def test_shared_memory(part):
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        with ndarena.Arena(memory if part == "object" else memory.buf) as arena:
            a = arena.array(np.arange(1000))
            assert arena.owns(a)
        with pytest.raises(BufferError):
            memory.close()
        assert (a == np.arange(1000)).all()
        del a
        gc.collect()
        memory.close()
    finally:
        memory.unlink()


def test_read_only_is_refused():
    for buffer in (bytes(SIZE), memoryview(bytearray(SIZE)).toreadonly()):
        with pytest.raises(ndarena.ReadOnlyError, match="read-only"):
            ndarena.Arena(buffer)


def test_gaps_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        ndarena.Arena(memoryview(bytearray(SIZE))[::2])
    with pytest.raises(ValueError, match="contiguous"):
        ndarena.Arena(np.zeros((1024, 1024), "u1", order="F")[:, ::2])


@pytest.mark.parametrize("what", [None, 3, "a.nda", object()])
def test_not_a_buffer(what):
    with pytest.raises(TypeError, match="buffer protocol"):
        ndarena.Arena(what)


def test_too_small():
    with pytest.raises(ValueError, match="small"):
        ndarena.Arena(bytearray(100))


@pytest.mark.parametrize("place", [0, 100, 5000, 65_536, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("kind", ["mmap", "bytearray"])
def test_other_content_is_refused_untouched(kind, place):
    """Wherever a single byte is not zero, also where the arena would not use the memory."""
    buffer = mmap.mmap(-1, SIZE) if kind == "mmap" else bytearray(SIZE)
    buffer[place] = 1
    before = bytes(buffer)
    with pytest.raises(ndarena.FormatError, match="format=True"):
        ndarena.Arena(buffer).close()
    assert bytes(buffer) == before
    # And no export is left behind.
    buffer.close() if kind == "mmap" else buffer.append(0)


def test_format_uses_memory_that_is_not_zero():
    buffer = bytearray(b"\xff" * SIZE)
    with ndarena.Arena(buffer, format=True) as arena:
        assert (arena.zeros(SIZE // 16) == 0).all()
        assert arena.check() == []


def test_a_buffer_cannot_grow(make_arena):
    arena = make_arena("buffer")
    arena.grow(1)
    with pytest.raises((ndarena.Error, ValueError, OSError)):
        arena.grow(2 * arena.capacity)


def test_full():
    memory = mmap.mmap(-1, SIZE)
    with ndarena.Arena(memory) as arena:
        with pytest.raises(MemoryError):
            arena.empty(SIZE, "u1")
        a = arena.empty(SIZE // 2, "u1")
        with pytest.raises(MemoryError):
            arena.empty(SIZE // 2, "u1")
        assert arena.stats().oom_count >= 2
        del a
        arena.empty(SIZE // 2, "u1")
        assert arena.check() == []
    memory.close()


def test_forgotten_is_a_resource_warning():
    arena = ndarena.Arena(mmap.mmap(-1, SIZE))
    with pytest.warns(ResourceWarning, match=r"unclosed <ndarena\.Arena"):
        del arena


def test_a_failed_constructor_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError):
            ndarena.Arena(None)
        gc.collect()
