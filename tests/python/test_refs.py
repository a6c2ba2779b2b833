"""References: what they keep of an array, and how long they hold it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import ndarena
from ndarena import StaleRefError


@pytest.fixture(params=["file", "shared"])
def arena(request, make_arena):
    """An arena that other processes can open."""
    return make_arena(request.param)


@pytest.fixture
def shared(make_arena):
    return make_arena("shared")


def trip(a: np.ndarray) -> np.ndarray:
    return pickle.loads(pickle.dumps(ndarena.ref(a))).get()


def assert_same(b: np.ndarray, a: np.ndarray) -> None:
    """The same memory, seen in the same way."""
    assert b is not a
    assert (b.dtype, b.shape, b.strides) == (a.dtype, a.shape, a.strides)
    assert b.__array_interface__["data"] == a.__array_interface__["data"]
    flags = ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED")
    assert [b.flags[f] for f in flags] == [a.flags[f] for f in flags]
    assert b.tobytes() == a.tobytes()


def base(arena) -> np.ndarray:
    return arena.array(np.arange(24.0).reshape(4, 6))


VIEWS = {
    "whole": lambda a: a,
    "part": lambda a: a[1:3, 2:],
    "steps": lambda a: a[::2, ::3],
    "backwards": lambda a: a[::-1, ::-2],
    "one column": lambda a: a[:, 3],
    "transposed": lambda a: a.T,
    "element": lambda a: a[2, 3, ...],
    "new axis": lambda a: a[:, None, :, None],
    "empty": lambda a: a[2:2],
    "empty at the end": lambda a: a[4:, 6:],
    "broadcast": lambda a: np.broadcast_to(a[1], (1000, 6)),
    "windows": lambda a: np.lib.stride_tricks.sliding_window_view(a[0], 3),
    "other type": lambda a: a.view("u4"),
    "unaligned": lambda a: a.view("u1").ravel()[1:81].view("f8"),
    "real part": lambda a: a.view("c16").imag,
    "view of a view of a view": lambda a: a[1:][1:][:, ::-1],
    "through a memoryview": lambda a: np.frombuffer(memoryview(a)[1:]),
    "most dimensions": lambda a: a.ravel()[:1].reshape((1,) * 32),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(shared, view):
    v = VIEWS[view](base(shared))
    assert shared.owns(v)
    assert_same(trip(v), v)


def test_what_only_looks_like_a_view(shared):
    """An array whose base is one of the arena, but whose elements are elsewhere."""

    class Liar:
        def __init__(self, base, elsewhere):
            self.base, self.__array_interface__ = base, elsewhere.__array_interface__

    elsewhere = np.ones(10)
    liar = np.asarray(Liar(shared.ones(10), elsewhere))
    assert liar.base.__class__ is Liar
    with pytest.raises(ValueError, match="file arena or shared segment"):
        ndarena.ref(liar)


def test_read_only(shared):
    a = base(shared)
    v = a[1:]
    v.flags.writeable = False
    b = trip(v)
    assert_same(b, v)
    with pytest.raises(ValueError, match="read-only"):
        b[0] = 1
    a[1] = 99
    assert (b[0] == 99).all()


NESTED = np.dtype([("a", "i1"), ("b", [("x", ">f4"), ("y", "S3", (2, 2))]), ("when", "M8[us]")])
DTYPES = {
    "bool": "?",
    "complex": "c8",
    "half, big endian": ">f2",
    "long double": "g",
    "datetime": "M8[25s]",
    "timedelta": ">m8[ns]",
    "unicode": "U7",
    "unicode, other byte order": ">U7",
    "bytes": "S5",
    "nameless bytes": "V9",
    "nothing": "V0",
    "record": NESTED,
    "aligned record": np.dtype([("a", "i1"), ("b", "f8")], align=True),
    "gaps": np.dtype({"names": ["a", "b"], "formats": ["u2", "f4"], "offsets": [6, 1]}),
    "padded": np.dtype({"names": ["a"], "formats": ["u1"], "itemsize": 33}),
    "titles": np.dtype({"names": ["a"], "formats": ["f8"], "titles": ["the first"]}),
    "sub-array": np.dtype(("f4", (2, 3))),
    "metadata": np.dtype("f8", metadata={"unit": "m"}),
}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_dtypes(shared, dtype):
    a = shared.zeros(5, dtype)
    a.view("u1" if a.dtype.itemsize else a.dtype).ravel()[...] = (
        np.arange(a.nbytes) % 2 if a.dtype.itemsize else a
    )
    b = trip(a)
    assert_same(b, a)
    assert b.dtype.metadata == a.dtype.metadata
    assert b.dtype.isalignedstruct == a.dtype.isalignedstruct
    assert ndarena.ref(a).dtype == a.dtype


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes(shared, shape, order):
    a = shared.full(shape, 7, order=order)
    b = trip(a)
    assert_same(b, a)
    reference = ndarena.ref(a)
    assert (reference.shape, reference.nbytes) == (shape, a.nbytes)


def test_both_write(arena):
    a = arena.zeros(1000)
    b = trip(a)
    a[::2] = 1
    assert b.sum() == 500
    b[1::2] = 2
    assert a.sum() == 1500


# --- the sender's array --------------------------------------------------------------------


def test_the_array_becomes_a_view(shared):
    a = shared.ones(1000)
    assert a.flags.owndata
    assert a.base is None
    ndarena.ref(a)
    assert not a.flags.owndata
    assert a.base is not None
    assert ndarena.arena_of(a) is shared
    assert shared.owns(a)
    with pytest.raises(ValueError, match="own"):
        a.resize(2000, refcheck=False)


def test_views_made_before_and_after(shared):
    a = shared.array(np.arange(1000))
    before = a[10:20]
    reference = ndarena.ref(a)
    after = a[10:20]
    del a
    assert_same(after, before)
    del before
    assert (reference.get()[10:20] == after).all()
    del reference
    assert (after == np.arange(10, 20)).all()
    assert shared.stats().n_blocks == 1
    del after
    assert shared.stats().n_blocks == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elision looks at the C stack")
@pytest.mark.nosan  # NumPy looks at who called it, and meets the sanitizer
def test_temporaries_are_not_written_into(shared):
    """NumPy computes `f() + 1` in f's result, if nobody else seems to have it."""
    sent = []

    def make(send):
        a = shared.full(2**18, 1.0)  # 2 MiB; it happens from 256 KiB on
        if send:
            sent.append(pickle.dumps(ndarena.ref(a)))
        return a

    b = make(send=False) + 1
    assert shared.owns(b), "else this test shows nothing"
    b = make(send=True) + 1
    assert not shared.owns(b)
    assert (b == 2).all()
    assert (pickle.loads(sent[0]).get() == 1).all()


def test_pickling_an_array_copies_it(shared):
    a = shared.ones(100_000)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(a, protocol)
        assert len(data) > a.nbytes
        assert not shared.owns(pickle.loads(data))
    assert a.flags.owndata, "nobody has published it"


# --- copies ----------------------------------------------------------------------------------


def test_copies_of_a_reference(shared):
    reference = ndarena.ref(shared.ones(10))
    assert copy.copy(reference) is reference
    assert copy.deepcopy(reference) is reference
    assert copy.deepcopy({"a": [reference]})["a"][0] is reference
    assert shared.stats().in_transit == 0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(arena, protocol):
    a = arena.array(np.arange(1000))
    data = pickle.dumps(ndarena.ref(a), protocol)
    assert len(data) < 600
    assert arena.stats().in_transit == 1
    del a
    assert arena.live_arrays == 0
    assert arena.stats().n_blocks == 1
    reference = pickle.loads(data)
    assert arena.stats().in_transit == 0
    again = pickle.loads(data)  # weak: the first still has it
    assert (reference.get() == np.arange(1000)).all()
    assert_same(again.get(), reference.get())
    del reference, again
    assert arena.stats().n_blocks == 0
    with pytest.raises(StaleRefError, match="nobody held it"):
        pickle.loads(data)


def test_readers(arena):
    data = pickle.dumps(ndarena.ref(arena.full(1000, 3), readers=3))
    for _ in range(3):
        assert arena.stats().in_transit == 1
        assert (pickle.loads(data).get() == 3).all()
    assert (arena.stats().in_transit, arena.stats().n_blocks) == (0, 0)
    with pytest.raises(StaleRefError):
        pickle.loads(data)


def test_one_reference_sent_many_times(shared):
    reference = ndarena.ref(shared.ones(10))
    messages = [pickle.dumps(reference) for _ in range(100)]
    assert len(set(messages)) == 100
    assert shared.stats().in_transit == 100
    received = [pickle.loads(message) for message in messages]
    assert shared.stats().in_transit == 0
    del reference, received[1:]
    assert received[0].get().sum() == 10


def test_repr(shared):
    reference = ndarena.ref(shared.ones((2, 3), "f4"))
    assert repr(reference) == (f"<Ref to an array of shape (2, 3), float32, in {shared.name!r}>")
    assert "an object of" in repr(shared.put([1]))


# --- objects ---------------------------------------------------------------------------------


def test_objects(arena):
    obj = {
        "c": np.arange(1000.0).reshape(10, 100),
        "f": np.asfortranarray(np.arange(60).reshape(5, 12)),
        "empty": np.empty((0, 3)),
        "scalar": np.array(7),
        "nested": [{"deep": (np.ones(5, ">i2"), "text", b"bytes", None)}],
        "object": np.array(["a", None, 3], dtype=object),
        "twice": None,
    }
    obj["twice"] = obj["c"]
    reference = arena.put(obj)
    assert (reference.shape, reference.dtype) == (None, None)
    got = pickle.loads(pickle.dumps(reference)).get()
    assert got.keys() == obj.keys()
    for key in ("c", "f", "empty", "scalar", "object"):
        assert (got[key] == obj[key]).all()
        assert got[key].dtype == obj[key].dtype
        assert got[key].shape == obj[key].shape
    assert got["f"].flags.f_contiguous
    assert got["nested"][0]["deep"][0].tolist() == [1] * 5
    assert got["nested"][0]["deep"][1:] == ("text", b"bytes", None)
    assert got["twice"] is got["c"]
    for key in ("c", "f"):
        assert got[key].__array_interface__["data"][0] % 64 == 0
    again = reference.get()
    assert again["c"] is not got["c"]
    got["c"][0, 0] = -1
    assert again["c"][0, 0] == -1, "one memory"
    assert obj["c"][0, 0] == 0, "a copy of the caller's"
    del reference, again
    assert got["f"].sum() == 60 * 59 // 2
    assert arena.stats().n_blocks == 1
    del got
    assert arena.stats().n_blocks == 0


@pytest.mark.parametrize("obj", [None, 0, "", b"", [], {}, np.empty(0), "x" * 100_000])
def test_plain_objects(shared, obj):
    got = shared.put(obj).get()
    assert type(got) is type(obj)
    assert np.array_equal(got, obj) if isinstance(obj, np.ndarray) else got == obj


def test_read_only_parts_stay_read_only(shared):
    a, b = np.arange(10), np.arange(10)
    a.flags.writeable = False
    first, second, third = shared.put([a, b, pickle.PickleBuffer(b"bytes")]).get()
    assert not first.flags.writeable
    assert second.flags.writeable
    assert bytes(third) == b"bytes"


def test_parts_of_objects_are_sent_on(shared):
    got = shared.put({"a": np.arange(1000)}).get()
    b = trip(got["a"][::2])
    del got
    assert (b == np.arange(0, 1000, 2)).all()
    assert shared.stats().n_blocks == 1


def test_pandas(shared):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(1000), "b": np.linspace(0, 1, 1000)})
    got = shared.put(frame).get()
    pandas.testing.assert_frame_equal(got, frame)
    assert shared.owns(got["b"].to_numpy())


# --- nothing is left ------------------------------------------------------------------------


def test_counts_come_back(shared):
    dtype = np.dtype([("a", "i4"), ("b", "f8", (3,))])
    a = shared.zeros(100, dtype)
    ndarena.ref(a)  # published
    address = a.ctypes.data
    before = [sys.getrefcount(x) for x in (a, a.base, dtype, ndarena.Ref)]
    for turn in range(10_000):
        reference = ndarena.ref(a[turn % 50 :])
        data = pickle.dumps(reference)
        b = pickle.loads(data).get()
        assert b.ctypes.data == address + (turn % 50) * dtype.itemsize
    del reference, data, b
    after = [sys.getrefcount(x) for x in (a, a.base, dtype, ndarena.Ref)]
    assert after == before
    stats = shared.stats()
    assert (shared.live_arrays, stats.n_blocks, stats.in_transit) == (1, 1, 0)
    del a
    assert (shared.live_arrays, shared.stats().n_blocks) == (0, 0)


def test_arrays_outlive_the_closed_arena(shared):
    data = pickle.dumps(ndarena.ref(shared.full(1000, 4)))
    a = pickle.loads(data).get()
    name = shared.name
    shared.close()
    assert (a == 4).all()
    b = trip(a)  # a closed arena's arrays can still be sent
    with ndarena.shared(name, "r+") as again:
        assert again.owns(b)
        del a, b
        assert again.stats().n_blocks == 0


READER = """
import pickle, sys
data = sys.stdin.buffer.read()
array = pickle.loads(data).get()       # ndarena is imported by this
assert array.flags.writeable
print(int(array.sum()))
array[:] = 2
"""


def test_a_process_that_knows_nothing(arena):
    """A message is all that a reader needs."""
    a = arena.ones(1000)
    data = pickle.dumps(ndarena.ref(a))
    result = subprocess.run([sys.executable, "-c", READER], input=data, capture_output=True)
    assert (result.stdout, result.stderr) == (b"1000\n", b"")
    assert a.sum() == 2000
    assert arena.stats().in_transit == 0
    assert arena.check() == []
