"""A program three times larger than its memory: killed plain, finished in an arena."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from ndarena._places import free_bytes, in_memory
from ndarena.tools.limits import memory_limit

LIMIT = 256 * 2**20
N = 96 * 2**20  # 768 MiB of float64

PROGRAM = f"""
import json
import numpy as np
a = np.empty({N})
for start in range(0, a.size, 2**20):
    a[start : start + 2**20] = np.arange(start, start + 2**20) % 1009
total = 0.0
for start in range(0, a.size, 2**20):
    total += float(a[start : start + 2**20].sum())
print(json.dumps([total, float(a[12345]), float(a[-1])]))
"""


def expected() -> list[float]:
    whole, rest = divmod(N, 1009)
    total = whole * (1009 * 1008 // 2) + rest * (rest - 1) // 2
    return [float(total), float(12345 % 1009), float((N - 1) % 1009)]


@pytest.fixture
def place(tmp_path):
    if in_memory(str(tmp_path)):
        pytest.skip("the temporary directory is kept in memory")
    if free_bytes(str(tmp_path)) < 4 * N * 8:
        pytest.skip("not enough disk space")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(limit, place, *words):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        limit.command([sys.executable, *words]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=place,
        env=environment,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.nosan
def test_cgroup(place):
    with memory_limit(LIMIT) as limit:
        if not limit.kills:
            pytest.skip("no memory cgroup can be made here")
        plain = run(limit, place, "program.py")
        assert plain.returncode == -signal.SIGKILL
        assert limit.oom_kills() == 1
        ours = run(
            limit, place, "-m", "ndarena", "run", "--dir", place, "--report-json", "r", "program.py"
        )
        assert ours.returncode == 0, ours.stderr
        assert limit.oom_kills() == 1
        group = limit.group
    assert json.loads(ours.stdout) == expected()
    report = json.loads((place / "r").read_text())
    assert report["peak_allocated"] >= 3 * LIMIT
    assert report["peak_rss"] <= LIMIT * 1.2
    assert not os.path.exists(group)


@pytest.mark.slow
@pytest.mark.nosan
def test_rlimit(place):
    with memory_limit(LIMIT, cgroup=False) as limit:
        assert limit.kind == "RLIMIT_DATA"
        plain = run(limit, place, "program.py")
        if plain.returncode == 0:
            pytest.skip("this kernel does not enforce RLIMIT_DATA")
        assert plain.returncode == 1
        assert "MemoryError" in plain.stderr
        ours = run(limit, place, "-m", "ndarena", "run", "--dir", place, "program.py")
    assert ours.returncode == 0, ours.stderr
    assert json.loads(ours.stdout) == expected()
