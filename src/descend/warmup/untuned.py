"""Warmups whose period follows from Adam's second beta: the untuned ones, and RAdam's."""

from typing import Any

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.schedules import formulas
from descend.warmup.base_warmup import BaseWarmup, Params
from descend.warmup.periods import ExponentialWarmup, LinearWarmup
from descend.warmup.rho import get_offset, rho_inf_fn


class OfBetas(BaseWarmup):
    """A warmup whose arguments follow from the betas of each group."""

    def __init__(self, optimizer: Optimizer, last_step: int = -1) -> None:
        groups = optimizer.param_groups if isinstance(optimizer, Optimizer) else ()
        BaseWarmup.__init__(self, optimizer, list(map(self.params_of, groups)), last_step)

    def _beta2(self, group: dict[str, Any]) -> float:
        """Adam's second beta of a group."""
        betas, owner = group.get("betas"), type(self).__name__
        if not isinstance(betas, tuple | list):
            raise ScheduleError(
                f"{owner}: it follows from Adam's second beta, and a group of the optimizer has no "
                "betas; use LinearWarmup(optimizer, warmup_period)"
            )
        beta2 = float(betas[1])
        if not 0 <= beta2 < 1:
            raise ScheduleError(
                f"{owner}: the second beta of a group must be at least 0 and below 1, got {beta2!r}"
            )
        return beta2


class UntunedLinearWarmup(OfBetas, LinearWarmup):
    r"""In a line to the whole lr, over the time that follows from Adam's second beta.

    .. math::
        \omega_t = \min(1, (t + 1) (1 - \beta_2) / 2)

    As in the paper, the period :math:`2 / (1 - \beta_2)` need not be whole. pytorch_warmup cuts it
    to an int, after rounding: 1999 for a :math:`\beta_2` of 0.999, where the paper has 2000.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas, or a second one that is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.UntunedLinearWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 12)
        0.5

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def params_of(self, group: dict[str, Any]) -> Params:
        """The period that follows from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas, or a second one that is out of range.
        """
        return {"warmup_period": 2.0 / (1.0 - self._beta2(group))}


class UntunedExponentialWarmup(OfBetas, ExponentialWarmup):
    r"""Ever more slowly to the whole lr, about as fast as Adam's second bias correction fades.

    .. math::
        \omega_t = 1 - \exp(-(t + 1) (1 - \beta_2))

    As in the paper, the period :math:`1 / (1 - \beta_2)` need not be whole. pytorch_warmup cuts it
    to an int, after rounding: 999 for a :math:`\beta_2` of 0.999, where the paper has 1000.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas, or a second one that is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.UntunedExponentialWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6321

    Source: J. Ma and D. Yarats, On the adequacy of untuned warmup for adaptive optimization, AAAI
    2021, https://arxiv.org/abs/1910.04209.
    """

    def params_of(self, group: dict[str, Any]) -> Params:
        """The period that follows from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas, or a second one that is out of range.
        """
        return {"warmup_period": 1.0 / (1.0 - self._beta2(group))}


class RAdamWarmup(OfBetas):
    r"""The warmup inside RAdam, for any optimizer with betas.

    .. math::
        \omega_t = \sqrt{\frac{(\rho - 4) (\rho - 2) \rho_\infty}
        {(\rho_\infty - 4) (\rho_\infty - 2) \rho}}, \quad \rho = \rho_{t + \delta}

    with :math:`\delta` the first step whose :math:`\rho` is above 4.

    Args:
        optimizer: whose groups it warms; one with betas. Not RAdam, which warms itself.
        last_step: the last step that is over; -1 to begin.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: a group has no betas, or a second beta that is not above 0.6.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = descend.warmup.RAdamWarmup(optimizer)
        >>> warmup.seek(999)
        >>> round(warmup.get_last_lr()[0], 4)
        0.6464

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """

    def params_of(self, group: dict[str, Any]) -> Params:
        """The arguments of the factor that follow from the betas of a group.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: it has no betas, or a second beta that is not above 0.6.
        """
        beta2 = self._beta2(group)
        rho_inf = rho_inf_fn(beta2)
        return {"beta2": beta2, "rho_inf": rho_inf, "offset": get_offset(beta2, rho_inf)}

    def warmup_factor(  # type: ignore[override]
        self, step: int, beta2: float, rho_inf: float, offset: int
    ) -> float:
        """The factor of the lr of a group.

        Args:
            step: from 0.
            beta2: Adam's second beta.
            rho_inf: what `rho_inf_fn` makes of it.
            offset: what `get_offset` makes of it.
        """
        return formulas.rectification(step + offset, beta2)
