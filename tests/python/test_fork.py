"""Private arenas behave like malloc in a fork child."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable

import numpy as np
import pytest

import ndarena

PRIVATE = ("buffer", "scratch")


def in_child(function: Callable[[], None]) -> None:
    """Run a function in a fork child; what it raises fails the test here."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert (status, text) == (0, "")


@pytest.fixture(params=PRIVATE)
def private(request, make_arena):
    return make_arena(request.param)


def test_writes_of_the_child_stay_there(private):
    a = private.array(np.arange(100_000))
    small = private.array(np.arange(3))

    def child():
        assert (a == np.arange(100_000)).all()
        a[:] = -1
        small[:] = -1
        assert (a == -1).all()

    in_child(child)
    assert (a == np.arange(100_000)).all()
    assert (small == np.arange(3)).all()


def test_frees_of_the_child_stay_there(private):
    arrays = [private.full(10_000, n) for n in range(10)]
    blocks = private.stats().n_blocks

    def child():
        del arrays[:]

    in_child(child)
    assert private.stats().n_blocks == blocks
    fresh = [private.full(10_000, 99) for _ in range(10)]
    for n, array in enumerate(arrays):
        assert (array == n).all()
    assert all((array == 99).all() for array in fresh)
    assert private.check() == []


def test_the_child_can_allocate(scratch):
    keep = scratch.full(10_000, 5)
    with scratch.handler():

        def child():
            mine = [np.full(10_000, n) for n in range(20)]
            for n, array in enumerate(mine):
                assert (array == n).all()
            total = keep + mine[1]
            assert (total == 6).all()
            del mine[::2]
            more = np.zeros(100_000)
            assert not more.any()

        in_child(child)
        b = np.full(10_000, 7)
    assert (keep == 5).all()
    assert (b == 7).all()
    assert scratch.check() == []


def test_the_child_can_resize(scratch):
    a = scratch.array(np.arange(1000))

    def child():
        a.resize(50_000, refcheck=False)
        assert (a[:1000] == np.arange(1000)).all()
        assert not a[1000:].any()

    in_child(child)
    assert (a == np.arange(1000)).all()


def test_parent_and_child_allocate_at_once(scratch):
    ready_reader, ready_writer = os.pipe()
    go_reader, go_writer = os.pipe()
    with scratch.handler():
        pid = os.fork()
        if pid == 0:
            try:
                mine = [np.full(20_000, 1.0) for _ in range(20)]
                os.write(ready_writer, b"x")
                os.read(go_reader, 1)
                good = all((array == 1).all() for array in mine)
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        os.read(ready_reader, 1)
        ours = [np.full(20_000, 2.0) for _ in range(20)]
        os.write(go_writer, b"x")
        _, status = os.waitpid(pid, 0)
    for descriptor in (ready_reader, ready_writer, go_reader, go_writer):
        os.close(descriptor)
    assert status == 0
    assert all((array == 2).all() for array in ours)
    assert scratch.check() == []


def test_the_child_exits_normally(python):
    code = """
import os, sys
import numpy as np, ndarena
arena = ndarena.scratch(capacity="64MiB")
a = arena.ones(100_000)
pid = os.fork()
if pid == 0:
    a[:] = 2
    b = a * 2
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert (a == 1).all()
assert arena.check() == []
arena.close()
"""
    result = python("-c", code)
    assert (result.returncode, result.stderr) == (0, "")


def test_closing_in_the_child_leaves_the_parent(private):
    a = private.full(1000, 3)

    def child():
        private.close()
        assert (a == 3).all()

    in_child(child)
    assert not private.closed
    assert (a == 3).all()
    assert private.ones(10).sum() == 10


def test_many_children(scratch):
    a = scratch.full(1000, 1)
    for turn in range(30):

        def child(turn=turn):
            a[:] = turn
            assert (a == turn).all()

        in_child(child)
    assert (a == 1).all()
    assert scratch.check() == []


def test_a_shared_arena_after_fork(make_arena):
    """Sharing is for arenas meant for it: a child's writes reach the parent."""
    arena = make_arena("shared")
    a = arena.full(1000, 1)

    def child():
        a[:] = 2

    in_child(child)
    assert (a == 2).all()
    assert arena.check() == []


def test_installed(scratch):
    ndarena.install(scratch)
    try:
        a = np.ones(1000)

        def child():
            b = np.full(1000, 3.0)
            a[:] = 4
            assert (b == 3).all()
            ndarena.uninstall()
            assert ndarena.handler_of(np.ones(3)) == "default_allocator"

        in_child(child)
        assert (a == 1).all()
    finally:
        ndarena.uninstall()


def test_while_threads_install_and_ask(make_arena):
    # A child has only the thread that forked: what the others were in the middle of is over.
    arenas = [make_arena() for _ in range(2)]
    a = arenas[0].ones(1000)
    done = threading.Event()

    def churn(arena):
        while not done.is_set():
            ndarena.install(arena)
            assert ndarena.arena_of(a) is arenas[0]
            ndarena.uninstall()

    def child():
        signal.alarm(60)  # a child that waits for a thread it does not have
        assert ndarena.arena_of(a) is arenas[0]
        ndarena.install(arenas[1])
        assert np.ones(1000).sum() == a.sum()
        for arena in arenas:
            arena.close()
        ndarena.uninstall()
        assert ndarena.handler_of(np.ones(3)) == "default_allocator"

    threads = [threading.Thread(target=churn, args=(arena,)) for arena in arenas]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            in_child(child)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        ndarena.uninstall()
