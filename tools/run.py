"""``ndarena run``: any NumPy program, its large arrays in a file, out of core.

The arena takes the place of NumPy's default allocator, so every thread is covered. Large
arrays that do not fit are a MemoryError, never a silent copy in memory; only arrays below
the threshold stay there. NumPy is imported before the program is: environment variables
that its libraries read when loaded must be set outside.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import ndarena
from ndarena import _activation, _places
from ndarena._sizes import parse_capacity, parse_size

from . import program as _program
from ._common import Unusable, describe
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Options", "main"]

_MIN_SIZE = "64KiB"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of ``ndarena run``; None leaves the choice to the environment.

    Attributes
    ----------
    file : str or None
        Arena file to keep the arrays in.
    directory : str or None
        Directory of the scratch file otherwise.
    capacity : str or None
        Ceiling: a size, or a share of the free space.
    min_size : str or None
        Smaller arrays stay in memory.
    report : bool
        Whether to print a report at the end.
    report_json : str or None
        File to write the report to.
    """

    file: str | None = None
    directory: str | None = None
    capacity: str | None = None
    min_size: str | None = None
    report: bool = False
    report_json: str | None = None


def main(options: Options, kind: str, target: str, arguments: Sequence[str]) -> int:
    """Run a program with its large arrays in an arena.

    Parameters
    ----------
    options : Options
        Where the arrays go.
    kind : {'script', '-m', '-c'}
        What `target` is.
    target : str
        A path, a module's name or code.
    arguments : sequence of str
        The program's own arguments.

    Returns
    -------
    int
        The program's exit status. Its SystemExit passes through.

    Raises
    ------
    Unusable
        If there is no such program, or the arena cannot be made.
    """
    loaded = _program.load(kind, target)
    arena: ndarena.Arena | None = None
    place = options.file or ""
    if not _activation.disabled():
        try:
            arena, place = _open(options)
            ndarena.install(arena, min_size=_min_size(options), fallback=False)
        except (ndarena.Error, OSError, ValueError) as error:
            raise Unusable(describe(error)) from error
        # It stays installed until the process is gone: nobody has forgotten to close it.
        arena._owner = False
    report = Report(arena, place, options.report, options.report_json)
    if options.report or options.report_json is not None:
        report.start()
    return _program.execute(loaded, arguments, report.ended)


def _open(options: Options) -> tuple[ndarena.Arena, str]:
    directory = (
        os.path.dirname(os.path.abspath(options.file))
        if options.file is not None
        else _places.scratch_dir(options.directory)
    )
    wanted = options.capacity or os.environ.get("NDARENA_SIZE") or None
    capacity = None
    if wanted is not None:
        free = _places.free_bytes(directory)
        origin = "--capacity" if options.capacity else "NDARENA_SIZE"
        capacity = parse_capacity(wanted, free, origin)
    if options.file is not None:
        return ndarena.open(options.file, "a", capacity=capacity), os.path.abspath(options.file)
    return ndarena.scratch(capacity=capacity, dir=directory), directory


def _min_size(options: Options) -> int:
    if options.min_size is not None:
        return parse_size(options.min_size, "--min-size")
    return parse_size(os.environ.get("NDARENA_MIN_SIZE") or _MIN_SIZE, "NDARENA_MIN_SIZE")
