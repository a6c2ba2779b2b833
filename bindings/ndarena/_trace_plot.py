"""Events as a figure. Matplotlib is imported only when something is drawn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from ._tracing import Frame, TraceEvent

__all__ = ["live_bytes", "plot_events", "site_of", "top_sites"]

_MIB = 2**20
_MOST_SITES = 5
_OWN = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (__file__, np.__file__))


def site_of(frames: Sequence[Frame]) -> str:
    """Return the innermost line that is not ndarena's or NumPy's.

    Parameters
    ----------
    frames : sequence of Frame
        A stack, innermost first.

    Returns
    -------
    str
        Such as ``'model.py:12 fit'``; empty without frames.
    """
    for frame in frames:
        if not frame.filename.startswith(_OWN):
            return f"{os.path.basename(frame.filename)}:{frame.line} {frame.function}"
    return f"{os.path.basename(frames[0].filename)}:{frames[0].line}" if frames else ""


def live_bytes(events: Sequence[TraceEvent]) -> tuple[list[float], list[int]]:
    """Return how many bytes were in use after each event.

    Parameters
    ----------
    events : sequence of TraceEvent
        In their order. What was freed, but allocated before the first of them, is added at the
        start.

    Returns
    -------
    times : list of float
        In seconds.
    nbytes : list of int
        As many.
    """
    known: set[int] = set()
    changes = []
    before = 0
    for event in events:
        if event.action == "allocate":
            known.add(event.address)
            changes.append(event.nbytes)
        elif event.action == "free":
            if event.address not in known:
                before += event.nbytes
            known.discard(event.address)
            changes.append(-event.nbytes)
        else:
            changes.append(0)
    totals = before + np.cumsum(changes, dtype=np.int64) if changes else np.zeros(0, np.int64)
    return [event.time for event in events], totals.tolist()


def top_sites(events: Sequence[TraceEvent], end: int) -> list[tuple[str, int]]:
    """Return who held most when the first `end` events had happened.

    Parameters
    ----------
    events : sequence of TraceEvent
        In their order.
    end : int
        How many of them count.

    Returns
    -------
    list of (str, int)
        Sites and bytes, largest first.
    """
    alive: dict[int, TraceEvent] = {}
    for event in events[:end]:
        if event.action == "allocate":
            alive[event.address] = event
        elif event.action == "free":
            alive.pop(event.address, None)
    held: dict[str, int] = {}
    for event in alive.values():
        site = site_of(event.frames)
        held[site] = held.get(site, 0) + event.nbytes
    return sorted(held.items(), key=lambda item: -item[1])


def plot_events(events: Sequence[TraceEvent], ax: Axes | None = None) -> Axes:
    """Draw the bytes in use over time.

    Parameters
    ----------
    events : sequence of TraceEvent
        In their order.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(8, 4), layout="constrained").add_subplot()
    times, nbytes = live_bytes(events)
    ax.step(times, [n / _MIB for n in nbytes], where="post", color="tab:blue")
    ax.set_xlabel("time / s")
    ax.set_ylabel("in use / MiB")
    if not nbytes:
        return ax
    peak = int(np.argmax(nbytes))
    ax.set_title(f"peak {nbytes[peak] / _MIB:.1f} MiB after {times[peak]:.3g} s")
    ax.plot([times[peak]], [nbytes[peak] / _MIB], "o", color="tab:red")
    for site, held in top_sites(events, peak + 1)[:_MOST_SITES]:
        if site:
            ax.plot([], [], " ", label=f"{held / _MIB:.1f} MiB {site}")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", fontsize="small", title="at the peak", handlelength=0)
    return ax
