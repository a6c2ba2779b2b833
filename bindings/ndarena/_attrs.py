"""Attributes of named arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from . import _core
from .errors import CorruptionError

if TYPE_CHECKING:
    from ._names import NamesMixin

__all__ = ["Attributes"]


class Attributes(MutableMapping[str, Any]):
    """The attributes of one named array, as they are stored at each moment.

    Made by `Arena.attrs`. Values are what JSON has: None, bool, int, float, str, list and dict.
    """

    __slots__ = ("_arena", "_name")

    def __init__(self, arena: NamesMixin, name: str) -> None:
        self._arena = arena
        self._name = name

    def _load(self) -> dict[str, Any]:
        found = _core.describe_named(self._arena._open_core(), self._name)
        if found is None:
            raise KeyError(self._name)
        text = found[5]
        try:
            loaded = json.loads(text) if text else {}
        except ValueError:
            loaded = None
        if not isinstance(loaded, dict):
            raise CorruptionError(5, f"the attributes of {self._name!r} are damaged")
        return loaded

    def _change(self, change: dict[str, Any], remove: str | None = None) -> None:
        core = self._arena._writable_core()
        # Others may set other attributes at the same time: look and store in one transaction.
        own = nullcontext() if _core.in_transaction(core) else self._arena.transaction()
        with own:
            items = self._load()
            if remove is not None:
                del items[remove]
            items.update(change)
            text = json.dumps(items, ensure_ascii=False, allow_nan=True) if items else ""
            _core.set_attrs(core, self._name, text.encode("utf-8", "surrogatepass"))

    def __getitem__(self, key: str) -> Any:
        return self._load()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"an attribute's name is a str, not {type(key).__name__}")
        self._change({key: value})

    def __delitem__(self, key: str) -> None:
        self._change({}, remove=key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._load()!r})"
