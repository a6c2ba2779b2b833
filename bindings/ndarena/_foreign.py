"""Allocators of others as resources: Python callables, functions of C, libraries, Python's own."""

from __future__ import annotations

import abc
import ctypes
import operator
import os
from typing import TYPE_CHECKING, Any

from . import _core
from ._resources import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import CapsuleType

    from ._chains import Binding

    Address = int | None

__all__ = ["Callback", "Library", "PyMem", "PythonResource"]


class Callback(Resource):
    """Allocates by calling functions.

    Parameters
    ----------
    malloc : callable, int or str
        ``malloc(nbytes) -> address``. A Python callable; a function of `ctypes` or its address,
        which is called without Python; or the name of a symbol of this process. None and 0
        refuse. Addresses are multiples of 16.
    free : callable, int or str
        ``free(address)``.
    calloc : callable, int or str, optional
        ``calloc(count, size) -> address`` of zeros. By default what `malloc` gives is cleared.
    realloc : callable, int or str, optional
        ``realloc(address, nbytes) -> address``. By default memory moves when it changes its size.

    Raises
    ------
    TypeError
        If one of them is nothing that can be called, or if some are Python callables and others
        not.
    ValueError
        If the process has no such symbol.

    Notes
    -----
    Python callables may be called from any thread, with the GIL and without a pending exception.
    Arrays that they make are not their own business: they come from the handler that was current
    before. What they raise goes to `sys.unraisablehook`, and the request is refused. A function
    that `ctypes.CFUNCTYPE` made of a Python callable cannot refuse by raising, since `ctypes`
    keeps the exception to itself and returns anything: give the callable itself.

    Examples
    --------
    >>> import ctypes, numpy as np, ndarena
    >>> libc = ctypes.CDLL(None)
    >>> with ndarena.Callback(libc.malloc, libc.free) as callback:
    ...     a = np.ones(1000)
    >>> callback.stats().allocated
    8000
    """

    __slots__ = ("_functions", "_given")

    def __init__(self, malloc: Any, free: Any, calloc: Any = None, realloc: Any = None) -> None:
        super().__init__()
        named = {"malloc": malloc, "free": free, "calloc": calloc, "realloc": realloc}
        found = {name: _function(name, f) for name, f in named.items() if f is not None}
        for name in ("malloc", "free"):
            if name not in found:
                raise TypeError(f"{name} is to be a function, not None")
        if len({isinstance(f, int) for f in found.values()}) > 1:
            raise TypeError("either all functions are Python's or none is")
        self._functions: dict[str, Any] = found
        self._given = (malloc, free, calloc, realloc)  # what ctypes made lives as long as we

    def _bind(self, binding: Binding) -> _core.Resource:
        m, f = self._functions["malloc"], self._functions["free"]
        c, r = self._functions.get("calloc"), self._functions.get("realloc")
        if isinstance(m, int):
            return _core.wrap_functions(m, f, c or 0, r or 0, 0, self._counters)
        return _core.wrap_callables(m, f, c, r, binding.previous, False, self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        malloc = self._functions["malloc"]
        if isinstance(malloc, int):
            return f"callback({malloc:#x})"
        return f"callback({getattr(malloc, '__qualname__', type(malloc).__name__)})"


class PythonResource(Resource, abc.ABC):
    """Base of allocators written in Python.

    A subclass defines `allocate` and `deallocate`, and calls ``super().__init__()`` if it has an
    ``__init__`` of its own. They may be called from any thread, with the GIL and without a
    pending exception; arrays that they make come from the handler that was current before. What
    they raise goes to `sys.unraisablehook`, and the request is refused.

    Examples
    --------
    >>> import mmap, numpy as np, ndarena
    >>> class Pages(ndarena.PythonResource):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.maps = {}
    ...
    ...     def allocate(self, nbytes):
    ...         pages = mmap.mmap(-1, nbytes)
    ...         view = np.frombuffer(pages, np.uint8)
    ...         self.maps[view.ctypes.data] = pages
    ...         return view.ctypes.data
    ...
    ...     def deallocate(self, address, nbytes):
    ...         self.maps.pop(address).close()
    >>> with Pages() as pages:
    ...     a = np.ones(1000)
    >>> a.ctypes.data % mmap.PAGESIZE, len(pages.maps)
    (0, 1)
    """

    @abc.abstractmethod
    def allocate(self, nbytes: int) -> Address:
        """Return memory for NumPy.

        Parameters
        ----------
        nbytes : int
            How much, at least 1.

        Returns
        -------
        int or None
            The address, a multiple of 16; None or 0 refuses.
        """

    @abc.abstractmethod
    def deallocate(self, address: int, nbytes: int) -> None:
        """Take memory back.

        Parameters
        ----------
        address : int
            What `allocate` returned.
        nbytes : int
            What it was asked for.
        """

    def _bind(self, binding: Binding) -> _core.Resource:
        if not hasattr(self, "_counters"):
            raise TypeError(f"{type(self).__name__}.__init__() is to call super().__init__()")
        return _core.wrap_callables(
            self.allocate, self.deallocate, None, None, binding.previous, True, self._counters
        )

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return f"python({type(self).__name__})"


class Library(Resource):
    """Allocates from a shared library, without Python on the way.

    Parameters
    ----------
    library : str, os.PathLike or ctypes.CDLL
        The library, or its name for the dynamic linker. It stays loaded.
    malloc : str or None, optional
        Name of ``void *malloc(size_t)``; None if there is only `aligned_alloc`.
    free : str, optional
        Name of ``void free(void *)``.
    calloc, realloc : str, optional
        Names of these functions, if they are to be used. By default memory is cleared, and moves
        when it changes its size.
    aligned_alloc : str, optional
        Name of ``void *aligned_alloc(size_t alignment, size_t size)``, whose memory `free` takes
        back: for arrays that are to be aligned to more than 16 bytes.

    Raises
    ------
    OSError
        If the library cannot be loaded.
    ValueError
        If a symbol is missing, or if it is not the library's own: memory would be freed by
        somebody else's function.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.Library("libc.so.6", calloc="calloc", realloc="realloc") as library:
    ...     a = np.zeros(1000)
    >>> library.name, library.stats().n_live
    ('library(libc.so.6)', 1)
    """

    __slots__ = ("_addresses", "library")

    def __init__(
        self,
        library: str | os.PathLike[str] | ctypes.CDLL,
        malloc: str | None = "malloc",
        free: str = "free",
        *,
        calloc: str | None = None,
        realloc: str | None = None,
        aligned_alloc: str | None = None,
    ) -> None:
        super().__init__()
        loaded = library if isinstance(library, ctypes.CDLL) else ctypes.CDLL(os.fspath(library))
        self.library = loaded
        if malloc is None and aligned_alloc is None:
            raise ValueError("a library without malloc needs aligned_alloc")
        names = (malloc, free, calloc, realloc, aligned_alloc)
        self._addresses = [0 if name is None else _symbol(loaded, name) for name in names]
        homes = {os.path.basename(_home(address)) for address in self._addresses if address != 0}
        if len(homes) > 1:
            wanted = ", ".join(name for name in names if name is not None)
            raise ValueError(f"{wanted} come from several libraries: {', '.join(sorted(homes))}")

    def _bind(self, binding: Binding) -> _core.Resource:  # noqa: ARG002
        m, f, c, r, aligned = self._addresses
        return _core.wrap_functions(m, f, c, r, aligned, self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return f"library({os.path.basename(self.library._name or 'this process')})"


class PyMem(Resource):
    """Allocates from CPython, or from an allocator that is made like CPython's.

    Parameters
    ----------
    allocator : {'mem', 'raw', 'obj'}, capsule or int
        A domain of Python's memory interface, with whatever hooks it has at the moment:
        `tracemalloc`, or those of ``PYTHONMALLOC=debug``, which catch an overrun when the array
        is freed. Or a ``PyMemAllocatorEx`` structure: a capsule with its address, which is kept,
        or the address, which the caller keeps valid.
    gil : bool, optional
        Whether a structure is to be called with the GIL only. Domains know by themselves.

    Raises
    ------
    ValueError
        If there is no such domain, the address is null, or the capsule is a NumPy handler.

    Examples
    --------
    >>> import numpy as np, ndarena
    >>> with ndarena.PyMem("mem") as python:
    ...     a = np.ones(1000)
    >>> ndarena.handler_of(a), python.stats().allocated
    ('pymem(mem)', 8000)
    """

    __slots__ = ("_address", "_domain", "_gil", "_owner")

    def __init__(self, allocator: str | CapsuleType | int = "mem", *, gil: bool = True) -> None:
        super().__init__()
        self._domain, self._owner, self._address, self._gil = "", None, 0, bool(gil)
        if isinstance(allocator, str):
            if allocator not in ("raw", "mem", "obj"):
                raise ValueError(f"Python has domains 'raw', 'mem' and 'obj', not {allocator!r}")
            self._domain = allocator
        elif type(allocator).__name__ == "PyCapsule":
            self._owner, self._address = allocator, _pointer_of(allocator)
        else:
            self._address = operator.index(allocator)  # type: ignore[arg-type]
            if self._address == 0:
                raise ValueError("the address of a PyMemAllocatorEx is not null")

    def _bind(self, binding: Binding) -> _core.Resource:  # noqa: ARG002
        if self._domain:
            return _core.wrap_pymem_domain(self._domain[0], self._counters)
        return _core.wrap_pymem_table(self._address, self._gil, self._owner, self._counters)

    def _describe(self, binding: Binding | None) -> str:  # noqa: ARG002
        return f"pymem({self._domain or f'{self._address:#x}'})"


def _pointer_of(capsule: object) -> int:
    """Return the pointer in a capsule of any name but that of NumPy's handlers."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    if name == b"mem_handler":
        raise ValueError("this capsule is a NumPy handler; it can be an upstream as it is")
    return api.PyCapsule_GetPointer(capsule, name) or 0


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _home(address: int) -> str:
    """Return the file of the library that a function is in."""
    info = _DlInfo()
    if ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info)) == 0:
        raise ValueError(f"there is no function at address {address:#x}")
    return os.fsdecode(info.dli_fname)


def _symbol(library: ctypes.CDLL, name: str) -> int:
    try:
        function = getattr(library, name)
    except AttributeError:
        where = library._name or "this process"
        raise ValueError(f"{where} has no symbol {name!r}") from None
    return _address_of(function)


def _address_of(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _function(name: str, value: Any) -> int | Callable[..., Any]:
    """Return a Python callable as it is, everything else as an address."""
    if isinstance(value, str):
        return _symbol(ctypes.CDLL(None), value)
    if isinstance(value, ctypes._CFuncPtr):  # type: ignore[attr-defined]
        address = _address_of(value)
    elif hasattr(value, "__index__") and not isinstance(value, bool):
        address = operator.index(value)
    elif callable(value):
        return value  # type: ignore[no-any-return]
    else:
        raise TypeError(f"{name} is to be a function, not {type(value).__name__}")
    if address == 0:
        raise ValueError(f"{name} is a null pointer")
    return address
