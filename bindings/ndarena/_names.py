"""Named arrays: an arena is a mutable mapping from names to arrays that outlive the process."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, _dtypes
from ._attrs import Attributes
from ._transactions import Transaction

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy.typing import ArrayLike, DTypeLike

    from ._creation import Shape

    Array = npt.NDArray[Any]

__all__ = ["NamesMixin", "NamesView"]

_BATCH = 1024  # names fetched at a time


class NamesView(KeysView[str]):
    """The names of an arena that start with a prefix, sorted, as they are at each moment."""

    __slots__ = ("_arena", "_prefix")

    def __init__(self, arena: NamesMixin, prefix: str) -> None:
        super().__init__(arena)
        self._arena = arena
        self._prefix = prefix

    def __len__(self) -> int:
        return sum(1 for _ in self) if self._prefix else len(self._arena)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self._prefix) and name in self._arena

    def __iter__(self) -> Iterator[str]:
        core = self._arena._open_core()
        after = None
        while names := _core.list_names(core, self._prefix, after, _BATCH):
            yield from names
            after = names[-1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"


class NamesMixin(MutableMapping[str, "Array"]):
    """The methods of `Arena` that know arrays by name."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _open_core(self) -> _core.Arena: ...

        def _writable_core(self) -> _core.Arena: ...

        def array(self, object: ArrayLike, *, order: Any = "K") -> Array: ...  # noqa: A002

        def zeros(self, shape: Shape, dtype: DTypeLike = float) -> Array: ...

    # An arena is the arena that it is, whatever its names: two are never equal for their content.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> Array:
        found = _core.load_named(self._open_core(), _checked(name), _dtypes.decode)
        if found is None:
            raise KeyError(name)
        return found

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        self._save(_checked(name), value, replace=True)

    def __delitem__(self, name: str) -> None:
        if not _core.erase_named(self._writable_core(), _checked(name)):
            raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "replace")) <= 1024:
            return False
        return _core.describe_named(self._open_core(), name) is not None

    def __len__(self) -> int:
        return _core.count_names(self._open_core())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self, prefix: str = "") -> NamesView:
        """Return the names, sorted; those that start with a prefix.

        Parameters
        ----------
        prefix : str, optional
            What the names start with.

        Returns
        -------
        NamesView
            A set-like view that follows the arena.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena["run/loss"], arena["run/step"], arena["test"] = [0.5], [1], [2]
        ...     list(arena.keys("run/"))
        ['run/loss', 'run/step']
        """
        self._open_core()
        return NamesView(self, prefix)

    def clear(self) -> None:
        """Remove all names, in one transaction."""
        with self.transaction():
            for name in list(self):
                del self[name]

    def rename(self, old: str, new: str) -> None:
        """Give an array another name. Its memory stays where it is.

        Parameters
        ----------
        old, new : str
            The present and the future name.

        Raises
        ------
        KeyError
            If there is no `old`.
        FileExistsError
            If there is a `new`.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena["a"] = [1, 2]
        ...     arena.rename("a", "b")
        ...     sorted(arena)
        ['b']
        """
        if not _core.rename(self._writable_core(), _checked(old), _checked(new)):
            raise KeyError(old)

    def require(self, name: str, shape: Shape, dtype: DTypeLike = float) -> Array:
        """Return the array of a name; make it, of zeros, if there is none.

        Parameters
        ----------
        name : str
            The name.
        shape : int or tuple of int
            Shape of the array.
        dtype : data-type, optional
            Its data type.

        Returns
        -------
        numpy.ndarray
            The stored array, not a copy.

        Raises
        ------
        ValueError
            If there is one of another shape or type; it is left alone.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena.require("counts", 3, int)[0] += 1
        ...     arena.require("counts", 3, int)
        array([1, 0, 0])
        """
        wanted = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)  # type: ignore[arg-type]
        type_wanted = np.dtype(dtype)
        try:
            found = self[name]
        except KeyError:
            made = self.zeros(shape, dtype)
            try:
                self._save(_checked(name), made, replace=False)
            except FileExistsError:
                found = self[name]  # another process has just made it
            else:
                return made
        if found.shape != tuple(int(n) for n in wanted) or found.dtype != type_wanted:
            raise ValueError(
                f"{name!r} is there with shape {found.shape} and dtype {found.dtype}, not "
                f"{wanted} and {type_wanted}"
            )
        return found

    def attrs(self, name: str) -> Attributes:
        """Return the attributes of a named array: small metadata, stored as JSON.

        Parameters
        ----------
        name : str
            The array's name.

        Returns
        -------
        collections.abc.MutableMapping
            From str to what JSON can say. Setting an item stores it; it becomes
            durable with the next `flush`.

        Raises
        ------
        KeyError
            If there is no such array.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena:
        ...     arena["speed"] = [1.0, 2.0]
        ...     arena.attrs("speed")["unit"] = "m/s"
        ...     dict(arena.attrs("speed"))
        {'unit': 'm/s'}
        """
        attributes = Attributes(self, _checked(name))
        len(attributes)  # KeyError
        return attributes

    def transaction(self, *, timeout: float | None = 60.0) -> Transaction:
        """Return a context manager: what is done to names in it happens at once, or not at all.

        Other processes, and other threads, see none of it until the ``with`` statement ends; an
        exception out of it undoes everything. An arena has one transaction at a time. Only
        names are protected: what is written into arrays is written.

        Parameters
        ----------
        timeout : float or None, optional
            Seconds to wait for another one to end. None waits until it does.

        Returns
        -------
        Transaction
            To be used in a ``with`` statement, once.

        Raises
        ------
        LockTimeoutError
            On entry, if another one was not over in time.
        ValueError
            On entry, if this thread has one already.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="1MiB") as arena, arena.transaction():
        ...     arena["x"], arena["y"] = [1, 2], [3, 4]
        """
        self._writable_core()
        return Transaction(self, timeout)

    def flush(self) -> None:
        """Make the names of now durable, and the arrays they stand for.

        When it returns, everything named is on the device, and a loss of power takes nothing
        of it. Arrays that are written to later may be a mixture of old and new pages after a
        loss of power, until the next flush. Arenas that are kept in memory have nothing to
        flush.

        Raises
        ------
        OSError
            If the device refused; from then on every flush of the arena does.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import os, tempfile, ndarena
        >>> path = os.path.join(tempfile.mkdtemp(), "a.nda")
        >>> with ndarena.open(path, "w", capacity="1GB") as arena:
        ...     arena["x"] = [1, 2, 3]
        ...     arena.flush()
        >>> os.unlink(path)
        """
        _core.flush(self._writable_core())

    def refresh(self) -> None:
        """See the newest names. In mode ``r`` an arena shows those of the moment it was opened.

        Arrays that were read before stay as they are.

        Examples
        --------
        >>> import os, tempfile, ndarena
        >>> path = os.path.join(tempfile.mkdtemp(), "a.nda")
        >>> with ndarena.open(path, "w", capacity="1GB") as arena, ndarena.open(path) as reader:
        ...     arena["x"] = [1, 2, 3]
        ...     before = list(reader)
        ...     reader.refresh()
        ...     before, list(reader)
        ([], ['x'])
        >>> os.unlink(path)
        """
        _core.refresh(self._open_core())

    def _require_free(self, name: str) -> None:
        if _checked(name) in self:
            raise FileExistsError(
                17, "there is an array of this name already; `require` returns it", name
            )

    def _save(self, name: str, value: ArrayLike, *, replace: bool) -> None:
        core = self._writable_core()
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("a masked array's mask would be lost: store .data and .mask")
        array = np.asarray(value)
        descr = _dtypes.encode(array.dtype)
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = self.array(array)
        _core.save_named(core, name, array, descr, replace)


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    return name
