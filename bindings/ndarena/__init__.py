"""NumPy arrays in memory-mapped files and shared memory, without changing the program.

An `Arena` is memory that arrays are carved out of: a file (`open`), a shared-memory
segment (`shared`), a temporary file (`scratch`) or any writable buffer (`Arena`). Inside
``with arena.handler():`` everything that NumPy allocates comes from it, and what comes
back are plain `numpy.ndarray` objects that keep their memory for as long as they live.
"""

from __future__ import annotations

import logging as _logging
import os as _os

from . import _core, errors
from ._adaptors import Aligned, Fallback, Limiting, Locked, Statistics, Threshold
from ._arena import Arena
from ._core import _C_API, __version__  # noqa: F401  ndarena_import() looks for it here
from ._counts import ResourceStats
from ._foreign import Callback, Library, PyMem, PythonResource
from ._handlers import ArenaHandler, arena_of, handler_of
from ._install import current, install, uninstall
from ._open import open, scratch, shared  # noqa: A004  the public names
from ._refs import Ref, ref
from ._resources import Default, Previous, Resource
from ._stats import Stats
from ._tracing import TraceEvent, Tracing
from .errors import (
    ClosedError,
    CorruptionError,
    CudaUnavailableError,
    Error,
    FormatError,
    LockTimeoutError,
    ReadOnlyError,
    StaleRefError,
)

__all__ = [
    "Aligned",
    "Arena",
    "ArenaHandler",
    "Callback",
    "ClosedError",
    "CorruptionError",
    "CudaUnavailableError",
    "Default",
    "Error",
    "Fallback",
    "FormatError",
    "Library",
    "Limiting",
    "LockTimeoutError",
    "Locked",
    "Previous",
    "PyMem",
    "PythonResource",
    "ReadOnlyError",
    "Ref",
    "Resource",
    "ResourceStats",
    "StaleRefError",
    "Statistics",
    "Stats",
    "Threshold",
    "TraceEvent",
    "Tracing",
    "__version__",
    "arena_of",
    "current",
    "errors",
    "get_cmake_dir",
    "get_include",
    "handler_of",
    "install",
    "open",
    "ref",
    "scratch",
    "shared",
    "uninstall",
]

_logging.getLogger("ndarena").addHandler(_logging.NullHandler())


def _installed(*parts: str) -> str:
    # In an editable install only the compiled part lies beside the installed files.
    return _os.path.join(_os.path.dirname(_os.path.abspath(_core.__file__)), *parts)


def get_include() -> str:
    """Return the directory of the C++ headers.

    Returns
    -------
    str
        For the compiler's ``-I``.

    Examples
    --------
    >>> import os, ndarena
    >>> os.path.basename(ndarena.get_include())
    'include'
    """
    return _installed("include")


def get_cmake_dir() -> str:
    """Return the directory of the CMake package configuration.

    Returns
    -------
    str
        For CMake's ``ndarena_DIR``.

    Examples
    --------
    >>> import os, ndarena
    >>> os.path.basename(ndarena.get_cmake_dir())
    'ndarena'
    """
    return _installed("share", "cmake", "ndarena")
