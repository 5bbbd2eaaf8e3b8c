"""Checks of what the schedulers are built with: what would fail later is refused at once."""

import math
from typing import Any

from torch import Tensor

from descend.errors import ScheduleError
from descend.format import counted
from descend.schedules.arguments import plain_number


def number(value: Any) -> float | None:
    """A finite number of Python's, NumPy's or of a tensor as Python's; None for anything else.

    Args:
        value: anything.
    """
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    plain = plain_number(value) if not isinstance(value, float) else value
    return plain if plain is not None and math.isfinite(plain) else None


def whole_number(value: Any) -> int | None:
    """A whole number of Python's, NumPy's or of a tensor as Python's; None for anything else.

    Args:
        value: anything; 7.0 is none.
    """
    plain = None if isinstance(value, float) else number(value)
    return plain if isinstance(plain, int) else None


def is_number(value: Any) -> bool:
    """Whether something is a finite number, or a tensor with one.

    Args:
        value: anything.
    """
    return number(value) is not None


def finite(owner: str, name: str, value: Any) -> Any:
    """A finite number, or a list of them, as Python's own.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is something else.
    """
    several = isinstance(value, list | tuple)
    plain = [number(part) for part in (value if several else [value])]
    if None in plain:
        raise ScheduleError(f"{owner}: {name} must be a finite number, got {value!r}")
    return plain if several else plain[0]


def positive(owner: str, name: str, value: Any) -> Any:
    """A finite number above 0, as Python's own; mostly a number of epochs.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is something else.
    """
    plain = number(value)
    if plain is None or not plain > 0:
        raise ScheduleError(f"{owner}: {name} must be a number above 0, got {value!r}")
    return plain


def not_negative(owner: str, name: str, value: Any) -> Any:
    """A finite number of at least 0, as Python's own; mostly a number of epochs.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is something else.
    """
    plain = number(value)
    if plain is None or plain < 0:
        raise ScheduleError(f"{owner}: {name} must be a number of at least 0, got {value!r}")
    return plain


def whole(owner: str, name: str, value: Any, least: int) -> Any:
    """A whole number, as Python's own.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.
        least: the smallest that is allowed.

    Raises:
        ScheduleError: it is something else, or too small.
    """
    plain = whole_number(value)
    if plain is None or plain < least:
        raise ScheduleError(
            f"{owner}: {name} must be a whole number of at least {least}, got {value!r}"
        )
    return plain


def spread(owner: str, name: str, given: Any, count: int) -> list[Any]:
    """One argument for each group: the same for all, or one of a list.

    Args:
        owner: the scheduler's name, for the message.
        name: the argument's name.
        given: one for all, or a list.
        count: how many groups there are.

    Raises:
        ScheduleError: the list has another length.
    """
    if not isinstance(given, list | tuple):
        return [given] * count
    if len(given) != count:
        raise ScheduleError(
            f"{owner}: {name} must be one for all groups, or one for each of the "
            f"{counted(count, 'group')}, got {len(given)}"
        )
    return list(given)
