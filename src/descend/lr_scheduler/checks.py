"""Checks of what the schedulers are built with: what would fail later is refused at once."""

from typing import Any

from descend.checks import ABOVE_0, FINITE, FROM_0, WHOLE, Range
from descend.errors import ScheduleError
from descend.format import counted


def number(value: Any) -> float | None:
    """A finite number of Python's, NumPy's or of a tensor as Python's; None for anything else.

    Args:
        value: anything.
    """
    return FINITE.plain(value) if FINITE.admits(value) else None


def whole_number(value: Any) -> int | None:
    """A whole number of Python's, NumPy's or of a tensor as Python's; None for anything else.

    Args:
        value: anything; 7.0 is none.
    """
    return WHOLE.plain(value) if WHOLE.admits(value) else None


is_number = FINITE.admits


def finite(owner: str, name: str, value: Any) -> Any:
    """A finite number, or a list of them, as Python's own.

    Args:
        owner: the scheduler's name.
        name: the argument's.
        value: what was given.

    Raises:
        ScheduleError: it is something else.
    """
    if isinstance(value, list | tuple):
        return [finite(owner, name, part) for part in value]
    return FINITE.check(f"{owner}: {name}", value, ScheduleError)


def positive(owner: str, name: str, value: Any) -> Any:
    """A finite number above 0, as Python's own; mostly a number of epochs."""
    return ABOVE_0.check(f"{owner}: {name}", value, ScheduleError)


def not_negative(owner: str, name: str, value: Any) -> Any:
    """A finite number of at least 0, as Python's own; mostly a number of epochs."""
    return FROM_0.check(f"{owner}: {name}", value, ScheduleError)


def whole(owner: str, name: str, value: Any, least: int) -> Any:
    """A whole number of at least `least`, as Python's own."""
    return Range(least, whole=True).check(f"{owner}: {name}", value, ScheduleError)


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
