"""The handler of the whole process, and which one is current."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import _core, _process
from ._activation import disabled
from ._arena import Arena
from ._handlers import ArenaHandler
from ._resources import Default, HandlerResource, ProcessBinding, Resource
from ._sizes import parse_size

if TYPE_CHECKING:
    from ._sizes import Size

__all__ = ["current", "install", "uninstall"]

_log = logging.getLogger("ndarena")
_DEFAULT = "default_allocator"  # NumPy's name for its own


def install(
    resource: Resource | ArenaHandler | Arena,
    *,
    min_size: Size | None = None,
    fallback: bool | None = None,
) -> None:
    """Make NumPy allocate from a resource in the whole process, until `uninstall`.

    Unlike a handler in a ``with`` statement this reaches every thread, also those started
    later by anybody, and every context: it takes the place of NumPy's default. Handlers
    that are entered still come first where they are active.

    Parameters
    ----------
    resource : Resource, ArenaHandler or Arena
        Where to allocate. A handler brings its `min_size` and `fallback`. An arena stays
        open at least until it is uninstalled or closed; closing it uninstalls it. Of a chain,
        an omitted upstream means NumPy's own allocator.
    min_size : int or str, optional
        Smaller requests go to NumPy's default. An arena without this takes everything.
    fallback : bool, optional
        Whether requests that do not fit go there too. Otherwise they are a MemoryError.

    Raises
    ------
    ClosedError
        If the arena has been closed.
    ReadOnlyError
        If it was opened in mode ``r``.

    Notes
    -----
    Installing again replaces what was installed. With ``NDARENA_DISABLE=1`` in the
    environment nothing happens. What was installed is kept until its last array is gone, and
    let go of when `install` or `uninstall` is called next.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.scratch(capacity="64MiB") as arena:
    ...     ndarena.install(arena, min_size="4 KiB")
    ...     a = np.zeros(1000)
    ...     ndarena.uninstall()
    ...     arena.owns(a), arena.owns(np.zeros(1000))
    (True, False)
    """
    if isinstance(resource, Resource):
        if min_size is not None or fallback is not None:
            raise TypeError("min_size and fallback are for arenas: use Threshold and Fallback")
        _install_chain(resource)
        return
    if isinstance(resource, Arena):
        resource = resource.handler()
    elif not isinstance(resource, ArenaHandler):
        raise TypeError(
            f"install() wants an Arena, its handler() or a resource, not {type(resource).__name__}"
        )
    _install_arena(
        ArenaHandler(
            resource.arena,
            resource.min_size if min_size is None else parse_size(min_size, "min_size"),
            resource.fallback if fallback is None else fallback,
        )
    )


def _install_arena(handler: ArenaHandler) -> None:
    core = handler.arena._writable_core()
    if disabled():
        _log.debug("NDARENA_DISABLE is set: %s is not installed", repr(handler))
        return
    with _process.lock:
        _core.install(core, handler.min_size, handler.fallback)
        former, _process.installed = _process.installed, handler
    del former  # its finalizer, if any, runs without the lock


def _install_chain(resource: Resource) -> None:
    if disabled():
        _log.debug("NDARENA_DISABLE is set: %s is not installed", repr(resource))
        return
    binding = ProcessBinding(resource)
    chain = resource._bind(binding)
    with _process.lock:
        _core.install_chain(chain, resource, binding.used)
        former, _process.installed = _process.installed, resource
    del former


def uninstall() -> None:
    """Go back to NumPy's default allocator in the whole process.

    Arrays made meanwhile stay valid and are freed where they belong. Without anything
    installed this does nothing.

    Examples
    --------
    >>> import ndarena
    >>> ndarena.uninstall()
    """
    _process.uninstall()


def current() -> Resource | ArenaHandler:
    """Return what NumPy allocates from here: in this thread, task or coroutine.

    Returns
    -------
    Resource or ArenaHandler
        The one that was entered last, else what is installed, else a `Default`. It can be
        an upstream, and its `name` tells the whole chain. For a handler of somebody else a
        resource that leads to it.

    Examples
    --------
    >>> import ndarena
    >>> with ndarena.Threshold("64 KiB", ndarena.Aligned(4096)) as chain:
    ...     ndarena.current() is chain
    True
    >>> ndarena.current().name
    'default'
    """
    capsule = _core.get_handler()
    owner = _core.owner_of_chain(capsule)
    if isinstance(owner, Resource):
        return owner
    found = _core.arena_of_handler(capsule)
    core, min_size, fallback = found or (None, 0, False)
    if core is not None:
        with _process.lock:
            return ArenaHandler(Arena._of_core(core), min_size, fallback)
    if _core.name_of_handler(capsule) != _DEFAULT:
        return HandlerResource(capsule)
    with _process.lock:
        installed = _process.installed
    return Default() if installed is None else installed
