"""A user's file that defines a task, run and searched."""

import sys
import types
from pathlib import Path

from descend.errors import DescendError, TaskError
from descend.training.fit import describe
from descend.training.task import Task


def load_task(path: Path) -> Task:
    """Run a Python file and return the one task that it defines.

    The file is run as `python FILE` would run it, with its folder first on the path for imports,
    except that `__name__` is not "__main__". The folder stays on the path, because the task's own
    functions can import later.

    Args:
        path: the file.

    Returns:
        The task; where it has which name does not matter.

    Raises:
        TaskError: if the file is missing or is no Python file, fails (with its line), or does not
            define exactly one task.

    Example:
        >>> load_task(Path("my_task.py")).model

    Source: `runpy.run_path` of the standard library, which this resembles.
    """
    if path.is_dir():
        raise TaskError(f"{path} is a folder; give a Python file that defines a descend.Task")
    if path.suffix != ".py":
        raise TaskError(
            f"{path} is not a Python file: its name must end in .py; it must define a descend.Task"
        )
    if not path.is_file():
        raise TaskError(
            f"{path}: there is no such file; give a Python file that defines a descend.Task"
        )
    module = types.ModuleType(f"descend_task_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up by name
    sys.path.insert(0, str(path.resolve().parent))
    try:
        # exec of the compiled source, not an import: an import would leave a __pycache__ behind
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.filename == str(path) else ""
        raise TaskError(f"{path}{line}: SyntaxError: {error.msg}") from error
    except SystemExit as error:
        raise TaskError(f"{locate(error, path)}: the file ended the program (sys.exit)") from error
    except DescendError as error:
        raise TaskError(f"{locate(error, path)}: {error}") from error
    except Exception as error:
        raise TaskError(f"{locate(error, path)}: {describe(error)}") from error
    tasks = {id(value): (name, value) for name, value in vars(module).items() if _is_task(value)}
    if not tasks:
        raise TaskError(
            f"{path} defines no descend.Task: add one, such as task = descend.Task(model=..., "
            f"train=..., validation=..., loss=...)"
        )
    if len(tasks) > 1:
        names = ", ".join(name for name, _ in tasks.values())
        raise TaskError(
            f"{path} defines {len(tasks)} tasks ({names}), and one is needed: keep one per file"
        )
    task: Task = next(iter(tasks.values()))[1]
    return task


def locate(error: BaseException, path: Path) -> str:
    """Where in a task file an exception came from.

    Args:
        error: what was raised, its causes chained.
        path: the task file, as it was given to `load_task`.

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


def _is_task(value: object) -> bool:
    return isinstance(value, Task)
