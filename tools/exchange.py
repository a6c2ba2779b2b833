"""``ndarena export`` and ``import``: arrays out of and into an arena file."""

from __future__ import annotations

import os

from ndarena import _export

from ._common import FINE, Unusable, bar, open_arena, plural, printable, require_free

__all__ = ["export", "import_"]


def export(path: str, name: str | None, output: str, *, force: bool = False) -> int:
    """Write named arrays of an arena file to a file or a directory.

    Parameters
    ----------
    path : str
        An arena file.
    name : str or None
        A name, a group like ``run/``, or None for all.
    output : str
        A `.npy` file, a `.npz` archive, or a directory.
    force : bool, optional
        Whether a file that is there is replaced.

    Returns
    -------
    int
        The exit status.
    """
    if not (os.path.isdir(output) and not os.listdir(output)):
        require_free(output, force=force)
    with open_arena(path) as arena:
        try:
            count = _export.export(arena, name, output, bar())
        except KeyError:
            raise Unusable(f"{path}: there is no array {printable(name or '')}") from None
    print(f"{output}: {plural(count, 'array')}")
    return FINE


def import_(
    path: str, name: str | None, source: str, *, force: bool = False, create: bool = False
) -> int:
    """Read arrays from a file or a directory into an arena file, and make them durable.

    Parameters
    ----------
    path : str
        An arena file.
    name : str or None
        The array's name, or the group's.
    source : str
        A `.npy` file, a `.npz` archive, or a directory.
    force : bool, optional
        Whether arrays of the same names are replaced.
    create : bool, optional
        Whether the arena file is made if there is none.

    Returns
    -------
    int
        The exit status.
    """
    with open_arena(path, "a" if create else "r+") as arena:
        try:
            names = arena.import_(source, name, progress=bar(), replace=force)
        except FileExistsError as error:
            raise Unusable(
                f"{path}: there is an array {printable(str(error.filename))} already; "
                "--force replaces it"
            ) from error
        arena.flush()
    print(f"{path}: {plural(len(names), 'array')}")
    return FINE
