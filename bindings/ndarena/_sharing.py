"""What a process does once before it shares memory."""

from __future__ import annotations

import functools
import logging

from . import _core

GRACE_MS = 60_000  # how long a message may be read after its sender has gone

_log = logging.getLogger("ndarena")


@functools.cache
def begin() -> None:
    """Remove what processes that were killed have left; let `multiprocessing` know."""
    for name in _core.sweep_segments(GRACE_MS):
        _log.info("removed the shared segment %r: all its processes are gone", name)
    join()


@functools.cache
def join() -> None:
    """Let `multiprocessing` know, once: whoever unregisters afterwards has the last word."""
    from .integrations import multiprocessing

    multiprocessing.register()
