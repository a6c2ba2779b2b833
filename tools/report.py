"""What a program under ``ndarena run`` took: collected at its end, printed or written."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from ndarena._heapmap import reduce_blocks
from ndarena._sizes import format_size

if TYPE_CHECKING:
    import ndarena

__all__ = ["Report", "peak_rss"]

_MAP_CELLS = 2048


def peak_rss() -> int:
    """Return the most memory this process has had resident, pages of files included.

    Returns
    -------
    int
        Bytes. The kernel's figure for this program alone where it has one; getrusage also
        counts what the process was before it became this program.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclasses.dataclass
class Report:
    """Collects at the end of the process, after the program's own exit handlers.

    Attributes
    ----------
    arena : ndarena.Arena or None
        Where the arrays went; None if handlers are disabled.
    place : str
        File or directory of the arena.
    on_stderr : bool
        Whether to print it.
    path : str or None
        File to write it to as JSON.
    """

    arena: ndarena.Arena | None
    place: str
    on_stderr: bool
    path: str | None
    status: int = 0
    error: str = ""

    def start(self) -> None:
        """Begin to measure, and arrange for `finish` at the end of this process."""
        self._pid = os.getpid()
        self._begin = time.monotonic()
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        # Exit handlers run last in, first out, and after non-daemon threads have ended:
        # one that is registered before the program starts sees its whole life.
        atexit.register(self.finish)

    def ended(self, status: int, error: str) -> None:
        """Take note of how the program ended.

        Parameters
        ----------
        status : int
            The exit status.
        error : str
            Name of the exception, '' for none.
        """
        self.status, self.error = status, error

    def collect(self) -> dict[str, Any]:
        """Return the report's numbers: sizes in bytes, times in seconds.

        Returns
        -------
        dict
            Ready for ``json.dumps``.
        """
        data: dict[str, Any] = {"place": self.place, "disabled": self.arena is None}
        if self.arena is not None and not self.arena.closed:
            stats = self.arena.stats()
            data.update(
                capacity=stats.capacity,
                peak_allocated=stats.peak_allocated,
                allocated=stats.allocated,
                arrays=self.arena.live_arrays,
                committed=stats.committed,
                refused=stats.oom_count,
                map=reduce_blocks(self.arena._open_core().blocks(), _MAP_CELLS).as_dict(),
            )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        data.update(
            wall_seconds=round(time.monotonic() - self._begin, 3),
            peak_rss=peak_rss(),
            major_faults=usage.ru_majflt - self._faults,
            exit_status=self.status,
            exception=self.error,
        )
        return data

    def finish(self) -> None:
        """Print and write the report. Children made by fork have none."""
        if os.getpid() != self._pid:
            return
        data = self.collect()
        if self.path is not None:
            try:
                with open(self.path, "w", encoding="utf-8") as file:
                    json.dump(data, file)
            except OSError as error:
                _write(f"ndarena: error: cannot write the report: {error}\n")
        if self.on_stderr:
            _write("".join(f"ndarena: {line}\n" for line in self._lines(data)))

    def _lines(self, data: dict[str, Any]) -> list[str]:
        lines = []
        if data["disabled"]:
            lines.append("NDARENA_DISABLE is set: the program ran without an arena")
        elif "peak_allocated" in data:
            lines += [
                f"arena in {data['place']}, {format_size(data['committed'])} committed of "
                f"{format_size(data['capacity'])}",
                f"peak {format_size(data['peak_allocated'])} in arrays; at the end "
                f"{format_size(data['allocated'])} in {data['arrays']} "
                f"array{'' if data['arrays'] == 1 else 's'}"
                + (f"; {data['refused']} requests refused" if data["refused"] else ""),
            ]
        else:
            lines.append(f"arena in {data['place']}, closed by the program")
        ending = f"exit status {data['exit_status']}"
        if data["exception"]:
            ending += f" ({data['exception']})"
        lines.append(
            f"{data['wall_seconds']:.1f} s, peak RSS {format_size(data['peak_rss'])}, "
            f"{data['major_faults']} major faults, {ending}"
        )
        return lines


def _write(text: str) -> None:
    # The program may have replaced or closed sys.stderr.
    stream = sys.__stderr__
    if stream is not None and not stream.closed:
        stream.write(text)
        stream.flush()
