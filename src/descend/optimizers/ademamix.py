"""AdEMAMix: Adam whose steps follow a fast and a slow mean of the gradient at once."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, maximum, minimum, sqrt, where

WarmupSteps = Range(1, whole=True, optional=True)

SHORTEST = 1e-300
"""The span of a mean that keeps nothing: not 0, by which a number cannot be divided."""


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    exp_avg_slow,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    beta3,
    fast_size,
    slow_size,
    root_scale,
    eps,
    decayed: bool,
):
    """One step of one element."""
    if decayed:
        param = param * (1 - lr * weight_decay)
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    exp_avg_slow = exp_avg_slow + (grad - exp_avg_slow) * (1 - beta3)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    mixed = fast_size * exp_avg + slow_size * exp_avg_slow
    param = param - mixed / (sqrt(exp_avg_sq) * root_scale + eps)
    return param, exp_avg, exp_avg_sq, exp_avg_slow


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options, corrections of the early means, and where warmups are."""
    lr, (beta1, beta2, beta3) = options["lr"], options["betas"]
    alpha = options["alpha"]
    if options["alpha_warmup"] is not None:
        alpha = alpha * minimum(step / options["alpha_warmup"], 1.0)
    if options["beta3_warmup"] is not None:
        beta3 = _warmed(beta1, beta3, step / options["beta3_warmup"])
    return {
        "lr": lr,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "beta3": beta3,
        "fast_size": lr / (1 - beta1**step),
        "slow_size": lr * alpha,
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
    }


def _warmed(beta1: Any, beta3: Any, share: Any) -> Any:
    """The slow mean's decay after a share of its warmup: its span grows linearly from beta1's."""
    share = minimum(share, 1.0)
    span = maximum((1 - share) * _span(beta1) + share * _span(beta3), SHORTEST)
    return where(share < 1, minimum(math.e ** (-1 / span), beta3), beta3)


def _span(beta: Any) -> Any:
    """The steps after which a gradient's share in a mean has fallen to 1/e of what it was."""
    if isinstance(beta, Tensor):
        return -1 / torch.log(beta)
    return -1 / math.log(beta) if beta > 0 else 0.0


class AdEMAMix(Optimizer):
    r"""AdEMAMix: Adam whose steps follow a fast and a slow mean of the gradient at once.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        s_t &= \beta_3(t) s_{t-1} + (1 - \beta_3(t)) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= (1 - \gamma \lambda) \theta_{t-1} - \gamma
        \frac{m_t / (1 - \beta_1^t) + \alpha(t) s_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} \\
        \alpha(t) &= \alpha \min(t / T_\alpha, 1) \\
        \beta_3(t) &= \min\left(\exp\frac{\ln\beta_1 \ln\beta_3}
        {(1 - t / T_\beta) \ln\beta_3 + (t / T_\beta) \ln\beta_1}, \beta_3\right)

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay,
    :math:`T_\alpha` alpha_warmup, :math:`T_\beta` beta3_warmup. The slow mean starts from zero
    without correction. State: three tensors, 12 bytes a parameter in float32 (AdamW: 8).

    A gradient stays in the slow mean for :math:`1 / (1 - \beta_3)` steps. Long trainings take an
    alpha up to 10, and both warmups as long as the training, without which it may diverge early;
    one of fewer steps than that gains from a smaller :math:`\beta_3`.

    {arguments}

    Source:
        M. Pagliardini, P. Ablin and D. Grangier, "The AdEMAMix optimizer: better, faster, older",
        ICLR 2025, https://arxiv.org/abs/2409.03137. Defaults as in the authors' code.
    """

    rule = Rule(update, scalars, decayed, decoupled=True)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor, float | Tensor],
            Range(0, 1, count=3, tensor=True),
            "decay per step of the fast mean of the gradient, of the mean of its square, and of "
            "the slow mean",
        ] = (0.9, 0.999, 0.9999),
        alpha: Annotated[float, Range(0), "weight of the slow mean beside the fast one's 1"] = 2.0,
        beta3_warmup: Annotated[
            int | None,
            WarmupSteps,
            "steps of the rise of the slow mean's decay from the fast one's",
        ] = None,
        alpha_warmup: Annotated[
            int | None, WarmupSteps, "steps in which alpha rises from 0"
        ] = None,
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
