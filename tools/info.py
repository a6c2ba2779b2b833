"""``ndarena info``: what a file holds, in a few lines."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import ndarena
from ndarena import _core
from ndarena._sizes import format_size

from ._common import FINE, Unusable, describe, open_arena, print_json

__all__ = ["collect", "main"]

_SIZES = frozenset({"capacity", "committed", "allocated", "peak_allocated", "largest_free"})


def collect(path: str) -> dict[str, Any]:
    """Return everything that `main` prints.

    Parameters
    ----------
    path : str
        An arena file.

    Returns
    -------
    dict
        File, identity and counters; sizes in bytes. ``epoch`` counts commits of names,
        ``flushed_epoch`` is that of the last flush.
    """
    with open_arena(path) as arena:
        status = os.stat(path)
        epoch, stored, failed = _core.names_state(arena._open_core())
        return {
            "file": arena.filename,
            "uuid": arena.uuid,
            "alignment": arena.alignment,
            "file_size": status.st_size,
            "disk_usage": status.st_blocks * 512,
            "names": len(arena),
            "epoch": epoch,
            "flushed_epoch": stored,
            "flushed": epoch == stored,
            "flush_error": os.strerror(failed) if failed else None,
            **dataclasses.asdict(arena.stats()),
        }


def main(path: str, *, as_json: bool = False) -> int:
    """Print what an arena file holds.

    Parameters
    ----------
    path : str
        An arena file.
    as_json : bool, optional
        Whether to print JSON.

    Returns
    -------
    int
        The exit status.
    """
    try:
        data = collect(path)
    except ndarena.CorruptionError as error:
        raise Unusable(f"{describe(error)} (ndarena check looks closer)") from error
    if as_json:
        print_json(data)
        return FINE
    sizes = {*_SIZES, "file_size", "disk_usage", "resident"}
    width = max(map(len, data))
    for name, value in data.items():
        if value is None:
            continue
        shown = f"{format_size(value)} ({value})" if name in sizes else value
        if name == "flushed":
            shown = "yes" if value else "no: names have changed since"
        print(f"{name.replace('_', ' '):<{width}}  {shown}")
    return FINE
