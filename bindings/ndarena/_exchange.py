"""Methods of arenas that move named arrays out, in, and into other arenas."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from . import _copies, _export, _import

if TYPE_CHECKING:
    from ._arena import Arena
    from ._progress import Progress

__all__ = ["ExchangeMixin"]


class ExchangeMixin:
    """The methods of `Arena` for files that others can read, and for copies of itself."""

    __slots__ = ()

    def export(
        self, name: str | None, path: str | os.PathLike[str], *, progress: Progress = None
    ) -> None:
        """Write named arrays to a `.npy` file, a `.npz` archive or a directory.

        What is written appears whole or not at all: a file of that name is replaced in one
        step, and whoever reads it sees the old one or the new one. The arrays are
        written from where they are, without a copy in memory, and are of one moment, whatever
        other processes do with their names meanwhile.

        Parameters
        ----------
        name : str or None
            An array's name; a group, like ``'run/'`` or, where no array has that name,
            ``'run'``; None for everything.
        path : str or os.PathLike
            ``*.npy`` for one array, ``*.npz`` for an archive as of `numpy.savez`, anything
            else for a directory, which must be new or empty. In archives and directories
            the names are relative to the group, and a ``/`` in a name is one in the path.
        progress : callable, bool or None, optional
            Called with the bytes done and the bytes in all; True shows a bar (tqdm or rich, if
            there is one, else a line on stderr).

        Raises
        ------
        KeyError
            If there is no such name.
        ValueError
            If a name would lead out of the directory (``..``, an empty part), or several
            arrays are to go into a `.npy` file.
        FileExistsError
            If there is a directory that is not empty.

        Notes
        -----
        Attributes are in ``<name>.attrs.json`` beside ``<name>.npy``, in directories and in
        archives. A single `.npy` file has no place for them.

        Examples
        --------
        >>> import os, tempfile, numpy as np, ndarena
        >>> folder = tempfile.mkdtemp()
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena["run/loss"], arena["run/step"] = [0.5, 0.25], [1, 2]
        ...     arena.export("run/loss", os.path.join(folder, "loss.npy"))
        ...     arena.export("run", os.path.join(folder, "run.npz"))
        >>> np.load(os.path.join(folder, "loss.npy"))
        array([0.5 , 0.25])
        >>> sorted(np.load(os.path.join(folder, "run.npz")))
        ['loss', 'step']
        """
        _export.export(cast("Arena", self), name, os.fsdecode(path), progress)

    def import_(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        progress: Progress = None,
        replace: bool = False,
    ) -> list[str]:
        """Read arrays from a `.npy` file, a `.npz` archive or a directory, and name them.

        They are read straight into the arena, and named in one transaction when all are
        there: an error, Ctrl-C or a kill before that leaves the names as they were.

        Parameters
        ----------
        path : str or os.PathLike
            ``*.npy``, ``*.npz``, or a directory: of its files those that end in ``.npy``, by
            their paths.
        name : str or None, optional
            The array's name, by default that of the file without its end; for archives and
            directories the group that the names become part of.
        progress : callable, bool or None, optional
            As for `export`.
        replace : bool, optional
            Whether arrays that have these names are replaced.

        Returns
        -------
        list of str
            The names.

        Raises
        ------
        FileExistsError
            If a name is taken and `replace` is not set.
        TypeError
            If there are arrays of Python objects: nothing is ever unpickled.
        ValueError
            If a file is damaged, or something else.
        MemoryError
            If they do not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Notes
        -----
        Attributes come from ``<name>.attrs.json``, as `export` writes them. An array that
        is replaced loses those it had.

        Examples
        --------
        >>> import os, tempfile, numpy as np, ndarena
        >>> path = os.path.join(tempfile.mkdtemp(), "old.npz")
        >>> np.savez(path, loss=[0.5, 0.25], step=[1, 2])
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena.import_(path, "run")
        ...     arena["run/loss"]
        ['run/loss', 'run/step']
        array([0.5 , 0.25])
        """
        return _import.import_(
            cast("Arena", self), os.fsdecode(path), name, progress, replace=bool(replace)
        )

    def compact(
        self, path: str | os.PathLike[str], *, progress: Progress = None
    ) -> tuple[int, int]:
        """Copy the named arrays, one behind the other, into a new arena file.

        The new file appears whole or not at all, in the place of one that is there. It has
        the capacity, alignment and attributes of this arena, an identity of its own,
        and nothing but the names: no freed space, no arrays without a name. Arrays with
        several names are still one array. ``ndarena compact`` also replaces the file itself,
        if nobody has it open for writing.

        Parameters
        ----------
        path : str or os.PathLike
            The new file; not this arena's own.
        progress : callable, bool or None, optional
            As for `export`.

        Returns
        -------
        before, after : int
            Bytes on the disk of this arena's file and of the new one.

        Raises
        ------
        ValueError
            If `path` is this arena's file, or this thread is in a transaction.

        Examples
        --------
        >>> import os, tempfile, ndarena
        >>> path = os.path.join(tempfile.mkdtemp(), "small.nda")
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     arena["a"], arena["b"] = arena.zeros(10**6), [1, 2]
        ...     del arena["a"]
        ...     before, after = arena.compact(path)
        >>> after < 2**20
        True
        >>> with ndarena.open(path) as arena:
        ...     arena["b"]
        array([1, 2])
        """
        return _copies.compact(cast("Arena", self), os.fsdecode(path), progress)

    def snapshot(
        self, path: str | os.PathLike[str], *, progress: Progress = None
    ) -> tuple[int, int]:
        """Copy the arena's file as its last flush stored it, while others go on.

        An arena that is open for writing is flushed first. Where the file system can share
        blocks between files (XFS, btrfs), they are shared and the copy costs next to nothing;
        elsewhere what has been written is copied, and holes stay holes. The copy appears whole
        or not at all, in the place of a file that is there, and has the same `uuid`.

        Parameters
        ----------
        path : str or os.PathLike
            The new file; not this arena's own.
        progress : callable, bool or None, optional
            As for `export`.

        Returns
        -------
        before, after : int
            Bytes on the disk of both files. Blocks that they share count in both.

        Raises
        ------
        ValueError
            If `path` is this arena's file, or this thread is in a transaction.
        OSError
            If the flush or the copy failed.

        Notes
        -----
        The names are exactly those of the flush. Arrays that are written to while they are
        copied may be a mixture of old and new, as after a loss of power. Arenas that are not
        in a file have no flush; they are copied like `compact` does.

        Examples
        --------
        >>> import os, tempfile, ndarena
        >>> folder = tempfile.mkdtemp()
        >>> with ndarena.open(os.path.join(folder, "a.nda"), "w", capacity="1GB") as arena:
        ...     arena["x"] = [1, 2, 3]
        ...     sizes = arena.snapshot(os.path.join(folder, "b.nda"))
        ...     arena["x"] = [4, 5, 6]
        >>> with ndarena.open(os.path.join(folder, "b.nda")) as copy:
        ...     copy["x"]
        array([1, 2, 3])
        """
        return _copies.snapshot(cast("Arena", self), os.fsdecode(path), progress)
