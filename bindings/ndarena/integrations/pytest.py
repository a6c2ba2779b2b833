"""A pytest plugin that runs a test suite with its arrays in an arena.

pytest finds it by its entry point once ndarena is installed; from a build tree name it with
``-p ndarena.integrations.pytest``. It does nothing until it is asked to::

    pytest --ndarena [--ndarena-capacity 8GiB] [--ndarena-min-size 0]

Then one scratch arena serves every array that NumPy makes in the process, from the start
of the session to its end, where all of its metadata is examined: any finding makes the
session fail. Child processes that the tests start are not covered.
"""

from __future__ import annotations

from typing import Any

import pytest

import ndarena
from ndarena import _activation, _process
from ndarena._sizes import format_size

__all__ = ["pytest_addoption", "pytest_configure"]

_NAME = "ndarena-session"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options.

    Parameters
    ----------
    parser : pytest.Parser
        Where to add them.
    """
    group = parser.getgroup("ndarena", "NumPy arrays in an arena")
    group.addoption(
        "--ndarena",
        action="store_true",
        help="allocate NumPy's arrays in a scratch arena, and examine it at the end",
    )
    group.addoption(
        "--ndarena-capacity",
        default="8GiB",
        metavar="SIZE",
        help="most that the arena may hold (default: %(default)s)",
    )
    group.addoption(
        "--ndarena-min-size",
        default="0",
        metavar="SIZE",
        help="leave smaller arrays to NumPy (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Install the arena if it was asked for.

    Parameters
    ----------
    config : pytest.Config
        With the options.

    Raises
    ------
    pytest.UsageError
        If a size makes no sense, or the arena cannot be made.
    """
    if not config.getoption("--ndarena") or config.pluginmanager.has_plugin(_NAME):
        return
    try:
        session = _Session(
            config.getoption("--ndarena-capacity"), config.getoption("--ndarena-min-size")
        )
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--ndarena: {error}") from error
    config.pluginmanager.register(session, _NAME)


class _Session:
    """The arena of one test session."""

    def __init__(self, capacity: str, min_size: str) -> None:
        self._arena = ndarena.scratch(capacity=capacity)
        self._made = 0
        self._peak = 0
        self._findings: list[str] | None = None
        try:
            ndarena.install(self._arena, min_size=min_size)
        except BaseException:
            self._arena.close()
            raise

    def finish(self) -> list[str]:
        """Examine the arena and go back to NumPy's own allocator."""
        if self._findings is not None:
            return self._findings
        findings = list(self._arena.check())
        if getattr(_process.installed, "arena", None) is self._arena:
            ndarena.uninstall()
        elif not _activation.disabled():
            findings.append("the arena was uninstalled, or another installed, during the session")
        self._peak = self._arena.stats().peak_allocated
        self._made = self._arena._handle.allocations
        self._findings = findings
        return findings

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn findings into a failure, whatever the tests said."""
        if self.finish() and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what the arena has seen."""
        findings = self.finish()
        write = terminalreporter.write_line
        write(
            f"ndarena: {self._made} arrays made, at most {format_size(self._peak)} at once, "
            f"{len(findings)} finding{'' if len(findings) == 1 else 's'}",
            red=bool(findings),
        )
        for finding in findings:
            write(f"ndarena: {finding}", red=True)

    def pytest_unconfigure(self) -> None:
        """Close; arrays that are still alive keep their memory."""
        self.finish()
        self._arena.close()
