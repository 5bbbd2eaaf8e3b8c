"""Schedules that rise and fall."""

import math
from typing import Annotated

from descend.checks import Choice
from descend.errors import ScheduleError
from descend.schedules import formulas
from descend.schedules.arguments import (
    Factor,
    Level,
    Number,
    OptionalTime,
    Positive,
    Share,
    Time,
    TimeFromZero,
)
from descend.schedules.ramps import blend, constant, cosine, kinds, linear, piecewise
from descend.schedules.schedule import Curve, shape
from descend.schedules.warmups import warmup

Smooth = Annotated[str, Choice(("cosine", "linear"))]


@shape
def one_cycle(
    steps: TimeFromZero,
    rise: Share = 0.3,
    start: Positive = 0.04,
    end: Factor = 4e-6,
    between: Smooth = "cosine",
) -> Curve:
    """Once up to the base, and down to almost nothing.

        from start at 0 to 1 at rise * steps, and to end at steps

    Args:
        steps: how long it takes.
        rise: the part of the time that it rises.
        start: the first factor; 1/25 as in torch's OneCycleLR.
        end: the last factor, kept from then on.
        between: how it rises and falls.

    Example:
        >>> one_cycle(1000)(300)
        1.0

    Source: L. Smith and N. Topin, Super-Convergence, 2018, https://arxiv.org/abs/1708.07120.
    """
    up = rise * steps
    points = [(0, start), (up, 1.0), (steps, end)]
    return piecewise(points[:2] if up == steps > 0 else points, between).curve


@shape
def cyclic(
    up: TimeFromZero,
    down: OptionalTime = None,
    low: Factor = 0.1,
    mode: Annotated[str, Choice(("triangular", "triangular2", "exp_range"))] = "triangular",
    gamma: Positive = 1.0,
    every: Time = 1,
) -> Curve:
    """Up and down, again and again.

        f(t) = low + (1 - low) h(t) s(t), with h a zigzag between 0 and 1

    Args:
        up: how long it rises; 0: it begins at the top.
        down: how long it falls; as long as it rises where left out.
        low: the factor at the bottom, where it begins; at the top it is 1.
        mode: what s is: "triangular" 1, "triangular2" half of it in each cycle,
            "exp_range" gamma^(t / every).
        gamma: of exp_range.
        every: the time it takes exp_range to shrink by gamma.

    Example:
        >>> cyclic(10, low=0.5).values(21)[::10]
        [0.5, 1.0, 0.5]

    Source: L. Smith, Cyclical Learning Rates, WACV 2017, https://arxiv.org/abs/1506.01186.
    """
    fall = up if down is None else down
    if not up + fall:
        raise ScheduleError("cyclic: up and down must not both be 0; a cycle has a length")

    def at(time: float) -> tuple[float, float]:
        cycle, height = formulas.triangle(time, up, fall)
        if not height:  # the scale may be infinite
            return low, 0.0
        scale = formulas.cycle_scale(mode, cycle, time / every, gamma)
        return low + (1.0 - low) * height * scale, 0.0

    return Curve(at, turns=(up, up + fall), cycle=(up + fall, 1))


@shape
def warm_restarts(
    steps: Time,
    growth: Annotated[float, Number(1)] = 1,
    start: Level = 1.0,
    end: Level = 0.0,
) -> Curve:
    """Half a cosine wave again and again, each so many times as long as the one before.

        f(t) = end + (start - end) (1 + cos(pi s / T)) / 2

    with s the time since the last restart, and T = steps growth^i after i restarts.

    Args:
        steps: how long the first takes.
        growth: how many times as long the next one is.
        start: the level at each restart.
        end: the level before the next.

    Example:
        >>> warm_restarts(10, growth=2).values(31)[::10]
        [1.0, 1.0, 0.5, 1.0]

    Source: I. Loshchilov and F. Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983.
    """
    between = blend(start, end)

    def at(time: float) -> tuple[float, float]:
        since, period = formulas.restarts(time, steps, growth)
        return between(formulas.cosine(since / period))

    return Curve(at, math.inf, *kinds(start, end), cycle=(steps, growth))


@shape
def wsd(
    rise: TimeFromZero,
    stable: TimeFromZero,
    decay: TimeFromZero,
    end: Factor = 0.0,
    between: Smooth = "linear",
) -> Curve:
    """Warmup, stable, decay: up in a line, level for long, and down.

        warmup(rise) >> constant(1, stable) >> linear(decay, 1, end)

    Args:
        rise: how long the warmup takes; 0 for none, as with the others.
        stable: how long it stays level.
        decay: how long it falls.
        end: the last factor, kept from then on.
        between: how it falls.

    Example:
        >>> wsd(100, 800, 100)(950)
        0.5

    Source: S. Hu et al., MiniCPM, 2024, https://arxiv.org/abs/2404.06395.
    """
    fall = linear if between == "linear" else cosine
    whole = warmup(rise) >> constant(1.0, stable) >> fall(decay, 1.0, end)
    turns = (rise, rise + stable)
    return Curve(whole.curve.at, whole.length, warm=rise, turns=turns)
