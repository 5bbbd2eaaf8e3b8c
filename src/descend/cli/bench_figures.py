"""Figures of `descend bench` as text, with how far they spread."""

from descend.bench import Spread
from descend.format import duration, three_digits


def spread(value: Spread | None) -> str:
    """Write seconds."""
    return "-" if value is None else f"{duration(value.median)} {noise(value)}"


def ratio(value: Spread | None) -> str:
    """Write how many times as much it is."""
    return "-" if value is None else f"{three_digits(value.median)}x {noise(value)}"


def share(value: Spread | None) -> str:
    """Write a part of a whole."""
    return "-" if value is None else f"{value.median:.0%} {noise(value)}"


def noise(value: Spread) -> str:
    """Write half the distance between the quartiles."""
    return f"±{value.noise:.0%}"
