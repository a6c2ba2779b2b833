"""The creation methods: NumPy's results, in the arena."""

from __future__ import annotations

import numpy as np
import pytest

import ndarena


def check(arena: ndarena.Arena, result: np.ndarray, expected: np.ndarray) -> None:
    assert type(result) is np.ndarray
    assert result.flags.owndata
    assert result.base is None
    assert arena.owns(result)
    assert ndarena.arena_of(result) is arena
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    # The stride of an axis of length 1 means nothing.
    for length, stride, wanted in zip(result.shape, result.strides, expected.strides, strict=True):
        assert length < 2 or stride == wanted
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", [float, "i2", ">f8", "M8[s]", "S5", "U3", [("a", "i4"), ("b", "f8")]]
)
@pytest.mark.parametrize("shape", [(), 0, 5, (2, 3), (3, 0, 2), [2, 2], np.int64(4)])
def test_shapes_dtypes_orders(arena, shape, dtype, order):
    check(arena, arena.zeros(shape, dtype, order), np.zeros(shape, dtype, order))
    empty = arena.empty(shape, dtype, order)
    empty[...] = np.zeros((), dtype)
    check(arena, empty, np.zeros(shape, dtype, order))


@pytest.mark.parametrize("order", ["C", "F"])
def test_ones_and_full(arena, order):
    check(arena, arena.ones((2, 3), order=order), np.ones((2, 3), order=order))
    check(arena, arena.ones(3, dtype="u1"), np.ones(3, "u1"))
    check(arena, arena.full((2, 3), 7, order=order), np.full((2, 3), 7, order=order))
    check(arena, arena.full((2, 3), [1, 2, 3.5]), np.full((2, 3), [1, 2, 3.5]))
    check(arena, arena.full(3, 2.9, dtype=int), np.full(3, 2.9, dtype=int))
    check(arena, arena.full(2, "ab"), np.full(2, "ab"))
    with pytest.raises(ValueError, match="broadcast"):
        arena.full((2, 3), [1, 2])


@pytest.mark.parametrize(
    "source",
    [
        5,
        [1, 2, 3],
        [[1, 2], [3, 4.5]],
        ["a", "bcd"],
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::-2],
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.array(3),
        np.zeros(0),
    ],
)
@pytest.mark.parametrize("order", ["K", "A", "C", "F"])
def test_array(scratch, source, order):
    check(scratch, scratch.array(source, order=order), np.array(source, order=order))
    check(
        scratch,
        scratch.array(source, ndmin=3, order=order),
        np.array(np.array(source, ndmin=3), order=order),
    )


def test_array_with_a_data_type(scratch):
    check(
        scratch,
        scratch.array([(1, 2.0)], [("a", int), ("b", float)]),
        np.array([(1, 2.0)], [("a", int), ("b", float)]),
    )
    check(scratch, scratch.array([1, 2], "f4"), np.array([1, 2], "f4"))
    check(scratch, scratch.array(np.array([1.5, 2.5]), "i8"), np.array([1, 2]))
    check(scratch, scratch.array(np.array([1, 222]), "S"), np.array([1, 222]).astype("S"))
    check(scratch, scratch.array(np.array(["a", "bcd"]), "S"), np.array([b"a", b"bcd"]))
    days = np.array(["2020-01-01"], "M8[D]")
    check(scratch, scratch.array(days, "M8"), np.array(days, "M8"))


def test_array_copies(scratch):
    a = scratch.array([1, 2])
    b = scratch.array(a)
    b[0] = 9
    assert a[0] == 1


def test_subclasses_become_exact(scratch):
    matrix = np.ones((2, 2)).view(np.matrix)
    masked = np.ma.array([1, 2], mask=[0, 1])
    for source in (matrix, masked):
        for function in (scratch.array, scratch.asarray, scratch.empty_like, scratch.zeros_like):
            assert type(function(source)) is np.ndarray


def test_asarray_keeps_its_own(scratch, make_arena):
    a = scratch.array(np.arange(6.0).reshape(2, 3))
    view = a[:, 1:]
    assert scratch.asarray(a) is a
    assert scratch.asarray(view) is view
    assert scratch.asarray(a, float) is a
    assert scratch.asarray(a, order="C") is a
    assert scratch.asarray(a, order="K") is a
    for result in (
        scratch.asarray(a, "f4"),
        scratch.asarray(a, ">f8"),
        scratch.asarray(a, order="F"),
        scratch.asarray(view, order="C"),
        scratch.asarray(a.tolist()),
        scratch.asarray(np.array(a)),
        make_arena().asarray(a),
    ):
        assert result is not a
        np.testing.assert_array_equal(result, view if result.shape == view.shape else a)
    assert scratch.owns(scratch.asarray(np.array(a)))
    assert scratch.asarray(a, order="F").flags.f_contiguous


@pytest.mark.parametrize("order", ["K", "A", "C", "F"])
@pytest.mark.parametrize(
    "prototype",
    [
        np.ones((2, 3)),
        np.ones((2, 3), order="F"),
        np.ones((2, 3, 4)).transpose(1, 0, 2),
        np.ones((4, 4))[::2, ::-1],
        np.array(["abc"]),
        np.zeros((), "M8[s]"),
    ],
)
def test_like(scratch, prototype, order):
    check(
        scratch, scratch.zeros_like(prototype, order=order), np.zeros_like(prototype, order=order)
    )
    result = scratch.empty_like(prototype, order=order)
    result[...] = prototype
    assert result.strides == np.empty_like(prototype, order=order).strides
    assert result.dtype == prototype.dtype
    assert scratch.owns(result)


def test_like_with_overrides(scratch):
    model = np.ones((2, 3), order="F")
    check(scratch, scratch.zeros_like(model, "i2", shape=(4,)), np.zeros(4, "i2"))
    check(scratch, scratch.zeros_like(model, shape=(3, 2)), np.zeros_like(model, shape=(3, 2)))
    check(
        scratch, scratch.zeros_like(model, shape=(3, 2, 1)), np.zeros_like(model, shape=(3, 2, 1))
    )
    check(scratch, scratch.zeros_like([1, 2]), np.zeros(2, int))
    assert scratch.empty_like(model, dtype="u1").nbytes == 6


def test_zeros_on_recycled_memory(arena):
    n = 2**20
    for _ in range(3):
        a = arena.full(n, 255, "u1")
        del a
        assert not arena.zeros(n, "u1").any()


def test_whatever_handler_is_current(make_arena):
    mine, other = make_arena(), make_arena()
    with other.handler(min_size="1MB", fallback=True):
        a = mine.ones(10)
        b = np.empty(2**20)
    with other.handler():
        c = mine.array([1, 2, 3])
        d = np.empty(3)
    assert mine.owns(a)
    assert mine.owns(c)
    assert other.owns(b)
    assert other.owns(d)
    assert other.live_arrays == 2


def test_leaves_the_handler_alone(scratch):
    for function in (scratch.zeros, scratch.ones, scratch.empty):
        function(10)
        with pytest.raises(MemoryError):
            function(scratch.capacity)
        with pytest.raises((TypeError, ValueError)):
            function("shape")
        assert not scratch.owns(np.empty(3))


def test_no_room(scratch, caplog):
    with caplog.at_level("DEBUG", logger="ndarena"), pytest.raises(MemoryError) as caught:
        scratch.ones(scratch.capacity)
    assert "Unable to allocate" in str(caught.value)
    if hasattr(caught.value, "__notes__"):
        assert any("ndarena.Arena" in note for note in caught.value.__notes__)
    assert any(record.getMessage().startswith("refused in") for record in caplog.records)


def test_object_arrays(scratch):
    things = [object(), None, "text"]
    a = scratch.array(things, dtype=object)
    assert scratch.owns(a)
    assert a.tolist() == things
