"""``python -m ndarena``: the command line, and where the installed parts are.

The three options are those that other packages with headers have (``--includes``,
``--cmakedir``, ``--pkgconfigdir``), for build systems that ask.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from . import _installed, get_cmake_dir, get_include

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACES: dict[str, Callable[[], str]] = {
    "--includes": lambda: f"-I{get_include()}",
    "--cmakedir": get_cmake_dir,
    "--pkgconfigdir": lambda: _installed("share", "pkgconfig"),
}


def main() -> int:
    """Print what build systems ask for, or run the command line.

    Returns
    -------
    int
        The exit status.
    """
    asked = sys.argv[1:]
    if asked and all(option in _PLACES for option in asked):
        sys.stdout.write("".join(f"{_PLACES[option]()}\n" for option in asked))
        return 0
    # The tools are built on the package, never the other way round: this is their door.
    cli: Any = importlib.import_module("ndarena.tools.cli")
    status: int = cli.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
