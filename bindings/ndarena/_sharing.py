"""What a process does once before it shares memory."""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_MS = 60_000  # how long a message may be read after its sender has gone

_log = logging.getLogger("ndarena")


class Once:
    """A function that runs once in a process: whoever calls it meanwhile waits for its end.

    A cache would run it in every thread that comes before the first has finished, and the
    last of these would undo what happened in between. Should it fail, the next call tries again.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._done = False
        self._renew_lock()
        # A child has not the thread that may hold it.
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def __call__(self) -> None:
        if self._done:
            return
        with self._lock:
            if not self._done:
                self._function()
                self._done = True


@Once
def begin() -> None:
    """Remove what processes that were killed have left; let `multiprocessing` know."""
    for name in _core.sweep_segments(GRACE_MS):
        _log.info("removed the shared segment %r: all its processes are gone", name)
    join()


@Once
def join() -> None:
    """Let `multiprocessing` know, once: whoever unregisters afterwards has the last word."""
    from .integrations import multiprocessing

    multiprocessing.register()
