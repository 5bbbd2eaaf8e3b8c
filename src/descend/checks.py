"""The values that an argument may have, declared once: a `Range`, a `Pair`, a `Switch`, a `Choice`.

A declaration says whether it admits a value, tells the allowed values in words (`str`), reads the
text of a command's option, and checks an argument:

    >>> Range(1, whole=True).check("save_every", 5, RunError)
    5
    >>> Range(1, whole=True).check("save_every", 0, RunError)
    Traceback (most recent call last):
    descend.errors.RunError: save_every must be a whole number of at least 1, got 0
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from descend.errors import DescendError
from descend.spelling import meant, spelled


class Allowed:
    """A declaration of allowed values."""

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        raise NotImplementedError

    def __str__(self) -> str:
        """The allowed values in words, as an error or a documentation puts it."""
        raise NotImplementedError

    def advice(self, value: object) -> str:
        """A hint about a refused value; "" for none."""
        return ""

    def plain(self, value: Any) -> Any:
        """An allowed value as Python's own."""
        return value

    def read(self, text: str) -> Any:
        """The value in the text of a command's option; the text itself where it holds none."""
        return text

    def check(self, place: str, value: Any, error: type[DescendError]) -> Any:
        """The value as Python's own, or an error.

        Args:
            place: the owner and the argument, for the message.
            value: anything.
            error: the exception for a value that is not allowed.

        Raises:
            DescendError: `error`: the value is not allowed.
        """
        if not self.admits(value):
            advice = self.advice(value)
            raise error(
                f"{place} must be {self}, got {shown(value)}{f'; {advice}' if advice else ''}"
            )
        return self.plain(value)


@spelled
@dataclass(frozen=True)
class Range(Allowed):
    """The numbers from `low` to `high`, `high` itself excluded; never NaN.

    A tensor of one element is a number, too, and one of `count` elements stands for so many; so
    are NumPy's numbers, and its arrays without dimensions.

    Args:
        low: the smallest allowed number.
        high: the first number that is not allowed any more.
        closed: `high` itself is allowed too.
        count: how many numbers make one value: 1 for a number, 2 for a pair such as betas.
        optional: None is allowed too.
        positive: `low` itself is not allowed.
        tensor: the text says that a tensor is allowed, which some fill in place.
        whole: only whole numbers, of an integer type, are allowed.
        infinite: infinity is allowed too.
        hint: what to do about a refused value.

    Example:
        >>> Range(0, 1).admits(0.9), Range(0, 1).admits(1.0)
        (True, False)
    """

    low: float = -math.inf
    high: float = math.inf
    closed: bool = False
    count: int = 1
    optional: bool = False
    positive: bool = False
    tensor: bool = False
    whole: bool = False
    infinite: bool = False
    hint: str = ""

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        if value is None:
            return self.optional
        if self.count == 1:
            return self._admits_number(value)
        values = several(value, self.count)
        return bool(values) and all(self._admits_number(one) for one in values)

    def _admits_number(self, value: object) -> bool:
        number = value if type(value) is float else plain_number(value)  # a schedule, in each step
        if number is None or (self.whole and type(number) is not int):
            return False
        return (
            (self.low < number or (self.low == number and not self.positive))
            and (number < self.high or (number == self.high and (self.closed or self.infinite)))
            and (self.infinite or -math.inf < number < math.inf)
        )

    def __str__(self) -> str:
        """The range in words."""
        kind = "whole " if self.whole else "" if self.infinite else "finite "
        text = f"a {kind}number" if self.count == 1 else f"{self.count} {kind}numbers, each"
        text += self._bounds()
        if self.infinite:
            text += ", which may be infinite"
        if self.tensor and self.count == 1:
            text += ", or a tensor of one such number"
        return text + (", or None" if self.optional else "")

    def _bounds(self) -> str:
        low, high = f"{self.low:.15g}", f"{self.high:.15g}"
        if math.isinf(self.low):
            least = ""
        elif self.positive:
            least = f" above {low}"
        else:
            least = f" of at least {low}" if self.count == 1 else f" at least {low}"
        if math.isinf(self.high):
            return least
        if self.closed and least and not self.positive:
            return f" from {low} to {high}"
        return f"{least}{' and' if least else ''} {'at most' if self.closed else 'below'} {high}"

    def advice(self, value: object) -> str:
        """The hint of the declaration."""
        return self.hint

    def plain(self, value: Any) -> Any:
        """An allowed value as Python's own."""
        if value is None or self.count == 1:
            return plain_number(value)
        return tuple(map(plain_number, several(value, self.count)))

    def read(self, text: str) -> Any:
        """The number, or the numbers between commas, in a text."""
        if text.lower() == "none" and self.optional:
            return None
        try:
            values = [int(one) if self.whole else float(one) for one in text.split(",")]
        except ValueError:
            return text
        return values[0] if len(values) == 1 else tuple(values)


@dataclass(frozen=True)
class Pair(Allowed):
    """Two values, each with a range of its own.

    Args:
        first: the range of the first.
        second: the range of the second.

    Example:
        >>> Pair(Range(0), Range(0, 1)).admits((5.0, 0.5))
        True
    """

    first: Range
    second: Range

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        values = several(value, 2)
        return bool(values) and self.first.admits(values[0]) and self.second.admits(values[1])

    def __str__(self) -> str:
        """The two ranges in words."""
        return f"a pair: {self.first}; then {self.second}"


@dataclass(frozen=True)
class Switch(Allowed):
    """True or False; or None, where None leaves the choice to descend.

    Args:
        optional: None is allowed too.

    Example:
        >>> Switch().admits(True), Switch().admits(1)
        (True, False)
    """

    optional: bool = False

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, bool) or (self.optional and value is None)

    def __str__(self) -> str:
        """The allowed values in words."""
        return "True, False or None" if self.optional else "True or False"


@dataclass(frozen=True)
class Choice(Allowed):
    """One of a few values.

    Args:
        values: the allowed ones: texts, or None.

    Example:
        >>> Choice(("linear", "cubic")).admits("cubic")
        True
    """

    values: tuple[str | None, ...]

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        return (value is None or isinstance(value, str)) and value in self.values

    def __str__(self) -> str:
        """The allowed values in words."""
        return " or ".join(map(repr, self.values))

    def advice(self, value: object) -> str:
        """The value that may have been meant."""
        close = meant(str(value), [one for one in self.values if one is not None])
        return f"did you mean {close!r}?" if close else ""


COUNT = Range(1, whole=True)
"""How many of something: 1, 2, ..."""

COUNT_FROM_0 = Range(0, whole=True)
"""How many of something, if any: 0, 1, ..."""

WHOLE = Range(whole=True)
"""Any whole number."""

SEED = Range(0, 2**32 - 1, closed=True, whole=True)
"""A seed of the generators of torch, Python and NumPy, which takes no larger one."""

FINITE = Range()
"""Any number but the infinite ones."""

ABOVE_0 = Range(0, positive=True)
"""A rate, a length, a duration."""

FROM_0 = Range(0)
"""A number that is not negative."""


def plain_number(value: Any) -> float | None:
    """A number of Python's or NumPy's, or the one in a tensor, as Python's own.

    Args:
        value: anything.

    Returns:
        An int or a float; None for anything else, for a truth value, and for an integer of so many
        digits that no float is near it.

    Example:
        >>> plain_number(np.float32(0.5)), plain_number(torch.tensor(3)), plain_number(True)
        (0.5, 3, None)
    """
    numel = getattr(value, "numel", None)
    if numel is not None:
        value = value.item() if numel() == 1 else None
    elif hasattr(value, "ndim"):  # NumPy's numbers have no dimensions
        value = None if value.ndim else value.item()
    # Builtins first: the abstract classes take ten times as long, and an lr is read in each step
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, Real)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return int(value) if isinstance(value, (int, Integral)) else number


def several(value: Any, count: int) -> Sequence[Any]:
    """The values of a tuple, a list, a tensor or an array of so many; none of anything else.

    Args:
        value: anything.
        count: how many.
    """
    if getattr(value, "ndim", 0) == 1:
        value = list(value)
    return value if isinstance(value, (tuple, list)) and len(value) == count else ()


def shown(value: Any) -> str:
    """A refused value in a message: a tensor by its number, or by its shape.

    Args:
        value: anything.
    """
    if hasattr(value, "numel"):
        if value.numel() == 1:
            return f"tensor({value.item()!r})"
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value)
