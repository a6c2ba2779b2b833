"""The numbers of an arena at one moment."""

from __future__ import annotations

import dataclasses

from ._sizes import format_size

__all__ = ["Stats"]

_COUNTS = frozenset({"n_blocks", "n_free_blocks", "oom_count", "processes", "in_transit"})


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """What `Arena.stats` returns: counters of one arena, all of them ints.

    Attributes
    ----------
    capacity : int
        Ceiling of the arena in bytes.
    committed : int
        Bytes set aside so far. Pages that were given back since (see `Arena.trim`) are
        included, and committed again before they are used.
    allocated : int
        Bytes in blocks that are in use now.
    peak_allocated : int
        The most bytes that have been in use at once.
    largest_free : int
        Bytes of the largest request that the capacity allows; the disk may have less.
    n_blocks : int
        Blocks in use.
    n_free_blocks : int
        Free blocks between them.
    resident : int
        Bytes of the arena that are in physical memory now.
    oom_count : int
        Requests refused for want of room.
    processes : int
        Processes that have the arena open for writing.
    in_transit : int
        Blocks held by messages on their way to another process.

    Examples
    --------
    >>> import ndarena
    >>> with ndarena.scratch(capacity="1MiB") as arena:
    ...     stats = arena.stats()
    >>> stats.n_blocks
    0
    """

    capacity: int
    committed: int
    allocated: int
    peak_allocated: int
    largest_free: int
    n_blocks: int
    n_free_blocks: int
    resident: int
    oom_count: int
    processes: int
    in_transit: int

    def as_dict(self) -> dict[str, int]:
        """Return the same numbers as a dictionary, in the order of the attributes.

        Returns
        -------
        dict of str to int
            Ready for ``json.dumps``.

        Examples
        --------
        >>> Stats(*range(11)).as_dict()["committed"]
        1
        """
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value if name in _COUNTS else format_size(value)}"
            for name, value in self.as_dict().items()
        )
        return f"Stats({', '.join(shown)})"
