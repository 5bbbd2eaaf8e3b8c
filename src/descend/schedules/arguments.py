"""What the arguments of a schedule may be: the words for its annotations, and their checks."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeAlias, get_args

from descend.errors import ScheduleError

WHOLE = 1e-12  # a scaled time this close to a whole number, relatively, is meant to be it


@dataclass(frozen=True)
class Number:
    """A number in a range.

    Args:
        least: the smallest.
        most: the largest.
        open: whether the smallest itself is out.
        time: whether it is a time, which `over` and `in_epochs` scale.
        optional: whether None is allowed.
        endless: whether infinity is allowed.

    Example:
        >>> str(Number(0, open=True))
        'a number above 0'
    """

    least: float = -math.inf
    most: float = math.inf
    open: bool = False
    time: bool = False
    optional: bool = False
    endless: bool = False

    def __str__(self) -> str:
        """As a message has it."""
        if self.least == -math.inf:
            return "a finite number"
        start = f"above {self.least:g}" if self.open else f"of at least {self.least:g}"
        if self.most == math.inf:
            return f"a number {start}"
        return f"a number {start} and at most {self.most:g}"

    def check(self, place: str, value: Any) -> Any:
        """The number; whole ones as int, so that steps are counted exactly."""
        if value is None and self.optional:
            return None
        number = plain_number(value)
        if number is None or not self._admits(number):
            raise ScheduleError(f"{place} must be {self}, got {value!r}")
        return number

    def _admits(self, value: float) -> bool:
        if math.isnan(value) or value == -math.inf or (value == math.inf and not self.endless):
            return False
        return (self.least < value if self.open else self.least <= value) and value <= self.most


@dataclass(frozen=True)
class Word:
    """One of some words.

    Args:
        words: which.

    Example:
        >>> str(Word(("cosine", "linear")))
        "'cosine' or 'linear'"
    """

    words: tuple[str, ...]

    def __str__(self) -> str:
        """As a message has it."""
        return " or ".join(map(repr, self.words))

    def check(self, place: str, value: Any) -> Any:
        """The word."""
        if not isinstance(value, str) or value not in self.words:
            raise ScheduleError(f"{place} must be {self}, got {value!r}")
        return value


@dataclass(frozen=True)
class Rising:
    """Times in rising order.

    Example:
        >>> Rising().check("milestones", [30, 80])
        (30, 80)
    """

    def check(self, place: str, value: Any) -> Any:
        """The times as a tuple."""
        allowed = "a list of times of at least 0, in rising order"
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ScheduleError(f"{place} must be {allowed}, got {value!r}")
        times = tuple(Number(0).check(place, time) for time in value)
        if any(b < a for a, b in pairwise(times)):
            raise ScheduleError(f"{place} must be {allowed}, got {list(value)!r}")
        return times


@dataclass(frozen=True)
class Points:
    """Points of a curve: (time, level), the times rising; two at one time are a jump.

    Example:
        >>> Points().check("points", [(0, 0.0), (10, 1.0)])
        ((0, 0), (10, 1))
    """

    def check(self, place: str, value: Any) -> Any:
        """The points as a tuple of pairs."""
        allowed = "a list of (time, level), the times rising from 0"
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if isinstance(pairs, str) or not isinstance(pairs, Sequence) or not pairs:
            raise ScheduleError(f"{place} must be {allowed}, got {value!r}")
        points = []
        for pair in pairs:
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != PAIR:
                raise ScheduleError(f"{place} must be {allowed}, got {pair!r} among them")
            points.append((Number(0).check(place, pair[0]), LEVEL.check(place, pair[1])))
        times = [time for time, _ in points]
        if times[0] != 0 or any(b < a for a, b in pairwise(times)):
            raise ScheduleError(f"{place} must be {allowed}, got the times {times}")
        return tuple(points)


@dataclass(frozen=True)
class Height:
    """A level: a number, which is a factor of the base, or `value(number)`, which is absolute.

    Example:
        >>> Height().check("end", 0.1)
        0.1
    """

    def check(self, place: str, value: Any) -> Any:
        """The level."""
        if hasattr(value, "curve"):
            if value.name == "value" and not hasattr(value.arguments["of"], "curve"):
                return value
            raise ScheduleError(f"{place} must be a number or value(number), got {value}")
        return Number().check(place, value)


@dataclass(frozen=True)
class Inner:
    """Another schedule.

    Args:
        or_number: whether a number is allowed too.

    Example:
        >>> from descend.schedules import cosine
        >>> Inner().check("schedule", cosine(10))
        cosine(10)
    """

    or_number: bool = False

    def check(self, place: str, value: Any) -> Any:
        """The schedule."""
        if hasattr(value, "curve"):
            return value
        if self.or_number:
            return Number().check(place, value)
        raise ScheduleError(f"{place} must be a schedule, such as cosine(1000), got {value!r}")


PAIR = 2
EXACT = 2**53  # up to here, every whole float is the int that is meant
LEVEL = Height()

Time: TypeAlias = Annotated[float, Number(0, open=True, time=True)]
"""How long a period is."""

TimeFromZero: TypeAlias = Annotated[float, Number(0, time=True)]
"""How long something lasts, if at all."""

TimeOrEndless: TypeAlias = Annotated[float, Number(0, time=True, endless=True)]
"""How long something lasts, if at all, or infinity."""

OptionalTime: TypeAlias = Annotated[float | None, Number(0, time=True, optional=True)]
"""How long something lasts, if at all; None for a default that follows from the others."""

Times: TypeAlias = Annotated[Sequence[float], Rising()]
"""When things happen, in rising order."""

Level: TypeAlias = Annotated[Any, LEVEL]
"""A factor of the base, or `value(number)`."""

Factor: TypeAlias = Annotated[float, Number()]
"""A number."""

Positive: TypeAlias = Annotated[float, Number(0, open=True)]
"""A number above 0."""

Share: TypeAlias = Annotated[float, Number(0, 1)]
"""A part of a whole."""

Beta2: TypeAlias = Annotated[float, Number(0.6, math.nextafter(1, 0), open=True)]
"""Adam's second beta."""


def checked(place: str, annotation: Any, value: Any) -> Any:
    """An argument, or the error that says what is allowed.

    Args:
        place: the function and the argument, for the message.
        annotation: of the parameter.
        value: what was given.

    Raises:
        ScheduleError: it is not allowed.
    """
    for kind in get_args(annotation)[1:]:
        if hasattr(kind, "check"):
            return kind.check(place, value)
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
    if isinstance(kind, Rising):
        return tuple(_steps(time * by) for time in value)
    if isinstance(kind, Points):
        return tuple((_steps(time * by), level) for time, level in value)
    if isinstance(value, tuple):  # the parts of a sequence or a product
        return tuple(longer(part) if hasattr(part, "curve") else part for part in value)
    return longer(value) if isinstance(kind, Inner) and hasattr(value, "curve") else value


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


def plain_number(value: Any) -> float | None:
    """A number of Python's or NumPy's as Python's own, whole ones as int; None for anything else.

    Args:
        value: what was given.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if isinstance(value, numbers.Integral) and abs(number) < EXACT:
        return int(value)
    return int(number) if abs(number) < EXACT and number == int(number) else number


def _steps(time: float) -> float:
    """A scaled time, whole where it is meant to be: 0.29 * 100 is 28.999999999999996."""
    if math.isinf(time):
        return time
    whole = round(time)
    if abs(time - whole) <= WHOLE * abs(time):
        return whole
    short = float(f"{time:.15g}")  # 0.05 * 63 is 3.1500000000000004
    return short if abs(short - time) <= 2 * math.ulp(time) else time
