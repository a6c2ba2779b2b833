"""Reading and printing sizes."""

from __future__ import annotations

import numpy as np
import pytest

from ndarena._sizes import format_size, parse_capacity, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("100", 100),
        ("1B", 1),
        ("1 b", 1),
        ("1k", 1000),
        ("1kB", 1000),
        ("64 kB", 64_000),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("1 kib", 1024),
        ("1MB", 10**6),
        ("1MiB", 2**20),
        ("1GB", 10**9),
        ("1gb", 10**9),
        ("1GiB", 2**30),
        ("1.5GiB", 3 * 2**29),
        (".5KiB", 512),
        ("2.", 2),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("1PB", 10**15),
        ("1PiB", 2**50),
        ("  12 \t MB ", 12_000_000),
        ("MB", 10**6),
        ("1e9", 10**9),
        ("5e3 kB", 5_000_000),
        ("0.3GB", 300_000_000),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_text(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("value", [0, 4096, np.int64(4096), np.uint8(7), 2**63 - 1])
def test_integers_pass(value):
    size = parse_size(value)
    assert size == int(value)
    assert type(size) is int


@pytest.mark.parametrize(
    "text",
    ["", " ", "abc", "1XB", "1..5GB", "-1", "-1GB", "1G2", "0x10", "nan", "inf", "5%", "1e999"],
)
def test_unreadable(text):
    with pytest.raises(ValueError, match=r"'64 KiB'"):
        parse_size(text)


@pytest.mark.parametrize("value", [-1, 2**63, np.int64(-5)])
def test_out_of_range(value):
    with pytest.raises(ValueError, match="out of range"):
        parse_size(value)


@pytest.mark.parametrize("value", [None, 1.5, [1], b"1GB", True])
def test_wrong_type(value):
    with pytest.raises(TypeError, match="size in bytes"):
        parse_size(value)


def test_message_names_the_argument():
    with pytest.raises(ValueError, match=r"cannot read min_size 'many'"):
        parse_size("many", "min_size")


def test_shares():
    assert parse_capacity("50%", 1000) == 500
    assert parse_capacity(" 12.5 %", 1000) == 125
    assert parse_capacity("100%", 1000) == 1000
    assert parse_capacity("1kB", 10) == 1000
    with pytest.raises(ValueError, match="100%"):
        parse_capacity("101%", 1000)
    for nothing in ("0%", 0, "0GB"):
        with pytest.raises(ValueError, match="at least one byte"):
            parse_capacity(nothing, 1000)


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (100 * 1024, "100 KiB"),
        (1023 * 1024, "1023 KiB"),
        (2**20 - 1, "1.00 MiB"),
        (2**30, "1.00 GiB"),
        (10 * 2**30 - 1, "10.0 GiB"),
        (100 * 2**30 - 1, "100 GiB"),
        (2**40, "1.00 TiB"),
        (2**50, "1.00 PiB"),
        (2**60, "1.00 EiB"),
        (2**63 - 1, "8.00 EiB"),
    ],
)
def test_printing(nbytes, expected):
    assert format_size(nbytes) == expected


def test_printing_as_numpy_does():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, np.uint8)
    assert "1.00 EiB" in str(caught.value)
    assert format_size(2**60) == "1.00 EiB"
