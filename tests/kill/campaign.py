"""Deaths at every instruction, and mistakes that they have to find.

    python tests/kill/campaign.py --build build/kill          # everything, about an hour
    python tests/kill/campaign.py --build build/kill --short  # two mistakes, some deaths

First each planted bug of `arena/src/base/planted.hpp` is built in, and the sweeps have to fail:
a sweep that finds none of them would prove nothing. Then the library as it is: operations are
taken through single steps and killed, the sweeps of whole processes at `NDARENA_TEST_KILLS` points
each, and every survivor's arena is checked.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLANTED = ROOT / "arena" / "src" / "base" / "planted.hpp"
SUITES = {
    "test_journal": "UndoLog.*",
    "test_tlsf": "DeathSweep.*",
    "test_heap": "*KillSweep*:*Deaths*:*Death*",
    "test_segment": "SlotLock*",
}
SHORT = ("count_before_entry", "row_not_noted")


def bugs() -> list[str]:
    listed = re.search(r"enum class bug \{(.*?)\};", PLANTED.read_text(), re.DOTALL)
    assert listed is not None
    names = re.findall(r"^ +(\w+),", listed[1], re.MULTILINE)
    return [name for name in names if name != "none"]


def build(folder: Path, bug: str) -> None:
    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DNDARENA_BUILD_TESTS=ON"),
        *("-DNDARENA_BUILD_PYTHON=OFF", "-DNDARENA_CHECKS=ON", f"-DNDARENA_PLANTED_BUG={bug}"),
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", str(folder), "--target", *SUITES]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run(folder: Path, name: str, *, kills: int, stop: bool) -> tuple[list[str], int, int]:
    """Return the failed tests of one executable, how many it ran, and deaths."""
    command = [
        str(folder / "tests" / "cpp" / name),
        f"--gtest_filter={SUITES[name]}",
        *(["--gtest_fail_fast"] if stop else []),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "NDARENA_TEST_KILLS": str(kills)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = sorted(set(re.findall(r"^\[  FAILED  \] ([\w./]+)", done.stdout, re.MULTILINE)))
    ran = re.search(r"\[==========\] (\d+) test", done.stdout)
    if done.returncode != 0 and not failed:
        failed = [f"{name} ended with {done.returncode}"]
    deaths = sum(map(int, re.findall(r"\[  DEATHS  \] (\d+)", done.stdout)))
    return failed, int(ran[1]) if ran else 0, deaths


def hunt(folder: Path, bug: str, kills: int) -> list[str]:
    build(folder, bug)
    for name in SUITES:
        failed, _, _ = run(folder, name, kills=kills, stop=True)
        if failed:
            return failed
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="build directory")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--kills", type=int, help="deaths of each kind of operation")
    arguments = parser.parse_args()
    kills = arguments.kills or (60 if arguments.short else 1000)
    missed = []
    for bug in SHORT if arguments.short else bugs():
        begin = time.monotonic()
        found = hunt(arguments.build, bug, 60)
        took = time.monotonic() - begin
        print(
            f"{bug:22} {f'found by {found[0]}' if found else 'MISSED'} ({took:.0f} s)", flush=True
        )
        if not found:
            missed.append(bug)
    build(arguments.build, "")
    failures = []
    for name in SUITES:
        begin = time.monotonic()
        failed, ran, deaths = run(arguments.build, name, kills=kills, stop=False)
        took = time.monotonic() - begin
        print(f"{name}: {ran} tests, {deaths} deaths, {len(failed)} failed ({took:.0f} s)")
        failures += failed
    for test in failures:
        print(f"FAILED: {test}")
    return 1 if missed or failures else 0


if __name__ == "__main__":
    sys.exit(main())
