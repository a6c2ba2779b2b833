"""What the commands share: exit statuses, one-line errors, opening, printing."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import ndarena

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FINDINGS",
    "FINE",
    "UNUSABLE",
    "Unusable",
    "bar",
    "describe",
    "open_arena",
    "plural",
    "print_json",
    "printable",
    "require_free",
    "say",
    "tolerate_names",
    "use_colour",
]

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


def open_arena(path: str, mode: str = "r") -> ndarena.Arena:
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


def bar() -> bool:
    """Return whether somebody is there to see a progress bar.

    Returns
    -------
    bool
        True if stderr is a terminal.
    """
    return sys.stderr.isatty()


def plural(count: int, noun: str) -> str:
    """Return a number of things.

    Parameters
    ----------
    count : int
        How many.
    noun : str
        The word for one.

    Returns
    -------
    str
        For example ``'2 arrays'``.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """Return a name as it may be shown on a terminal.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The same, or its repr if it has control characters or blanks at its ends.
    """
    return text if text.isprintable() and text.strip() == text and text else repr(text)


def require_free(path: str, *, force: bool) -> None:
    """Refuse to replace a file unless that was asked for.

    Parameters
    ----------
    path : str
        What is to be written.
    force : bool
        Whether it may be replaced.

    Raises
    ------
    Unusable
        If there is something.
    """
    if os.path.lexists(path) and not force:
        raise Unusable(f"{path}: is there already; --force replaces it")


def tolerate_names() -> None:
    """Let stdout show what its encoding has no characters for, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
