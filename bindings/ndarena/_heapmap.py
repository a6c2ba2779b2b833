"""Reduction of an arena's blocks to a map of equal cells, and its drawing as text.

The text map, the HTML map and the plot all draw what `reduce_blocks` returns.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ._sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["STATES", "HeapMap", "State", "draw_text", "legend", "reduce_blocks"]


@dataclasses.dataclass(frozen=True)
class State:
    """How one block state is called and drawn.

    Attributes
    ----------
    name : str
        Word for the legend.
    colour : str
        ``#rrggbb``, told apart also by people who do not see red and green.
    glyph : str
        One character for text maps.
    ansi : int
        Colour number of 256-colour terminals.
    """

    name: str
    colour: str
    glyph: str
    ansi: int


# Indexed by the state numbers of the extension module's `blocks()`.
STATES: tuple[State, ...] = (
    State("pristine", "#dfe4ec", "·", 250),
    State("free, warm", "#f4a259", "░", 215),
    State("free, punched", "#9fb3cf", "∙", 110),
    State("allocated", "#1f6f8b", "█", 31),
    State("metadata", "#5b3a8c", "▒", 98),
    State("in transition", "#c8365b", "!", 161),
)
PRISTINE, WARM, PUNCHED, ALLOCATED, METADATA, TRANSITION = range(6)


@dataclasses.dataclass(frozen=True)
class HeapMap:
    """An arena's address space as a row of equal cells.

    Attributes
    ----------
    cell_size : int
        Bytes that one cell stands for.
    cells : numpy.ndarray
        Shape ``(n_cells, len(STATES))``, int64: bytes of each state in each cell.
    totals : numpy.ndarray
        Shape ``(len(STATES),)``, int64: bytes of each state in the whole arena.
    undrawn : int
        Bytes never touched behind the last cell. They are left out, because the
        capacity of an arena is usually far beyond what it has used.
    """

    cell_size: int
    cells: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    undrawn: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.cells)

    def dominant(self) -> npt.NDArray[np.int64]:
        """Return the state number that each cell is drawn as.

        Live bytes weigh double, so that a small array in a large free cell shows.

        Returns
        -------
        numpy.ndarray
            Shape ``(n_cells,)``.
        """
        weights = np.ones(len(STATES), np.int64)
        weights[[ALLOCATED, TRANSITION]] = 2
        states: npt.NDArray[np.int64] = np.argmax(self.cells * weights, axis=1)
        return states

    def as_dict(self) -> dict[str, Any]:
        """Return the map as plain lists and ints, ready for ``json.dumps``.

        Returns
        -------
        dict
            Keys ``states``, ``cell_size``, ``cells``, ``totals``, ``undrawn``.
        """
        return {
            "states": [state.name for state in STATES],
            "cell_size": self.cell_size,
            "cells": self.cells.tolist(),
            "totals": dict(zip((s.name for s in STATES), self.totals.tolist(), strict=True)),
            "undrawn": self.undrawn,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeapMap:
        """Return the map that `as_dict` described.

        Parameters
        ----------
        data : mapping
            What `as_dict` returned.

        Returns
        -------
        HeapMap
            An equal map.
        """
        return cls(
            int(data["cell_size"]),
            np.array(data["cells"], np.int64).reshape(-1, len(STATES)),
            np.array(list(data["totals"].values()), np.int64),
            int(data["undrawn"]),
        )


def reduce_blocks(blocks: npt.NDArray[np.int64], n_cells: int) -> HeapMap:
    """Reduce a list of blocks to a map of at most `n_cells` cells.

    Parameters
    ----------
    blocks : numpy.ndarray
        Shape ``(n, 3)``: offset, size and state number, in address order without overlap.
    n_cells : int
        The most cells wanted, at least 1.

    Returns
    -------
    HeapMap
        Cells are a power of two in size, 4 KiB at least, and start at offset 0.
    """
    offset, size, state = (blocks[:, column] for column in range(3))
    totals = np.zeros(len(STATES), np.int64)
    np.add.at(totals, state, size)
    used = state != PRISTINE
    end = int((offset[used] + size[used]).max()) if used.any() else 0
    whole = int((offset + size).max()) if len(blocks) else 0
    cell_size = 4096
    while cell_size * n_cells < end:
        cell_size *= 2
    count = min(n_cells, max(1, -(-end // cell_size)))
    edges = np.arange(count + 1, dtype=np.int64) * cell_size
    cells = np.empty((count, len(STATES)), np.int64)
    for number in range(len(STATES)):
        chosen = state == number
        cells[:, number] = np.diff(_bytes_below(edges, offset[chosen], size[chosen]))
    return HeapMap(cell_size, cells, totals, max(0, whole - int(edges[-1])))


def _bytes_below(
    edges: npt.NDArray[np.int64], offset: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """For each edge, how many bytes of the given blocks lie below it."""
    if not len(offset):
        return np.zeros(len(edges), np.int64)
    before = np.concatenate(([0], np.cumsum(size)))
    index = np.searchsorted(offset, edges, side="right") - 1
    inside = np.minimum(edges - offset[index], size[index])
    return np.where(index < 0, 0, before[index] + inside).astype(np.int64)


def draw_text(heap: HeapMap, width: int = 64, *, colour: bool = False) -> list[str]:
    """Draw a map as lines of one character a cell, each line led by its offset.

    Parameters
    ----------
    heap : HeapMap
        The map.
    width : int, optional
        Cells a line.
    colour : bool, optional
        Whether to use the colours of a 256-colour terminal.

    Returns
    -------
    list of str
        The lines, without line ends.
    """
    states = heap.dominant().tolist()
    labels = [format_size(start * heap.cell_size) for start in range(0, len(states), width)]
    margin = max(map(len, labels))
    rows = []
    for label, start in zip(labels, range(0, len(states), width), strict=True):
        rows.append(f"{label:>{margin}} {_paint(states[start : start + width], colour)}")
    return rows


def _paint(states: Sequence[int], colour: bool) -> str:
    if not colour:
        return "".join(STATES[number].glyph for number in states)
    pieces: list[str] = []
    last = -1
    for number in states:
        if number != last:
            pieces.append(f"\033[38;5;{STATES[number].ansi}m")
        pieces.append(STATES[number].glyph)
        last = number
    return "".join(pieces) + "\033[0m"


def legend(heap: HeapMap) -> list[tuple[State, str]]:
    """Return the states that occur in the arena, each with its total size.

    Parameters
    ----------
    heap : HeapMap
        The map.

    Returns
    -------
    list of (State, str)
        In the order of a bar from full to untouched.
    """
    order = (ALLOCATED, WARM, PUNCHED, TRANSITION, METADATA, PRISTINE)
    return [
        (STATES[number], format_size(int(heap.totals[number])))
        for number in order
        if heap.totals[number]
    ]
