"""RMSprop: steps scaled by a running mean of the squared gradient."""

from typing import Annotated, Any

from torch import Tensor

from descend.base.optimizer import Optimizer, Params
from descend.engine.hyperparameters import (
    Capturable,
    ClipNorm,
    ClipValue,
    Differentiable,
    Epsilon,
    Foreach,
    LearningRate,
    Maximize,
    Options,
    Range,
    SkipNonfinite,
    Switch,
    WeightDecay,
)
from descend.engine.plan import Clipping
from descend.engine.rule import Flags, Rule
from descend.engine.vocabulary import maximum, sqrt
from descend.optimizers.decay import decayed


def update(
    param: Tensor,
    grad: Tensor,
    square_avg: Tensor,
    momentum_buffer: Tensor,
    grad_avg: Tensor,
    *,
    lr: float,
    weight_decay: float,
    alpha: float,
    rest: float,
    eps: float,
    momentum: float,
    decayed: bool,
    heavy: bool,
    centered: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of one element; `rest` is 1 - alpha."""
    if decayed:
        grad = grad + param * weight_decay
    if centered:
        # On paper the difference of the new means, which is noise, or less than nothing, where
        # gradients are nearly equal: so what was left of it, and what this gradient adds.
        apart = grad - grad_avg
        left = maximum(square_avg - grad_avg * grad_avg, 0.0)
        variance = (left + apart * rest * apart) * alpha
        grad_avg = grad_avg + apart * rest
        square_avg = grad_avg * grad_avg + variance
        root = sqrt(variance)
    else:
        # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
        square_avg = square_avg * alpha + grad * rest * grad
        root = sqrt(square_avg)
    if heavy:
        momentum_buffer = momentum_buffer * momentum + grad / (root + eps)
        param = param - momentum_buffer * lr
    else:
        param = param - lr * grad / (root + eps)
    return param, square_avg, momentum_buffer, grad_avg


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on the options."""
    return {
        "lr": options["lr"],
        "weight_decay": options["weight_decay"],
        "alpha": options["alpha"],
        "rest": 1 - options["alpha"],
        "eps": options["eps"],
        "momentum": options["momentum"],
    }


def flags(options: Options) -> Flags:
    """Which parts of the update these options ask for."""
    return {
        **decayed(options),
        "heavy": bool(options["momentum"] > 0),
        "centered": bool(options["centered"]),
    }


class RMSprop(Optimizer):
    r"""RMSprop: steps scaled by a running mean of the squared gradient.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        b_t &= \mu b_{t-1} + g_t / (\sqrt{v_t} + \epsilon) \\
        \theta_t &= \theta_{t-1} - \gamma b_t

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\mu` momentum. Centered, the
    root is taken of :math:`v_t - \bar g_t^2`, with :math:`\bar g_t` the running mean of
    :math:`g`.

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.RMSprop(model.parameters(), lr=1e-2)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        T. Tieleman and G. Hinton, "Lecture 6.5: RMSprop", Neural networks for machine learning,
        2012; A. Graves, "Generating sequences with recurrent neural networks", 2013,
        https://arxiv.org/abs/1308.0850 (centered). Epsilon is added outside of the root, as in
        torch.
    """

    rule = Rule(
        update,
        scalars,
        flags,
        optional={"momentum_buffer": "heavy", "grad_avg": "centered"},
    )

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-2,
        alpha: Annotated[
            float, Range(0), "decay per step of the running means; torch sets no upper limit"
        ] = 0.99,
        eps: Epsilon = 1e-8,
        weight_decay: WeightDecay = 0,
        momentum: Annotated[float, Range(0), "share of the last update that is kept"] = 0,
        centered: Annotated[
            bool, Switch(), "scale by the variance of the gradient instead of its mean square"
        ] = False,
        capturable: Capturable = False,
        foreach: Foreach = None,
        maximize: Maximize = False,
        differentiable: Differentiable = False,
        *,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
