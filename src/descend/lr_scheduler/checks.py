"""Checks of what the schedulers are built with: what would fail later is refused at once."""

import math
from typing import Any

from torch import Tensor

from descend.errors import ScheduleError


def is_number(value: Any) -> bool:
    """Whether something is a finite number, or a tensor with one.

    Args:
        value: anything.
    """
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def finite(owner: str, name: str, value: Any) -> None:
    """Refuse what is no finite number, or a list with something else.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is not.
    """
    if not all(map(is_number, value if isinstance(value, list | tuple) else [value])):
        raise ScheduleError(f"{owner}: {name} must be a finite number, got {value!r}")


def positive(owner: str, name: str, value: Any) -> None:
    """Refuse what is no finite number above 0; mostly a number of epochs.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is not.
    """
    if not is_number(value) or not value > 0:
        raise ScheduleError(f"{owner}: {name} must be a number above 0, got {value!r}")


def whole(owner: str, name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.
        least: the smallest that is allowed.

    Raises:
        ScheduleError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ScheduleError(
            f"{owner}: {name} must be a whole number of at least {least}, got {value!r}"
        )
