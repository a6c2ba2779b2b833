"""Many named arrays of one moment: what `ls` shows, and what is exported and copied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _core
from .errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    from ._arena import Arena

    Array = npt.NDArray[Any]

__all__ = ["Named", "at_one_moment", "describe", "held", "select"]

_TRIES = 5
_T = TypeVar("_T")


class Named(NamedTuple):
    """What the directory says of one name."""

    name: str
    descr: bytes
    shape: tuple[int, ...]
    fortran: bool
    nbytes: int
    offset: int
    attrs: str

    def attributes(self) -> dict[str, Any]:
        """Return the attributes.

        Returns
        -------
        dict
            What JSON has.

        Raises
        ------
        CorruptionError
            If they are none.
        """
        try:
            loaded = json.loads(self.attrs) if self.attrs else {}
        except ValueError:
            loaded = None
        if not isinstance(loaded, dict):
            raise CorruptionError(5, f"the attributes of {self.name!r} are damaged")
        return loaded


def describe(arena: Arena, names: Iterable[str]) -> Iterator[Named]:
    """Look names up. One that has gone meanwhile is left out.

    Parameters
    ----------
    arena : Arena
        The arena.
    names : iterable of str
        The names.

    Yields
    ------
    Named
        One for each name.
    """
    core = arena._open_core()
    for name in names:
        found = _core.describe_named(core, name)
        if found is not None:
            yield Named(name, *found)


def select(arena: Arena, wanted: str | None) -> tuple[str, list[str]]:
    """Find what a name, or the prefix of a group, stands for.

    Parameters
    ----------
    arena : Arena
        The arena.
    wanted : str or None
        A name; a group, like ``'run/'`` or, if nothing has that name, ``'run'``; None for all.

    Returns
    -------
    prefix : str
        What the names have in common and what is left out of names of files.
    names : list of str
        At least one, unless all were asked for.

    Raises
    ------
    KeyError
        If there is nothing.
    """
    if wanted is None:
        return "", list(arena.keys())
    if not isinstance(wanted, str):
        raise TypeError(f"a name is a str or None, not {type(wanted).__name__}")
    if wanted and not wanted.endswith("/"):
        if wanted in arena:
            return wanted[: wanted.rfind("/") + 1], [wanted]
        wanted += "/"
    names = list(arena.keys(wanted))
    if not names and wanted:
        raise KeyError(wanted.rstrip("/") or wanted)
    return wanted, names


def at_one_moment(arena: Arena, look: Callable[[], _T]) -> _T:
    """Call a function that looks at names until nobody has changed them meanwhile.

    Parameters
    ----------
    arena : Arena
        The arena.
    look : callable
        What looks; called again if need be.

    Returns
    -------
    object
        What it has returned.
    """
    core = arena._open_core()
    if arena.mode == "r" or _core.in_transaction(core):
        return look()  # nobody else changes what this one sees
    for _ in range(_TRIES):
        before = _core.names_state(core)[0]
        try:
            seen = look()
        except KeyError:
            if _core.names_state(core)[0] == before:
                raise
            continue
        if _core.names_state(core)[0] == before:
            return seen
    with arena.transaction(timeout=None):
        return look()


def held(arena: Arena, wanted: str | None) -> tuple[str, list[tuple[Named, Array]]]:
    """Return named arrays as they are together at one moment; nobody reuses their memory.

    Parameters
    ----------
    arena : Arena
        The arena.
    wanted : str or None
        As for `select`.

    Returns
    -------
    prefix : str
        As `select` has it.
    arrays : list of tuple
        What each name stands for, and the array itself.
    """

    def look() -> tuple[str, list[tuple[Named, Array]]]:
        prefix, names = select(arena, wanted)
        return prefix, [(entry, arena[entry.name]) for entry in describe(arena, names)]

    return at_one_moment(arena, look)
