"""``ndarena map``: the heap map of an arena file, as text or as a picture."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import ndarena
from ndarena._heapmap import draw_text, legend, reduce_blocks
from ndarena._sizes import format_size
from ndarena.plot import PLOT_CELLS, save_map

from ._common import FINE, Unusable, describe, open_arena, print_json, say, use_colour

if TYPE_CHECKING:
    from ndarena._heapmap import HeapMap

__all__ = ["main", "print_map", "save_picture"]

_ROWS = 16


def print_map(heap: HeapMap, title: str, width: int | None = None) -> None:
    """Print a heap map as text, coloured on a terminal.

    Parameters
    ----------
    heap : HeapMap
        The map.
    title : str
        The line above it.
    width : int, optional
        Cells a line; what fits on the terminal otherwise.
    """
    colour = use_colour()
    width = width or _columns()
    lines = [title, *draw_text(heap, width, colour=colour)]
    keys = []
    for state, size in legend(heap):
        glyph = f"\033[38;5;{state.ansi}m{state.glyph}\033[0m" if colour else state.glyph
        keys.append(f"{glyph} {state.name} {size}")
    lines.append("   ".join(keys))
    unused = f"; {format_size(heap.undrawn)} never used, not drawn" if heap.undrawn else ""
    lines.append(f"one cell is {format_size(heap.cell_size)}{unused}")
    encoding = sys.stdout.encoding or "ascii"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))


def _columns() -> int:
    return max(16, min(128, shutil.get_terminal_size().columns - 12))


def main(
    path: str, *, output: str | None = None, width: int | None = None, as_json: bool = False
) -> int:
    """Draw the heap map of an arena file.

    Parameters
    ----------
    path : str
        The file.
    output : str, optional
        Picture to write, in the format that its suffix says.
    width : int, optional
        Cells a line of the text map.
    as_json : bool, optional
        Whether to print JSON.

    Returns
    -------
    int
        The exit status.
    """
    try:
        with open_arena(path) as arena:
            blocks = arena._open_core().blocks()
            stats = arena.stats()
            title = (
                f"{os.path.basename(path)}: {format_size(stats.allocated)} in {stats.n_blocks} "
                f"blocks, capacity {format_size(stats.capacity)}"
            )
            if output is not None:
                save_picture(reduce_blocks(blocks, PLOT_CELLS), title, output)
            if as_json or output is None:
                columns = width or _columns()
                heap = reduce_blocks(blocks, columns * _ROWS)
                if as_json:
                    print_json({"file": arena.filename, **heap.as_dict()})
                else:
                    print_map(heap, title, columns)
    except ndarena.CorruptionError as error:
        raise Unusable(f"{describe(error)} (ndarena check looks closer)") from error
    return FINE


def save_picture(heap: HeapMap, title: str, output: str) -> None:
    """Write a heap map as a picture and say so.

    Parameters
    ----------
    heap : HeapMap
        The map.
    title : str
        Text above it.
    output : str
        The file, in the format that its suffix says.

    Raises
    ------
    Unusable
        If matplotlib is missing or does not know the format.
    """
    try:
        save_map(heap, title, output)
    except ImportError as error:
        raise Unusable(str(error)) from error
    except ValueError as error:  # a suffix that matplotlib does not know
        raise Unusable(f"{output}: {error}") from error
    say(f"wrote {output}")
