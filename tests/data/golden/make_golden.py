"""Arenas of format 1 as this version writes them, for every later version to open.

``python make_golden.py FOLDER`` writes them anew, compressed. The files in the repository are not
replaced unless the format gets another number; then new ones are added.
"""

from __future__ import annotations

import lzma
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import ndarena

LONG_NAME = "long/" + "ü" * 509 + "x"  # 1,024 bytes
MANY = 300  # names: enough for a tree of two levels


def contents() -> dict[str, np.ndarray]:
    """Return the arrays by name."""
    structured = np.zeros(3, [("id", "<u4"), ("wert", ">f8", (2,)), ("tag", "S3")])
    structured["id"] = 7, 8, 9
    structured["wert"] = np.arange(6).reshape(3, 2) / 3
    structured["tag"] = b"a", b"bc", b"def"
    # The description of so many fields does not fit into a node.
    wide = np.zeros(2, [(f"a field with quite a long name, number {i}", "<i2") for i in range(300)])
    wide["a field with quite a long name, number 299"] = 1, -1
    arrays = {
        "zero dimensions": np.array(2.5),
        "no elements": np.empty((3, 0, 2), "f4"),
        "no bytes": np.zeros(3, "V0"),
        "bool": np.array([True, False, True]),
        "big-endian": np.arange(-3, 4, dtype=">i2"),
        "complex": np.arange(4, dtype="c8") * 1j,
        "fortran": np.asfortranarray(np.arange(24, dtype="f8").reshape(2, 3, 4)),
        "datetime": np.array(["2020-02-29", "NaT"], "M8[us]"),
        "timedelta": np.array([1, -1], "m8[7h]"),
        "unicode": np.array(["ä", "", "𝄞 beyond"]),
        "bytes": np.array([b"ab", b""], "S2"),
        "raw": np.array([b"12345678"], "V8"),
        "structured": structured,
        "wide": wide,
        "pages": np.repeat(np.arange(400, dtype="u2"), 100),
        "twin/a": np.arange(5),
        "twin/b": np.arange(5),
        LONG_NAME: np.array([1.5]),
    }
    arrays.update({f"many/{i:03}": np.full(i % 4, i) for i in range(MANY)})
    return arrays


def attributes(name: str) -> dict[str, object]:
    """Return the attributes of a name."""
    if name == "structured":
        return {"unit": "µm", "numbers": [1, 2.5, None, True], "nested": {"a": {}}}
    if name == "pages":
        return {"long": "x" * 5000}  # beside the node
    return {"number": int(name[-3:])} if name.startswith("many/") and name.endswith("7") else {}


def fill(arena: ndarena.Arena) -> None:
    """Store everything, in several transactions, between names that are dropped again."""
    arena["dropped/first"] = np.full(5000, 1)
    arena["twin/a"] = contents()["twin/a"]
    arena["twin/b"] = arena["twin/a"]
    for i, (name, array) in enumerate(contents().items()):
        if not name.startswith("twin/"):
            arena[name] = array
        for key, value in attributes(name).items():
            arena.attrs(name)[key] = value
        if i % 40 == 0:
            arena[f"dropped/{i}"] = np.full(i, i)
            arena.flush()
    for name in list(arena.keys("dropped/")):
        del arena[name]


def make(folder: Path) -> None:
    """Write every golden file into a folder, not compressed."""
    with ndarena.open(folder / "v1-closed.nda", "x", capacity="4MiB") as arena:
        fill(arena)
    # While it is in use, with changes that were not flushed: these are lost.
    with ndarena.open(folder / "live", "x", capacity="4MiB") as arena:
        fill(arena)
        arena.flush()
        del arena["raw"]
        arena["pages"] = [1]
        arena["not flushed"] = [1]
        shutil.copyfile(folder / "live", folder / "v1-copied.nda")
    os.unlink(folder / "live")
    with ndarena.open(folder / "v1-closed.nda") as arena:
        arena.snapshot(folder / "v1-snapshot.nda")
    # The geometry of large arenas, and another alignment.
    with ndarena.open(folder / "v1-large.nda", "x", capacity="1GiB", alignment=256) as arena:
        fill(arena)


def main() -> None:
    """Write the compressed files."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        for path in sorted(Path(name).iterdir()):
            packed = lzma.compress(path.read_bytes(), preset=9)
            (target / f"{path.name}.xz").write_bytes(packed)


if __name__ == "__main__":
    main()
