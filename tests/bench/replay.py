"""Replays recorded traces through several allocators and prints how they compare.

    python tests/bench/replay.py --binary build/release/tests/bench/ndarena_replay

Every number is the median of several rounds; within a round the allocators take turns, one
process each, so that a slow minute of the machine falls on all of them. Ratios are to glibc's
malloc in the same run. Payload is never touched, a realloc is a malloc and a free.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRACES = Path(__file__).parents[1] / "data" / "traces"
ALLOCATORS = (
    "glibc",
    "glibc_64",
    "mimalloc",
    "mimalloc_64",
    "jemalloc",
    "jemalloc_64",
    "boost",
    "boost_64",
    "ndarena_buffer",
    "ndarena_shared",
    "ndarena_tmpfs",
    "ndarena_disk",
)
MEASURES = ("median_ns", "p999_ns", "warm_mean_ns", "cold_mean_ns", "cold_faults", "warm_faults")
FOOTPRINT = "footprint"


def run_one(binary: Path, trace: Path, allocator: str, options: list[str]) -> dict:
    # Libraries meant to be linked want room for their thread-local variables when loaded late.
    tunables = "glibc.rtld.optional_static_tls=16384"
    done = subprocess.run(
        [binary, trace, allocator, *options],
        env={**os.environ, "GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return {"failure": done.stderr.strip() or f"exit status {done.returncode}"}
    return json.loads(done.stdout)


def trace_of(log: Path) -> bytes:
    """Return a log in the format of the recorded traces; without times."""
    import numpy as np

    from ndarena._trace_log import read_log

    read = read_log(log)
    n = len(read.steps)
    block, nbytes = np.array(read.steps, "i8").reshape(n, 2).T
    made = np.cumsum(nbytes != 0)
    live = np.zeros(read.n_blocks, "u8")
    live[block[nbytes != 0]] = nbytes[nbytes != 0]
    live[block[nbytes == 0]] = 0
    header = np.array([n, read.n_blocks, read.peak_bytes, live.sum()], "<u8").tobytes()
    header += np.array([max(read.threads) + 1, 1], "<u4").tobytes()
    columns = (
        np.where(nbytes != 0, 1, 4).astype("u1"),
        np.minimum(read.threads, 255).astype("u1"),
        np.where(nbytes != 0, 0, made - block).astype("<u4"),
        nbytes.astype("<u8"),
        np.zeros(n, "<u4"),
    )
    magic = b"NDTRACE1"
    return (magic + header).ljust(64, b"\0") + b"".join(c.tobytes() for c in columns)


def summary(rounds: list[dict]) -> dict[str, float]:
    values = {m: statistics.median(r[m] for r in rounds) for m in MEASURES}
    if rounds[0]["high_water"]:
        values[FOOTPRINT] = rounds[0]["high_water"] / rounds[0]["peak_live"]
    return values


def measure(arguments: argparse.Namespace) -> tuple[dict, dict[str, str]]:
    """Return {(min_size, trace): {allocator: values}} and why allocators were skipped."""
    table: dict = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.traces:
            plain = Path(folder, name)
            if arguments.log:
                plain.write_bytes(trace_of(arguments.log))
            else:
                plain.write_bytes(lzma.decompress((TRACES / f"{name}.ndt.xz").read_bytes()))
            for min_size in arguments.min_size:
                options = ["--min-size", str(min_size), "--dir", str(arguments.dir)]
                if arguments.idle_threads:
                    options += ["--idle-threads", str(arguments.idle_threads)]
                if arguments.records:
                    options += ["--records", str(arguments.records)]
                runs: dict[str, list[dict]] = {}
                for turn in range(arguments.rounds):
                    order = arguments.allocators[turn:] + arguments.allocators[:turn]
                    for allocator in order:
                        got = run_one(arguments.binary, plain, allocator, options)
                        if got["failure"]:
                            skipped[allocator] = f"{name}: {got['failure']}"
                        else:
                            runs.setdefault(allocator, []).append(got)
                table[min_size, name] = {
                    a: summary(runs[a]) for a in arguments.allocators if a in runs
                }
            plain.unlink()
    return table, skipped


def mean_of(values: list[float]) -> float:
    return statistics.fmean(values) if values else float("nan")


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    base = rows.get("glibc", {})
    boost = rows.get("boost", {})
    print(f"\n### {title}\n")
    print(
        "| allocator | median ns | x glibc | p99.9 ns | warm ns/op | x glibc | cold ns/op "
        "| faults cold / warm | footprint | x best fit |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for allocator, v in rows.items():
        faults = f"{v['cold_faults']:.0f} / {v['warm_faults']:.0f}"
        footprint = f"{v[FOOTPRINT]:.3f}" if FOOTPRINT in v else ""
        relative = (
            f"{v[FOOTPRINT] / boost[FOOTPRINT]:.3f}" if footprint and FOOTPRINT in boost else ""
        )
        print(
            f"| {allocator} | {v['median_ns']:.1f} | {ratio(v, base, 'median_ns')} "
            f"| {v['p999_ns']:.0f} | {v['warm_mean_ns']:.1f} | {ratio(v, base, 'warm_mean_ns')} "
            f"| {v['cold_mean_ns']:.1f} | {faults} | {footprint} | {relative} |"
        )


def ratio(values: dict[str, float], base: dict[str, float], measure: str) -> str:
    return f"{values[measure] / base[measure]:.2f}" if base.get(measure) else ""


def mean_table(table: dict, min_size: int) -> dict[str, dict[str, float]]:
    columns = [rows for (size, _), rows in table.items() if size == min_size]
    names = [a for a in columns[0] if all(a in c for c in columns)]
    return {a: {m: mean_of([c[a][m] for c in columns]) for m in columns[0][a]} for a in names}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(p.name.removesuffix(".ndt.xz") for p in TRACES.glob("*.ndt.xz"))
    parser.add_argument("--binary", type=Path, required=True, help="ndarena_replay")
    parser.add_argument("--traces", nargs="+", default=known, choices=known)
    parser.add_argument("--log", type=Path, help="a log of ndarena.Tracing or RMM, for the traces")
    parser.add_argument("--allocators", nargs="+", default=list(ALLOCATORS), choices=ALLOCATORS)
    parser.add_argument("--min-size", nargs="+", type=int, default=[0, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=0, help="only the first ones of a trace")
    parser.add_argument("--idle-threads", type=int, default=0, help="besides the one that replays")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="on a disk")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--per-trace", action="store_true", help="a table for every trace too")
    arguments = parser.parse_args()
    if arguments.log:
        arguments.traces = [arguments.log.stem]
    return arguments


def main() -> int:
    arguments = parse()
    table, skipped = measure(arguments)
    print(f"{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} CPUs")
    for allocator, reason in skipped.items():
        print(f"{allocator} skipped: {reason}")
    for min_size in arguments.min_size:
        what = f"requests of {min_size} bytes and more" if min_size else "all sizes"
        print_table(f"Mean of {len(arguments.traces)} traces, {what}", mean_table(table, min_size))
        if arguments.per_trace:
            for name in arguments.traces:
                print_table(f"{name}, {what}", table[min_size, name])
    if arguments.json:
        flat = [
            {"min_size": size, "trace": name, "allocator": allocator, **values}
            for (size, name), rows in table.items()
            for allocator, values in rows.items()
        ]
        arguments.json.write_text(json.dumps({"skipped": skipped, "results": flat}, indent=1))
    # A failure of ours is a failure; that of a library which is not installed is not.
    return int(any(a.startswith("ndarena") for a in skipped))


if __name__ == "__main__":
    sys.exit(main())
