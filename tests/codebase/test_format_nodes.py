"""The nodes in the format document are nodes: read here by the text, compared with in C++."""

from __future__ import annotations

import re
import struct
from itertools import pairwise

from tree import ROOT

PAGE = ROOT / "docs" / "design" / "format.md"
CPP_TEST = ROOT / "tests" / "cpp" / "directory" / "node.cpp"
ROW = re.compile(r"^\+([0-9a-f]{3})((?: {1,2}[0-9a-f]{2}){16})", re.MULTILINE)
UUID = bytes(range(0xA0, 0xB0))


def crc32c(data: bytes) -> int:
    """CRC-32C by its definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def dumps() -> list[dict[int, bytes]]:
    """Return the rows of each dump of a node, by their offset in it."""
    fences = re.findall(
        r"^```text\n(\+.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [{int(at, 16): bytes.fromhex(row) for at, row in ROW.findall(text)} for text in fences]


def page_of(rows: dict[int, bytes]) -> bytes:
    """Return the whole node: what a dump leaves out is zero."""
    page = bytearray(4096)
    for at, row in rows.items():
        page[at : at + 16] = row
    return bytes(page)


def entries_of(page: bytes) -> list[bytes]:
    """Check what every node has, and return its entries."""
    assert page[:8] == b"NDANODE\x1a"
    assert page[8:24] == UUID
    assert struct.unpack_from("<I", page, 4092)[0] == crc32c(page[:4092])
    count, used = struct.unpack_from("<HH", page, 42)
    ends = [*struct.unpack_from(f"<{count}H", page, 64), used]
    assert ends[0] == 64 + 2 * count
    assert not any(page[used:4092])
    return [page[first:end] for first, end in pairwise(ends)]


def test_the_leaf() -> None:
    page = page_of(dumps()[0])
    assert struct.unpack_from("<QQB", page, 24) == (0x10000, 3, 0)
    found = []
    for entry in entries_of(page):
        name, value = struct.unpack_from("<HH", entry)
        assert len(entry) == 4 + name + value
        found.append((entry[4 : 4 + name], entry[4 + name :]))
    assert found == [(b"a", b"1"), (b"ab", b""), (b"b", b"three")]


def test_the_inner_node() -> None:
    leaf, inner = dumps()
    page = page_of({0: leaf[0], **inner})
    assert struct.unpack_from("<QQB", page, 24) == (0x13000, 261, 1)
    found = [(*struct.unpack_from("<HIQQ", e), e[22:]) for e in entries_of(page)]
    assert found == [(0, 112, 0x10000, 3, b""), (1, 119, 0x11000, 258, b"m")]


def test_the_code_writes_the_same_bytes() -> None:
    expected = CPP_TEST.read_text("utf-8")
    for rows in dumps():
        assert len(rows) >= 7
        for at, row in rows.items():
            shown = row[12:] if at == 0xFF0 else row
            assert f'"{shown.hex(" ")} "' in expected, f"{at:#x}: {row.hex(' ')}"
