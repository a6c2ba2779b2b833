"""Commands that know names: as a user runs them, in a child process."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from named_arrays import assert_same, every_kind

import ndarena
from ndarena.tools import copies

MIB = 2**20


@pytest.fixture
def full(tmp_path):
    """A closed arena file with an array of every kind."""
    path = tmp_path / "a.nda"
    with ndarena.open(path, "x", capacity="32MiB") as arena:
        for name, array in every_kind().items():
            arena[name] = array
        arena.attrs("unicode").update(unit="m", note="one\ntwo")
    return path


def names(path):
    with ndarena.open(path) as arena:
        return list(arena)


def fine(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(result, *words):
    """Exit status 2, one line on stderr that says so."""
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("ndarena: error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    return True


# --- ls ------------------------------------------------------------------------------------


def test_ls(cli, full):
    lines = fine(cli("ls", full)).splitlines()
    wanted = every_kind()
    assert [line.split("  ")[0] for line in lines] == sorted(wanted)
    columns = dict(zip(sorted(wanted), lines, strict=True))
    assert columns["fortran"].split("  ")[-3:] != columns["0-d"].split("  ")[-3:]
    assert "int64" in columns["fortran"]
    assert "(2, 3)" in columns["fortran"]
    assert columns["fortran"].endswith(" 48 bytes")
    assert columns["0-d"].endswith("8 bytes")
    assert fine(cli("ls", full, "complex/")).count("\n") == 2
    assert fine(cli("ls", full, "none")) == ""
    long = fine(cli("ls", "-l", full))
    assert "    unit = 'm'\n    note = 'one\\ntwo'\n" in long
    assert " 48 bytes  F\n" in long
    assert fine(cli("ls", full, env={"PYTHONIOENCODING": "ascii"})).isascii()


def test_ls_json(cli, full):
    data = json.loads(fine(cli("ls", "--json", full)))
    assert data["file"] == str(full)
    assert [row["name"] for row in data["names"]] == sorted(every_kind())
    rows = {row["name"]: row for row in data["names"]}
    for name, array in every_kind().items():
        row = rows[name]
        assert tuple(row["shape"]) == array.shape
        assert row["nbytes"] == array.nbytes
        assert (row["order"] == "F") == (not array.flags.c_contiguous)
    assert rows["unicode"]["attrs"] == {"unit": "m", "note": "one\ntwo"}
    assert rows["big-endian"]["descr"] == ">i2"
    assert rows["structured"]["descr"][1] == ["größe", ">f8", [2, 2]]
    assert json.loads(fine(cli("ls", "--json", full, "empty/")))["prefix"] == "empty/"


def test_ls_of_terminals(cli, tmp_path):
    with ndarena.open(tmp_path / "a.nda", "x", capacity="1MiB") as arena:
        arena["\x1b[31mred\n"] = [1]
        arena[" "] = [1]
    out = fine(cli("ls", tmp_path / "a.nda"))
    assert "\x1b" not in out
    assert "'\\x1b[31mred\\n'" in out
    assert out.count("\n") == 2


def test_ls_while_somebody_writes(cli, full):
    with ndarena.open(full, "r+") as arena:
        arena["new"] = [1]
        with arena.transaction():
            arena["later"] = [1]
            assert "new " in fine(cli("ls", full, "new"))
            assert fine(cli("ls", full, "later")) == ""


# --- info, check ---------------------------------------------------------------------------


def test_info(cli, full):
    data = json.loads(fine(cli("info", "--json", full)))
    assert data["names"] == len(every_kind())
    assert data["flushed"] is True
    assert data["epoch"] == data["flushed_epoch"] > 0
    assert data["flush_error"] is None
    with ndarena.open(full, "r+") as arena:
        arena["new"] = [1]
        live = json.loads(fine(cli("info", "--json", full)))
        assert live["names"] == len(every_kind()) + 1
        assert live["flushed"] is False
        assert live["epoch"] == live["flushed_epoch"] + 1
        assert "no: names have changed since" in fine(cli("info", full))
        arena.flush()
        assert "flushed epoch" in fine(cli("info", full))
        assert json.loads(fine(cli("info", "--json", full)))["flushed"] is True


def test_info_of_a_copy(cli, full, tmp_path):
    shutil.copyfile(full, tmp_path / "b.nda")
    for _ in range(2):
        data = json.loads(fine(cli("info", "--json", tmp_path / "b.nda")))
        assert data["names"] == len(every_kind())
        assert data["flushed"] is True
        ndarena.open(tmp_path / "b.nda", "r+").close()


def _damage_a_node(path):
    data = bytearray(path.read_bytes())
    # Sequence and directory of both root pages; the higher sequence counts.
    _, directory = max(struct.unpack_from("<QQ", data, page + 24) for page in (4096, 8192))
    data[directory + 100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("copied", [False, True])
def test_check_finds_damaged_names(cli, full, copied, tmp_path):
    if copied:
        shutil.copyfile(full, tmp_path / "b.nda")
        full = tmp_path / "b.nda"
    assert fine(cli("check", full)) == f"{full}: sound\n"
    _damage_a_node(full)
    for words in (("check",), ("check", "--repair")):
        result = cli(*words, full, "--json")
        assert result.returncode == 1, result.stderr
        assert "damaged" in json.loads(result.stdout)["findings"][0]
    assert refused(cli("ls", full), "ndarena check")


# --- rm ------------------------------------------------------------------------------------


def test_rm(cli, full):
    before = names(full)
    assert refused(cli("rm", full, "raw"), "--force", "raw")
    assert refused(cli("rm", full, "raw", "none", "--force"), "none", "nothing has been removed")
    assert names(full) == before
    assert fine(cli("rm", "--force", full, "raw", "ü/ñ", "raw")) == ""
    assert names(full) == [n for n in before if n not in ("raw", "ü/ñ")]
    assert json.loads(fine(cli("info", "--json", full)))["flushed"] is True


# --- export, import ------------------------------------------------------------------------


def test_export(cli, full, tmp_path):
    assert fine(cli("export", full, "fortran", "a.npy")) == "a.npy: 1 array\n"
    assert_same(np.load(tmp_path / "a.npy"), every_kind()["fortran"])
    assert refused(cli("export", full, "raw", "a.npy"), "--force")
    fine(cli("export", full, "raw", "a.npy", "--force"))
    assert_same(np.load(tmp_path / "a.npy"), every_kind()["raw"])
    assert fine(cli("export", full, "complex/", "c.npz")) == "c.npz: 2 arrays\n"
    assert sorted(np.load(tmp_path / "c.npz")) == ["64", "fortran"]
    count = len(every_kind())
    assert fine(cli("export", full, "all")) == f"all: {count} arrays\n"
    assert (tmp_path / "all" / "one" / "two" / "three" / "four.npy").is_file()
    assert refused(cli("export", full, "all"), "--force")
    assert refused(cli("export", full, "all", "--force"), "not empty")
    assert refused(cli("export", full, "none", "x.npz"), "there is no array none")
    assert refused(cli("export", full, "x.npy"), "holds one array")
    assert refused(cli("export", "none.nda", "x.npz"), "none.nda")


def test_import(cli, full, tmp_path):
    fine(cli("export", full, "all.npz"))
    new = tmp_path / "new.nda"
    assert refused(cli("import", new, "all.npz"), "new.nda")
    count = len(every_kind())
    assert fine(cli("import", "--create", new, "all.npz")) == f"{new}: {count} arrays\n"
    with ndarena.open(new) as arena:
        for name, array in every_kind().items():
            assert_same(arena[name], array)
        assert arena.attrs("unicode")["unit"] == "m"
    np.save(tmp_path / "raw.npy", [7])
    assert refused(cli("import", new, "raw.npy"), "an array raw already", "--force")
    assert fine(cli("import", new, "raw.npy", "--force")) == f"{new}: 1 array\n"
    fine(cli("import", new, "some/where", "raw.npy"))
    with ndarena.open(new) as arena:
        assert arena["raw"].tolist() == arena["some/where"].tolist() == [7]
    assert json.loads(fine(cli("info", "--json", new)))["flushed"] is True
    np.save(tmp_path / "evil.npy", np.array([set()], object))
    assert refused(cli("import", new, "evil.npy"), "never unpickled")
    (tmp_path / "text.npz").write_text("no archive")
    assert refused(cli("import", new, "text.npz"), "text.npz")
    assert refused(cli("import", new, "missing.npy"), "missing.npy")


def test_progress_on_a_terminal(full, tmp_path):
    """Bars are for terminals; into files and pipes nothing is written (see the other tests)."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ndarena", "export", str(full), "all.npz"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
    ) as child:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 4096):
                shown += piece
        except OSError:
            pass  # how a terminal without the other side says end
        assert child.wait(60) == 0
    os.close(leader)
    assert b"export" in shown


INTERRUPTED = """
import sys
import ndarena.tools.{module} as module
from ndarena.tools.cli import main

def wait(done, total):
    if done > total / 2:
        print("half", flush=True)
        sys.stdin.readline()

module.bar = lambda: wait
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("exchange", ["export", "a.nda", "out.npz"]),
        ("exchange", ["import", "a.nda", "new", "in.npy"]),
        ("copies", ["compact", "a.nda"]),
        ("copies", ["compact", "a.nda", "b.nda"]),
        ("copies", ["snapshot", "a.nda", "b.nda"]),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signal_in_the_middle(tmp_path, module, words, number):
    large = np.full(12 * MIB, 1, "u1")
    np.save(tmp_path / "in.npy", large)
    with ndarena.open(tmp_path / "a.nda", "x", capacity="64MiB") as arena:
        arena["old"] = large
    before = sorted(os.listdir(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(module=module), *words],
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
    if number == signal.SIGINT:
        assert (child.returncode, err) == (130, "ndarena: interrupted\n")
        assert sorted(os.listdir(tmp_path)) == before
    else:
        assert child.returncode == -number
        assert sorted(n for n in os.listdir(tmp_path) if n[0] != ".") == before
    with ndarena.open(tmp_path / "a.nda", "r+") as arena:
        assert list(arena) == ["old"]
        assert (arena["old"] == 1).all()
        assert arena.check() == []


# --- compact, snapshot ---------------------------------------------------------------------


def test_compact(cli, full, tmp_path):
    with ndarena.open(full, "r+") as arena:
        arena["dropped"] = np.ones(MIB)
        arena.flush()
        del arena["dropped"]
    size = full.stat().st_blocks
    out = fine(cli("compact", full, "b.nda"))
    assert "before" in out
    assert (tmp_path / "b.nda").stat().st_blocks < size - 8 * MIB // 512
    assert refused(cli("compact", full, "b.nda"), "--force")
    fine(cli("compact", full, "b.nda", "--force"))
    fine(cli("compact", full))
    assert full.stat().st_blocks < size - 8 * MIB // 512
    for path in (full, tmp_path / "b.nda"):
        assert names(path) == sorted(every_kind())
        fine(cli("check", path))
    assert refused(cli("compact", "none.nda"), "none.nda")


def test_compact_while_somebody_writes(cli, full, tmp_path):
    with ndarena.open(full, "r+") as arena:
        arena["new"] = [1]
        inode = full.stat().st_ino
        assert refused(cli("compact", full), "1 other process has it open for writing")
        assert full.stat().st_ino == inode
        fine(cli("compact", full, "b.nda"))
        assert "new" in names(tmp_path / "b.nda")
    with ndarena.open(full):
        fine(cli("compact", full))  # readers keep the old file


def test_snapshot(cli, full, tmp_path):
    with ndarena.open(full, "r+") as arena:
        arena["new"] = [1]
        fine(cli("snapshot", full, "b.nda"))
        assert refused(cli("snapshot", full, "b.nda"), "--force")
        arena["newer"] = [1]
        fine(cli("snapshot", full, "b.nda", "--force"))
    assert names(tmp_path / "b.nda") == sorted([*every_kind(), "new", "newer"])
    fine(cli("check", tmp_path / "b.nda"))


def test_snapshot_of_a_file_that_may_only_be_read(full, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with ndarena.open(full, "r+") as arena:
        arena["new"] = [1]
        assert copies.snapshot(str(full), str(tmp_path / "b.nda")) == 0
        assert "not flushed" in capsys.readouterr().err
    assert names(tmp_path / "b.nda") == sorted(every_kind())


# --- usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("rm", "a.nda"),
        ("export", "a.nda"),
        ("import", "a.nda"),
        ("snapshot", "a.nda"),
        ("compact",),
        ("export", "a.nda", "x", "b.npy", "c"),
    ],
)
def test_usage(cli, words):
    result = cli(*words)
    assert result.returncode == 2
    assert "usage" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words", [("ls",), ("rm", "x", "--force"), ("export", "x.npz"), ("compact",), ("snapshot", "y")]
)
def test_unreadable(cli, tmp_path, words):
    (tmp_path / "text").write_text("not an arena\n" * 10_000)
    for path in (tmp_path / "missing", tmp_path / "text", tmp_path):
        assert refused(cli(words[0], path, *words[1:]), str(path))
    assert sorted(os.listdir(tmp_path)) == ["text"]
