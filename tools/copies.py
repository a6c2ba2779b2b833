"""``ndarena compact`` and ``snapshot``: copies of whole arena files."""

from __future__ import annotations

import os

from ndarena import _copies
from ndarena._sizes import format_size

from ._common import FINE, bar, open_arena, require_free, say

__all__ = ["compact", "snapshot"]


def compact(path: str, output: str | None, *, force: bool = False) -> int:
    """Write the named arrays of an arena file without gaps.

    Parameters
    ----------
    path : str
        An arena file.
    output : str or None
        The new file; None replaces `path`, if nobody has it open for writing.
    force : bool, optional
        Whether another file that is there is replaced.

    Returns
    -------
    int
        The exit status.
    """
    if output is None:
        open_arena(path).close()  # what is no arena is refused as elsewhere
        sizes = _copies.compact_in_place(path, bar())
    else:
        require_free(output, force=force)
        with open_arena(path) as arena:
            sizes = _copies.compact(arena, output, bar())
    print(f"{output or path}: {format_size(sizes.before)} before, {format_size(sizes.after)} now")
    return FINE


def snapshot(path: str, output: str, *, force: bool = False) -> int:
    """Copy an arena file as its last flush stored it, while others may use it.

    It is flushed first, if this user may write to it.

    Parameters
    ----------
    path : str
        An arena file.
    output : str
        The new file.
    force : bool, optional
        Whether a file that is there is replaced.

    Returns
    -------
    int
        The exit status.
    """
    require_free(output, force=force)
    with open_arena(path, "r+" if os.access(path, os.W_OK) else "r") as arena:
        sizes = _copies.snapshot(arena, output, bar())
        if arena.mode == "r":
            say(f"{path}: cannot be written to, so what was not flushed is not in the copy")
    print(f"{output}: {format_size(sizes.after)}")
    return FINE
