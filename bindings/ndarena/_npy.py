"""The head of a `.npy` file: written and read as `numpy.lib.format` does, but never unpickled.

NumPy's own functions for it know two of the three versions, and refuse heads of more than
10,000 bytes, which types of many fields have.
"""

from __future__ import annotations

import ast
import math
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _dtypes

if TYPE_CHECKING:
    from typing import Protocol

    class Readable(Protocol):
        """What a head can be read from."""

        def read(self, size: int, /) -> bytes:
            """Return up to so many bytes."""


__all__ = ["Head", "flat", "read_head", "write_head"]

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_LONGEST = 2**20
_STRING = re.compile(r"""(?:b|u)?'(?:[^'\\]|\\.)*'|(?:b|u)?"(?:[^"\\]|\\.)*\"""")
# What is left of a literal without its strings: no operators, so nothing to compute.
_PLAIN = re.compile(r"(?:[\s{}()\[\],:\d]|True|False|None)*")
_LONG = re.compile(r"(?<=\d)L")  # Python 2 wrote shapes like (3L,)


class Head(NamedTuple):
    """What the head of a `.npy` file says."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int  # of the data, in bytes
    nbytes: int


def write_head(descr: bytes, shape: tuple[int, ...], *, fortran: bool) -> bytes:
    """Return the head of a `.npy` file, up to where the data begins.

    Parameters
    ----------
    descr : bytes
        The data type, as `_dtypes.encode` writes it.
    shape : tuple of int
        Shape of the array.
    fortran : bool
        Whether the data is in column-major order.

    Returns
    -------
    bytes
        In the oldest of the three versions that can say it.
    """
    text = (
        f"{{'descr': {descr.decode()}, 'fortran_order': {bool(fortran)}, "
        f"'shape': {tuple(shape)!r}, }}"
    )
    try:
        body, version = text.encode("latin1"), 1
    except UnicodeEncodeError:
        body, version = text.encode(), 3
    if version == 1 and len(body) + 1 + _ALIGNMENT > 2**16:
        version = 2
    size = struct.Struct("<H" if version == 1 else "<I")
    before = len(_MAGIC) + 2 + size.size
    padding = -(before + len(body) + 1) % _ALIGNMENT
    body += b" " * padding + b"\n"
    return _MAGIC + bytes((version, 0)) + size.pack(len(body)) + body


def read_head(file: Readable, where: str) -> Head:
    """Read the head of a `.npy` file and check all that it says.

    Parameters
    ----------
    file : file object
        At its start; afterwards at its data.
    where : str
        What to call it in messages.

    Returns
    -------
    Head
        Of an array that an arena can hold.

    Raises
    ------
    ValueError
        If it is not a `.npy` file, or a damaged one.
    TypeError
        If it holds Python objects.
    """
    magic = _exactly(file, len(_MAGIC) + 2, where)
    if magic[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"{where}: not a .npy file")
    version = (magic[-2], magic[-1])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{where}: version {version[0]}.{version[1]} of .npy is not known here")
    size = struct.Struct("<H" if version == (1, 0) else "<I")
    (length,) = size.unpack(_exactly(file, size.size, where))
    if length > _LONGEST:
        raise ValueError(f"{where}: a head of {length} bytes; {_LONGEST} is the most")
    body = _exactly(file, length, where)
    dtype, shape, fortran = _parse(body, "utf-8" if version == (3, 0) else "latin1", where)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes >= 2**63:
        raise ValueError(f"{where}: an array of shape {shape} is larger than any file")
    return Head(dtype, shape, fortran, len(magic) + size.size + length, nbytes)


def _exactly(file: Readable, size: int, where: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{where}: not a .npy file, or one that was cut short")
    return data


def _parse(body: bytes, encoding: str, where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    damaged = f"{where}: the head of the .npy file is damaged"
    try:
        text = body.decode(encoding)
        if not _PLAIN.fullmatch(_LONG.sub("", _STRING.sub("", text))):
            raise ValueError(damaged)
        said = ast.literal_eval(_without_longs(text).strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(damaged) from None
    if not isinstance(said, dict) or said.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(damaged)
    shape, fortran = said["shape"], said["fortran_order"]
    if (
        not isinstance(shape, tuple)
        or not all(type(n) is int for n in shape)
        or not isinstance(fortran, bool)
    ):
        raise ValueError(damaged)
    try:
        dtype = np.lib.format.descr_to_dtype(said["descr"])
    except (ValueError, TypeError, SyntaxError, KeyError, IndexError, OverflowError):
        raise ValueError(f"{where}: the impossible data type {said['descr']!r}") from None
    if dtype.hasobject:
        raise TypeError(
            f"{where}: the array holds pickled Python objects, which are never unpickled here; "
            "convert it to a fixed data type where it was made"
        )
    if dtype.subdtype is not None:
        raise ValueError(f"{where}: a data type with a shape of its own, {dtype}")
    _dtypes.encode(dtype)  # TypeError: nothing that an arena can hold
    return dtype, shape, fortran


def _without_longs(text: str) -> str:
    if "L" not in text:
        return text
    strings = _STRING.findall(text)
    between = [_LONG.sub("", part) for part in _STRING.split(text)]
    return "".join(part + string for part, string in zip(between, [*strings, ""], strict=True))


def flat(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the bytes of a contiguous array in the order in which they lie in memory.

    Parameters
    ----------
    array : numpy.ndarray
        Row-major or column-major.

    Returns
    -------
    numpy.ndarray
        A view.
    """
    if array.nbytes == 0:
        return np.empty(0, np.uint8)
    rows = array if array.flags.c_contiguous else array.T
    return rows.reshape(-1).view(np.uint8)
