"""Writers are killed in mid-write; what is left of their files? An arena beside its peers.

    python tests/kill/formats.py [--deaths 50] [--format ndarena …]

A writer stores numbered generations of four arrays, each in the way its format's users do: it
replaces them, and makes them safe (flush, close, sync, commit). It says so before and after each
generation, and is killed with SIGKILL somewhere in between. Then a reader opens the file:

    damaged   it cannot be opened or read, or an array is neither of one generation nor of another
    lost      a generation that had been made safe is gone
    half      the arrays are of different generations

Only the process dies, not the machine (`tests/powerfail` is about that).
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

ARRAYS = ("weights", "momentum", "history", "mask")
WORDS = 2**17  # 1 MiB each
Store = Callable[[int, dict[str, Any]], None]


class Damaged(Exception):
    """Opened, and wrong."""


def generation(number: int) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays whose contents say what they are: index, generation, and a checksum of the rest."""
    made = {}
    for index, name in enumerate(ARRAYS):
        a = np.arange(WORDS, dtype=np.uint64) * np.uint64(number * 8 + index + 1)
        a[0], a[1] = index, number
        a[2] = zlib.crc32(a[3:])
        made[name] = a
    return made


def judge(name: str, a: np.ndarray[Any, Any]) -> int:
    """Return the generation of an array that is whole."""
    if a.shape != (WORDS,) or a.dtype != np.uint64:
        raise Damaged(f"{name} is {a.dtype}{a.shape}")
    if int(a[0]) != ARRAYS.index(name) or int(a[2]) != zlib.crc32(np.ascontiguousarray(a[3:])):
        raise Damaged(f"{name} is not whole")
    return int(a[1])


# -- one pair of functions a format: `write` yields a function that stores a generation


def write_ndarena(path: str) -> Store:
    import ndarena

    arena = ndarena.open(path, "a", capacity=64 * 2**20)

    def store(number: int, arrays: dict[str, Any]) -> None:
        with arena.transaction():
            for name, a in arrays.items():
                arena[name] = a
        arena.flush()

    return store


def read_ndarena(path: str) -> dict[str, Any]:
    import ndarena

    with ndarena.open(path, "r+") as arena:
        findings = arena.check()
        if findings:
            raise Damaged(findings[0])
        return {name: arena[name].copy() for name in arena}


def write_savez(path: str) -> Store:
    def store(number: int, arrays: dict[str, Any]) -> None:
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    return store


def read_savez(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def write_hdf5(path: str, **options: Any) -> Store:
    import h5py

    file = h5py.File(path, "a", **options)

    def store(number: int, arrays: dict[str, Any]) -> None:
        for name, a in arrays.items():
            if name in file:
                file[name][...] = a
            else:
                file[name] = a
        file.flush()

    return store


def write_hdf5_latest(path: str) -> Store:
    return write_hdf5(path, libver="latest")


def read_hdf5(path: str) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return {name: file[name][...] for name in file}


def write_zarr(path: str) -> Store:
    import zarr

    group = zarr.open_group(path, mode="a")

    def store(number: int, arrays: dict[str, Any]) -> None:
        for name, a in arrays.items():
            if name in group:
                group[name][...] = a
            else:
                group.create_array(name, data=a, chunks=(WORDS // 8,))

    return store


def read_zarr(path: str) -> dict[str, Any]:
    import zarr

    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(group[name][...]) for name in group.array_keys()}


def write_lmdb(path: str) -> Store:
    import lmdb

    environment = lmdb.open(path, map_size=256 * 2**20)

    def store(number: int, arrays: dict[str, Any]) -> None:
        with environment.begin(write=True) as transaction:
            for name, a in arrays.items():
                transaction.put(name.encode(), a.tobytes())

    return store


def read_lmdb(path: str) -> dict[str, Any]:
    import lmdb

    with lmdb.open(path, readonly=True) as environment, environment.begin() as transaction:
        return {
            key.decode(): np.frombuffer(value, np.uint64) for key, value in transaction.cursor()
        }


FORMATS: dict[str, tuple[str, Callable[[str], Store], Callable[[str], dict[str, Any]]]] = {
    "ndarena": ("ndarena", write_ndarena, read_ndarena),
    "np.savez": ("numpy", write_savez, read_savez),
    "HDF5": ("h5py", write_hdf5, read_hdf5),
    "HDF5 latest": ("h5py", write_hdf5_latest, read_hdf5),
    "zarr": ("zarr", write_zarr, read_zarr),
    "LMDB": ("lmdb", write_lmdb, read_lmdb),
}


# -- the two processes


def write_until_killed(name: str, path: str) -> None:
    """Generation 1 is safe before the killing begins. Each byte written is an event."""
    store = FORMATS[name][1](path)
    number = 1
    store(number, generation(number))
    os.write(1, b"safe 1\n")
    while True:
        number += 1
        arrays = generation(number)
        os.write(1, b"begin %d\n" % number)
        store(number, arrays)
        os.write(1, b"safe %d\n" % number)


def read_and_judge(name: str, path: str) -> None:
    """Print the generation of each array, or what is wrong."""
    try:
        arrays = FORMATS[name][2](path)
        if sorted(arrays) != sorted(ARRAYS):
            raise Damaged(f"there are {sorted(arrays)}")
        print(*(judge(each, arrays[each]) for each in ARRAYS))
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0])


def death(name: str, path: Path, rng: random.Random, pace: float) -> tuple[int, int, float]:
    """Kill a writer. Return the last safe generation, the last begun, and a store's seconds."""
    command = [sys.executable, __file__, "--write", name, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    events: list[bytes] = []
    stop_at = rng.randint(2, 4)
    begin = took = 0.0
    try:
        while True:
            line = writer.stdout.readline()
            if not line:
                raise OSError(f"the writer of {name} has ended")
            events.append(line)
            if line.startswith(b"begin"):
                begin = time.monotonic()
            elif begin:
                took = time.monotonic() - begin
            if line == b"begin %d\n" % stop_at:
                break
        time.sleep(rng.uniform(0, pace))  # anywhere in it; a wait for an event would miss most
    finally:
        writer.send_signal(signal.SIGKILL)
        events += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
    safe = max(int(line.split()[1]) for line in events if line.startswith(b"safe"))
    begun = max(int(line.split()[1]) for line in events if line.startswith(b"begin"))
    return safe, begun, took


def look(name: str, path: Path) -> str:
    command = [sys.executable, __file__, "--read", name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"the reader ended with {done.returncode}"


def campaign(name: str, deaths: int, folder: Path, rng: random.Random) -> dict[str, Any]:
    """Kill that many writers, each of a new file."""
    tally: dict[str, Any] = {"deaths": 0, "mid": 0, "damaged": 0, "lost": 0, "half": 0}
    pace, why = 0.01, ""
    for _ in range(deaths):
        path = folder / "file"
        safe, begun, took = death(name, path, rng, pace)
        pace = took * 1.2 or pace
        found = look(name, path)
        tally["deaths"] += 1
        tally["mid"] += begun > safe  # else it had just got ready
        try:
            numbers = [int(word) for word in found.split()]
        except ValueError:
            tally["damaged"] += 1
            why = why or found
        else:
            if len(set(numbers)) > 1:
                tally["half"] += 1
            if min(numbers) < safe:
                tally["lost"] += 1
            if max(numbers) > begun:
                tally["damaged"] += 1
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return {**tally, "why": why}


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill writers in mid-write.")
    parser.add_argument("--deaths", type=int, default=50)
    parser.add_argument("--format", action="append", choices=tuple(FORMATS))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(
        f"{'format':12} {'deaths':>7} {'in mid-write':>13} {'damaged':>8} {'lost':>5} {'half':>5}"
    )
    ours: dict[str, Any] = {}
    for name in options.format or FORMATS:
        try:
            importlib.import_module(FORMATS[name][0])
        except ImportError as error:
            print(f"{name:12} left out: {error}")
            continue
        with tempfile.TemporaryDirectory(prefix="ndarena-formats-") as folder:
            rng = random.Random(options.seed)
            t = campaign(name, options.deaths, Path(folder), rng)
        print(
            f"{name:12} {t['deaths']:7} {t['mid']:13} {t['damaged']:8} {t['lost']:5} {t['half']:5}"
            f"  {t['why'][:60]}",
            flush=True,
        )
        if name == "ndarena":
            ours = t
    return 1 if any(ours.get(k) for k in ("damaged", "lost", "half")) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_until_killed(*sys.argv[2:])
    elif sys.argv[1:2] == ["--read"]:
        read_and_judge(*sys.argv[2:])
    else:
        sys.exit(main())
