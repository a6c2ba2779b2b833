"""Fork under ``ndarena run``: workers see their own copies, as they would with malloc."""

from __future__ import annotations

PROGRAM = """
import multiprocessing as mp
import numpy as np
import ndarena

data = np.zeros(1_000_000)
before = np.arange(1_000_000.0)
assert ndarena.arena_of(data) is not None

def work(number):
    data[:] = number + 1
    mine = np.full(300_000, float(number))
    temporary = before * 2 + mine[0]
    return number, float(data.mean()), float(mine.sum()), float(temporary[1])

if __name__ == "__main__":
    with mp.get_context("fork").Pool(4) as pool:
        for number, mean, total, item in pool.map(work, range(16), chunksize=1):
            assert mean == number + 1, (number, mean)
            assert total == 300_000 * number, (number, total)
            assert item == 2 + number, (number, item)
    assert not data.any(), "the workers' writes reached the parent"
    assert (before == np.arange(1_000_000)).all()
    more = np.ones(500_000)
    assert more.sum() == 500_000
    arena = ndarena.arena_of(data)
    assert arena.check() == [], arena.check()
    print("done")
"""

NESTED = """
import os
import numpy as np

a = np.ones(1_000_000)

def child(depth):
    a[:] = depth
    b = np.full(200_000, float(depth))
    if depth < 3:
        pid = os.fork()
        if pid == 0:
            child(depth + 1)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
    assert (a == depth).all()
    assert (b == depth).all()
    os._exit(0)

pid = os.fork()
if pid == 0:
    child(2)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert (a == 1).all()
print("done")
"""


def test_pool(cli, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    result = cli("run", "--capacity", "256MiB", "program.py")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_children_of_children(cli, tmp_path):
    (tmp_path / "program.py").write_text(NESTED)
    result = cli("run", "--capacity", "256MiB", "program.py")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_fork_while_threads_allocate(cli, tmp_path):
    (tmp_path / "program.py").write_text(
        """
import os, threading, warnings
import numpy as np
warnings.simplefilter("ignore")
stop = threading.Event()
def churn():
    while not stop.is_set():
        a = np.ones(20_000)
        del a
threads = [threading.Thread(target=churn) for _ in range(3)]
for t in threads: t.start()
for turn in range(20):
    pid = os.fork()
    if pid == 0:
        b = np.full(50_000, 7.0)
        os._exit(0 if (b == 7).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for t in threads: t.join()
print("done")
"""
    )
    result = cli("run", "--capacity", "256MiB", "program.py")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
