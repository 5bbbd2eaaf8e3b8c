"""Adadelta: steps scaled by the ratio of two running root mean squares."""

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
from descend.engine.vocabulary import sqrt
from descend.optimizers.decay import decayed


def update(
    param: Tensor,
    grad: Tensor,
    square_avg: Tensor,
    acc_delta: Tensor,
    *,
    lr: float,
    weight_decay: float,
    rho: float,
    rest: float,
    eps: float,
    decayed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one element; `rest` is 1 - rho."""
    if decayed:
        grad = grad + param * weight_decay
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    square_avg = square_avg * rho + grad * rest * grad
    # Two roots: their ratio would underflow for gradients whose squares are still in range.
    delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * grad
    acc_delta = acc_delta * rho + delta * rest * delta
    param = param - delta * lr
    return param, square_avg, acc_delta


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on the options."""
    return {
        "lr": options["lr"],
        "weight_decay": options["weight_decay"],
        "rho": options["rho"],
        "rest": 1 - options["rho"],
        "eps": options["eps"],
    }


class Adadelta(Optimizer):
    r"""Adadelta: steps scaled by the ratio of two running root mean squares.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        \Delta_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) \Delta_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma \Delta_t

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
        >>> optimizer = descend.Adadelta(model.parameters(), rho=0.95)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012,
        https://arxiv.org/abs/1212.5701. The learning rate is torch's addition; the paper's is 1.
    """

    rule = Rule(update, scalars, decayed)

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1.0,
        rho: Annotated[
            float, Range(0, 1, closed=True), "decay per step of the running mean squares"
        ] = 0.9,
        eps: Annotated[float, Range(0), "added to the mean squares before their roots"] = 1e-6,
        weight_decay: WeightDecay = 0,
        foreach: Foreach = None,
        *,
        capturable: Capturable = False,
        maximize: Maximize = False,
        differentiable: Differentiable = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
