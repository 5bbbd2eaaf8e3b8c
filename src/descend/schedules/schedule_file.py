"""A user's own schedule or scheduler: a name in a Python file, as FILE.py:NAME."""

import inspect
import sys
from typing import Any

from descend.errors import ScheduleError
from descend.schedules.schedule import Schedule
from descend.user_file import load_named, needed

_WANTED = "a schedule, a scheduler, or a function without arguments that returns one"


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
    found = load_named(spec, _WANTED, ScheduleError, _fits, _makes)
    make = found.value
    if _fits(make):
        return make
    if not callable(make) or isinstance(make, type):
        raise found.refused(make, f"{found.name} is")
    missing = needed(make)
    if missing:
        advice = ""
        if len(missing) == 1:
            advice = f"; as a function of the time: schedules.function({found.name})"
        raise ScheduleError(
            f"{found.place}: {found.name} needs {' and '.join(missing)}, and is called without "
            f"arguments{advice}"
        )
    with found.trying("() fails"):
        made = make()
    if not _fits(made):
        raise found.refused(made, f"what {found.name}() returns is")
    return made


def is_scheduler(value: object) -> bool:
    """Whether something is a scheduler, descend's or torch's.

    Args:
        value: anything; torch is not imported to know, for a scheduler has imported it.
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.optim.lr_scheduler.LRScheduler)


def _fits(value: object, module: str = "") -> bool:
    return isinstance(value, Schedule) or is_scheduler(value)


def _makes(value: object, module: str) -> bool:
    """Whether it is a function of the file's own that can be called without arguments."""
    return inspect.isfunction(value) and value.__module__ == module and not needed(value)
