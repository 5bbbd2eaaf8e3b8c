"""The words an update rule may use, and how a backend gives them another meaning.

An update rule is written against the functions of this file, which act on torch tensors. That is
the `eager` backend, and the reference. Another backend takes the very same function and binds its
words anew. Besides these words a rule uses `+ - * /`, comparisons, `if` on a flag, and numbers:
see `grammar`.
"""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

WORDS = ("absolute", "maximum", "minimum", "sign", "sqrt", "where")


def sqrt(x: Number) -> Number:
    """The square root; NaN below zero, for a tensor.

    Example:
        >>> sqrt(9.0)
        3.0
    """
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def absolute(x: Number) -> Number:
    """The absolute value.

    Example:
        >>> absolute(-2.0)
        2.0
    """
    return abs(x)


def sign(x: Number) -> Number:
    """-1, 0 or 1; 0 for NaN, as in torch.

    Example:
        >>> sign(-2.0)
        -1.0
    """
    return torch.sign(x) if isinstance(x, Tensor) else float((x > 0) - (x < 0))


def maximum(x: Tensor | float, y: Tensor | float) -> Any:
    """The larger of both; NaN if either is NaN.

    Example:
        >>> maximum(torch.tensor([-1.0, 2.0]), 0.0)
        tensor([0., 2.])
    """
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return torch.maximum(*_tensors(x, y))
    return y if y > x or y != y else x  # noqa: PLR0124 - NaN


def minimum(x: Tensor | float, y: Tensor | float) -> Any:
    """The smaller of both; NaN if either is NaN.

    Example:
        >>> minimum(torch.tensor([-1.0, 2.0]), 0.0)
        tensor([-1.,  0.])
    """
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return torch.minimum(*_tensors(x, y))
    return y if y < x or y != y else x  # noqa: PLR0124 - NaN


def where(condition: Tensor | bool, x: Tensor | float, y: Tensor | float) -> Any:
    """`x` where the condition holds, `y` elsewhere.

    Example:
        >>> x = torch.tensor([-1.0, 2.0])
        >>> where(x < 0, 0.0, x)
        tensor([0., 2.])
    """
    if not isinstance(condition, Tensor):
        chosen, other = (x, y) if condition else (y, x)
        if isinstance(other, Tensor) and not isinstance(chosen, Tensor):
            return torch.full_like(other, chosen)
        return chosen
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return torch.where(condition, x, y)
    # Of two plain numbers torch would make float32, which is not what 0.1 is to a float64.
    wide = torch.float32 if condition.device.type == "mps" else torch.float64
    return torch.where(condition, *(condition.new_full((), one, dtype=wide) for one in (x, y)))


def _tensors(x: Tensor | float, y: Tensor | float) -> tuple[Tensor, Tensor]:
    """Both as tensors; a number takes the dtype and the device of the tensor beside it."""
    if not isinstance(x, Tensor):
        assert isinstance(y, Tensor)
        return _beside(y, x), y
    return x, y if isinstance(y, Tensor) else _beside(x, y)


def _beside(tensor: Tensor, number: float) -> Tensor:
    # Infinite beyond the dtype's range, as in a kernel; torch would raise.
    if abs(number) > torch.finfo(tensor.dtype).max:
        number = math.copysign(math.inf, number)
    return tensor.new_full((), number)
