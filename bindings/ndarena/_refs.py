"""References to arrays and objects in an arena, which other processes can open."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core, _process, _sharing
from .errors import ClosedError, FormatError, StaleRefError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._arena import Arena

__all__ = ["Ref", "ref"]

_NO_TOKEN = (0xFFFFFFFF, 0)
_ALIGNMENT = 64  # of the buffers of an object

# Segments that references have led to and that nobody else here keeps open: the last few
# stay, so that the next message does not have to map its segment again. Changed under the lock.
_attached: OrderedDict[tuple[bool, str], _core.Arena] = OrderedDict()
_MOST_ATTACHED = 16


# Where a block is, for every process of the host; see `_core.describe_block`: whether in a shared
# segment, its name or path, session, record, serial, offset.
_Place = tuple[bool, str, int, int, int, int]


class _View(NamedTuple):
    """The part of a block that an array is."""

    dtype: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    writeable: bool


# Of an object: first byte, size, and whether `get` may give it out for writing.
_Buffers = tuple[tuple[int, int, bool], ...]


class Ref:
    """A reference to an array, or to an object of `Arena.put`, small and picklable.

    Made by `ref` and `Arena.put`, not by its constructor. It keeps the memory alive in
    every process that has one, and so does every message that contains one: pickling gives
    the message a hold of its own, which the first process to unpickle it takes over.

    Attributes
    ----------
    dtype : numpy.dtype or None
        Of the array; None for an object.
    shape : tuple of int or None
        Of the array; None for an object.
    nbytes : int
        Bytes that `get` gives a view of.

    See Also
    --------
    ref : Make one of an array.

    Notes
    -----
    Copies made by `copy` and `copy.deepcopy` are the reference itself.

    A message that nobody reads holds its memory for as long as its sender lives and
    60 seconds longer.
    """

    __slots__ = ("__weakref__", "_block", "_buffers", "_readers", "_view")

    _block: Any
    _view: _View
    _buffers: _Buffers | None
    _readers: int

    def __init__(self) -> None:
        raise TypeError("use ndarena.ref(array) or arena.put(object)")

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return None if self._buffers is not None else np.dtype(self._view.dtype)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self._buffers is not None else self._view.shape

    @property
    def nbytes(self) -> int:
        return math.prod(self._view.shape) * int(np.dtype(self._view.dtype).itemsize)

    def get(self) -> Any:
        """Return the array, or the object, without a copy.

        Returns
        -------
        numpy.ndarray or object
            An array over the shared memory: what one process writes, the others see.
            Of an object all large parts are such arrays; its small parts are its own.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.shared(capacity="1MiB") as arena:
        ...     r = ndarena.ref(arena.ones(3))
        >>> r.get()
        array([1., 1., 1.])
        """
        array = _core.array_over(self._block, *self._view)
        if self._buffers is None:
            return array
        # What `Arena.put` of a process that may send us pickles has stored.
        parts = [
            part if writeable else part.toreadonly()
            for first, size, writeable in self._buffers
            for part in (array[first : first + size].data,)
        ]
        return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301

    def __reduce__(self) -> tuple[Callable[..., Ref], tuple[Any, ...]]:
        token = _core.send_block(self._block, self._readers)
        place = _core.describe_block(self._block)
        return _receive, (place, token, tuple(self._view), self._buffers)

    def __copy__(self) -> Ref:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Ref:
        return self

    def __repr__(self) -> str:
        where = _core.describe_block(self._block)[1]
        if self._buffers is not None:
            return f"<Ref to an object of {self.nbytes} bytes in {where!r}>"
        return f"<Ref to an array of shape {self.shape}, {self.dtype}, in {where!r}>"


def _make(
    block: Any,
    view: _View,
    buffers: _Buffers | None = None,
    readers: int = 1,
) -> Ref:
    made = object.__new__(Ref)
    made._block, made._view, made._buffers, made._readers = block, view, buffers, readers
    return made


def _view_of(block: Any, array: np.ndarray[Any, Any]) -> _View:
    dtype = array.dtype
    simple = dtype.names is None and dtype.subdtype is None and dtype.metadata is None
    return _View(
        dtype.str if simple else dtype,
        array.shape,
        array.strides,
        _core.offset_in_block(block, array),
        bool(array.flags.writeable),
    )


def ref(a: np.ndarray[Any, Any], *, readers: int = 1) -> Ref:
    """Make a reference to an array, which other processes of the host can open.

    Parameters
    ----------
    a : numpy.ndarray
        An array in a file arena or a shared segment that is open for writing, or a view
        of one.
    readers : int, optional
        How many processes unpickle each message with this reference. Its memory is held
        until all of them have.

    Returns
    -------
    Ref
        ``get()`` returns the array, in any process.

    Raises
    ------
    TypeError
        If it is not an array, or one of Python objects.
    ValueError
        If it is not in such an arena.

    Notes
    -----
    By reference means shared: a sender that goes on writing into the array changes what it
    has sent. The array is a view of its memory from now on: ``a.resize()`` is refused.

    Examples
    --------
    >>> import ndarena, pickle
    >>> with ndarena.shared(capacity="1MiB") as arena:
    ...     message = pickle.dumps(ndarena.ref(arena.full(3, 7)))
    >>> pickle.loads(message).get()
    array([7, 7, 7])
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"a reference is made of a numpy.ndarray, not of {type(a).__name__}")
    if a.dtype.hasobject:
        raise TypeError("an array of Python objects has no meaning in another process")
    if readers < 1:
        raise ValueError(f"readers must be at least 1, not {readers}")
    block = _core.publish(a)
    if block is None:
        raise ValueError(
            "the array is not in a file arena or shared segment that is open for writing; "
            "copy it into one: arena.array(a)"
        )
    return _make(block, _view_of(block, a), readers=readers)


def put(arena: Arena, obj: object) -> Ref:
    """Store a picklable object in the arena; see `Arena.put`."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(stream), *(buffer.raw() for buffer in buffers)]
    places: list[tuple[int, int, bool]] = []
    end = 0
    for part in parts:
        places.append((end, part.nbytes, not part.readonly))
        end += -(-part.nbytes // _ALIGNMENT) * _ALIGNMENT
    target = arena.empty(max(end, 1), np.uint8)
    for part, (first, size, _) in zip(parts, places, strict=True):
        target[first : first + size] = np.frombuffer(part, np.uint8)
    block = _core.publish(target)
    if block is None:
        raise ValueError(
            "objects are put into a file arena or shared segment that is open for writing"
        )
    return _make(block, _view_of(block, target), tuple(places))


def _receive(
    place: _Place,
    token: tuple[int, int],
    view: tuple[Any, ...],
    buffers: _Buffers | None,
) -> Ref:
    """Take a message's hold over: what a pickled `Ref` calls."""
    return _make(attach(place, token), _View(*view), buffers)


def receive_array(
    place: _Place, token: tuple[int, int], view: tuple[Any, ...]
) -> np.ndarray[Any, Any]:
    """Return the array of a message: what an array pickled by reference calls."""
    _sharing.join()  # what goes back goes the same way
    return _core.array_over(attach(place, token), *view)


def send_array(
    a: np.ndarray[Any, Any],
) -> tuple[Callable[..., np.ndarray[Any, Any]], tuple[Any, ...]] | None:
    """Return what pickles the array by reference, None if it has to be copied."""
    if a.dtype.hasobject or (block := _core.publish(a)) is None:
        return None
    try:
        token = _core.send_block(block, 1)
    except MemoryError:  # too many messages on their way
        return None
    return receive_array, (_core.describe_block(block), token, tuple(_view_of(block, a)))


def attach(place: _Place, token: tuple[int, int] = _NO_TOKEN) -> Any:
    """Return the block of a message, opening its segment if need be."""
    shared, where, session, record, serial, offset = place
    found = _core.attach_block(session, record, serial, offset, *token)
    if found is not None:
        return found
    try:
        if shared:
            opened = _core.open_shared(where, "r+", 0, 0, 0o600)
        else:
            opened = _core.open_file(where, "r+", 0, 0, 0o600)
    except FileNotFoundError:
        raise StaleRefError(f"the segment of the reference is gone: {where!r}") from None
    except FormatError:
        raise StaleRefError(f"something else has the segment's name now: {where!r}") from None
    if opened.session != session:
        raise StaleRefError(
            f"{where!r} is not what it was when the reference was made: it has been made anew"
        )
    _keep_open((shared, where), opened)
    return _core.attach_block(session, record, serial, offset, *token)


def _keep_open(key: tuple[bool, str], opened: _core.Arena) -> None:
    """Keep a segment open for the next message, and let go of others."""
    with _process.lock:
        known = list(_attached.items())
    idle = [place for place, core in known if _is_idle(core)]
    dropped = []  # they go with this function: unmapping needs no lock
    with _process.lock:
        for place, core in known:
            if place in idle and _attached.get(place) is core:
                dropped.append(_attached.pop(place))
        dropped.append(_attached.pop(key, opened))
        _attached[key] = opened
        while len(_attached) > _MOST_ATTACHED:
            dropped.append(_attached.popitem(last=False)[1])


def _is_idle(core: _core.Arena) -> bool:
    """Whether nobody but us would keep the segment's memory."""
    try:
        return core.live_arrays == 0 and core.stats()["processes"] == 1
    except ClosedError:  # through an `arena_of`
        return True
