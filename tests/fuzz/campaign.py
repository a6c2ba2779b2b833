"""Runs the fuzz targets side by side for a while and says what they reached and found.

    python tests/fuzz/campaign.py --build build/fuzz --seconds 3600

The corpus grows in a folder beside the programs and is used again by the next run, together with
the checked-in one. A finding ends its target; the line to append to tests/fuzz/regressions is
printed. The exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("operations", "image", "directory", "sharing")
LONGEST = 128  # bytes of an input
# Frames that outlive their function are the compiler's matter, and cost a third of the speed.
ASAN_OPTIONS = "detect_stack_use_after_return=0:malloc_context_size=8"


@dataclass
class Outcome:
    """What one target did."""

    executions: int = 0
    per_second: int = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0
    findings: list[str] = field(default_factory=list)


def unpack(target: str, folder: Path) -> None:
    """Write the inputs of the checked-in lists as files, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("corpus", "regressions"):
        listed = HERE / kind / f"{target}.hex"
        lines = listed.read_text(encoding="ascii").splitlines() if listed.exists() else []
        for number, line in enumerate(lines):
            if line and not line.startswith("#"):
                (folder / f"{kind}-{number}").write_bytes(bytes.fromhex(line))


def start(target: str, build: Path, seconds: int, seed: int) -> tuple[subprocess.Popen, Path]:
    """Start a target; its output goes to the path that is returned too."""
    work = build / "campaign" / target
    found = work / "found"
    found.mkdir(parents=True, exist_ok=True)
    for old in found.iterdir():
        old.unlink()
    unpack(target, work / "seeds")
    (work / "corpus").mkdir(exist_ok=True)
    log = work / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(build / "tests" / "fuzz" / f"fuzz_{target}", f"-max_total_time={seconds}"),
                f"-seed={seed}",
                *(f"-max_len={LONGEST}", "-len_control=0", "-timeout=25", "-rss_limit_mb=4096"),
                *("-print_final_stats=1", f"-artifact_prefix={found}/"),
                *(work / "corpus", work / "seeds"),
            ],
            env={**os.environ, "ASAN_OPTIONS": ASAN_OPTIONS},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    return process, log


def outcome_of(target: str, log: Path, status: int) -> Outcome:
    """Read libFuzzer's output."""
    text = log.read_text(encoding="utf-8", errors="replace")
    result = Outcome()
    for number, what in (("executions", "number_of_executed_units"), ("per_second", "average_e")):
        last = re.findall(rf"stat::{what}\w*:\s+(\d+)", text)
        setattr(result, number, int(last[-1]) if last else 0)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    if reached:
        result.edges, result.features, result.inputs = map(int, reached[-1])
    for path in sorted((log.parent / "found").iterdir()):
        cause = re.findall(r"broken promise: .*|SUMMARY: (?!libFuzzer: deadly).*", text)
        reason = cause[-1] if cause else path.name
        result.findings.append(f"{target}: {reason}\n    {path.read_bytes().hex()}")
    if status != 0 and not result.findings:
        result.findings.append(f"{target}: ended with status {status}, see {log}")
    if result.executions == 0:
        result.findings.append(f"{target}: nothing was executed, see {log}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--build", type=Path, required=True, help="build folder of the preset fuzz")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: by chance")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    running = {t: start(t, build, arguments.seconds, arguments.seed) for t in arguments.targets}
    findings: list[str] = []
    heads = ("executions", "per second", "edges", "features", "corpus")
    print(f"{'target':<12}" + "".join(f"{head:>12}" for head in heads))
    for target, (process, log) in running.items():
        got = outcome_of(target, log, process.wait())
        numbers = (got.executions, got.per_second, got.edges, got.features, got.inputs)
        print(f"{target:<12}" + "".join(f"{n:>12,}" for n in numbers))
        findings += got.findings
    print(f"\n{arguments.seconds} s each, {len(findings)} findings")
    print(*findings, sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
