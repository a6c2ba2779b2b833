"""Compact copies and snapshots of whole arenas."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from named_arrays import assert_same, every_kind

import ndarena
from ndarena import _copies

MIB = 2**20


@pytest.fixture
def full(make_arena):
    """A file arena with an array of every kind, and some that were dropped."""
    arena = make_arena("file")
    wanted = every_kind()
    for i, (name, array) in enumerate(wanted.items()):
        arena[f"dropped/{i}"] = np.full(50_000, i)
        arena[name] = array
        arena.attrs(name)["number"] = i
    for i in range(len(wanted)):
        del arena[f"dropped/{i}"]
    return arena


@pytest.fixture(params=["compact", "snapshot"])
def copy(request):
    """Either way of copying."""
    return lambda arena, path, **options: getattr(arena, request.param)(path, **options)


def assert_full(path, mode="r"):
    wanted = every_kind()
    with ndarena.open(path, mode) as arena:
        assert list(arena) == sorted(wanted)
        for i, (name, array) in enumerate(wanted.items()):
            assert_same(arena[name], array)
            assert arena.attrs(name) == {"number": i}
        assert arena.check() == []
        return arena.uuid


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_copy_is_an_arena(full, tmp_path, copy, mode):
    before, after = copy(full, tmp_path / "b.nda")
    assert after == os.stat(tmp_path / "b.nda").st_blocks * 512 <= before
    assert_full(tmp_path / "b.nda", mode)
    assert_full(tmp_path / "b.nda", "r+")  # and again, by its own state
    with ndarena.open(tmp_path / "b.nda", "r+") as arena:
        assert (arena.capacity, arena.alignment) == (full.capacity, full.alignment)
        arena["new"] = arena.ones(MIB)
        del arena["raw"]
    with ndarena.open(tmp_path / "b.nda") as arena:
        assert arena["new"].sum() == MIB
        assert "raw" not in arena
    assert "new" not in full


def test_compact_is_small(make_arena, tmp_path):
    arena = make_arena("file")
    for i in range(40):
        arena[f"{i}"] = np.full(100_000, i, "u1")
    for i in range(39):
        del arena[f"{i}"]
    unnamed = arena.ones(MIB, "u1")
    before, after = arena.compact(tmp_path / "b.nda")
    del unnamed
    assert before > 4 * MIB
    assert after <= 100_000 + 300_000  # the tables of an arena
    with ndarena.open(tmp_path / "b.nda") as copy:
        assert copy.uuid != arena.uuid
        assert (copy["39"] == 39).all()
    assert arena.compact(tmp_path / "b.nda") == (before, after)


def test_compact_keeps_what_is_one(make_arena, tmp_path):
    arena = make_arena("file")
    arena["a"] = np.arange(6.0)
    arena["b"] = arena["a"]
    arena["c"] = arena["a"].view("u8").reshape((2, 3), order="F")
    arena.compact(tmp_path / "b.nda")
    with ndarena.open(tmp_path / "b.nda", "r+") as copy:
        copy["a"][1] = 7
        assert copy["b"][1] == 7
        assert copy["c"].view("f8")[1, 0] == 7
        assert copy["c"].flags.f_contiguous


def test_options_of_the_file_are_kept(tmp_path, copy):
    with ndarena.open(
        tmp_path / "a.nda", "x", capacity="2GiB", alignment=4096, perm=0o640
    ) as arena:
        arena["a"] = [1]
        copy(arena, tmp_path / "b.nda")
        assert (arena.alignment, arena.capacity) == (4096, 2**31)
    assert stat.S_IMODE(os.stat(tmp_path / "b.nda").st_mode) == 0o640
    for mode in ("r", "r+", "r"):
        with ndarena.open(tmp_path / "b.nda", mode) as arena:
            assert (arena.alignment, arena.capacity) == (4096, 2**31)
            assert arena["a"].ctypes.data % 4096 == 0


def test_empty(make_arena, tmp_path, copy):
    copy(make_arena("file"), tmp_path / "b.nda")
    with ndarena.open(tmp_path / "b.nda", "r+") as arena:
        assert len(arena) == 0
        assert arena.check() == []


@pytest.mark.parametrize("kind", ["buffer", "scratch", "shared"])
def test_of_what_is_not_in_a_file(make_arena, tmp_path, copy, kind):
    arena = make_arena(kind)
    arena["a"] = [1, 2]
    copy(arena, tmp_path / "b.nda")
    with ndarena.open(tmp_path / "b.nda") as found:
        assert found["a"].tolist() == [1, 2]


def test_replaces_a_file(full, tmp_path, copy):
    (tmp_path / "b.nda").write_text("old")
    copy(full, tmp_path / "b.nda")
    assert_full(tmp_path / "b.nda")
    with ndarena.open(tmp_path / "b.nda") as reader:
        with ndarena.open(tmp_path / "c.nda", "w", capacity="1MiB") as other:
            other["other"] = [1]
            copy(other, tmp_path / "b.nda")
        assert reader["0-d"] == 2.5  # whoever has it open keeps the old one
    with ndarena.open(tmp_path / "b.nda") as reader:
        assert list(reader) == ["other"]


def test_refusals(full, tmp_path, copy):
    with pytest.raises(ValueError, match="its own"):
        copy(full, full.filename)
    with pytest.raises(ValueError, match="end the transaction"), full.transaction():
        copy(full, tmp_path / "b.nda")
    with pytest.raises(FileNotFoundError):
        copy(full, tmp_path / "none" / "b.nda")
    with pytest.raises(FileExistsError):
        copy(full, tmp_path)
    full.close()
    with pytest.raises(ndarena.ClosedError):
        copy(full, tmp_path / "b.nda")
    assert os.listdir(tmp_path) == ["0.nda"]


class Stop(Exception):
    pass


def test_error_in_the_middle(full, tmp_path, copy):
    (tmp_path / "b.nda").write_text("old")

    def stop(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        copy(full, tmp_path / "b.nda", progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["0.nda", "b.nda"]
    assert (tmp_path / "b.nda").read_text() == "old"
    copy(full, tmp_path / "b.nda")


def test_progress(full, tmp_path, copy):
    seen = []
    copy(full, tmp_path / "b.nda", progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 100_000


# --- of the moment of the flush -------------------------------------------------------------


def test_snapshot_is_of_the_last_flush(make_arena, tmp_path):
    arena = make_arena("file")
    arena["a"] = [1]
    arena.flush()
    arena["b"] = [2]
    with ndarena.open(arena.filename) as reader:
        assert list(reader) == ["a", "b"]
        reader.snapshot(tmp_path / "r.nda")  # a reader cannot flush
        assert list(reader) == ["a", "b"]
    arena.snapshot(tmp_path / "w.nda")
    with ndarena.open(tmp_path / "r.nda") as copy:
        assert list(copy) == ["a"]
        assert copy.uuid == arena.uuid
    with ndarena.open(tmp_path / "w.nda") as copy:
        assert list(copy) == ["a", "b"]


def test_snapshot_of_a_copy_at_rest(full, tmp_path):
    full.flush()
    shutil.copyfile(full.filename, tmp_path / "b.nda")
    with ndarena.open(tmp_path / "b.nda") as reader:
        reader.snapshot(tmp_path / "c.nda")
    assert_full(tmp_path / "c.nda")


def test_snapshot_keeps_what_it_copies(make_arena, tmp_path):
    """What the copied names lead to is not reused, though it is dropped and flushed meanwhile."""
    arena = make_arena("file")
    arena["a"] = np.full(9 * MIB, 1, "u1")
    started = False

    def interfere(done, total):
        nonlocal started
        if done and not started:
            started = True
            for value in range(2, 7):
                arena["a"] = np.full(9 * MIB, value, "u1")
                arena.flush()

    arena.snapshot(tmp_path / "b.nda", progress=interfere)
    assert started
    with ndarena.open(tmp_path / "b.nda", "r+") as copy:
        assert (copy["a"] == 1).all()
        assert copy.check() == []


WRITER = """
import sys
import numpy as np
import ndarena

with ndarena.open("a.nda", "r+") as arena:
    print("ready", flush=True)
    value = 0
    while True:
        value += 1
        with arena.transaction():
            arena["a"], arena["b"] = np.full(value % 7 * 10_000, value), [value]
            arena[f"more/{value % 50}"] = [value]
        if value % 3 == 0:
            arena.flush()
"""


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_while_others_write(tmp_path, copy, mode):
    with ndarena.open(tmp_path / "a.nda", "x", capacity="64MiB") as arena:
        arena["a"], arena["b"] = np.full(10_000, 0), [0]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        values = set()
        for _ in range(12):
            with ndarena.open(tmp_path / "a.nda", mode) as arena:
                copy(arena, tmp_path / "b.nda")
            with ndarena.open(tmp_path / "b.nda", "r+") as found:
                (value,) = found["b"]
                assert len(found["a"]) == value % 7 * 10_000 or value == 0
                assert (found["a"] == value).all()
                assert found.check() == []
                values.add(int(value))
        assert len(values) > 1
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


# --- how the bytes get there ----------------------------------------------------------------


def test_holes_stay_holes(make_arena, tmp_path):
    arena = make_arena("file")
    arena["a"] = arena.zeros(48 * MIB, "u1")  # reserved, most of it never written
    arena["b"] = [1]
    before, after = arena.snapshot(tmp_path / "b.nda")
    assert before > 48 * MIB
    assert after < 16 * MIB
    with ndarena.open(tmp_path / "b.nda", "r+") as copy:
        assert not copy["a"].any()


def test_other_errors_of_cloning_are_errors(full, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(_copies.fcntl, "ioctl", refuse)
    with pytest.raises(OSError, match="broken"):
        full.snapshot(tmp_path / "b.nda")
    assert os.listdir(tmp_path) == ["0.nda"]


@pytest.mark.root
@pytest.mark.nosan
def test_shared_blocks(tmp_path):
    """On a file system that can, a snapshot takes no space."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    place, image = tmp_path / "mnt", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    done = subprocess.run(
        ["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount an XFS here: {done.stderr.strip()}")
    try:
        with ndarena.open(place / "a.nda", "x", capacity="100MiB") as arena:
            arena["a"] = np.full(32 * MIB, 7, "u1")
            arena.flush()
            arena["dropped"] = [1]
            del arena["dropped"]
            before = os.statvfs(place).f_bfree * os.statvfs(place).f_frsize
            arena.snapshot(place / "b.nda")
            after = os.statvfs(place).f_bfree * os.statvfs(place).f_frsize
            arena["a"][:] = 8
        assert before - after < 4 * MIB
        for mode in ("r", "r+"):
            with ndarena.open(place / "b.nda", mode) as copy:
                assert (copy["a"] == 7).all()
                assert copy.check() == []
    finally:
        subprocess.run(["umount", place], check=True)


# --- in place -------------------------------------------------------------------------------


def test_in_place(full):
    path = full.filename
    full.close()
    inode = os.stat(path).st_ino
    before, after = _copies.compact_in_place(path, None)
    assert after < before
    assert os.stat(path).st_ino != inode
    assert_full(path, "r+")
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_in_place_wants_nobody_else(tmp_path, python):
    path = tmp_path / "a.nda"
    code = "import ndarena; ndarena.open('a.nda', 'r+')['b'] = [2]"
    with ndarena.open(path, "x", capacity="1MiB") as arena:
        arena["a"] = [1]
    os.link(path, tmp_path / "b.nda")
    with pytest.raises(ndarena.Error, match="only name"):
        _copies.compact_in_place(path, None)
    os.unlink(tmp_path / "b.nda")

    def visit(done, total):
        if done == total:
            assert python("-W", "ignore", "-c", code).stderr == ""

    # Somebody comes, writes and goes while it is copied.
    with pytest.raises(ndarena.Error, match="meanwhile"):
        _copies.compact_in_place(path, visit)
    with ndarena.open(path) as arena:
        assert list(arena) == ["a", "b"]
    _copies.compact_in_place(path, None)
    with ndarena.open(path) as arena:
        assert list(arena) == ["a", "b"]


def test_who_waits_to_open_gets_the_new_file(tmp_path, python):
    """An opener that was let in behind the replacement does not write into the old file."""
    path = tmp_path / "a.nda"
    with ndarena.open(path, "x", capacity="1MiB") as arena:
        arena["a"] = [1]
        arena.compact(tmp_path / "b.nda")
    code = "import ndarena\nwith ndarena.open('a.nda', 'r+') as a: a['late'] = [2]"
    results = []
    with _copies._nobody_opens(str(path)):
        late = threading.Thread(target=lambda: results.append(python("-c", code)))
        late.start()
        # It waits at the lock once it has the file open.
        while not any(link == str(path) for link in _open_files()):
            assert late.is_alive()
        os.rename(tmp_path / "b.nda", path)
    late.join()
    assert results[0].stderr == ""
    with ndarena.open(path) as arena:
        assert list(arena) == ["a", "late"]


def _open_files():
    own = os.getpid()
    for process in os.listdir("/proc"):
        if process.isdigit() and int(process) != own:
            try:
                for number in os.listdir(f"/proc/{process}/fd"):
                    yield os.readlink(f"/proc/{process}/fd/{number}")
            except OSError:
                continue


HALFWAY = """
import sys
from ndarena import _copies

def wait(done, total):
    if done == total:
        print("done", flush=True)
        sys.stdin.readline()

_copies.compact_in_place("a.nda", wait)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_in_place_is_interrupted(tmp_path, number):
    with ndarena.open(tmp_path / "a.nda", "x", capacity="1MiB") as arena:
        arena["a"] = [1]
    with subprocess.Popen(
        [sys.executable, "-c", HALFWAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stdout.readline() == "done\n"
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == -number, err
    if number == signal.SIGINT:
        assert os.listdir(tmp_path) == ["a.nda"]
    with ndarena.open(tmp_path / "a.nda", "r+") as arena:
        assert arena["a"].tolist() == [1]
        assert arena.check() == []
