"""Arenas that earlier versions wrote open, and hold what they held."""

from __future__ import annotations

import importlib.util
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
from named_arrays import assert_same

import ndarena

FOLDER = Path(__file__).parents[1] / "data" / "golden"
FILES = sorted(path.name for path in FOLDER.glob("*.nda.xz"))


def _load_maker():
    spec = importlib.util.spec_from_file_location("make_golden", FOLDER / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _load_maker()


@pytest.fixture
def unpack(tmp_path):
    """Return a path with the contents of a golden file."""

    def make(name):
        path = tmp_path / name.removesuffix(".xz")
        with lzma.open(FOLDER / name) as packed, path.open("wb") as file:
            shutil.copyfileobj(packed, file)
        return path

    return make


def assert_golden(arena):
    wanted = golden.contents()
    assert list(arena) == sorted(wanted)
    assert list(arena.keys("many/")) == [f"many/{i:03}" for i in range(golden.MANY)]
    for name, array in wanted.items():
        assert_same(arena[name], array)
        assert arena.attrs(name) == golden.attributes(name)
    assert arena.check() == []


def test_all_are_there():
    assert {name.split(".")[0] for name in FILES} == {
        "v1-closed",
        "v1-copied",
        "v1-large",
        "v1-snapshot",
    }


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
@pytest.mark.parametrize("name", FILES)
def test_opens(unpack, name, mode):
    path = unpack(name)
    with ndarena.open(path, mode) as arena:
        assert arena.alignment == (256 if "large" in name else 64)
        assert arena.capacity == (2**30 if "large" in name else 4 * 2**20)
        assert_golden(arena)
    with ndarena.open(path, mode) as arena:  # as that has left it
        assert_golden(arena)


@pytest.mark.parametrize("name", FILES)
def test_goes_on(unpack, name):
    """What an earlier version wrote is changed by this one."""
    path = unpack(name)
    with ndarena.open(path, "r+") as arena:
        arena["twin/a"][0] = 77
        assert arena["twin/b"][0] == 77  # one array with two names, still
        arena["twin/a"][0] = 0
        dropped = golden.contents()
        for key in list(arena):
            if key.startswith("many/") and not key.endswith("7"):
                del arena[key], dropped[key]
        arena["new"] = np.arange(1000)
        arena.attrs("wide")["new"] = 1
        arena.flush()
    with ndarena.open(path) as arena:
        assert sorted(arena) == sorted([*dropped, "new"])
        for key, array in dropped.items():
            assert_same(arena[key], array)
        assert arena["new"].sum() == 499500
        assert arena.attrs("wide") == {"new": 1}
        assert arena.check() == []


def test_this_version_writes_the_same(tmp_path):
    """The generator still runs, so that a new format can have its files."""
    golden.make(tmp_path)
    assert sorted(p.name + ".xz" for p in tmp_path.iterdir()) == FILES
    for path in tmp_path.iterdir():
        with ndarena.open(path) as arena:
            assert_golden(arena)
