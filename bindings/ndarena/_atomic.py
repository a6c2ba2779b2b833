"""Files and directories that appear whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["appearing", "sync", "write_all"]

_NAME_BYTES = 100  # of the target's name in the temporary one: the whole has to be a name, too


@contextmanager
def appearing(
    path: str | os.PathLike[str],
    *,
    directory: bool = False,
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[str]:
    """Give the body of a ``with`` statement a path of its own beside another.

    What the body has made there takes the place of `path` when it ends well, in one step,
    and is removed when it does not. A process that is killed leaves it behind, under a name
    that begins with a dot and ends in ``.tmp``.

    Parameters
    ----------
    path : str or os.PathLike
        What is to appear. A link is followed.
    directory : bool, optional
        Whether it will be a directory. One that has something in it is not replaced.
    guard : callable, optional
        Makes a context manager in which the last step is taken, or refused.

    Yields
    ------
    str
        Where to make it.

    Raises
    ------
    FileExistsError
        If there is something that is not replaced: anything but a file, or an empty
        directory.
    """
    target = os.path.realpath(path)
    _require_replaceable(target, directory=directory)
    folder, name = os.path.split(target)
    lead = os.fsdecode(os.fsencode(name)[:_NAME_BYTES])
    temporary = os.path.join(folder, f".{lead}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with guard():
            os.rename(temporary, target)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            # Somebody has made it meanwhile.
            _require_replaceable(target, directory=directory)
        raise
    sync(folder)


def _require_replaceable(target: str, *, directory: bool) -> None:
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "there is no such directory", folder) from None
        return
    if directory and stat.S_ISDIR(mode):
        if os.listdir(target):
            raise FileExistsError(
                errno.EEXIST, "the directory is not empty: name a new one", target
            )
    elif directory or not stat.S_ISREG(mode):
        kind = "directory" if directory else "file"
        raise FileExistsError(errno.EEXIST, f"there is something else than a {kind}", target)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def sync(path: str) -> None:
    """Bring a file or a directory's entries to the device.

    Parameters
    ----------
    path : str
        The file or the directory.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of the data at an offset.

    Parameters
    ----------
    descriptor : int
        Of the file.
    data : memoryview
        Bytes.
    offset : int
        Where in the file.
    """
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
