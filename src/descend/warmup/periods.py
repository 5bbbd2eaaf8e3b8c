"""Warmups of a given period: LinearWarmup, ExponentialWarmup, ConstantWarmup."""

import math
from typing import Any

from torch.optim import Optimizer

from descend.checks import Range, plain_number
from descend.errors import ScheduleError, ScheduleTypeError
from descend.warmup.base_warmup import BaseWarmup, Params


class LinearWarmup(BaseWarmup):
    r"""In a line to the whole lr.

    .. math::
        \omega_t = \min(1, (t + 1) / \tau)

    Args:
        optimizer: whose groups it warms; not RAdam, which warms itself.
        warmup_period: :math:`\tau`, in steps, 0 for none; or a list, one for each group.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period is below 0, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.warmup.LinearWarmup(optimizer, warmup_period=4).preview(5)
        {'lr': [[0.25], [0.5], [0.75], [1.0], [1.0]]}

    Source: P. Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_period: int | list[int], last_step: int = -1
    ) -> None:
        super().__init__(optimizer, _periods(self, optimizer, warmup_period), last_step)

    def warmup_factor(self, step: int, warmup_period: float) -> float:  # type: ignore[override]
        """The factor of the lr of a group.

        Args:
            step: from 0.
            warmup_period: in steps.
        """
        return min(1.0, (step + 1) / warmup_period) if warmup_period else 1.0


class ExponentialWarmup(BaseWarmup):
    r"""Ever more slowly to the whole lr.

    .. math::
        \omega_t = 1 - \exp(-(t + 1) / \tau)

    Args:
        optimizer: whose groups it warms; not RAdam, which warms itself.
        warmup_period: :math:`\tau`, in steps, 0 for none; or a list, one for each group.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period is below 0, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.ExponentialWarmup(optimizer, warmup_period=4)
        >>> warmup.seek(3)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6321

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_period: int | list[int], last_step: int = -1
    ) -> None:
        super().__init__(optimizer, _periods(self, optimizer, warmup_period), last_step)

    def warmup_factor(self, step: int, warmup_period: float) -> float:  # type: ignore[override]
        """The factor of the lr of a group.

        Args:
            step: from 0.
            warmup_period: in steps.
        """
        return -math.expm1(-(step + 1) / warmup_period) if warmup_period else 1.0


class ConstantWarmup(BaseWarmup):
    r"""A part of the lr for some steps, and then the whole.

    .. math::
        \omega_t = f \text{ for } t < \tau, \quad 1 \text{ from } \tau \text{ on}

    Args:
        optimizer: whose groups it warms.
        warmup_period: :math:`\tau`, in steps, 0 for none; or a list, one for each group.
        factor: f, from 0 to 1.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none, or a period is no int.
        ScheduleError: a period or the factor is out of range, or there is not one for each group.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.warmup.ConstantWarmup(optimizer, warmup_period=2, factor=0.5).preview(3)
        {'lr': [[0.5], [0.5], [1.0]]}

    Source: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_period: int | list[int],
        factor: float = 1.0 / 3,
        last_step: int = -1,
    ) -> None:
        Range(0, 1, closed=True).check("ConstantWarmup: factor", factor, ScheduleError)
        periods = _periods(self, optimizer, warmup_period)
        params = [{**period, "factor": float(factor)} for period in periods]
        super().__init__(optimizer, params, last_step)

    def warmup_factor(  # type: ignore[override]
        self, step: int, warmup_period: int, factor: float
    ) -> float:
        """The factor of the lr of a group.

        Args:
            step: from 0.
            warmup_period: in steps.
            factor: that of the first steps.
        """
        return factor if step < warmup_period else 1.0


def _periods(warmup: BaseWarmup, optimizer: Any, warmup_period: Any) -> list[Params]:
    """The parameters of each group, from one period for all or a list."""
    owner, periods = type(warmup).__name__, warmup_period
    for period in periods if isinstance(periods, list | tuple) else [periods]:
        whole = plain_number(period)
        if not isinstance(whole, int):
            raise ScheduleTypeError(
                f"{owner}: warmup_period must be an int, or a list with one for each group, got "
                f"{period!r}"
            )
        if whole < 0:
            raise ScheduleError(
                f"{owner}: warmup_period must be a number of steps of at least 0, got {period!r}"
            )
    if not isinstance(optimizer, Optimizer):  # the base class refuses it
        return []
    each = warmup._each("warmup_period", periods, len(optimizer.param_groups))
    return [{"warmup_period": plain_number(period)} for period in each]
