"""What users see: everything public is documented, and the stub of the extension is right."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest

import ndarena
from ndarena import _core

from tree import ROOT


def callables() -> Iterator[tuple[str, object]]:
    """Yield every public function, class and method with its qualified name."""
    for name in ndarena.__all__:
        value = getattr(ndarena, name)
        if not callable(value):
            continue
        yield name, value
        if inspect.isclass(value):
            for member, function in inspect.getmembers(value):
                of_ours = (getattr(function, "__module__", None) or "").startswith("ndarena")
                if not member.startswith("_") and of_ours:
                    yield f"{name}.{member}", function


@pytest.mark.parametrize(("name", "value"), [pytest.param(n, v, id=n) for n, v in callables()])
def test_documented(name: str, value: object) -> None:
    text = inspect.getdoc(value) or ""
    assert text.strip(), f"{name} has no docstring"
    if inspect.isclass(value) and issubclass(value, BaseException):
        return
    if not callable(value):
        return
    documented = set(re.findall(r"^\*{0,2}(\w+(?:, \*{0,2}\w+)*)(?: :.*)?$", text, re.MULTILINE))
    words = {word.strip(" *") for group in documented for word in group.split(",")}
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name not in ("self", "cls") and not parameter.name.startswith("_"):
            assert parameter.name in words, f"{name}: parameter {parameter.name} is undocumented"


def test_stub_matches_the_extension() -> None:
    tree = ast.parse((ROOT / "bindings" / "ndarena" / "_core.pyi").read_text(encoding="utf-8"))
    assert _declared(tree.body) == _public(_core)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            assert _declared(node.body) == _public(getattr(_core, node.name)), node.name


def _declared(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def _public(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}
