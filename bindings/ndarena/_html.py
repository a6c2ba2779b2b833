"""The heap map as one piece of HTML, for notebooks. Needs nothing but a browser."""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING

from ._heapmap import STATES, legend

if TYPE_CHECKING:
    from ._heapmap import HeapMap

__all__ = ["draw_html"]

_COLUMNS = 96
_CELL = 7


def draw_html(heap: HeapMap, title: str) -> str:
    """Return a title, an inline SVG of the map and a legend.

    Parameters
    ----------
    heap : HeapMap
        The map.
    title : str
        Plain text; it is escaped here.

    Returns
    -------
    str
        A ``div`` element.
    """
    states = heap.dominant().tolist()
    rows = [states[start : start + _COLUMNS] for start in range(0, len(states), _COLUMNS)]
    width, height = _COLUMNS * _CELL, max(1, len(rows)) * _CELL
    shapes = []
    for y, row in enumerate(rows):
        x = 0
        for number, run in itertools.groupby(row):
            length = len(list(run))
            shapes.append(
                f'<rect x="{x * _CELL}" y="{y * _CELL}" width="{length * _CELL}" '
                f'height="{_CELL - 1}" fill="{STATES[number].colour}"/>'
            )
            x += length
    keys = " ".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:0.8em;'
        f"height:0.8em;border:1px solid #888;background:{state.colour}"
        f'"></span> {html.escape(state.name)} {size}</span>'
        for state, size in legend(heap)
    )
    return (
        '<div style="font-family:sans-serif;font-size:small">'
        f"<div><b>{html.escape(title)}</b></div>"
        f'<svg role="img" aria-label="heap map" viewBox="0 0 {width} {height}" '
        f'style="width:100%;max-width:{width}px">{"".join(shapes)}</svg><div>{keys}</div></div>'
    )
