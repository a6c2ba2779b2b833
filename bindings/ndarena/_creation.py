"""Array creation inside an arena, with NumPy's signatures and without a handler."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar, cast

import numpy as np

from . import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from numpy.typing import ArrayLike, DTypeLike

    Array = npt.NDArray[Any]
    Shape = SupportsIndex | Sequence[SupportsIndex]
    Order = Literal["C", "F"]
    AnyOrder = Literal["K", "A", "C", "F"]

__all__ = ["CreationMixin"]

_log = logging.getLogger("ndarena")

_Method = TypeVar("_Method", bound="Callable[..., Any]")


def _nameable(method: _Method) -> _Method:
    """Handle the argument `name` of a creation method: look first, name what was made."""

    @wraps(method)
    def make(self: Any, *args: Any, name: str | None = None, **keywords: Any) -> Array:
        if name is None:
            made: Array = method(self, *args, **keywords)
            return made
        self._require_free(name)
        made = method(self, *args, **keywords)
        self._save(name, made, replace=False)
        return made

    return cast("_Method", make)


class CreationMixin:
    """The creation methods of `Arena`.

    All of them return an exact `numpy.ndarray` that owns its data inside this arena,
    whatever handler is current, and raise MemoryError when there is no room.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def _writable_core(self) -> _core.Arena: ...

        def owns(self, a: Array) -> bool: ...

    @contextmanager
    def _allocating(self) -> Iterator[None]:
        """Make this arena the current handler; refusals get their cause as a note."""
        core = self._writable_core()
        previous = _core.set_handler(core.make_handler(0, False))
        try:
            yield
        except MemoryError as error:
            cause = core.last_error() or "the arena has no room for it"
            _log.debug("refused in %r: %s", self, cause)
            if hasattr(error, "add_note"):
                error.add_note(f"{self!r}: {cause}")
            raise
        finally:
            _core.set_handler(previous)

    @_nameable
    def empty(
        self, shape: Shape, dtype: DTypeLike = float, order: Order = "C", *, name: str | None = None
    ) -> Array:
        """Return a new array without setting its values, like `numpy.empty`.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array.
        dtype : data-type, optional
            Its data type.
        order : {'C', 'F'}, optional
            Row-major or column-major.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     arena.empty((2, 3), dtype="f4").shape
        (2, 3)
        """
        with self._allocating():
            return np.empty(shape, dtype, order)

    @_nameable
    def zeros(
        self, shape: Shape, dtype: DTypeLike = float, order: Order = "C", *, name: str | None = None
    ) -> Array:
        """Return a new array of zeros, like `numpy.zeros`.

        Memory that has never been used is known to be zero and is not written.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array.
        dtype : data-type, optional
            Its data type.
        order : {'C', 'F'}, optional
            Row-major or column-major.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.zeros(3)
        >>> a
        array([0., 0., 0.])
        """
        with self._allocating():
            return np.zeros(shape, dtype, order)

    @_nameable
    def ones(
        self, shape: Shape, dtype: DTypeLike = float, order: Order = "C", *, name: str | None = None
    ) -> Array:
        """Return a new array of ones, like `numpy.ones`.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array.
        dtype : data-type, optional
            Its data type.
        order : {'C', 'F'}, optional
            Row-major or column-major.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.ones(2, dtype=int)
        >>> a
        array([1, 1])
        """
        return self.full(shape, 1, dtype, order)

    @_nameable
    def full(
        self,
        shape: Shape,
        fill_value: ArrayLike,
        dtype: DTypeLike | None = None,
        order: Order = "C",
        *,
        name: str | None = None,
    ) -> Array:
        """Return a new array filled with a value, like `numpy.full`.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array.
        fill_value : scalar or array_like
            The value, broadcast to `shape`.
        dtype : data-type, optional
            Its data type; that of `fill_value` otherwise.
        order : {'C', 'F'}, optional
            Row-major or column-major.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.full(2, 7)
        >>> a
        array([7, 7])
        """
        value = np.asarray(fill_value)
        result = self.empty(shape, value.dtype if dtype is None else dtype, order)
        np.copyto(result, value, casting="unsafe")
        return result

    @_nameable
    def array(
        self,
        object: ArrayLike,  # noqa: A002  NumPy's name
        dtype: DTypeLike | None = None,
        *,
        order: AnyOrder = "K",
        ndmin: int = 0,
        name: str | None = None,
    ) -> Array:
        """Return a copy of anything array-like, like `numpy.array`.

        Parameters
        ----------
        object : array_like
            What to copy. Where it is not an array yet, it becomes one outside the arena
            first.
        dtype : data-type, optional
            Data type of the result.
        order : {'K', 'A', 'C', 'F'}, optional
            Memory layout of the result; 'K' keeps that of `object`.
        ndmin : int, optional
            The least number of dimensions; axes are put in front.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena, always a copy.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.array([1, 2, 3], ndmin=2)
        >>> a
        array([[1, 2, 3]])
        """
        if isinstance(object, np.ndarray):
            source = np.asarray(object)
            target = source.dtype if dtype is None else _resolved(np.dtype(dtype), source)
        else:
            source = np.asarray(object, dtype)
            target = source.dtype
        source = source[(None,) * (ndmin - source.ndim)] if ndmin > source.ndim else source
        with self._allocating():
            result = np.empty_like(source, target, order, subok=False)
        np.copyto(result, source, casting="unsafe")
        return result

    @_nameable
    def asarray(
        self,
        a: ArrayLike,
        dtype: DTypeLike | None = None,
        order: AnyOrder | None = None,
        *,
        name: str | None = None,
    ) -> Array:
        """Return an array of this arena with the values of `a`, copied only if needed.

        Parameters
        ----------
        a : array_like
            Anything array-like.
        dtype : data-type, optional
            Data type of the result.
        order : {'K', 'A', 'C', 'F'}, optional
            Memory layout of the result.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            `a` itself if that is an exact array in this arena with this data type and
            layout, a copy in this arena otherwise.

        Raises
        ------
        MemoryError
            If a copy does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or a copy is needed in one opened in mode ``r``.

        Examples
        --------
        >>> import ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.asarray([1, 2])
        ...     arena.asarray(a) is a
        True
        """
        if (
            type(a) is np.ndarray
            and self.owns(a)
            and (dtype is None or np.dtype(dtype) == a.dtype)
            and (order != "C" or a.flags.c_contiguous)
            and (order != "F" or a.flags.f_contiguous)
        ):
            return a
        return self.array(a, dtype, order=order or "K")

    @_nameable
    def empty_like(
        self,
        prototype: ArrayLike,
        dtype: DTypeLike | None = None,
        order: AnyOrder = "K",
        *,
        shape: Shape | None = None,
        name: str | None = None,
    ) -> Array:
        """Return a new array shaped like another without setting its values.

        Parameters
        ----------
        prototype : array_like
            Gives shape, data type and layout. Subclasses are not kept.
        dtype : data-type, optional
            Overrides the data type.
        order : {'K', 'A', 'C', 'F'}, optional
            Overrides the memory layout; 'K' keeps it.
        shape : int or tuple of int, optional
            Overrides the shape.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     arena.empty_like(np.ones((2, 3), order="F")).flags.f_contiguous
        True
        """
        model = np.asarray(prototype)
        with self._allocating():
            return np.empty_like(model, dtype, order, subok=False, shape=shape)

    @_nameable
    def zeros_like(
        self,
        prototype: ArrayLike,
        dtype: DTypeLike | None = None,
        order: AnyOrder = "K",
        *,
        shape: Shape | None = None,
        name: str | None = None,
    ) -> Array:
        """Return a new array of zeros shaped like another.

        Parameters
        ----------
        prototype : array_like
            Gives shape, data type and layout. Subclasses are not kept.
        dtype : data-type, optional
            Overrides the data type.
        order : {'K', 'A', 'C', 'F'}, optional
            Overrides the memory layout; 'K' keeps it.
        shape : int or tuple of int, optional
            Overrides the shape.
        name : str, optional
            Name that it gets in the arena; one that is taken is a FileExistsError.

        Returns
        -------
        numpy.ndarray
            Owned by this arena.

        Raises
        ------
        MemoryError
            If it does not fit.
        ClosedError, ReadOnlyError
            If the arena has been closed, or opened in mode ``r``.

        Examples
        --------
        >>> import numpy as np, ndarena
        >>> with ndarena.scratch(capacity="64MiB") as arena:
        ...     a = arena.zeros_like(np.ones(2))
        >>> a
        array([0., 0.])
        """
        model = np.asarray(prototype)
        wanted = model.dtype if dtype is None else np.dtype(dtype)
        ndim = model.ndim if shape is None else np.empty(shape, "V0").ndim
        plain = _plain_order(model, order, ndim)
        if plain is not None and wanted.itemsize:
            return self.zeros(model.shape if shape is None else shape, wanted, plain)
        result = self.empty_like(model, dtype, order, shape=shape)
        np.copyto(result, np.zeros((), result.dtype), casting="unsafe")
        return result


def _resolved(wanted: np.dtype[Any], source: Array) -> np.dtype[Any]:
    """Complete a data type that leaves its length ('S') or unit ('M8') to the values."""
    if not wanted.itemsize:
        return source.astype(wanted).dtype
    if wanted.kind in "mM":
        return np.empty(0, source.dtype).astype(wanted).dtype
    return wanted


def _plain_order(model: Array, order: AnyOrder, ndim: int) -> Order | None:
    """Return the order that gives the layout asked for, None where neither does."""
    if order in ("C", "F"):
        return order
    if order == "K" and ndim != model.ndim:
        return "C"
    if model.flags.c_contiguous:
        return "C"
    if model.flags.f_contiguous:
        return "F"
    return "C" if order == "A" else None
