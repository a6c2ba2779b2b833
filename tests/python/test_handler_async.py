"""Handlers on coroutines, generators and tasks: active while the body runs, not between."""

from __future__ import annotations

import asyncio
import inspect
import sys

import numpy as np
import pytest

import ndarena


def inside(arena: ndarena.Arena) -> bool:
    """Whether NumPy allocates in `arena` here and now."""
    return arena.owns(np.empty(16))


def test_decorated_coroutine(scratch):
    @scratch.handler()
    async def work():
        first = inside(scratch)
        await asyncio.sleep(0)
        return first and inside(scratch)

    async def main():
        before = inside(scratch)
        good = await work()
        return good, before, inside(scratch)

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(main()) == (True, False, False)


def test_decorated_coroutine_is_inactive_while_suspended(scratch):
    @scratch.handler()
    async def work():
        await asyncio.sleep(0)
        raise KeyError

    coroutine = work()
    coroutine.send(None)
    assert not inside(scratch)
    with pytest.raises(KeyError):
        coroutine.send(None)
    assert not inside(scratch)
    abandoned = work()
    abandoned.send(None)
    abandoned.close()
    assert not inside(scratch)


def test_cancelled_coroutine(scratch):
    seen = []

    @scratch.handler()
    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(inside(scratch))

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return inside(scratch)

    assert asyncio.run(main()) is False
    assert seen == [True]


def test_decorated_generator(scratch):
    @scratch.handler()
    def work():
        received = []
        try:
            while True:
                received.append((yield inside(scratch)))
        except KeyError:
            yield "caught" if inside(scratch) else "outside"
        return received

    assert inspect.isgeneratorfunction(work)
    generator = work()
    assert next(generator) is True
    assert not inside(scratch)
    assert generator.send("a") is True
    assert not inside(scratch)
    assert generator.throw(KeyError()) == "caught"
    assert not inside(scratch)
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == ["a"]
    assert not inside(scratch)


def test_decorated_generator_is_closed_inside(scratch):
    seen = []

    @scratch.handler()
    def work():
        try:
            yield 1
        finally:
            seen.append(inside(scratch))

    generator = work()
    next(generator)
    generator.close()
    assert seen == [True]
    assert not inside(scratch)
    generator = work()
    next(generator)
    del generator
    assert seen == [True, True]


def test_decorated_generator_that_outlives_its_arena(scratch):
    seen = []

    @scratch.handler()
    def work():
        try:
            yield 1
        finally:
            seen.append(ndarena.handler_of(np.empty(3)))

    generator = work()
    next(generator)
    scratch.close()
    generator.close()
    assert seen == ["default_allocator"]


def test_interleaved_generators(make_arena):
    arenas = make_arena(), make_arena()

    def count(arena):
        for _ in range(5):
            yield inside(arena)

    generators = [arena.handler()(count)(arena) for arena in arenas]
    for pair in zip(*generators, strict=True):
        assert pair == (True, True)
        assert not any(map(inside, arenas))


def test_decorated_async_generator(scratch):
    seen = []

    @scratch.handler()
    async def work():
        try:
            while True:
                await asyncio.sleep(0)
                try:
                    seen.append((yield inside(scratch)))
                except KeyError:
                    seen.append("KeyError")
        finally:
            seen.append(inside(scratch))

    async def main():
        generator = work()
        results = [await generator.asend(None), inside(scratch)]
        results += [await generator.asend("a"), inside(scratch)]
        results += [await generator.athrow(KeyError()), inside(scratch)]
        await generator.aclose()
        return [*results, inside(scratch)]

    assert inspect.isasyncgenfunction(work)
    assert asyncio.run(main()) == [True, False, True, False, True, False, False]
    assert seen == ["a", "KeyError", True]


def test_async_generator_in_a_loop(scratch):
    @scratch.handler()
    async def work(n):
        for _ in range(n):
            await asyncio.sleep(0)
            yield inside(scratch)

    async def main():
        return [(item, inside(scratch)) async for item in work(3)]

    assert asyncio.run(main()) == [(True, False)] * 3


def test_tasks(scratch):
    async def child():
        await asyncio.sleep(0)
        return inside(scratch)

    async def main():
        with scratch.handler():
            tasks = [asyncio.create_task(child()) for _ in range(3)]
            gathered = asyncio.gather(child(), child())
            in_thread = await asyncio.to_thread(inside, scratch)
        outside = asyncio.create_task(child())
        return [await t for t in tasks], await gathered, in_thread, await outside

    assert asyncio.run(main()) == ([True] * 3, [True] * 2, True, False)


def test_concurrent_tasks_do_not_mix(make_arena):
    arenas = [make_arena() for _ in range(3)]

    async def work(arena):
        results = []
        for _ in range(20):
            with arena.handler():
                await asyncio.sleep(0)
                results.append(inside(arena))
            await asyncio.sleep(0)
            results.append(not any(map(inside, arenas)))
        return all(results)

    async def main():
        return await asyncio.gather(*map(work, arenas))

    assert asyncio.run(main()) == [True] * 3


def test_executor_threads_start_as_threads_do(scratch):
    async def main():
        with scratch.handler():
            return await asyncio.get_running_loop().run_in_executor(None, inside, scratch)

    # With NumPy's default, or, as free-threaded 3.14 does, with a copy of the creator's context.
    assert asyncio.run(main()) is bool(getattr(sys.flags, "thread_inherit_context", False))
