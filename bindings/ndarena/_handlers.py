"""Handlers: making NumPy allocate in an arena, for a context or for the process.

NumPy keeps its current handler in a context variable. A handler entered here therefore
covers the running thread, task or coroutine, and what was current before is remembered
in a context variable of our own, so that one handler object can be active in several
threads and tasks at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import types
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from . import _core, _process
from ._sizes import format_size, parse_size
from .errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    import numpy.typing as npt
    from typing_extensions import CapsuleType

    from ._arena import Arena
    from ._sizes import Size

__all__ = ["ArenaHandler", "arena_of", "disabled", "handler_of", "install", "uninstall"]

_log = logging.getLogger("ndarena")
_Callable = TypeVar("_Callable", bound="Callable[..., Any]")


class _Entry(NamedTuple):
    """One activation: whose it is, and the handler to go back to (None: nothing was set)."""

    owner: object
    previous: CapsuleType | None


# Innermost last. Tuples are never changed in place: contexts are copied by reference.
_active: ContextVar[tuple[_Entry, ...]] = ContextVar("ndarena_active_handlers", default=())


def disabled() -> bool:
    """Return whether ``NDARENA_DISABLE`` asks handlers and `install` to do nothing.

    Returns
    -------
    bool
        True unless the variable is unset, empty or ``0``. Read at every call.
    """
    return os.environ.get("NDARENA_DISABLE", "") not in ("", "0")


class ArenaHandler:
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

    __slots__ = ("__weakref__", "_owner", "arena", "fallback", "min_size")

    def __init__(self, arena: Arena, min_size: Size = 0, fallback: bool = False) -> None:
        self.arena = arena
        self.min_size = parse_size(min_size, "min_size")
        self.fallback = bool(fallback)
        # Identifies entries of ours without keeping the arena alive in copied contexts.
        self._owner = object()

    def __enter__(self) -> ArenaHandler:
        previous = None
        if not disabled():
            capsule = self.arena._writable_core().make_handler(self.min_size, self.fallback)
            previous = _core.set_handler(capsule)
        _active.set((*_active.get(), _Entry(self._owner, previous)))
        return self

    def __exit__(self, *exc_info: object) -> None:
        entries = _active.get()
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].owner is self._owner:
                break
        else:
            raise RuntimeError(
                "this handler is not active here: leave it in the thread or task that entered it"
            )
        previous = entries[index].previous
        above = entries[index + 1 :]
        if above and previous is not None:
            # Left out of order (two suspended generators, say): what is current stays, and
            # the entry above goes back to what we would have gone back to.
            for place, entry in enumerate(above):
                if entry.previous is not None:
                    rebased = entry._replace(previous=previous)
                    above = (*above[:place], rebased, *above[place + 1 :])
                    break
            else:
                _core.set_handler(previous)
        elif previous is not None:
            _core.set_handler(previous)
        _active.set((*entries[:index], *above))

    def __call__(self, function: _Callable, /) -> _Callable:
        """Return `function` with this handler active while its body runs.

        Parameters
        ----------
        function : callable
            A function, a coroutine function, a generator function or an asynchronous
            generator function.

        Returns
        -------
        callable
            Of the same kind, with the same name and documentation.
        """
        return cast("_Callable", _decorate(self, function))

    def __repr__(self) -> str:
        return (
            f"<ndarena.ArenaHandler of {self.arena!r} min_size={format_size(self.min_size)} "
            f"fallback={self.fallback}>"
        )


def _decorate(handler: ArenaHandler, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _stepped(handler, function(*args, **kwargs))

        return run_coroutine
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            inner = function(*args, **kwargs)
            advance: Awaitable[Any] = inner.asend(None)
            while True:
                try:
                    item = await _stepped(handler, advance)
                except StopAsyncIteration:
                    return
                try:
                    advance = inner.asend((yield item))
                except GeneratorExit:
                    await _stepped(handler, inner.aclose())
                    raise
                except BaseException as error:  # noqa: BLE001  it belongs to the body
                    advance = inner.athrow(error)

        return run_async_generator
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _steps(handler, function(*args, **kwargs)))

        return run_generator

    @functools.wraps(function)
    def run_function(*args: Any, **kwargs: Any) -> Any:
        with handler:
            return function(*args, **kwargs)

    return run_function


def _steps(handler: ArenaHandler, body: Any) -> Generator[Any, Any, Any]:
    """Drive anything with send, throw and close; the handler is active only inside these."""
    resume, value = body.send, None
    while True:
        try:
            with handler:
                item = resume(value)
        except StopIteration as stop:
            return stop.value
        try:
            value = yield item
            resume = body.send
        except GeneratorExit:
            _close(handler, body)
            raise
        except BaseException as error:  # noqa: BLE001  it belongs to the body
            resume, value = body.throw, error


def _close(handler: ArenaHandler, body: Any) -> None:
    """Close an unfinished body; one that outlived its arena is closed without the handler."""
    try:
        handler.__enter__()
    except ClosedError:
        body.close()
        return
    try:
        body.close()
    finally:
        handler.__exit__()


@types.coroutine
def _stepped(handler: ArenaHandler, awaitable: Any) -> Generator[Any, Any, Any]:
    return (yield from _steps(handler, awaitable))


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


# Keeps the installed arena's Python object alive; the extension module knows the rest. Both
# change together, under the lock.
_installed: Arena | None = None


def install(
    resource: Arena | ArenaHandler, *, min_size: Size | None = None, fallback: bool | None = None
) -> None:
    """Make NumPy allocate in an arena in the whole process, until `uninstall`.

    Unlike a handler in a ``with`` statement this reaches every thread, also those started
    later by anybody, and every context: it takes the place of NumPy's default. Handlers
    that are entered still come first where they are active.

    Parameters
    ----------
    resource : Arena or ArenaHandler
        Where to allocate. A handler brings its `min_size` and `fallback`. The arena stays
        open at least until it is uninstalled or closed; closing it uninstalls it.
    min_size : int or str, optional
        Smaller requests go to NumPy's default. An arena without this takes everything.
    fallback : bool, optional
        Whether requests that do not fit go there too. Otherwise they are a MemoryError.

    Raises
    ------
    ClosedError
        If the arena has been closed.
    ReadOnlyError
        If it was opened in mode ``r``.

    Notes
    -----
    Installing again replaces what was installed. With ``NDARENA_DISABLE=1`` in the
    environment nothing happens.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     ndarena.install(arena, min_size="4 KiB")
    ...     a = np.zeros(1000)
    ...     ndarena.uninstall()
    ...     arena.owns(a), arena.owns(np.zeros(1000))
    (True, False)
    """
    global _installed
    if isinstance(resource, ArenaHandler):
        arena = resource.arena
        min_size = resource.min_size if min_size is None else min_size
        fallback = resource.fallback if fallback is None else fallback
    else:
        arena = resource
    size = parse_size(0 if min_size is None else min_size, "min_size")
    try:
        core = arena._writable_core()
    except AttributeError:
        raise TypeError(
            f"install() wants an Arena or its handler(), not {type(resource).__name__}"
        ) from None
    if disabled():
        _log.debug("NDARENA_DISABLE is set: %r is not installed", arena)
        return
    with _process.lock:
        _core.install(core, size, bool(fallback))
        former, _installed = _installed, arena
    del former  # its finalizer, if any, runs without the lock


def uninstall() -> None:
    """Go back to NumPy's default allocator in the whole process.

    Arrays made meanwhile stay valid and are freed where they belong. Without anything
    installed this does nothing.

    Examples
    --------
    >>> import ndarena
    >>> ndarena.uninstall()
    """
    global _installed
    with _process.lock:
        _core.uninstall()
        former, _installed = _installed, None
    del former  # its finalizer, if any, runs without the lock


def uninstall_if(arena: Arena) -> None:
    """Uninstall an arena that has been closed; others stay installed.

    Parameters
    ----------
    arena : Arena
        The closed arena.
    """
    with _process.lock:
        if _installed is arena:
            uninstall()
