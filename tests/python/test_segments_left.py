"""Segments without a name of their own go with their last process; nothing stays in /dev/shm."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import pytest

import ndarena

SHM = Path("/dev/shm")

SEGMENTS = """
import os, sys, signal, multiprocessing
import numpy as np, ndarena
if __name__ == "__main__":
    arena = ndarena.shared(capacity="16MiB")
    print(arena.name, flush=True)
    a = arena.ones(1000)
    {what}
"""
ENDINGS = {
    "returns": "pass",
    "closes": "del a; arena.close()",
    "raises": "sys.stderr = None; raise SystemExit(3)",
    "leaks a view": "import builtins; builtins.kept = a[3:]; arena.close()",
    "pool": """
    with multiprocessing.Pool(2) as pool:
        assert pool.map(np.sum, [a, a]) == [1000, 1000]""",
    "child after child": """
    for _ in range(3):
        p = multiprocessing.Process(target=np.sum, args=(a,)); p.start(); p.join()""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_behind(python, ending):
    result = python("-W", "ignore", "-c", SEGMENTS.format(what=ENDINGS[ending]))
    assert result.stderr == ""
    assert not (SHM / result.stdout.strip()).exists()


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_next_start_cleans_up(python, ending):
    result = python("-c", SEGMENTS.format(what=ending))
    name = result.stdout.strip()
    assert (SHM / name).exists()
    python("-c", "import ndarena; ndarena.shared(capacity='1MiB').close()")
    assert not (SHM / name).exists()


def test_the_next_start_leaves_messages(python):
    """Killed with a message on its way: its segment stays for the message's reader."""
    what = """
    import pickle
    print(pickle.dumps(ndarena.ref(a)).hex(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)"""
    name, message = python("-c", SEGMENTS.format(what=what)).stdout.split()
    python("-c", "import ndarena; ndarena.shared(capacity='1MiB').close()")
    assert (SHM / name).exists()
    a = pickle.loads(bytes.fromhex(message)).get()
    assert (a == 1).all()
    del a
    ndarena._refs._attached.clear()
    gc.collect()
    assert not (SHM / name).exists(), "its last reader has taken it away"


def test_a_segment_with_a_name_stays(python, request):
    name = f"ndarena-test-{os.getpid()}"
    code = f"import ndarena; ndarena.shared({name!r}, 'x', capacity='1MiB').close()"
    try:
        assert python("-c", code).stderr == ""
        python("-c", "import ndarena; ndarena.shared(capacity='1MiB').close()")
        assert (SHM / name).exists()
    finally:
        with ndarena.shared(name, "r+") as again:
            again.unlink()
    assert not (SHM / name).exists()


def test_no_resource_tracker(python):
    code = """
import ndarena, numpy as np
from multiprocessing import resource_tracker
arena = ndarena.shared(capacity="1MiB")
assert resource_tracker._resource_tracker._pid is None
arena.close()
"""
    assert python("-c", code).stderr == ""
