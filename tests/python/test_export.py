"""Named arrays into files that everybody can read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from named_arrays import assert_same, every_kind

import ndarena
from ndarena._npy import read_head, write_head

MIB = 2**20


@pytest.fixture
def full(make_arena):
    """An arena with an array of every kind."""
    arena = make_arena("file")
    for name, array in every_kind().items():
        arena[name] = array
    arena.attrs("unicode").update(unit="m", list=[1, None, "ä"])
    return arena


def files_below(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


# --- what is written -----------------------------------------------------------------------


def test_one_file_each(full, tmp_path):
    for name, array in every_kind().items():
        full.export(name, tmp_path / "a.npy")
        if name != "structured/wide":  # NumPy wants more trust for a head of that length
            assert_same(np.load(tmp_path / "a.npy"), array)
        assert_same(np.load(tmp_path / "a.npy", max_header_size=10**6), array)


def test_bytes_are_those_of_numpy_but_for_blanks(full, tmp_path):
    for name, array in every_kind().items():
        full.export(name, tmp_path / "ours.npy")
        np.save(tmp_path / "theirs.npy", array)
        ours, theirs = ((tmp_path / f"{who}.npy").read_bytes() for who in ("ours", "theirs"))
        assert ours[:8] == theirs[:8], name  # the same version
        assert ours.replace(b" ", b"")[10:] == theirs.replace(b" ", b"")[10:], name
        assert len(ours) % 64 == array.nbytes % 64


def test_archive(full, tmp_path):
    full.export(None, tmp_path / "all.npz")
    wanted = every_kind()
    with np.load(tmp_path / "all.npz", max_header_size=10**6) as archive:
        assert sorted(archive.files) == sorted([*wanted, "unicode.attrs.json"])
        for name, array in wanted.items():
            assert_same(archive[name], array)
    with zipfile.ZipFile(tmp_path / "all.npz") as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("unicode.attrs.json")) == {
            "unit": "m",
            "list": [1, None, "ä"],
        }
    before = (tmp_path / "all.npz").read_bytes()
    full.export(None, tmp_path / "all.npz")
    assert (tmp_path / "all.npz").read_bytes() == before  # no dates in it


def test_directory(full, tmp_path):
    full.export(None, tmp_path / "all")
    wanted = every_kind()
    assert files_below(tmp_path / "all") == sorted(
        [*(f"{name}.npy" for name in wanted), "unicode.attrs.json"]
    )
    for name, array in wanted.items():
        assert_same(np.load(tmp_path / "all" / f"{name}.npy", max_header_size=10**6), array)
    (tmp_path / "there").mkdir()
    full.export("empty", tmp_path / "there")  # an empty one is as good as none
    assert files_below(tmp_path / "there") == ["empty.npy"]


def test_groups(full, tmp_path):
    full.export("complex", tmp_path / "group.npz")
    assert sorted(np.load(tmp_path / "group.npz")) == ["64", "fortran"]
    full.export("one/two/", tmp_path / "group")
    assert files_below(tmp_path / "group") == ["three/four.npy"]
    # An array of that name goes first, a slash says what is meant.
    full.export("empty", tmp_path / "one.npz")
    assert list(np.load(tmp_path / "one.npz")) == ["empty"]
    full.export("empty/", tmp_path / "several.npz")
    assert list(np.load(tmp_path / "several.npz")) == ["of three dimensions"]
    full.export("one/two/three/four", tmp_path / "last.npz")
    assert list(np.load(tmp_path / "last.npz")) == ["four"]


@pytest.mark.parametrize("kind", ["buffer", "scratch", "shared"])
def test_every_kind_of_arena(make_arena, tmp_path, kind):
    arena = make_arena(kind)
    arena["a/b"] = [1, 2]
    arena.export("a/b", tmp_path / "b.npy")
    assert np.load(tmp_path / "b.npy").tolist() == [1, 2]
    arena.import_(tmp_path / "b.npy", "c")
    assert arena["c"].tolist() == [1, 2]


def test_reader(full, tmp_path):
    with ndarena.open(full.filename) as reader:
        del full["raw"]
        reader.export("raw", tmp_path / "raw.npy")  # as of when it was opened
    assert np.load(tmp_path / "raw.npy").tolist() == [b"12345678"]


def test_inside_a_transaction(full, tmp_path):
    with full.transaction():
        full["new"] = [1]
        full.export("new", tmp_path / "new.npy")
    assert np.load(tmp_path / "new.npy") == [1]


def test_names_of_one_moment(make_arena, tmp_path, run_threads):
    arena = make_arena("file")
    arena["g/a"], arena["g/b"] = [0], [0]

    def work(number):
        if number:
            for value in range(300):
                with arena.transaction():
                    arena["g/a"] = [value]
                    arena["g/b"] = [value]
            return
        for i in range(20):
            arena.export("g", tmp_path / f"{i}.npz")

    run_threads(work, 2)
    for i in range(20):
        with np.load(tmp_path / f"{i}.npz") as archive:
            assert archive["a"] == archive["b"]


def test_no_second_copy_in_memory(make_arena, tmp_path):
    arena = make_arena("file")
    arena["a"] = arena.zeros(32 * MIB, "u1")
    for target in ("a.npy", "a.npz", "a"):
        tracemalloc.start()
        arena.export("a", tmp_path / target)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * MIB


# --- progress ------------------------------------------------------------------------------


def test_progress_is_called(full, tmp_path):
    full["large"] = np.zeros(9 * MIB, "u1")
    seen = []
    full.export(
        "large", tmp_path / "a.npy", progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (0, 9 * MIB)
    assert seen[-1] == (9 * MIB, 9 * MIB)
    assert len(seen) >= 4
    assert seen == sorted(seen)


@pytest.mark.parametrize("hidden", [(), ("tqdm",), ("tqdm", "rich")])
def test_progress_bars(full, tmp_path, monkeypatch, capsys, hidden):
    for name in hidden:
        for module in [name, *(m for m in sys.modules if m.startswith(f"{name}."))]:
            monkeypatch.setitem(sys.modules, module, None)
    full.export("raw", tmp_path / "a.npy", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "export" in err
    if len(hidden) == 2:
        assert err == "export: 8 bytes of 8 bytes\n"


def test_progress_of_another_kind(full, tmp_path):
    with pytest.raises(TypeError, match="progress is None, True or a function"):
        full.export("raw", tmp_path / "a.npy", progress="yes")
    assert not (tmp_path / "a.npy").exists()


# --- refusals ------------------------------------------------------------------------------


def test_missing(full, tmp_path):
    for name in ("none", "none/", "complex", "emp"):
        with pytest.raises(KeyError):
            full.export(name, tmp_path / ("a.npy" if name == "complex" else "a.npz"))
    with pytest.raises(ValueError, match="holds one array"):
        full.export(None, tmp_path / "a.npy")
    with pytest.raises(TypeError, match="a name is a str"):
        full.export(3, tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        full.export("raw", tmp_path / "none" / "a.npy")
    full.close()
    with pytest.raises(ndarena.ClosedError):
        full.export("raw", tmp_path / "a.npy")
    assert os.listdir(tmp_path) == ["0.nda"]


@pytest.mark.parametrize("name", ["../up", "/absolute", "a//b", "a/./b", "a/..", "a\0b"])
def test_names_that_lead_elsewhere(make_arena, tmp_path, name):
    arena = make_arena("scratch")
    arena[name] = [1]
    for target in ("out", "out.npz"):
        with pytest.raises(ValueError, match="rename the array"):
            arena.export(None, tmp_path / target)
        assert not (tmp_path / target).exists()
    arena.export(name, tmp_path / "fine.npy")
    assert np.load(tmp_path / "fine.npy") == [1]


def test_directory_with_something_in_it(full, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        full.export(None, tmp_path / "out")
    (tmp_path / "fifo.npy").mkdir()
    full.export("raw", tmp_path / "fifo.npy")  # a directory, whatever its name
    assert files_below(tmp_path / "fifo.npy") == ["raw.npy"]
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(FileExistsError, match="something else"):
        full.export("raw", tmp_path / "pipe.npy")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.npy").st_mode)


# --- all or nothing ------------------------------------------------------------------------


def test_replaces_in_one_step(full, tmp_path):
    (tmp_path / "a.npy").write_bytes(b"old")
    os.symlink("a.npy", tmp_path / "link.npy")
    with open(tmp_path / "a.npy", "rb") as old:
        full.export("raw", tmp_path / "link.npy")
        assert old.read() == b"old"
    assert os.path.islink(tmp_path / "link.npy")
    assert np.load(tmp_path / "a.npy").tolist() == [b"12345678"]


class Stop(Exception):
    pass


@pytest.mark.parametrize("target", ["a.npy", "a.npz", "out"])
def test_error_in_the_middle(make_arena, tmp_path, target):
    arena = make_arena("scratch")
    arena["a"] = arena.zeros(9 * MIB, "u1")
    if target != "out":
        (tmp_path / target).write_bytes(b"old")
    before = sorted(os.listdir(tmp_path))

    def stop(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        arena.export("a", tmp_path / target, progress=stop)
    assert sorted(os.listdir(tmp_path)) == before
    if target != "out":
        assert (tmp_path / target).read_bytes() == b"old"


HALFWAY = """
import sys
import ndarena

def wait(done, total):
    if done > total / 2:
        print("half", flush=True)
        sys.stdin.readline()

with ndarena.open("a.nda") as arena:
    arena.export("a", sys.argv[1], progress=wait)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("target", ["a.npy", "a.npz", "out"])
def test_signal_in_the_middle(tmp_path, number, target):
    with ndarena.open(tmp_path / "a.nda", "x", capacity="64MiB") as arena:
        arena["a"] = arena.zeros(16 * MIB, "u1")
    if target != "out":
        (tmp_path / target).write_bytes(b"old")
    before = sorted(os.listdir(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HALFWAY, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stdout.readline() == "half\n"
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == -number, err
    left = sorted(set(os.listdir(tmp_path)) - set(before))
    if number == signal.SIGINT:
        assert left == []
    else:
        assert [(n[0], n[-4:]) for n in left] == [(".", ".tmp")]  # nobody was left to remove it
    if target != "out":
        assert (tmp_path / target).read_bytes() == b"old"


def test_permissions(full, tmp_path):
    before = os.umask(0o027)
    try:
        full.export("raw", tmp_path / "a.npy")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a.npy").st_mode) == 0o640


# --- heads ---------------------------------------------------------------------------------


class Bytes:
    def __init__(self, data):
        self.data = data

    def read(self, size):
        data, self.data = self.data[:size], self.data[size:]
        return data


@pytest.mark.parametrize(("size", "version"), [(100, 1), (70_000, 2)])
def test_head_versions(size, version):
    descr = repr([("x" * size, "<f8")]).encode()
    head = write_head(descr, (3,), fortran=False)
    assert head[6] == version
    assert len(head) % 64 == 0
    assert read_head(Bytes(head), "it").start == len(head)


@pytest.mark.parametrize(
    "said",
    [
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': [3]}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3.0,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': [('a', '<f8'), ('a', '<f8')], 'fortran_order': False, 'shape': (3,)}",
        "{'descr': ('<f8', (3,)), 'fortran_order': False, 'shape': (3,)}",
        "{'descr': 7, 'fortran_order': False, 'shape': (3,)}",
        "__import__('os').abort()",
        "1" + "+1" * 5000,
        "(" * 5000,
        "[",
        "",
    ],
)
def test_damaged_heads(said):
    body = said.encode()
    head = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
    with pytest.raises(ValueError, match=r"^it: "):
        read_head(Bytes(head), "it")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # old versions of NumPy, of "1f8"
def test_every_mutation_of_a_head():
    head = write_head(b"[('a', '<f8'), ('b', '>i2', (2,))]", (3, 4), fortran=True)
    for at in range(len(head)):
        for value in (0, 0x20, 0x27, 0x28, 0x31, 0x5C, 0xFF, head[at] ^ 1):
            changed = head[:at] + bytes([value]) + head[at + 1 :]
            with contextlib.suppress(ValueError, TypeError):
                assert read_head(Bytes(changed), "it").nbytes >= 0


def test_heads_of_python_2():
    body = b"{'descr': [('1L', '<f8')], 'fortran_order': False, 'shape': (3L, 2L), }"
    head = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
    assert read_head(Bytes(head), "it")[:2] == (np.dtype([("1L", "<f8")]), (3, 2))
