"""Opening arenas in files, shared memory and scratch files."""

from __future__ import annotations

import logging
import os
import pathlib
import stat
import tempfile

import numpy as np
import pytest

import ndarena
from ndarena import _places


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "a.nda"


@pytest.fixture
def existing(path) -> pathlib.Path:
    ndarena.open(path, "x", capacity="16MiB").close()
    return path


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_missing(path, mode):
    with pytest.raises(FileNotFoundError) as caught:
        ndarena.open(path, mode)
    assert str(path) in str(caught.value)
    assert caught.value.filename == str(path)
    assert not path.exists()


@pytest.mark.parametrize("mode", ["x", "w-"])
def test_existing(existing, mode):
    before = existing.read_bytes()
    with pytest.raises(FileExistsError) as caught:
        ndarena.open(existing, mode)
    assert caught.value.filename == str(existing)
    assert existing.read_bytes() == before


@pytest.mark.parametrize("mode", ["w", "w-", "x", "a"])
def test_create(path, mode):
    with ndarena.open(path, mode, capacity="16MiB") as arena:
        assert arena.mode == "r+"
        assert arena.kind == "file"
        assert arena.filename == str(path)
        assert arena.capacity >= 16 * 2**20
        assert arena.alignment == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_default_mode_is_r(existing):
    with ndarena.open(existing) as arena:
        assert arena.mode == "r"


def test_read_only(existing):
    with ndarena.open(existing, "r") as arena:
        assert arena.check() == []
        assert arena.stats().n_blocks == 0
        for attempt in (
            lambda: arena.zeros(3),
            lambda: arena.handler(),
            lambda: arena.grow("1GB"),
            lambda: ndarena.install(arena),
        ):
            with pytest.raises(ndarena.ReadOnlyError, match=r"r\+"):
                attempt()


@pytest.mark.parametrize("mode", ["r+", "a"])
def test_reopen(existing, mode):
    with ndarena.open(existing) as arena:
        uuid = arena.uuid
    with ndarena.open(existing, mode) as arena:
        assert arena.uuid == uuid
        assert arena.ones(10).sum() == 10


def test_w_replaces_and_leaves_the_old_to_its_holders(existing):
    with ndarena.open(existing, "r+") as old:
        a = old.full(1000, 7)
        with ndarena.open(existing, "w", capacity="16MiB") as new:
            assert new.uuid != old.uuid
            b = new.full(1000, 8)
            assert (a == 7).all()
            assert (b == 8).all()


@pytest.mark.parametrize("mode", ["w+", "c", "", "rw", "R", "ab"])
@pytest.mark.parametrize("function", [ndarena.open, ndarena.shared])
def test_bad_mode(function, mode, path):
    with pytest.raises(ValueError, match="mode must be one of") as caught:
        function(str(path.name), mode)
    for valid in ("'r'", "'r+'", "'w'", "'w-'", "'x'", "'a'"):
        assert valid in str(caught.value)
    assert repr(mode) in str(caught.value)


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_foreign_file(path, mode):
    path.write_bytes(b"not an arena" * 10_000)
    before = path.read_bytes()
    with pytest.raises(ndarena.FormatError, match="not an arena"):
        ndarena.open(path, mode)
    assert path.read_bytes() == before


def test_directory(tmp_path):
    with pytest.raises((IsADirectoryError, ndarena.FormatError, OSError)):
        ndarena.open(tmp_path, "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission(existing):
    existing.chmod(0)
    with pytest.raises(PermissionError):
        ndarena.open(existing)


def test_path_types(path):
    for name in (path, str(path), os.fsencode(path)):
        with ndarena.open(name, "a", capacity="16MiB") as arena:
            assert arena.filename == str(path)


def test_relative_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with ndarena.open(path.name, "x", capacity="16MiB") as arena:
        assert arena.filename == str(path)


def test_perm(path):
    ndarena.open(path, "x", capacity="16MiB", perm=0o640).close()
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_capacity(path):
    with ndarena.open(path, "x", capacity="16MiB") as arena:
        first = arena.capacity
    with ndarena.open(path, "r+", capacity="1MiB") as arena:
        assert arena.capacity == first
    with ndarena.open(path, "r+", capacity=np.int64(64 * 2**20)) as arena:
        assert arena.capacity > first
        raised = arena.capacity
        arena.grow("1MB")
        assert arena.capacity == raised
        arena.grow("128MiB")
        assert arena.capacity > raised


def test_files_are_sparse(path):
    with ndarena.open(path, "x", capacity="1TB"):
        assert path.stat().st_blocks * 512 < 64 * 2**20


@pytest.mark.parametrize("capacity", [0, "0GB", -1, "much"])
def test_bad_capacity(path, capacity):
    for function in (
        lambda: ndarena.open(path, "x", capacity=capacity),
        lambda: ndarena.shared(capacity=capacity),
        lambda: ndarena.scratch(capacity=capacity),
    ):
        with pytest.raises(ValueError, match="capacity"):
            function()
    assert not path.exists()


@pytest.mark.parametrize("alignment", [16, 64, 4096, 2 * 2**20])
def test_alignment(make_arena, alignment):
    for kind in ("file", "scratch", "shared"):
        arena = make_arena(kind, alignment=alignment)
        assert arena.alignment >= alignment
        for shape in (1, 1000, 100_000):
            assert arena.empty(shape, "u1").ctypes.data % alignment == 0


@pytest.mark.parametrize("alignment", [0, 3, 8, 96, -64, 4 * 2**20])
def test_bad_alignment(path, alignment):
    with pytest.raises(ValueError, match="alignment"):
        ndarena.open(path, "x", alignment=alignment)
    assert not path.exists()


def test_alignment_of_an_existing_arena(path):
    ndarena.open(path, "x", capacity="16MiB", alignment=4096).close()
    with ndarena.open(path, "r+") as arena:
        assert arena.alignment == 4096
    ndarena.open(path, "r+", alignment=4096).close()
    with pytest.raises(ValueError, match="alignment"):
        ndarena.open(path, "r+", alignment=64)


def test_unlink(existing):
    with ndarena.open(existing, "r+") as arena:
        a = arena.full(10, 3)
        arena.unlink()
        assert not existing.exists()
        assert a.sum() == 30
        assert arena.ones(5).sum() == 5


def test_unlink_without_a_name(make_arena):
    for kind in ("buffer", "scratch"):
        with pytest.raises(ndarena.Error):
            make_arena(kind).unlink()


def test_shared_names(make_arena):
    first, second = make_arena("shared"), make_arena("shared")
    assert first.name
    assert second.name
    assert first.name != second.name
    assert len(first.name) >= 20
    assert first.filename is None
    with pytest.raises(FileExistsError):
        ndarena.shared(first.name, "x")
    with ndarena.shared(first.name, "r+") as again:
        assert again.uuid == first.uuid
    first.unlink()
    with pytest.raises(FileNotFoundError):
        ndarena.shared(first.name, "r")


@pytest.mark.parametrize("name", ["", "a/b", "/", "a\0b", "..", "."])
def test_bad_shared_name(name):
    with pytest.raises(ValueError, match="name"):
        ndarena.shared(name)


def test_scratch_leaves_no_file(tmp_path):
    with ndarena.scratch(dir=tmp_path, capacity="16MiB") as arena:
        arena.ones(1000)
        assert list(tmp_path.iterdir()) == []
        assert arena.kind == "scratch"


def test_scratch_place(tmp_path, monkeypatch):
    places = [tmp_path / name for name in ("argument", "ours", "tmpdir")]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("NDARENA_DIR", str(places[1]))
    monkeypatch.setenv("TMPDIR", str(places[2]))
    assert _places.scratch_dir(places[0]) == str(places[0])
    assert _places.scratch_dir() == str(places[1])
    monkeypatch.delenv("NDARENA_DIR")
    assert _places.scratch_dir() == str(places[2])


def test_scratch_prefers_a_disk_to_memory(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/dev/shm")
    if not _places.in_memory("/dev/shm") or _places.in_memory("/var/tmp"):
        pytest.skip("needs /dev/shm in memory and /var/tmp on a disk")
    assert _places.scratch_dir() == "/var/tmp"


def test_scratch_place_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="dir="):
        ndarena.scratch(dir=tmp_path / "missing")
    monkeypatch.setenv("NDARENA_DIR", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="NDARENA_DIR"):
        ndarena.scratch()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        ndarena.scratch(dir=tmp_path / "file")


def test_log(path, caplog):
    caplog.set_level(logging.INFO, logger="ndarena")
    with ndarena.open(path, "x", capacity="16MiB") as arena:
        arena.grow("32MiB")
    messages = [record.getMessage() for record in caplog.records if record.name == "ndarena"]
    assert [message.split()[0] for message in messages] == ["opened", "grown", "closed"]
    assert all("a.nda" in message for message in messages)


def test_reader_checks_before_it_has_read_a_name(tmp_path) -> None:
    path = tmp_path / "names.nda"
    with ndarena.open(path, "w", capacity="16MiB") as arena:
        arena["a"] = np.arange(10)
    with ndarena.open(path, "r") as arena:
        assert arena.check() == []
        assert list(arena) == ["a"]
