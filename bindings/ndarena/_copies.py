"""Copies of whole arenas: a compact one, made name by name, and the file as it was stored.

Both open like any copy: what their volatile state would say is left to be made anew from the
stored names, which also cuts the file behind its last block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core
from ._atomic import appearing, write_all
from ._named import held
from ._npy import flat
from ._progress import CHUNK, Progress, tracked
from .errors import CorruptionError, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from ._arena import Arena

    Array = npt.NDArray[Any]

__all__ = ["Sizes", "compact", "compact_in_place", "snapshot"]

_FICLONE = 0x40049409
# What a file system says that does not share blocks between files, or not between these.
_CANNOT_CLONE = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
}
# Where things are, see docs/design/format.md.
_PAGE = 4096
_CAPACITY = 128  # in the control page
_INITIALIZED = 144
_SLOT_COUNT, _SLOTS_OFFSET = 80, 152  # in the header
_SLOT_BYTES = 64
_OPEN_BYTE = 2**62 + 4000


class Sizes(NamedTuple):
    """Bytes on the disk before and after."""

    before: int
    after: int


def _disk_usage(path: str | int) -> int:
    return os.stat(path).st_blocks * 512


def _open(path: str, mode: str, **options: Any) -> Arena:
    # Imported here: opening is built on the class that these functions serve.
    from . import _open as opening

    return opening.open(path, mode, **options)


# --- by names ------------------------------------------------------------------------------


def compact(arena: Arena, path: str, progress: Progress) -> Sizes:
    """Copy the named arrays into a new arena; `Arena.compact` says how.

    Parameters
    ----------
    arena : Arena
        What to copy.
    path : str
        The new file.
    progress : callable, bool or None
        As for `Arena.compact`.

    Returns
    -------
    Sizes
        Of the old file, as far as there is one, and the new one.
    """
    if arena.filename is not None and os.path.realpath(path) == os.path.realpath(arena.filename):
        raise ValueError(
            "an open arena cannot be replaced by its own copy: close it and run `ndarena compact`"
        )
    if _core.in_transaction(arena._open_core()):
        raise ValueError("end the transaction first: a copy holds what has been committed")
    before, perm = _size_and_perm(arena)
    with appearing(path) as temporary:
        _copy_names(arena, temporary, perm, progress)
        _settle(temporary)
        after = _disk_usage(temporary)
    return Sizes(before, after)


def _size_and_perm(arena: Arena) -> tuple[int, int]:
    if arena.filename is None:
        return arena.stats().committed, 0o600
    status = os.stat(arena.filename)
    return status.st_blocks * 512, stat.S_IMODE(status.st_mode)


def _copy_names(arena: Arena, path: str, perm: int, progress: Progress) -> None:
    _, entries = held(arena, None)
    uses = Counter(entry.offset for entry, _ in entries if entry.nbytes)
    sizes = {entry.offset: entry.nbytes for entry, _ in entries if entry.nbytes}
    twins: dict[int, Array] = {}  # of arrays with several names, as bytes
    with (
        _open(path, "x", capacity=arena.capacity, alignment=arena.alignment, perm=perm) as new,
        tracked(progress, sum(sizes.values()), "copy") as advance,
        new.transaction(),
    ):
        core = new._writable_core()
        for entry, source in entries:
            order: Any = "F" if entry.fortran else "C"
            twin = twins.get(entry.offset) if entry.nbytes else None
            if twin is None:
                made = new.empty(entry.shape, source.dtype, order)
                _copy_bytes(flat(source), flat(made), advance)
                if uses[entry.offset] > 1:
                    twins[entry.offset] = flat(made)
            else:
                made = twin.view(source.dtype).reshape(entry.shape, order=order)
            _core.save_named(core, entry.name, made, entry.descr, False)
            if entry.attrs:
                _core.set_attrs(core, entry.name, entry.attrs.encode())


def _copy_bytes(source: Array, target: Array, advance: Callable[[int], None]) -> None:
    for start in range(0, len(source), CHUNK):
        piece = slice(start, start + CHUNK)
        np.copyto(target[piece], source[piece])  # other threads run meanwhile
        advance(len(target[piece]))


def _settle(path: str) -> None:
    """Make the volatile state of a closed arena anew, which cuts its file, and check it."""
    with open(path, "r+b", buffering=0) as file:
        (control,) = struct.unpack_from("<Q", file.read(_PAGE), 120)
        os.pwrite(file.fileno(), bytes(8), control + _INITIALIZED)
    with _open(path, "r+") as arena:
        _require_sound(arena, path)


def _require_sound(arena: Arena, path: str) -> None:
    findings = arena.check()
    if findings:
        raise CorruptionError(
            errno.EUCLEAN, f"the copy is damaged, and has been removed: {findings[0]}", path
        )


# --- in place of the old file ---------------------------------------------------------------


def compact_in_place(path: str, progress: Progress) -> Sizes:
    """Replace an arena file by a compact copy, unless a process has it open for writing.

    Parameters
    ----------
    path : str
        The file.
    progress : callable, bool or None
        As for `Arena.compact`.

    Returns
    -------
    Sizes
        Of the old file and the new one.

    Raises
    ------
    Error
        If somebody has it open for writing, or opened it meanwhile; nothing has changed.
    """
    target = os.path.realpath(path)
    with _open(target, "r+") as arena, open(target, "rb", buffering=0) as file:
        try:
            _require_alone(arena, file.fileno(), path)
            slots = _slots(file.fileno())
            before, perm = _size_and_perm(arena)

            @contextmanager
            def guard() -> Iterator[None]:
                with _nobody_opens(target):
                    _require_alone(arena, file.fileno(), path)
                    if _slots(file.fileno()) != slots:
                        raise Error(f"{path}: was opened for writing meanwhile; try again")
                    yield

            with appearing(target, guard=guard) as temporary:
                _copy_names(arena, temporary, perm, progress)
                _settle(temporary)
                after = _disk_usage(temporary)
                status = os.fstat(file.fileno())
                with suppress(PermissionError):
                    os.chown(temporary, status.st_uid, status.st_gid)
        finally:
            # The file is gone, or everything stays as it was.
            arena.close(flush=False)
    return Sizes(before, after)


def _require_alone(arena: Arena, descriptor: int, path: str) -> None:
    others = arena.stats().processes - 1
    if others:
        raise Error(
            f"{path}: {others} other process{'es have' if others > 1 else ' has'} it open for "
            "writing; name another file to copy it to"
        )
    status = os.fstat(descriptor)
    if status.st_nlink != 1 or not os.path.samestat(status, os.stat(path)):
        raise Error(f"{path}: is not the only name of the file, or is another file by now")


def _slots(descriptor: int) -> bytes:
    """Return who has had the arena open for writing, and how often."""
    (count,) = struct.unpack("<I", os.pread(descriptor, 4, _SLOT_COUNT))
    (offset,) = struct.unpack("<Q", os.pread(descriptor, 8, _SLOTS_OFFSET))
    return os.pread(descriptor, count * _SLOT_BYTES, offset)


@contextmanager
def _nobody_opens(path: str) -> Iterator[None]:
    """Hold the lock that every opening takes."""
    with open(path, "r+b", buffering=0) as file:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _OPEN_BYTE, 1, 0)
        try:
            fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise Error(f"{path}: is being opened by another process; try again") from None
        yield


# --- the file as it was stored --------------------------------------------------------------


def snapshot(arena: Arena, path: str, progress: Progress) -> Sizes:
    """Copy an arena as its last flush stored it; `Arena.snapshot` says how.

    Parameters
    ----------
    arena : Arena
        What to copy.
    path : str
        The new file.
    progress : callable, bool or None
        As for `Arena.snapshot`.

    Returns
    -------
    Sizes
        Of the old file and the new one.
    """
    if arena.filename is None or arena.kind != "file":
        return compact(arena, path, progress)  # nothing of it is stored
    if os.path.realpath(path) == os.path.realpath(arena.filename):
        raise ValueError("an arena cannot be replaced by its own snapshot: name another file")
    if arena.mode != "r":
        if _core.in_transaction(arena._open_core()):
            raise ValueError("end the transaction first: a copy holds what has been committed")
        arena.flush()
    source, header, root_at, root, control, data = _core.pin_stored(arena._open_core())
    try:
        status = os.fstat(source)
        with appearing(path) as temporary:
            target = os.open(
                temporary,
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                stat.S_IMODE(status.st_mode),
            )
            try:
                _copy_data(source, target, data, status.st_size, progress)
                # Of the tables before the data only what names and capacity need.
                os.ftruncate(target, max(status.st_size, data))
                _clear(target, data)
                os.pwrite(target, header, 0)
                os.pwrite(target, root, root_at)
                (capacity,) = struct.unpack_from("<Q", root, 48)
                os.pwrite(target, struct.pack("<Q", capacity), control + _CAPACITY)
                os.fsync(target)
            finally:
                os.close(target)
            with _open(temporary, "r") as copy:
                _require_sound(copy, temporary)
            after = _disk_usage(temporary)
    finally:
        os.close(source)
    return Sizes(status.st_blocks * 512, after)


def _copy_data(source: int, target: int, start: int, size: int, progress: Progress) -> None:
    """Copy a file from an offset on: by sharing its blocks, or those that have been written."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
    else:
        with tracked(progress, size, "snapshot") as advance:
            advance(size)
        return
    pieces = list(_written(source, start, size))
    buffer = memoryview(bytearray(CHUNK))
    with tracked(progress, sum(end - begin for begin, end in pieces), "snapshot") as advance:
        for begin, end in pieces:
            at = begin
            while at < end:
                done = os.preadv(source, [buffer[: end - at]], at)
                if not done:
                    raise CorruptionError(errno.EUCLEAN, "the file was cut while it was copied")
                write_all(target, buffer[:done], at)
                at += done
                advance(done)


def _written(descriptor: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            raise
        at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if begin < at:
            yield begin, at


def _clear(descriptor: int, size: int) -> None:
    zeros = memoryview(bytes(size))
    write_all(descriptor, zeros, 0)
