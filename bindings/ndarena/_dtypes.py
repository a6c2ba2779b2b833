"""Data types as bytes and back, the way `.npy` files write them; nothing is ever unpickled."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import CorruptionError

__all__ = ["decode", "encode"]


@lru_cache(maxsize=1024)
def encode(dtype: np.dtype[Any]) -> bytes:
    """Return the description of a data type.

    Raises
    ------
    TypeError
        If its elements are references to Python objects, or text of varying length.
    """
    if dtype.hasobject or dtype.kind == "T":
        raise TypeError(
            f"arrays of dtype {dtype} hold references to objects of this process and cannot be "
            "stored; convert it, for text to a fixed width (dtype 'U32') or bytes ('S32')"
        )
    descr = np.lib.format.dtype_to_descr(dtype)
    written = repr(descr).encode()
    if decode(written) != dtype:
        raise TypeError(f"dtype {dtype} cannot be stored: '.npy' files have no word for it")
    return written


@lru_cache(maxsize=1024)
def decode(written: bytes) -> np.dtype[Any]:
    """Return the data type of a description.

    Raises
    ------
    CorruptionError
        If it describes none.
    """
    try:
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(written.decode()))
    except (ValueError, TypeError, SyntaxError, KeyError, IndexError, MemoryError, RecursionError):
        raise CorruptionError(
            5, f"a stored array has the impossible data type {written[:80]!r}"
        ) from None
    if dtype.hasobject:
        raise CorruptionError(5, "a stored array claims to hold Python objects")
    return dtype
