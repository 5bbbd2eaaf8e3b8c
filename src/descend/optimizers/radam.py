"""RAdam: Adam that adapts its steps only once it has seen enough gradients to do so."""

from typing import Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import coupled_or_decoupled
from descend.rules import Optimizer, Options, Params, Rule, maximum, sqrt, where

ENOUGH = 5
"""How many gradients the mean square must be worth; torch's choice (the paper's is 4)."""


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    step_size,
    adaptive,
    eps,
    coupled: bool,
    decoupled: bool,
):
    """One step of one element."""
    if decoupled:
        param = param * (1 - lr * weight_decay)
    if coupled:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    # Chosen, not multiplied by 0 or 1: an early infinite gradient must not become NaN.
    scale = where(adaptive > 0, sqrt(exp_avg_sq) + eps, 1.0)
    param = param - step_size * exp_avg / scale
    return param, exp_avg, exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options, corrections of the early means, and whether to adapt."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    correction2 = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction2
    adaptive = length > ENOUGH
    # At least ENOUGH, which changes nothing where the result is used: else it may have no root.
    length, longest = maximum(length, ENOUGH), maximum(longest, ENOUGH)
    rectified = sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    return {
        "lr": lr,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "step_size": lr / (1 - beta1**step) * where(adaptive, rectified * sqrt(correction2), 1.0),
        "adaptive": adaptive,
        "eps": options["eps"],
    }


class RAdam(Optimizer):
    r"""RAdam: Adam that adapts its steps only once it has seen enough gradients to do so.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \rho_t &= \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t},
        \quad \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
        r_t &= \sqrt{\frac{(\rho_t - 4) (\rho_t - 2) \rho_\infty}
        {(\rho_\infty - 4) (\rho_\infty - 2) \rho_t}} \\
        \theta_t &= \theta_{t-1} - \gamma \frac{m_t}{1 - \beta_1^t} \cdot
        \begin{cases}
        r_t \sqrt{1 - \beta_2^t} / (\sqrt{v_t} + \epsilon) & \text{if } \rho_t > 5 \\
        1 & \text{otherwise}
        \end{cases}

    with :math:`\gamma` lr, :math:`\lambda` weight_decay.

    {arguments}

    Source:
        L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020,
        https://arxiv.org/abs/1908.03265. Adaptation begins where :math:`\rho_t` exceeds 5, as in
        torch; the paper has 4.
    """

    rule = Rule(update, scalars, coupled_or_decoupled, decoupled="decoupled_weight_decay")
    last_in_groups = "foreach capturable decoupled_weight_decay differentiable"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        decoupled_weight_decay: hp.DecoupledWeightDecay = False,
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
