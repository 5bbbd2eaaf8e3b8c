"""Scales of charts: where values stand, and which are numbered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from descend.report.schedule_chart import round_numbers, tick_label


@dataclass(frozen=True)
class Scale:
    """A scale of a chart.

    Args:
        low: the least value.
        high: the greatest.
        begin: the place of the least.
        end: that of the greatest.
        log: whether it is logarithmic.

    Example:
        >>> Scale(1, 100, 0, 10, log=True).at(10)
        5.0
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (math.log10(one) if self.log else one
                            for one in (self.low, self.high, value))  # fmt: skip
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self, most: int) -> list[float]:
        """Round values on it; on a logarithmic one powers of ten, or 1, 2 and 5 of each."""
        if not self.log:
            return round_numbers(self.low, self.high, most)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            found = [factor * 10.0**power for power in powers for factor in factors
                     if self.low <= factor * 10.0**power * (1 + 1e-9)
                     and factor * 10.0**power <= self.high * (1 + 1e-9)]  # fmt: skip
            if len(found) >= 3:  # noqa: PLR2004 - fewer would leave a reader guessing
                break
        return found[:: -(-len(found) // (most + 2))] if found else [self.low, self.high]


def scale(values: Sequence[float], begin: float, end: float, *, log: bool = False) -> Scale:
    """The scale on which some values fit, with a little room at both ends."""
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.04 if high > low else 1.5
        return Scale(low / room, high * room, begin, end, log=True)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, begin, end)


def label(value: float) -> str:
    """A value of a scale in short.

    Example:
        >>> label(0.05), label(20000)
        ('0.05', '20,000')
    """
    return f"{value:g}" if abs(value) < 1e4 else tick_label(value)  # noqa: PLR2004 - 1e+04
