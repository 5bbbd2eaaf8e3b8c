"""The functions of RAdam's warmup, by the names of pytorch_warmup."""

from descend.errors import ScheduleError
from descend.schedules import formulas
from descend.schedules.warmups import NEAREST

LEAST_BETA2 = 0.6  # up to it, RAdam's variance is never finite


def rho_inf_fn(beta2: float) -> float:
    r"""The largest length of Adam's second moment, as a simple moving average.

    .. math::
        \rho_\infty = 2 / (1 - \beta_2) - 1

    Args:
        beta2: Adam's second beta.

    Example:
        >>> rho_inf_fn(0.75)
        7.0

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    return formulas.rho_limit(beta2)


def rho_fn(t: float, beta2: float, rho_inf: float) -> float:
    r"""The length of Adam's second moment after some steps, as a simple moving average.

    .. math::
        \rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)

    Args:
        t: how many steps, from 1.
        beta2: Adam's second beta.
        rho_inf: what `rho_inf_fn` makes of it.

    Example:
        >>> round(rho_fn(1, 0.75, rho_inf_fn(0.75)), 12)
        1.0

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    return formulas.rho(t, beta2) + (rho_inf - formulas.rho_limit(beta2))


def get_offset(beta2: float, rho_inf: float) -> int:
    r"""The first step whose :math:`\rho` is above 4, from 1.

    Args:
        beta2: Adam's second beta.
        rho_inf: what `rho_inf_fn` makes of it.

    Raises:
        ScheduleError: `beta2` is not above 0.6: then there is none; or so near to 1 that the
            formula has no digits left.

    Example:
        >>> get_offset(0.999, rho_inf_fn(0.999))
        5

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
    https://arxiv.org/abs/1908.03265.
    """
    if not LEAST_BETA2 < beta2 < 1:
        raise ScheduleError(
            f"RAdamWarmup: beta2 must be above {LEAST_BETA2} and below 1, got {beta2!r}; use "
            "UntunedLinearWarmup"
        )
    if beta2 > NEAREST:
        raise ScheduleError(
            f"RAdamWarmup: beta2 must be at most {NEAREST}, because nearer to 1 its formula is a "
            f"difference without digits, got {beta2!r}; use UntunedLinearWarmup"
        )
    return formulas.rectified_from(beta2)
