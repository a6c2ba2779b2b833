"""Adaptors: resources that stand before an upstream, in any order."""

from __future__ import annotations

import operator
import os
import resource as limits
from typing import TYPE_CHECKING

from . import _core
from ._chains import short_size
from ._resources import Resource, as_upstream
from ._sizes import parse_size

if TYPE_CHECKING:
    from typing import TypeAlias

    from typing_extensions import CapsuleType

    from ._arena import Arena
    from ._chains import Binding
    from ._handlers import ArenaHandler
    from ._sizes import Size

    Upstream: TypeAlias = Resource | ArenaHandler | Arena | CapsuleType | None

__all__ = ["Adaptor", "Aligned", "Fallback", "Limiting", "Locked", "Statistics", "Threshold"]

_MOST_ALIGNMENT = 2 * 2**20


class Adaptor(Resource):
    """Base of those with one upstream."""

    __slots__ = ("upstream",)

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = as_upstream(upstream, "upstream")

    def _upstreams(self) -> tuple[Resource | ArenaHandler, ...]:
        return (self.upstream,)


class Statistics(Adaptor):
    """Counts what goes through it; see `Resource.stats`.

    Parameters
    ----------
    upstream : Resource, ArenaHandler, Arena or capsule, optional
        Where the memory comes from. By default what is current when it is entered.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Statistics() as statistics:
    ...     a = np.ones(1000) + 1
    >>> statistics.stats().n_live, statistics.stats().allocated
    (1, 8000)
    """

    __slots__ = ()

    def __init__(self, upstream: Upstream = None) -> None:
        super().__init__(upstream)

    def _bind(self, binding: Binding) -> _core.Resource:
        return _core.statistics_adaptor(self.upstream._bind(binding), self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return f"statistics({self.upstream._describe(binding)})"


class Aligned(Adaptor):
    """Aligns the data of all arrays.

    Parameters
    ----------
    alignment : int
        In bytes; a power of two up to 2 MiB. An upstream that aligns to more still does.
    upstream : Resource, ArenaHandler, Arena or capsule, optional
        Where the memory comes from. By default what is current when it is entered.

    Raises
    ------
    ValueError
        If the alignment is not a power of two up to 2 MiB.

    Notes
    -----
    Arenas align by themselves, up to 2 MiB. Handlers know nothing of alignment: of NumPy's
    own and of foreign ones `alignment` bytes more are asked for.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Aligned(4096):
    ...     a = np.empty(10)
    >>> a.ctypes.data % 4096
    0
    """

    __slots__ = ("alignment",)

    def __init__(self, alignment: int, upstream: Upstream = None) -> None:
        super().__init__(upstream)
        self.alignment = operator.index(alignment)
        if not 1 <= self.alignment <= _MOST_ALIGNMENT or self.alignment & (self.alignment - 1):
            raise ValueError(f"alignment is a power of two up to 2 MiB, not {alignment}")

    def _bind(self, binding: Binding) -> _core.Resource:
        upstream = self.upstream._bind(binding)
        return _core.aligned_adaptor(self.alignment, upstream, self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return f"aligned({self.alignment}, {self.upstream._describe(binding)})"


class Limiting(Adaptor):
    """Refuses what would be more than so many bytes at once.

    Parameters
    ----------
    max_bytes : int or str
        The most bytes that arrays made with it may take together, in all threads.
    upstream : Resource, ArenaHandler, Arena or capsule, optional
        Where the memory comes from. By default what is current when it is entered.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Limiting("1 MiB") as limited:
    ...     try:
    ...         np.zeros(2**20)
    ...     except MemoryError:
    ...         print("refused")
    refused
    >>> limited.stats().n_failed
    1
    """

    __slots__ = ("_limit", "max_bytes")

    def __init__(self, max_bytes: Size, upstream: Upstream = None) -> None:
        super().__init__(upstream)
        self.max_bytes = parse_size(max_bytes, "max_bytes")
        self._limit = _core.Limit(self.max_bytes)

    def _bind(self, binding: Binding) -> _core.Resource:
        return _core.limiting_adaptor(self._limit, self.upstream._bind(binding), self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return f"limiting({short_size(self.max_bytes)}, {self.upstream._describe(binding)})"

    def _refusal(self) -> str | None:
        if self.stats().n_failed == 0:
            return None
        used = short_size(self._limit.used)
        return f"{self!r}: {used} of {short_size(self.max_bytes)} are in use"


class Locked(Adaptor):
    """Memory that is never swapped out, of whole pages.

    Parameters
    ----------
    upstream : Resource, ArenaHandler, Arena or capsule, optional
        Where the memory comes from. By default what is current when it is entered.

    Notes
    -----
    How much one may lock is a limit of the system, ``ulimit -l``. What is more is a
    MemoryError whose note (Python 3.11 and later) says so. Locks are not inherited by `fork`.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Locked():
    ...     key = np.zeros(32, np.uint8)
    >>> key.ctypes.data % 4096
    0
    """

    __slots__ = ("_failure",)

    def __init__(self, upstream: Upstream = None) -> None:
        super().__init__(upstream)
        self._failure = _core.LockFailure()

    def _bind(self, binding: Binding) -> _core.Resource:
        return _core.locked_adaptor(self._failure, self.upstream._bind(binding), self._counters)

    def _describe(self, binding: Binding | None) -> str:
        return f"locked({self.upstream._describe(binding)})"

    def _refusal(self) -> str | None:
        error = self._failure.last_errno
        if error == 0:
            return None
        soft, _ = limits.getrlimit(limits.RLIMIT_MEMLOCK)
        most = "unlimited" if soft == limits.RLIM_INFINITY else short_size(soft)
        return (
            f"{self!r}: the system did not lock the pages ({os.strerror(error)}); the limit of "
            f"this process, ulimit -l, is {most}: raise it, or let the process have CAP_IPC_LOCK"
        )


class Threshold(Resource):
    """Large arrays here, small ones there.

    Parameters
    ----------
    min_size : int or str
        Requests of so many bytes and more are large.
    large : Resource, ArenaHandler, Arena or capsule
        Where they go.
    small : Resource, ArenaHandler, Arena or capsule, optional
        Where the others go. By default to what is current when it is entered.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     with ndarena.Threshold("64 KiB", arena):
    ...         large, small = np.zeros(10_000), np.zeros(10)
    ...     arena.owns(large), arena.owns(small)
    (True, False)
    """

    __slots__ = ("large", "min_size", "small")

    def __init__(self, min_size: Size, large: Upstream, small: Upstream = None) -> None:
        super().__init__()
        self.min_size = parse_size(min_size, "min_size")
        self.large = as_upstream(large, "large")
        self.small = as_upstream(small, "small")

    def _bind(self, binding: Binding) -> _core.Resource:
        large, small = self.large._bind(binding), self.small._bind(binding)
        return _core.threshold_adaptor(self.min_size, large, small, self._counters)

    def _describe(self, binding: Binding | None) -> str:
        large, small = self.large._describe(binding), self.small._describe(binding)
        return f"threshold({short_size(self.min_size)}, {large}, {small})"

    def _upstreams(self) -> tuple[Resource | ArenaHandler, ...]:
        return (self.large, self.small)


class Fallback(Resource):
    """What the first refuses is asked of the second.

    Parameters
    ----------
    first : Resource, ArenaHandler, Arena or capsule
        Who is asked first.
    then : Resource, ArenaHandler, Arena or capsule, optional
        Who is asked for what it refuses. By default what is current when it is entered.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="1MiB") as arena:
    ...     with ndarena.Fallback(arena):
    ...         fits, does_not = np.zeros(1000), np.zeros(1_000_000)
    ...     arena.owns(fits), arena.owns(does_not)
    (True, False)
    """

    __slots__ = ("first", "then")

    def __init__(self, first: Upstream, then: Upstream = None) -> None:
        super().__init__()
        self.first = as_upstream(first, "first")
        self.then = as_upstream(then, "then")

    def _bind(self, binding: Binding) -> _core.Resource:
        first, then = self.first._bind(binding), self.then._bind(binding)
        return _core.fallback_adaptor(first, then, self._counters)

    def _describe(self, binding: Binding | None) -> str:
        first, then = self.first._describe(binding), self.then._describe(binding)
        return f"fallback({first}, {then})"

    def _upstreams(self) -> tuple[Resource | ArenaHandler, ...]:
        return (self.first, self.then)
