"""Lion: steps of one size, in the direction of the sign of momentum and gradient."""

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
from descend.engine.vocabulary import sign
from descend.optimizers.decay import decayed


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    *,
    lr: float,
    decay: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    decayed: bool,
) -> tuple[Tensor, Tensor]:
    """One step of one element; `rest1` is 1 - beta1, `rest2` is 1 - beta2."""
    if decayed:
        param = param * decay
    param = param - sign(exp_avg * beta1 + grad * rest1) * lr
    exp_avg = exp_avg * beta2 + grad * rest2
    return param, exp_avg


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on the options."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    return {
        "lr": lr,
        "decay": 1 - lr * options["weight_decay"],
        "beta1": beta1,
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
    }


class Lion(Optimizer):
    r"""Lion: steps of one size, in the direction of the sign of momentum and gradient.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) \\
        \theta_t &= \theta_{t-1} - \gamma \left(
        \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) + \lambda \theta_{t-1} \right) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`\gamma` lr, :math:`\lambda` weight_decay. Every element moves by lr: the paper
    recommends a third to a tenth of AdamW's lr, and a weight_decay larger by as much.

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.Lion(model.parameters(), lr=1e-4, weight_decay=1.0)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023,
        https://arxiv.org/abs/2302.06675
    """

    rule = Rule(update, scalars, decayed, counts_steps=False)

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-4,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Range(0, 1, count=2, tensor=True),
            "share of the momentum in the direction of a step, and its decay per step",
        ] = (0.9, 0.99),
        weight_decay: WeightDecay = 0,
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
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
