"""Counters of a resource."""

from __future__ import annotations

import dataclasses

__all__ = ["ResourceStats"]


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceStats:
    """What `Resource.stats` returns: counters of one resource since it was made.

    They cover everything that was allocated through the object, in all threads and
    contexts, by itself and as part of other chains.

    Attributes
    ----------
    n_allocations : int
        Requests that were granted. An array that changes its size is not a new one.
    n_deallocations : int
        How many of them have been freed.
    n_live : int
        How many have not.
    allocated : int
        Bytes in use, as they were asked for.
    peak_allocated : int
        The most bytes that have been in use at once.
    n_failed : int
        Requests that were refused.
    """

    n_allocations: int
    n_deallocations: int
    n_live: int
    allocated: int
    peak_allocated: int
    n_failed: int

    @classmethod
    def of(cls, counters: dict[str, int]) -> ResourceStats:
        """Return what counters say.

        Parameters
        ----------
        counters : dict
            All attributes but `n_live`.

        Returns
        -------
        ResourceStats
            With `n_live`.
        """
        return cls(n_live=counters["n_allocations"] - counters["n_deallocations"], **counters)
