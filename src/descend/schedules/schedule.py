"""Schedules: pure functions of time, each with an expression, a length and an algebra."""

import inspect
import math
import numbers
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeAlias

from descend.checks import plain_number
from descend.errors import ScheduleError
from descend.format import counted
from descend.schedules.arguments import Number, checked, exact, scaled_argument, shown
from descend.spelling import meant, shown_signature

P = ParamSpec("P")

At: TypeAlias = Callable[[float], tuple[float, float]]
"""From a time to (factor, value): the hyperparameter is `factor * base + value`."""


class Part(NamedTuple):
    """A schedule within another.

    Args:
        begin: when it begins, in the time of the other.
        end: when it has no say any more.
        schedule: the schedule itself, in its own time.
    """

    begin: float
    end: float
    schedule: "Schedule"


class Curve(NamedTuple):
    """A curve over time, as a shape makes it of its arguments.

    The first two are enough. A shape gives the others where they are true of it: pictures
    (`descend plot`) and warnings (`mistakes`) know a curve by these, and by its values.

    Args:
        at: from a time to (factor, value).
        length: when it ends; from then on it stays as it is.
        factor: whether it is nothing but a factor: the value is always 0.
        absolute: whether it is nothing but a value: the factor is always 0.
        level: whether it is the same at all times.
        warm: how long it warms up.
        turns: when it turns; its highest value is at one of these times, at 0, or at its end.
        cycle: how long the first of its cycles is, and how many times as long each next one.
        foreign: whether it calls a function that may know no times but those of a run.
        parts: the schedules that it is made of.

    Example:
        >>> Curve(lambda time: (0.5, 0.0)).length
        inf
    """

    at: At
    length: float = math.inf
    factor: bool = True
    absolute: bool = False
    level: bool = False
    warm: float = 0
    turns: tuple[float, ...] = ()
    cycle: tuple[float, float] | None = None
    foreign: bool = False
    parts: tuple[Part, ...] = ()


def steady(factor: float, value: float = 0.0) -> At:
    """The same factor and value at all times."""
    pair = float(factor), float(value)
    return lambda time: pair


@dataclass(frozen=True, repr=False)
class Schedule:
    r"""A pure function of time that says what a hyperparameter is.

    .. math::
        h(t) = f(t) \, h_0 + v(t)

    with :math:`h_0` what the optimizer was given, the base. Most schedules are factors
    (:math:`v = 0`); one made by `value` is a value and ignores the base (:math:`f = 0`).

    Schedules are made by the functions of `descend.schedules`, and put together there:
    `a >> b` is `a`, and where it ends `b`; `a * b` is the product; `a * 0.5` is scaled.
    Two schedules are equal if their expressions are, and the functions in them are the same.

    Args:
        name: the function that made it.
        arguments: what that was called with, by name.
        text: its expression; `descend.schedules.parse` reads it.
        curve: the function of time itself.

    Raises:
        ScheduleError: an argument that is out of range, or parts that do not go together.

    Example:
        >>> from descend.schedules import cosine, warmup
        >>> schedule = warmup(500) >> cosine(9500)
        >>> schedule(250), schedule(500), schedule(10_000)
        (0.5, 1.0, 0.0)
        >>> schedule(250, base=0.25)
        0.125
        >>> schedule
        warmup(500) >> cosine(9500)

    Source:
        A schedule as a function of the step is Optax's, https://optax.readthedocs.io.
    """

    name: str = field(compare=False)
    arguments: Mapping[str, Any] = field(hash=False)
    text: str
    curve: Curve = field(compare=False)

    @property
    def length(self) -> float:
        """When it ends, in its own time; infinity if it never does."""
        return self.curve.length

    def __call__(self, time: float, base: float = 1.0) -> float:
        """The hyperparameter at a time.

        Args:
            time: in steps, from 0.
            base: what the optimizer was given.

        Raises:
            ScheduleError: the time is negative or no number.
        """
        if type(time) is not int and type(time) is not float:
            number = plain_number(time)  # of NumPy, or of a tensor
            if number is None:
                raise ScheduleError(f"{self}: a time must be a number of at least 0, got {time!r}")
            time = number
        if not 0 <= time < math.inf:
            raise ScheduleError(f"{self}: a schedule begins at time 0, and was asked for {time!r}")
        factor, value = self.curve.at(time)
        return factor * base + value

    def values(self, steps: int, base: float = 1.0) -> list[float]:
        """The hyperparameter at each of the first steps.

        Args:
            steps: how many.
            base: what the optimizer was given.

        Raises:
            ScheduleError: `steps` is no whole number of at least 0.

        Example:
            >>> from descend.schedules import linear
            >>> linear(4).values(6)
            [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        count = exact(steps)
        if not isinstance(count, int) or count < 0:
            raise ScheduleError(
                f"{self}: the number of steps must be a whole number of at least 0, got {steps!r}"
            )
        return [self(step, base) for step in range(count)]

    def over(self, steps: float) -> "Schedule":
        """The schedule whose times are fractions of a run, in steps.

        Args:
            steps: how many steps the run has.

        Example:
            >>> from descend.schedules import cosine, warmup
            >>> (warmup(0.05) >> cosine(0.95)).over(10_000)
            warmup(500) >> cosine(9500)
        """
        return _scaled(self, steps, "over(steps)")

    def in_epochs(self, steps_per_epoch: float) -> "Schedule":
        """The schedule whose times are epochs, in steps.

        Args:
            steps_per_epoch: how many steps an epoch has: `len(loader)`.

        Example:
            >>> from descend.schedules import step
            >>> step(30, gamma=0.5).in_epochs(390)
            step(11700, 0.5)
        """
        return _scaled(self, steps_per_epoch, "in_epochs(steps_per_epoch)")

    def pieces(self, begin: float = 0, end: float = math.inf) -> Iterator[Part]:
        """The shapes that it is made of, where they stand in its time; of cycles, the first.

        Args:
            begin: when it begins.
            end: when it has no say any more.

        Example:
            >>> from descend.schedules import cosine, warmup
            >>> [part.begin for part in (warmup(500) >> cosine(9500) * 0.5).pieces()]
            [0, 500]
        """
        if self.curve.cycle or not self.curve.parts:
            yield Part(begin, end, self)
        for part in self.curve.parts:
            yield from part.schedule.pieces(begin + part.begin, min(end, begin + part.end))

    def joins(self, most: int = 25) -> list[float]:
        """When the parts of each `>>` within it begin, but the first.

        Args:
            most: how many cycles are looked at.

        Example:
            >>> from descend.schedules import cosine, repeat, warmup
            >>> repeat(warmup(2) >> cosine(3), 3).joins(most=2)
            [2, 7]
        """
        found = [
            time
            for number, (begin, end, schedule) in enumerate(self.curve.parts)
            for time in (begin * bool(number), *(begin + join for join in schedule.joins(most)))
            if 0 < time < end
        ]
        if not self.curve.cycle:
            return found
        period = self.curve.cycle[0]
        cycles = range(int(min(self.length / period, most))) if found else ()
        return [cycle * period + join for cycle in cycles for join in found]

    def __rshift__(self, other: object) -> "Schedule":
        """This one, and where it ends the other, from its own beginning."""
        if not isinstance(other, Schedule):
            return NotImplemented
        return join(parts=(*_parts(self), *_parts(other)))

    def __mul__(self, other: object) -> "Schedule":
        """The product with another schedule, or with a number."""
        if isinstance(other, Schedule):
            return multiply(parts=(self, other))
        if isinstance(other, bool) or not isinstance(other, numbers.Real):
            return NotImplemented
        number = exact(other)
        if number is None or not math.isfinite(number):
            raise ScheduleError(f"{self} * {other!r}: the number must be finite")
        return multiply(parts=(self, number))

    def __rmul__(self, other: object) -> "Schedule":
        """A number times the schedule."""
        return self * other

    def __repr__(self) -> str:
        """The expression."""
        return self.text

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle and copy by the call that makes it: the function inside cannot be."""
        return partial(SHAPES[self.name], **self.arguments), ()


SHAPES: dict[str, Callable[..., Schedule]] = {}
"""Every function that makes a schedule, by name."""

RAISES = """\
Raises:
    ScheduleError: an argument is out of range.

"""
"""The part of a shape's documentation that is the same for all."""


def shape(function: Callable[P, Curve]) -> Callable[P, Schedule]:
    """Turn a function that returns a `Curve` into one that makes schedules.

    The annotations of its parameters (`arguments.py`) say what is allowed, and what is a time.

    Args:
        function: from checked arguments to the curve.

    Returns:
        A function of the same name, documentation and signature; the documentation says what
        it raises.

    Example:
        >>> from descend.schedules.arguments import Time
        >>> @shape
        ... def until_noon(steps: Time) -> Curve:
        ...     return Curve(lambda time: (float(time < steps), 0.0), steps)
        >>> until_noon(12)
        until_noon(12)
    """
    signature = inspect.signature(function, eval_str=True)
    name = function.__name__
    before = SHAPES.get(name)
    if before is not None and before.__module__ != function.__module__:
        raise ScheduleError(
            f"shape: {name!r} is already the name of a shape of {before.__module__}; give the "
            "function another"
        )

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        refused = misfit(name, len(args), kwargs)
        if refused:
            raise ScheduleError(refused[0])
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {
            key: checked(f"{name}: {key}", signature.parameters[key].annotation, value)
            for key, value in bound.arguments.items()
        }
        text = _TEXTS[name](given["parts"]) if name in _TEXTS else _call(name, signature, given)
        curve = function(**given)  # type: ignore[call-arg]
        return Schedule(name, MappingProxyType(given), text, curve)

    text = inspect.getdoc(function) or ""
    if "Raises:" not in text:
        make.__doc__ = text.replace("Example:", f"{RAISES}Example:", 1)
    make.__signature__ = shown_signature(function)  # type: ignore[attr-defined]
    SHAPES[name] = make
    return make


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a shape, with their annotations.

    Args:
        name: of the shape.
    """
    return _parameters(SHAPES[name])


@cache
def _parameters(make: Callable[..., Schedule]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(inspect.unwrap(make), eval_str=True).parameters


def usage(name: str) -> str:
    """A shape with its arguments and their defaults, as a message or a help shows it.

    Args:
        name: of the shape.

    Example:
        >>> usage("join")
        'join(parts)'
    """
    return f"{name}{inspect.signature(SHAPES[name])}"


def misfit(name: str, count: int, keywords: Iterable[str]) -> tuple[str, int | str | None] | None:
    """Why a shape cannot be called with so many arguments and these names, if it cannot.

    Args:
        name: of the shape.
        count: how many arguments come without a name.
        keywords: the names of the others, in order.

    Returns:
        The message, and which of the arguments is to blame, by its place or its name.

    Example:
        >>> misfit("join", 0, [])
        ('join needs parts: join(parts)', None)
    """
    known = parameters(name)
    if count > len(known):
        return f"{name} takes {counted(len(known), 'argument')}: {usage(name)}", len(known)
    given = list(known)[:count]
    for key in keywords:
        if key not in known:
            close = meant(key, known)
            hint = f"; did you mean {close}?" if close else "."
            return f"{name} has no argument {key}{hint} It is {usage(name)}", key
        if key in given:
            return f"{name} gets {key} twice", key
        given.append(key)
    missing = [key for key, one in known.items() if one.default is one.empty and key not in given]
    return (f"{name} needs {' and '.join(missing)}: {usage(name)}", None) if missing else None


def _scaled(schedule: Schedule, steps: object, what: str) -> Schedule:
    """The schedule with all its times so many times as long."""
    number = Number(0, positive=True).check(what, steps, ScheduleError)

    def longer(schedule: Schedule) -> Schedule:
        known = parameters(schedule.name)
        return SHAPES[schedule.name](
            **{
                key: scaled_argument(known[key].annotation, value, number, longer)
                for key, value in schedule.arguments.items()
            }
        )

    return longer(schedule)


def _call(name: str, signature: inspect.Signature, given: Mapping[str, Any]) -> str:
    """The expression of a call: the arguments that are not the default."""
    words, positional = [], True
    for key, parameter in signature.parameters.items():
        if parameter.default is not parameter.empty and given[key] == parameter.default:
            positional = False
        else:
            words.append(f"{'' if positional else f'{key}='}{shown(given[key])}")
    return f"{name}({', '.join(words)})"


def _parts(schedule: Schedule) -> tuple[Schedule, ...]:
    return schedule.arguments["parts"] if schedule.name == "join" else (schedule,)


_BRACKETED = ("join",), ("join", "multiply")  # as the first factor, as another

_TEXTS: dict[str, Callable[[tuple[Any, ...]], str]] = {
    "join": lambda parts: " >> ".join(map(str, parts)),
    "multiply": lambda parts: " * ".join(
        f"({part})" if getattr(part, "name", "") in _BRACKETED[bool(place)] else shown(part)
        for place, part in enumerate(parts)
    ),
}


@shape
def join(parts: tuple[Schedule, ...]) -> Curve:
    """One schedule after the other: `a >> b`; each in its own time.

    Args:
        parts: the schedules; each but the last has an end.

    Raises:
        ScheduleError: one of them never ends.
    """
    times: list[float] = [0]
    end = 0.0
    for part in parts[:-1]:
        if part.length == math.inf:
            raise ScheduleError(
                f"{part} >> {parts[-1]}: {part} never ends, so nothing comes after it; give it an "
                f"end: until({part}, steps)"
            )
        end += part.length
        times.append(int(end) if end == int(end) else end)
    ends = [*times[1:], math.inf]
    curves = [part.curve.at for part in parts]

    def at(time: float) -> tuple[float, float]:
        number = bisect_right(times, time) - 1
        return curves[number](time - times[number])

    return Curve(
        at,
        times[-1] + parts[-1].length,
        all(part.curve.factor for part in parts),
        all(part.curve.absolute for part in parts),
        parts=tuple(map(Part, times, ends, parts)),
    )


@shape
def multiply(parts: tuple[Any, ...]) -> Curve:
    """The product of two schedules, or of one and a number: `a * b`, `a * 0.5`.

    Args:
        parts: the two; at most one of them is a value.

    Raises:
        ScheduleError: two values, whose product would have no meaning.
    """
    by, of = parts
    if not isinstance(of, Schedule) or not by.curve.factor:
        by, of = of, by
    if not isinstance(by, Schedule):
        one, schedules = steady(by), [of]
    elif by.curve.factor:
        one, schedules = by.curve.at, [by, of]
    else:
        raise ScheduleError(
            f"{parts[0]} * {parts[1]}: both give values, and a product of two values is no "
            "hyperparameter; make one of them a factor, without value(...)"
        )
    other = of.curve.at

    def at(time: float) -> tuple[float, float]:
        times, _ = one(time)
        factor, value = other(time)
        return times * factor, times * value

    return Curve(
        at,
        max(schedule.length for schedule in schedules),
        of.curve.factor,
        of.curve.absolute,
        parts=tuple(Part(0, math.inf, schedule) for schedule in schedules),
    )
