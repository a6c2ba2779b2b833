"""The command line, as a user runs it: in a child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import ndarena
from ndarena.tools.cli import split_run

PROBE = """
import json, sys
import numpy as np
import ndarena
large, small = np.ones(100_000), np.ones(10)
print(json.dumps({
    "argv": sys.argv,
    "path": sys.path[0],
    "name": __name__,
    "file": globals().get("__file__"),
    "package": globals().get("__package__"),
    "spec": getattr(globals().get("__spec__"), "name", None),
    "main": sys.modules["__main__"].__dict__ is globals(),
    "inside": ndarena.arena_of(large) is not None,
    "small inside": ndarena.arena_of(small) is not None,
}))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "programs" / "probe.py"
    path.parent.mkdir()
    path.write_text(PROBE)
    return path


@pytest.fixture
def arena_file(tmp_path):
    path = tmp_path / "a.nda"
    ndarena.open(path, "x", capacity="16MiB").close()
    return path


def outcome(result: subprocess.CompletedProcess[str]) -> dict:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def plain(result: subprocess.CompletedProcess[str]) -> tuple:
    """What must not differ between python and ndarena run."""
    return result.returncode, result.stdout, result.stderr


# --- run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [(), ("a", "b c"), ("--report", "-m", "--", "-c", "--file=x", "-h", "")]
)
def test_script(cli, python, script, arguments):
    ours, theirs = outcome(cli("run", script, *arguments)), outcome(python(script, *arguments))
    assert ours["argv"] == [str(script), *arguments]
    assert ours.pop("inside")
    assert not theirs.pop("inside")
    assert ours == theirs
    assert not ours["small inside"]


def test_relative_script(cli, python, script):
    ours = outcome(cli("run", "probe.py", cwd=script.parent))
    theirs = outcome(python("probe.py", cwd=script.parent))
    for name in ("argv", "path", "file"):
        assert ours[name] == theirs[name]


def test_linked_script(cli, script, tmp_path):
    (tmp_path / "link.py").symlink_to(script)
    assert outcome(cli("run", "link.py"))["path"] == str(script.parent)


def test_module(cli, python, tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("__main__", "probe"):
        (package / f"{name}.py").write_text(PROBE)
    for target in ("pkg", "pkg.probe"):
        ours = outcome(cli("run", "-m", target, "-m", "x"))
        theirs = outcome(python("-m", target, "-m", "x"))
        assert ours.pop("inside")
        theirs.pop("inside")
        assert ours == theirs
    assert outcome(cli("run", "-mpkg"))["spec"] == "pkg.__main__"


def test_code(cli, python, tmp_path):
    ours, theirs = (
        outcome(cli("run", "-c", PROBE, "-c", "x")),
        outcome(python("-c", PROBE, "-c", "x")),
    )
    assert ours["argv"] == ["-c", "-c", "x"]
    for name in ("argv", "path", "name", "file", "spec"):
        assert ours[name] == theirs[name]
    assert ours["inside"]


def test_directory_and_archive(cli, python, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__main__.py").write_text("import helper\n" + PROBE)
    (folder / "helper.py").touch()
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "__main__.py", "__main__.py")
        file.write(folder / "helper.py", "helper.py")
    for target in (folder, archive):
        ours, theirs = outcome(cli("run", target, "x")), outcome(python(target, "x"))
        for name in ("argv", "path", "name", "spec", "package", "main"):
            assert ours[name] == theirs[name]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a message')",
        "raise SystemExit(300)",
        "import os; os._exit(5)",
        "def f():\n    raise ValueError('bad')\nf()",
        "x = (",
        "import sys; sys.excepthook = lambda *a: print('hook', a[0].__name__); 1 / 0",
        "import atexit; atexit.register(print, 'bye'); print('hello')",
        "import threading; threading.Timer(0.2, print, ['late']).start()",
        "raise KeyError from ValueError('cause')",
        "import warnings; warnings.warn('old', DeprecationWarning)",
    ],
)
def test_endings(cli, python, tmp_path, code):
    (tmp_path / "program.py").write_text(code)
    assert plain(cli("run", "program.py")) == plain(python("program.py"))


def test_interrupt(tmp_path):
    (tmp_path / "program.py").write_text(
        "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "ndarena", "run", "program.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in background jobs too
    ) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode in (130, -signal.SIGINT)
    assert "KeyboardInterrupt" in err
    assert "ndarena" not in err


def test_frames(cli, tmp_path):
    (tmp_path / "program.py").write_text("def f():\n    1 / 0\nf()\n")
    err = cli("run", "program.py").stderr
    assert err.startswith("Traceback (most recent call last):\n")
    assert "tools" not in err
    assert err.count("  File ") == 2


def test_no_room(cli):
    result = cli("run", "--capacity", "16MiB", "-c", "import numpy as np; np.ones(2**26, 'u1')")
    assert result.returncode == 1
    assert "MemoryError" in result.stderr


@pytest.mark.parametrize("variable", [False, True])
def test_capacity_and_min_size(cli, variable):
    code = (
        "import numpy as np, ndarena; a = np.ones(2000, 'u1'); b = np.ones(900, 'u1');"
        "arena = ndarena.arena_of(a); print(arena.capacity, arena.owns(b))"
    )
    if variable:
        result = cli("run", "-c", code, env={"NDARENA_SIZE": "32MiB", "NDARENA_MIN_SIZE": "1 kB"})
    else:
        result = cli("run", "--capacity=32MiB", "--min-size", "1 kB", "-c", code)
    capacity, small_inside = result.stdout.split()
    assert 32 * 2**20 <= int(capacity) < 48 * 2**20
    assert small_inside == "False"


def test_share_of_the_disk(cli, tmp_path):
    code = "import numpy as np, ndarena; print(ndarena.arena_of(np.ones(10**5)).capacity)"
    result = cli("run", "--dir", tmp_path, "--capacity", "10%", "-c", code)
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    assert int(result.stdout) == pytest.approx(free / 10, rel=0.2)


def test_dir(cli, tmp_path):
    result = cli("run", "--dir", tmp_path / "missing", "-c", "pass")
    assert (result.returncode, result.stdout) == (2, "")
    assert "missing" in result.stderr
    assert result.stderr.count("\n") == 1


def test_file(cli, tmp_path):
    path = tmp_path / "kept.nda"
    code = "import numpy as np, ndarena; print(ndarena.arena_of(np.ones(10**5)).filename)"
    result = cli("run", "--file", path, "--capacity", "16MiB", "-c", code)
    assert result.stdout.strip() == str(path)
    assert path.exists()
    assert cli("check", path).returncode == 0


def test_disable(cli, script):
    result = cli("run", "--report", script, env={"NDARENA_DISABLE": "1"})
    assert not outcome(result)["inside"]
    assert "NDARENA_DISABLE" in result.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("1 / 0", 1), ("raise SystemExit('no')", 1)],
)
def test_report(cli, tmp_path, code, status):
    code = f"import numpy as np; a = np.ones(2**20); {code}"
    path = tmp_path / "report.json"
    result = cli("run", "--report", "--report-json", path, "-c", code)
    assert result.returncode == status
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("ndarena: ")]
    assert "8.00 MiB in 1 array" in lines[1]
    assert f"exit status {status}" in lines[-1]
    assert "peak RSS" in lines[-1]
    assert "major faults" in lines[-1]
    report = json.loads(path.read_text())
    assert report["exit_status"] == status
    assert report["peak_allocated"] >= 2**23
    assert report["peak_rss"] > 2**23
    assert report["wall_seconds"] >= 0


def test_report_is_silent_unless_asked(cli):
    assert cli("run", "-c", "pass").stderr == ""


def test_report_of_forked_children(cli):
    code = "import os, sys\npid = os.fork()\nif not pid: sys.exit(0)\nos.waitpid(pid, 0)"
    assert cli("run", "--report", "-c", code).stderr.count("exit status") == 1


def test_spawned_workers(cli, tmp_path):
    (tmp_path / "program.py").write_text(
        "import multiprocessing as mp\n"
        "import numpy as np\n"
        "def work(n):\n"
        "    return float(np.ones(n).sum())\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('spawn').Pool(2) as pool:\n"
        "        print(pool.map(work, [100_000, 200_000]))\n"
    )
    result = cli("run", "program.py")
    assert (result.returncode, result.stdout) == (0, "[100000.0, 200000.0]\n"), result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--report"),
        ("run", "missing.py"),
        ("run", "-m", "no_such_module_anywhere"),
        ("run", "--capacity", "huge", "-c", "pass"),
        ("run", "--file", "a", "--dir", "b", "-c", "pass"),
        ("run", "--unknown", "-c", "pass"),
        (),
        ("unknown",),
        ("info",),
    ],
)
def test_usage(cli, words):
    result = cli(*words)
    assert result.returncode == 2
    assert "error" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_split():
    assert split_run(["a.py", "--report"]) == ([], "script", ["a.py", "--report"])
    assert split_run(["--report", "a.py"]) == (["--report"], "script", ["a.py"])
    assert split_run(["--dir", "a.py", "b.py"]) == (["--dir", "a.py"], "script", ["b.py"])
    assert split_run(["--dir=x", "-m", "m", "-c"]) == (["--dir=x"], "-m", ["m", "-c"])
    assert split_run(["-cpass", "x"]) == ([], "-c", ["pass", "x"])
    assert split_run(["--", "-m", "x"]) == ([], "script", ["-m", "x"])
    assert split_run(["-m"]) == ([], "", [])
    assert split_run(["--file"]) == (["--file"], "", [])


# --- readers -------------------------------------------------------------------------------


def test_info(cli, arena_file):
    result = cli("info", arena_file)
    assert result.returncode == 0
    assert "capacity" in result.stdout
    data = outcome(cli("info", "--json", arena_file))
    assert data["file"] == str(arena_file)
    assert data["capacity"] >= 16 * 2**20
    assert data["file_size"] == arena_file.stat().st_size
    with ndarena.open(arena_file) as arena:
        assert data["uuid"] == arena.uuid


def test_check(cli, arena_file):
    result = cli("check", arena_file)
    assert (result.returncode, result.stdout) == (0, f"{arena_file}: sound\n")
    assert outcome(cli("check", arena_file, "--json")) == {
        "file": str(arena_file),
        "sound": True,
        "findings": [],
    }
    assert cli("check", "--repair", arena_file).returncode == 0


def test_check_finds_damage(cli, arena_file):
    data = bytearray(arena_file.read_bytes())
    for offset in range(64, 4096, 64):
        data[offset] ^= 0xFF
    arena_file.write_bytes(data)
    result = cli("check", arena_file, "--json")
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    if result.returncode == 1:
        found = json.loads(result.stdout)
        assert not found["sound"]
        assert found["findings"]


@pytest.mark.parametrize("command", ["info", "check", "map"])
def test_unreadable(cli, tmp_path, command):
    (tmp_path / "text").write_text("not an arena\n" * 10_000)
    for path in (tmp_path / "missing", tmp_path / "text", tmp_path):
        result = cli(command, path)
        assert result.returncode == 2
        assert result.stderr.startswith("ndarena: error: ")
        assert str(path) in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_map(cli, arena_file):
    result = cli("map", arena_file, "--width", "32")
    assert result.returncode == 0
    assert "metadata" in result.stdout
    assert "\033" not in result.stdout
    data = outcome(cli("map", "--json", arena_file))
    cells = np.array(data["cells"])
    assert cells.shape[1] == len(data["states"])
    assert (cells.sum(axis=1) <= data["cell_size"]).all()


def test_map_of_a_live_arena(cli, make_arena):
    arena = make_arena("file")
    a = arena.ones(2**18)
    data = outcome(cli("map", "--json", arena.filename))
    assert data["totals"]["allocated"] >= a.nbytes
    assert cli("check", arena.filename).returncode == 0
    assert outcome(cli("info", "--json", arena.filename))["n_blocks"] == 1


def test_map_without_unicode(cli, arena_file):
    result = cli("map", arena_file, env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert result.stdout.isascii()


def test_map_as_a_picture(cli, arena_file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "heap.png"
    result = cli("map", arena_file, "-o", picture)
    assert (result.returncode, result.stdout) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = cli("map", arena_file, "-o", tmp_path / "heap.nothing")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


def test_map_as_a_picture_without_matplotlib(cli, arena_file, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "matplotlib.py").write_text("raise ImportError('hidden')")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    result = cli("map", arena_file, "-o", tmp_path / "a.png", env={"PYTHONPATH": path})
    assert result.returncode == 2
    assert "pip install 'ndarena[plot]'" in result.stderr


def test_closed_pipe(arena_file, tmp_path):
    command = f"{sys.executable} -m ndarena map --json {arena_file} | head -c 1"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.stderr == ""


def test_version_and_places(cli):
    assert cli("--version").stdout == f"ndarena {ndarena.__version__}\n"
    assert cli("--includes").stdout == f"-I{ndarena.get_include()}\n"
    assert cli("--cmakedir").stdout == f"{ndarena.get_cmake_dir()}\n"
    assert cli("--pkgconfigdir").stdout.strip().endswith("share/pkgconfig")
