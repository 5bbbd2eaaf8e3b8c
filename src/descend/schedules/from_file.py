"""A user's own schedule or scheduler: a name in a Python file, as FILE.py:NAME."""

import ast
import difflib
import inspect
import sys
from pathlib import Path
from typing import Any

from descend.errors import ScheduleError
from descend.files import read_whole
from descend.schedules.schedule import Schedule
from descend.user_file import describe, locate, run_file

_WANTED = "a schedule, a scheduler, or a function without arguments that returns one"

LONGEST = 60  # characters of a value within a message


def load_schedule(spec: str) -> Any:
    """Run a Python file and return a schedule or a scheduler that it defines.

    A function is called; it needs no arguments.

    Args:
        spec: the file and the name in it: "my_file.py:NAME".

    Returns:
        The `Schedule`, or the scheduler: descend's, or any other `LRScheduler` of torch.

    Raises:
        ScheduleError: the file cannot be used or has no such name, that is something else, or the
            function fails: where, and what is there instead.

    Example:
        >>> load_schedule("my_file.py:schedule")

    Source: `module:name` as entry points have it, https://packaging.python.org/specifications.
    """
    file, _, name = spec.rpartition(":")
    if spec.endswith(".py"):
        file, name = spec, ""
    path = Path(file)
    module = run_file(path, _WANTED, ScheduleError)
    defined = vars(module)
    fit = [key for key, value in defined.items() if _fits(value)]
    fit += [key for key, value in defined.items() if _makes(value, module.__name__)]
    known = f"it defines {', '.join(fit)}" if fit else "it defines none"
    if not name:
        raise ScheduleError(
            f"{path}: which schedule or scheduler in it? give {path}:{fit[0] if fit else 'NAME'}; "
            f"{known}"
        )
    if name not in defined:
        close = difflib.get_close_matches(name, fit, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ScheduleError(f"{path} defines no {name!r}; {hint}needed is {_WANTED} ({known})")
    found, place = defined[name], _where(path, name)
    if not callable(found) or isinstance(found, type | Schedule) or _fits(found):
        return _fitting(found, f"{place}: {name} is", known)
    needed = _needed(found)
    if needed:
        advice = ""
        if len(needed) == 1:
            advice = f"; as a function of the time: schedules.function({name})"
        raise ScheduleError(
            f"{place}: {name} needs {' and '.join(needed)}, and is called without arguments{advice}"
        )
    try:
        made = found()
    except Exception as error:
        inner = locate(error, path)
        raise ScheduleError(
            f"{place if inner == str(path) else inner}: {name}() fails: {describe(error)}"
        ) from error
    return _fitting(made, f"{place}: what {name}() returns is", known)


def _fits(value: object) -> bool:
    torch = sys.modules.get("torch")  # a file with a scheduler in it has imported it
    kinds: tuple[type, ...] = (Schedule,)
    if torch is not None:
        kinds += (torch.optim.lr_scheduler.LRScheduler,)
    return isinstance(value, kinds)


def _fitting(value: object, place: str, known: str) -> object:
    if _fits(value):
        return value
    what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    if not isinstance(value, type | str | int | float | None) or len(what) > LONGEST:
        what = f"of type {type(value).__name__}"
    raise ScheduleError(f"{place} {what}, and needed is {_WANTED} ({known})")


def _makes(value: object, module: str) -> bool:
    """Whether it is a function of the file's own that can be called without arguments."""
    return inspect.isfunction(value) and value.__module__ == module and not _needed(value)


def _needed(function: Any) -> list[str]:
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a compiled one, nothing is known
        return []
    return [
        argument.name
        for argument in arguments
        if argument.default is argument.empty
        and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]


def _where(path: Path, name: str) -> str:
    """The file, and the line that last gave the name its meaning."""
    lines = [
        statement.lineno
        for statement in ast.parse(read_whole(path)).body
        if getattr(statement, "name", None) == name
        or any(
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name
            for node in ast.walk(statement)
        )
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)
