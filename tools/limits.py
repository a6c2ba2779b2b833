"""Running a child under a memory limit: a cgroup where one can be made, else an rlimit.

A memory cgroup limits what the child has resident, pages of files included, and kills it
when nothing more can be evicted. Without the rights for one, ``RLIMIT_DATA`` limits what
the child has mapped privately: its anonymous memory counts, shared mappings of files do
not, and an allocation beyond the limit fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MemoryLimit", "memory_limit"]

_OOM_FILES = {"cgroup v1": "memory.oom_control", "cgroup v2": "memory.events"}


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """A limit that children can be started under.

    Attributes
    ----------
    kind : {'cgroup v1', 'cgroup v2', 'RLIMIT_DATA'}
        What enforces it.
    nbytes : int
        The limit in bytes.
    group : str
        Directory of the cgroup, '' for the rlimit.
    """

    kind: str
    nbytes: int
    group: str = ""

    @property
    def kills(self) -> bool:
        """Whether a child beyond the limit is killed; otherwise it gets a MemoryError."""
        return bool(self.group)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return a command that enters the limit and becomes another.

        Parameters
        ----------
        argv : sequence of str
            The other command.

        Returns
        -------
        list of str
            For `subprocess`. The process that it starts is the other command's.
        """
        if self.group:
            enter, value = 'echo $$ > "$0/cgroup.procs"', self.group
        else:
            enter, value = 'ulimit -d "$0"', str(self.nbytes // 1024)
        return ["/bin/sh", "-c", f'{enter} && exec "$@"', value, *argv]

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for exceeding the limit.

        Returns
        -------
        int
            0 where the rlimit is used.
        """
        if not self.group:
            return 0
        with open(os.path.join(self.group, _OOM_FILES[self.kind]), encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0


@contextlib.contextmanager
def memory_limit(nbytes: int, *, cgroup: bool = True) -> Iterator[MemoryLimit]:
    """Make a memory limit and remove it at the end.

    Parameters
    ----------
    nbytes : int
        The limit in bytes.
    cgroup : bool, optional
        Whether to try a cgroup first.

    Yields
    ------
    MemoryLimit
        The limit; children started under it must have ended when the block ends.
    """
    limit = next(_groups(nbytes), None) if cgroup else None
    if limit is None:
        yield MemoryLimit("RLIMIT_DATA", nbytes)
        return
    try:
        yield limit
    finally:
        _remove(limit.group)


def _groups(nbytes: int) -> Iterator[MemoryLimit]:
    """Make a cgroup in the first place that lets us; at most one is ever made."""
    for kind, parent in _parents():
        group = os.path.join(parent, f"ndarena-{os.getpid()}-{time.monotonic_ns():x}")
        try:
            os.mkdir(group)
        except OSError:
            continue
        limit = MemoryLimit(kind, nbytes, group)
        try:
            _configure(limit)
            # Whether a process may really enter it only trying can tell.
            subprocess.run(
                limit.command(["/bin/sh", "-c", ":"]), check=True, stderr=subprocess.DEVNULL
            )
        except (OSError, subprocess.CalledProcessError):
            _remove(group)
            continue
        except BaseException:  # interrupted meanwhile
            _remove(group)
            raise
        yield limit
        return


def _configure(limit: MemoryLimit) -> None:
    if limit.kind == "cgroup v2":
        _write(limit.group, "memory.max", limit.nbytes)
        _write_if_there(limit.group, "memory.swap.max", 0)
    else:
        _write(limit.group, "memory.limit_in_bytes", limit.nbytes)
        _write_if_there(limit.group, "memory.memsw.limit_in_bytes", limit.nbytes)


def _parents() -> Iterator[tuple[str, str]]:
    """Directories that a memory cgroup could be made in, nearest to us first."""
    own: dict[str, str] = {}
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                for controller in controllers.split(","):
                    own[controller] = path
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = [line.split() for line in file]
    except (OSError, ValueError):
        return
    for fields in mounts:
        mount, (kind, _, options) = fields[4], fields[fields.index("-") + 1 :][:3]
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in own:
            for directory in _upwards(mount, own["memory"]):
                yield "cgroup v1", directory
        elif kind == "cgroup2" and "" in own:
            for directory in _upwards(mount, own[""]):
                with (
                    contextlib.suppress(OSError),
                    open(
                        os.path.join(directory, "cgroup.subtree_control"), encoding="ascii"
                    ) as file,
                ):
                    if "memory" in file.read().split():
                        yield "cgroup v2", directory


def _upwards(mount: str, path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        directory = os.path.join(mount, *parts[:length])
        if os.path.isdir(directory):
            yield directory


def _write(group: str, name: str, value: int) -> None:
    with open(os.path.join(group, name), "w", encoding="ascii") as file:
        file.write(str(value))


def _write_if_there(group: str, name: str, value: int) -> None:
    if os.path.exists(os.path.join(group, name)):
        with contextlib.suppress(OSError):
            _write(group, name, value)


def _remove(group: str) -> None:
    """Remove a cgroup; the kernel may need a moment after its last process has ended."""
    for _ in range(50):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
