"""The lock around what the package keeps for the whole process."""

from __future__ import annotations

import os
import threading

__all__ = ["lock"]

# Guards which arena is installed, which `Arena` belongs to which extension object, and the
# segments that references keep open. Held for a few statements, never while an arena is opened or
# memory is waited for. Reentrant: what runs under it can set the garbage collector off, and a
# finalizer may close an arena.
lock = threading.RLock()

# Taken across fork, so that no child finds it held by a thread that it does not have.
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
