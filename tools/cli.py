"""The command line: parsing only. Each command lives in the module of its name."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import ndarena

from ._common import FINE, UNUSABLE, Unusable, describe, say

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_RUN_VALUES = frozenset({"--file", "--dir", "--capacity", "--min-size", "--report-json"})
_RUN_USAGE = """ndarena run [--file F | --dir D] [--capacity C] [--min-size 64KiB]
                   [--report] [--report-json F] (SCRIPT | -m MODULE | -c CODE) [ARG ...]"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ndarena",
        description="NumPy arrays in memory-mapped files and shared memory.",
        epilog="Exit status: 0 fine, 1 findings, 2 usage or unreadable.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ndarena {ndarena.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a NumPy program with its large arrays in a file, out of core",
        usage=_RUN_USAGE,
        description="Run an unmodified NumPy program; everything after it belongs to it.",
        allow_abbrev=False,
    )
    place = run.add_mutually_exclusive_group()
    place.add_argument("--file", metavar="F", help="keep the arrays in this arena file")
    place.add_argument(
        "--dir", metavar="D", help="directory of the scratch file (default NDARENA_DIR, TMPDIR)"
    )
    run.add_argument(
        "--capacity",
        metavar="C",
        help="ceiling, like 50GB or 50%% of the free space (default NDARENA_SIZE, most of it)",
    )
    run.add_argument(
        "--min-size",
        metavar="SIZE",
        help="smaller arrays stay in memory (default NDARENA_MIN_SIZE, 64KiB)",
    )
    run.add_argument("--report", action="store_true", help="print at the end what it took")
    run.add_argument("--report-json", metavar="F", help="write the same to a file")

    _add_readers(commands)
    _add_file_verbs(commands)

    segments = commands.add_parser(
        "segments", help="the shared segments of this host", allow_abbrev=False
    )
    segments.add_argument(
        "--reclaim", action="store_true", help="free what processes held that have died"
    )
    segments.add_argument("--unlink", metavar="NAME", help="remove a segment's name")
    segments.add_argument("--force", action="store_true", help="also while processes have it open")
    segments.add_argument("--json", action="store_true", help="print JSON")

    replay = commands.add_parser(
        "replay", help="play back a log of ndarena.Tracing, or of RMM", allow_abbrev=False
    )
    replay.add_argument("file", metavar="LOG", help="CSV with Thread, Action, Pointer, Size")
    replay.add_argument("--dir", metavar="D", help="directory of the scratch file")
    replay.add_argument("--capacity", metavar="C", help="its ceiling, like 50GB")
    replay.add_argument("--rounds", type=_positive, default=5, help="how often (default 5)")
    replay.add_argument("--json", action="store_true", help="print JSON")

    demo = commands.add_parser(
        "demo",
        help="a program larger than its memory limit: plain, then under ndarena run",
        allow_abbrev=False,
    )
    demo.add_argument("--limit", default="512MiB", help="memory limit (default 512MiB)")
    demo.add_argument(
        "--factor", type=float, default=3.0, help="working set in units of the limit (default 3)"
    )
    demo.add_argument("--dir", metavar="D", help="directory for scratch files")
    demo.add_argument("-o", "--output", metavar="PNG", help="write the heap map as a picture")
    demo.add_argument("--keep", action="store_true", help="keep the working directory")
    demo.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def _add_readers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, help_text in (
        ("info", "what an arena file holds"),
        ("ls", "the names in an arena file"),
        ("check", "verify an arena file"),
        ("map", "heap map of an arena file"),
    ):
        reader = commands.add_parser(name, help=help_text, allow_abbrev=False)
        reader.add_argument("file", metavar="F", help="the arena file")
        reader.add_argument("--json", action="store_true", help="print JSON")
        if name == "check":
            reader.add_argument(
                "--repair", action="store_true", help="recover what opening it can recover"
            )
        if name == "ls":
            reader.add_argument(
                "prefix", metavar="PREFIX", nargs="?", default="", help="what names start with"
            )
            reader.add_argument(
                "-l", "--long", action="store_true", help="also memory order and attributes"
            )
        if name == "map":
            reader.add_argument("-o", "--output", metavar="PNG", help="write a picture")
            reader.add_argument("--width", type=_positive, help="cells a line")


def _add_file_verbs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    def add(name: str, help_text: str, force: str) -> argparse.ArgumentParser:
        verb = commands.add_parser(name, help=help_text, allow_abbrev=False)
        verb.add_argument("file", metavar="F", help="the arena file")
        verb.add_argument("--force", action="store_true", help=force)
        return verb

    export = add(
        "export", "write named arrays to .npy, .npz or a directory", "replace a file that is there"
    )
    export.add_argument("name", metavar="NAME", nargs="?", help="name or group/ (default all)")
    export.add_argument("output", metavar="OUT", help="*.npy, *.npz, or a new directory")

    importer = add("import", "read .npy, .npz or a directory", "replace arrays of the same names")
    importer.add_argument(
        "name", metavar="NAME", nargs="?", help="name or group (default the file's own names)"
    )
    importer.add_argument("source", metavar="IN", help="*.npy, *.npz, or a directory")
    importer.add_argument("--create", action="store_true", help="make F if there is none")

    rm = add("rm", "remove names", "mean it")
    rm.add_argument("names", metavar="NAME", nargs="+", help="what to remove, all or nothing")

    compact = add("compact", "copy the named arrays without gaps", "replace OUT if it is there")
    compact.add_argument("output", metavar="OUT", nargs="?", help="the new file (default F itself)")

    snapshot = add("snapshot", "copy the file as last flushed", "replace OUT if it is there")
    snapshot.add_argument("output", metavar="OUT", help="the new file")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def split_run(words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Split what follows ``run`` into our options and the program with its arguments.

    Parameters
    ----------
    words : sequence of str
        The command line after ``run``.

    Returns
    -------
    options : list of str
        What belongs to us.
    kind : {'', 'script', '-m', '-c'}
        What kind of program follows; '' for none.
    program : list of str
        Script, module or code, then its arguments, untouched.
    """
    index = 0
    while index < len(words):
        word = words[index]
        if word in _RUN_VALUES:
            index += 2
        elif word == "--":
            rest = list(words[index + 1 :])
            return list(words[:index]), "script" if rest else "", rest
        elif word[:2] in ("-m", "-c"):
            attached = [word[2:]] if len(word) > 2 else []
            rest = [*attached, *words[index + 1 :]]
            return list(words[:index]), word[:2] if rest else "", rest
        elif word.startswith("-") and word != "-":
            index += 1
        else:
            return list(words[:index]), "script", list(words[index:])
    return list(words), "", []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        The exit status: 0 fine, 1 findings, 2 usage or unreadable. `run` ends the way its
        program does instead.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    kind = ""
    program: list[str] = []
    if words[:1] == ["run"]:
        options, kind, program = split_run(words[1:])
        words = ["run", *options]
    arguments = parser.parse_args(words)
    if arguments.command == "run" and not kind:
        parser.error("run wants a script, -m MODULE or -c CODE")
    try:
        return _dispatch(arguments, kind, program)
    except Unusable as error:
        say(f"error: {error}")
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except (ndarena.Error, OSError, ValueError, TypeError, MemoryError) as error:
        say(f"error: {describe(error)}")
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return UNUSABLE


def _dispatch(arguments: argparse.Namespace, kind: str, program: list[str]) -> int:
    if arguments.command == "run":
        from . import run

        options = run.Options(
            file=arguments.file,
            directory=arguments.dir,
            capacity=arguments.capacity,
            min_size=arguments.min_size,
            report=arguments.report,
            report_json=arguments.report_json,
        )
        return run.main(options, kind, program[0], program[1:])
    if arguments.command == "info":
        from . import info

        return info.main(arguments.file, as_json=arguments.json)
    if arguments.command == "check":
        from . import check

        return check.main(arguments.file, repair=arguments.repair, as_json=arguments.json)
    if arguments.command == "ls":
        from . import ls

        return ls.main(
            arguments.file, arguments.prefix, long=arguments.long, as_json=arguments.json
        )
    if arguments.command in ("export", "import", "rm", "compact", "snapshot"):
        return _dispatch_file_verb(arguments)
    if arguments.command == "replay":
        from . import replay

        return replay.main(
            arguments.file,
            folder=arguments.dir,
            capacity=arguments.capacity,
            rounds=arguments.rounds,
            as_json=arguments.json,
        )
    if arguments.command == "map":
        from . import heapmap

        return heapmap.main(
            arguments.file,
            output=arguments.output,
            width=arguments.width,
            as_json=arguments.json,
        )
    if arguments.command == "segments":
        from . import segments

        return segments.main(
            segments.Options(
                reclaim=arguments.reclaim,
                unlink=arguments.unlink,
                force=arguments.force,
                as_json=arguments.json,
            )
        )
    from . import demo

    return demo.main(
        demo.Options(
            limit=arguments.limit,
            factor=arguments.factor,
            directory=arguments.dir,
            output=arguments.output,
            keep=arguments.keep,
            as_json=arguments.json,
        )
    )


def _dispatch_file_verb(arguments: argparse.Namespace) -> int:
    if arguments.command in ("export", "import"):
        from . import exchange

        if arguments.command == "export":
            return exchange.export(
                arguments.file, arguments.name, arguments.output, force=arguments.force
            )
        return exchange.import_(
            arguments.file,
            arguments.name,
            arguments.source,
            force=arguments.force,
            create=arguments.create,
        )
    if arguments.command == "rm":
        from . import rm

        return rm.main(arguments.file, arguments.names, force=arguments.force)
    from . import copies

    if arguments.command == "compact":
        return copies.compact(arguments.file, arguments.output, force=arguments.force)
    return copies.snapshot(arguments.file, arguments.output, force=arguments.force)


if __name__ == "__main__":
    sys.exit(main())
