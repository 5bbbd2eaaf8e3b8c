"""Schedules made of others; `>>` and `*` stand in `schedule.py`."""

import math
from typing import Annotated, Any

from descend.errors import ScheduleError
from descend.schedules.arguments import Factor, Number, Operand, TimeFromZero
from descend.schedules.schedule import At, Curve, Part, Schedule, shape, steady

Other = Annotated[Schedule, Operand()]
Count = Annotated[float, Number(1, infinite=True)]
Bound = Annotated[float, Number(infinite=True)]


def changed(
    schedule: Schedule, at: At, length: float, begin: float = 0, end: float = math.inf
) -> Curve:
    """The curve of a schedule at other times, or with other values of the same kind.

    Args:
        schedule: which.
        at: the changed function of time.
        length: when it ends.
        begin: when the schedule begins within it.
        end: when the schedule has no say any more.
    """
    parts = (Part(begin, end, schedule),)
    return Curve(at, length, schedule.curve.factor, schedule.curve.absolute, parts=parts)


@shape
def value(of: Annotated[Any, Operand(number=True)]) -> Curve:
    """A value in place of a factor: what the optimizer was given does not matter.

        v(t) = of(t)

    Args:
        of: a schedule of factors, or a number.

    Raises:
        ScheduleError: it is a value already.

    Example:
        >>> value(0.01)(0, base=5.0)
        0.01
        >>> from descend.schedules import linear
        >>> linear(10, 1, value(0.01))(10, base=5.0)
        0.01

    Source: Optax's schedules are values, https://optax.readthedocs.io.
    """
    if not isinstance(of, Schedule):
        return Curve(steady(0.0, of), factor=False, absolute=True, level=True)
    if not of.curve.factor:
        raise ScheduleError(f"value({of}): it gives values already")
    at = of.curve.at
    curve = changed(of, lambda time: (0.0, at(time)[0]), of.length)
    return curve._replace(factor=False, absolute=True)


@shape
def until(schedule: Other, steps: TimeFromZero) -> Curve:
    """A schedule's beginning; from then on it stays as it is.

        f(t) = schedule(min(t, steps))

    Args:
        schedule: which.
        steps: when to end it.

    Example:
        >>> from descend.schedules import cosine, exponential
        >>> until(exponential(0.5), 3) >> cosine(100)
        until(exponential(0.5), 3) >> cosine(100)

    Source: a join at a given step, as Optax's `join_schedules`.
    """
    at = schedule.curve.at
    return changed(schedule, lambda time: at(min(time, steps)), steps, end=steps)


@shape
def repeat(schedule: Other, times: Count = math.inf) -> Curve:
    """A schedule again and again.

        f(t) = schedule(t mod length)

    Args:
        schedule: which; it has an end.
        times: how often; without end if left out.

    Raises:
        ScheduleError: it never ends, or `times` is no whole number.

    Example:
        >>> from descend.schedules import linear
        >>> repeat(linear(2), 2).values(6)
        [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]

    Source: restarts; I. Loshchilov and F. Hutter, SGDR, https://arxiv.org/abs/1608.03983.
    """
    length, at = schedule.length, schedule.curve.at
    if length == math.inf:
        raise ScheduleError(
            f"repeat({schedule}): it never ends; give it an end: until({schedule}, steps)"
        )
    if not length and times == math.inf:
        raise ScheduleError(
            f"repeat({schedule}): it has no length, so it would never end; say how many times"
        )
    if times != math.inf and times != int(times):
        raise ScheduleError(f"repeat: times must be a whole number, got {times!r}")
    end = length * times

    def again(time: float) -> tuple[float, float]:
        return at(time % length) if time < end else at(length)

    return changed(schedule, again, end, end=length)._replace(cycle=(length, 1) if length else None)


@shape
def delay(schedule: Other, steps: TimeFromZero) -> Curve:
    """A schedule that begins later; until then it stands at its beginning.

        f(t) = schedule(max(0, t - steps))

    Args:
        schedule: which.
        steps: how much later.

    Example:
        >>> from descend.schedules import linear
        >>> delay(linear(2), 2).values(5)
        [1.0, 1.0, 1.0, 0.5, 0.0]

    Source: a flat phase before the decay, as in "flat and anneal" of fastai, https://docs.fast.ai.
    """
    at = schedule.curve.at
    length = schedule.length + steps
    return changed(schedule, lambda time: at(max(time - steps, 0)), length, begin=steps)


@shape
def clip(schedule: Other, low: Factor, high: Bound = math.inf) -> Curve:
    """A schedule kept between two bounds: factors if it gives factors, values if it gives values.

        f(t) = min(max(schedule(t), low), high)

    Args:
        schedule: which.
        low: the lower bound.
        high: the upper bound; none if left out.

    Raises:
        ScheduleError: the bounds are the wrong way round, or it goes from a factor to a value.

    Example:
        >>> from descend.schedules import exponential
        >>> clip(exponential(0.5), 0.1)(10)
        0.1

    Source: a floor under the learning rate, as `min_lr` of torch's ReduceLROnPlateau.
    """
    if low > high:
        raise ScheduleError(f"clip: low={low!r} is above high={high!r}; exchange them")
    if not (schedule.curve.factor or schedule.curve.absolute):
        raise ScheduleError(
            f"clip({schedule}): it goes from a factor to a value, and bounds cannot be both; clip "
            "its parts"
        )
    at, factor = schedule.curve.at, schedule.curve.factor

    def clipped(time: float) -> tuple[float, float]:
        multiplier, absolute = at(time)
        if factor:
            return min(max(multiplier, low), high), 0.0
        return 0.0, min(max(absolute, low), high)

    return changed(schedule, clipped, schedule.length)
