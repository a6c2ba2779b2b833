"""Builds the extension modules of tests/consumer/extension, as a foreign project would."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ndarena

from tree import ROOT

SOURCE = ROOT / "tests" / "consumer" / "extension"


def run(*command: str | Path, cwd: Path, **env: str | Path) -> str:
    """Run a command, which has to succeed, and return what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def boost_headers() -> list[Path]:
    """Return where PyPI's Boost headers are, if they are installed."""
    found = importlib.util.find_spec("libboost_headers")
    if found is None or not found.submodule_search_locations:
        return []
    return [Path(found.submodule_search_locations[0], "include")]


@functools.cache
def _build() -> Path | None:
    if not shutil.which("cmake"):
        return None
    folder = tempfile.TemporaryDirectory(prefix="ndarena-extensions-")
    _kept.append(folder)
    build = Path(folder.name)
    options = [
        f"-DCMAKE_PREFIX_PATH={Path(ndarena.get_include()).parent}",
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",  # compilers that believe what they are told
    ]
    options += [f"-DBOOST_INCLUDE_DIR={include}" for include in boost_headers()]
    run("cmake", "-S", SOURCE, "-B", build, *options, cwd=build)
    run("cmake", "--build", build, "--parallel", "2", cwd=build)
    return build


_kept: list[Any] = []


def built() -> Path:
    """Return the folder with the modules; built once in a process."""
    folder = _build()
    if folder is None:
        pytest.skip("needs cmake")
    return folder


@functools.cache
def module(name: str) -> ModuleType:
    """Import one of the modules."""
    (path,) = built().glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


_function = ctypes.CFUNCTYPE
_address, _size = ctypes.c_void_p, ctypes.c_size_t


class Table(ctypes.Structure):
    """NumPy's PyDataMem_Handler: what is called without Python, called from Python."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", _address),
        ("_malloc", _function(_address, _address, _size)),
        ("_calloc", _function(_address, _address, _size, _size)),
        ("_realloc", _function(_address, _address, _address, _size)),
        ("_free", _function(None, _address, _address, _size)),
    )

    @classmethod
    def of(cls, capsule: object) -> Table:
        """Return the table in a capsule, which is to be kept."""
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = _address, [ctypes.py_object, ctypes.c_char_p]
        return cls.from_address(pointer(capsule, b"mem_handler"))

    def malloc(self, nbytes: int) -> int | None:
        return self._malloc(self.context, nbytes)

    def calloc(self, count: int, size: int) -> int | None:
        return self._calloc(self.context, count, size)

    def realloc(self, p: int | None, nbytes: int) -> int | None:
        return self._realloc(self.context, p, nbytes)

    def free(self, p: int | None, nbytes: int = 0) -> None:
        self._free(self.context, p, nbytes)


def exercise(seed: int) -> None:
    """Arrays of many sizes, with known contents, in all the ways that NumPy asks for memory."""
    rng = np.random.default_rng(seed)
    kept = []
    for size in rng.integers(0, 60_000, 12):
        kept.append((np.full(size, size % 251, np.uint8), size % 251))
        assert not np.zeros(size, np.uint8).any()
        if size % 3 == 0:
            kept.pop(int(rng.integers(len(kept))))
    grown = np.arange(100)
    for size in (20_000, 50, 3000):
        grown.resize(size, refcheck=False)
        assert (grown[:50] == np.arange(50)).all()
        assert not grown[100:].any()
    for array, value in kept:
        assert (array == value).all()
    assert np.argsort(rng.random(2000)).sum() == 1999 * 1000
    assert np.array(["text", None, 3], object)[2] == 3
