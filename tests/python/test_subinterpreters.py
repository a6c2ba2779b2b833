"""Subinterpreters: a clear refusal and no harm done."""

from __future__ import annotations

import importlib.util

import pytest

PROGRAM = """
import ndarena
import numpy as np
{module} as interpreters

arena = ndarena.scratch(capacity="16MiB")
a = arena.ones(1000)
other = interpreters.create({isolation})
interpreters.run_string(other, '''
try:
    import ndarena
except ImportError as error:
    print("refused" if "interpreter" in str(error) else error, flush=True)
else:
    print("imported twice", flush=True)
''')
interpreters.destroy(other)
assert a.sum() == 1000
assert arena.ones(1000).sum() == 1000
assert arena.check() == []
arena.close()
print("done")
"""

# How interpreters are made that share the main one's lock, and those that need not.
KINDS = {
    "_interpreters": ('"legacy"', '"isolated"'),
    "_xxsubinterpreters": ("isolated=False", "isolated=True"),
}


@pytest.mark.parametrize("kind", [0, 1])
def test_a_second_interpreter_is_refused(python, kind):
    for name in KINDS:
        if importlib.util.find_spec(name) is not None:
            break
    else:
        pytest.skip("this Python has no module for subinterpreters")
    program = PROGRAM.format(module=f"import {name}", isolation=KINDS[name][kind])
    result = python("-c", program, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "refused\ndone\n", "")
