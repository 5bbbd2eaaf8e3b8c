"""Warmups: factors that rise to 1. Put one in front (`>>`) of a schedule, or multiply (`*`)."""

import math
from collections.abc import Callable
from typing import Annotated

from descend.checks import Choice
from descend.errors import ScheduleError
from descend.schedules import formulas
from descend.schedules.arguments import Beta2, Share, TimeFromZero
from descend.schedules.schedule import Curve, shape

NEAREST = 0.9999  # the largest beta2 whose rectification has digits


@shape
def warmup(
    steps: TimeFromZero,
    kind: Annotated[str, Choice(("linear", "cosine", "exponential", "constant"))] = "linear",
    start: Share = 0.0,
) -> Curve:
    """From a small factor to 1.

        linear:      f(t) = start + (1 - start) t / steps
        cosine:      f(t) = 1 - (1 - start) (1 + cos(pi t / steps)) / 2
        exponential: f(t) = start^(1 - t / steps)
        constant:    f(t) = start, and 1 from steps on

    Args:
        steps: how long it takes; 0 for none.
        kind: the curve.
        start: the first factor; above 0 for "exponential" and "constant".

    Example:
        >>> (warmup(500) >> constant()).values(1000)[250]
        0.5

    Source: P. Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677.
    """
    if kind in ("exponential", "constant") and not start:
        raise ScheduleError(
            f"warmup: kind={kind!r} needs a start above 0, such as start=0.1, got {start!r}"
        )

    def at(time: float) -> tuple[float, float]:
        if time >= steps:
            return 1.0, 0.0
        return _RISING[kind](time / steps, start), 0.0

    return Curve(at, steps, warm=steps)


_RISING: dict[str, Callable[[float, float], float]] = {
    "linear": lambda fraction, start: start + (1.0 - start) * fraction,
    "cosine": lambda fraction, start: 1.0 - (1.0 - start) * formulas.cosine(fraction),
    "exponential": lambda fraction, start: start ** (1.0 - fraction),
    "constant": lambda fraction, start: float(start),
}


@shape
def untuned_linear(beta2: Beta2 = 0.999) -> Curve:
    """A linear warmup whose length follows from Adam's second beta; it counts in steps.

        f(t) = min(1, (1 - beta2) / 2 (t + 1))

    Args:
        beta2: Adam's second beta.

    Example:
        >>> untuned_linear(0.75)(3)
        0.5

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """
    speed, warm = (1.0 - beta2) / 2.0, formulas.memory(beta2)
    return Curve(lambda time: (min(1.0, speed * (time + 1.0)), 0.0), warm=warm)


@shape
def untuned_exponential(beta2: Beta2 = 0.999) -> Curve:
    """An exponential warmup whose speed follows from Adam's second beta; it counts in steps.

        f(t) = 1 - exp(-(1 - beta2) (t + 1))

    Args:
        beta2: Adam's second beta.

    Example:
        >>> round(untuned_exponential(0.999)(999), 4)
        0.6321

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """
    speed, warm = 1.0 - beta2, formulas.memory(beta2)
    return Curve(lambda time: (-math.expm1(-speed * (time + 1.0)), 0.0), warm=warm)


@shape
def rectified(beta2: Beta2 = 0.999) -> Curve:
    r"""The warmup inside RAdam, for any optimizer; it counts in steps.

        f(t) = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))

    with rho of the step t + d, where d is the first one whose rho is above 4.

    Args:
        beta2: Adam's second beta.

    Example:
        >>> round(rectified(0.999)(999), 4)
        0.6464

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    if beta2 > NEAREST:
        raise ScheduleError(
            f"rectified: beta2 must be at most {NEAREST}, because nearer to 1 its formula is a "
            f"difference without digits, got {beta2!r}"
        )
    first, warm = formulas.rectified_from(beta2), formulas.memory(beta2)
    return Curve(lambda time: (formulas.rectification(time + first, beta2), 0.0), warm=warm)
