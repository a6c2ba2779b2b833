"""``ndarena segments``: the shared segments of this host, and what is left of dead ones."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import ndarena
from ndarena import _core
from ndarena._sharing import GRACE_MS
from ndarena._sizes import format_size

from ._common import FINDINGS, FINE, Unusable, describe, print_json, say

__all__ = ["Options", "collect", "main"]

_FOLDER = Path("/dev/shm")  # noqa: S108  where POSIX shared memory is on Linux
_MAGIC = b"NDARENA\x1a"


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    reclaim: bool = False
    unlink: str | None = None
    force: bool = False
    as_json: bool = False


def _names() -> list[str]:
    found = []
    for path in sorted(_FOLDER.iterdir()):
        try:
            with path.open("rb") as file:
                is_arena = file.read(len(_MAGIC)) == _MAGIC
        except OSError:
            continue  # of another user, or gone meanwhile
        if is_arena:
            found.append(path.name)
    return found


def collect() -> list[dict[str, Any]]:
    """Return what is known of every shared segment that this user may read.

    Returns
    -------
    list of dict
        Name, size, age and counters of each; sizes in bytes, age in seconds. One that
        cannot be opened has ``error`` instead of counters.
    """
    rows = []
    for name in _names():
        row: dict[str, Any] = {"name": name}
        try:
            status = (_FOLDER / name).stat()
            row["age"] = max(0, round(time.time() - status.st_ctime))
            row["memory"] = status.st_blocks * 512
            with ndarena.shared(name, "r") as arena:
                stats = arena.stats()
            row.update(
                capacity=stats.capacity,
                allocated=stats.allocated,
                arrays=stats.n_blocks,
                processes=stats.processes,
                in_transit=stats.in_transit,
            )
        except FileNotFoundError:
            continue
        except (ndarena.Error, OSError, ValueError, MemoryError) as error:
            row["error"] = describe(error)
        rows.append(row)
    return rows


def _reclaim() -> list[str]:
    """Free what the dead held; return the names of the segments that went with them."""
    removed = _core.sweep_segments(GRACE_MS)
    for name in _names():
        try:
            with ndarena.shared(name, "r+") as arena:
                arena.reclaim()
        except (ndarena.Error, OSError, ValueError, MemoryError) as error:
            say(f"{name}: {describe(error)}")
    return removed


def _unlink(name: str, *, force: bool) -> None:
    if name not in _names():
        raise Unusable(f"there is no arena {name!r} in shared memory")
    if not force:
        with ndarena.shared(name, "r") as arena:
            processes = arena.stats().processes
        if processes:
            raise Unusable(
                f"{name}: {processes} process{'es have' if processes > 1 else ' has'} it open; "
                "--force removes the name all the same, and they keep the memory"
            )
    os.unlink(_FOLDER / name)


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no shared segments")
        return
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}}  {'memory':>10}  {'arrays':>7}  processes  in transit  age")
    for row in rows:
        head = f"{row['name']:<{width}}  {format_size(row.get('memory', 0)):>10}"
        if "error" in row:
            print(f"{head}  {row['error']}")
            continue
        print(
            f"{head}  {row['arrays']:>7}  {row['processes']:>9}  {row['in_transit']:>10}"
            f"  {row['age']} s"
        )


def main(options: Options) -> int:
    """List shared segments, clean up after dead processes, or remove a name.

    Parameters
    ----------
    options : Options
        What to do.

    Returns
    -------
    int
        The exit status: 1 if a segment could not be read.
    """
    if options.unlink is not None:
        _unlink(options.unlink, force=options.force)
    removed = _reclaim() if options.reclaim else []
    rows = collect()
    if options.as_json:
        print_json({"segments": rows, "removed": removed})
    else:
        for name in removed:
            print(f"removed {name}: all its processes are gone")
        _print(rows)
    asked = options.reclaim or options.unlink is not None
    return FINDINGS if not asked and any("error" in row for row in rows) else FINE
