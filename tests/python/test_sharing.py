"""Arrays by reference through everything that multiprocessing has."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import sharing_workers as work

import ndarena
from ndarena import _sharing
from ndarena.integrations import multiprocessing as integration

METHODS = ("fork", "forkserver", "spawn")

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def eventually(condition) -> None:
    """Wait for what another process does in its own time."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish_queues(*queues) -> None:
    for queue in queues:
        queue.close()
        if hasattr(queue, "join_thread"):
            queue.join_thread()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_queue(shared_arena, context, kind, running):
    inbox, outbox = getattr(context, kind)(), getattr(context, kind)()
    with running(context, work.answer, inbox, outbox):
        for n in range(3):
            inbox.put(shared_arena.full(100_000, n))
            result = outbox.get()
            assert shared_arena.owns(result)
            assert (result == 2 * n).all()
        inbox.put(None)
    assert shared_arena.stats().in_transit == 0
    del result
    finish_queues(inbox, outbox)


def test_pipe(shared_arena, context, running):
    here, there = context.Pipe()
    with running(context, work.answer_pipe, there):
        for view in (np.s_[:], np.s_[::-2], np.s_[10:20], np.s_[0:0]):
            a = shared_arena.array(np.arange(1000))[view]
            here.send(a)
            result = here.recv()
            assert shared_arena.owns(result) or not result.size
            assert (result == a * 2).all()
        here.send(None)
    del a, result
    here.close()
    there.close()


def test_pool(shared_arena, context):
    arrays = [shared_arena.full(10_000, n) for n in range(8)]
    with context.Pool(2) as pool:
        assert pool.map(work.describe, arrays) == [(True, 1e4 * n) for n in range(8)]
        for method in (pool.map, pool.imap, pool.imap_unordered):
            results = list(method(work.double, arrays, chunksize=2))
            assert all(shared_arena.owns(r) for r in results)
            assert sorted(r[0] for r in results) == [2 * n for n in range(8)]
        result = pool.apply_async(work.double, (arrays[3],)).get(60)
        assert (result == 6).all()
        assert pool.starmap(work.describe, [(a,) for a in arrays[:2]]) == [(True, 0), (True, 1e4)]
        pool.close()
        pool.join()
    assert shared_arena.stats().in_transit == 0
    for a, n in zip(arrays, range(8), strict=True):
        assert (a == n).all()


def test_results_outlive_their_workers(shared_arena, context):
    """Every task has a process of its own, which is gone when its result is looked at."""
    arrays = [shared_arena.full(10_000, n) for n in range(4)]
    with context.Pool(1, maxtasksperchild=1) as pool:
        pids, results = zip(*pool.map(work.double_and_pid, arrays, chunksize=1), strict=True)
        pool.close()
        pool.join()
    assert len(set(pids)) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    shared_arena.reclaim(transit=0)
    for n, result in enumerate(results):
        assert shared_arena.owns(result)
        assert (result == 2 * n).all()


@pytest.mark.parametrize("method", METHODS)
def test_executor(shared_arena, method):
    context = multiprocessing.get_context(method)
    options = {} if method == "fork" or sys.version_info < (3, 11) else {"max_tasks_per_child": 1}
    with ProcessPoolExecutor(2, mp_context=context, **options) as executor:
        arrays = [shared_arena.full(10_000, n) for n in range(4)]
        for n, result in enumerate(executor.map(work.double, arrays)):
            assert shared_arena.owns(result)
            assert (result == 2 * n).all()
        future = executor.submit(work.double_named, shared_arena.name, 21)
        assert (future.result(60) == 42).all()
        assert shared_arena.owns(future.result())
        del result, future


def test_manager(shared_arena, context):
    """A manager's server keeps what it is given as any process does."""
    with context.Manager() as manager:
        shared = manager.list()
        shared.append(shared_arena.full(1000, 1))
        shared.append(shared_arena.full(1000, 2))
        assert shared_arena.owns(shared[0])
        assert shared_arena.stats().n_blocks == 2
        with context.Pool(1) as pool:
            assert pool.apply(work.sum_shared, (shared,)) == [1000, 2000]
            pool.close()
            pool.join()
        a = shared[1]
        a[:] = 5
        assert (shared[1] == 5).all(), "one memory"
        del a
        named = manager.dict(a=shared_arena.full(10, 3))
        assert named["a"].sum() == 30
        named.clear()
        eventually(
            lambda: shared_arena.stats().n_blocks == 2
        )  # a thread of the server lets go of it
    assert shared_arena.stats().in_transit == 0


def test_arguments_of_a_process(shared_arena, context, running):
    a = shared_arena.zeros(1000)
    for _ in range(3):
        with running(context, work.add_one, a):
            pass
    assert (a == 3).all()


def test_both_sides_see_writes(shared_arena, context, running):
    a = shared_arena.zeros(1000)
    with running(context, work.add_one, a[::-2]):
        pass
    assert a[1::2].sum() == a.sum() == 500


def test_what_is_copied(shared_arena, context, make_arena):
    scratch = make_arena("scratch")
    here, there = context.Pipe()
    copied = [
        np.ones(1000),
        shared_arena.array([1, "a", None], dtype=object),
        scratch.ones(1000),
        np.ma.masked_array(shared_arena.ones(10), mask=True),
        shared_arena.ones(10).view(np.recarray),
        shared_arena.ones(10)[3],
    ]
    for a in copied:
        here.send(a)
        b = there.recv()
        assert type(b) is type(a)
        assert not isinstance(b, np.ndarray) or not shared_arena.owns(b)
        assert np.array_equal(np.asarray(b), np.asarray(a))
    del a, copied
    here.close()
    there.close()


def test_a_full_table_falls_back_to_copies(make_arena):
    arena = make_arena("shared", 2**20)
    queue = multiprocessing.SimpleQueue()
    reference = ndarena.ref(arena.ones(3))
    messages = []
    with contextlib.suppress(MemoryError):
        while True:
            messages.append(pickle.dumps(reference))
    queue.put(reference.get())
    got = queue.get()
    assert not arena.owns(got)
    assert (got == 1).all()
    for message in messages:
        pickle.loads(message)
    queue.put(reference.get())
    assert arena.owns(queue.get())
    queue.close()


def test_unregister(shared_arena):
    a = shared_arena.ones(100)
    queue = multiprocessing.SimpleQueue()
    try:
        integration.unregister()
        queue.put(a)
        assert not shared_arena.owns(queue.get())
    finally:
        integration.register()
    queue.put(a)
    assert shared_arena.owns(queue.get())
    queue.close()


def test_what_is_done_once_is_over_for_all():
    """The second thread does not go on, and unregister perhaps, while the first registers."""
    entered, go_on = threading.Event(), threading.Event()
    calls = []

    @_sharing.Once
    def begin():
        calls.append(threading.get_ident())
        entered.set()
        assert go_on.wait(30)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join()
    begin()
    assert calls == [threads[0].ident]


def test_what_is_done_once_is_tried_again_after_an_error():
    calls = []

    @_sharing.Once
    def begin():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not now")

    with pytest.raises(OSError, match="not now"):
        begin()
    begin()
    begin()
    assert len(calls) == 2


def test_a_fork_in_the_middle_of_what_is_done_once():
    """The child has not the thread that would finish it: it does it itself."""
    entered, go_on = threading.Event(), threading.Event()
    calls = []

    @_sharing.Once
    def begin():
        calls.append(os.getpid())
        if len(calls) == 1:
            entered.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=begin)
    thread.start()
    assert entered.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if pid == 0:
        begin()
        os._exit(0 if calls[1:] == [os.getpid()] else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
    assert calls == [os.getpid()]


def test_references_travel_too(shared_arena, context):
    here, there = context.Pipe()
    a = shared_arena.full(1000, 3)
    here.send({"a": ndarena.ref(a), "b": shared_arena.put({"x": a})})
    got = there.recv()
    assert got["a"].get().sum() == got["b"].get()["x"].sum() == 3000
    del got, a
    here.close()
    there.close()
