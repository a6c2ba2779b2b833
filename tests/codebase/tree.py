"""The source tree that the checks in this folder look at."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("arena", "bindings", "tests", "tools")


def sources(*suffixes: str, folders: tuple[str, ...] = FOLDERS, root: Path = ROOT) -> list[Path]:
    """Return the source files below the folders, sorted."""
    return sorted(
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )
