"""A process that opens images as if after a reboot and judges what it finds.

It reads lines of JSON, ``{"image": path, "allowed": …}``, and answers each with a line:
``{"found": number}`` of a state (-1: nothing, where nothing was promised), or ``{"bad": why}``.
Each image is a file of its own, so it is another inode than the one that its volatile part was
written in: that part is void, as after a reboot. An image that takes the process with it is bad.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from history import judge
from stores import open_found, refusals


def look(kind: str, path: str, allowed: dict[str, Any], *, read_only: bool) -> dict[str, Any]:
    try:
        store = open_found(kind, path, read_only=read_only)
    except refusals(kind) as error:
        if allowed["nothing"]:
            return {"found": -1}
        return {"bad": f"open: {type(error).__name__}: {error}"}
    except Exception as error:
        return {"bad": f"open: {type(error).__name__}: {error}"}
    try:
        found, wrong = judge(store, allowed)
    except Exception as error:
        return {"bad": f"{type(error).__name__}: {error}"}
    finally:
        store.close()
    return {"bad": wrong} if wrong else {"found": found}


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge images.")
    parser.add_argument("--store", required=True)
    options = parser.parse_args()
    for line in sys.stdin:
        request = json.loads(line, object_hook=with_numbers)
        # A reader finds what a writer finds, before any has put the file in order.
        for read_only in (True, False):
            answer = look(options.store, request["image"], request["allowed"], read_only=read_only)
            if "bad" in answer:
                break
        gc.collect()
        print(json.dumps(answer), flush=True)


def with_numbers(fields: dict[str, Any]) -> dict[Any, Any]:
    """JSON has no numbers as keys."""
    return {int(k) if k.isdigit() else k: v for k, v in fields.items()}


class Checker:
    """The other end: starts the process, again if an image has killed it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.process: subprocess.Popen[str] | None = None
        self.waiting: list[dict[str, Any]] = []

    def submit(self, request: dict[str, Any]) -> None:
        if self.process is None:
            script = str(Path(__file__).resolve())
            self.process = subprocess.Popen(
                [sys.executable, script, "--store", self.kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        assert self.process.stdin is not None
        self.waiting.append(request)
        with contextlib.suppress(BrokenPipeError):  # answer() will see that it is gone
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def answer(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The oldest request that is under way, and its answer."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        request = self.waiting.pop(0)
        if line:
            return request, json.loads(line)
        status = self.process.wait()
        again, self.waiting, self.process = self.waiting, [], None
        for other in again:
            self.submit(other)
        return request, {"bad": f"the process that opened it ended with {status}"}

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()
            self.process = None


if __name__ == "__main__":
    main()
