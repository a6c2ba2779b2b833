"""Arrays of every kind that a name can stand for."""

from __future__ import annotations

import numpy as np

STRUCTURED = [("id", "<u4"), ("größe", ">f8", (2, 2)), ("tag", "S3"), ("wann", "<M8[ms]")]


def every_kind() -> dict[str, np.ndarray]:
    """Return name and array; equal on every call."""
    structured = np.zeros(5, STRUCTURED)
    structured["id"] = np.arange(5)
    structured["größe"] = np.arange(20).reshape(5, 2, 2) / 3
    structured["tag"] = [b"a", b"bc", b"def", b"", b"\0x"]
    structured["wann"] = np.arange(5)
    wide = np.zeros(3, [(f"column number {i}", "<f4") for i in range(1000)])
    wide["column number 999"] = [1, 2, 3]
    return {
        "0-d": np.array(2.5),
        "big-endian": np.arange(7, dtype=">i2"),
        "bool": np.array([True, False, True]),
        "complex/64": np.arange(4, dtype="c8") * 1j,
        "complex/fortran": np.asfortranarray(np.arange(24, dtype="c16").reshape(2, 3, 4)),
        "datetime": np.array(["2020-02-29", "NaT"], "M8[us]"),
        "empty": np.empty(0, "f4"),
        "empty/of three dimensions": np.empty((3, 0, 2), ">u8"),
        "float16": np.linspace(0, 1, 11, dtype="f2"),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "no bytes": np.zeros(3, "V0"),
        "one/two/three/four": np.arange(100_003, dtype="u1"),
        "raw": np.array([b"12345678"], "V8"),
        "structured": structured,
        "structured/0-d": structured[1:2].reshape(()),
        "structured/wide": wide,
        "timedelta": np.array([1, -1], "m8[7h]"),
        "unicode": np.array(["ä", "", "𝄞 beyond"]),
        "ü/ñ": np.array([1.5]),
    }


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same to the byte, and laid out the same way."""
    assert type(found) is np.ndarray
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.flags.f_contiguous == wanted.flags.f_contiguous
    assert found.flags.c_contiguous == wanted.flags.c_contiguous
    assert found.tobytes("A") == wanted.tobytes("A")
