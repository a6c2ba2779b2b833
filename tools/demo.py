"""``ndarena demo``: a program larger than its memory, plain and under ``ndarena run``.

The data are the photographs that ship with scikit-learn, tiled up to a mosaic. The program
is `demo_program`, which is plain NumPy. What it must print is computed here from the
photographs in small strips, independently of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ndarena._heapmap import HeapMap
from ndarena._places import free_bytes, in_memory, scratch_dir
from ndarena._sizes import format_size, parse_size

from ._common import FINDINGS, FINE, Unusable, print_json, say
from .limits import MemoryLimit, memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

__all__ = ["Options", "expected_result", "main"]

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo_program.py")
# Bytes that the program has in arrays at its peak, for each pixel of the mosaic: the mosaic
# itself 12; light, right, down and edges 4 each; the counted values 2, and 8 as bincount
# wants them.
_BYTES_PER_PIXEL = 38
_SMALLEST_LIMIT = 192 * 2**20
_PATIENCE = 600
_STRIP = 64


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of ``ndarena demo``.

    Attributes
    ----------
    limit : str
        Memory limit of both runs.
    factor : float
        Working set in units of the limit.
    directory : str or None
        Where scratch files go.
    output : str or None
        Picture of the heap map to write.
    keep : bool
        Whether to keep the working directory.
    as_json : bool
        Whether to print JSON.
    """

    limit: str = "512MiB"
    factor: float = 3.0
    directory: str | None = None
    output: str | None = None
    keep: bool = False
    as_json: bool = False


def main(options: Options) -> int:
    """Run the demonstration and say whether everything was as claimed.

    Parameters
    ----------
    options : Options
        How large, and where.

    Returns
    -------
    int
        0 if it was, 1 if not.

    Raises
    ------
    Unusable
        If it cannot be tried: no photographs, no disk space, a limit that is too small.
    """
    nbytes = parse_size(options.limit, "--limit")
    if nbytes < _SMALLEST_LIMIT or not 1 < options.factor < 1000:
        raise Unusable(
            f"the demo wants a limit of {format_size(_SMALLEST_LIMIT)} or more and a factor above 1"
        )
    directory = scratch_dir(options.directory)
    photo = _photograph()
    rows, columns = _tiles(photo, nbytes * options.factor)
    pixels = rows * columns * photo.shape[0] * photo.shape[1]
    _check_space(directory, pixels * _BYTES_PER_PIXEL)
    tell = _silent if options.as_json else _tell
    with _workspace(directory, options.keep) as work, memory_limit(nbytes) as limit:
        tell(
            f"A photograph of scikit-learn's, tiled {rows} x {columns} times: "
            f"{pixels / 1e6:.0f} million pixels. A plain NumPy program finds their edges and "
            f"needs about {format_size(pixels * _BYTES_PER_PIXEL)}.\n"
            f"Memory limit: {format_size(nbytes)}, by {_explain(limit)}.\n"
        )
        np.save(os.path.join(work, "photo.npy"), photo)
        program = [_PROGRAM, os.path.join(work, "photo.npy"), str(rows), str(columns)]

        plain = _run([sys.executable, *program], limit, work)
        plain_failed = _did_not_fit(plain, limit)
        tell(f"1. Plain NumPy: {_ending(plain)}.")

        report_path = os.path.join(work, "report.json")
        arena_options = ["run", "--dir", work, "--report-json", report_path]
        ours = _run([sys.executable, "-m", "ndarena", *arena_options, *program], limit, work)
        report = _read_report(report_path)
        tell(f"2. The same program under ndarena run: {_ending(ours)}.")

        expected = expected_result(photo, rows, columns)
        right = ours.returncode == 0 and _parsed(ours.stdout) == expected
    large_enough = report.get("peak_allocated", 0) >= nbytes * options.factor
    as_claimed = plain_failed and right and large_enough
    if options.as_json:
        results = {
            "as_claimed": as_claimed,
            "limit": nbytes,
            "limit_by": limit.kind,
            "pixels": pixels,
            "plain": {"did_not_fit": plain_failed, "status": plain.returncode},
            "run": {"status": ours.returncode, "right_result": right, **report},
        }
        print_json(results)
    else:
        _tell_outcome(report, plain_failed=plain_failed, right=right, large_enough=large_enough)
    if "map" in report:
        _draw(report, options)
    if not as_claimed:
        say("the demo did not show what it claims")
        for name, ended in (("plain", plain), ("run", ours)):
            if ended.stderr:
                say(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    return FINE if as_claimed else FINDINGS


def _photograph() -> npt.NDArray[np.uint8]:
    try:
        from sklearn.datasets import load_sample_image

        image: npt.NDArray[np.uint8] = np.ascontiguousarray(load_sample_image("china.jpg"))
    except ImportError as error:  # scikit-learn, or Pillow to read the photograph
        raise Unusable("the demo needs its data: pip install 'ndarena[demo]'") from error
    return image


def _tiles(photo: npt.NDArray[np.uint8], wanted: float) -> tuple[int, int]:
    """Choose the mosaic, about square, so that the working set is somewhat more than wanted."""
    count = wanted * 1.03 / (_BYTES_PER_PIXEL * photo.shape[0] * photo.shape[1])
    columns = max(1, round(math.sqrt(count * photo.shape[0] / photo.shape[1])))
    return math.ceil(count / columns), columns


def _check_space(directory: str, working_set: int) -> None:
    if in_memory(directory):
        raise Unusable(
            f"{directory} is kept in memory: name a directory on a disk with --dir or NDARENA_DIR"
        )
    free, wanted = free_bytes(directory), working_set * 3 // 2
    if free < wanted:
        raise Unusable(
            f"{directory} has {format_size(free)} free and the demo wants {format_size(wanted)}: "
            "name another directory with --dir, or take a smaller --limit"
        )


@contextlib.contextmanager
def _workspace(directory: str, keep: bool) -> Iterator[str]:
    """Make a directory of our own, removed whatever happens; SIGTERM ends the block as well."""

    def stop(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, stop)
    # Signals wait until the directory is one that `finally` knows of.
    ending = {signal.SIGINT, signal.SIGTERM}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    work = tempfile.mkdtemp(prefix="ndarena-demo-", dir=directory)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield work
    finally:
        if keep:
            say(f"kept {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
        signal.signal(signal.SIGTERM, former)


@dataclasses.dataclass(frozen=True)
class _Ended:
    returncode: int
    stdout: str
    stderr: str
    seconds: float


def _run(argv: Sequence[str], limit: MemoryLimit, work: str) -> _Ended:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NDARENA_")}
    # Buffers and stacks of a linear algebra library's threads would count against the limit.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[variable] = "1"
    begin = time.monotonic()
    with subprocess.Popen(
        limit.command(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=work,
        env=environment,
    ) as child:
        try:
            out, err = child.communicate(timeout=_PATIENCE)
        except BaseException:
            child.kill()
            child.wait()
            raise
    return _Ended(child.returncode, out, err, time.monotonic() - begin)


def _did_not_fit(ended: _Ended, limit: MemoryLimit) -> bool:
    if limit.kills:
        return ended.returncode == -signal.SIGKILL and limit.oom_kills() > 0
    return ended.returncode == 1 and "MemoryError" in ended.stderr


def _ending(ended: _Ended) -> str:
    if ended.returncode == -signal.SIGKILL:
        how = "killed for want of memory"
    elif "MemoryError" in ended.stderr:
        how = ended.stderr.strip().splitlines()[-1]
    elif ended.returncode:
        how = f"failed with status {ended.returncode}"
    else:
        how = "finished"
    return f"{how} after {ended.seconds:.1f} s"


def _explain(limit: MemoryLimit) -> str:
    if limit.kills:
        return f"a memory {limit.kind} (what exceeds it is killed)"
    return "RLIMIT_DATA (private memory beyond it is refused; run as root for a cgroup)"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read_report(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            report: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return {}
    return report


def expected_result(photo: npt.NDArray[np.uint8], rows: int, columns: int) -> dict[str, Any]:
    """Return what the program must print, computed strip by strip.

    Parameters
    ----------
    photo : numpy.ndarray
        Shape (height, width, 3), uint8.
    rows, columns : int
        How often it is repeated downwards and to the right.

    Returns
    -------
    dict
        As the program prints it. Takes a few MB, whatever the size of the mosaic.
    """
    height, width = photo.shape[0] * rows, photo.shape[1] * columns
    across = np.arange(width) % photo.shape[1]
    light_counts = np.zeros(256, np.int64)
    edge_counts = np.zeros(512, np.int64)
    for top in range(0, height, _STRIP):
        # One line more than the strip, for the differences downwards.
        bottom = min(top + _STRIP, height)
        down = np.arange(top, min(bottom + 1, height)) % photo.shape[0]
        strip = photo[down][:, across].astype(np.float32)
        light = 0.299 * strip[..., 0] + 0.587 * strip[..., 1] + 0.114 * strip[..., 2]
        light_counts += np.bincount(light[: bottom - top].astype(np.uint8).ravel(), minlength=256)
        corner = light[:-1, :-1]
        x, y = light[:-1, 1:] - corner, light[1:, :-1] - corner
        edges = np.sqrt(x * x + y * y)
        edge_counts += np.bincount(edges.astype(np.uint16).ravel(), minlength=512)
    return {
        "pixels": height * width,
        "light": light_counts.tolist(),
        "edges": edge_counts.tolist(),
    }


def _tell(text: str) -> None:
    print(text, flush=True)


def _silent(_text: str) -> None:
    pass


def _tell_outcome(
    report: dict[str, Any], *, plain_failed: bool, right: bool, large_enough: bool
) -> None:
    if report:
        print(
            f"   It had {format_size(report.get('peak_allocated', 0))} in arrays at its peak; "
            f"at the end {format_size(report.get('committed', 0))} were set aside for the scratch "
            "file; "
            f"{report['wall_seconds']:.1f} s, peak RSS {format_size(report['peak_rss'])}, "
            f"{report['major_faults']} major faults."
        )
    for claim, holds in (
        ("plain NumPy does not fit", plain_failed),
        ("the arrays are as much larger than the memory as asked for", large_enough),
        ("the result is that of an independent computation in small strips", right),
    ):
        print(f"   [{'yes' if holds else 'NO'}] {claim}")


def _draw(report: dict[str, Any], options: Options) -> None:
    from .heapmap import print_map, save_picture

    heap = HeapMap.from_dict(report["map"])
    title = f"The arena at the end of the program, {format_size(report['allocated'])} in arrays"
    if not options.as_json:
        print()
        print_map(heap, title)
    if options.output is None:
        return
    save_picture(heap, title, options.output)
