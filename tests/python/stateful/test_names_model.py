"""Names against a dict: any operations, in any order, with crashes and reboots between."""

import os
import shutil
import tempfile

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import ndarena

NAMES = st.one_of(
    st.sampled_from(["a", "b", "a/b", "a/c", "z" * 1000, "ü"]),
    st.text(min_size=1, max_size=12),
)
VALUES = st.builds(
    lambda n, seed, dtype: (np.arange(n) * seed % 251).astype(dtype),
    st.integers(0, 3000),
    st.integers(0, 1000),
    st.sampled_from(["u1", "<f8", ">i4", "c8"]),
)


class Names(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="ndarena-names-")
        self.path = os.path.join(self.directory, "a.nda")
        self.model = {}
        self.stored = {}
        self.held = []
        self.number = 0

    @initialize(capacity=st.sampled_from(["8MiB", "64MiB"]))
    def create(self, capacity):
        self.arena = ndarena.open(self.path, "w", capacity=capacity)
        self.stored = {}

    def teardown(self):
        self.held.clear()
        self.arena.close()
        shutil.rmtree(self.directory)

    @rule(name=NAMES, value=VALUES)
    def assign(self, name, value):
        self.arena[name] = value
        self.model[name] = value

    @rule(name=NAMES, value=VALUES)
    def assign_own(self, name, value):
        own = self.arena.array(value)
        self.arena[name] = own
        self.model[name] = value

    @rule(name=NAMES)
    def remove(self, name):
        assert (self.arena.pop(name, None) is None) == (name not in self.model)
        self.model.pop(name, None)

    @rule(old=NAMES, new=NAMES)
    def rename(self, old, new):
        try:
            self.arena.rename(old, new)
        except KeyError:
            assert old not in self.model
        except FileExistsError:
            assert new in self.model
            assert old != new
        else:
            self.model[new] = self.model.pop(old)

    @rule(name=NAMES)
    def hold(self, name):
        if name in self.model:
            self.held.append((self.arena[name], self.model[name]))

    @rule()
    def let_go(self):
        if self.held:
            self.held.pop()

    @rule(old=NAMES, new=NAMES)
    def alias(self, old, new):
        if old in self.model:
            self.arena[new] = self.arena[old]
            self.model[new] = self.model[old]

    @rule(changes=st.lists(st.tuples(NAMES, st.none() | VALUES), max_size=8), fails=st.booleans())
    def transaction(self, changes, fails):
        model = dict(self.model)
        try:
            with self.arena.transaction():
                for name, value in changes:
                    if value is None:
                        self.arena.pop(name, None)
                        model.pop(name, None)
                    else:
                        self.arena[name] = value
                        model[name] = value
                assert sorted(self.arena) == sorted(model, key=lambda n: n.encode())
                if fails:
                    raise InterruptedError
        except InterruptedError:
            return
        self.model = model

    @rule()
    def flush(self):
        self.arena.flush()
        self.stored = dict(self.model)

    @rule(mode=st.sampled_from(["r+", "a"]))
    def reopen(self, mode):
        self.held.clear()
        self.arena.close()
        self.arena = ndarena.open(self.path, mode)
        self.stored = dict(self.model)

    @rule()
    def crash(self):
        """A child with its own copy of this process's state dies; a reboot takes the rest."""
        self.number += 1
        copy = os.path.join(self.directory, f"{self.number}.nda")
        shutil.copyfile(self.path, copy)
        self.held.clear()
        self.arena.close(flush=False)
        self.path = copy
        self.arena = ndarena.open(copy, "r+")
        self.model = dict(self.stored)

    @invariant()
    def agrees(self):
        if not hasattr(self, "arena"):
            return
        assert list(self.arena) == sorted(self.model, key=lambda n: n.encode())
        for name, value in self.model.items():
            found = self.arena[name]
            assert found.dtype == value.dtype
            assert np.array_equal(found, value)
        for array, value in self.held:
            assert np.array_equal(array, value)
        assert self.arena.check() == []


Names.TestCase.settings = settings(
    max_examples=int(os.environ.get("NAMES_MODEL_EXAMPLES", "15")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNames = Names.TestCase
