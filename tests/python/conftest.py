"""Fixtures: arenas of every kind, checked and closed at the end of each test."""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import ndarena

KINDS = ("buffer", "file", "scratch", "shared")
CAPACITY = 64 * 2**20


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our variables in the caller's environment must not decide what tests see."""
    for name in list(os.environ):
        if name.startswith("NDARENA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def make_arena(tmp_path) -> Iterator[Callable[..., ndarena.Arena]]:
    """A function that opens an arena of a kind; all of them are checked and closed."""
    made: list[ndarena.Arena] = []

    def make(kind: str = "scratch", capacity: int = CAPACITY, **options) -> ndarena.Arena:
        if kind == "buffer":
            arena = ndarena.Arena(mmap.mmap(-1, capacity), **options)
        elif kind == "file":
            arena = ndarena.open(tmp_path / f"{len(made)}.nda", "w", capacity=capacity, **options)
        elif kind == "shared":
            arena = ndarena.shared(capacity=capacity, **options)
        else:
            arena = ndarena.scratch(capacity=capacity, dir=tmp_path, **options)
        made.append(arena)
        return arena

    yield make
    findings = []
    for arena in made:
        if not arena.closed:
            findings += arena.check()
            arena.close()
        if arena.kind == "shared":
            with contextlib.suppress(FileNotFoundError), ndarena.shared(arena.name, "r+") as again:
                again.unlink()
    assert findings == []


@pytest.fixture(params=KINDS)
def arena(request, make_arena) -> ndarena.Arena:
    """An arena of each kind."""
    return make_arena(request.param)


@pytest.fixture
def scratch(make_arena) -> ndarena.Arena:
    """One scratch arena, for what does not depend on the kind."""
    return make_arena("scratch")


@pytest.fixture
def shared_arena(make_arena) -> Iterator[ndarena.Arena]:
    """A private shared segment, which no process holds anything of at the end."""
    arena = make_arena("shared")
    yield arena
    gc.collect()
    arena.reclaim(transit=0)
    stats = arena.stats()
    assert (stats.n_blocks, stats.in_transit, stats.processes) == (0, 0, 1)


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def context(request) -> multiprocessing.context.BaseContext:
    """Every way in which multiprocessing starts a process."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def running() -> Callable[..., contextlib.AbstractContextManager]:
    """A child process that has to end well: ``with running(context, function, *args):``."""

    @contextlib.contextmanager
    def run(context, target, *args, **options):
        process = context.Process(target=target, args=args, **options)
        process.start()
        try:
            yield process
            process.join(60)
            assert process.exitcode == 0
        finally:
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    return run


@pytest.fixture
def run_threads() -> Iterator[Callable[..., None]]:
    """Run ``work(number)`` in threads that start together; the first exception is raised here.

    With a GIL they change places a thousand times as often as usual.
    """

    def run(work: Callable[[int], object], count: int) -> None:
        failures: list[BaseException] = []
        start = threading.Barrier(count)

        def body(number: int) -> None:
            try:
                start.wait(60)
                work(number)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield run
    sys.setswitchinterval(interval)


@pytest.fixture
def python(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a child: ``python("-c", code)``. Nothing reaches stdin."""

    def run(*arguments: object, timeout: float = 120, **options):
        environment = {**os.environ, **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=options.pop("cwd", tmp_path),
            env=environment,
            check=False,
        )

    return run


@pytest.fixture
def cli(python) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a child: ``cli("info", path)``."""
    return lambda *arguments, **options: python("-m", "ndarena", *arguments, **options)


@pytest.fixture(autouse=True, scope="module")
def _collect_only_what_tests_make() -> None:
    """Else the collection after each test looks at all that was ever imported: half the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_current() -> Iterator[None]:
    """Whatever a test does, it leaves NumPy's own handler current, and nothing installed."""
    import numpy as np

    yield
    gc.collect()
    assert ndarena.arena_of(np.empty(1)) is None


@pytest.fixture
def unraisable() -> list[BaseException]:
    """The exceptions that could only be reported while the test's body ran."""
    return []


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    # Around the body alone: pytest 7 has a hook of its own while a test is called.
    seen = pyfuncitem.funcargs.get("unraisable")
    before = sys.unraisablehook
    if seen is not None:
        sys.unraisablehook = lambda args: seen.append(args.exc_value)
    try:
        yield
    finally:
        sys.unraisablehook = before
