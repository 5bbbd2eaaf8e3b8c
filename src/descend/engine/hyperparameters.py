"""Hyperparameters, declared once: in the signature of an optimizer's constructor.

    def __init__(self, params, lr: LearningRate = 1e-3, betas: Betas = (0.9, 0.999)): ...

Name and default are the signature's; the allowed range and one line of documentation are the
annotation's (`typing.Annotated`). Validation, error messages and the documentation of the
arguments all read that one declaration.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, get_type_hints

import numpy as np
from torch import Tensor

from descend.errors import HyperparameterError
from descend.spelling import spelled

CLOSE_ENOUGH = 0.85
"""How alike (difflib's ratio) an unknown key must be to a hyperparameter to count as misspelt."""


@spelled
@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, `high` itself excluded; never NaN.

    A tensor of one element is a number, too, and one of `count` elements stands for so many.

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
        """Whether this value is allowed."""
        if value is None:
            return self.optional
        if self.count == 1:
            return self._admits_number(value)
        values = _several(value, self.count)
        return bool(values) and all(self._admits_number(one) for one in values)

    def _admits_number(self, value: object) -> bool:
        if type(value) is float and not (self.whole or self.infinite):  # a schedule, in each step
            return (
                (self.low < value or (self.low == value and not self.positive))
                and (value < self.high or (value == self.high and self.closed))
                and math.isfinite(value)
            )
        if isinstance(value, Tensor):
            if value.numel() != 1:
                return False
            value = value.item()
        if not isinstance(value, Integral if self.whole else Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            return False
        above = number > self.low if self.positive else number >= self.low
        below = number <= self.high if self.closed or self.infinite else number < self.high
        return above and below and (self.infinite or math.isfinite(number))

    def __str__(self) -> str:
        """The range in words, as an error message or a docstring puts it."""
        kind = "whole " if self.whole else "" if self.infinite else "finite "
        noun = f"a {kind}number" if self.count == 1 else f"{self.count} {kind}numbers, each"
        if not math.isinf(self.low):
            noun += f" {'above' if self.positive else 'at least'} {self.low:g}"
        if not math.isinf(self.high):
            noun += " and" if not math.isinf(self.low) else ""
            noun += f" {'at most' if self.closed else 'below'} {self.high:g}"
        if self.infinite:
            noun += ", which may be infinite"
        if self.tensor and self.count == 1:
            noun += ", or a tensor of one such number"
        return noun + (", or None" if self.optional else "")

    def advice(self, value: object) -> str:
        """What to do about a refused value."""
        return self.hint


@dataclass(frozen=True)
class Pair:
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
        """Whether this value is allowed."""
        values = _several(value, 2)
        return bool(values) and self.first.admits(values[0]) and self.second.admits(values[1])

    def __str__(self) -> str:
        """The allowed values in words."""
        return f"a pair: {self.first}; then {self.second}"

    def advice(self, value: object) -> str:
        """Nothing beyond the allowed values."""
        return ""


def _several(value: object, count: int) -> Sequence[Any]:
    """The numbers of a tuple, a list, a tensor or an array of so many; none of anything else."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        value = list(value)
    return value if isinstance(value, (tuple, list)) and len(value) == count else ()


@dataclass(frozen=True)
class Switch:
    """True or False; or None, where None leaves the choice to descend.

    Args:
        optional: None is allowed too.

    Example:
        >>> Switch().admits(True), Switch().admits(1)
        (True, False)
    """

    optional: bool = False

    def admits(self, value: object) -> bool:
        """Whether this value is allowed."""
        return isinstance(value, bool) or (self.optional and value is None)

    def __str__(self) -> str:
        """The allowed values in words."""
        return "True, False or None" if self.optional else "True or False"

    def advice(self, value: object) -> str:
        """Nothing beyond the allowed values."""
        return ""


@dataclass(frozen=True)
class Choice:
    """One of a few values.

    Args:
        values: the allowed ones: texts, or None.

    Example:
        >>> Choice(("linear", "cubic")).admits("cubic")
        True
    """

    values: tuple[str | None, ...]

    def admits(self, value: object) -> bool:
        """Whether this value is allowed."""
        return (value is None or isinstance(value, str)) and value in self.values

    def __str__(self) -> str:
        """The allowed values in words."""
        return " or ".join(map(repr, self.values))

    def advice(self, value: object) -> str:
        """The value that may have been meant."""
        known = [one for one in self.values if one is not None]
        close = difflib.get_close_matches(str(value).lower(), known, n=1)
        return f"did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of one optimizer: its name, default, allowed values and meaning."""

    name: str
    default: Any
    allowed: Range | Pair | Switch | Choice
    meaning: str


Options = Mapping[str, Any]
"""The values of one parameter group: `group["lr"]` and the rest."""

LearningRate = Annotated[
    float | Tensor,
    Range(0, tensor=True, hint="to climb the gradient, pass maximize=True"),
    "step size, in units of the parameter (per unit of gradient for SGD)",
]
Betas = Annotated[
    tuple[float | Tensor, float | Tensor],
    Range(0, 1, count=2, tensor=True),
    "decay per step of the running means of the gradient and of its square",
]
Epsilon = Annotated[float, Range(0), "added to the denominator, against division by zero"]
WeightDecay = Annotated[float, Range(0), "strength of the pull of every parameter towards zero"]
DecoupledWeightDecay = Annotated[bool, Switch(), "shrink the parameter itself, as AdamW does"]
Maximize = Annotated[bool, Switch(), "climb the gradient instead of descending it"]
Foreach = Annotated[
    bool | None, Switch(optional=True), "accepted as a hint, as in torch; every step is one pass"
]
Fused = Annotated[
    bool | None,
    Switch(optional=True),
    "every step is fused; True: GradScaler leaves the unscaling to the step, as in torch",
]
Capturable = Annotated[
    bool, Switch(), "keep step counts on the parameter's device, for CUDA graph capture"
]
Differentiable = Annotated[bool, Switch(), "let autograd record the step; takes the eager path"]
ClipNorm = Annotated[
    float | None,
    Range(0, optional=True, positive=True, infinite=True),
    "largest global norm of all gradients of the step; larger ones are scaled down to it",
]
ClipValue = Annotated[
    float | None,
    Range(0, optional=True, positive=True, infinite=True),
    "largest magnitude of one gradient element, after clip_norm; larger ones are cut to it",
]
SkipNonfinite = Annotated[
    bool, Switch(), "leave out, and count, a step whose gradients hold an infinity or a NaN"
]


def declared(constructor: Callable[..., None]) -> dict[str, Hyperparameter]:
    """The hyperparameters that a constructor declares, in the order of its signature."""
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # a subclass of the user's, with names that only a type checker knows
        hints = inspect.get_annotations(constructor)
    table = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        allowed, meaning = getattr(hints.get(name), "__metadata__", (None, None))[:2]
        if isinstance(allowed, (Range, Pair, Switch, Choice)):
            table[name] = Hyperparameter(name, parameter.default, allowed, str(meaning))
    return table


def validate(owner: str, table: Mapping[str, Hyperparameter], values: Options, where: str) -> None:
    """Refuse values outside their range and misspelt names; other keys are the user's own.

    Args:
        owner: the optimizer's name, for the message.
        table: what it declares.
        values: what it got; a declared name may be missing.
        where: the place of the values, for the message: "group 0", or "" for the constructor.

    Raises:
        HyperparameterError: names the value, what is allowed, and what to do.
    """
    place = f" in {where}" if where else ""
    for name, value in values.items():
        known = table.get(name)
        if known is None:
            _refuse_misspelling(owner, table, name, place)
        elif not known.allowed.admits(value):
            advice = known.allowed.advice(value)
            raise HyperparameterError(
                f"{owner}: {name}={_shown(value)}{place} is not allowed: "
                f"{name} must be {known.allowed}{f'; {advice}' if advice else ''}"
            )


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return f"tensor({value.item()!r})"
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value)


def _refuse_misspelling(
    owner: str, table: Mapping[str, Hyperparameter], name: str, place: str
) -> None:
    close = difflib.get_close_matches(name, table, n=1, cutoff=CLOSE_ENOUGH)
    if name == "learning_rate" and "lr" in table:
        close = ["lr"]
    if close and close[0] not in name:  # "no_weight_decay" is a key of the user's own
        raise HyperparameterError(
            f"{owner}: there is no {name!r}{place}; did you mean {close[0]}? "
            f"(known: {', '.join(table)})"
        )
