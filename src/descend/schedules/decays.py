"""Schedules that fall for ever, and one for the user's own function."""

import math
from collections.abc import Callable
from typing import Any

from descend.errors import ScheduleError
from descend.schedules import formulas
from descend.schedules.arguments import Factor, Positive, Time, TimeOrEndless, Times, exact, shown
from descend.schedules.schedule import Curve, shape


@shape
def exponential(gamma: Positive, every: Time = 1) -> Curve:
    """By the same factor in the same time.

        f(t) = gamma^(t / every)

    Args:
        gamma: the factor, above 0.
        every: the time it takes to fall by it.

    Example:
        >>> exponential(0.5, every=10)(20)
        0.25

    Source: exponential decay, as in torch's ExponentialLR.
    """
    return Curve(lambda time: (formulas.power(gamma, time / every), 0.0))


@shape
def step(every: Time, gamma: Factor = 0.1) -> Curve:
    """By a factor each time some time has passed, and level in between.

        f(t) = gamma^floor(t / every)

    Args:
        every: how long it stays level.
        gamma: the factor.

    Example:
        >>> step(30, gamma=0.5).values(61)[::30]
        [1.0, 0.5, 0.25]

    Source: as in torch's StepLR; K. He et al., https://arxiv.org/abs/1512.03385.
    """
    return Curve(lambda time: (formulas.power(gamma, time // every), 0.0), turns=(every,))


@shape
def multistep(milestones: Times, gamma: Factor = 0.1) -> Curve:
    """By a factor at each of some times, and level in between.

        f(t) = gamma^(number of milestones <= t)

    Args:
        milestones: when, in rising order; a time that stands twice counts twice.
        gamma: the factor.

    Raises:
        ScheduleError: an argument is out of range, or the times do not rise.

    Example:
        >>> multistep([30, 80], gamma=0.5)(80)
        0.25

    Source: as in torch's MultiStepLR; K. He et al., https://arxiv.org/abs/1512.03385.
    """
    return Curve(
        lambda time: (float(gamma) ** formulas.passed(milestones, time), 0.0),
        milestones[-1] if milestones else 0,
    )


@shape
def inverse_sqrt(steps: Time) -> Curve:
    """By the inverse square root of the time.

        f(t) = sqrt(steps / (steps + t))

    `warmup(n) >> inverse_sqrt(n)` is the schedule of the Transformer: the peak is at n, and from
    there it is proportional to the inverse square root of the time since the beginning.

    Args:
        steps: after three times as long it has halved.

    Example:
        >>> inverse_sqrt(4000)(12_000)
        0.5

    Source: A. Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762.
    """
    return Curve(lambda time: (math.sqrt(steps / (steps + time)), 0.0))


@shape
def function(
    of: Callable[[float], float], steps: TimeOrEndless = math.inf, unit: Time = 1
) -> Curve:
    """A function of your own.

        f(t) = of(t / unit)

    Args:
        of: from a time to a factor; the same time gives the same factor.
        steps: when it ends, and stays as it is.
        unit: how many steps its unit of time has; `over` and `in_epochs` set it.

    Raises:
        ScheduleError: it is no function, or returns no number.

    Example:
        >>> function(lambda epoch: 0.95**epoch)(2)
        0.9025

    Source: as torch's LambdaLR.
    """
    if not callable(of):
        raise ScheduleError(f"function: of must be a function of the time, got {of!r}")
    own: Any = of

    def at(time: float) -> tuple[float, float]:
        result = own(min(time, steps) / unit if unit != 1 else min(time, steps))
        number = exact(result)
        if number is None:
            raise ScheduleError(
                f"{shown(own)} must return a number, and returned {result!r} at {time}"
            )
        return float(number), 0.0

    return Curve(at, steps, foreign=True)
