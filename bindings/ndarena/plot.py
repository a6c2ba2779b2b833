"""The heap map as a figure. Matplotlib is imported only when something is drawn."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ._heapmap import STATES, legend, reduce_blocks
from ._sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from ._arena import Arena
    from ._heapmap import HeapMap

__all__ = ["PLOT_CELLS", "plot", "plot_map", "save_map"]

_COLUMNS = 128
_ROWS = 48
PLOT_CELLS = _COLUMNS * _ROWS


def plot(arena: Arena, ax: Axes | None = None) -> Axes:
    """Draw the heap map of an arena: its address space folded into rows, lowest on top.

    Parameters
    ----------
    arena : Arena
        An open arena.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise. The backend is left as it is.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import ndarena
    >>> from ndarena.plot import plot
    >>> with ndarena.scratch(capacity="1MiB") as arena:
    ...     a = arena.zeros(1000)
    ...     ax = plot(arena)
    >>> ax.get_xlabel().startswith("1 column")
    True
    """
    heap = reduce_blocks(arena._open_core().blocks(), PLOT_CELLS)
    stats = arena.stats()
    share = 100 * stats.allocated / stats.committed if stats.committed else 0.0
    title = (
        f"{arena._where()}: {format_size(stats.allocated)} in {stats.n_blocks} blocks, "
        f"{share:.0f} % of {format_size(stats.committed)} committed"
    )
    return plot_map(heap, title, ax)


def plot_map(heap: HeapMap, title: str, ax: Axes | None = None) -> Axes:
    """Draw a reduced map.

    Parameters
    ----------
    heap : HeapMap
        The map.
    title : str
        Text above it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    with _matplotlib():
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Patch
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(9, 5), layout="constrained")
    columns = min(_COLUMNS, max(16, int(np.ceil(np.sqrt(heap.n_cells * 2)))))
    rows = -(-heap.n_cells // columns)
    image = np.ones((rows * columns, 3))
    image[: heap.n_cells] = _blend(heap, np.array([to_rgb(state.colour) for state in STATES]))
    ax.imshow(image.reshape(rows, columns, 3), aspect="auto", interpolation="nearest")
    # A thin white grid keeps the cells apart where they are large enough for it.
    if rows <= _ROWS // 2:
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=0.6)
        ax.tick_params(which="minor", length=0)
    ticks = np.unique(np.linspace(0, rows - 1, min(rows, 7)).astype(int))
    ax.set_yticks(ticks, [format_size(int(row) * columns * heap.cell_size) for row in ticks])
    ax.set_xticks([])
    ax.set_ylabel("offset in the arena")
    ax.set_xlabel(
        f"1 column = {format_size(heap.cell_size)}, 1 row = {format_size(columns * heap.cell_size)}"
        + (f"; {format_size(heap.undrawn)} never used, not drawn" if heap.undrawn else "")
    )
    ax.set_title(title, fontsize="medium")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.legend(
        handles=[
            Patch(facecolor=state.colour, edgecolor="#888888", label=f"{state.name}, {size}")
            for state, size in legend(heap)
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
        ncols=3,
        frameon=False,
    )
    return ax


def save_map(heap: HeapMap, title: str, path: str) -> None:
    """Draw a reduced map into a picture file, without touching matplotlib's backend.

    Parameters
    ----------
    heap : HeapMap
        The map.
    title : str
        Text above it.
    path : str
        The file, in the format that its suffix says.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If it does not know the format.
    """
    with _matplotlib():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 5), layout="constrained")
    plot_map(heap, title, figure.add_subplot())
    figure.savefig(path, dpi=150)


@contextmanager
def _matplotlib() -> Iterator[None]:
    """Turn a missing matplotlib into one line that says how to get it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            "drawing a heap map needs matplotlib: pip install 'ndarena[plot]'"
        ) from error


def _blend(heap: HeapMap, palette: np.ndarray) -> np.ndarray:
    """Mix the colours of a cell by the bytes of each state in it, its main one first."""
    total = heap.cells.sum(axis=1, keepdims=True)
    shares = heap.cells / np.maximum(total, 1)
    main = palette[heap.dominant()]
    mixed: np.ndarray = np.where(total > 0, 0.5 * main + 0.5 * (shares @ palette), 1.0)
    return mixed
