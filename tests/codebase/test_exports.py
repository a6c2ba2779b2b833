"""The exported names: adding or dropping one is a decision, made here too."""

from __future__ import annotations

import inspect

import ndarena

EXPORTS = [
    "Aligned",
    "Arena",
    "ArenaHandler",
    "Callback",
    "ClosedError",
    "CorruptionError",
    "CudaUnavailableError",
    "Default",
    "Error",
    "Fallback",
    "FormatError",
    "Library",
    "Limiting",
    "LockTimeoutError",
    "Locked",
    "Previous",
    "PyMem",
    "PythonResource",
    "ReadOnlyError",
    "Ref",
    "Resource",
    "ResourceStats",
    "StaleRefError",
    "Statistics",
    "Stats",
    "Threshold",
    "TraceEvent",
    "Tracing",
    "__version__",
    "arena_of",
    "current",
    "errors",
    "get_cmake_dir",
    "get_include",
    "handler_of",
    "install",
    "open",
    "ref",
    "scratch",
    "shared",
    "uninstall",
]


def test_exports_are_pinned() -> None:
    assert sorted(ndarena.__all__) == sorted(EXPORTS)
    assert [name for name in ndarena.__all__ if not hasattr(ndarena, name)] == []


def test_nothing_else_is_public() -> None:
    names = vars(ndarena).items()
    public = {n for n, v in names if not n.startswith("_") and not inspect.ismodule(v)}
    public.discard("annotations")
    assert public <= set(ndarena.__all__)
