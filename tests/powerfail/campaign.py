"""Power failures, simulated and under real file systems, and mistakes that they have to find.

    python tests/powerfail/campaign.py --kind simulator --kind ext4 --kind xfs --images 1000
    python tests/powerfail/campaign.py --short

For each kind of harness: first a small store with mistakes (record_file.py), then the library with
the mistakes of `arena/src/base/planted.hpp` that concern flush, built in `--build`; each has to be
found. Then both as they are: no image may be bad. `--short` leaves out the builds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import recorder
import simulator
from record_file import BUGS
from simulator import Tally

ROOT = Path(__file__).resolve().parents[2]
PLANTED = ("flush_one_barrier", "reuse_before_flush", "flush_async")
# Sectors of a page and failing disks are only simulated.
SEEN_BY = {"simulator": BUGS, "ext4": BUGS[:3], "xfs": BUGS[:3]}
LONGEST_HUNT = 3000  # images


def fail_power(
    kind: str, store: str, images: int, seed: int, threads: int, keep: Path | None = None
) -> Tally:
    """One campaign; it stops at the first bad image."""
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ndarena-power-", dir=folder) as name:
        place = Path(name)
        if kind == "simulator":
            library = simulator.build_library(place)
            simulated = simulator.Simulator(
                store, place, seed, library=library, threads=threads, keep=keep
            )
            return simulated.run(images, errors=1.0 if "error" in store else 0.3)
        recorded = recorder.Recorder(store, kind, place, seed, threads=threads, keep=keep)
        return recorded.run(images)


@contextlib.contextmanager
def planted(folder: Path, bug: str) -> Iterator[None]:
    """Build the library with a mistake; processes started inside use it."""
    configure = [
        *("cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DPython_EXECUTABLE={sys.executable}"),
        f"-DNDARENA_PLANTED_BUG={bug}",
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(folder)], check=True, stdout=subprocess.DEVNULL)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str((folder / "python").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Campaign:
    """Runs, and what went wrong in them."""

    def __init__(self, seed: int, keep: Path | None) -> None:
        self.random = random.Random(seed)
        self.keep = keep
        self.wrong: list[str] = []

    def hunt(self, kind: str, store: str, name: str) -> None:
        """A mistake has to be found."""
        begin = time.monotonic()
        tally = fail_power(kind, store, LONGEST_HUNT, self.random.getrandbits(32), 1)
        took = time.monotonic() - begin
        found = f"found in {tally.images} images: {tally.bad[0][:100]}" if tally.bad else "MISSED"
        print(f"{kind} {name}: {found} ({took:.0f} s)", flush=True)
        if not tally.bad:
            self.wrong.append(f"{kind}: {name} was not found")

    def trust(self, kind: str, store: str, images: int, threads: int) -> None:
        """No image may be bad."""
        begin = time.monotonic()
        seed = self.random.getrandbits(32)
        tally = fail_power(kind, store, images, seed, threads, self.keep)
        took = time.monotonic() - begin
        many = f", {threads} threads" if threads > 1 else ""
        print(f"{kind} {store}{many}: {tally} ({took:.0f} s)", flush=True)
        for bad in tally.bad:
            print(f"  {bad}", flush=True)
        self.wrong += [f"{kind} {store}: {bad}" for bad in tally.bad]
        if not tally.bad and min(tally.images, tally.kept_state, tally.later_state) == 0:
            self.wrong.append(f"{kind} {store}: nothing has been put to the test")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=tuple(SEEN_BY))
    parser.add_argument("--images", type=int, help="of the library, for each kind")
    parser.add_argument("--build", type=Path, help="build directory for planted mistakes")
    parser.add_argument("--keep", type=Path, help="folder for bad images that should be good")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--store", action="append", choices=("ndarena", "record"))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    kinds = options.kind or (["simulator"] if options.short else list(SEEN_BY))
    images = options.images or (200 if options.short else 1000)
    stores = options.store or ["record", "ndarena"]
    print(f"seed {options.seed}", flush=True)
    campaign = Campaign(options.seed, options.keep)
    for kind in [k for k in kinds if k != "simulator"]:
        try:
            recorder.require(kind)
        except recorder.Unavailable as reason:
            print(f"{kind} left out: {reason}")
            kinds.remove(kind)
    if set(kinds) - {"simulator"}:
        recorder.own_mounts()
    if "record" in stores:
        for kind in kinds:
            for bug in SEEN_BY[kind]:
                campaign.hunt(kind, f"record:{bug}", bug)
            campaign.trust(kind, "record", min(images, 200), 1)
    if "ndarena" in stores:
        if not options.short and options.build is not None:
            for bug in PLANTED:
                with planted(options.build, bug):
                    for kind in kinds:
                        campaign.hunt(kind, "ndarena", bug)
        for kind in kinds:
            campaign.trust(kind, "ndarena", images - images // 2, 1)
            campaign.trust(kind, "ndarena", images // 2, 2)
    for line in campaign.wrong:
        print(f"WRONG: {line}")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
