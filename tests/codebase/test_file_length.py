"""One topic a file: at most 500 lines."""

from __future__ import annotations

from tree import ROOT, sources

LIMIT = 500


def test_file_length() -> None:
    files = sources(".cpp", ".hpp", ".h", ".py", ".pyi")
    assert files
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert {name: n for name, n in lengths.items() if n > LIMIT} == {}
