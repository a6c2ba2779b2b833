"""Running a Python program as ``__main__`` in this process, as ``python`` itself would."""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from ._common import Unusable, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["INTERRUPTED", "Program", "execute", "load"]

INTERRUPTED = 130


class Program(NamedTuple):
    """What has to be known to run a program.

    Attributes
    ----------
    argument : str
        What it calls itself: ``sys.argv[0]``.
    directory : str
        Where it imports from first: ``sys.path[0]``.
    name : str
        Where it comes from, for messages.
    """

    argument: str
    directory: str
    name: str
    kind: str


def load(kind: str, target: str) -> Program:
    """Return the program that a command line names.

    Parameters
    ----------
    kind : {'script', '-m', '-c'}
        What `target` is.
    target : str
        A path, a module's name or code.

    Returns
    -------
    Program
        Ready for `execute`.

    Raises
    ------
    Unusable
        If there is no such file.
    """
    if kind == "-c":
        return Program("-c", "", target, kind)
    if kind == "-m":
        return Program("-m", os.getcwd(), target, kind)
    if not os.path.exists(target):
        raise Unusable(f"can't open file {target!r}: no such file or directory")
    if os.path.isdir(target) or _is_archive(target):
        return Program(target, target, target, "container")
    return Program(target, os.path.dirname(os.path.realpath(target)), target, kind)


def _is_archive(path: str) -> bool:
    if path.endswith((".py", ".pyw", ".pyc")):
        return False
    import zipfile

    return zipfile.is_zipfile(path)


def execute(program: Program, arguments: Sequence[str], ended: Callable[[int, str], None]) -> int:
    """Run a program as ``__main__``; its exceptions are shown as Python shows them.

    Parameters
    ----------
    program : Program
        From `load`.
    arguments : sequence of str
        Its command line after its name.
    ended : callable
        Called once with the exit status and the name of the exception that ended it ('' for
        none), also when the program exits.

    Returns
    -------
    int
        The exit status. SystemExit of the program passes through.
    """
    sys.argv[:] = [program.argument, *arguments]
    # Under -P or -I there is no entry for the program's place to be replaced.
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0:1] = [program.directory]
    elif program.kind == "container":
        sys.path.insert(0, program.directory)
    former = sys.modules["__main__"]
    try:
        module, code = _prepare(program)
        sys.modules["__main__"] = module
        exec(code, module.__dict__)  # noqa: S102  running it is what was asked for
    except SystemExit as stop:
        ended(_status(stop.code), "SystemExit")
        raise
    except Unusable:
        sys.modules["__main__"] = former
        raise
    except BaseException as error:  # noqa: BLE001  everything that ends a program
        _show(error)
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        ended(status, type(error).__name__)
        return status
    ended(0, "")
    return 0


def _status(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _prepare(program: Program) -> tuple[types.ModuleType, types.CodeType]:
    """Return the module that becomes ``__main__``, and its code."""
    module = types.ModuleType("__main__")
    variables: dict[str, Any] = module.__dict__
    variables.update(__builtins__=builtins, __annotations__={})
    if program.kind == "-c":
        return module, compile(program.name, "<string>", "exec", dont_inherit=True)
    if program.kind == "script":
        path = os.path.abspath(program.name)
        if path.endswith(".pyc"):
            loader: Any = importlib.machinery.SourcelessFileLoader("__main__", path)
            code = loader.get_code("__main__")
        else:
            loader = importlib.machinery.SourceFileLoader("__main__", path)
            code = compile(_read(program.name), path, "exec", dont_inherit=True)
        variables.update(__file__=path, __cached__=None, __loader__=loader)
        return module, code
    if program.kind == "container":
        spec = importlib.machinery.PathFinder.find_spec("__main__", [program.directory])
    else:
        spec = _module_spec(program.name)
    if spec is None:
        raise Unusable(f"can't find a module to run in {program.name!r}")
    code = getattr(spec.loader, "get_code", lambda _name: None)(spec.name)
    if code is None:
        raise Unusable(f"no code to run in {program.name!r}")
    variables.update(
        __file__=spec.origin,
        __cached__=spec.cached,
        __loader__=spec.loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    if program.kind == "-m":
        sys.argv[0] = spec.origin or program.name
    return module, code


def _module_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module as ``python -m`` does: for a package, its ``__main__``."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError) as error:
        raise Unusable(f"no module to run: {describe(error)}") from error
    if spec is None:
        raise Unusable(f"no module named {name!r}")
    if spec.submodule_search_locations is not None and not name.endswith(".__main__"):
        return _module_spec(f"{name}.__main__")
    return spec


def _read(path: str) -> bytes:
    try:
        with io.open_code(os.path.abspath(path)) as file:
            return file.read()
    except OSError as error:
        raise Unusable(f"can't open file {path!r}: {error.strerror}") from error


def _show(error: BaseException) -> None:
    """Hand an exception to ``sys.excepthook`` without our own frames at the top."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error.__traceback__ = trace
    # What pdb.pm() and interactive shells look at.
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    sys.excepthook(type(error), error, trace)
