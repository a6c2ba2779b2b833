"""The documents tell the truth: their Python runs, their dumps are real, their links exist."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ndarena

from extensions import boost_headers, run
from tree import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), ROOT / "arena" / "README.md", *(ROOT / "docs").rglob("*.md")],
    key=str,
)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DUMP = re.compile(r"^[0-9a-f]{6}(?: {1,2}(?:[0-9a-f]{2}|\.\.)){16}", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
PATH = re.compile(r"`((?:arena|bindings|docs|tests|tools)/[\w./-]+)`")
LANGUAGES = {"python", "c", "cpp", "cmake", "text"}
NEEDS_MATPLOTLIB = {"ndarena.plot"}


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page that have exactly this language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def is_native(page: Path) -> bool:
    """Return whether a page has something to compile."""
    return bool(blocks(page, "cpp") or blocks(page, "c"))


def build(page: Path, folder: Path) -> None:
    """Build what a page shows with the CMake that it shows: extension modules, and a program."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    script = "\n".join(blocks(page, "cmake"))
    if "project(" not in script:
        head = "cmake_minimum_required(VERSION 3.25)\nproject(page LANGUAGES CXX)\n"
        script = f"{head}add_executable(program program.cpp)\n{script}"
    Path(folder, "CMakeLists.txt").write_text(script, encoding="utf-8")
    for suffix in ("cpp", "c"):
        for text in blocks(page, suffix):
            module = re.search(r"PyInit_(\w+)", text)
            assert module or "int main(" in text, f"neither a module nor a program:\n{text}"
            name = module[1] if module else "program"
            Path(folder, f"{name}.{suffix}").write_text(text, encoding="utf-8")
    strict = "-Wall -Wextra -Werror"
    run(
        *("cmake", "-S", folder, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"),
        *(f"-Dndarena_DIR={ndarena.get_cmake_dir()}", f"-DCMAKE_CXX_FLAGS={strict}"),
        f"-DCMAKE_C_FLAGS={strict}",
        *(f"-DCMAKE_INCLUDE_PATH={found}" for found in boost_headers()),
        cwd=folder,
    )
    run("cmake", "--build", folder, cwd=folder)


def run_python(page: Path, folder: Path) -> str:
    """Run a page from top to bottom in a process and a folder of its own."""
    if is_native(page):
        build(page, folder)
    script = folder / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NDARENA_")}
    environment.update(
        NDARENA_DIR=str(folder),
        OPENBLAS_NUM_THREADS="1",  # Python warns of fork in a process with threads
        PYTHONIOENCODING="utf-8",
        PYTHONPATH=os.pathsep.join(os.path.abspath(p or ".") for p in sys.path),
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_pages_are_found() -> None:
    assert ROOT / "README.md" in PAGES
    assert ROOT / "docs" / "design" / "format.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_block_has_a_known_language(page: Path) -> None:
    # Whatever is tagged otherwise ("python no-run", "py") would not be run.
    languages = {name for name, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert languages <= LANGUAGES


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=_id)
def test_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    run_python(page, tmp_path)


@pytest.mark.parametrize("page", [p for p in PAGES if is_native(p)], ids=_id)
def test_programs_of_a_page_run(page: Path, tmp_path: Path) -> None:
    build(page, tmp_path)
    if Path(tmp_path, "program").exists():
        run(tmp_path / "program", cwd=tmp_path)


def test_dumps_of_the_format_are_real(tmp_path: Path) -> None:
    page = ROOT / "docs" / "design" / "format.md"
    printed = run_python(page, tmp_path)
    real = {line[:6]: line for line in printed.splitlines()}
    shown = [match[0] for match in DUMP.finditer(page.read_text(encoding="utf-8"))]
    assert len(shown) > 50
    for line in shown:
        pattern = re.escape(line).replace(re.escape(".."), "[0-9a-f]{2}")
        assert re.fullmatch(pattern, real[line[:6]]), f"{line}\nis now\n{real[line[:6]]}"
    tables = [b for b in blocks(page, "text") if not DUMP.search(b) and not b.startswith("+")]
    assert len(tables) == 2
    for table in tables:
        assert table in printed


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link, _ in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    for link, anchor in LINK.findall(text):
        target = page.parent / link
        if anchor and "://" not in link:
            assert anchor[1:] in anchors(target), f"{link}{anchor}"
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in anchors(page), anchor


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page can be linked as."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_that_are_named_exist(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_tests_that_are_named_exist() -> None:
    """The guarantees name the C++ test of each assumption."""
    page = (ROOT / "docs" / "design" / "guarantees.md").read_text(encoding="utf-8")
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "cpp").rglob("*.cpp")]
    known = {
        f"{suite}.{name}"
        for text in sources
        for suite, name in re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", text, re.MULTILINE)
    }
    suite = ""
    named = []
    for prefix, name in re.findall(r"\*(\w*)\.(\w+)\*", page):
        suite = prefix or suite
        if name[0].isupper() and f"{suite}.{name}" != "Suite.Name":
            named.append(f"{suite}.{name}")
    assert named
    assert [name for name in named if name not in known] == []


def _modules() -> list[str]:
    names = [m.name for m in pkgutil.iter_modules(ndarena.__path__, "ndarena.")]
    return ["ndarena", *(n for n in names if n not in ("ndarena._core", "ndarena.__main__"))]


@pytest.mark.parametrize("name", _modules())
def test_examples_of_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    plots = importlib.util.find_spec("matplotlib") is not None
    if plots:
        importlib.import_module("matplotlib").use("Agg")
    elif name in NEEDS_MATPLOTLIB:
        pytest.skip("needs matplotlib")
    for variable in [v for v in os.environ if v.startswith("NDARENA_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NDARENA_DIR", str(tmp_path))
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    for test in finder.find(module):
        if test.examples and (plots or not test.name.endswith(".plot")):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    if plots:
        importlib.import_module("matplotlib.pyplot").close("all")
