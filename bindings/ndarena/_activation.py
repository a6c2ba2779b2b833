"""Activation: making a handler current for a context, and going back.

NumPy keeps its current handler in a context variable. A handler entered here therefore
covers the running thread, task or coroutine, and what was current before is remembered
in a context variable of our own, so that one handler object can be active in several
threads and tasks at once.
"""

from __future__ import annotations

import abc
import functools
import inspect
import os
import types
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import _core
from .errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from typing_extensions import CapsuleType, Self

__all__ = ["Activation", "disabled"]

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


class Activation(abc.ABC):
    """Base of everything that can be made NumPy's handler: a context manager and a decorator.

    It covers the context it is entered in (this thread, this task or coroutine), nests, may
    be entered again while it is active and by several threads at once, and restores what was
    current before on every way out.
    """

    __slots__ = ("__weakref__", "_identity")

    def __init__(self) -> None:
        # Identifies entries of ours without keeping anything alive in copied contexts.
        self._identity = object()

    @abc.abstractmethod
    def _make_capsule(self) -> CapsuleType:
        """Return a new handler, which comes after the one that is current now."""

    @property
    def capsule(self) -> CapsuleType:
        """A new ``mem_handler`` capsule, for any code that knows NEP 49.

        It comes after the handler that is current now, and keeps what it allocates from
        until the last array made with it is gone.
        """
        return self._make_capsule()

    def __enter__(self) -> Self:
        previous = None
        if not disabled():
            previous = _core.set_handler(self._make_capsule())
        _active.set((*_active.get(), _Entry(self._identity, previous)))
        return self

    def __exit__(self, *exc_info: object) -> None:
        entries = _active.get()
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].owner is self._identity:
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


def _decorate(handler: Activation, function: Callable[..., Any]) -> Callable[..., Any]:
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


def _steps(handler: Activation, body: Any) -> Generator[Any, Any, Any]:
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


def _close(handler: Activation, body: Any) -> None:
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
def _stepped(handler: Activation, awaitable: Any) -> Generator[Any, Any, Any]:
    return (yield from _steps(handler, awaitable))
