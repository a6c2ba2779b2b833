"""A small store of named arrays in a mapped file, with an arena's face and its order of writes.

It is what the harnesses are tried on: small enough to be seen right, and wrong on demand. A
harness that does not find these mistakes would not find them in the arena either.

Page 0 and 1 are the roots, the valid one with the higher number counts (what it says is at both
ends of the page, so that a torn one shows). Data, directory, fdatasync, root, fdatasync: what the
old root reaches is not reused before the end of that. One lock, for threads of one process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import mmap
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PAGE = 4096
HEAD, TAIL = struct.Struct("<8sQ"), struct.Struct("<QQI")  # number; first page, bytes, CRC
MAGIC = b"RECORDS\x1a"
BUGS = ("one_barrier", "early_reuse", "async", "unchecked_root", "error_forgotten")
MS_ASYNC = 1

Extent = tuple[int, int]  # first page, pages


def locked(method: Callable[..., Any]) -> Callable[..., Any]:
    """One thread at a time."""

    @functools.wraps(method)
    def call(self: RecordFile, *arguments: Any, **options: Any) -> Any:
        with self.lock:
            return method(self, *arguments, **options)

    return call


class RecordFile:
    """Names of uint64 arrays; `bug` is one of BUGS, or empty."""

    def __init__(self, path: str, capacity: int, bug: str = "") -> None:
        self.bug = bug
        self.lock = threading.RLock()
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self.fd).st_size == 0:
            os.ftruncate(self.fd, capacity)
        if os.fstat(self.fd).st_size == 0:
            os.close(self.fd)
            raise ValueError("an empty file")
        self.map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.names: dict[str, tuple[Extent, list[int]]] = {}
        self.durable: set[Extent] = set()  # what the root on disk reaches
        self.waiting: set[Extent] = set()  # to be freed after the next flush
        self.free = np.ones(len(self.map) // PAGE, bool)
        self.free[:2] = False
        self.next = 2
        self.failed = False
        try:
            self._load()
        except BaseException:
            os.close(self.fd)
            raise

    def _load(self) -> None:
        roots = []
        for page in range(2):
            raw = self.map[page * PAGE : (page + 1) * PAGE]
            magic, number = HEAD.unpack_from(raw)
            first, length, crc = TAIL.unpack_from(raw, PAGE - TAIL.size)
            if magic == MAGIC and (self.bug == "unchecked_root" or crc == zlib.crc32(raw[:-4])):
                roots.append((number, page, first, length))
        self.sequence, self.root, first, length = max(roots, default=(0, 1, 0, 0))
        if first:
            text = self.map[first * PAGE : first * PAGE + length]
            for name, (begin, shape) in json.loads(text).items():
                extent = (begin, pages(8 * int(np.prod(shape))))
                self._take(extent)
                self.names[name] = (extent, shape)
            extent = (first, pages(length))
            self._take(extent)
            self.durable = {e for e, _ in self.names.values()} | {extent}

    def _take(self, extent: Extent) -> None:
        part = self.free[extent[0] : sum(extent)]
        if len(part) != extent[1] or not part.all():
            raise ValueError(f"pages {extent} are used twice, or not there")
        part[:] = False

    def _allocate(self, count: int) -> Extent:
        # Next fit: what was freed is reused soon, but not at once.
        for start in (*range(self.next, len(self.free) - count), *range(2, self.next)):
            if self.free[start : start + count].all() and start + count <= len(self.free):
                self._take((start, count))
                self.next = start + count
                return start, count
        raise MemoryError("no room")

    @locked
    def _release(self, extent: Extent) -> None:
        if extent in self.durable and self.bug != "early_reuse":
            self.waiting.add(extent)
        else:
            self.free[extent[0] : sum(extent)] = True
            self.next = min(self.next, extent[0])

    def _view(self, extent: Extent, shape: list[int]) -> np.ndarray[Any, Any]:
        size = 8 * int(np.prod(shape))
        begin = extent[0] * PAGE
        return self.bytes[begin : begin + size].view(np.uint64).reshape(shape)

    @locked
    def empty(self, shape: Any, dtype: Any = np.uint64) -> np.ndarray[Any, Any]:
        shape = [int(n) for n in np.atleast_1d(shape)]
        extent = self._allocate(pages(8 * int(np.prod(shape))))
        array = self._view(extent, shape)
        weakref.finalize(array, self._release, extent)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    @locked
    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self._view(*self.names[name])

    @locked
    def __setitem__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        extent = self._allocate(pages(array.nbytes))
        self._view(extent, list(array.shape))[...] = array
        if name in self.names:
            self._release(self.names[name][0])
        self.names[name] = (extent, list(array.shape))

    @locked
    def __delitem__(self, name: str) -> None:
        self._release(self.names.pop(name)[0])

    @locked
    def rename(self, old: str, new: str) -> None:
        self.names[new] = self.names.pop(old)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, for the names of this process; the file sees flushes only."""
        with self.lock:
            yield from self._transaction()

    def _transaction(self) -> Iterator[None]:
        before, release = dict(self.names), self._release
        released: list[Extent] = []
        self._release = released.append  # type: ignore[method-assign]
        try:
            yield
        except BaseException:
            kept = {extent for extent, _ in before.values()}
            released = [e for e, _ in self.names.values() if e not in kept] + [
                e for e in released if e not in kept
            ]
            self.names = before
            raise
        finally:
            self._release = release  # type: ignore[method-assign]
            for extent in released:
                release(extent)

    def _sync(self) -> None:
        if self.failed:
            raise OSError("an earlier flush has failed")
        try:
            if self.bug == "async":
                address = ctypes.c_void_p(self.bytes.ctypes.data)
                ctypes.CDLL(None).msync(address, ctypes.c_size_t(len(self.map)), MS_ASYNC)
            else:
                os.fdatasync(self.fd)
        except OSError:
            self.failed = self.bug != "error_forgotten"
            raise

    @locked
    def flush(self) -> None:
        listed = {name: (extent[0], shape) for name, (extent, shape) in self.names.items()}
        text = json.dumps(listed).encode()
        directory = self._allocate(pages(len(text)))
        reached = {extent for extent, _ in self.names.values()} | {directory}
        begin = directory[0] * PAGE
        try:
            self.map[begin : begin + len(text)] = text
            if self.bug != "one_barrier":
                self._sync()
            raw = HEAD.pack(MAGIC, self.sequence + 1).ljust(PAGE - TAIL.size, b"\0")
            raw += TAIL.pack(directory[0], len(text), 0)[:-4]
            page = 1 - self.root
            self.map[page * PAGE : (page + 1) * PAGE] = raw + zlib.crc32(raw).to_bytes(4, "little")
            self._sync()
        except OSError:
            self.durable |= reached  # the root may have got there
            raise
        self.sequence, self.root = self.sequence + 1, page
        gone = (self.durable | self.waiting) - reached
        self.durable, self.waiting = reached, set()
        for extent in gone:
            self._free_if_taken(extent)

    def _free_if_taken(self, extent: Extent) -> None:
        # with early_reuse it may be somebody else's by now
        if self.bug != "early_reuse" or not any(overlap(extent, e) for e, _ in self.names.values()):
            self.free[extent[0] : sum(extent)] = True
            self.next = min(self.next, extent[0])

    def check(self) -> list[str]:
        return []

    def close(self) -> None:
        os.close(self.fd)


def pages(size: int) -> int:
    return -(-size // PAGE)


def overlap(a: Extent, b: Extent) -> bool:
    return a[0] < sum(b) and b[0] < sum(a)
