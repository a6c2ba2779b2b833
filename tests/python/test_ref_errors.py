"""References that are refused: what cannot be sent, what is stale, what was made up."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

import ndarena
from ndarena import StaleRefError


@pytest.fixture
def shared(make_arena):
    return make_arena("shared")


# --- refusals ----------------------------------------------------------------------------------


def test_what_has_no_reference(shared, make_arena):
    with pytest.raises(TypeError, match=r"ndarray, not of list"):
        ndarena.ref([1, 2, 3])
    with pytest.raises(TypeError, match="Python objects"):
        ndarena.ref(shared.array([object()], dtype=object))
    with pytest.raises(TypeError, match="Python objects"):
        ndarena.ref(np.zeros(3, [("a", "O"), ("b", "f8")]))
    with pytest.raises(ValueError, match=r"arena\.array\(a\)"):
        ndarena.ref(np.ones(10))
    for readers in (0, -1):
        with pytest.raises(ValueError, match="readers"):
            ndarena.ref(shared.ones(10), readers=readers)
    with pytest.raises(TypeError, match=r"ndarena\.ref"):
        ndarena.Ref()
    for kind in ("scratch", "buffer"):
        with pytest.raises(ValueError, match="file arena or shared segment"):
            ndarena.ref(make_arena(kind).ones(10))


def test_what_cannot_be_put(make_arena):
    for kind in ("scratch", "buffer"):
        with pytest.raises(ValueError, match="file arena or shared segment"):
            make_arena(kind).put([1, 2, 3])
    arena = make_arena("file")
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        arena.put(lambda: None)
    with pytest.raises(MemoryError):
        arena.put(np.empty(2 * arena.capacity, "u1"))
    assert arena.stats().n_blocks == 0
    with ndarena.open(arena.filename) as reader, pytest.raises(ndarena.ReadOnlyError):
        reader.put([1])
    arena.close()
    with pytest.raises(ndarena.ClosedError):
        arena.put([1])


def test_readers_of_a_file_open_it_for_writing(make_arena):
    """A reference is a hold, which takes a writer; mode r of the same file is another matter."""
    arena = make_arena("file")
    data = pickle.dumps(ndarena.ref(arena.full(10, 5)))
    with ndarena.open(arena.filename) as reader:
        a = pickle.loads(data).get()
        assert (a == 5).all()
        assert a.flags.writeable
        assert reader.mode == "r"


def test_a_full_table(make_arena):
    arena = make_arena("shared", 2**20)
    reference = ndarena.ref(arena.ones(3))
    messages = []

    def send_for_ever():
        while True:
            messages.append(pickle.dumps(reference))

    with pytest.raises(MemoryError, match="messages"):
        send_for_ever()
    assert len(messages) == arena.stats().in_transit > 100
    assert pickle.loads(messages.pop()).get().sum() == 3
    messages.append(pickle.dumps(reference))
    for message in messages:
        pickle.loads(message)
    assert arena.stats().in_transit == 0


# --- references that lead nowhere -----------------------------------------------------------


def parts_of(a: np.ndarray):
    """What a message about an array consists of."""
    return ndarena.ref(a).__reduce__()[1]


def test_stale_after_the_place_is_used_again(shared):
    data = pickle.dumps(ndarena.ref(shared.full(1000, 1)))
    address = pickle.loads(data).get().__array_interface__["data"]
    others = [shared.full(1000, 2) for _ in range(4)]
    assert address in [a.__array_interface__["data"] for a in others]
    with pytest.raises(StaleRefError):
        pickle.loads(data)


def test_stale_after_the_segment_is_gone(make_arena):
    for kind, gone in (("shared", "is gone"), ("file", "is gone")):
        arena = make_arena(kind)
        data = pickle.dumps(ndarena.ref(arena.full(1000, 1)))
        arena.unlink()
        arena.close()
        with pytest.raises(StaleRefError, match=gone) as caught:
            pickle.loads(data)
        assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("kind", ["file", "shared"])
def test_stale_after_the_segment_was_made_anew(tmp_path, kind):
    name = tmp_path / "a.nda" if kind == "file" else f"ndarena-test-{random.getrandbits(64):x}"
    opener = ndarena.open if kind == "file" else ndarena.shared

    with opener(name, "x", capacity="16MiB") as arena:
        data = pickle.dumps(ndarena.ref(arena.full(1000, 1)))
        arena.unlink()
    with opener(name, "x", capacity="16MiB") as arena:
        same_place = ndarena.ref(arena.full(1000, 2))
        with pytest.raises(StaleRefError, match="anew"):
            pickle.loads(data)
        assert arena.stats().in_transit == 0
        assert (same_place.get() == 2).all()
        arena.unlink()


def test_stale_after_something_else_took_the_name(tmp_path):
    path = tmp_path / "a.nda"
    with ndarena.open(path, "x", capacity="16MiB") as arena:
        data = pickle.dumps(ndarena.ref(arena.full(1000, 1)))
    path.unlink()
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(StaleRefError, match="something else"):
        pickle.loads(data)


def test_references_made_up_at_random(shared):
    arrays = [shared.full(100 + 50 * n, n, "u1") for n in range(40)]
    messages = [parts_of(a) for a in arrays]
    for _, token, *_ in messages:  # their tokens are not what is tried here
        assert token[0] < 2**32
    places = [message[0] for message in messages]
    alive = {place[2:]: n for n, place in enumerate(places)}
    del arrays[::4]
    for place, token, view, buffers in messages:  # take all tokens over, let all go
        ndarena._refs._receive(place, token, view, buffers)
    blocks = shared.stats().n_blocks
    rng = random.Random(7)
    served = 0
    for _ in range(20_000):
        a, b = rng.choice(places), rng.choice(places)
        record, serial, offset = (
            rng.choice((mine, mine, mine, other, mine + 1, rng.getrandbits(bits)))
            for mine, other, bits in zip(a[3:], b[3:], (32, 64, 64), strict=True)
        )
        record, serial, offset = record % 2**32, serial % 2**64, offset % 2**64
        token = (rng.choice((0, 3, rng.getrandbits(32))), rng.getrandbits(64))
        place = (*a[:3], record, serial, offset)
        try:
            got = ndarena._refs._receive(place, token, ("|u1", (50,), (1,), 0, True), None).get()
        except StaleRefError:
            continue
        served += 1
        assert (got == alive[place[2:]]).all()
    assert served > 1000
    assert shared.stats().n_blocks == blocks
    assert shared.stats().in_transit == 0


def test_views_that_leave_their_block(shared):
    """The receiver takes nothing on trust; the same numbers, judged by Python's integers."""
    a = shared.zeros(1000, "u1")
    neighbours = [shared.zeros(1000, "u1") for _ in range(3)]
    place, token, *_ = parts_of(a)
    ndarena._refs._receive(place, token, ("|u1", (1,), (1,), 0, True), None)
    rng = random.Random(11)
    sizes = (0, 1, 2, 3, 10, 1000, 1001, 2**31, 2**62, -1)
    steps = (0, 1, -1, 8, -8, 100, 1000, 2**31, -(2**62), 2**62)
    good = 0
    for _ in range(5000):
        ndim = rng.randrange(4)
        shape = tuple(rng.choice(sizes) for _ in range(ndim))
        strides = tuple(rng.choice(steps) for _ in range(ndim))
        dtype = rng.choice(("|u1", "<u4", "<f8", "|V16"))
        offset = rng.choice((0, 1, 8, 992, 999, 1000, 1001, -1, 2**40, rng.randrange(1000)))
        itemsize = np.dtype(dtype).itemsize
        extents = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
        low = offset + sum(e for e in extents if e < 0)
        high = offset + sum(e for e in extents if e > 0) + itemsize
        empty = 0 in shape
        inside = (
            all(n >= 0 for n in shape)
            and 0 <= offset <= 1000
            and (empty or (low >= 0 and high <= 1000))
        )
        view = (dtype, shape, strides, offset, True)
        try:
            got = ndarena._refs._receive(place, (2**32 - 1, 0), view, None).get()
        except ValueError:
            # NumPy has limits of its own on shapes that are empty or broadcast.
            assert not inside or empty or max(shape, default=0) >= 2**31
            continue
        assert inside
        assert got.shape == shape
        good += 1
    assert good > 200
    for bad in ("O", [("a", "O")], "no such type"):
        with pytest.raises((ValueError, TypeError)):
            ndarena._refs._receive(place, (2**32 - 1, 0), (bad, (1,), (1,), 0, True), None).get()
    assert all(not n.any() for n in neighbours)


def test_counts_come_back_after_errors(shared):
    a = shared.ones(100)
    place, token, view, buffers = parts_of(a)
    ndarena._refs._receive(place, token, view, buffers)
    wrong_serial = (*place[:4], place[4] ^ 1, place[5])
    for _ in range(1000):
        with pytest.raises(StaleRefError):
            ndarena._refs._receive(wrong_serial, token, view, buffers)
        with pytest.raises(ValueError, match="in its block"):
            ndarena._refs._receive(place, token, ("<f8", (101,), (8,), 0, True), None).get()
        with pytest.raises(TypeError):
            ndarena._refs._receive(place, token, ("no such", (1,), (8,), 0, True), None).get()
    del a
    assert (shared.live_arrays, shared.stats().n_blocks) == (0, 0)
