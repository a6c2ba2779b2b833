"""A file includes only its own layer, and lower ones through their door."""

from __future__ import annotations

from pathlib import Path

import pytest

from layering import LAYERS, check_all
from tree import ROOT


def test_tree() -> None:
    assert check_all(ROOT) == []


def test_every_layer_has_its_door() -> None:
    src = ROOT / "arena" / "src"
    layers = [folder.name for folder in sorted(src.iterdir()) if any(folder.glob("*.?pp"))]
    assert layers, "no sources found"
    assert set(layers) <= set(LAYERS)
    for layer in layers:
        assert (src / layer / f"{layer}.hpp").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("arena/src/base/a.cpp", '#include "heap/heap.hpp"'),
        ("arena/src/heap/a.cpp", '#include "base/bits.hpp"'),
        ("arena/src/heap/a.cpp", '#include "nowhere.hpp"'),
        ("arena/src/heap/a.cpp", "#include <Python.h>"),
        ("arena/src/heap/a.cpp", "  #  include <numpy/ndarraytypes.h>"),
        ("arena/src/heap/a.cpp", "#include <boost/interprocess/sync/interprocess_mutex.hpp>"),
        ("arena/src/numpy/a.cpp", "#include <pybind11/pybind11.h>"),
        ("arena/src/tlsf/a.cpp", "#include <sys/mman.h>"),
        ("arena/src/journal/a.cpp", "#include <unistd.h>"),
        ("arena/src/journal/a.cpp", '#include "platform/platform.hpp"'),
        ("arena/src/stray/a.cpp", ""),
        ("arena/include/ndarena/a.hpp", '#include "base/base.hpp"'),
        ("arena/include/ndarena/a.hpp", "#include <numpy/arrayobject.h>"),
        ("bindings/module/a.cpp", '#include "heap/commit.hpp"'),
        ("bindings/ndarena/a.py", "from . import tools"),
        ("bindings/ndarena/a.py", "def f():\n    import ndarena.tools.cli"),
        ("bindings/ndarena/a.py", "from .tools import cli"),
    ],
)
def test_violation_is_seen(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")
    assert check_all(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("arena/src/heap/a.cpp", '#include "base/base.hpp"\n#include "heap/b.hpp"'),
        ("arena/src/heap/a.cpp", "#include <ndarena/error.hpp>\n#include <vector>"),
        ("arena/src/platform/a.cpp", "#include <sys/mman.h>\n#include <fcntl.h>"),
        ("arena/src/numpy/a.cpp", "#include <Python.h>\n#include <numpy/ndarraytypes.h>"),
        ("arena/include/ndarena/numpy_handler.hpp", "#include <numpy/arrayobject.h>"),
        ("bindings/module/a.cpp", '#include "heap/heap.hpp"\n#include <pybind11/pybind11.h>'),
        ("bindings/ndarena/__main__.py", "from .tools import cli"),
        ("bindings/ndarena/a.py", "import itertools\nfrom . import _core"),
    ],
)
def test_what_is_allowed(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")
    assert check_all(tmp_path) == []
