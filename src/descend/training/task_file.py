"""A user's file that defines a task, run and searched."""

from pathlib import Path

from descend.errors import TaskError
from descend.training.task import Task
from descend.user_file import run_file


def load_task(path: Path) -> Task:
    """Run a Python file and return the one task that it defines.

    Args:
        path: the file; `run_file` tells how it is run.

    Returns:
        The task; where it has which name does not matter.

    Raises:
        TaskError: if the file is missing or is no Python file, fails (with its line), or does not
            define exactly one task.

    Example:
        >>> load_task(Path("my_task.py")).model

    Source: `descend.user_file.run_file`.
    """
    module = run_file(path, "a descend.Task", TaskError)
    tasks = {
        id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Task)
    }
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
    ((_, task),) = tasks.values()
    return task
