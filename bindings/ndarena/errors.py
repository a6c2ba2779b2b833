"""Exceptions of ndarena.

Every class is an `Error` and, where Python already has a word for the situation,
the standard class as well, so that existing ``except`` clauses keep working.
A missing file, an existing file or a refused permission stays the plain standard
exception, and no room is always `MemoryError`.

Examples
--------
>>> import ndarena
>>> issubclass(ndarena.ClosedError, ndarena.Error)
True
>>> issubclass(ndarena.ClosedError, ValueError)
True
"""

from __future__ import annotations

import errno as _errno
from typing import NoReturn

__all__ = [
    "ClosedError",
    "CorruptionError",
    "CudaUnavailableError",
    "Error",
    "FormatError",
    "LockTimeoutError",
    "ReadOnlyError",
    "StaleRefError",
]


class Error(Exception):
    """Base class of everything that ndarena raises under a name of its own."""


class FormatError(Error, ValueError):
    """The bytes are not an arena, or not one that this version can open.

    Raised for foreign files, for arenas of a newer version and for arenas written
    with the other byte order. The file or buffer has not been touched.
    """


class CorruptionError(Error, OSError):
    """The arena is damaged: a checksum or an invariant of its metadata does not hold.

    Attributes
    ----------
    errno : int
        ``EUCLEAN`` ("structure needs cleaning") unless the system gave another number.
    filename : str or None
        The damaged file, where there is one.
    """


class StaleRefError(Error, LookupError):
    """A reference points to a block that has been freed since."""


class ClosedError(Error, ValueError):
    """The arena has been closed. Its arrays stay valid; allocating or asking does not."""


class LockTimeoutError(Error, TimeoutError):
    """A lock of the arena was not obtained within its bound; a living process holds it."""


class ReadOnlyError(Error, PermissionError):
    """The arena was opened in mode ``r``, or its buffer is not writable."""


class CudaUnavailableError(Error, RuntimeError):
    """There is no usable CUDA driver or device on this machine."""


# Codes of the extension module: own classes that take only a message, own classes that
# are OSErrors (with the error number to assume when none is given), standard OSErrors
# (likewise), and standard classes that take only a message.
_PLAIN: dict[str, type[Exception]] = {
    "format": FormatError,
    "stale_ref": StaleRefError,
    "closed": ClosedError,
    "cuda_unavailable": CudaUnavailableError,
    "unsupported": Error,
    "no_memory": MemoryError,
    "invalid": ValueError,
    "type": TypeError,
}
_WITH_ERRNO: dict[str, tuple[type[OSError], int]] = {
    "corruption": (CorruptionError, getattr(_errno, "EUCLEAN", _errno.EIO)),
    "lock_timeout": (LockTimeoutError, _errno.ETIMEDOUT),
    "read_only": (ReadOnlyError, _errno.EROFS),
    "not_found": (FileNotFoundError, _errno.ENOENT),
    "exists": (FileExistsError, _errno.EEXIST),
    "permission": (PermissionError, _errno.EACCES),
    "os": (OSError, _errno.EIO),
}


def _raise(code: str, errno: int, message: str, filename: str | None) -> NoReturn:
    """Raise the exception that belongs to an error code of the extension module.

    Parameters
    ----------
    code : str
        A key of the two tables above; an unknown one gives `Error`.
    errno : int
        The system's error number, 0 for none.
    message : str
        What happened, where, and what to do.
    filename : str or None
        The file concerned; becomes ``exc.filename`` of every `OSError`.
    """
    if code in _WITH_ERRNO:
        os_class, default = _WITH_ERRNO[code]
        number = errno or default
        if filename is None:
            raise os_class(number, message)
        raise os_class(number, message, filename)
    raise _PLAIN.get(code, Error)(message)
