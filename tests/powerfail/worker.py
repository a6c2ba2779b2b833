"""A process that changes named arrays at random and tells what it does (history.py).

    python worker.py --store KIND --file PATH --marks FD --seed N [--start JSON] [--threads 2]

It goes on until it is killed or `--operations` are over. Assignments, replacements, deletes,
transactions that succeed and fail, changes in place, scratch arrays that come and go, growth and
trim; a flush every few operations. The store is small, so what is freed is used again at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import faulthandler
import json
import os
import random
import sys
import threading
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from history import words
from stores import CAPACITY, open_store

MOST_NAMED = 5 * 2**20  # bytes; old and new of everything have to fit
LARGEST = 2**20
GARBAGE = 0xDEAD  # the "array" that scratch contents come from


class Refused(Exception):
    """Raised to abort a transaction."""


class Worker:
    """One store, and what is known to be in it."""

    def __init__(self, store: Any, marks: int, seed: int, start: dict[str, Any]) -> None:
        self.store, self.marks = store, marks
        self.random = random.Random(seed)
        self.names: dict[str, int] = dict(start.get("names", {}))
        self.shapes: dict[int, list[int]] = {int(k): v for k, v in start.get("shapes", {}).items()}
        self.touchable = {int(k) for k in start.get("known", ())}
        self.serial = start.get("serial", 0x10000)
        self.scratch: list[np.ndarray[Any, Any]] = []
        # replaced or deleted, but still in use: with the sum of what they hold
        self.held: list[tuple[np.ndarray[Any, Any], int]] = []
        self.flushes = 0
        self.lock = threading.Lock()
        self.changed = threading.Event()
        assert sorted(store) == sorted(self.names), "the worker found another directory"

    def mark(self, *what: Any) -> None:
        with self.lock:
            line = json.dumps(what).encode() + b"\n"
            assert os.write(self.marks, line) == len(line)

    def next_serial(self) -> int:
        with self.lock:
            self.serial += 1
            return self.serial

    # -- one operation each

    def make(self) -> tuple[int, np.ndarray[Any, Any]]:
        """A new array with contents of its own, in the store or outside."""
        count = int(2 ** self.random.uniform(9, 17))  # 4 KiB to 1 MiB
        shape = [count] if self.random.random() < 0.5 else [max(count // 8, 1), 8]
        serial = self.next_serial()
        self.mark("new", serial, shape)
        self.shapes[serial] = shape
        inside = self.random.random() < 0.5
        array = self.store.empty(shape, np.uint64) if inside else np.empty(shape, np.uint64)
        array.reshape(-1)[:] = words(serial, 0, array.size)
        return serial, array

    def plan(self) -> tuple[dict[str, int | None], list[tuple[str, Any]]]:
        """One change of one name, as the model sees it and as the store does."""
        named = sum(8 * int(np.prod(self.shapes[n])) for n in self.names.values())
        if self.names and (named > MOST_NAMED or self.random.random() < 0.2):
            name = self.random.choice(sorted(self.names))
            return {name: None}, [("delete", name)]
        old = self.random.random() < 0.5 and self.names
        name = self.random.choice(sorted(self.names)) if old else f"n{self.random.randrange(40):02}"
        serial, array = self.make()
        return {name: serial}, [("assign", name, array)]

    def apply(self, step: tuple[str, Any]) -> None:
        if step[0] == "delete":
            del self.store[step[1]]
        elif step[0] == "rename":
            self.store.rename(step[1], step[2])
        else:
            self.store[step[1]] = step[2]

    def commit(self, change: dict[str, int | None], steps: list[Any], *, fails: bool) -> None:
        """Make a change of names: all of it, or nothing if it fails or there is no room."""
        hold = self.random.random() < 0.3 and hasattr(self.store, "stats")
        before = [
            self.store[k]
            for k in change
            if hold and k in self.names and self.names[k] not in change.values()
        ]
        self.mark("commit", change)
        try:
            if len(steps) == 1 and not fails:
                self.apply(steps[0])
            else:
                with self.store.transaction():
                    for step in steps:
                        self.apply(step)
                    if fails:
                        raise Refused
        except (MemoryError, Refused) as error:
            self.mark("done", False)
            if isinstance(error, MemoryError):
                self.make_room()
            return
        self.mark("done", True)
        self.changed.set()
        made = {n for n in change.values() if n} - set(self.names.values())
        names: dict[str, int | None] = {**self.names, **change}
        self.names = {name: n for name, n in names.items() if n is not None}
        self.touchable = (self.touchable | made) & set(self.names.values())
        self.held = (self.held + [(a, int(a.sum())) for a in before])[-3:]

    def assign(self) -> None:
        self.commit(*self.plan(), fails=False)

    def transaction(self) -> None:
        change: dict[str, int | None] = {}
        steps: list[Any] = []
        for _ in range(self.random.randint(2, 5)):
            part, step = self.plan()
            if not part.keys() & change.keys():
                change |= part
                steps += step
        self.commit(change, steps, fails=self.random.random() < 0.2)

    def rename(self) -> None:
        free = f"r{self.random.randrange(40):02}"
        if self.names and free not in self.names:
            name = self.random.choice(sorted(self.names))
            change = {name: None, free: self.names[name]}
            self.commit(change, [("rename", name, free)], fails=False)

    def touch(self) -> None:
        """Change part of a named array in place."""
        known = sorted(name for name, n in self.names.items() if n in self.touchable)
        if not known:
            return
        name = self.random.choice(known)
        number = self.names[name]
        array = self.store[name].reshape(-1)
        start = self.random.randrange(array.size)
        stop = self.random.randint(start + 1, array.size)
        serial = self.next_serial()
        self.mark("touch", number, [serial, start, stop])
        array[start:stop] = words(serial, start, stop)
        self.mark("touched", number)

    def scribble(self) -> None:
        """Scratch arrays, full of what must never be seen under a name."""
        while len(self.scratch) > self.random.randrange(6):
            self.scratch.pop(self.random.randrange(len(self.scratch)))
        for _ in range(self.random.randrange(4)):
            size = int(2 ** self.random.uniform(7, 17))
            array = self.store.empty(size, np.uint64)
            array[:] = words(GARBAGE, 0, size)
            self.scratch.append(array)

    def verify(self) -> None:
        """What lives is right; old arrays that are still held are, too."""
        assert sorted(self.store) == sorted(self.names)
        assert self.store.check() == []
        for array, total in self.held:
            assert int(array.sum()) == total, "an array changed while it was held"

    def flush(self) -> bool:
        with self.lock:
            self.flushes += 1
            number = self.flushes
        self.mark("flush", number)
        try:
            self.store.flush()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            self.mark("failed", number)
            return False
        except MemoryError:
            self.mark("failed", number)
            return False
        self.mark("flushed", number)
        return True

    def flush_again(self) -> None:
        """Who is refused often tries once more, and must not be told that all is well."""
        if not self.flush() and self.random.random() < 0.8:
            self.flush()

    def make_room(self) -> None:
        self.scratch.clear()
        self.held.clear()
        self.flush()  # space that only the old state needs comes back
        if self.names:
            name = self.random.choice(sorted(self.names))
            with contextlib.suppress(MemoryError):
                self.commit({name: None}, [("delete", name)], fails=False)
        self.flush()

    def other(self) -> None:
        """Growth and trim, where there are such things."""
        if not hasattr(self.store, "trim"):
            return
        if self.random.random() < 0.2 and self.store.capacity < 2 * CAPACITY:
            self.store.grow(self.store.capacity + 2**20)
        else:
            self.store.trim()

    def run(self, operations: int) -> None:
        weights = {
            self.assign: 30,
            self.transaction: 10,
            self.rename: 4,
            self.touch: 10,
            self.scribble: 25,
            self.flush_again: 12,
            self.verify: 3,
            self.other: 3,
        }
        steps, odds = list(weights), list(weights.values())
        for _ in range(operations):
            try:
                self.random.choices(steps, odds)[0]()
            except MemoryError:
                self.make_room()


def main() -> None:
    parser = argparse.ArgumentParser(description="Change named arrays at random.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--marks", required=True, help="a descriptor, or a file to open")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start", default="{}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--operations", type=int, default=10**9)
    options = parser.parse_args()
    faulthandler.enable()  # a worker that hangs is ended by SIGABRT
    if options.marks.isdigit():
        marks = int(options.marks)
    else:
        marks = os.open(options.marks, os.O_WRONLY | os.O_CLOEXEC)
    store = open_store(options.store, options.file)
    worker = Worker(store, marks, options.seed, json.loads(options.start))
    for _ in range(options.threads - 1):  # others flush while names change

        def flush_changes() -> None:
            while worker.changed.wait() and worker.flush():
                worker.changed.clear()

        threading.Thread(target=flush_changes, daemon=True).start()
    worker.run(options.operations)
    store.close()


if __name__ == "__main__":
    sys.exit(main())
