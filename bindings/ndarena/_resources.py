"""Resources: whoever can hand memory to NumPy. The adaptors before them are in _adaptors."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from . import _core
from ._activation import Activation
from ._chains import Binding, describe_previous, fit_name
from ._counts import ResourceStats

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from typing_extensions import CapsuleType

    from ._arena import Arena
    from ._handlers import ArenaHandler

__all__ = ["Default", "HandlerResource", "Previous", "ProcessBinding", "Resource", "as_upstream"]


class Resource(Activation):
    """Base of the resources and adaptors: something that can hand memory to NumPy.

    A context manager and a decorator, like `ArenaHandler`: inside ``with resource:`` NumPy
    allocates from it, in this thread, task or coroutine. Arrays keep the resource, this very
    object, until the last of them is gone. One resource can be active in many places at once,
    and part of many chains.
    """

    __slots__ = ("_counters",)

    def __init__(self) -> None:
        super().__init__()
        self._counters = _core.Counters()

    @abc.abstractmethod
    def _bind(self, binding: Binding) -> _core.Resource:
        """Return the chain from here on, for one activation."""

    @abc.abstractmethod
    def _describe(self, binding: Binding | None) -> str:
        """Return the name of the chain from here on, in general or for one activation."""

    def _upstreams(self) -> tuple[Resource | ArenaHandler, ...]:
        return ()

    def _refusal(self) -> str | None:
        """Return why it would have refused something lately, if it keeps track of that."""
        return None

    def _make_capsule(self) -> CapsuleType:
        binding = Binding(self)
        chain = self._bind(binding)
        return _core.make_chain(chain, self, binding.used, fit_name(self._describe(binding)))

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        error = exc_info[1] if len(exc_info) == 3 else None
        if isinstance(error, MemoryError) and hasattr(error, "add_note"):
            for reason in _refusals(self):
                if reason not in getattr(error, "__notes__", ()):
                    error.add_note(reason)

    @property
    def name(self) -> str:
        """The whole chain, such as ``'threshold(64 KiB, arena[scratch], previous)'``."""
        return self._describe(None)

    def stats(self) -> ResourceStats:
        """Return the counters of this resource.

        Returns
        -------
        ResourceStats
            Each counter is read by itself: with other threads at work they are of nearly the
            same moment.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.Statistics() as statistics:
        ...     a = np.empty(1000)
        >>> statistics.stats().allocated
        8000
        """
        return ResourceStats.of(self._counters.read())

    def owns(self, a: npt.NDArray[Any]) -> bool:
        """Return whether an array was allocated through this object, entered or installed.

        Parameters
        ----------
        a : numpy.ndarray
            Any array. Views are followed to the array that owns the data.

        Returns
        -------
        bool
            False if another resource was entered that only leads here.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.Aligned(4096) as aligned:
        ...     a = np.zeros(10)
        >>> aligned.owns(a[5:]), aligned.owns(np.zeros(10))
        (True, False)
        """
        return _core.owner_of_array(a) is self

    @property
    def pymem_capsule(self) -> CapsuleType:
        """A new capsule with the address of a ``PyMemAllocatorEx`` that allocates from here.

        Its name is ``'PyMemAllocatorEx'``. For C code that takes Python's allocator structure; the
        capsule keeps what it allocates from, so it is to outlive the memory. Like all of Python's
        allocators it frees and resizes only what it has given out.
        """
        binding = Binding(self)
        return _core.make_pymem(self._bind(binding), self, binding.used)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<ndarena.{type(self).__name__} {self.name}>"


def _refusals(resource: Any) -> Iterator[str]:
    if isinstance(resource, Resource):
        reason = resource._refusal()
        if reason is not None:
            yield reason
        for upstream in resource._upstreams():
            yield from _refusals(upstream)


class Default(Resource):
    """NumPy's own allocator, also while another one is installed in its place.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Default() as default:
    ...     a = np.zeros(1000)
    >>> ndarena.handler_of(a), default.stats().n_live
    ('default', 1)
    """

    __slots__ = ()

    def _bind(self, binding: Binding) -> _core.Resource:  # noqa: ARG002
        return _core.wrap_default(self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return "default"


class Previous(Resource):
    """Whatever is current when the chain is entered; what an omitted upstream means.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     with arena.handler(), ndarena.Aligned(4096, ndarena.Previous()):
    ...         a = np.zeros(10)
    ...     arena.owns(a), a.ctypes.data % 4096
    (True, 0)
    """

    __slots__ = ()

    def _bind(self, binding: Binding) -> _core.Resource:
        return _core.wrap_handler(binding.previous, self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return describe_previous(binding)


class HandlerResource(Resource):
    """A handler of somebody else: what is in a ``mem_handler`` capsule.

    Parameters
    ----------
    capsule : capsule
        Kept as long as memory of it is in use.

    Raises
    ------
    ValueError
        If the capsule is another one.
    """

    __slots__ = ("_capsule", "_name")

    def __init__(self, capsule: CapsuleType) -> None:
        super().__init__()
        self._name = _core.name_of_handler(capsule)
        self._capsule = capsule

    def _bind(self, binding: Binding) -> _core.Resource:  # noqa: ARG002
        return _core.wrap_handler(self._capsule, self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return self._name


class ProcessBinding(Binding):
    """The binding of a chain that is installed: before it comes NumPy's own allocator.

    Never what is current, since that may be the chain itself.
    """

    __slots__ = ()

    @property
    def previous(self) -> CapsuleType:
        """NumPy's own allocator."""
        if self._previous is None:
            self._previous = Default().capsule
        return self._previous


_Capsule = type(_core.get_handler())


def as_upstream(
    value: Resource | ArenaHandler | Arena | CapsuleType | None, what: str
) -> Resource | ArenaHandler:
    """Return an argument as something that a chain can lead to.

    Parameters
    ----------
    value : Resource, ArenaHandler, Arena, capsule or None
        The argument; None stands for `Previous`. A ``mem_handler`` capsule may be anybody's.
    what : str
        Its name, for the error.

    Returns
    -------
    Resource or ArenaHandler
        The upstream.
    """
    from ._arena import Arena
    from ._handlers import ArenaHandler

    if value is None:
        return Previous()
    if isinstance(value, Arena):
        return value.handler()
    if isinstance(value, (Resource, ArenaHandler)):
        return value
    if isinstance(value, _Capsule):
        return HandlerResource(value)
    raise TypeError(
        f"{what} is to be a resource, an arena or its handler(), or a mem_handler capsule, "
        f"not {type(value).__name__}"
    )
