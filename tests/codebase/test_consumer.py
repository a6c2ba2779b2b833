"""A foreign C++ project finds, links and runs the library that comes with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ndarena

from extensions import run
from tree import ROOT

SOURCE = ROOT / "tests" / "consumer"


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The installed library in another place: nothing in it may name the old one."""
    package = Path(ndarena.get_include()).parent
    for part in ("include", "lib", "share"):
        shutil.copytree(package / part, tmp_path / "prefix" / part)
    return tmp_path / "prefix"


def expect(output: str) -> None:
    assert output.split() == ["consumer:", "ok", ndarena.__version__]


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_find_package(tmp_path: Path, moved: Path) -> None:
    build = tmp_path / "build"
    run("cmake", "-S", SOURCE, "-B", build, f"-DCMAKE_PREFIX_PATH={moved}", cwd=tmp_path)
    run("cmake", "--build", build, cwd=tmp_path)
    expect(run(build / "consumer", cwd=tmp_path))


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="needs pkg-config")
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_pkg_config(tmp_path: Path, moved: Path) -> None:
    run(
        *("make", "-f", SOURCE / "Makefile", f"SOURCE_DIR={SOURCE}"),
        cwd=tmp_path,
        PKG_CONFIG_PATH=moved / "share" / "pkgconfig",
    )
    expect(run(tmp_path / "consumer", cwd=tmp_path))


def test_package_says_where(tmp_path: Path) -> None:
    assert Path(ndarena.get_include(), "ndarena", "arena.hpp").is_file()
    assert Path(ndarena.get_cmake_dir(), "ndarenaConfig.cmake").is_file()
