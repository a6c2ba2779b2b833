"""Opening arenas: in files, in shared memory, in scratch files."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING

from . import _core, _places, _sharing
from ._arena import Arena
from ._arguments import check_mode, parse_alignment, parse_ceiling

if TYPE_CHECKING:
    from ._sizes import Size

__all__ = ["open", "scratch", "shared"]


def open(  # noqa: A001  the public name
    path: str | os.PathLike[str],
    mode: str = "r",
    *,
    capacity: Size | None = None,
    alignment: int | None = None,
    perm: int = 0o600,
) -> Arena:
    """Open an arena in a file.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    mode : {'r', 'r+', 'w', 'w-', 'x', 'a'}, optional
        As in h5py: ``r`` reads an existing arena, ``r+`` also writes; ``w`` creates and
        replaces what is there, ``w-`` and ``x`` create and fail if it exists, ``a`` reads
        and writes and creates if there is none.
    capacity : int or str, optional
        Ceiling in bytes. Files are sparse, so it costs nothing; by default most of what
        the file system has free. On an existing arena it raises the ceiling and never
        lowers it.
    alignment : int, optional
        Alignment of every array in bytes, a power of two up to 2 MiB; 64 when the arena
        is new. That of an existing arena must match or be left out.
    perm : int, optional
        Permission bits of a new file.

    Returns
    -------
    Arena
        Close it, or use it in a ``with`` statement, which does.

    Raises
    ------
    FileNotFoundError, FileExistsError, PermissionError
        As the mode demands.
    FormatError
        If the file is not an arena.
    CorruptionError
        If it is a damaged one.
    ValueError
        If mode, capacity or alignment is not valid.

    Examples
    --------
    >>> import os, tempfile, ndarena
    >>> path = os.path.join(tempfile.mkdtemp(), "a.nda")
    >>> with ndarena.open(path, "w", capacity="1GB") as arena:
    ...     a = arena.zeros(10)
    >>> os.unlink(path)
    """
    return Arena._of_core(
        _core.open_file(
            os.fsdecode(path),
            check_mode(mode),
            parse_ceiling(capacity),
            parse_alignment(alignment),
            operator.index(perm),
        ),
        owner=True,
    )


def shared(
    name: str | None = None,
    mode: str = "a",
    *,
    capacity: Size | None = None,
    alignment: int | None = None,
    perm: int = 0o600,
) -> Arena:
    """Open an arena in a POSIX shared-memory segment.

    Parameters
    ----------
    name : str, optional
        The segment's name, without a slash. By default it is private and cannot be
        guessed.
    mode : {'r', 'r+', 'w', 'w-', 'x', 'a'}, optional
        As for `open`.
    capacity : int or str, optional
        Ceiling in bytes. Segments are sparse, so it costs nothing; by default most of
        the shared memory that is free.
    alignment : int, optional
        Alignment of every array in bytes, as for `open`.
    perm : int, optional
        Permission bits of a new segment.

    Returns
    -------
    Arena
        A segment with a name stays until `Arena.unlink`; one without goes with the last
        process that has it open, however that ends.

    Raises
    ------
    FileNotFoundError, FileExistsError, PermissionError
        As the mode demands.
    FormatError
        If the segment is not an arena.
    ValueError
        If name, mode, capacity or alignment is not valid.

    Examples
    --------
    >>> import ndarena
    >>> with ndarena.shared(capacity="1MiB") as arena:
    ...     a = arena.zeros(10)
    """
    _sharing.begin()
    if name is not None and (not name or "/" in name or "\0" in name or name in (".", "..")):
        raise ValueError(f"a shared segment's name has no slash and is not empty, unlike {name!r}")
    return Arena._of_core(
        _core.open_shared(
            name,
            check_mode(mode),
            parse_ceiling(capacity),
            parse_alignment(alignment),
            operator.index(perm),
        ),
        owner=True,
    )


def scratch(
    *,
    capacity: Size | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002  the contract's name
    alignment: int | None = None,
) -> Arena:
    """Open an arena in a temporary file without a name, gone with its last array.

    Parameters
    ----------
    capacity : int or str, optional
        Ceiling in bytes. The file is sparse; by default most of what the file system has
        free.
    dir : str or os.PathLike, optional
        Directory of the file. By default ``NDARENA_DIR``, then ``TMPDIR``, then the
        system's choice, or ``/var/tmp`` where that choice is itself kept in memory.
    alignment : int, optional
        Alignment of every array in bytes, a power of two up to 2 MiB; 64 by default.

    Returns
    -------
    Arena
        Its space is given back when the arena is closed and its last array is gone.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If the directory cannot be used.
    ValueError
        If capacity or alignment is not valid.

    Examples
    --------
    >>> import ndarena
    >>> with ndarena.scratch(capacity="10GB") as arena:
    ...     a = arena.ones((1000, 1000))
    """
    return Arena._of_core(
        _core.open_scratch(
            parse_ceiling(capacity), _places.scratch_dir(dir), parse_alignment(alignment)
        ),
        owner=True,
    )


def reopen(shared: bool, where: str, mode: str) -> Arena:
    """Open the arena that was pickled in another process.

    Whoever gets it as an argument need not close it: it is forgotten without a warning.
    """
    if shared:
        _sharing.begin()
        return Arena._of_core(_core.open_shared(where, mode, 0, 0, 0o600))
    return Arena._of_core(_core.open_file(where, mode, 0, 0, 0o600))
