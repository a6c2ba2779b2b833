"""Named arrays: the mapping, what is stored, what is shared, what is refused."""

import math
import os
from collections.abc import MutableMapping

import numpy as np
import pytest

import ndarena

NAMES = ["x", "run/weights", "ümlaut/数", " ", "a\nb", "n" * 1024, "\0"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.nda"


@pytest.fixture
def arena(path):
    with ndarena.open(path, "w", capacity="64MiB") as arena:
        yield arena
        assert arena.check() == []


ARRAYS = {
    "plain": np.arange(10.0),
    "empty": np.zeros((0, 3), "f4"),
    "scalar": np.array(7, "i8"),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "cube": np.arange(24, dtype="u1").reshape(2, 3, 4),
    "big-endian": np.arange(5, dtype=">i4"),
    "structured": np.array([(1, 2.5, b"abc")], dtype=[("a", "<i2"), ("b", ">f8"), ("c", "S5")]),
    "padded": np.zeros(3, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "nested": np.zeros(2, dtype=[("p", [("x", "f4"), ("y", "f4")]), ("m", "f8", (2, 2))]),
    "dates": np.array(["2026-11-23", "NaT"], "M8[D]"),
    "spans": np.array([1, 2], "m8[25us]"),
    "text": np.array(["ab", "c", ""], "U7"),
    "bytes": np.array([b"ab", b"\0c"], "S3"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "half": np.array([1.5], "f2"),
    "void": np.zeros(2, "V5"),
    "many": np.zeros((1,) * 32),
    "wide": np.zeros(2, dtype=[(f"a rather long field name {i}", "f8") for i in range(60)]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_kind_comes_back(path, kind):
    a = ARRAYS[kind]
    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena[kind] = a
        b = arena[kind]
        assert type(b) is np.ndarray
        assert (b.dtype, b.shape) == (a.dtype, a.shape)
        assert b.tobytes("A") == a.tobytes("A")
        assert b.flags.f_contiguous == a.flags.f_contiguous
        assert b.flags.c_contiguous == a.flags.c_contiguous
        assert b.flags.aligned
        assert arena.check() == []
    del b
    for mode in "r", "r+":
        with ndarena.open(path, mode) as arena:
            assert arena[kind].dtype == a.dtype
            assert arena[kind].tobytes("A") == a.tobytes("A")
            assert arena[kind].flags.writeable == (mode == "r+")


def test_mapping(arena):
    assert isinstance(arena, MutableMapping)
    assert len(arena) == 0
    assert list(arena) == []
    for i, name in enumerate(NAMES):
        arena[name] = i
    assert sorted(arena) == list(arena) == sorted(NAMES)
    assert len(arena) == len(NAMES)
    assert list(arena.values()) == [NAMES.index(n) for n in sorted(NAMES)]
    assert dict(arena)["x"] == 0
    assert arena.get("nothing") is None
    assert arena.pop("x") == 0
    assert "x" not in arena
    assert 5 not in arena
    assert "" not in arena
    with pytest.raises(KeyError, match="nothing"):
        arena["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        del arena["nothing"]
    arena.update(one=1, two=2)
    assert arena.setdefault("one", 9) == 1
    assert arena.keys("t") == {"two"}
    assert len(arena.keys("o")) == 1
    assert "two" not in arena.keys("o")
    assert arena.keys() & {"one", "three"} == {"one"}
    arena.clear()
    assert len(arena) == 0
    assert bool(arena)


def test_an_arena_is_equal_to_itself_only(arena, tmp_path):
    with ndarena.open(tmp_path / "b.nda", "w", capacity="1MiB") as other:
        arena["x"] = other["x"] = 1
        assert arena == arena
        assert arena != other
        assert len({arena, other}) == 2


def test_more_names_than_one_batch(arena):
    with arena.transaction():
        for i in range(3000):
            arena[f"{i:05}"] = i
    assert list(arena) == [f"{i:05}" for i in range(3000)]
    assert [int(a) for a in arena.values()] == list(range(3000))
    assert len(arena.keys("001")) == 100


@pytest.mark.parametrize("name", ["", "n" * 1025, "ü" * 513, "\ud800"])
def test_impossible_names(arena, name):
    with pytest.raises(ValueError, match=r"name|surrogates"):
        arena[name] = 1
    with pytest.raises((ValueError, KeyError)):
        arena[name]


@pytest.mark.parametrize("name", [5, None, b"x", ("a", "b")])
def test_names_are_text(arena, name):
    with pytest.raises(TypeError, match="str"):
        arena[name] = 1
    with pytest.raises(TypeError, match="str"):
        arena[name]


@pytest.mark.parametrize(
    "value",
    [
        np.array([None, {}]),
        np.zeros(2, dtype=[("a", "O")]),
        np.ma.masked_array([1, 2], [True, False]),
        object(),
    ],
)
def test_what_cannot_be_stored(arena, value):
    with pytest.raises(TypeError):
        arena["x"] = value
    assert "x" not in arena


@pytest.mark.skipif(
    not hasattr(getattr(np, "dtypes", None), "StringDType"), reason="NumPy 2 has StringDType"
)
def test_varying_text_cannot_be_stored(arena):
    with pytest.raises(TypeError, match="fixed width"):
        arena["x"] = np.array(["a"], np.dtypes.StringDType())


def test_naming_does_not_copy(arena):
    a = arena.zeros((1000, 100))
    before = arena.nbytes
    arena["a"] = a
    assert arena.nbytes < before + 20000
    assert arena.offset_of(arena["a"]) == arena.offset_of(a)
    a[3] = 5
    assert arena["a"][3, 7] == 5
    arena["b"] = a
    assert arena.offset_of(arena["b"]) == arena.offset_of(a)
    with arena.handler():
        c = np.ones(10**5)
    arena["c"] = c
    assert arena.offset_of(arena["c"]) == arena.offset_of(c)


def test_a_named_array_no_longer_owns_its_memory(arena):
    a = arena.ones(10**5)
    arena["a"] = a
    assert not a.flags.owndata
    with pytest.raises(ValueError, match="resize"):
        a.resize(5)

    def named():
        return arena["a"]

    assert (named() + 1)[0] == 2
    assert arena["a"][0] == 1


def test_parts_are_copied(arena):
    a = arena.array(np.arange(100.0))
    arena["part"] = a[10:20]
    arena["step"] = a[::3]
    arena["all"] = a.reshape(10, 10)
    a[:] = -1
    assert list(arena["part"]) == list(range(10, 20))
    assert list(arena["step"]) == list(range(0, 100, 3))
    assert arena["all"][0, 0] == -1


def test_arrays_outlive_their_names(arena):
    arena["x"] = np.arange(10**5)
    a = arena["x"]
    del arena["x"]
    arena.flush()
    arena["y"] = np.zeros(10**5)
    assert a.sum() == sum(range(10**5))
    arena["x"] = a
    assert arena.offset_of(arena["x"]) == arena.offset_of(a)


def test_space_comes_back(arena):
    arena["x"] = 1
    arena.flush()
    before = arena.nbytes
    for i in range(50):
        arena["x"] = np.full(10**5, i)
        arena[str(i)] = np.zeros(1000)
        del arena[str(i)]
    assert arena.nbytes < before + 3 * 10**6
    arena["x"] = 1
    arena.flush()
    assert arena.nbytes == before


def test_rename(arena):
    arena["a"], arena["b"] = [1, 2], [3]
    arena.attrs("a")["k"] = 1
    arena.rename("a", "c")
    assert sorted(arena) == ["b", "c"]
    assert arena.attrs("c") == {"k": 1}
    with pytest.raises(FileExistsError, match="b"):
        arena.rename("c", "b")
    with pytest.raises(KeyError, match="zzz"):
        arena.rename("zzz", "y")
    arena.rename("c", "c")
    assert list(arena["c"]) == [1, 2]


def test_require(arena):
    a = arena.require("a", (2, 3), "i4")
    assert not a.any()
    a[1, 2] = 5
    assert arena.require("a", (2, 3), "i4")[1, 2] == 5
    for shape, dtype in ((3, "i4"), ((2, 3), "f4")):
        with pytest.raises(ValueError, match="'a' is there"):
            arena.require("a", shape, dtype)
    assert arena.require("b", 4).shape == (4,)


def test_creation_with_names(arena):
    made = {
        "empty": arena.empty(3, name="empty"),
        "zeros": arena.zeros(3, name="zeros"),
        "ones": arena.ones(3, name="ones"),
        "full": arena.full(3, 7, name="full"),
        "array": arena.array([1, 2, 3], name="array"),
        "asarray": arena.asarray([1, 2, 3], name="asarray"),
        "empty_like": arena.empty_like(np.ones(3), name="empty_like"),
        "zeros_like": arena.zeros_like(np.ones(3), name="zeros_like"),
    }
    for name, a in made.items():
        a[0] = 42
        assert arena[name][0] == 42
    allocated = arena.nbytes
    with pytest.raises(FileExistsError, match="zeros"):
        arena.zeros(10**5, name="zeros")
    assert arena.nbytes == allocated
    assert arena["zeros"].shape == (3,)


def test_attrs(arena, path):
    arena["x"] = 1
    attrs = arena.attrs("x")
    attrs["unit"] = "m/s"
    attrs.update(scale=2.5, tags=["a", "ü"], nothing=None, deep={"k": [1, {"j": True}]})
    assert dict(arena.attrs("x")) == {
        "unit": "m/s",
        "scale": 2.5,
        "tags": ["a", "ü"],
        "nothing": None,
        "deep": {"k": [1, {"j": True}]},
    }
    del attrs["unit"]
    with pytest.raises(KeyError, match="unit"):
        attrs["unit"]
    with pytest.raises(TypeError):
        attrs["bad"] = object()
    with pytest.raises(TypeError, match="str"):
        attrs[5] = 1
    attrs["inf"] = math.inf
    attrs["long"] = "l" * 100_000
    with pytest.raises(ValueError, match="most"):
        attrs["longer"] = "l" * 2_000_000
    assert len(attrs) == 6
    with pytest.raises(KeyError, match="y"):
        arena.attrs("y")
    arena["x"] = 2
    assert dict(arena.attrs("x")) == {}, "a new array has none"
    arena.attrs("x")["kept"] = True
    with ndarena.open(path) as reader:
        assert dict(reader.attrs("x")) == {"kept": True}
        with pytest.raises(ndarena.ReadOnlyError):
            reader.attrs("x")["other"] = 1


@pytest.mark.parametrize("kind", ["scratch", "shared", "buffer"])
def test_names_in_memory(kind):
    arenas = {
        "scratch": lambda: ndarena.scratch(capacity="4MiB"),
        "shared": lambda: ndarena.shared(capacity="4MiB"),
        "buffer": lambda: ndarena.Arena(bytearray(1 << 20)),
    }
    with arenas[kind]() as arena:
        a = arena.array([1, 2, 3])
        arena["a"] = a
        assert arena.offset_of(arena["a"]) == arena.offset_of(a)
        before = arena.nbytes
        del a
        for i in range(100):
            arena["a"] = np.full(1000, i)
        arena["a"] = 1
        assert arena.nbytes <= before
        arena.flush()
        assert arena.check() == []


def test_closed_and_read_only(path):
    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena["x"] = 1
    for act in (
        lambda: arena["x"],
        lambda: arena.__setitem__("x", 1),
        lambda: list(arena),
        lambda: len(arena),
        lambda: arena.flush(),
        lambda: arena.transaction(),
        lambda: arena.attrs("x"),
    ):
        with pytest.raises(ndarena.ClosedError):
            act()
    with ndarena.open(path) as reader:
        for act in (
            lambda: reader.__setitem__("x", 1),
            lambda: reader.__delitem__("x"),
            lambda: reader.rename("x", "y"),
            lambda: reader.flush(),
            lambda: reader.transaction(),
            lambda: reader.zeros(3, name="z"),
        ):
            with pytest.raises(ndarena.ReadOnlyError):
                act()
        a = reader["x"]
    assert a == 1


def test_nothing_is_unpickled(path, monkeypatch):
    def boom(*_args, **_kwargs):
        raise AssertionError("unpickled")

    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena["x"] = np.zeros(3, dtype=[("a", "f8")])
    monkeypatch.setattr("pickle.loads", boom)
    monkeypatch.setattr("pickle.load", boom)
    data = path.read_bytes()
    hostile = data.replace(b"[('a', '<f8')]", b"[('a', '|O' )]")
    assert hostile != data
    path.write_bytes(hostile)
    with pytest.raises(ndarena.CorruptionError), ndarena.open(path) as arena:
        arena["x"]


def test_full_arena(path):
    with ndarena.open(path, "w", capacity="4MiB") as arena:
        arena["x"] = np.ones(10**5)
        with pytest.raises(MemoryError, match="no room"):
            arena["y"] = np.ones(10**6)
        with pytest.raises(MemoryError, match="no room"):
            arena["x"] = np.ones(10**6)
        assert list(arena) == ["x"]
        assert arena["x"].sum() == 10**5
        for i in range(40):  # flushes by itself when the old ones are in the way
            arena["x"] = np.full(10**5, i)
        assert arena["x"][0] == 39
        assert arena.check() == []


def test_size_on_disk(tmp_path):
    path = tmp_path / "sizes.nda"
    payload = 0
    with ndarena.open(path, "w", capacity="1GiB") as arena:
        for i in range(2000):
            a = np.full(1024, i, "f4")
            arena[f"{i}"] = a
            payload += a.nbytes
        arena.flush()
        arena.trim()
    used = os.stat(path).st_blocks * 512
    assert used < 1.25 * payload, used / payload


def test_a_transaction_sees_what_it_made_beyond_the_old_end(path):
    with ndarena.open(path, "w", capacity="64MiB") as arena, arena.transaction():
        arena["big"] = np.ones(10**6)
        assert arena["big"].sum() == 10**6
        arena["big"] = arena["big"][:10]
        assert arena["big"].shape == (10,)
