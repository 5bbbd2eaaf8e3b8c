"""How an average moves towards the model: with equal or with exponential weights.

What the four functions return can be pickled, so a model that holds one can too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from descend.checks import Range
from descend.errors import HyperparameterError
from descend.spelling import spelled

One: TypeAlias = Callable[[Tensor, Tensor, Tensor | int], Tensor]
"""From an average, a tensor of the model and how many are averaged already, to the new average."""

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]

Many: TypeAlias = Callable[[Tensors, Tensors, Tensor | int], None]
"""The same in place, for tensors of one dtype on one device."""


@spelled
def get_ema_avg_fn(decay: float = 0.999, *, warmup: bool = False) -> One:
    r"""Exponential weights, for one tensor.

    .. math::
        \bar w \leftarrow \bar w + (1 - d) \, (w - \bar w)

    Whole numbers are averaged in float64; `AveragedModel` rounds the result. A boolean tensor has
    no average: the result is the model's.

    Args:
        decay: d, from 0 to 1.
        warmup: let d rise to that: (1 + n) / (10 + n) where that is less.

    Returns:
        A function of an average, the model's tensor and how many models are averaged already; it
        returns the new average.

    Raises:
        HyperparameterError: `decay` is out of range.

    Example:
        >>> import torch
        >>> get_ema_avg_fn(0.75)(torch.tensor(0.0), torch.tensor(1.0), 5)
        tensor(0.2500)

    Source: B. Polyak and A. Juditsky, SIAM J. Control and Optimization 30, 1992.
    """
    return partial(_average, _exponential(decay, warmup))


def get_swa_avg_fn() -> One:
    r"""Equal weights, for one tensor.

    .. math::
        \bar w \leftarrow \bar w + \frac{w - \bar w}{n + 1}

    Whole numbers are averaged in float64; `AveragedModel` rounds the result. A boolean tensor has
    no average: the result is the model's.

    Returns:
        A function of an average, the model's tensor and n, how many models are averaged already; it
        returns the new average.

    Example:
        >>> import torch
        >>> get_swa_avg_fn()(torch.tensor(0.0), torch.tensor(1.0), 3)
        tensor(0.2500)

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        UAI 2018, https://arxiv.org/abs/1803.05407.
    """
    return partial(_average, _equal)


@spelled
def get_ema_multi_avg_fn(decay: float = 0.999, *, warmup: bool = False) -> Many:
    r"""Exponential weights, for many tensors in place.

    .. math::
        \bar w \leftarrow \bar w + (1 - d) \, (w - \bar w)

    The average of whole numbers is rounded. Boolean tensors have none: the model's are copied.

    Args:
        decay: d, from 0 to 1.
        warmup: let d rise to that: (1 + n) / (10 + n) where that is less.

    Returns:
        A function of the averages, the model's tensors, all of one dtype on one device, and how
        many models are averaged already.

    Raises:
        HyperparameterError: `decay` is out of range.

    Example:
        >>> import torch
        >>> averages = [torch.zeros(2), torch.zeros(1)]
        >>> get_ema_multi_avg_fn(0.75)(averages, [torch.ones(2), torch.ones(1)], 5)
        >>> averages
        [tensor([0.2500, 0.2500]), tensor([0.2500])]

    Source: B. Polyak and A. Juditsky, SIAM J. Control and Optimization 30, 1992.
    """
    return partial(_average_all, _exponential(decay, warmup))


def get_swa_multi_avg_fn() -> Many:
    r"""Equal weights, for many tensors in place.

    .. math::
        \bar w \leftarrow \bar w + \frac{w - \bar w}{n + 1}

    The average of whole numbers is rounded. Boolean tensors have none: the model's are copied.

    Returns:
        A function of the averages, the model's tensors, all of one dtype on one device, and n, how
        many models are averaged already.

    Example:
        >>> import torch
        >>> averages = [torch.zeros(2), torch.zeros(1)]
        >>> get_swa_multi_avg_fn()(averages, [torch.ones(2), torch.ones(1)], 3)
        >>> averages
        [tensor([0.2500, 0.2500]), tensor([0.2500])]

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        UAI 2018, https://arxiv.org/abs/1803.05407.
    """
    return partial(_average_all, _equal)


def takes_number(function: Any) -> bool:
    """Whether a function is one of these, which take the number of models as an int.

    A user's own gets a tensor, as in torch; to read one from a GPU is to wait for it.

    Args:
        function: which averages.
    """
    return getattr(function, "func", None) in (_average, _average_all)


Share: TypeAlias = Callable[[Tensor | int], tuple[float, float]]
"""From how many models are averaged already to the weight of the next: numerator, denominator."""


def _equal(num_averaged: Tensor | int) -> tuple[float, float]:
    return 1.0, float(num_averaged) + 1.0


def _exponential(decay: object, warmup: bool) -> Share:
    stays: float = Range(0, 1, closed=True).check("decay", decay, HyperparameterError)
    return partial(_warmed if warmup else _steady, 1.0 - stays)


def _steady(weight: float, num_averaged: Tensor | int) -> tuple[float, float]:
    return weight, 1.0


def _warmed(weight: float, num_averaged: Tensor | int) -> tuple[float, float]:
    return max(weight, 9.0 / (10.0 + float(num_averaged))), 1.0


@torch.no_grad()
def _average(share: Share, average: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
    weight, of = share(num_averaged)
    if _has_lerp(average):
        return _between(average, current, weight / of)
    if average.dtype is torch.bool:
        return current
    start, end = _wide(average), _wide(current)
    # Divided, not multiplied by the inverse: what comes out whole must not be cut off below it
    return start + (end - start) * weight / of


@torch.no_grad()
def _average_all(
    share: Share, averages: Tensors, currents: Tensors, num_averaged: Tensor | int
) -> None:
    if averages and _has_lerp(averages[0]) and of_torch(averages) and of_torch(currents):
        weight, of = share(num_averaged)
        torch._foreach_lerp_(averages, currents, weight / of)
    else:
        for average, current in zip(averages, currents, strict=True):
            average.copy_(rounded(_average(share, average, current, num_averaged), average))


def rounded(new: Tensor, average: Tensor) -> Tensor:
    """Round a new average where the average holds whole numbers: copied, it would be cut off.

    Args:
        new: what it becomes.
        average: what it replaces.
    """
    return new.round() if new.is_floating_point() and not _has_lerp(average) else new


def of_torch(tensors: Tensors) -> bool:
    """Tell whether tensors are of torch's own types: others may know no operation on lists.

    Args:
        tensors: any.
    """
    return {*map(type, tensors)} <= {Tensor, Parameter}


def _between(average: Tensor, current: Tensor, weight: float) -> Tensor:
    current = current.to(average.dtype)
    if of_torch([average, current]):
        return torch.lerp(average, current, weight)
    return average + (current - average) * weight


def _has_lerp(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(tensor: Tensor) -> Tensor:
    """A tensor of whole numbers as one that holds their averages."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)
