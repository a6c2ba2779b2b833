"""Named arrays into `.npy` files, `.npz` archives and directories."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

from ._atomic import appearing, sync
from ._named import Named, held
from ._npy import flat, write_head
from ._progress import CHUNK, Progress, tracked

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ._arena import Arena

    Array = npt.NDArray[Any]
    Item = tuple[str, Named, Array]

__all__ = ["ATTRS", "export", "form_of"]

ATTRS = ".attrs.json"
_PERM = 0o666  # less the umask, as for every new file


def form_of(path: str) -> str:
    """Return in what form arrays are in a path, by the end of its name.

    Parameters
    ----------
    path : str
        The path.

    Returns
    -------
    {'npy', 'npz', 'directory'}
        Whatever is a directory already is one.
    """
    suffix = os.path.splitext(path)[1]
    if os.path.isdir(path) or suffix not in (".npy", ".npz"):
        return "directory"
    return suffix[1:]


def export(arena: Arena, wanted: str | None, path: str, progress: Progress) -> int:
    """Write named arrays to a path; `Arena.export` says how.

    Parameters
    ----------
    arena : Arena
        The arena.
    wanted : str or None
        A name, a group, or None for all.
    path : str
        What is to appear.
    progress : callable, bool or None
        As for `Arena.export`.

    Returns
    -------
    int
        How many arrays were written.
    """
    form = form_of(path)
    if form == "npy" and (not wanted or wanted.endswith("/")):
        raise ValueError(
            f"a .npy file holds one array: name it, or export to a .npz archive, not {path!r}"
        )
    prefix, arrays = held(arena, wanted)
    if form == "npy" and [entry.name for entry, _ in arrays] != [wanted]:
        raise KeyError(wanted)
    items = [(entry.name[len(prefix) :], entry, array) for entry, array in arrays]
    if form != "npy":
        for member, entry, _ in items:
            _require_inside(member, entry.name)
    total = sum(entry.nbytes for _, entry, _ in items)
    with (
        appearing(path, directory=form == "directory") as temporary,
        tracked(progress, total, "export") as advance,
    ):
        if form == "directory":
            _write_directory(temporary, items, advance)
        elif form == "npz":
            _write_archive(temporary, items, advance)
        else:
            _write_file(temporary, *items[0][1:], advance)
    return len(items)


def _require_inside(member: str, name: str) -> None:
    """Refuse names that are no path to a file inside a directory."""
    if "\0" in member or any(part in ("", ".", "..") for part in member.split("/")):
        raise ValueError(
            f"the name {name!r} is no path inside a directory (its parts are empty, '.' or '..'): "
            "rename the array, or export it to a .npy file"
        )


def _write_data(
    array: Array, write: Callable[[memoryview], int | None], advance: Callable[[int], None]
) -> None:
    rest = memoryview(flat(array))
    while rest:
        piece = rest[:CHUNK]
        done = write(piece)
        advance(len(piece) if done is None else done)
        rest = rest[len(piece) if done is None else done :]


def _write_file(path: str, entry: Named, array: Array, advance: Callable[[int], None]) -> None:
    with open(path, "xb", buffering=0, opener=_opener) as file:
        file.write(write_head(entry.descr, entry.shape, fortran=entry.fortran))
        _write_data(array, file.write, advance)
        os.fsync(file.fileno())


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, _PERM)


def _attrs_text(entry: Named) -> bytes:
    return (json.dumps(entry.attributes(), indent=1) + "\n").encode()


def _write_directory(path: str, items: list[Item], advance: Callable[[int], None]) -> None:
    os.mkdir(path)
    folders = {path}
    for member, entry, array in items:
        target = os.path.join(path, *member.split("/"))
        folder = os.path.dirname(target)
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            while folder not in folders:
                folders.add(folder)
                folder = os.path.dirname(folder)
        _write_file(f"{target}.npy", entry, array, advance)
        if entry.attrs:
            with open(target + ATTRS, "xb", buffering=0) as file:
                file.write(_attrs_text(entry))
                os.fsync(file.fileno())
    for folder in sorted(folders, key=len, reverse=True):
        sync(folder)


def _write_archive(path: str, items: list[Item], advance: Callable[[int], None]) -> None:
    with open(path, "xb", opener=_opener) as file:
        # Stored, like np.savez: what is compressed cannot be read in pieces.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for member, entry, array in items:
                head = write_head(entry.descr, entry.shape, fortran=entry.fortran)
                info = zipfile.ZipInfo(f"{member}.npy")  # of no date: equal arrays, equal bytes
                with archive.open(info, "w", force_zip64=True) as stream:
                    stream.write(head)
                    _write_data(array, stream.write, advance)
                if entry.attrs:
                    archive.writestr(zipfile.ZipInfo(member + ATTRS), _attrs_text(entry))
        file.flush()
        os.fsync(file.fileno())
