"""Tracing: what it notes, of whom, and where it writes it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import csv
import gc
import linecache
import math
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from test_resources import exercise

import ndarena
from ndarena import _trace_plot


@pytest.fixture(autouse=True, scope="module")
def _caches() -> None:
    exercise(0)


def sizes(tracing: ndarena.Tracing) -> list[int]:
    return [event.nbytes for event in tracing.live()]


def replayed(events) -> dict[int, int]:
    """What is alive after events, which must make sense."""
    alive: dict[int, int] = {}
    last = 0.0
    for event in events:
        assert event.time >= last
        last = event.time
        if event.action == "allocate":
            assert event.address not in alive
            alive[event.address] = event.nbytes
        elif event.action == "free":
            assert alive.pop(event.address) == event.nbytes
    return alive


def test_events_live_and_peak() -> None:
    with ndarena.Tracing() as tracing:
        a = np.empty(1000)
        b = np.empty(500)
        del a
        b.resize(2000, refcheck=False)
        with pytest.raises(MemoryError):
            np.empty(1 << 60, np.uint8)
    events = tracing.events()
    assert [(e.action, e.nbytes) for e in events] == [
        ("allocate", 8000),
        ("allocate", 4000),
        ("free", 8000),
        ("free", 4000),
        ("allocate", 16_000),
        ("allocate failure", 1 << 60),
    ]
    assert sizes(tracing) == [16_000]
    assert tracing.live()[0].address == b.ctypes.data
    assert tracing.peak == 16_000
    assert tracing.name == "tracing(previous)"
    assert {e.thread for e in events} == {threading.get_ident()}
    assert all(e.frames == () for e in events)
    assert events[0].age == pytest.approx(events[2].time - events[0].time)
    assert math.isnan(events[2].age)
    age = tracing.live()[0].age
    time.sleep(0.01)
    assert tracing.live()[0].age >= age + 0.01
    del b
    assert not tracing.live()


def test_everything_that_numpy_does_makes_sense(scratch) -> None:
    tracing = ndarena.Tracing(scratch)
    with tracing:
        exercise(1)
        kept = np.ones(77)
    alive = replayed(tracing.events())
    assert alive == {e.address: e.nbytes for e in tracing.live()}
    assert list(alive.values()) == [616]
    assert tracing.stats().n_allocations > 100
    del kept


def test_frames() -> None:
    def inner() -> np.ndarray:
        return np.empty(100)

    def outer() -> np.ndarray:
        return inner()

    with ndarena.Tracing(frames=2) as two, ndarena.Tracing(frames=50) as many:
        a = [outer() for _ in range(3)]
    for tracing in (two, many):
        for event in tracing.events():
            assert [f.function for f in event.frames[:2]] == ["inner", "outer"]
            assert event.frames[0].filename == __file__
            assert "np.empty(100)" in linecache.getline(__file__, event.frames[0].line)
    assert len(two.events()[0].frames) == 2
    assert len(many.events()[0].frames) > 4
    assert len(a) == 3


def test_frames_without_the_gil_and_with_an_exception_pending() -> None:
    text = " ".join(str(n) for n in range(30_000))

    def numbers():
        yield from range(50)
        raise KeyError("the generator's")

    with ndarena.Tracing(frames=5) as tracing:
        assert np.fromstring(text, sep=" ").sum() == 449_985_000
        with pytest.raises(KeyError):
            np.fromiter(numbers(), float)
    assert not replayed(tracing.events())


def test_other_threads_are_not_noted() -> None:
    go, done = threading.Event(), threading.Event()
    made = []

    def work() -> None:
        go.wait()
        made.append(np.ones(1000))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with ndarena.Tracing() as tracing:
        go.set()
        done.wait()
        a = np.empty(10)
    thread.join()
    assert sizes(tracing) == [80]
    del a, made[:]


def test_an_end_in_another_thread_is_noted() -> None:
    with ndarena.Tracing() as tracing:
        held = [np.empty(10)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    first, last = tracing.events()
    assert (first.action, last.action) == ("allocate", "free")
    assert first.thread == threading.get_ident() != last.thread


async def _allocate(n: int) -> np.ndarray:
    await asyncio.sleep(0)
    a = np.empty(n, np.uint8)
    await asyncio.sleep(0)
    return a


def test_tasks() -> None:
    async def traced(n: int) -> tuple[ndarena.Tracing, list[np.ndarray]]:
        with ndarena.Tracing() as tracing:
            nested = asyncio.create_task(_allocate(n + 1))  # has a copy of this context
            arrays = [await _allocate(n), await nested]
            arrays += await asyncio.gather(_allocate(n + 2), _allocate(n + 3))
            arrays.append(await asyncio.to_thread(np.empty, n + 4, np.uint8))
        return tracing, arrays

    async def main():
        untraced = asyncio.create_task(_allocate(5))
        found = await asyncio.gather(*(traced(n * 1000) for n in range(1, 20)))
        return found, await untraced

    found, _ = asyncio.run(main())
    for n, (tracing, _arrays) in enumerate(found, 1):
        assert sorted(sizes(tracing)) == [n * 1000 + extra for extra in range(5)]


def test_coroutines_awaited_directly_share_the_context() -> None:
    tracing = ndarena.Tracing()
    decorated = tracing(_allocate)

    async def main() -> list[np.ndarray]:
        return [await _allocate(10), await decorated(20), await _allocate(30)]

    arrays = asyncio.run(main())
    assert sizes(tracing) == [20]
    del arrays


def test_generators() -> None:
    tracing = ndarena.Tracing()

    @tracing
    def numbers():
        for n in (10, 20, 30):
            yield np.empty(n, np.uint8)

    made = []
    for a in numbers():
        made += [a, np.empty(1, np.uint8)]  # not the generator's
    assert sizes(tracing) == [10, 20, 30]


def test_copies_of_the_context() -> None:
    def allocate(n: int) -> np.ndarray:
        return np.empty(n, np.uint8)

    with ndarena.Tracing() as tracing:
        context = contextvars.copy_context()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        inside = pool.submit(context.run, allocate, 100).result()
        outside = pool.submit(allocate, 200).result()
    again = context.run(allocate, 300)
    assert sizes(tracing) == [100, 300]
    del inside, outside, again


def test_nested_ones_note_their_own() -> None:
    with ndarena.Tracing() as outer:
        a = np.empty(10, np.uint8)
        with ndarena.Tracing() as inner, ndarena.Tracing(ndarena.Default()) as aside:
            b = np.empty(20, np.uint8)
        c = np.empty(30, np.uint8)
    assert (sizes(outer), sizes(inner), sizes(aside)) == ([10, 30], [], [20])
    del a, b, c


def test_only_so_many_events() -> None:
    with ndarena.Tracing(max_events=100) as tracing:
        old = [np.empty(n, np.uint8) for n in (5, 7)]
        for n in range(1, 2001):
            np.empty(n, np.uint8)
        new = np.empty(9, np.uint8)
    events = tracing.events()
    assert 50 <= len(events) <= 100
    assert tracing.n_dropped == 4003 - len(events)
    assert sizes(tracing) == [5, 7, 9]
    assert tracing.stats().n_allocations == 2003
    del old, new
    assert not tracing.live()


def test_threads_at_once() -> None:
    tracing = ndarena.Tracing(frames=3, max_events=10_000_000)
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        barrier.wait()
        with tracing:
            exercise(seed)
            tracing.live()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not replayed(tracing.events())
    assert len({e.thread for e in tracing.events()}) == 4


def read_log(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_log(tmp_path) -> None:
    path = tmp_path / "log.csv"
    with ndarena.Tracing(log=path) as tracing:
        exercise(2)
        a = np.empty(1000)
        with pytest.raises(MemoryError):
            np.empty(1 << 60, np.uint8)
    events, rows = tracing.events(), read_log(path)
    assert list(rows[0]) == ["Thread", "Time", "Action", "Pointer", "Size", "Stream"]
    assert len(rows) == len(events) > 200
    for event, row in zip(events, rows, strict=True):
        assert row["Action"] == event.action
        assert (int(row["Pointer"], 16), int(row["Size"])) == (event.address, event.nbytes)
        assert int(row["Thread"]) == event.thread
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6}", row["Time"])
    del a
    tracing.flush()
    assert read_log(path)[-1]["Action"] == "free"


def test_log_is_complete_at_exit_and_a_fork_child_leaves_it(tmp_path) -> None:
    path = tmp_path / "log.csv"
    code = f"""if True:
        import os, numpy as np, ndarena
        tracing = ndarena.Tracing(log={str(path)!r})
        tracing.__enter__()
        kept = [np.empty(n + 1, np.uint8) for n in range(1000)]
        pid = os.fork()
        if pid == 0:
            kept.append(np.empty(5000, np.uint8))
            raise SystemExit
        os.waitpid(pid, 0)
        kept.append(np.empty(2000, np.uint8))
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    made = [int(row["Size"]) for row in read_log(path) if row["Action"] == "allocate"]
    assert [n for n in made if n <= 1000] == list(range(1, 1001))
    assert 2000 in made
    assert 5000 not in made


def test_a_log_that_cannot_be_written(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        ndarena.Tracing(log=tmp_path / "no" / "log.csv")
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    tracing = ndarena.Tracing(log="/dev/full")
    with tracing:
        a = np.empty(10)
    assert sizes(tracing) == [80]
    with pytest.raises(OSError, match="the log could not be written"):
        tracing.flush()
    del a


@pytest.mark.parametrize(
    "arguments", [{"frames": -1}, {"frames": 1001}, {"max_events": 1}, {"frames": 2**70}]
)
def test_senseless_arguments(arguments) -> None:
    with pytest.raises(ValueError, match="is to be"):
        ndarena.Tracing(**arguments)


def test_it_lives_as_long_as_its_arrays() -> None:
    with ndarena.Tracing(frames=5) as tracing:
        a = np.empty(10)
    alive = weakref.ref(tracing)
    del tracing
    gc.collect()
    assert alive() is not None
    del a
    gc.collect()
    assert alive() is None


def test_beside_tracemalloc() -> None:
    tracemalloc.start(5)
    try:
        with ndarena.Tracing(frames=5) as tracing:
            a = np.empty(1_000_000, np.uint8)
            snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    largest = max(snapshot.traces, key=lambda trace: trace.size)
    assert largest.size == len(a)
    (event,) = (e for e in tracing.events() if e.nbytes == len(a))
    lines = [frame.lineno for frame in reversed(largest.traceback)]
    assert lines == [frame.line for frame in event.frames]


def test_beside_memray(tmp_path) -> None:
    memray = pytest.importorskip("memray")
    with memray.Tracker(tmp_path / "memray.bin"), ndarena.Tracing(frames=5) as tracing:
        exercise(3)
        a = np.empty(1_000_000, np.uint8)
    assert sizes(tracing) == [len(a)]
    reader = memray.FileReader(tmp_path / "memray.bin")
    peak = reader.get_high_watermark_allocation_records(merge_threads=True)
    assert any(record.size >= len(a) for record in peak)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    with ndarena.Tracing(frames=10) as tracing:
        a = np.ones(500_000)
        b = a + 1
        del a
        c = b * 2
    ax = tracing.plot()
    assert ax.get_title().startswith("peak 7.6 MiB")
    labels = ax.get_legend_handles_labels()[1]
    assert len(labels) == 2
    assert all(label.startswith("3.8 MiB test_tracing.py:") for label in labels)
    x, y = ax.lines[0].get_data()
    assert max(y) == pytest.approx(7.63, abs=0.01)
    assert y[-1] == pytest.approx(7.63, abs=0.01)
    assert list(x) == sorted(x)
    assert tracing.plot(ax) is ax
    assert ndarena.Tracing().plot().lines
    del b, c


def test_the_plot_of_a_piece() -> None:
    """What was allocated before the first event that is known counts all the same."""
    with ndarena.Tracing(max_events=4) as tracing:
        arrays = [np.empty(100, np.uint8) for _ in range(6)]
        arrays.clear()
    events = tracing.events()
    assert all(event.action == "free" for event in events)
    _, nbytes = _trace_plot.live_bytes(events)
    assert nbytes == [100 * n for n in range(len(events) - 1, -1, -1)]
