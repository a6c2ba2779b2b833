"""The end of the interpreter: arrays die before, with and after everything else."""

from __future__ import annotations

import pytest

START = """
import numpy as np
import ndarena, mmap, atexit, threading, time, gc, sys, os
def arena_of_kind(kind):
    if kind == "buffer":
        return ndarena.Arena(mmap.mmap(-1, 64 * 2**20))
    if kind == "file":
        return ndarena.open(f"{os.getpid()}.nda", "x", capacity="64MiB")
    if kind == "shared":
        arena = ndarena.shared(capacity="64MiB")
        arena.unlink()
        return arena
    return ndarena.scratch(capacity="64MiB")
arena = arena_of_kind(sys.argv[1])
"""

PROGRAMS = {
    "global array": "a = arena.ones(100_000)\narena.close()",
    "global array, arena not closed": "a = arena.ones(100_000)",
    "array only": "a = arena.ones(100_000)\narena.close()\ndel arena",
    "arena dies first": "a = arena.ones(1000)\nb = a[::2]\narena.close()\ndel arena, a",
    "cycle": """
class Node: pass
node = Node()
node.me, node.array, node.arena = node, arena.ones(100_000), arena
del node
""",
    "handler entered and never left": "arena.handler().__enter__()\na = np.ones(100_000)",
    "installed": """
ndarena.install(arena)
a = np.ones(100_000)
b = [np.ones(3) for _ in range(100)]
""",
    "installed, uninstalled": "ndarena.install(arena)\na = np.ones(100_000)\nndarena.uninstall()",
    "at exit": """
a = arena.ones(1000)
@atexit.register
def last():
    b = arena.ones(1000)
    with arena.handler():
        c = b + a
    assert c.sum() == 2000
    globals().update(b=b, c=c)
""",
    "freed at exit after close": """
a = arena.ones(1000)
arena.close()
atexit.register(lambda: globals().pop("a"))
""",
    "daemon threads": """
def churn():
    with arena.handler():
        while True:
            a = np.ones(10_000)
            b = a + 1
for _ in range(3):
    threading.Thread(target=churn, daemon=True).start()
time.sleep(0.2)
""",
    "daemon threads, installed": """
ndarena.install(arena)
def churn():
    while True:
        a = np.ones(10_000)
for _ in range(3):
    threading.Thread(target=churn, daemon=True).start()
time.sleep(0.2)
""",
    "thread local": """
local = threading.local()
def work():
    local.a = arena.ones(1000)
t = threading.Thread(target=work); t.start(); t.join()
local.b = arena.ones(1000)
""",
    "in modules": "np.kept = arena.ones(1000)\nsys.kept = arena.ones(1000)\nthreading.kept = arena",
    "in a finalizer": """
class Last:
    def __del__(self, make=arena.ones):
        try:
            self.a = make(10)
        except ValueError:  # the collector may have finalized the arena first
            pass
keep = Last()
""",
    "object array": "a = arena.array([arena, object(), None], dtype=object)\na[1] = a",
    "sys.exit": "a = arena.ones(1000)\nsys.exit(0)",
    "os._exit": "a = arena.ones(1000)\nos._exit(0)",
}


@pytest.mark.parametrize("kind", ["buffer", "file", "scratch", "shared"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_exit(python, kind, program):
    result = python("-c", START + PROGRAMS[program], kind)
    assert (result.returncode, result.stderr) == (0, "")


def test_forgotten_is_shown_in_development_mode(python):
    code = "import ndarena\ndef f():\n    ndarena.scratch(capacity='16MiB')\nf()"
    result = python("-X", "dev", "-c", code)
    assert result.returncode == 0
    assert "ResourceWarning: unclosed <ndarena.Arena scratch" in result.stderr


@pytest.mark.nosan  # interpreters that leak on purpose
def test_exception_at_the_top(python):
    result = python("-c", START + "a = arena.ones(1000)\nraise KeyError(a.size)", "scratch")
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("KeyError: 1000")
