"""What can be asked of an open arena: counters, soundness, places, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from . import _core, _sharing
from ._handlers import require_array
from ._heapmap import reduce_blocks
from ._html import draw_html
from ._stats import Stats

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    from ._arena import Arena

__all__ = ["InspectionMixin"]

_HTML_CELLS = 96 * 16


class InspectionMixin:
    """The methods of `Arena` that look and do not allocate."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def closed(self) -> bool: ...

        def _open_core(self) -> _core.Arena: ...

        def _writable_core(self) -> _core.Arena: ...

        def _where(self) -> str: ...

    def stats(self) -> Stats:
        """Return the arena's counters at this moment.

        Returns
        -------
        Stats
            Sizes in bytes, of the whole arena and all its processes.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.zeros(100)
        ...     arena.stats().n_blocks
        1
        """
        return Stats(**self._open_core().stats())

    def check(self) -> list[str]:
        """Verify every invariant of the arena's metadata.

        Returns
        -------
        list of str
            One finding a line; empty when the arena is sound.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     arena.check()
        []
        """
        core = self._open_core()
        return core.check() or _core.check_names(core)

    def trim(self) -> int:
        """Give the pages of free memory back to the system or the file system.

        Returns
        -------
        int
            Bytes given back.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.ones(10**6)
        ...     del a
        ...     arena.trim() >= 0
        True
        """
        return self._open_core().trim()

    def reclaim(self, transit: float = _sharing.GRACE_MS / 1000) -> int:
        """Free what processes held that have died. Happens by itself before memory runs out.

        Parameters
        ----------
        transit : float, optional
            For how many seconds after its sender was found dead a message that nobody has
            read yet keeps its memory.

        Returns
        -------
        int
            Number of blocks freed and messages dropped.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.shared(capacity="1MiB") as arena:
        ...     arena.reclaim()
        0
        """
        if not transit >= 0:
            raise ValueError(f"transit is a number of seconds, not {transit!r}")
        return self._writable_core().reclaim(int(transit * 1000))

    def owns(self, a: npt.NDArray[Any]) -> bool:
        """Return whether an array's data lies in this arena.

        Parameters
        ----------
        a : numpy.ndarray
            Any array; views are followed to the array that owns the data.

        Returns
        -------
        bool
            True if it does.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     arena.owns(arena.zeros(10)[2:])
        True
        """
        return self._open_core().owns(require_array(a, "owns"))

    def offset_of(self, a: npt.NDArray[Any]) -> int:
        """Return where in the segment an array's data begins.

        Parameters
        ----------
        a : numpy.ndarray
            An array of this arena, or a view of one.

        Returns
        -------
        int
            Offset in bytes of the array's first element from the start of the segment.

        Raises
        ------
        ValueError
            If the array is not in this arena.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.zeros(10)
        ...     arena.offset_of(a[2:]) - arena.offset_of(a)
        16
        """
        return self._open_core().offset_of(require_array(a, "offset_of"))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the heap map: the address space folded into rows, coloured by state.

        Parameters
        ----------
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

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     ax = arena.plot()
        """
        from .plot import plot

        return plot(cast("Arena", self), ax)

    def _repr_html_(self) -> str:
        title = repr(self).strip("<>")
        if self.closed:
            return f"<div><b>{title}</b></div>"
        return draw_html(reduce_blocks(self._open_core().blocks(), _HTML_CELLS), title)
