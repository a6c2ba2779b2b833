"""Processes that die, fork, exec or live in namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
import sharing_workers as work

import ndarena

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_gone_right_after_put(shared_arena, context):
    queue = context.SimpleQueue()
    process = context.Process(target=work.put_and_vanish, args=(queue, shared_arena.name))
    process.start()
    process.join()
    assert process.exitcode == 0
    shared_arena.reclaim()
    result = queue.get()
    assert shared_arena.owns(result)
    assert (result == 5).all()
    queue.close()
    process.close()


def test_a_killed_worker_holds_nothing(shared_arena, context):
    here, there = context.Pipe()
    a = shared_arena.ones(1000)
    process = context.Process(target=work.hold_and_wait, args=(there, a))
    process.start()
    sent = here.recv()
    assert here.recv() == "ready"
    assert shared_arena.stats().n_blocks == 11
    assert shared_arena.stats().processes == 2
    process.kill()
    process.join()
    assert shared_arena.reclaim() >= 9
    assert shared_arena.stats().n_blocks == 2
    assert (sent == 3).all(), "what has been received stays"
    process.close()
    here.close()
    there.close()


def test_an_executor_breaks_and_nothing_stays(shared_arena):
    a = shared_arena.ones(100_000)
    with ProcessPoolExecutor(2) as executor:
        futures = [executor.submit(work.double, a) for _ in range(3)]
        results = [f.result(60) for f in futures]
        with pytest.raises(BrokenProcessPool):
            executor.submit(work.kill_itself, a).result(60)
    assert all((r == 2).all() for r in results)
    del futures, results
    shared_arena.reclaim(transit=0)
    assert shared_arena.stats().n_blocks == 1
    assert (a == 1).all()


def test_terminated_pool(shared_arena, context, running):
    """`with Pool` ends by killing the workers. What nobody has read goes with its sender."""
    arrays = [shared_arena.full(10_000, n) for n in range(20)]
    with running(context, work.terminate_a_pool, arrays):
        pass
    shared_arena.reclaim(transit=0)
    assert shared_arena.stats().n_blocks == 20
    assert shared_arena.stats().in_transit == 0
    assert shared_arena.check() == []
    assert all((a == n).all() for n, a in enumerate(arrays))


def test_daemons(shared_arena, context, running):
    here, there = context.Pipe()
    with running(context, work.answer_pipe, there, daemon=True):
        here.send(shared_arena.ones(1000))
        assert (here.recv() == 2).all()
        here.send(None)
    here.close()
    there.close()


# --- fork, exec, namespaces ---------------------------------------------------------------


def test_fork_while_threads_allocate_and_send(shared_arena):
    stop = threading.Event()
    failures = []

    def churn():
        try:
            while not stop.is_set():
                a = shared_arena.full(1000, 7)
                assert pickle.loads(pickle.dumps(ndarena.ref(a))).get().sum() == 7000
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            good = False
            with contextlib.suppress(BaseException):
                a = shared_arena.full(1000, 3)
                good = pickle.loads(pickle.dumps(ndarena.ref(a))).get().sum() == 3000
            os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for t in threads:
        t.join()
    assert failures == []
    assert shared_arena.check() == []


def test_exec(shared_arena):
    """A program that is started anew inherits nothing; a message is enough."""
    a = shared_arena.ones(1000)
    data = pickle.dumps(ndarena.ref(a))
    result = subprocess.run(
        [sys.executable, work.__file__], input=data, capture_output=True, check=False
    )
    assert result.stderr == b""
    b = pickle.loads(result.stdout).get()
    assert shared_arena.owns(b)
    assert (b == 2).all()
    assert (a == -1).all()


def can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


NAMESPACE = """
import os, pickle, sys
import ndarena
assert os.getpid() == 1, os.getpid()
with ndarena.open(sys.argv[1], "r+") as arena:
    a = pickle.load(sys.stdin.buffer).get()
    assert arena.stats().processes == int(sys.argv[2])
    assert arena.owns(a) and a.sum() == 1000
    a[:] = 2
    keep = [arena.full(1000, 9) for _ in range(5)]
    assert arena.reclaim(transit=0) == 0       # the other namespace's processes are alive
    sys.stdout.buffer.write(pickle.dumps(ndarena.ref(arena.full(1000, 4))) + b"end")
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
    os._exit(0)
"""


@pytest.mark.root
def test_two_pid_namespaces(make_arena):
    """As two containers on one file: process numbers mean nothing, locks do."""
    if not can_unshare():
        pytest.skip("no PID namespace can be made here (needs root)")
    arena = make_arena("file")
    a = arena.ones(1000)
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", NAMESPACE]
    others = []
    results = []
    for number in (2, 3):  # the same number, 1, in each of two namespaces
        other = subprocess.Popen(
            [*command, arena.filename, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        others.append(other)
        a[:] = 1
        other.stdin.write(pickle.dumps(ndarena.ref(a)))
        other.stdin.flush()
        answer = b""
        while not answer.endswith(b"end"):
            part = os.read(other.stdout.fileno(), 4096)
            assert part, "the other end has failed"
            answer += part
        assert (a == 2).all()
        results.append(pickle.loads(answer[:-3]).get())
    assert arena.stats().processes == 3
    assert arena.reclaim(transit=0) == 0
    assert all((r == 4).all() for r in results)
    for other in others:
        other.communicate(timeout=60)
        assert other.returncode == 0
    assert arena.stats().processes == 1
    arena.reclaim(transit=0)
    assert arena.stats().n_blocks == 3
    assert arena.check() == []
