"""The figures of `descend bench` as text: three digits, a unit, and how far they spread."""

import math

from descend.bench import Spread


def spread(value: Spread | None) -> str:
    """Seconds."""
    return "-" if value is None else f"{time(value.median)} {noise(value)}"


def ratio(value: Spread | None) -> str:
    """How many times as much."""
    return "-" if value is None else f"{digits(value.median)}x {noise(value)}"


def share(value: Spread | None) -> str:
    """A part of a whole."""
    return "-" if value is None else f"{value.median:.0%} {noise(value)}"


def noise(value: Spread) -> str:
    """Half the distance between the quartiles."""
    return f"±{value.noise:.0%}"


def time(seconds: float) -> str:
    """Seconds in the unit that leaves one to three digits before the point.

    Example:
        >>> time(0.1956), time(6.9e-6), time(0.99999)
        ('196 ms', '6.90 us', '1.00 s')
    """
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if _rounded(seconds * factor) >= 1:
            return f"{digits(seconds * factor)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def count(number: int) -> str:
    """A number of parameters.

    Example:
        >>> count(999), count(5_670), count(42_000_384)
        ('999', '5.67 k', '42.0 M')
    """
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if _rounded(number / factor) >= 1:
            return f"{digits(number / factor)} {unit}"
    return str(number)


def size(amount: int | None) -> str:
    """Bytes."""
    return "not measured" if amount is None else f"{amount / (1 << 20):.1f} MiB"


def digits(value: float) -> str:
    """Three significant digits, never in exponent form, and at most three after the point.

    Example:
        >>> digits(0.905), digits(9.996), digits(1234.5)
        ('0.905', '10.0', '1234')
    """
    value = _rounded(value) if abs(value) < 1000 else value  # noqa: PLR2004 - whole from there on
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{min(3, max(0, 3 - before))}f}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
