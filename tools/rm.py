"""``ndarena rm``: remove names from an arena file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._common import FINE, Unusable, open_arena, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(path: str, names: Sequence[str], *, force: bool = False) -> int:
    """Remove names, all of them or none, and make that durable.

    Parameters
    ----------
    path : str
        An arena file.
    names : sequence of str
        The names.
    force : bool, optional
        Whether this is meant.

    Returns
    -------
    int
        The exit status.
    """
    shown = ", ".join(map(printable, names))
    if not force:
        raise Unusable(f"{path}: --force removes {shown}; there is no way back")
    with open_arena(path, "r+") as arena:
        with arena.transaction():
            for name in dict.fromkeys(names):
                try:
                    del arena[name]
                except KeyError:
                    raise Unusable(
                        f"{path}: there is no array {printable(name)}; nothing has been removed"
                    ) from None
        arena.flush()
    return FINE
