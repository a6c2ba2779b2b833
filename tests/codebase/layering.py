"""The layer rules, as functions from a source tree to a list of violations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# bottom to top; a file includes its own layer, and lower ones through <layer>/<layer>.hpp
LAYERS = (
    *("base", "platform", "segment", "journal", "tlsf"),
    *("heap", "directory", "resources", "numpy"),
)
# pure algorithms: they run over a plain buffer and know no operating system
ALGORITHMS = ("journal", "tlsf", "directory")
PYTHON_HEADERS = re.compile(r"(Python\.h|pyconfig\.h|numpy/.*|pybind11/.*)$")
# public headers for authors of other extension modules
PYTHON_PUBLIC_HEADERS = ("c_api.h", "numpy_handler.hpp")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (bracket, name) of each include."""
    yield from INCLUDE.findall(path.read_text(encoding="utf-8"))


def _cpp_files(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.rglob("*") if p.suffix in {".cpp", ".hpp", ".h"})


def _is_system(name: str) -> bool:
    return name.endswith(".h") and not PYTHON_HEADERS.match(name)


def check_core(root: Path) -> list[str]:
    """arena/src: order of the layers, doors, and who may know Python and the system."""
    found = []
    src = root / "arena" / "src"
    for path in _cpp_files(src):
        where = path.relative_to(root)
        layer = path.relative_to(src).parts[0]
        if layer not in LAYERS:
            found.append(f"{where}: {layer} is not a layer")
            continue
        for bracket, name in includes(path):
            reason = (
                _quoted(layer, path, name, src)
                if bracket == '"'
                else _bracketed(layer, name, where)
            )
            if reason:
                found.append(f"{where}: {name}: {reason}")
    return found


def _quoted(layer: str, path: Path, name: str, src: Path) -> str | None:
    if "/" not in name:
        return None if (path.parent / name).exists() else "not in this layer; name the layer"
    other, file = name.split("/", 1)
    if other == layer:
        return None
    if other not in LAYERS:
        return "neither a layer nor in <>"
    if LAYERS.index(other) > LAYERS.index(layer):
        return f"{layer} lies below {other}"
    if layer in ALGORITHMS and other == "platform":
        return f"{layer} knows no operating system"
    if file != f"{other}.hpp":
        return f"other layers are included through {other}/{other}.hpp"
    return None


def _bracketed(layer: str, name: str, where: Path) -> str | None:
    if PYTHON_HEADERS.match(name):
        if layer != "numpy":
            return "only layer numpy knows Python"
        if name.startswith("pybind11/"):
            return "pybind11 stays in bindings/module"
    if name.startswith("boost/interprocess/sync/"):
        return "Boost.Interprocess's synchronisation is not robust"
    if layer in ALGORITHMS and _is_system(name):
        return f"{layer} knows no operating system"
    if name.split("/", 1)[0] in LAYERS and name.split("/", 1)[0] != "numpy":
        return "layers are included with quotes"
    return None


def check_public_headers(root: Path) -> list[str]:
    """arena/include: self-contained, no layer of src, no Python but where it is the purpose."""
    found = []
    for path in _cpp_files(root / "arena" / "include"):
        where = path.relative_to(root)
        for bracket, name in includes(path):
            if bracket == '"':
                found.append(f"{where}: {name}: public headers include with <>")
            elif PYTHON_HEADERS.match(name) and path.name not in PYTHON_PUBLIC_HEADERS:
                found.append(f"{where}: {name}: this header knows no Python")
            elif name.startswith("pybind11/"):
                found.append(f"{where}: {name}: pybind11 stays in bindings/module")
    return found


def check_module(root: Path) -> list[str]:
    """bindings/module: its own files, and every layer through its door."""
    found = []
    module = root / "bindings" / "module"
    for path in _cpp_files(module):
        for bracket, name in includes(path):
            if bracket == "<" or (module / name).exists():
                continue
            layer, _, file = name.partition("/")
            if layer not in LAYERS or file != f"{layer}.hpp":
                found.append(f"{path.relative_to(root)}: {name}: not a door of a layer")
    return found


def check_package(root: Path) -> list[str]:
    """bindings/ndarena imports no tools, but for `python -m ndarena`."""
    found = []
    for path in sorted((root / "bindings" / "ndarena").rglob("*.py")):
        if path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
            else:
                continue
            for name in names:
                if re.match(r"(ndarena\.)?tools(\.|$)", name):
                    found.append(f"{path.relative_to(root)}:{node.lineno}: imports {name}")
    return found


def check_all(root: Path) -> list[str]:
    """All rules."""
    return [
        *check_core(root),
        *check_public_headers(root),
        *check_module(root),
        *check_package(root),
    ]
