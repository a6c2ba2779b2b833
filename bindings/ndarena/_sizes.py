"""Sizes in bytes: reading what people write, printing what people read.

Reading follows dask's grammar, so ``"1GB"`` is 10**9 and ``"1GiB"`` is 2**30.
Printing uses binary units with three digits, as NumPy's own MemoryError does.
"""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from typing import SupportsIndex

__all__ = ["Size", "format_size", "parse_capacity", "parse_size"]

# Whatever a size argument of the public API may be.
Size = SupportsIndex | str

_LETTERS = "kmgtp"
_BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_UNITS: dict[str, int] = {"": 1, "b": 1}
for _power, _letter in enumerate(_LETTERS, start=1):
    _UNITS[_letter] = _UNITS[_letter + "b"] = 10 ** (3 * _power)
    _UNITS[_letter + "i"] = _UNITS[_letter + "ib"] = 2 ** (10 * _power)

_NUMBER = re.compile(r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:e\+?\d{1,2})?)?(?P<unit>[a-z]*)")
_PERCENT = re.compile(r"(\d+(?:\.\d*)?)%")
_EXAMPLE = "write bytes as an int or a string like '64 KiB', '1.5GiB' or '10GB'"
_LARGEST = 2**63 - 1


def parse_size(value: Size, what: str = "size") -> int:
    """Return a number of bytes from an int or a string with a unit.

    Parameters
    ----------
    value : int or str
        Bytes, or a number with a unit in any case: ``kB MB GB TB PB`` are powers of
        1000, ``KiB MiB GiB TiB PiB`` powers of 1024, the ``B`` may be left out, blanks
        are ignored, a unit alone means one of it. Fractions are rounded down.
    what : str, optional
        The argument's name, for the message.

    Returns
    -------
    int
        The size in bytes, from 0 to 2**63 - 1.

    Raises
    ------
    ValueError
        If the string cannot be read or the size is out of range.
    TypeError
        If `value` is neither a string nor an integer.

    Examples
    --------
    >>> parse_size("1GB"), parse_size("1GiB"), parse_size("64 kB"), parse_size(4096)
    (1000000000, 1073741824, 64000, 4096)
    """
    if isinstance(value, str):
        result = _parse_text(value, what)
    elif isinstance(value, bool):
        raise TypeError(f"{what} must be a size in bytes, not a bool: {_EXAMPLE}")
    else:
        try:
            result = operator.index(value)
        except TypeError:
            raise TypeError(
                f"{what} must be a size in bytes, not {type(value).__name__}: {_EXAMPLE}"
            ) from None
    if not 0 <= result <= _LARGEST:
        raise ValueError(f"{what} {value!r} is out of range (0 to 2**63 - 1 bytes): {_EXAMPLE}")
    return result


def _parse_text(text: str, what: str) -> int:
    match = _NUMBER.fullmatch("".join(text.split()).lower())
    if match is None or match["unit"] not in _UNITS or not match[0]:
        raise ValueError(f"cannot read {what} {text!r}: {_EXAMPLE}")
    return int(Decimal(match["number"] or 1) * _UNITS[match["unit"]])


def parse_capacity(value: Size, free: int, what: str = "capacity") -> int:
    """Return a capacity in bytes, where a string may also be a share of the free space.

    Parameters
    ----------
    value : int or str
        As for `parse_size`, or a percentage such as ``"50%"``.
    free : int
        Bytes that 100 % stands for.
    what : str, optional
        The argument's name, for the message.

    Returns
    -------
    int
        The capacity in bytes, at least 1.

    Raises
    ------
    ValueError
        If the string cannot be read, a share is not within 0 to 100 %, or nothing is left.

    Examples
    --------
    >>> parse_capacity("50%", free=4096)
    2048
    """
    share = _PERCENT.fullmatch("".join(value.split())) if isinstance(value, str) else None
    if share is None:
        result = parse_size(value, what)
    elif Decimal(share[1]) <= 100:
        result = int(free * Decimal(share[1]) / 100)
    else:
        raise ValueError(
            f"{what} {value!r} is more than all of the free space: write at most '100%'"
        )
    if result < 1:
        raise ValueError(f"{what} must be at least one byte, not {value!r}: {_EXAMPLE}")
    return result


def format_size(nbytes: int) -> str:
    """Return a size in binary units with three digits, as NumPy prints them.

    Parameters
    ----------
    nbytes : int
        The size in bytes.

    Returns
    -------
    str
        For example ``'1.50 GiB'``; below 1 KiB whole bytes.

    Examples
    --------
    >>> format_size(0), format_size(1536), format_size(10 * 2**30)
    ('0 bytes', '1.50 KiB', '10.0 GiB')
    """
    if abs(nbytes) < 1024:
        return f"{nbytes} byte" if abs(nbytes) == 1 else f"{nbytes} bytes"
    scaled = float(nbytes)
    power = 0
    while power == 0 or (abs(round(scaled)) >= 1024 and power < len(_BINARY)):
        scaled /= 1024
        power += 1
    digits = max(0, 3 - len(str(int(abs(scaled)))))
    if digits and round(abs(scaled), digits) >= 10 ** (3 - digits):
        digits -= 1
    return f"{scaled:.{digits}f} {_BINARY[power - 1]}"
