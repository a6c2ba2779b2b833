"""Changes of names by several threads and processes, and by processes that die."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

import ndarena

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.nda"
    with ndarena.open(path, "w", capacity="64MiB") as arena:
        arena["x"] = 1
    return path


def run_apart(function, *args):
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def test_exception_undoes_everything(path):
    with ndarena.open(path, "r+") as arena:
        a = arena.zeros(1000)
        with pytest.raises(RuntimeError, match="stop"), arena.transaction():  # noqa: PT012
            arena["x"] = 2
            arena["y"] = a
            del arena["x"]
            assert sorted(arena) == ["y"]
            raise RuntimeError("stop")
        assert sorted(arena) == ["x"]
        assert arena["x"] == 1
        assert arena.check() == []
        with pytest.raises(KeyError), arena.transaction():  # noqa: PT012
            arena["z"] = 5
            del arena["nothing"]
        assert "z" not in arena


def test_nested(path):
    with ndarena.open(path, "r+") as arena, arena.transaction():
        arena["y"] = 1
        with pytest.raises(ValueError, match="transaction"), arena.transaction():
            pass
        arena["z"] = 1
    with ndarena.open(path) as arena:
        assert sorted(arena) == ["x", "y", "z"]


def test_used_once(path):
    with ndarena.open(path, "r+") as arena:
        transaction = arena.transaction()
        with transaction:
            pass
        with pytest.raises(ValueError, match="over"):
            transaction.__exit__(None, None, None)


def test_others_see_nothing_before_the_end(path):
    with ndarena.open(path, "r+") as arena:
        seen = []

        def look():
            seen.append((sorted(arena), int(arena["x"])))

        with arena.transaction():
            arena["x"], arena["y"] = 2, 3
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            ends = multiprocessing.Pipe()

            def look_apart():
                with ndarena.open(path, "r+") as other:
                    ends[1].send((sorted(other), int(other["x"])))

            process = run_apart(look_apart)
            seen.append(ends[0].recv())
            process.join()
        look()
        assert seen == [(["x"], 1), (["x"], 1), (["x", "y"], 2)]


def test_timeout(path):
    with ndarena.open(path, "r+") as arena:
        entered, done = threading.Event(), threading.Event()

        def hold():
            with arena.transaction():
                entered.set()
                done.wait(30)
                arena["held"] = 1

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(30)
        start = time.monotonic()
        with pytest.raises(ndarena.LockTimeoutError), arena.transaction(timeout=0.2):
            pass
        assert 0.1 < time.monotonic() - start < 10
        done.set()
        arena["after"] = 1  # waits
        thread.join()
        assert {"held", "after"} <= set(arena)
        with pytest.raises(ValueError, match="timeout"):
            arena.transaction(timeout=-1)


def test_threads_and_processes_count_together(path):
    """Each adds names in transactions that read what is there: nothing is lost."""
    rounds = 30

    def work(worker):
        with ndarena.open(path, "r+") as arena:

            def add(thread):
                for i in range(rounds):
                    with arena.transaction(timeout=None):
                        arena["total"] = int(arena.get("total", 0)) + 1
                        arena[f"{worker}/{thread}/{i}"] = np.full(200, i)

            threads = [threading.Thread(target=add, args=(t,)) for t in range(2)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()

    processes = [run_apart(work, w) for w in range(3)]
    for p in processes:
        p.join()
        assert p.exitcode == 0
    with ndarena.open(path, "r+") as arena:
        assert arena["total"] == 3 * 2 * rounds
        assert len(arena) == 2 + 3 * 2 * rounds
        assert all(arena[n][0] == int(n.rsplit("/", 1)[1]) for n in arena.keys("1/"))
        assert arena.check() == []


def test_a_writer_that_is_killed(path):
    """What it had committed stays, what it had begun is gone, and nobody waits for it."""

    def write(ready):
        arena = ndarena.open(path, "r+")
        arena["committed"] = np.arange(1000)
        with arena.transaction():
            arena["begun"] = np.ones(1000)
            ready.send(True)
            time.sleep(60)

    ends = multiprocessing.Pipe()
    process = run_apart(write, ends[1])
    assert ends[0].recv()
    with ndarena.open(path, "r+") as arena:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        start = time.monotonic()
        arena["mine"] = 1
        assert time.monotonic() - start < 5
        assert sorted(arena) == ["committed", "mine", "x"]
        assert arena["committed"].sum() == 499500
        arena.reclaim()
        assert arena.check() == []


def test_killed_at_random_times(path):
    def write(seed):
        rng = np.random.default_rng(seed)
        arena = ndarena.open(path, "r+")
        for i in range(10**6):
            with arena.transaction(timeout=None):
                for name in "abc":
                    arena[name] = np.full(int(rng.integers(1, 3000)), i)

    for seed in range(25):
        process = run_apart(write, seed)
        time.sleep(0.02 + 0.01 * (seed % 7))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with ndarena.open(path, "r+") as arena:
            assert arena.check() == []
            if "a" in arena:
                values = {int(arena[name][-1]) for name in "abc"}
                assert len(values) == 1, "all three are of one transaction"
                assert all((arena[name] == arena[name][0]).all() for name in "abc")
            if seed % 5 == 0:
                arena.flush()


def test_readers_while_writers_go_on(path):
    """A reader's names are of one moment, however long it takes over them."""

    def write(stop):
        with ndarena.open(path, "r+") as arena:
            i = 0
            while not stop.is_set():
                i += 1
                with arena.transaction(timeout=None):
                    for name in "abcdef":
                        arena[name] = np.full(500, i)
                if i % 20 == 0:
                    arena.flush()

    stop = multiprocessing.get_context("fork").Event()
    process = run_apart(write, stop)
    try:
        moments = set()
        deadline = time.monotonic() + 60
        with ndarena.open(path) as reader:
            while len(moments) < 30 and time.monotonic() < deadline:
                reader.refresh()
                if "a" not in reader:
                    continue
                kept = {name: reader[name] for name in "abcdef"}
                time.sleep(0.005)
                values = {int(v) for a in kept.values() for v in (a[0], a[499])}
                assert len(values) == 1
                moments |= values
        assert len(moments) >= 10
    finally:
        stop.set()
        process.join()
    with ndarena.open(path, "r+") as arena:
        arena.flush()
        assert arena.check() == []


def test_fork_in_a_transaction(path):
    """The child has none: it sees what was committed, and may change names itself."""
    with ndarena.open(path, "r+") as arena:
        seen, go = multiprocessing.Pipe(), multiprocessing.Pipe()
        with arena.transaction():
            arena["y"] = 5
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    seen[1].send(sorted(arena))
                    go[0].recv()
                    arena["child"] = 7
                    status = 0
                finally:
                    os._exit(status)
            assert seen[0].recv() == ["x"]
        go[1].send(True)
        assert os.waitpid(pid, 0)[1] == 0
        assert sorted(arena) == ["child", "x", "y"]
        assert arena.check() == []
