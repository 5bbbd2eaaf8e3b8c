"""Adamax: Adam with the largest recent gradient in place of the mean square."""

from typing import Annotated, Any

from torch import Tensor

from descend.base.optimizer import Optimizer, Params
from descend.engine.hyperparameters import (
    Capturable,
    ClipNorm,
    ClipValue,
    Differentiable,
    Foreach,
    LearningRate,
    Maximize,
    Options,
    Range,
    SkipNonfinite,
    WeightDecay,
)
from descend.engine.plan import Clipping
from descend.engine.rule import Rule
from descend.engine.vocabulary import absolute, maximum
from descend.optimizers.decay import decayed


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_inf: Tensor,
    *,
    weight_decay: float,
    rest1: float,
    beta2: float,
    step_size: float,
    eps: float,
    decayed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one element; `rest1` is 1 - beta1."""
    if decayed:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * rest1
    exp_inf = maximum(exp_inf * beta2, absolute(grad) + eps)
    param = param - step_size * exp_avg / exp_inf
    return param, exp_avg, exp_inf


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on step and options: the correction of the early means."""
    beta1, beta2 = options["betas"]
    return {
        "weight_decay": options["weight_decay"],
        "rest1": 1 - beta1,
        "beta2": beta2,
        "step_size": options["lr"] / (1 - beta1**step),
        "eps": options["eps"],
    }


class Adamax(Optimizer):
    r"""Adamax: Adam with the largest recent gradient in place of the mean square.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\gamma}{1 - \beta_1^t} \frac{m_t}{u_t}

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
        >>> optimizer = descend.Adamax(model.parameters(), lr=1e-3)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 7.1,
        https://arxiv.org/abs/1412.6980. Epsilon is added to the gradient's magnitude, as in torch.
    """

    rule = Rule(update, scalars, decayed)

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 2e-3,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Range(0, 1, count=2, tensor=True),
            "decay per step of the gradient's running mean and of its largest magnitude",
        ] = (0.9, 0.999),
        eps: Annotated[
            float, Range(0), "added to the gradient's magnitude, against division by zero"
        ] = 1e-8,
        weight_decay: WeightDecay = 0,
        foreach: Foreach = None,
        *,
        maximize: Maximize = False,
        differentiable: Differentiable = False,
        capturable: Capturable = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
