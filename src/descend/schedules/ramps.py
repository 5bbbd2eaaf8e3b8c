"""Schedules that go from one level to another, and stay there."""

import math
from collections.abc import Callable
from typing import Annotated, Any

from descend.checks import Choice
from descend.schedules import formulas
from descend.schedules.arguments import (
    Level,
    Points,
    Positive,
    TimeFromZero,
    TimeOrEndless,
)
from descend.schedules.schedule import At, Curve, shape, steady

LEFT: dict[str, Callable[[float], float]] = {
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": formulas.cosine,
    "constant": lambda fraction: 1.0,
}
"""The part of the first level that is left after a fraction of the time between two."""


def affine(level: Any) -> tuple[float, float]:
    """A level as (factor, value)."""
    pair: tuple[float, float] = level.curve.at(0) if hasattr(level, "curve") else (level, 0.0)
    return pair


def blend(start: Any, end: Any) -> Callable[[float], tuple[float, float]]:
    """From the part of one level that is left to (factor, value) between it and another."""
    (start_factor, start_value), (end_factor, end_value) = affine(start), affine(end)

    def at(part: float) -> tuple[float, float]:
        rest = 1.0 - part
        return part * start_factor + rest * end_factor, part * start_value + rest * end_value

    return at


def kinds(*levels: Any) -> tuple[bool, bool]:
    """Whether a curve between levels is nothing but a factor, or nothing but a value."""
    values = [hasattr(level, "curve") for level in levels]
    return not any(values), all(values)


def ramp(steps: float, start: Any, end: Any, left: Callable[[float], float]) -> Curve:
    """A curve between two levels.

    Args:
        steps: how long it takes.
        start: the level at 0.
        end: the level from `steps` on.
        left: from the fraction of the time that has passed to the part of `start` that is left.
    """
    between, last = blend(start, end), affine(end)
    return Curve(
        lambda time: between(left(time / steps)) if time < steps else last,
        steps,
        *kinds(start, end),
    )


@shape
def constant(factor: Level = 1.0, steps: TimeOrEndless = math.inf) -> Curve:
    """One level for ever, or for some time.

        f(t) = factor

    Args:
        factor: the level; `value(x)` for an absolute one.
        steps: how long; without end if another schedule need not follow.

    Example:
        >>> constant(0.1, 100)(50)
        0.1

    Source: a constant step size; H. Robbins and S. Monro, 1951.
    """
    return Curve(steady(*affine(factor)), steps, *kinds(factor), level=True)


@shape
def linear(steps: TimeFromZero, start: Level = 1.0, end: Level = 0.0) -> Curve:
    """In a straight line from one level to another.

        f(t) = start + (end - start) min(t / steps, 1)

    Args:
        steps: how long it takes; 0: at its end at once.
        start: the first level.
        end: the last level, kept from then on.

    Example:
        >>> linear(100, 1, 0.2).values(101)[::50]
        [1.0, 0.6, 0.2]

    Source: linear decay; A. Defazio et al., Optimal Linear Decay Learning Rate Schedules, 2023,
    https://arxiv.org/abs/2310.07831.
    """
    return ramp(steps, start, end, LEFT["linear"])


@shape
def cosine(steps: TimeFromZero, start: Level = 1.0, end: Level = 0.0) -> Curve:
    """Along half a cosine wave from one level to another.

        f(t) = end + (start - end) (1 + cos(pi min(t / steps, 1))) / 2

    Args:
        steps: how long it takes; 0: at its end at once.
        start: the first level.
        end: the last level, kept from then on.

    Example:
        >>> cosine(100)(0), cosine(100)(50), cosine(100)(100)
        (1.0, 0.5, 0.0)

    Source: I. Loshchilov and F. Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983.
    """
    return ramp(steps, start, end, LEFT["cosine"])


@shape
def polynomial(steps: TimeFromZero, power: Positive, start: Level = 1.0, end: Level = 0.0) -> Curve:
    """From one level to another by a power of the time that is left.

        f(t) = end + (start - end) (1 - min(t / steps, 1))^power

    Args:
        steps: how long it takes; 0: at its end at once.
        power: 1 is a straight line, more falls faster at the beginning.
        start: the first level.
        end: the last level, kept from then on.

    Example:
        >>> polynomial(100, 2)(50)
        0.25

    Source: L.-C. Chen et al., DeepLab, 2017, https://arxiv.org/abs/1606.00915 ("poly").
    """
    return ramp(steps, start, end, lambda fraction: formulas.polynomial(fraction, power))


@shape
def piecewise(
    points: Points,
    between: Annotated[str, Choice(("linear", "cosine", "constant"))] = "linear",
) -> Curve:
    """Through points, and at the last one's level from then on.

        f(t_i) = level_i, and between two points in a line, half a cosine wave, or not at all

    Args:
        points: (time, level) in a list, or {time: level}; the first time is 0.
        between: how it goes from a point to the next; "constant" stays until that comes.

    Raises:
        ScheduleError: an argument is out of range, or the times do not rise from 0.

    Example:
        >>> piecewise([(0, 0), (10, 1), (100, 0.1)])(5)
        0.5

    Source: the piecewise schedules of Optax, https://optax.readthedocs.io.
    """
    times = [time for time, _ in points]
    levels = [level for _, level in points]
    curves: list[At] = [
        ramp(after - before, start, end, LEFT[between]).at
        for before, after, start, end in zip(times, times[1:], levels, levels[1:], strict=False)
    ]
    last = affine(levels[-1])

    def at(time: float) -> tuple[float, float]:
        number = formulas.passed(times, time) - 1
        return curves[number](time - times[number]) if number < len(curves) else last

    return Curve(at, times[-1], *kinds(*levels), turns=tuple(times))
