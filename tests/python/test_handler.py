"""Handlers: where they are active, where not, and what comes after them."""

from __future__ import annotations

import contextvars
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ndarena
from ndarena import _core


def inside(arena: ndarena.Arena) -> bool:
    """Whether NumPy allocates in `arena` here and now."""
    return arena.owns(np.empty(16))


def test_with(arena):
    before = np.empty(10)
    with arena.handler() as handler:
        assert isinstance(handler, ndarena.ArenaHandler)
        a = np.arange(1000.0)
        b = a * 2 + 1
        assert type(b) is np.ndarray
        assert arena.owns(a)
        assert arena.owns(b)
    assert not inside(arena)
    assert not arena.owns(before)
    assert ndarena.handler_of(a) == ndarena.handler_of(b) != "default_allocator"
    assert (b == np.arange(1000) * 2 + 1).all()


def test_restores_on_exceptions(scratch):
    with pytest.raises(KeyError), scratch.handler():
        raise KeyError
    assert not inside(scratch)
    for leave in ("return", "break"):

        def body(leave=leave):
            for _ in range(2):
                with scratch.handler():
                    if leave == "return":
                        return
                    break

        body()
        assert not inside(scratch)


def test_nesting(make_arena):
    outer, inner = make_arena(), make_arena()
    with outer.handler():
        with inner.handler():
            assert inside(inner)
            with outer.handler():
                assert inside(outer)
            assert inside(inner)
        assert inside(outer)
    assert not inside(outer)


def test_reentrance(scratch):
    handler = scratch.handler()
    for _ in range(3):
        with handler, handler, handler:
            with handler:
                assert inside(scratch)
            assert inside(scratch)
        assert not inside(scratch)


def test_deep_reentrance_with_chains(scratch):
    handler = scratch.handler(min_size=1000, fallback=True)
    depth = 200
    for _ in range(depth):
        handler.__enter__()
    small, large, huge = np.empty(1), np.empty(1000), np.empty(scratch.capacity, "u1")
    for _ in range(depth):
        handler.__exit__(None, None, None)
    assert [scratch.owns(a) for a in (small, large, huge)] == [False, True, False]


def test_exit_without_enter(scratch):
    with pytest.raises(RuntimeError, match="not active"):
        scratch.handler().__exit__(None, None, None)


def test_exit_in_another_context(scratch):
    handler = scratch.handler()
    context = contextvars.Context()
    context.run(handler.__enter__)
    with pytest.raises(RuntimeError, match="not active"):
        handler.__exit__(None, None, None)
    context.run(handler.__exit__, None, None, None)
    assert not context.run(inside, scratch)


def test_left_out_of_order(make_arena):
    first, second = make_arena(), make_arena()
    one, two = first.handler(), second.handler()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert inside(second)
    two.__exit__(None, None, None)
    assert not inside(first)
    assert not inside(second)


def test_a_handler_keeps_its_arena(tmp_path):
    handler = ndarena.scratch(dir=tmp_path, capacity="16MiB").handler()
    with handler:
        a = np.ones(100)
    assert handler.arena.owns(a)
    handler.arena.close()


def test_no_capsule_is_left(scratch):
    live = _core.handler_live_capsules()
    handler = scratch.handler(min_size=8, fallback=True)
    for _ in range(1000):
        with handler, handler:
            np.empty(10)
    assert _core.handler_live_capsules() == live


def test_min_size(scratch):
    with scratch.handler(min_size="1kB"):
        assert not scratch.owns(np.empty(999, "u1"))
        assert scratch.owns(np.empty(1000, "u1"))
    with pytest.raises(ValueError, match="min_size"):
        scratch.handler(min_size="huge")


def test_min_size_chain(make_arena):
    small, large = make_arena(), make_arena()
    with small.handler(), large.handler(min_size=1000):
        a, b = np.empty(10, "u1"), np.empty(1000, "u1")
    assert small.owns(a)
    assert large.owns(b)
    # Outside of the chain, each is resized by the handler that it came with.
    for array in (a, b):
        array.resize(5000, refcheck=False)
    assert ndarena.handler_of(a) != "default_allocator"


def test_fallback(make_arena):
    small = make_arena(capacity=2**20)
    with small.handler(fallback=True):
        a = np.ones(2**21, "u1")
    assert not small.owns(a)
    with small.handler(), pytest.raises(MemoryError, match="Unable to allocate"):
        np.ones(2**21, "u1")
    with small.handler():
        assert inside(small)


def test_fallback_chain(make_arena):
    small, large = make_arena(capacity=2**20), make_arena()
    with large.handler(), small.handler(fallback=True):
        a, b = np.empty(1000, "u1"), np.empty(2**21, "u1")
    assert small.owns(a)
    assert large.owns(b)


def test_growing_across_a_fallback(make_arena):
    """An array that outgrows its arena moves to the handler below, values and all."""
    small = make_arena(capacity=2**20)
    with small.handler(fallback=True):
        a = np.arange(1000)
        a.resize(2**18, refcheck=False)
    assert (a[:1000] == np.arange(1000)).all()
    assert not a[1000:].any()


def test_threads_start_with_the_default(scratch):
    seen = []
    with scratch.handler():
        thread = (
            threading.Thread(
                target=lambda: seen.append(inside(scratch)), context=contextvars.Context()
            )
            if "context" in inspect.signature(threading.Thread).parameters
            else threading.Thread(target=lambda: seen.append(inside(scratch)))
        )
        thread.start()
        thread.join()
    assert seen == [False]


def test_one_handler_in_many_threads(scratch):
    handler = scratch.handler()
    ready = threading.Barrier(4)

    def work():
        results = []
        for turn in range(50):
            with handler:
                ready.wait()
                results.append(inside(scratch))
                if turn % 2:
                    with handler:
                        results.append(inside(scratch))
            results.append(not inside(scratch))
        return all(results)

    with ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(work) for _ in range(4)])
    assert not inside(scratch)


def test_decorated_function(scratch):
    @scratch.handler()
    def work(n: int) -> np.ndarray:
        """Do it."""
        if n == 0:
            raise KeyError
        return np.ones(n) if n == 1 else np.concatenate([work(n - 1), np.ones(1)])

    assert work.__name__ == "work"
    assert work.__doc__ == "Do it."
    assert scratch.owns(work(5))
    assert not inside(scratch)
    with pytest.raises(KeyError):
        work(0)
    assert not inside(scratch)


def test_decorated_method(scratch):
    class Thing:
        @scratch.handler(min_size=8)
        def make(self, n):
            return np.empty(n)

    assert scratch.owns(Thing().make(3))


def test_copied_context(scratch):
    with scratch.handler():
        context = contextvars.copy_context()
    assert context.run(inside, scratch)
    assert not inside(scratch)
    assert not contextvars.Context().run(inside, scratch)


def test_copied_context_keeps_the_mapping_not_the_arena_open(scratch):
    with scratch.handler():
        context = contextvars.copy_context()
    scratch.close()
    with pytest.raises(MemoryError):
        context.run(np.empty, 10)


def test_disable(scratch, monkeypatch):
    handler = scratch.handler()
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    with handler:
        assert not inside(scratch)
        monkeypatch.delenv("NDARENA_DISABLE")
        with handler:
            assert inside(scratch)
        monkeypatch.setenv("NDARENA_DISABLE", "1")
        assert not inside(scratch)
    assert handler(lambda: inside(scratch))() is False
    monkeypatch.setenv("NDARENA_DISABLE", "0")
    assert handler(lambda: inside(scratch))() is True
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    assert scratch.owns(scratch.zeros(3))


def test_disabled_then_left_enabled(scratch, monkeypatch):
    handler = scratch.handler()
    handler.__enter__()
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    handler.__exit__(None, None, None)
    monkeypatch.delenv("NDARENA_DISABLE")
    assert not inside(scratch)


def test_exception_pending_while_freeing(scratch):
    """Arrays die during unwinding; the exception must survive it."""

    def work():
        local = np.ones(1000)
        raise KeyError("kept", local.size)

    with scratch.handler():
        for _ in range(100):
            with pytest.raises(KeyError, match="kept"):
                work()
    assert scratch.live_arrays == 0


def test_repr(scratch):
    text = repr(scratch.handler(min_size="64KiB", fallback=True))
    assert "64.0 KiB" in text
    assert "fallback=True" in text
