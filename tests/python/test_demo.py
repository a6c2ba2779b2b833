"""The demonstration: the main job on real input, whole and small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ndarena._places import in_memory
from ndarena.tools import demo, limits


@pytest.fixture
def place(tmp_path):
    pytest.importorskip("sklearn", reason="the demo's data ship with scikit-learn")
    pytest.importorskip("PIL", reason="the demo's photographs need Pillow")
    if in_memory(str(tmp_path)):
        pytest.skip("the temporary directory is kept in memory")
    return tmp_path


def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (70, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (2, 5)])
def test_the_expected_result_is_that_of_the_program(python, tmp_path, rows, columns):
    np.save(tmp_path / "photo.npy", photo())
    result = python(demo._PROGRAM, tmp_path / "photo.npy", rows, columns)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == demo.expected_result(photo(), rows, columns)


def test_the_program_knows_nothing():
    with open(demo._PROGRAM, encoding="utf-8") as file:
        text = file.read()
    assert "ndarena" not in text
    assert "memmap" not in text


@pytest.mark.slow
@pytest.mark.nosan
def test_demo(cli, place):
    result = cli(
        "demo", "--limit", "256MiB", "--factor", "3", "--dir", place, "--json", timeout=300
    )
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["as_claimed"]
    assert data["plain"]["did_not_fit"]
    assert data["run"]["right_result"]
    assert data["run"]["peak_allocated"] >= 3 * 256 * 2**20
    if data["limit_by"].startswith("cgroup"):
        assert data["run"]["peak_rss"] <= 256 * 2**20 * 1.2
    assert list(place.iterdir()) == []


@pytest.mark.slow
@pytest.mark.nosan
def test_demo_in_words(cli, place):
    picture = place / "heap.png"
    words = ("demo", "--limit", "192MiB", "--factor", "1.5", "--dir", place, "-o", picture)
    result = cli(*words, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("[yes]") == 3
    assert "[NO]" not in result.stdout
    assert "allocated" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(place.iterdir()) == [picture]


@pytest.mark.slow
@pytest.mark.nosan
@pytest.mark.parametrize("delay", [0, 0.05, 0.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(place, number, delay):
    with subprocess.Popen(
        [sys.executable, "-m", "ndarena", "demo", "--dir", place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in background jobs too
    ) as child:
        deadline = time.monotonic() + 60
        while not list(place.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert list(place.iterdir())
        time.sleep(delay)
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode not in (0, None)
    assert list(place.iterdir()) == []
    left = [
        name
        for _, parent in limits._parents()
        for name in os.listdir(parent)
        if name.startswith(f"ndarena-{child.pid}-")
    ]
    assert left == []


@pytest.mark.parametrize(
    "words",
    [
        ("--limit", "1MiB"),
        ("--limit", "huge"),
        ("--factor", "0.5"),
        ("--limit", "1PB"),
    ],
)
def test_cannot_be_tried(cli, place, words):
    result = cli("demo", "--dir", place, *words)
    assert result.returncode == 2
    assert result.stderr.startswith("ndarena: error: ")
    assert result.stderr.count("\n") == 1
    assert list(place.iterdir()) == []


def test_without_its_data(cli, tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ImportError('hidden')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = cli("demo", env={"PYTHONPATH": path})
    assert result.returncode == 2
    assert "pip install 'ndarena[demo]'" in result.stderr
