"""Subinterpreters: as far as NumPy goes, which is a clear refusal and no harm done."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

PROGRAM = """
import ndarena
import numpy as np
{module} as interpreters

arena = ndarena.scratch(capacity="16MiB")
a = arena.ones(1000)
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import ndarena
except ImportError:
    pass
else:
    raise SystemExit("imported twice")
''')
interpreters.destroy(other)
assert a.sum() == 1000
assert arena.ones(1000).sum() == 1000
assert arena.check() == []
arena.close()
print("done")
"""


def test_a_second_interpreter_is_refused(python):
    for name in ("_interpreters", "_xxsubinterpreters"):
        if importlib.util.find_spec(name) is not None:
            break
    else:
        pytest.skip("this Python has no module for subinterpreters")
    if int(np.__version__.split(".")[0]) < 2:
        pytest.skip("NumPy 1.x loads in a second interpreter, with a warning of its own")
    result = python("-c", PROGRAM.format(module=f"import {name}"), timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
