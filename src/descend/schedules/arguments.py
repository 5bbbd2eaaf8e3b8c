"""The arguments of a schedule: the words for its annotations, and their checks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeAlias, get_args

from descend.checks import Allowed, Range, plain_number
from descend.errors import DescendError, ScheduleError

WHOLE = 1e-12  # a scaled time this close to a whole number, relatively, is meant to be it


@dataclass(frozen=True)
class Number(Range):
    """A number in a range; whole ones become int, so that steps are counted exactly.

    Args:
        time: whether it is a time, which `over` and `in_epochs` scale.

    Example:
        >>> str(Number(0, positive=True))
        'a finite number above 0'
    """

    time: bool = False

    def admits(self, value: object) -> bool:
        """Whether a value is allowed: a tensor is not, for a schedule never changes."""
        return not hasattr(value, "numel") and value != -math.inf and super().admits(value)

    def plain(self, value: Any) -> Any:
        """An allowed number as Python's own."""
        return exact(value)


@dataclass(frozen=True)
class Rising(Allowed):
    """Times in rising order, or points whose times are; two at one time are a jump.

    Args:
        points: whether each time comes with a level.

    Example:
        >>> Rising().check("milestones", [30, 80], ScheduleError)
        (30, 80)
        >>> Rising(points=True).check("points", {0: 0.0, 10: 1.0}, ScheduleError)
        ((0, 0), (10, 1))
    """

    points: bool = False

    def __str__(self) -> str:
        """The allowed values in words."""
        if self.points:
            return "a list of (time, level), the times rising from 0"
        return "a list of times of at least 0, in rising order"

    def check(self, place: str, value: Any, error: type[DescendError]) -> Any:
        """The times as a tuple, or the points as a tuple of pairs."""
        refused = f"{place} must be {self}, got"
        given = list(value.items()) if self.points and isinstance(value, Mapping) else value
        if not _is_list(given) or (self.points and not given):
            raise error(f"{refused} {value!r}")
        for one in given if self.points else ():
            if not _is_list(one) or len(one) != 2:  # noqa: PLR2004 - a pair
                raise error(f"{refused} {one!r} among them")
        times = [one[0] if self.points else one for one in given]
        times = [Number(0).check(place, time, error) for time in times]
        if any(b < a for a, b in pairwise(times)) or (self.points and times[0] != 0):
            raise error(f"{refused} {times}")
        if not self.points:
            return tuple(times)
        levels = [LEVEL.check(place, level, error) for _, level in given]
        return tuple(zip(times, levels, strict=True))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


@dataclass(frozen=True)
class Operand(Allowed):
    """A schedule; or a number, which stands for itself.

    Args:
        number: whether a number is allowed.
        flat: whether `value(number)` is the only schedule that is.

    Example:
        >>> from descend.schedules import cosine
        >>> Operand().check("schedule", cosine(10), ScheduleError)
        cosine(10)
    """

    number: bool = False
    flat: bool = False

    def check(self, place: str, value: Any, error: type[DescendError]) -> Any:
        """The schedule, or the number."""
        if not hasattr(value, "curve"):
            if self.number:
                return Number().check(place, value, error)
            raise error(f"{place} must be a schedule, such as cosine(1000), got {value!r}")
        if self.flat and (value.name != "value" or hasattr(value.arguments["of"], "curve")):
            raise error(f"{place} must be a number or value(number), got {value}")
        return value


EXACT = 2**53  # up to here, every whole float is the int that is meant
LEVEL = Operand(number=True, flat=True)

Time: TypeAlias = Annotated[float, Number(0, positive=True, time=True)]
"""How long a period is."""

TimeFromZero: TypeAlias = Annotated[float, Number(0, time=True)]
"""How long something lasts, if at all."""

TimeOrEndless: TypeAlias = Annotated[float, Number(0, time=True, infinite=True)]
"""How long something lasts, if at all, or infinity."""

OptionalTime: TypeAlias = Annotated[float | None, Number(0, time=True, optional=True)]
"""How long something lasts, if at all; None for a default that follows from the others."""

Times: TypeAlias = Annotated[Sequence[float], Rising()]
"""When things happen, in rising order."""

Points: TypeAlias = Annotated[Sequence[tuple[float, Any]], Rising(points=True)]
"""(time, level) in a list, the times rising from 0."""

Level: TypeAlias = Annotated[Any, LEVEL]
"""A factor of the base, or `value(number)`."""

Factor: TypeAlias = Annotated[float, Number()]
"""A number."""

Positive: TypeAlias = Annotated[float, Number(0, positive=True)]
"""A number above 0."""

Share: TypeAlias = Annotated[float, Number(0, 1, closed=True)]
"""A part of a whole."""

Beta2: TypeAlias = Annotated[float, Number(0.6, 1, positive=True)]
"""Adam's second beta."""


def checked(place: str, annotation: Any, value: Any) -> Any:
    """An argument as its annotation has it.

    Args:
        place: the function and the argument, for the message.
        annotation: of the parameter.
        value: what was given.

    Raises:
        ScheduleError: it is not allowed.
    """
    for kind in get_args(annotation)[1:]:
        if isinstance(kind, Allowed):
            return kind.check(place, value, ScheduleError)
    return value


def scaled_argument(annotation: Any, value: Any, by: float, longer: Callable[[Any], Any]) -> Any:
    """An argument of the same schedule with times so many times as long.

    Args:
        annotation: of the parameter.
        value: the argument.
        by: how many times as long.
        longer: the same for a schedule within it.
    """
    kind = next(iter(get_args(annotation)[1:]), None)
    if isinstance(kind, Number) and kind.time and value is not None:
        return _steps(value * by)
    if isinstance(kind, Rising) and kind.points:
        return tuple((_steps(time * by), level) for time, level in value)
    if isinstance(kind, Rising):
        return tuple(_steps(time * by) for time in value)
    if isinstance(value, tuple):  # the parts of a sequence or a product
        return tuple(longer(part) if hasattr(part, "curve") else part for part in value)
    return longer(value) if hasattr(value, "curve") else value


def shown(value: Any) -> str:
    """An argument as an expression has it.

    Args:
        value: the argument.
    """
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    if callable(value) and not hasattr(value, "curve"):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)


def exact(value: Any) -> float | None:
    """A number as Python's own, a whole one as int; None for anything else, and for a tensor.

    Args:
        value: anything.
    """
    number = None if hasattr(value, "numel") else plain_number(value)
    if number is None or not abs(number) < EXACT:
        return number if number is None else float(number)
    return int(number) if number == int(number) else number


def _steps(time: float) -> float:
    """A scaled time, whole where it is meant to be: 0.29 * 100 is 28.999999999999996."""
    if math.isinf(time):
        return time
    whole = round(time)
    if abs(time - whole) <= WHOLE * abs(time):
        return whole
    short = float(f"{time:.15g}")  # 0.05 * 63 is 3.1500000000000004
    return short if abs(short - time) <= 2 * math.ulp(time) else time
