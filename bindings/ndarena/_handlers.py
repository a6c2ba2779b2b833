"""Handlers: making NumPy allocate in an arena, for a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, _process
from ._activation import Activation
from ._chains import describe_previous, short_size
from ._counts import ResourceStats
from ._sizes import format_size, parse_size

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import CapsuleType

    from ._arena import Arena
    from ._chains import Binding
    from ._sizes import Size

__all__ = ["ArenaHandler", "arena_of", "handler_of"]


class ArenaHandler(Activation):
    """Makes NumPy allocate in an arena; returned by `Arena.handler`.

    A context manager and a decorator. It covers the context it is entered in (this
    thread, this task or coroutine), nests, may be entered again while it is active and
    by several threads at once, and restores what was current before on every way out.

    Parameters
    ----------
    arena : Arena
        Where to allocate; kept alive by the handler.
    min_size : int or str, optional
        Smaller requests go to the handler that was current on entry.
    fallback : bool, optional
        Whether requests that do not fit go there too. Otherwise they are a MemoryError.

    Notes
    -----
    On functions defined with ``async def`` and on generators the handler is active while
    the body runs, and not while the body is suspended: whoever awaits or iterates it keeps
    a handler of its own. This matters because a coroutine that is awaited directly shares
    its caller's context. A plain function that merely returns a coroutine or a generator
    is a plain function; decorate the inner one.

    A new thread starts with NumPy's default handler (`install` covers those too), while
    asyncio tasks and `asyncio.to_thread` start with a copy of their creator's context, and
    so do threads where `sys.flags.thread_inherit_context` is set (by default in free-threaded
    Python from 3.14 on). Such a copy keeps the arena mapped for as long as it lives.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     with arena.handler(min_size="1 kB"):
    ...         large, small = np.zeros(1000), np.zeros(10)
    ...     arena.owns(large), arena.owns(small)
    (True, False)
    """

    __slots__ = ("arena", "fallback", "min_size")

    def __init__(self, arena: Arena, min_size: Size = 0, fallback: bool = False) -> None:
        super().__init__()
        self.arena = arena
        self.min_size = parse_size(min_size, "min_size")
        self.fallback = bool(fallback)

    def _make_capsule(self) -> CapsuleType:
        return self.arena._writable_core().make_handler(self.min_size, self.fallback)

    def _bind(self, binding: Binding) -> _core.Resource:
        arena = _core.wrap_arena(self.arena._writable_core(), None)
        if not (self.min_size or self.fallback):
            return arena
        previous = _core.wrap_handler(binding.previous, None)
        large = _core.fallback_adaptor(arena, previous, None) if self.fallback else arena
        return _core.threshold_adaptor(self.min_size, large, previous, None)

    def _describe(self, binding: Binding | None) -> str:
        name = f"arena[{self.arena._label()}]"
        if not (self.min_size or self.fallback):
            return name
        previous = describe_previous(binding)
        if self.fallback:
            name = f"fallback({name}, {previous})"
        return (
            f"threshold({short_size(self.min_size)}, {name}, {previous})" if self.min_size else name
        )

    def stats(self) -> ResourceStats:
        """Return what this process has asked of the arena, by whatever handler.

        Returns
        -------
        ResourceStats
            Blocks that it was sent or looked up by name count like those it allocated.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     with arena.handler() as handler:
        ...         a = np.empty(1000)
        ...     handler.stats().allocated
        8000
        """
        return ResourceStats.of(self.arena._writable_core().process_counts())

    @property
    def name(self) -> str:
        """What it is in the name of a chain of resources, such as ``'arena[scratch]'``."""
        return self._describe(None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ArenaHandler):
            return NotImplemented
        mine, its = self, other
        return (
            mine.arena is its.arena
            and mine.min_size == its.min_size
            and mine.fallback == its.fallback
        )

    def __hash__(self) -> int:
        return hash((id(self.arena), self.min_size, self.fallback))

    def __repr__(self) -> str:
        return (
            f"<ndarena.ArenaHandler of {self.arena!r} min_size={format_size(self.min_size)} "
            f"fallback={self.fallback}>"
        )


def require_array(array: object, function: str) -> npt.NDArray[Any]:
    """Return an array unchanged; anything else is a TypeError that names the function.

    Parameters
    ----------
    array : object
        The argument.
    function : str
        Whose argument it is.

    Returns
    -------
    numpy.ndarray
        The argument.
    """
    if isinstance(array, np.ndarray):
        return array
    raise TypeError(f"{function}() wants a numpy.ndarray, not {type(array).__name__}")


def handler_of(a: npt.NDArray[Any]) -> str | None:
    """Return the name of the handler that allocated an array's data.

    Parameters
    ----------
    a : numpy.ndarray
        Any array. Views are followed to the array that owns the data.

    Returns
    -------
    str or None
        ``'default_allocator'`` for NumPy's own; None for memory that no handler gave,
        such as that of `numpy.frombuffer`.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> ndarena.handler_of(np.zeros(3)[1:])
    'default_allocator'
    """
    return _core.handler_name(require_array(a, "handler_of"))


def arena_of(a: npt.NDArray[Any]) -> Arena | None:
    """Return the open arena that holds an array's data.

    Parameters
    ----------
    a : numpy.ndarray
        Any array. Views are followed to the array that owns the data.

    Returns
    -------
    Arena or None
        The object it was opened as, while that one lives. None outside every arena, and
        for arrays that have outlived the closing of theirs.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     a = arena.zeros(1000)
    ...     ndarena.arena_of(a[::2]) is arena, ndarena.arena_of(np.zeros(3))
    (True, None)
    """
    from ._arena import Arena

    require_array(a, "arena_of")
    with _process.lock:  # all who ask at once are given the same object
        core = _core.find_arena(a)
        return None if core is None else Arena._of_core(core)
