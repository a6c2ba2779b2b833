"""``ndarena check``: verify an arena file, and repair what opening it can repair."""

from __future__ import annotations

import ndarena

from ._common import FINDINGS, FINE, describe, open_arena, print_json

__all__ = ["findings", "main"]


def findings(path: str, mode: str = "r") -> list[str]:
    """Return what is wrong with an arena file.

    Parameters
    ----------
    path : str
        The file.
    mode : str, optional
        ``r`` looks only; ``r+`` lets the arena recover as it is opened (undo what a dead
        process left half done, take back what only it held) and looks then.

    Returns
    -------
    list of str
        One finding a line, empty when the arena is sound.
    """
    try:
        with open_arena(path, mode) as arena:
            return arena.check()
    except ndarena.CorruptionError as error:
        return [describe(error)]


def main(path: str, *, repair: bool = False, as_json: bool = False) -> int:
    """Check an arena file and print the findings.

    Parameters
    ----------
    path : str
        The file.
    repair : bool, optional
        Whether to open it for writing, which recovers it, and check again.
    as_json : bool, optional
        Whether to print JSON.

    Returns
    -------
    int
        0 if it is sound in the end, 1 otherwise.
    """
    before = findings(path)
    after = findings(path, "r+") if repair else before
    if as_json:
        data: dict[str, object] = {"file": path, "sound": not after, "findings": after}
        if repair:
            data["repaired"] = [finding for finding in before if finding not in after]
        print_json(data)
        return FINDINGS if after else FINE
    for finding in after:
        print(f"{path}: {finding}")
    if repair and before != after:
        gone = sum(finding not in after for finding in before)
        print(f"{path}: {gone} of {len(before)} findings repaired")
    if not after:
        print(f"{path}: sound")
    return FINDINGS if after else FINE
