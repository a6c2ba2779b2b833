"""What the package keeps for the whole process: what is installed, and the lock around it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from ._arena import Arena
    from ._handlers import ArenaHandler
    from ._resources import Resource

__all__ = ["installed", "lock", "uninstall", "uninstall_if"]

# Guards which arena is installed, which `Arena` belongs to which extension object, and the
# segments that references keep open. Held for a few statements, never while an arena is opened or
# memory is waited for. Reentrant: what runs under it can set the garbage collector off, and a
# finalizer may close an arena.
lock = threading.RLock()

# Taken across fork, so that no child finds it held by a thread that it does not have.
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

# Keeps the Python object alive; the extension module knows the rest. Both change together,
# under the lock.
installed: ArenaHandler | Resource | None = None


def uninstall() -> None:
    """Go back to NumPy's default allocator."""
    global installed
    with lock:
        _core.uninstall()
        former, installed = installed, None
    del former  # its finalizer, if any, runs without the lock


def uninstall_if(arena: Arena) -> None:
    """Uninstall an arena that has been closed; others stay installed.

    Parameters
    ----------
    arena : Arena
        The closed arena.
    """
    with lock:
        if getattr(installed, "arena", None) is arena:
            uninstall()
