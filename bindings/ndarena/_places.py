"""Where scratch files go, and what kind of storage a directory is on."""

from __future__ import annotations

import os
import tempfile

__all__ = ["filesystem_type", "free_bytes", "in_memory", "scratch_dir"]

_MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def scratch_dir(directory: str | os.PathLike[str] | None = None) -> str:
    """Return the directory for scratch files, which must exist.

    The argument comes first, then ``NDARENA_DIR``, then ``TMPDIR``, then the system's
    choice. Scratch files are for data larger than memory, so where only the system
    chose and its directory is itself kept in memory, ``/var/tmp`` is taken instead if
    that one is on a disk.

    Parameters
    ----------
    directory : str or os.PathLike, optional
        The directory wanted.

    Returns
    -------
    str
        Its absolute path.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If it is not a directory; the message says where the path came from.
    """
    if directory is not None:
        return _existing(os.fspath(directory), "dir=")
    for variable in ("NDARENA_DIR", "TMPDIR"):
        value = os.environ.get(variable)
        if value:
            return _existing(value, f"the environment variable {variable}")
    chosen = tempfile.gettempdir()
    fallback = "/var/tmp"  # noqa: S108  files there are unlinked at birth
    if in_memory(chosen) and os.access(fallback, os.W_OK) and not in_memory(fallback):
        chosen = fallback
    return _existing(chosen, "tempfile.gettempdir()")


def _existing(path: str, origin: str) -> str:
    if os.path.isdir(path):
        return os.path.abspath(path)
    message = f"no such directory for scratch files (from {origin}): create it or name another one"
    if os.path.exists(path):
        raise NotADirectoryError(20, message, path)
    raise FileNotFoundError(2, message, path)


def filesystem_type(path: str) -> str:
    """Return the type of the file system that holds a path, ``''`` where unknown.

    Parameters
    ----------
    path : str
        Any existing path.

    Returns
    -------
    str
        As in the kernel's mount table: ``'ext4'``, ``'tmpfs'``, ``'nfs4'``, ...
    """
    real = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                left, _, right = line.partition(" - ")
                mount = left.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
                inside = real == mount or real.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, right.split()[0]
    except OSError:
        return ""
    return kind


def in_memory(path: str) -> bool:
    """Return whether files under a path live in memory rather than on a device.

    Parameters
    ----------
    path : str
        Any existing path.

    Returns
    -------
    bool
        True for tmpfs and its kin.
    """
    return filesystem_type(path) in _MEMORY_FILESYSTEMS


def free_bytes(path: str) -> int:
    """Return the bytes that this user may still write to a path's file system.

    Parameters
    ----------
    path : str
        Any existing path.

    Returns
    -------
    int
        Free bytes.
    """
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
