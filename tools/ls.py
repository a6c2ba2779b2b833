"""``ndarena ls``: the names in an arena file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import ndarena
from ndarena import _dtypes, _named
from ndarena._sizes import format_size

from ._common import (
    FINE,
    Unusable,
    describe,
    open_arena,
    print_json,
    printable,
    tolerate_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["collect", "main"]


def collect(path: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Look at named arrays without reading them.

    Parameters
    ----------
    path : str
        An arena file.
    prefix : str, optional
        What the names start with.

    Yields
    ------
    dict
        One for each name, in the order of names: ``name``, ``dtype``, ``descr`` (the same as in
        a `.npy` file), ``shape``, ``order``, ``nbytes``, ``offset``, ``attrs``.
    """
    with open_arena(path) as arena:
        for entry in _named.describe(arena, arena.keys(prefix)):
            dtype = _dtypes.decode(entry.descr)
            yield {
                "name": entry.name,
                "dtype": str(dtype),
                "descr": np.lib.format.dtype_to_descr(dtype),
                "shape": list(entry.shape),
                "order": "F" if entry.fortran else "C",
                "nbytes": entry.nbytes,
                "offset": entry.offset,
                "attrs": entry.attributes(),
            }


def main(path: str, prefix: str = "", *, long: bool = False, as_json: bool = False) -> int:
    """Print the names in an arena file.

    Parameters
    ----------
    path : str
        An arena file.
    prefix : str, optional
        What the names start with.
    long : bool, optional
        Whether to show the order in memory and the attributes, too.
    as_json : bool, optional
        Whether to print JSON.

    Returns
    -------
    int
        The exit status.
    """
    try:
        rows = list(collect(path, prefix))
    except ndarena.CorruptionError as error:
        raise Unusable(f"{describe(error)} (ndarena check looks closer)") from error
    if as_json:
        print_json({"file": path, "prefix": prefix, "names": rows})
        return FINE
    tolerate_names()
    table = [_cells(row) for row in rows]
    widths = [max((len(cells[column]) for cells in table), default=0) for column in range(4)]
    for row, (name, dtype, shape, size) in zip(rows, table, strict=True):
        line = (
            f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {size:>{widths[3]}}"
        )
        print(f"{line}  {row['order']}" if long else line)
        if long:
            for key, value in row["attrs"].items():
                print(f"    {printable(key)} = {value!r}")
    return FINE


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    shape = str(tuple(row["shape"]))
    return printable(row["name"]), row["dtype"], shape, format_size(row["nbytes"])
