"""A Python file of the user's: run it, and say where in it something failed."""

import os
import sys
import types
from pathlib import Path

from descend.errors import DescendError
from descend.files import read_whole

LONGEST = 300  # characters of somebody else's message within one of ours


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
    sys.path.insert(0, str(path.resolve().parent))
    try:
        # exec of the compiled source, not an import: an import would leave a __pycache__ behind
        exec(compile(read_whole(path), str(path), "exec"), module.__dict__)  # noqa: S102
    except SyntaxError as caught:
        line = f", line {caught.lineno}" if caught.filename == str(path) else ""
        raise error(f"{path}{line}: SyntaxError: {caught.msg}") from caught
    except SystemExit as caught:
        raise error(f"{locate(caught, path)}: the file ended the program (sys.exit)") from caught
    except Exception as caught:
        text = describe(caught)
        place = "" if names_place(text, path) else f"{locate(caught, path)}: "
        raise error(f"{place}{text}") from caught
    return module


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


def names_place(message: str, path: Path) -> bool:
    """Whether a message begins with its line in a file, as that of a `RuleError` does."""
    return message.startswith(f"{path}:")


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
