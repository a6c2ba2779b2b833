"""Deaths at every instruction, and mistakes that they have to find.

    python tests/kill/campaign.py --build build/kill          # everything, about an hour
    python tests/kill/campaign.py --build build/kill --short  # two mistakes, no more
    python tests/kill/campaign.py --build build/kill --bugs row_not_noted --kills 0

First each planted bug of `arena/src/base/planted.hpp` is built in, and the sweeps have to fail:
a sweep that finds none of them would prove nothing. Then the library as it is: operations are
taken through single steps and killed at every instruction that changes a table or enters the
kernel, at `NDARENA_TEST_KILLS` of them where there are more, and every survivor's arena is checked.
The C++ tests do the same with twenty.
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
    "test_directory": "CommitDeaths.*",
}
# Only a power failure shows these: tests/powerfail.
POWERFAIL = ("flush_one_barrier", "flush_async", "reuse_before_flush")
SHORT = ("count_before_entry", "row_not_noted")


def bugs() -> list[str]:
    listed = re.search(r"enum class bug \{(.*?)\};", PLANTED.read_text(), re.DOTALL)
    assert listed is not None
    names = re.findall(r"^ +(\w+),", listed[1], re.MULTILINE)
    return [name for name in names if name != "none" and name not in POWERFAIL]


def build(folder: Path, bug: str) -> None:
    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DNDARENA_BUILD_TESTS=ON"),
        *("-DNDARENA_BUILD_PYTHON=OFF", "-DNDARENA_CHECKS=ON", f"-DNDARENA_PLANTED_BUG={bug}"),
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", str(folder), "--target", *SUITES]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run(folder: Path, name: str, *, kills: int, stop: bool) -> tuple[list[str], str]:
    """Return the failed tests of one executable, and what it did."""
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
    failed = sorted(set(re.findall(r"^\[  FAILED  \] (\w+\.[\w./]+)", done.stdout, re.MULTILINE)))
    ran = re.search(r"\[==========\] (\d+) test", done.stdout)
    if done.returncode != 0 and not failed:
        failed = [f"{name} ended with {done.returncode}"]
    swept = re.findall(r"\[  DEATHS  \] (\d+) of (\d+) in (\d+)", done.stdout)
    deaths, states, steps = (sum(int(numbers[i]) for numbers in swept) for i in range(3))
    did = f"{ran[1] if ran else 0} tests, {deaths} deaths"
    if states != 0:
        whole = sum(numbers[0] == numbers[1] for numbers in swept)
        did += f" at {states} changes of state in {steps} instructions, all in {whole} operations"
    return failed, did


def hunt(folder: Path, bug: str, kills: int) -> list[str]:
    build(folder, bug)
    for name in SUITES:
        failed, _ = run(folder, name, kills=kills, stop=True)
        if failed:
            return failed
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="build directory")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--kills", type=int, help="deaths of each kind of operation; 0: none")
    parser.add_argument("--bugs", nargs="*", choices=bugs(), help="only these mistakes")
    arguments = parser.parse_args()
    kills = arguments.kills if arguments.kills is not None else 0 if arguments.short else 1000
    hunted = arguments.bugs
    if hunted is None:
        hunted = SHORT if arguments.short else bugs()
    missed = []
    for bug in hunted:
        begin = time.monotonic()
        found = hunt(arguments.build, bug, 60)
        took = time.monotonic() - begin
        print(
            f"{bug:22} {f'found by {found[0]}' if found else 'MISSED'} ({took:.0f} s)", flush=True
        )
        if not found:
            missed.append(bug)
    failures = []
    if kills != 0:
        build(arguments.build, "")
    for name in SUITES if kills != 0 else ():
        begin = time.monotonic()
        failed, did = run(arguments.build, name, kills=kills, stop=False)
        took = time.monotonic() - begin
        print(f"{name}: {did}, {len(failed)} failed ({took:.0f} s)", flush=True)
        failures += failed
    for test in failures:
        print(f"FAILED: {test}")
    return 1 if missed or failures else 0


if __name__ == "__main__":
    sys.exit(main())
