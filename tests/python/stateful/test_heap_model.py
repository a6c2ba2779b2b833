"""The heap against a second, independent model of it, driven by hypothesis.

The model knows nothing of size classes or free lists: it keeps for every live array its
address and the bytes that were written to it, and for the address space only what any
allocator must obey. After each step the heap's own map of blocks is held against it.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

import ndarena

PRISTINE, WARM, PUNCHED, ALLOCATED, METADATA, MOVING = range(6)
FREE = (PRISTINE, WARM, PUNCHED)

SIZES = st.one_of(
    st.integers(1, 300),
    st.integers(1, 70_000),
    st.sampled_from([4096, 65_535, 65_536, 65_537, 131_072, 1_000_000]),
    st.integers(1, 3_000_000),
)


class HeapModel(RuleBasedStateMachine):
    """One arena, its live arrays, and what their bytes must be."""

    kind = "buffer"
    capacity = 16 * 2**20
    alignment = 64
    arrays = Bundle("arrays")

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        if self.kind == "buffer":
            self.memory = mmap.mmap(-1, self.capacity)
            self.arena = ndarena.Arena(self.memory, alignment=self.alignment)
        else:
            self.arena = ndarena.scratch(
                capacity=self.capacity, dir=self.directory.name, alignment=self.alignment
            )
        self.live: dict[int, tuple[np.ndarray, int]] = {}  # by serial: the array, its fill byte
        self.serial = 0
        self.peak = 0

    def _keep(self, array: np.ndarray):
        self.serial += 1
        fill = self.serial % 251 + 1
        array[...] = fill
        self.live[self.serial] = (array, fill)
        self.peak = max(self.peak, sum(a.nbytes for a, _ in self.live.values()))
        return self.serial

    def _make(self, make, nbytes):
        try:
            array = make(nbytes, np.uint8)
        except MemoryError:
            # Refused only if it could really not fit: more than the largest free range.
            assert nbytes + 2 * 2**21 > self.arena.stats().largest_free
            return None
        assert type(array) is np.ndarray
        assert array.ctypes.data % self.alignment == 0
        return array

    @rule(target=arrays, nbytes=SIZES)
    def empty(self, nbytes):
        array = self._make(self.arena.empty, nbytes)
        return multiple() if array is None else self._keep(array)

    @rule(target=arrays, nbytes=SIZES)
    def zeros(self, nbytes):
        array = self._make(self.arena.zeros, nbytes)
        if array is None:
            return multiple()
        assert not array.any()
        return self._keep(array)

    @rule(target=arrays, nbytes=SIZES, count=st.integers(2, 40))
    def many(self, nbytes, count):
        made = [self._make(self.arena.empty, min(nbytes, 20_000)) for _ in range(count)]
        return multiple(*[self._keep(array) for array in made if array is not None])

    @rule(serial=consumes(arrays))
    def free(self, serial):
        array, fill = self.live.pop(serial)
        assert (array == fill).all()

    @rule(serial=arrays, nbytes=SIZES)
    def resize(self, serial, nbytes):
        if serial not in self.live:
            return
        array, fill = self.live.pop(serial)
        kept = min(array.size, nbytes)
        try:
            array.resize(nbytes, refcheck=False)
        except MemoryError:
            kept = array.size
        assert (array[:kept] == fill).all()
        array[...] = fill
        self.live[serial] = (array, fill)

    @rule()
    def trim(self):
        assert self.arena.trim() >= 0
        stats = self.arena.stats()
        assert stats.allocated >= sum(a.nbytes for a, _ in self.live.values())

    @invariant()
    def sound(self):
        if not hasattr(self, "arena"):
            return
        gc.disable()  # arrays die by reference count here, at a known moment
        assert self.arena.check() == []

    @invariant()
    def blocks_agree(self):
        if not hasattr(self, "arena"):
            return
        base = self.arena._handle.base_address
        blocks = self.arena._handle.blocks()
        ends = blocks[:, 0] + blocks[:, 1]
        assert (blocks[1:, 0] == ends[:-1]).all(), "blocks tile the data area"
        free = np.isin(blocks[:, 2], FREE)
        assert not (free[1:] & free[:-1]).any(), "free neighbours have coalesced"
        assert not (blocks[:, 2] == MOVING).any()
        allocated = blocks[blocks[:, 2] == ALLOCATED]
        assert len(allocated) == len(self.live)
        spans = sorted((a.ctypes.data - base, a.nbytes) for a, _ in self.live.values())
        for (start, size, _), (data, nbytes) in zip(allocated.tolist(), spans, strict=True):
            assert start <= data
            assert data + nbytes <= start + size
        for start, size, state in blocks.tolist():
            if state in (PRISTINE, PUNCHED):
                sample = min(size, 8192)
                assert not any(ctypes.string_at(base + start, sample)), "clean pages are zero"

    @invariant()
    def counters_agree(self):
        if not hasattr(self, "arena"):
            return
        stats = self.arena.stats()
        blocks = self.arena._handle.blocks()
        assert stats.n_blocks == len(self.live) == self.arena.live_arrays
        assert stats.allocated == blocks[blocks[:, 2] == ALLOCATED, 1].sum()
        assert stats.n_free_blocks == np.isin(blocks[:, 2], FREE).sum()
        assert stats.allocated <= stats.committed <= stats.capacity
        assert stats.peak_allocated >= self.peak

    def teardown(self):
        gc.enable()
        if not hasattr(self, "arena"):
            return
        assert all((array == fill).all() for array, fill in self.live.values())
        self.live.clear()
        assert self.arena.check() == []
        assert self.arena.stats().allocated == 0
        self.arena.close()
        self.directory.cleanup()


class BufferModel(HeapModel):
    kind = "buffer"


class SmallBufferModel(HeapModel):
    """Mostly refusals and the last bytes of the arena."""

    kind = "buffer"
    capacity = 2**20


class ScratchModel(HeapModel):
    kind = "scratch"
    capacity = 64 * 2**20


class AlignedScratchModel(HeapModel):
    kind = "scratch"
    capacity = 64 * 2**20
    alignment = 4096


MODELS = [BufferModel, SmallBufferModel, ScratchModel, AlignedScratchModel]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_heap_model(model):
    case = model.TestCase()
    case.settings = settings(
        max_examples=int(os.environ.get("HEAP_MODEL_EXAMPLES", "60")),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case.runTest()
