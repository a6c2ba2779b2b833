"""Arrays of `.npy` files, `.npz` archives and directories into an arena."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NoReturn

from . import _core, _dtypes
from ._export import ATTRS, form_of
from ._npy import Head, flat, read_head
from ._progress import CHUNK, Progress, tracked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from ._arena import Arena

    Array = npt.NDArray[Any]

__all__ = ["import_"]

_SUFFIX = ".npy"
_MOST_ATTRS = 2**24  # bytes; an arena holds less of them, but says so itself
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)
# What opening a member raises besides, where it is encrypted or strangely compressed.
_UNREADABLE = (*_DAMAGE, RuntimeError)


class _Source:
    """One array that is to be imported: where it is, and what its head says."""

    def __init__(
        self, name: str, where: str, opener: Callable[[], IO[bytes]], size: int, attrs: str = ""
    ) -> None:
        self.name = name
        self.where = where
        self.attrs = attrs
        self._open = opener
        with self.opened() as file:
            self.head: Head = read_head(file, where)
        missing = self.head.start + self.head.nbytes - size
        if missing > 0:
            self._refuse(missing)

    def _refuse(self, missing: int) -> NoReturn:
        raise ValueError(f"{self.where}: {missing} of {self.head.nbytes} bytes of data are missing")

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        try:
            file = self._open()
        except _UNREADABLE as error:
            raise ValueError(f"{self.where}: {error}") from error
        try:
            with file:
                yield file
        except _DAMAGE as error:
            raise ValueError(f"{self.where}: {error}") from error

    def read_into(self, array: Array, advance: Callable[[int], None]) -> None:
        """Fill an array in pieces, without a second copy of it."""
        with self.opened() as file:
            if read_head(file, self.where) != self.head:
                raise ValueError(f"{self.where}: changed while it was read")
            rest = memoryview(flat(array))
            while rest:
                done = file.readinto(rest[:CHUNK])  # type: ignore[attr-defined]
                if not done:
                    self._refuse(len(rest))
                advance(done)
                rest = rest[done:]
            file.read(1)  # at its end the archive's checksum is compared


def import_(
    arena: Arena, path: str, name: str | None, progress: Progress, *, replace: bool
) -> list[str]:
    """Read arrays into an arena and name them; `Arena.import_` says how.

    Parameters
    ----------
    arena : Arena
        The arena.
    path : str
        A `.npy` file, a `.npz` archive or a directory.
    name : str or None
        Name of the array, or the group's.
    progress : callable, bool or None
        As for `Arena.import_`.
    replace : bool
        Whether arrays of the same names are replaced.

    Returns
    -------
    list of str
        The names.
    """
    core = arena._writable_core()
    with _sources(path, name) as sources:
        _require_new(arena, sources, replace=replace)
        total = sum(source.head.nbytes for source in sources)
        # Everything is read before the first name is touched.
        made: list[Array] = []
        with tracked(progress, total, "import") as advance:
            for source in sources:
                array = _room(arena, source.head)
                source.read_into(array, advance)
                made.append(array)
    own = nullcontext() if _core.in_transaction(core) else arena.transaction(timeout=None)
    with own:
        _require_new(arena, sources, replace=replace)
        for source, array in zip(sources, made, strict=True):
            _core.save_named(core, source.name, array, _dtypes.encode(source.head.dtype), replace)
            if source.attrs:
                _core.set_attrs(core, source.name, source.attrs.encode())
    return [source.name for source in sources]


def _require_new(arena: Arena, sources: list[_Source], *, replace: bool) -> None:
    core = arena._writable_core()
    for source in sources:
        # Asked in any case: it refuses what cannot be a name.
        there = _core.describe_named(core, source.name) is not None
        if there and not replace:
            raise FileExistsError(17, "there is an array of this name already", source.name)


def _room(arena: Arena, head: Head) -> Array:
    order: Any = "F" if head.fortran else "C"
    try:
        return arena.empty(head.shape, head.dtype, order)
    except MemoryError:
        core = arena._writable_core()
        epoch, stored, failed = _core.names_state(core)
        if epoch == stored or failed:
            raise
    # What dropped names held is free after a flush.
    arena.flush()
    return arena.empty(head.shape, head.dtype, order)


@contextmanager
def _sources(path: str, name: str | None) -> Iterator[list[_Source]]:
    """Find the arrays of a path; it is held open."""
    form = form_of(path)
    if form == "npy":
        stem = os.path.basename(path)[: -len(_SUFFIX)]
        yield [
            _Source(
                stem if name is None else name, path, partial(_file, path), os.path.getsize(path)
            )
        ]
        return
    prefix = name or ""
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    if form == "directory":
        yield [_in_directory(path, member, prefix) for member in _members_of_directory(path)]
        return
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise ValueError(f"{path}: {error}") from error
    with archive:
        yield _in_archive(archive, path, prefix)


def _file(path: str) -> IO[bytes]:
    return open(path, "rb")


def _members_of_directory(path: str) -> list[str]:
    if not os.path.isdir(path):
        raise FileNotFoundError(2, "there is no such directory; files end in .npy or .npz", path)
    members = []

    def stop(error: OSError) -> None:
        raise error

    for folder, _, files in os.walk(path, onerror=stop):
        inner = os.path.relpath(folder, path)
        for file in files:
            if file.endswith(_SUFFIX) and file != _SUFFIX:
                whole = file if inner == "." else f"{inner}/{file}"
                members.append(whole[: -len(_SUFFIX)])
    return sorted(members)


def _in_directory(path: str, member: str, prefix: str) -> _Source:
    file = os.path.join(path, member + _SUFFIX)
    try:
        with open(os.path.join(path, member + ATTRS), "rb") as side:
            attrs = _attrs(side.read(_MOST_ATTRS), side.name)
    except FileNotFoundError:
        attrs = ""
    return _Source(prefix + member, file, partial(_file, file), os.path.getsize(file), attrs)


def _in_archive(archive: zipfile.ZipFile, path: str, prefix: str) -> list[_Source]:
    sources = {}
    side_files = {info.filename: info for info in archive.infolist()}
    for info in archive.infolist():
        if not info.filename.endswith(_SUFFIX):
            continue
        member = info.filename[: -len(_SUFFIX)]
        where = f"{path}: {info.filename}"
        if member in sources:
            raise ValueError(f"{where}: the archive has it twice")
        attrs = ""
        if (side := side_files.get(member + ATTRS)) is not None:
            try:
                with archive.open(side) as stream:
                    attrs = _attrs(stream.read(_MOST_ATTRS), f"{path}: {side.filename}")
            except _UNREADABLE as error:
                raise ValueError(f"{path}: {side.filename}: {error}") from error
        sources[member] = _Source(
            prefix + member, where, partial(archive.open, info), info.file_size, attrs
        )
    return [sources[member] for member in sorted(sources)]


def _attrs(text: bytes, where: str) -> str:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise ValueError(f"{where}: not attributes, which are an object of JSON")
    return json.dumps(loaded, ensure_ascii=False) if loaded else ""
