"""The `Arena` class: one open segment, as Python sees it."""

from __future__ import annotations

import logging
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from . import _core, _handlers, _process, _refs
from ._arguments import exporter, parse_alignment
from ._creation import CreationMixin
from ._exchange import ExchangeMixin
from ._inspection import InspectionMixin
from ._names import NamesMixin
from ._sizes import format_size, parse_size
from .errors import ClosedError, ReadOnlyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._sizes import Size

__all__ = ["Arena"]

_log = logging.getLogger("ndarena")

# The Arena of each extension object, by identity; an Arena keeps its extension object
# alive, so an identity cannot be taken over while its entry exists. Looked up and entered under
# the lock.
_arenas: weakref.WeakValueDictionary[int, Arena] = weakref.WeakValueDictionary()


class Arena(CreationMixin, ExchangeMixin, InspectionMixin, NamesMixin):
    """An arena over a buffer: memory of yours that NumPy arrays are carved out of.

    `open`, `shared` and `scratch` make the other kinds.

    Parameters
    ----------
    buffer : buffer
        A writable, C-contiguous object of the buffer protocol: `mmap.mmap`,
        `multiprocessing.shared_memory.SharedMemory` (or its ``buf``), `memoryview`,
        `bytearray`, `numpy.memmap`, pinned memory. All-zero memory is formatted, an
        arena that is there already is attached.
    alignment : int, optional
        Alignment of every array in bytes, a power of two up to 2 MiB; 64 when the arena
        is new. That of an arena which is there already must match or be left out.
    format : bool, optional
        Format the memory whatever it holds.

    Attributes
    ----------
    kind : str
        ``'buffer'``, ``'file'``, ``'shared'`` or ``'scratch'``.
    filename : str or None
        Absolute path of a file arena.
    name : str or None
        Name of a shared segment.
    mode : str
        ``'r'`` or ``'r+'``.
    alignment : int
        Alignment of every array in bytes.
    uuid : str
        What identifies the arena wherever it is opened.

    Raises
    ------
    FormatError
        If the memory holds something else; it has not been touched.
    ReadOnlyError
        If the buffer is read-only.
    ValueError
        If it is not contiguous, too small, or `alignment` is not valid.

    Notes
    -----
    The arena and its arrays hold the exported buffer: closing the buffer's owner raises
    BufferError until the arena is closed and its last array is gone, and works then.

    A ``with`` statement on an arena closes it. The one that makes NumPy allocate in it is
    on `handler`.

    Examples
    --------
    >>> import mmap, ndarena
    >>> memory = mmap.mmap(-1, 2**20)
    >>> with ndarena.Arena(memory) as arena:
    ...     a = arena.zeros(1000)
    >>> a[:] = 1                # valid although the arena is closed
    >>> memory.close()
    Traceback (most recent call last):
    ...
    BufferError: cannot close exported pointers exist
    >>> del a
    >>> memory.close()
    """

    kind: str
    filename: str | None
    name: str | None
    mode: str
    alignment: int
    uuid: str
    _inner: _core.Arena | None = None
    _owner = True

    def __init__(
        self,
        buffer: object,
        *,
        alignment: int | None = None,
        format: bool = False,  # noqa: A002  the contract's name
    ) -> None:
        number = parse_alignment(alignment)
        self._attach(_core.open_buffer(exporter(buffer), number, bool(format)))
        self._log("opened")

    def _attach(self, core: _core.Arena) -> None:
        self._inner = core
        self.kind, self.name, self.mode = core.kind, core.name, core.mode
        self.filename = None if core.filename is None else os.path.abspath(core.filename)
        self.alignment, self.uuid = core.alignment, core.uuid
        _arenas[id(core)] = self

    @classmethod
    def _of_core(cls, core: _core.Arena, *, owner: bool = False) -> Arena:
        """Return the Arena of an extension object, a new one if there is none.

        Only an owner closes the extension object, and warns, when it is forgotten.
        """
        with _process.lock:
            # Who opens gets an Arena of its own: one that `arena_of` of another thread has made
            # meanwhile may be in its finalizer already.
            arena = None if owner else _arenas.get(id(core))
            if arena is None:
                arena = cls.__new__(cls)
                arena._owner = owner
                arena._attach(core)
        if owner:
            arena._log("opened")
        return arena

    def _log(self, event: str) -> None:
        if _log.isEnabledFor(logging.INFO):
            # In words: logging takes a mapping for a dictionary of its own fields.
            _log.info("%s %s", event, repr(self))

    # --- state -----------------------------------------------------------------------

    @property
    def _handle(self) -> _core.Arena:
        core = self._inner
        if core is None:
            raise ClosedError("this Arena was never opened: its constructor failed")
        return core

    def _open_core(self) -> _core.Arena:
        core = self._handle
        if core.closed:
            raise ClosedError(f"{self._where()} is closed: open it again to use it")
        return core

    def _writable_core(self) -> _core.Arena:
        core = self._open_core()
        if self.mode == "r":
            raise ReadOnlyError(
                30, "the arena was opened read-only: open it with mode='r+'", self._where()
            )
        return core

    def _where(self) -> str:
        if self.filename is not None:
            return self.filename
        return f"{self.kind} {self.name}" if self.name is not None else f"{self.kind} arena"

    def _label(self) -> str:
        """Return what it is called in the names of handlers."""
        if self.filename is not None:
            return os.path.basename(self.filename)
        return f"shm:{self.name}" if self.name is not None else self.kind

    @property
    def closed(self) -> bool:
        """Whether the arena has been closed."""
        return self._inner is None or self._inner.closed

    @property
    def capacity(self) -> int:
        """Ceiling of the arena in bytes; see `grow`."""
        return self._handle.capacity

    @property
    def nbytes(self) -> int:
        """Bytes in live arrays, of all processes that have the arena open."""
        return self._handle.allocated

    @property
    def live_arrays(self) -> int:
        """Number of arrays of this arena that are alive in this process."""
        return self._handle.live_arrays

    def __bool__(self) -> bool:
        return not self.closed

    def __repr__(self) -> str:
        if self._inner is None:
            return "<Unopened ndarena.Arena>"
        place = f'"{os.path.basename(self.filename)}"' if self.filename else self._where()
        if self._inner.closed:
            return f"<Closed ndarena.Arena {place}>"
        count = self._inner.live_arrays
        return (
            f"<ndarena.Arena {place} mode={self.mode} {format_size(self._inner.allocated)} of "
            f"{format_size(self._inner.capacity)}, {count} array{'' if count == 1 else 's'}>"
        )

    # --- life ------------------------------------------------------------------------

    def __enter__(self) -> Arena:
        self._open_core()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self, flush: bool = True) -> None:
        """End new allocation. Arrays stay valid; the mapping goes with the last of them.

        Closing twice is fine. An arena that is installed is uninstalled.

        Parameters
        ----------
        flush : bool, optional
            Whether names that are not durable yet are flushed, if no other process has the
            arena open for writing. A failing flush raises, and the arena is closed all the same.

        Examples
        --------
        >>> import ndarena
        >>> arena = ndarena.scratch(capacity="64MiB")
        >>> a = arena.zeros(3)
        >>> arena.close()
        >>> a
        array([0., 0., 0.])
        """
        core = self._inner
        if core is None or core.closed:
            return
        try:
            core.close(bool(flush))
        finally:
            self._closed_now()

    def _closed_now(self) -> None:
        # Afterwards: a thread that installs it meanwhile is refused, or undone here.
        _process.uninstall_if(self)
        _log.info("closed %s", self._where())

    def __del__(self) -> None:
        core = self._inner
        if core is None or core.closed or not self._owner:
            return
        try:
            # As for files: the place of the allocation is shown when tracemalloc runs.
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        except (AttributeError, TypeError):
            # The interpreter is ending and has emptied the modules that this needs; the
            # extension object closes itself.
            return
        core.close(True)

    def unlink(self) -> None:
        """Remove the file or the shared segment's name. Whoever has it open keeps it.

        Raises
        ------
        ClosedError
            If the arena has been closed: unlink first, or use `os.unlink` on a file.
        Error
            If there is no name to remove: scratch arenas and arenas over buffers.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.shared() as arena:
        ...     arena.unlink()
        """
        self._open_core().unlink()

    def grow(self, capacity: Size) -> None:
        """Raise the capacity, for every process that has the arena open.

        Parameters
        ----------
        capacity : int or str
            The new ceiling in bytes. One that is not higher changes nothing.

        Raises
        ------
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.
        ValueError
            If it is an arena over a buffer, which is as large as it is.
        MemoryError
            If a process has not reserved that much address space for it: 1 TiB, or the
            capacity when it was opened.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena.grow("2MiB")
        ...     arena.capacity >= 2 * 2**20
        True
        """
        wanted = parse_size(capacity, "capacity")
        self._writable_core().grow(wanted)
        self._log("grown")

    def put(self, obj: object) -> _refs.Ref:
        """Store an object, its arrays and other buffers as they are, and return a reference.

        Parameters
        ----------
        obj : object
            Anything that can be pickled. What supports protocol 5 out of band (NumPy
            arrays, pandas and Arrow objects) is copied once, into the arena, and never
            again: every `Ref.get` gives views of that copy.

        Returns
        -------
        Ref
            For any process of the host.

        Raises
        ------
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.
        ValueError
            If other processes cannot open it: scratch arenas and arenas over buffers.
        MemoryError
            If it does not fit.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.shared(capacity="1MiB") as arena:
        ...     r = arena.put({"weights": np.arange(3), "epoch": 7})
        >>> r.get()
        {'weights': array([0, 1, 2]), 'epoch': 7}
        """
        self._writable_core()
        return _refs.put(self, obj)

    def handler(self, min_size: Size = 0, fallback: bool = False) -> _handlers.ArenaHandler:
        """Return a handler: a context manager and decorator that makes NumPy allocate here.

        Parameters
        ----------
        min_size : int or str, optional
            Smaller requests go to the handler that is current on entry.
        fallback : bool, optional
            Whether requests that do not fit go there too. Otherwise they are a MemoryError.

        Returns
        -------
        ArenaHandler
            May be entered any number of times.

        Raises
        ------
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena, arena.handler():
        ...     a = np.arange(10)
        >>> ndarena.handler_of(a) == ndarena.handler_of(np.arange(10))
        False
        """
        self._writable_core()
        return _handlers.ArenaHandler(self, min_size, fallback)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bool, str, str]]:
        # Imported here: the functions that reopen are built on this class.
        from . import _open

        if self.kind == "file" and self.filename is not None:
            return _open.reopen, (False, self.filename, self.mode)
        if self.kind == "shared" and self.name is not None:
            return _open.reopen, (True, self.name, self.mode)
        raise TypeError(
            f"a {self.kind} arena cannot be pickled: it has no name that another process could "
            "open. Use ndarena.shared() or ndarena.open()"
        )
