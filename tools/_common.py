"""What the commands share: exit statuses, one-line errors, opening, printing."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import ndarena

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FINDINGS", "FINE", "UNUSABLE", "Unusable", "open_for_reading", "print_json", "say"]

FINE, FINDINGS, UNUSABLE = 0, 1, 2


class Unusable(Exception):
    """Usage is wrong or a file cannot be read: one line on stderr, exit status 2."""


def describe(error: BaseException) -> str:
    """Return an exception as one line for people.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        The message, led by the file where there is one.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        place = f"{os.fspath(error.filename)}: " if error.filename is not None else ""
        return f"{place}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def say(message: str) -> None:
    """Print one line on stderr.

    Parameters
    ----------
    message : str
        The line.
    """
    print(f"ndarena: {message}", file=sys.stderr, flush=True)


def open_for_reading(path: str, mode: str = "r") -> ndarena.Arena:
    """Open an arena for a command.

    Parameters
    ----------
    path : str
        The file.
    mode : str, optional
        As for `ndarena.open`.

    Returns
    -------
    ndarena.Arena
        To be closed by the caller.

    Raises
    ------
    Unusable
        If it cannot be opened and is not merely damaged.
    ndarena.CorruptionError
        If it is a damaged arena.
    """
    try:
        return ndarena.open(path, mode)
    except ndarena.CorruptionError:
        raise
    except (ndarena.Error, OSError, ValueError, MemoryError) as error:
        message = describe(error)
        raise Unusable(message if path in message else f"{path}: {message}") from error


def print_json(data: Mapping[str, Any]) -> None:
    """Print an object as indented JSON on stdout.

    Parameters
    ----------
    data : mapping
        Plain lists, numbers and strings.
    """
    print(json.dumps(data, indent=2))


def use_colour() -> bool:
    """Return whether stdout is a terminal that may be coloured.

    Returns
    -------
    bool
        False when ``NO_COLOR`` is set, the terminal is dumb, or it is none.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stdout.isatty()
