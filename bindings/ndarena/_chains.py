"""How resources become a chain: what was current when they were entered, and names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import _core
from ._sizes import format_size

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

__all__ = ["Binding", "describe_previous", "fit_name", "short_size"]

_LONGEST = 126  # bytes of a handler's name
_DEFAULT = "default_allocator"  # NumPy's name for its own


class Binding:
    """One activation of a chain. What was current before is asked for if it is wanted."""

    __slots__ = ("_owner", "_previous")

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._previous: CapsuleType | None = None

    @property
    def previous(self) -> CapsuleType:
        """The handler that was current; entering a chain twice does not make it longer."""
        if self._previous is None:
            self._previous = _core.previous_handler(self._owner)
        return self._previous

    @property
    def used(self) -> CapsuleType | None:
        """The same if anything in the chain leads there."""
        return self._previous


def describe_previous(binding: Binding | None) -> str:
    """Return what `Previous` stands for: in general, or in one activation.

    Parameters
    ----------
    binding : Binding or None
        The activation.

    Returns
    -------
    str
        A handler's name; ``'previous'`` in general.
    """
    if binding is None:
        return "previous"
    name = _core.name_of_handler(binding.previous)
    return "default" if name == _DEFAULT else name


def short_size(nbytes: int) -> str:
    """Return a size without zeros after the point.

    Parameters
    ----------
    nbytes : int
        The size in bytes.

    Returns
    -------
    str
        For example ``'64 KiB'``.

    Examples
    --------
    >>> short_size(65536), short_size(1536)
    ('64 KiB', '1.5 KiB')
    """
    return re.sub(r"\.(\d*?)0+ ", lambda m: f".{m[1]} " if m[1] else " ", format_size(nbytes))


def fit_name(name: str) -> str:
    """Return a name shortened to what a NumPy handler has room for.

    Parameters
    ----------
    name : str
        Any text.

    Returns
    -------
    str
        At most 126 bytes of UTF-8; an ellipsis ends what was longer.
    """
    encoded = name.encode()
    if len(encoded) <= _LONGEST:
        return name
    ellipsis = "…"
    kept = encoded[: _LONGEST - len(ellipsis.encode())].decode(errors="ignore")
    return kept + ellipsis
