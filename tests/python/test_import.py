"""Arrays from files into an arena."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from named_arrays import assert_same, every_kind

import ndarena

MIB = 2**20


@pytest.fixture
def files(tmp_path):
    """Arrays of every kind as NumPy writes them."""
    (tmp_path / "in").mkdir()
    for name, array in every_kind().items():
        path = tmp_path / "in" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    (tmp_path / "in" / "unicode.attrs.json").write_text('{"unit": "ä", "n": [1, null]}')
    (tmp_path / "in" / "README").write_text("no array")
    (tmp_path / "in" / "lost.attrs.json").write_text('"of nobody"')
    np.savez(tmp_path / "in.npz", **every_kind())
    np.savez_compressed(tmp_path / "small.npz", **every_kind())
    return tmp_path


# --- what is read --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["in", "in.npz", "small.npz"])
@pytest.mark.parametrize("prefix", [None, "", "old", "old/"])
def test_everything(scratch, files, source, prefix):
    wanted = {f"{'old/' if prefix else ''}{name}": a for name, a in every_kind().items()}
    assert scratch.import_(files / source, prefix) == sorted(wanted)
    assert list(scratch) == sorted(wanted)
    for name, array in wanted.items():
        assert_same(scratch[name], array)
    stem = "old/" if prefix else ""
    if source == "in":
        assert dict(scratch.attrs(f"{stem}unicode")) == {"unit": "ä", "n": [1, None]}
    assert scratch.attrs(f"{stem}raw") == {}


@pytest.mark.parametrize("form", ["all.npz", "all"])
def test_there_and_back(make_arena, tmp_path, form):
    first, second = make_arena("file"), make_arena("shared")
    for name, array in every_kind().items():
        first[name] = array
        first.attrs(name)["like"] = name
    first.export(None, tmp_path / form)
    second.import_(tmp_path / form)
    for name, array in every_kind().items():
        assert_same(second[name], array)
        assert second.attrs(name) == {"like": name}


def test_one_file(scratch, files):
    assert scratch.import_(files / "in" / "raw.npy") == ["raw"]
    assert scratch.import_(files / "in" / "raw.npy", "a/b/") == ["a/b/"]  # a name like any other
    assert scratch["raw"].tolist() == scratch["a/b/"].tolist() == [b"12345678"]


def test_lands_in_the_arena_at_once(make_arena, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(32 * MIB, "u1"))
    np.savez(tmp_path / "a.npz", a=np.zeros(32 * MIB, "u1"))
    arena = make_arena("file", 128 * MIB)
    for source in ("a.npy", "a.npz"):
        tracemalloc.start()
        arena.import_(tmp_path / source, "of the file" if source == "a.npy" else "group")
        outside = tracemalloc.take_snapshot()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del outside
        # NumPy reports the array itself, which is in the arena; nothing as large besides.
        assert peak < 32 * MIB + 10 * MIB
    assert arena.stats().peak_allocated < 64 * MIB + 2 * MIB


def test_replacing(scratch, files):
    scratch["raw"] = [1, 2]
    scratch.attrs("raw")["a"] = 1
    held = scratch["raw"]
    with pytest.raises(FileExistsError, match="raw"):
        scratch.import_(files / "in.npz")
    assert list(scratch) == ["raw"]
    scratch.import_(files / "in.npz", replace=True)
    assert scratch["raw"].tolist() == [b"12345678"]
    assert scratch.attrs("raw") == {}
    assert held.tolist() == [1, 2]


def test_in_a_transaction(scratch, files):
    def leave():
        scratch.import_(files / "in")
        assert scratch["raw"].tolist() == [b"12345678"]
        raise RuntimeError("left")

    with pytest.raises(RuntimeError, match="left"), scratch.transaction():
        leave()
    assert len(scratch) == 0
    scratch["unicode"] = [1]
    with scratch.transaction():
        scratch["a"] = [1]
        with pytest.raises(FileExistsError):
            scratch.import_(files / "in")
    assert list(scratch) == ["a", "unicode"]


def test_room_of_dropped_names(make_arena, tmp_path):
    arena = make_arena("file", 16 * MIB)
    np.save(tmp_path / "a.npy", np.full(10 * MIB, 7, "u1"))
    arena["a"] = arena.zeros(10 * MIB, "u1")
    arena.flush()
    del arena["a"]  # kept until the next flush
    arena.import_(tmp_path / "a.npy")
    assert arena["a"][-1] == 7


# --- refusals: the arena stays as it was ---------------------------------------------------


@pytest.fixture
def kept(scratch):
    scratch["kept"] = [1, 2, 3]
    before = scratch.stats().n_blocks
    yield scratch
    assert list(scratch) == ["kept"]
    assert scratch.stats().n_blocks == before
    assert scratch.check() == []


class Evil:
    def __reduce__(self):
        return os.abort, ()


def test_pickles(kept, tmp_path):
    evil = np.array([Evil()], object)
    np.save(tmp_path / "a.npy", evil)
    np.savez(tmp_path / "a.npz", fine=[1], evil=evil)
    fields = np.zeros(1, [("a", "O")])
    np.save(tmp_path / "fields.npy", fields)
    for source in ("a.npy", "a.npz", "fields.npy", "."):
        with pytest.raises(TypeError, match="never unpickled"):
            kept.import_(tmp_path / source, "x")
    import pickle

    (tmp_path / "p.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"not a \.npy file"):
        kept.import_(tmp_path / "p.npy")


@pytest.mark.parametrize("cut", [0, 3, 9, 40, 127, 128, 5000, 8127])
def test_cut_files(kept, tmp_path, cut):
    np.save(tmp_path / "whole.npy", np.arange(1000.0))
    data = (tmp_path / "whole.npy").read_bytes()
    assert len(data) == 8128
    (tmp_path / "a.npy").write_bytes(data[:cut])
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data[:cut])
    for source in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=r"a\.np[yz]"):
            kept.import_(tmp_path / source)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_archives(kept, tmp_path, compressed):
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", a=np.arange(1000), b=np.arange(1000))
    data = (tmp_path / "a.npz").read_bytes()
    wrong = 0
    for at in range(0, len(data), 97 if compressed else 501):
        (tmp_path / "b.npz").write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        message = "b.npz"
        try:
            for name in kept.import_(tmp_path / "b.npz", "x"):
                del kept[name]
        except (ValueError, TypeError) as error:
            wrong += 1
            message = str(error)
        assert "b.npz" in message
    assert wrong > 5
    (tmp_path / "b.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"b\.npz"):
        kept.import_(tmp_path / "b.npz")


def test_strange_archives(kept, tmp_path):
    np.save(tmp_path / "a.npy", [1])
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(ValueError, match="twice"):
        kept.import_(tmp_path / "twice.npz")
    np.savez(tmp_path / "a.npz", a=[1])
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for flags in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[flags] |= 1
    (tmp_path / "locked.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"locked\.npz"):
        kept.import_(tmp_path / "locked.npz")


def test_damaged_attributes(kept, tmp_path):
    for text in ("", "[1]", "{", "[" * 100_000):
        np.save(tmp_path / "a.npy", [1])
        (tmp_path / "a.attrs.json").write_text(text)
        with pytest.raises(ValueError, match=r"attrs\.json"):
            kept.import_(tmp_path)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.write(tmp_path / "a.npy", "a.npy")
            archive.writestr("a.attrs.json", text)
        with pytest.raises(ValueError, match=r"attrs\.json"):
            kept.import_(tmp_path / "a.npz")
    (tmp_path / "a.attrs.json").write_text(json.dumps({"long": "x" * 2**21}))
    with pytest.raises(ValueError, match="is the most"):
        kept.import_(tmp_path)


def test_missing_and_unnameable(kept, tmp_path):
    for name in ("none.npy", "none.npz", "none"):
        with pytest.raises(FileNotFoundError):
            kept.import_(tmp_path / name)
    np.save(tmp_path / "a.npy", [1])
    for name in ("", "x" * 1025):
        with pytest.raises(ValueError, match="a name has 1 to 1024 bytes"):
            kept.import_(tmp_path / "a.npy", name)
    with pytest.raises(TypeError):
        kept.import_(tmp_path / "a.npy", 3)
    np.save(tmp_path / "in.npy", np.zeros(100 * MIB, "u1"))
    with pytest.raises(MemoryError):
        kept.import_(tmp_path / "in.npy")


def test_reader_and_closed(make_arena, tmp_path):
    np.save(tmp_path / "a.npy", [1])
    arena = make_arena("file")
    with ndarena.open(arena.filename) as reader, pytest.raises(ndarena.ReadOnlyError):
        reader.import_(tmp_path / "a.npy")
    arena.close()
    with pytest.raises(ndarena.ClosedError):
        arena.import_(tmp_path / "a.npy")


# --- interrupted ---------------------------------------------------------------------------


def test_error_in_the_middle(kept, tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(9 * MIB, "u1"), b=[1])

    def stop(done, total):
        if done:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        kept.import_(tmp_path / "a.npz", progress=stop)


HALFWAY = """
import sys
import ndarena

def wait(done, total):
    if done > total / 2:
        print("half", flush=True)
        sys.stdin.readline()

with ndarena.open("a.nda", "r+") as arena:
    arena.import_(sys.argv[1], "old", progress=wait, replace=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("source", ["old.npy", "all.npz", "all"])
def test_signal_in_the_middle(tmp_path, number, source):
    large = np.full(16 * MIB, 9, "u1")
    (tmp_path / "all").mkdir()
    for path in ("old.npy", "all/b.npy"):
        np.save(tmp_path / path, large)
    np.save(tmp_path / "all" / "a.npy", [1])
    np.savez(tmp_path / "all.npz", a=[1], b=large)
    with ndarena.open(tmp_path / "a.nda", "x", capacity="64MiB") as arena:
        arena["old"], arena["old/a"] = [1, 2], [3, 4]
    with subprocess.Popen(
        [sys.executable, "-c", HALFWAY, source],
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
    with ndarena.open(tmp_path / "a.nda", "r+") as arena:
        assert {name: array.tolist() for name, array in arena.items()} == {
            "old": [1, 2],
            "old/a": [3, 4],
        }
        assert arena.check() == []
        # What it had read is free again: the next one fits.
        arena.import_(tmp_path / source, "old", replace=True)
        arena.import_(tmp_path / source, "more")
