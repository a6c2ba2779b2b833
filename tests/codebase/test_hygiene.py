"""What must not slip in, and what must not be forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tree import ROOT, sources

LIBRARY = ("arena/include", "arena/src", "bindings/module")


def matches(pattern: str, paths: list[Path]) -> list[str]:
    compiled = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if compiled.search(line)
    ]


def text_files() -> list[Path]:
    suffixes = (".cpp", ".hpp", ".h", ".py", ".pyi", ".cmake", ".in", ".txt", ".md", ".supp")
    top = [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"]
    return [*sources(*suffixes, folders=("arena", "bindings", "docs", "tests", "tools")), *top]


def test_no_unfinished_work() -> None:
    own = Path(__file__).resolve()
    paths = [p for p in sources(".cpp", ".hpp", ".h", ".py", ".pyi") if p != own]
    assert matches(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", paths) == []


def test_library_prints_nothing() -> None:
    pattern = r"\b(f?printf|f?puts|putchar)\s*\(|\bstd::(cout|cerr|clog)\b"
    assert matches(pattern, sources(".cpp", ".hpp", ".h", folders=LIBRARY)) == []
    for path in sources(".py", folders=("bindings/ndarena",)):
        if path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), path


def test_no_path_of_a_machine() -> None:
    own = Path(__file__).resolve()
    pattern = r"(?<![\w.~*/-])/(root|work|Users|home/\w+)/"
    assert matches(pattern, [p for p in text_files() if p != own]) == []


def test_lines_are_clean() -> None:
    assert matches(r"[ \t]+$|\t", [p for p in text_files() if p.suffix != ".md"]) == []


def test_changelog_names_the_version() -> None:
    found = re.search(r"VERSION (\d+\.\d+\.\d+)", (ROOT / "CMakeLists.txt").read_text())
    assert found
    assert f"## [{found[1]}]" in (ROOT / "CHANGELOG.md").read_text()
