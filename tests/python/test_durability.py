"""Flushing: what is stored when, and what happens when the device refuses."""

import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import ndarena

REFUSING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static int refused(void) {
    static int calls;
    const char *from = getenv("REFUSE_FROM"), *to = getenv("REFUSE_TO");
    int call = ++calls;
    errno = EIO;
    return from && to && call >= atoi(from) && call < atoi(to);
}
int fdatasync(int fd) { return refused() ? -1 : fsync(fd); }
int msync(void *address, size_t length, int flags) {
    return refused() ? -1 : (int)syscall(SYS_msync, address, length, flags);
}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.nda"


@pytest.fixture(scope="session")
def refusing(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("refusing")
    (directory / "refusing.c").write_text(REFUSING)
    library = directory / "refusing.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, directory / "refusing.c"], check=True
    )
    return library


def run(code, library, refuse_from, refuse_to, *args):
    environment = dict(
        os.environ,
        LD_PRELOAD=f"{library} {os.environ.get('LD_PRELOAD', '')}".strip(),
        REFUSE_FROM=str(refuse_from),
        REFUSE_TO=str(refuse_to),
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


REFUSED = """
import sys, errno, ndarena, numpy as np
path = sys.argv[1]
arena = ndarena.open(path, "w", capacity="16MiB")
arena["good"] = np.arange(1000)
arena.flush()
arena["late"] = np.ones(1000)
for attempt in range(3):
    try:
        arena.flush()
    except OSError as error:
        assert error.errno == errno.EIO, error
        print(error)
    else:
        print("flushed")
assert sorted(arena) == ["good", "late"] and arena["late"].sum() == 1000
try:
    arena.close()
except OSError as error:
    print("close:", error.errno)
try:
    with ndarena.open(path, "r+") as again:
        again.flush()
except OSError as error:
    print("again:", error.errno)
"""


@pytest.mark.nosan
@pytest.mark.parametrize("barrier", [3, 4])
def test_a_failed_flush_keeps_failing(path, refusing, barrier):
    """The device refuses once and then "succeeds": nothing later may be believed."""
    done = run(REFUSED, refusing, barrier, barrier + 1, path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5, lines
    assert all("flush failed" in line for line in lines[:3])
    assert lines[3:] == ["close: 5", "again: 5"]
    # After a reboot, what the good flush had stored.
    copy = path.with_name("copy.nda")
    shutil.copyfile(path, copy)
    with ndarena.open(copy, "r+") as arena:
        assert arena["good"].sum() == 499500
        assert set(arena) <= {"good", "late"}
        assert arena.check() == []
        arena["more"] = 1
        arena.flush()


def test_concurrent_flushes_coalesce(path):
    with ndarena.open(path, "w", capacity="64MiB") as arena:
        arena["x"] = np.ones(10**6)
        failures = []

        def flush():
            try:
                for _ in range(10):
                    arena.flush()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=flush) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert failures == []
        assert arena.check() == []


def test_the_last_close_flushes(path):
    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena["x"] = np.arange(100)
    copy = path.with_name("copy.nda")
    shutil.copyfile(path, copy)  # another inode: only what was flushed counts
    with ndarena.open(copy) as arena:
        assert arena["x"].sum() == 4950
    with ndarena.open(path, "r+") as arena:
        arena["y"] = 1
        arena.close(flush=False)
    shutil.copyfile(path, copy)
    with ndarena.open(copy) as arena:
        assert sorted(arena) == ["x"]


def test_exit_flushes(path):
    code = (
        "import sys, ndarena, numpy as np; "
        "arena = ndarena.open(sys.argv[1], 'w', capacity='16MiB'); "
        "arena['x'] = np.arange(100); kept = arena['x']"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=True, timeout=60)
    copy = path.with_name("copy.nda")
    shutil.copyfile(path, copy)
    with ndarena.open(copy) as arena:
        assert arena["x"].sum() == 4950


def test_a_copy_has_what_was_flushed(path):
    copy = path.with_name("copy.nda")
    with ndarena.open(path, "w", capacity="64MiB") as arena:
        for i in range(300):
            arena[f"{i}"] = np.full(100 + i, i)
        arena.flush()
        for i in range(0, 300, 2):
            del arena[f"{i}"]
        arena["new"] = 1
        shutil.copyfile(path, copy)
        with ndarena.open(copy, "r+") as other:
            assert len(other) == 300
            assert all((other[f"{i}"] == i).all() for i in range(300))
            assert other.check() == []
            other["more"] = np.ones(10**5)
            assert all((other[f"{i}"] == i).all() for i in range(300))
        assert len(arena) == 151


def test_a_reader_of_a_file_that_cannot_be_written(path):
    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena["x"] = np.arange(100)
    path.chmod(0o400)
    with ndarena.open(path) as a, ndarena.open(path) as b:
        assert a["x"].sum() == b["x"].sum() == 4950
        assert not a["x"].flags.writeable
        assert a.check() == []
        array = a["x"]
    assert array[5] == 5


def test_a_million_blocks_open_quickly(path):
    """A tenth of it here; the time is for people (docs/performance.md)."""
    with ndarena.open(path, "w", capacity="256MiB") as arena:
        with arena.transaction():
            for i in range(20_000):
                arena[f"{i:06}"] = i
        arena.flush()
    copy = path.with_name("copy.nda")
    shutil.copyfile(path, copy)
    start = time.perf_counter()
    with ndarena.open(copy, "r+") as arena:
        took = time.perf_counter() - start
        assert len(arena) == 20_000
        assert arena["012345"] == 12345
        assert arena.check() == []
    print(f"opened after {took * 1e3:.1f} ms")
