"""RMSprop: steps scaled by a running mean of the squared gradient."""

from typing import Annotated

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Flags, Optimizer, Options, Params, Range, Rule, Switch, maximum, sqrt


def update(
    param,
    grad,
    square_avg,
    momentum_buffer,
    grad_avg,
    *,
    lr,
    weight_decay,
    alpha,
    eps,
    momentum,
    decayed: bool,
    heavy: bool,
    centered: bool,
):
    """One step of one element; `heavy` with momentum."""
    if decayed:
        grad = grad + param * weight_decay
    if centered:
        # On paper the difference of the new means, which is noise, or less than nothing, where
        # gradients are nearly equal: so what was left of it, and what this gradient adds.
        apart = grad - grad_avg
        left = maximum(square_avg - grad_avg * grad_avg, 0.0)
        variance = (left + apart * (1 - alpha) * apart) * alpha
        grad_avg = grad_avg + apart * (1 - alpha)
        square_avg = grad_avg * grad_avg + variance
        root = sqrt(variance)
    else:
        # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
        square_avg = square_avg * alpha + grad * (1 - alpha) * grad
        root = sqrt(square_avg)
    if heavy:
        momentum_buffer = momentum_buffer * momentum + grad / (root + eps)
        param = param - momentum_buffer * lr
    else:
        param = param - lr * grad / (root + eps)
    return param, square_avg, momentum_buffer, grad_avg


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
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

    {arguments}

    Source:
        T. Tieleman and G. Hinton, "Lecture 6.5: RMSprop", Neural networks for machine learning,
        2012; A. Graves, "Generating sequences with recurrent neural networks", 2013,
        https://arxiv.org/abs/1308.0850 (centered). Epsilon is added outside of the root, as in
        torch.
    """

    rule = Rule(
        update,
        flags=flags,
        optional={"momentum_buffer": "heavy", "grad_avg": "centered"},
    )
    last_in_groups = "alpha eps centered weight_decay capturable foreach maximize differentiable"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-2,
        alpha: Annotated[
            float, Range(0), "decay per step of the running means; torch sets no upper limit"
        ] = 0.99,
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        momentum: Annotated[float, Range(0), "share of the last update that is kept"] = 0,
        centered: Annotated[
            bool, Switch(), "scale by the variance of the gradient instead of its mean square"
        ] = False,
        capturable: hp.Capturable = False,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        differentiable: hp.Differentiable = False,
        *,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
