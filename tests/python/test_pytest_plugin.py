"""The pytest plugin: inert until asked for, then the whole session is in an arena."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "ndarena.integrations.pytest", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester):
    """Run pytest in a child over one test file."""

    def run(source: str, *options: str):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess(*PLUGIN, *options)

    return run


INSIDE = """
    import threading
    import numpy as np
    import ndarena

    at_import = np.zeros(1000)

    def test_inside():
        assert ndarena.arena_of(np.zeros(1000)) is {large}
        assert ndarena.arena_of(np.zeros(10)) is {small}
        assert ndarena.arena_of(at_import) is {large}

    def test_other_thread():
        seen = []
        t = threading.Thread(target=lambda: seen.append(ndarena.arena_of(np.zeros(1000))))
        t.start()
        t.join()
        assert seen[0] is {large}
"""
ARENA = "ndarena._process.installed is not None and ndarena._process.installed.arena"


def test_inert(run):
    result = run(INSIDE.format(large="None", small="None"))
    result.assert_outcomes(passed=2)
    assert "ndarena:" not in result.stdout.str()


def test_everything(run):
    result = run(INSIDE.format(large=f"({ARENA})", small=f"({ARENA})"), "--ndarena")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["ndarena: * arrays made, at most * at once, 0 findings"])
    assert result.ret == 0


def test_min_size_and_capacity(run):
    source = INSIDE.format(large=f"({ARENA})", small="None") + (
        "\n    def test_capacity():\n"
        "        assert ndarena._process.installed.arena.capacity == 64 << 20\n"
    )
    result = run(source, "--ndarena", "--ndarena-min-size=4 KiB", "--ndarena-capacity=64MiB")
    result.assert_outcomes(passed=3)


@pytest.mark.parametrize("option", ["--ndarena-capacity=lots", "--ndarena-min-size=-1"])
def test_senseless_size(run, option):
    result = run("def test(): pass", "--ndarena", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ndarena: *"])


def test_damage_is_a_failure(run):
    source = """
        import ctypes
        import ndarena

        def test_scribble():  # the count of allocated bytes, in the control page
            base = ndarena._process.installed.arena._handle.base_address
            ctypes.c_uint64.from_address(base + 3 * 4096 + 200).value += 64
    """
    result = run(source, "--ndarena")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ndarena: * 1 finding", "ndarena: *allocated*"])


def test_uninstalling_is_a_failure(run):
    result = run("def test():\n    import ndarena\n    ndarena.uninstall()", "--ndarena")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ndarena: *during the session"])


def test_failures_stay_failures(run):
    result = run("def test(): assert 0", "--ndarena")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_disabled(run, monkeypatch):
    monkeypatch.setenv("NDARENA_DISABLE", "1")
    run(INSIDE.format(large="None", small="None"), "--ndarena").assert_outcomes(passed=2)


def test_arrays_outlive_the_session(run):
    source = """
        import atexit
        import numpy as np

        kept = np.arange(100_000)

        def test():
            atexit.register(lambda: print("sum", kept.sum()))
    """
    result = run(source, "--ndarena")
    assert result.ret == 0
    assert "sum 4999950000" in result.stdout.str()
