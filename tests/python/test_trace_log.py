"""Logs of allocations: read, and played back."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_resources import exercise

import ndarena
from ndarena._trace_log import read_log
from ndarena.tools.cli import main

HEADER = "Thread,Time,Action,Pointer,Size,Stream\n"
BENCHMARK = Path(__file__).parents[1] / "bench" / "replay.py"


@pytest.fixture(autouse=True, scope="module")
def _caches() -> None:
    exercise(0)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    with ndarena.Tracing(log=path) as tracing:
        exercise(1)
        kept = np.empty(12_345, np.uint8)
    tracing.flush()
    del kept
    return path, tracing


def test_what_tracing_has_written(log) -> None:
    path, tracing = log
    read, stats = read_log(path), tracing.stats()
    assert read.peak_bytes == tracing.peak
    assert read.n_blocks >= stats.n_allocations  # and changes of size
    assert len(read.steps) == len(read.threads) == 2 * read.n_blocks - 1
    assert read.n_skipped == 0
    alive: dict[int, int] = {}
    for block, nbytes in read.steps:
        if nbytes:
            alive[block] = nbytes
        else:
            del alive[block]
    assert list(alive.values()) == [12_345]


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "other.csv"
    path.write_text(text)
    return path


def test_logs_of_others(tmp_path) -> None:
    """Both of RMM's words for a free; other columns and orders; what the log has not seen."""
    path = write(
        tmp_path,
        "Time,Action,Size,Pointer,Thread\n"
        "1.5,free,100,0x10,a\n"
        "1.6,allocate,100,0x20,a\n"
        "1.7,allocate,0,0x30,b\n"
        "1.8,allocate failure,4000,(nil),b\n".replace("(nil)", "0x0")
        + "1.9,deallocate,100,0x20,b\n"
        "2.0,allocate,50,0x20,a\n"
        "2.1,allocate,60,0x20,a\n",
    )
    read = read_log(path)
    assert read.steps == [(0, 100), (1, 1), (0, 0), (2, 50), (3, 60)]
    assert read.threads == [0, 1, 1, 0, 0]
    assert (read.n_blocks, read.peak_bytes, read.n_skipped) == (4, 100, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no columns Thread"),
        ("Thread,Time\n", "no columns Thread"),
        (HEADER + "1,0,allocate,0x1,many,0\n1,0,free,0x1,4,0\n", "line 2: not an event"),
        (HEADER + "1,0,borrow,0x1,4,0\n1,0,free,0x1,4,0\n", "line 2: not an event: borrow"),
        (HEADER + "1,0,allocate,0x1,-4,0\n1,0,free,0x1,4,0\n", "line 2: not an event"),
        (HEADER + "1,0,allocate\n1,0,free,0x1,4,0\n", "line 2: not an event"),
        ("\0\xff" * 50, "no columns Thread"),
    ],
)
def test_what_is_no_log(tmp_path, text, words, capsys) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=words):
        read_log(path)
    assert main(["replay", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_torn_end(tmp_path) -> None:
    path = write(tmp_path, HEADER + "1,0,allocate,0x1,4,0\n1,0,alloc")
    assert read_log(path).steps == [(0, 4)]


def test_replay(log, capsys) -> None:
    path, tracing = log
    assert main(["replay", str(path), "--rounds", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["peak_bytes"] == tracing.peak
    assert shown["n_operations"] == len(read_log(path).steps)
    assert set(shown["allocators"]) == {"NumPy", "arena"}
    assert all(row["ns_per_operation"] > 0 for row in shown["allocators"].values())
    assert shown["arena_committed"] >= tracing.peak
    assert main(["replay", str(path), "--rounds", "1"]) == 0
    assert "ns/operation" in capsys.readouterr().out


def test_replay_without_room(tmp_path, capsys) -> None:
    path = write(tmp_path, HEADER + f"1,0,allocate,0x1,{1 << 30},0\n1,0,free,0x1,{1 << 30},0\n")
    assert main(["replay", str(path), "--capacity", "1MiB", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["allocators"]["arena"]["n_failed"] == 1


def test_replay_of_nothing(tmp_path, capsys) -> None:
    assert main(["replay", str(write(tmp_path, HEADER))]) == 2
    assert "no allocations" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_the_replay_benchmark_takes_logs(log) -> None:
    """In the form of the recorded traces; the benchmark itself reads nothing else."""
    path, _ = log
    spec = importlib.util.spec_from_file_location("bench_replay", BENCHMARK)
    assert spec is not None
    bench = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)  # type: ignore[union-attr]
    data, read = bench.trace_of(path), read_log(path)
    n = len(read.steps)
    assert data[:8] == b"NDTRACE1"
    assert np.frombuffer(data, "<u8", 4, 8).tolist() == [n, read.n_blocks, read.peak_bytes, 12_345]
    op = np.frombuffer(data, "u1", n, 64)
    back = np.frombuffer(data, "<u4", n, 64 + 2 * n).astype("i8")
    size = np.frombuffer(data, "<u8", n, 64 + 6 * n)
    made = np.cumsum(op == 1)
    block = np.where(op == 1, made - 1, made - back)
    assert list(zip(block.tolist(), size.tolist(), strict=True)) == read.steps
    assert len(data) == 64 + n * 18
