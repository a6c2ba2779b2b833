"""The Python side of ``ndarena/c_api.h``: what compiled extensions bring and what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core
from ._chains import Binding
from ._resources import Resource, as_upstream

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

    from ._arena import Arena
    from ._handlers import ArenaHandler

__all__ = ["ForeignResource", "bind"]


class ForeignResource(Resource):
    """The allocator of a compiled extension; made by `resource_new` of the C API.

    Parameters
    ----------
    title : str
        Its name.
    allocator : _core.ForeignAllocator
        Its functions, and their context, which goes with the last array.
    """

    __slots__ = ("_allocator", "_title")

    def __init__(self, title: str, allocator: _core.ForeignAllocator) -> None:
        super().__init__()
        self._title = title or "foreign"
        self._allocator = allocator

    def _bind(self, binding: Binding) -> _core.Resource:  # noqa: ARG002
        return _core.wrap_foreign(self._allocator, self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return self._title


def bind(
    value: Resource | ArenaHandler | Arena | CapsuleType | None,
) -> tuple[_core.Resource, Resource | ArenaHandler]:
    """Return a resource as a chain that needs no Python, for the C API.

    Parameters
    ----------
    value : Resource, ArenaHandler, Arena, capsule or None
        What is to be bound; None stands for what is current.

    Returns
    -------
    tuple
        The chain, and the object that has to live as long.
    """
    owner = as_upstream(value, "object")
    return owner._bind(Binding(owner)), owner
