"""The mathematics of schedules: plain functions of numbers, each formula once.

The shapes beside it make schedules of them, and `descend.lr_scheduler` torch's classes.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence


def cosine(fraction: float) -> float:
    """Half a cosine wave, from 1 at 0 to 0 at 1; it rises again after 1."""
    return (1.0 + math.cos(math.pi * fraction)) / 2.0


def wave(time: float, half: float) -> float:
    """A cosine wave between 1 and 0, in torch's order of operations; `half` is half a wave."""
    return (1.0 + math.cos(math.pi * (time % (2 * half)) / half)) / 2.0


def polynomial(fraction: float, power: float) -> float:
    """A power of what is left, from 1 at 0 to 0 at 1."""
    return float((1.0 - fraction) ** power)


def power(base: float, exponent: float) -> float:
    """A power; infinity where it is too large for a float."""
    try:
        return float(float(base) ** exponent)
    except OverflowError:
        return math.inf


def triangle(time: float, up: float, down: float) -> tuple[int, float]:
    """A zigzag that starts at 0: the number of the cycle, from 1, and the height, up to 1."""
    cycle, position = divmod(time, up + down)
    height = position / up if up and position <= up else (up + down - position) / down
    return int(cycle) + 1, height


def restarts(time: float, first: float, factor: float) -> tuple[float, float]:
    """Periods that begin with length `first`, each `factor` times the one before.

    Returns:
        The time since the last restart, and the length of the period it fell in.
    """
    if factor == 1:
        return time % first, first
    while time >= first:
        time -= first
        first *= factor
    return time, first


def memory(beta2: float) -> float:
    """The time that Adam's second moment remembers, after which it is warm."""
    return 2.0 / (1.0 - beta2)


def rho_limit(beta2: float) -> float:
    """The largest length of Adam's second moment, as a simple moving average."""
    return memory(beta2) - 1.0


def rho(count: float, beta2: float) -> float:
    """The length of Adam's second moment after some steps, as a simple moving average."""
    power = float(beta2**count)
    return rho_limit(beta2) - 2.0 * count * power / (1.0 - power)


def rectified_from(beta2: float) -> int:
    """The first step whose variance the formula of RAdam can tell."""
    count = 1
    while rho(count, beta2) <= RHO_LEAST:
        count += 1
    return count


def rectification(count: float, beta2: float) -> float:
    """The factor of RAdam's step."""
    now, limit = rho(count, beta2), rho_limit(beta2)
    return math.sqrt(
        (now - RHO_LEAST) * (now - 2.0) * limit / ((limit - RHO_LEAST) * (limit - 2.0) * now)
    )


RHO_LEAST = 4.0  # below, the variance is not finite


def passed(times: Sequence[float], time: float) -> int:
    """How many of some times, in rising order, have come."""
    return bisect_right(times, time)


def cycle_scale(mode: str, cycle: int, time: float, gamma: float) -> float:
    """How high a cycle is, of those of Smith's paper."""
    if mode == "triangular":
        return 1.0
    return 0.5 ** (cycle - 1) if mode == "triangular2" else power(gamma, time)
