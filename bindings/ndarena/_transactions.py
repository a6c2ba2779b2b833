"""Transactions on the names of an arena."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from ._names import NamesMixin

__all__ = ["Transaction"]


class Transaction:
    """All or nothing. Made by `Arena.transaction`, for one ``with`` statement of one thread."""

    __slots__ = ("_arena", "_core", "_timeout")

    def __init__(self, arena: NamesMixin, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is a number of seconds or None, not {timeout!r}")
        self._arena = arena
        self._timeout = None if timeout is None else int(timeout * 1000)
        self._core: _core.Arena | None = None

    def __enter__(self) -> NamesMixin:
        core = self._arena._writable_core()
        _core.begin(core, self._timeout)
        self._core = core
        return self._arena

    def __exit__(self, kind: object, *exc_info: object) -> None:
        core, self._core = self._core, None
        if core is None:
            raise ValueError("the transaction has not been entered, or is over")
        if kind is None:
            _core.commit(core)
        else:
            _core.abort(core)
