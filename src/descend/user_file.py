"""A Python file of the user's: run it, find a name in it, and say where in it something failed."""

import ast
import inspect
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from descend.errors import DescendError, TaskError
from descend.files import read_whole
from descend.spelling import hint

LONGEST = 300  # characters of somebody else's message within one of ours
SHORT = 60  # characters of a value within a message


class Named(NamedTuple):
    """A name in a user's file, its value and the place of that; the rest is for messages."""

    path: Path
    name: str
    value: Any
    place: str
    wanted: str
    error: type[DescendError]
    known: str

    def refused(self, value: object, subject: str) -> DescendError:
        """The error for a value of another kind; the subject's words end in "is"."""
        kind = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        if not isinstance(value, type | str | int | float | None) or len(kind) > SHORT:
            kind = f"of type {type(value).__name__}"
        return self.error(
            f"{self.place}: {subject} {kind}, and needed is {self.wanted} ({self.known})"
        )

    def trying(self, failing: str) -> AbstractContextManager[None]:
        """A block in which the value is tried out; an error in it is told with its line."""
        return _told(self.path, self.place, f"{self.name}{failing}: ", self.error)


def load_named(
    spec: str, wanted: str, error: type[DescendError], *fits: Callable[[Any, str], bool]
) -> Named:
    """Run a Python file and find one name in it.

    Args:
        spec: the file and the name: "my_file.py:NAME".
        wanted: the kind of object that is needed, for the messages: "a descend.Optimizer".
        error: the exception for a file that cannot be used.
        *fits: whether a value is of that kind, by it and the module's name; a message names those
            of the first function first.

    Raises:
        DescendError: `error`: as `run_file`; or the file has no such name.

    Example:
        >>> load_named("my_file.py:N", "a number", TaskError, lambda one, _: isinstance(one, int))

    Source: `module:name` as entry points have it, https://packaging.python.org/specifications.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or spec.endswith(".py"):
        file, name = spec, ""
    path = Path(file)
    module = run_file(path, wanted, error)
    defined = vars(module)
    fit = [key for fit in fits for key, one in defined.items() if fit(one, module.__name__)]
    known = f"it defines {', '.join(fit)}" if fit else "it defines none"
    if not name:
        first = [*fit, "NAME"][0]
        raise error(f"{path}: which name? needed is {wanted}; give {path}:{first} ({known})")
    if name not in defined:
        raise error(f"{path} defines no {name!r}; {hint(name, fit)}needed is {wanted} ({known})")
    return Named(path, name, defined[name], defined_at(path, name), wanted, error, known)


def defined_at(path: Path, name: str) -> str:
    """The file, and the line that last gave the name its meaning, for a message."""
    lines = [
        statement.lineno
        for statement in ast.parse(read_whole(path)).body
        if name in _bound(statement)
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds there."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names


def needed(function: Callable[..., Any]) -> list[str]:
    """The arguments of a function that have no default; of a compiled one, nothing is known."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        one.name
        for one in arguments
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]


def run_file(path: Path, wanted: str, error: type[DescendError]) -> types.ModuleType:
    """Run a Python file and return what it defines.

    The file is run as `python FILE` would run it, with its folder first on the path for imports,
    except that `__name__` is not "__main__". The folder stays on the path, because the file's own
    functions can import later.

    Args:
        path: the file.
        wanted: what the file has to define, for the messages: "a descend.Task".
        error: the exception for a file that cannot be used.

    Returns:
        A module that is in `sys.modules` under a name of its own.

    Raises:
        DescendError: `error`, where the file is missing, is no Python file, or fails (with its
            line).

    Example:
        >>> run_file(Path("my_task.py"), "a descend.Task", TaskError).task

    Source: `runpy.run_path` of the standard library, which this resembles.
    """
    if os.path.isdir(path):  # which takes any name, where Path.is_dir refuses a long one
        raise error(f"{path} is a folder; give a Python file that defines {wanted}")
    if path.suffix != ".py":
        raise error(
            f"{path} is not a Python file: its name must end in .py; it must define {wanted}"
        )
    if not os.path.isfile(path):
        raise error(f"{path}: there is no such file; give a Python file that defines {wanted}")
    module = types.ModuleType(f"descend_file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up by name
    folder = str(path.resolve().parent)
    if folder in sys.path:  # of a run before
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    try:
        with _told(path, str(path), "", error):
            # exec of the compiled source, not an import, which would leave a __pycache__ behind
            exec(_compiled(path), module.__dict__)  # noqa: S102
    except SystemExit as caught:
        raise error(f"{locate(caught, path)}: the file ended the program (sys.exit)") from caught
    return module


def _compiled(path: Path) -> types.CodeType:
    try:
        return compile(read_whole(path), str(path), "exec")
    except SyntaxError as caught:
        raise DescendError(f"{path}, line {caught.lineno}: SyntaxError: {caught.msg}") from caught


@contextmanager
def _told(path: Path, place: str, doing: str, error: type[DescendError]) -> Iterator[None]:
    """Tell of an error in the block with its line in the file, or else with a place."""
    try:
        yield
    except Exception as caught:
        text, line = describe(caught), locate(caught, path)
        if not _says_where(text, path):
            text = f"{place if line == str(path) else line}: {doing}{text}"
        raise error(text) from caught


@contextmanager
def located(paths: Collection[Path], kind: type[DescendError]) -> Iterator[None]:
    """Name the line of a user's file where an error in the block passed through one.

    Args:
        paths: the files, as `run_file` got them.
        kind: the error that says it. One of a task is of its file even where no line is.
    """
    try:
        yield
    except Exception as error:
        if any(_says_where(str(error), path) for path in paths):
            raise
        for path in paths:
            place = locate(error, path)
            if place != str(path) or isinstance(error, TaskError):
                raise kind(f"{place}: {describe(error)}") from error
        raise


def _says_where(text: str, path: Path) -> bool:
    """Whether a message begins with its place in a file, as that of a `RuleError` does."""
    return text.startswith((f"{path}:", f"{path}, line"))


def locate(error: BaseException, path: Path) -> str:
    """Where in a user's file an exception came from.

    Args:
        error: what was raised, its causes chained.
        path: the file, as it was given to `run_file`.

    Returns:
        The file and the line of the innermost of its frames, or the file alone.

    Example:
        >>> locate(error, Path("my_task.py"))
        'my_task.py, line 12'
    """
    line: int | None = None
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path):
                line = trace.tb_lineno
            trace = trace.tb_next
        cause = cause.__cause__
    return str(path) if line is None else f"{path}, line {line}"


def describe(error: BaseException) -> str:
    """An exception in one line: its message, cut where it is very long, after its type.

    descend's own messages say enough without the type.
    """
    text = " ".join(str(error).split())
    if isinstance(error, DescendError):
        return text
    if len(text) > LONGEST:
        text = text[:LONGEST] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
