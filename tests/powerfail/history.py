"""What a process did, and which states may therefore be found after a power failure.

A worker tells what it does, in lines of JSON, before and after each step ("marks"):

    ["new", id, shape]         an array, whose base contents are `words(id, …)`
    ["commit", {name: id}]     a change of names begins; null deletes
    ["done", true]             it is made (false: refused, nothing has changed)
    ["touch", id, [serial, start, stop]]   words of a named array are about to change in place
    ["touched", id]
    ["flush", k], ["flushed", k], ["failed", k]

Promised is: what is found is the directory that one flush saw, whole; not an older one than
that of the last flush that returned; every array that was not modified since holds its contents
to the last byte. Every 8-byte word of one that was modified has its old or a newer value.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Names = dict[str, int]
Layer = tuple[int, int, int]  # serial, start, stop


def words(serial: int, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Contents that say whose they are: each word is its array and its place there."""
    return np.arange(start, stop, dtype=np.uint64) | np.uint64(serial << 32)


@dataclass
class Block:
    """An array: its base contents are the first layer. None: contents are not known."""

    shape: list[int]
    layers: list[Layer] | None
    settled: int = 1

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass
class Flush:
    """States `begin` to `end` may be what it has made durable."""

    begin: int
    end: int | None  # None: under way
    settled: dict[int, int]  # layers of each array that were in place before it began


@dataclass
class History:
    """The marks of one worker."""

    start: Names | None = None  # the durable state it began with; None: a new file
    blocks: dict[int, Block] = field(default_factory=dict)
    states: list[Names] = field(default_factory=list)
    pending: bool = False  # the last state is not made yet
    flushes: dict[int, Flush] = field(default_factory=dict)
    least: int = -1  # of the states, what a flush that returned has promised

    def __post_init__(self) -> None:
        self.states = [dict(self.start or {})]
        if self.start is not None:
            self.flushes[-1] = Flush(0, 0, self._settled())
            self.least = 0

    @property
    def current(self) -> int:
        """The state that has been made."""
        return len(self.states) - 1 - self.pending

    def _settled(self) -> dict[int, int]:
        return {number: block.settled for number, block in self.blocks.items()}

    def note(self, mark: list[Any]) -> None:
        kind, subject, *rest = mark
        if kind == "new":
            shape = rest[0]
            self.blocks[subject] = Block(shape, [(subject, 0, int(np.prod(shape)))])
        elif kind == "commit":
            names = {**self.states[-1], **subject}
            self.states.append({name: n for name, n in names.items() if n is not None})
            self.pending = True
        elif kind == "done":
            if not subject:
                self.states.pop()
                for flush in self.flushes.values():  # there was nothing for it to see
                    if flush.end is not None:
                        flush.end = min(flush.end, len(self.states) - 1)
            self.pending = False
        elif kind == "touch":
            layers = self.blocks[subject].layers
            assert layers is not None
            layers.append(tuple(rest[0]))
        elif kind == "touched":
            self.blocks[subject].settled += 1
        elif kind == "flush":
            self.flushes[subject] = Flush(self.current, None, self._settled())
        elif kind in ("flushed", "failed"):
            flush = self.flushes[subject]
            flush.end = len(self.states) - 1
            if kind == "flushed":
                self.least = max(self.least, flush.begin)
            self.flushes = {
                k: f for k, f in self.flushes.items() if f.end is None or f.end >= self.least
            }

    def allowed(self) -> dict[str, Any]:
        """What may be found if the power fails now, for `judge`."""
        found: dict[int, dict[int, int]] = {}
        for flush in self.flushes.values():
            end = len(self.states) - 1 if flush.end is None else flush.end
            for n in range(max(flush.begin, self.least), end + 1):
                older = found.get(n, flush.settled)
                # of an array that is younger than a flush, this knows its first layer only
                both = older.keys() | flush.settled.keys()
                found[n] = {b: min(older.get(b, 1), flush.settled.get(b, 1)) for b in both}
        used = {number for n in found for number in self.states[n].values()}
        return {
            "nothing": self.least < 0,  # not even an arena has been promised
            "states": [
                {
                    "number": n,
                    "names": self.states[n],
                    "settled": {k: v for k, v in settled.items() if k in used},
                }
                for n, settled in sorted(found.items(), reverse=True)
            ],
            "blocks": {k: asdict(self.blocks[k]) for k in used},
        }


def from_state(allowed: dict[str, Any], number: int) -> History:
    """The history of a worker that goes on from one of the allowed states."""
    state = next(s for s in allowed["states"] if s["number"] == number)
    blocks = {}
    for n in state["names"].values():
        block = Block(**allowed["blocks"][n])
        if block.layers is not None and state["settled"].get(n, 1) < len(block.layers):
            block.layers = None  # a mixture
        else:
            block.layers = None if block.layers is None else list(block.layers)
        block.settled = len(block.layers or ())
        blocks[n] = block
    return History(start=dict(state["names"]), blocks=blocks)


def difference(array: np.ndarray[Any, Any], block: dict[str, Any], settled: int) -> str | None:
    """What is wrong with the contents of one array; None if nothing is."""
    if array.dtype != np.uint64 or list(array.shape) != list(block["shape"]):
        return f"is {array.dtype}{list(array.shape)}, not uint64{block['shape']}"
    if block["layers"] is None:
        return None
    found = array.reshape(-1)
    known = np.empty_like(found)
    right = np.zeros(found.shape, bool)
    for count, (serial, start, stop) in enumerate(block["layers"], start=1):
        known[start:stop] = words(serial, start, stop)
        if count >= settled:
            right |= found == known
    if right.all():
        return None
    wrong = np.flatnonzero(~right)
    value = int(found[wrong[0]])
    return (
        f"{len(wrong)} of {len(found)} words are wrong, the first at {wrong[0]}: "
        f"word {value & 0xFFFFFFFF} of {value >> 32}"
    )


def judge(store: Any, allowed: dict[str, Any]) -> tuple[int | None, str | None]:
    """Return which state an open store is in, or what is wrong with it."""
    findings = store.check()
    if findings:
        return None, f"check: {findings[0]} ({len(findings)} in all)"
    names = sorted(store)
    reasons = []
    for state in allowed["states"]:
        expected = state["names"]
        if sorted(expected) != names:
            missing = sorted(set(expected) - set(names))
            extra = sorted(set(names) - set(expected))
            reasons.append(f"state {state['number']}: missing {missing}, too many {extra}")
            continue
        for name, number in expected.items():
            settled = state["settled"].get(number, 1)
            wrong = difference(store[name], allowed["blocks"][number], settled)
            if wrong:
                reasons.append(f"state {state['number']}: {name} ({number}): {wrong}")
                break
        else:
            return state["number"], None
    if allowed["nothing"] and not names:
        return -1, None
    reasons.sort(key=lambda reason: "missing" in reason)  # wrong contents say more
    more = f" (and {len(reasons) - 2} more)" if len(reasons) > 2 else ""
    return None, "; ".join(reasons[:2]) + more or f"names {names} where there can be none"
