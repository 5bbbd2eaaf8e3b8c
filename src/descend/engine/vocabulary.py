"""The words an update rule may use, and how a backend gives them another meaning.

An update rule is written against the functions of this file, which act on torch tensors. That is
the `eager` backend, and the reference. Another backend takes the very same function and binds its
words anew: see `rebind`. Besides these words a rule uses `+ - * /`, comparisons, `if` on a flag,
and numbers.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

WORDS = ("absolute", "maximum", "minimum", "sign", "sqrt", "where")


def sqrt(x: Number) -> Number:
    """The square root; of a tensor, or of a host-side number."""
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def absolute(x: Tensor) -> Tensor:
    """The absolute value."""
    return torch.abs(x)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; 0 for NaN, as in torch."""
    return torch.sign(x)


def maximum(x: Tensor, y: Tensor | float) -> Tensor:
    """The larger of both; NaN if either is NaN."""
    return torch.maximum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))


def minimum(x: Tensor, y: Tensor | float) -> Tensor:
    """The smaller of both; NaN if either is NaN."""
    return torch.minimum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))


def where(condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
    """`x` where the condition holds, `y` elsewhere."""
    return torch.where(condition, x, y)
