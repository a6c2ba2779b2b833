"""Progress of long calls: a function of the caller's, a bar, or a line on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHUNK", "Progress", "tracked"]

# Whatever the argument `progress` of a public method may be.
Progress = Callable[[int, int], object] | bool | None

# Bytes moved between two reports, and between two looks at Ctrl-C.
CHUNK = 4 * 2**20


@contextmanager
def tracked(progress: Progress, total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Report how far a call has come.

    Parameters
    ----------
    progress : callable, bool or None
        Called with the bytes that are done and the total, first with 0; True for a bar.
    total : int
        Bytes in all.
    label : str
        What a bar says.

    Yields
    ------
    callable
        To be called with the number of bytes that have just been done.
    """
    if progress is None or progress is False:
        yield lambda _: None
        return
    if callable(progress):
        yield _counting(progress, total)
        return
    if progress is not True:
        raise TypeError(
            "progress is None, True or a function of the bytes done and the total, not "
            f"{type(progress).__name__}"
        )
    with _bar(total, label) as show:
        yield _counting(show, total)


def _counting(show: Callable[[int, int], object], total: int) -> Callable[[int], None]:
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        show(done, total)

    show(0, total)
    return advance


@contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[[int, int], object]]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        pass
    else:
        with tqdm(total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1024) as bar:
            yield lambda done, _: bar.update(done - bar.n)
        return
    try:
        from rich.console import Console
        from rich.progress import Progress as RichProgress
    except ImportError:
        pass
    else:
        with RichProgress(console=Console(stderr=True)) as rich:
            task = rich.add_task(label, total=total)
            yield lambda done, _: rich.update(task, completed=done)
        return
    yield from _line(label)


def _line(label: str) -> Iterator[Callable[[int, int], object]]:
    shown = 0.0
    lead = "\r" if sys.stderr.isatty() else ""

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done < total and (now < shown + 0.2 or not lead):
            return  # into a file only the last word
        shown = now
        sys.stderr.write(f"{lead}{label}: {format_size(done)} of {format_size(total)}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write("\n")
