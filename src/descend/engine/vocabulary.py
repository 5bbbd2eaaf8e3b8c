"""The words an update rule may use, and how a backend gives them another meaning.

An update rule is written against the functions of this file, which act on torch tensors. That is
the `eager` backend, and the reference. Another backend takes the very same function and binds its
words anew: see `rebind`. Besides these words a rule uses `+ - * /`, comparisons, `if` on a flag,
and numbers.
"""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

WORDS = ("absolute", "maximum", "minimum", "sign", "sqrt", "where")


def sqrt(x: Number) -> Number:
    """The square root; of a tensor, or of a host-side number."""
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def absolute(x: Number) -> Number:
    """The absolute value."""
    return abs(x)


def sign(x: Number) -> Number:
    """-1, 0 or 1; 0 for NaN, as in torch."""
    return torch.sign(x) if isinstance(x, Tensor) else float((x > 0) - (x < 0))


def maximum(x: Number, y: Tensor | float) -> Number:
    """The larger of both; NaN if either is NaN."""
    if isinstance(x, Tensor):
        return torch.maximum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))
    return y if y > x or y != y else x  # type: ignore[return-value]  # noqa: PLR0124 - NaN


def minimum(x: Number, y: Tensor | float) -> Number:
    """The smaller of both; NaN if either is NaN."""
    if isinstance(x, Tensor):
        return torch.minimum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))
    return y if y < x or y != y else x  # type: ignore[return-value]  # noqa: PLR0124 - NaN


def where(condition: Tensor | bool, x: Tensor | float, y: Tensor | float) -> Any:
    """`x` where the condition holds, `y` elsewhere."""
    if isinstance(condition, Tensor):
        return torch.where(condition, x, y)
    return x if condition else y
