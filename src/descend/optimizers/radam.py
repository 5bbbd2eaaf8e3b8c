"""RAdam: Adam that adapts its steps only once it has seen enough gradients to do so."""

from typing import Any

from torch import Tensor

from descend.base.optimizer import Optimizer, Params
from descend.engine.hyperparameters import (
    Betas,
    Capturable,
    ClipNorm,
    ClipValue,
    DecoupledWeightDecay,
    Differentiable,
    Epsilon,
    Foreach,
    LearningRate,
    Maximize,
    Options,
    SkipNonfinite,
    WeightDecay,
)
from descend.engine.plan import Clipping
from descend.engine.rule import Rule
from descend.engine.vocabulary import maximum, sqrt, where
from descend.optimizers.decay import coupled_or_decoupled

ENOUGH = 5
"""How many gradients the mean square must be worth; torch's choice (the paper's is 4)."""


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    decay: float,
    weight_decay: float,
    rest1: float,
    beta2: float,
    rest2: float,
    step_size: float,
    adaptive: float,
    eps: float,
    coupled: bool,
    decoupled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one element; `rest1` is 1 - beta1, `rest2` is 1 - beta2."""
    if decoupled:
        param = param * decay
    if coupled:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * rest1
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * rest2 * grad
    # Chosen, not multiplied by 0 or 1: an early infinite gradient must not become NaN.
    scale = where(adaptive > 0, sqrt(exp_avg_sq) + eps, 1.0)
    param = param - step_size * exp_avg / scale
    return param, exp_avg, exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on step and options: decay, corrections, and whether to adapt."""
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
        "decay": 1 - lr * options["weight_decay"],
        "weight_decay": options["weight_decay"],
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
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

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.RAdam(model.parameters(), lr=1e-3)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020,
        https://arxiv.org/abs/1908.03265. Adaptation begins where :math:`\rho_t` exceeds 5, as in
        torch; the paper has 4.
    """

    rule = Rule(update, scalars, coupled_or_decoupled)

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: WeightDecay = 0,
        decoupled_weight_decay: DecoupledWeightDecay = False,
        *,
        foreach: Foreach = None,
        maximize: Maximize = False,
        capturable: Capturable = False,
        differentiable: Differentiable = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
