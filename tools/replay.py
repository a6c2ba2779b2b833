"""``ndarena replay``: a log of allocations, played back on several allocators side by side."""

from __future__ import annotations

import statistics
from typing import Any

import ndarena
from ndarena import _core
from ndarena._chains import Binding
from ndarena._sizes import format_size
from ndarena._trace_log import TraceLog, read_log

from ._common import FINDINGS, FINE, Unusable, describe, plural, print_json, say

__all__ = ["main", "measure"]


def main(
    path: str,
    *,
    folder: str | None = None,
    capacity: str | None = None,
    rounds: int = 5,
    as_json: bool = False,
) -> int:
    """Play a log back on NumPy's own allocator and in a scratch arena.

    Parameters
    ----------
    path : str
        A log that `ndarena.Tracing` wrote, or RMM.
    folder : str, optional
        Where the scratch file goes.
    capacity : str, optional
        Its ceiling.
    rounds : int, optional
        How often each plays it, by turns.
    as_json : bool, optional
        Whether to print JSON.

    Returns
    -------
    int
        The exit status: findings if a request was refused or the arena is not sound.
    """
    try:
        log = read_log(path)
    except (OSError, ValueError) as error:
        raise Unusable(describe(error)) from None
    if not log.steps:
        raise Unusable(f"{path}: there are no allocations in it")
    with ndarena.scratch(dir=folder, capacity=capacity) as arena:
        rows = measure(log, {"NumPy": ndarena.Default(), "arena": arena.handler()}, rounds)
        stats, findings = arena.stats(), arena.check()
    summary: dict[str, Any] = {
        "file": path,
        "n_operations": len(log.steps),
        "n_blocks": log.n_blocks,
        "n_threads": len(set(log.threads)),
        "n_skipped": log.n_skipped,
        "peak_bytes": log.peak_bytes,
        "arena_committed": stats.committed,
        "findings": findings,
        "allocators": rows,
    }
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    failed = any(row["n_failed"] for row in rows.values())
    return FINDINGS if findings or failed else FINE


def measure(
    log: TraceLog, resources: dict[str, ndarena.Resource | ndarena.ArenaHandler], rounds: int
) -> dict[str, dict[str, float]]:
    """Play a log back on resources, which take turns.

    Parameters
    ----------
    log : TraceLog
        The log.
    resources : dict
        By the names they have in the result.
    rounds : int
        How often.

    Returns
    -------
    dict of dict
        Median nanoseconds for an operation, and refused requests, of each.
    """
    blocks = [block for block, _ in log.steps]
    sizes = [nbytes for _, nbytes in log.steps]
    chains = {name: resource._bind(Binding(resource)) for name, resource in resources.items()}
    times: dict[str, list[float]] = {name: [] for name in chains}
    failed = dict.fromkeys(chains, 0)
    for _ in range(rounds):
        for name, chain in chains.items():
            took, refused = _core.replay(chain, blocks, sizes, log.n_blocks)
            times[name].append(took / len(blocks))
            failed[name] = max(failed[name], refused)
    return {
        name: {"ns_per_operation": statistics.median(times[name]), "n_failed": failed[name]}
        for name in chains
    }


def _print(summary: dict[str, Any]) -> None:
    print(
        f"{summary['file']}: {plural(summary['n_operations'], 'operation')} of "
        f"{plural(summary['n_threads'], 'thread')}, played back by one; "
        f"{plural(summary['n_blocks'], 'block')}, at most "
        f"{format_size(summary['peak_bytes'])} in use at once"
    )
    if summary["n_skipped"]:
        print(
            f"{plural(summary['n_skipped'], 'event')} left out: failures, and frees of older blocks"
        )
    rows = summary["allocators"]
    base = rows["NumPy"]["ns_per_operation"]
    print(f"{'':10}{'ns/operation':>14}{'ratio':>8}{'refused':>9}")
    for name, row in rows.items():
        ns = row["ns_per_operation"]
        print(f"{name:10}{ns:14.1f}{ns / base:8.2f}{row['n_failed']:9d}")
    print(f"the arena took {format_size(summary['arena_committed'])}")
    for finding in summary["findings"]:
        say(finding)
