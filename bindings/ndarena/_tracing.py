"""Tracing: who allocated what, in one thread, task or coroutine."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, NamedTuple

from . import _core
from ._adaptors import Adaptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

    from ._adaptors import Upstream
    from ._chains import Binding

__all__ = ["Frame", "TraceEvent", "Tracing"]

_NS = 1e9
_MOST_FRAMES = 1000


class Frame(NamedTuple):
    """One line of a Python stack.

    Attributes
    ----------
    filename : str
        Of the source.
    line : int
        Its number.
    function : str
        Whose line it is.
    """

    filename: str
    line: int
    function: str


class TraceEvent(NamedTuple):
    """Something that happened to memory.

    Attributes
    ----------
    time : float
        In seconds since the `Tracing` object was made.
    action : {'allocate', 'free', 'allocate failure'}
        What happened. An array that changes its size is freed and allocated.
    address : int
        Of the memory; 0 for a failure.
    nbytes : int
        Its size.
    thread : int
        As `threading.get_ident` says.
    frames : tuple of Frame
        The Python stack, innermost first; empty if it was not recorded.
    age : float
        In seconds, until it was freed or, if it still lives, until now; nan for other events.
    """

    time: float
    action: str
    address: int
    nbytes: int
    thread: int
    frames: tuple[Frame, ...]
    age: float


class Tracing(Adaptor):
    """Notes what is allocated and freed: here only, and nobody else's.

    Of other threads, tasks and coroutines nothing is noted, unless they enter it, too, or have
    got a copy of a context in which it is active (`asyncio.create_task`, `asyncio.to_thread`).
    An array's end is noted wherever it happens.

    Parameters
    ----------
    upstream : Resource, ArenaHandler or Arena, optional
        Where the memory comes from. By default what is current when it is entered.
    frames : int, optional
        How many Python frames to note for each allocation, at most 1000. They cost some 200 ns
        each; without them a pair of events costs less than 100.
    log : str or os.PathLike, optional
        A file for all events, in the format of RMM: CSV with columns Thread, Time, Action,
        Pointer, Size, Stream. It is written every few thousand events, by `flush`, and at the
        end. An existing file is overwritten. ``ndarena replay`` plays it back.
    max_events : int, optional
        So many are kept in memory, at 40 bytes each; the oldest make room for new ones. What is
        alive is known in any case.

    Raises
    ------
    OSError
        If the log cannot be opened.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Tracing(frames=3) as tracing:
    ...     a = np.empty(1000)
    ...     b = a.copy()
    ...     del a
    >>> [(event.action, event.nbytes) for event in tracing.events()]
    [('allocate', 8000), ('allocate', 8000), ('free', 8000)]
    >>> [event.nbytes for event in tracing.live()], tracing.peak
    ([8000], 16000)
    """

    __slots__ = ("_trace",)

    def __init__(
        self,
        upstream: Upstream = None,
        frames: int = 0,
        log: str | os.PathLike[str] | None = None,
        *,
        max_events: int = 1_000_000,
    ) -> None:
        super().__init__(upstream)
        if not 0 <= frames <= _MOST_FRAMES:
            raise ValueError(f"frames is to be 0 to {_MOST_FRAMES}, not {frames}")
        if max_events < 2:
            raise ValueError(f"max_events is to be 2 at least, not {max_events}")
        fd = -1
        if log is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            fd = os.open(log, flags, 0o666)
        self._trace = _core.Trace(max_events, frames, fd)
        if fd >= 0:
            _with_logs.add(self)

    def _bind(self, binding: Binding) -> _core.Resource:
        upstream = self.upstream._bind(binding)
        return _core.tracing_adaptor(self._trace, upstream, self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return f"tracing({self.upstream._describe(binding)})"

    @property
    def peak(self) -> int:
        """The most bytes that have been in use at once."""
        return self._counters.read()["peak_allocated"]

    @property
    def n_dropped(self) -> int:
        """How many events are not in `events` any more, since there were more than `max_events`."""
        return self._trace.n_dropped()

    def events(self) -> list[TraceEvent]:
        """Return what happened, in this order.

        Returns
        -------
        list of TraceEvent
            The last `max_events` events.
        """
        return self._described(self._trace.events())

    def live(self) -> list[TraceEvent]:
        """Return what has been allocated and not freed yet, oldest first.

        Returns
        -------
        list of TraceEvent
            The allocations, however long ago.
        """
        return self._described(self._trace.live())

    def flush(self) -> None:
        """Write to the log what is not there yet.

        Raises
        ------
        OSError
            If something could not be written, now or before.
        """
        error = self._trace.flush()
        if error:
            raise OSError(error, f"the log could not be written: {os.strerror(error)}")

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._trace.flush()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the bytes in use over time, and the sites that hold most of them at the peak.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure otherwise. The sites are named in the legend, if frames
            were noted.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from ._trace_plot import plot_events

        return plot_events(self.events(), ax)

    def _described(self, raw: Iterable[tuple[int, str, int, int, int, int]]) -> list[TraceEvent]:
        raw = list(raw)
        now = self._trace.now() / _NS
        freed: dict[int, float] = {}
        stacks: dict[int, tuple[Frame, ...]] = {0: ()}
        found = []
        for time, action, address, nbytes, thread, stack in reversed(raw):
            at = time / _NS
            age = float("nan")
            if action == "free":
                freed[address] = at
            elif action == "allocate":
                age = freed.pop(address, now) - at
            if stack not in stacks:
                stacks[stack] = tuple(Frame(*frame) for frame in self._trace.stack(stack))
            found.append(TraceEvent(at, action, address, nbytes, thread, stacks[stack], age))
        found.reverse()
        return found


# Those whose logs are to be complete when the process ends.
_with_logs: weakref.WeakSet[Tracing] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for tracing in list(_with_logs):
        tracing._trace.flush()
