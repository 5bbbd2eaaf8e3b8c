"""Adadelta: steps scaled by the ratio of two running root mean squares."""

from typing import Annotated

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Params, Range, Rule, sqrt


def update(param, grad, square_avg, acc_delta, *, lr, weight_decay, rho, eps, decayed: bool):
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    square_avg = square_avg * rho + grad * (1 - rho) * grad
    # Two roots: their ratio would underflow for gradients whose squares are still in range.
    delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * grad
    acc_delta = acc_delta * rho + delta * (1 - rho) * delta
    param = param - delta * lr
    return param, square_avg, acc_delta


class Adadelta(Optimizer):
    r"""Adadelta: steps scaled by the ratio of two running root mean squares.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        \Delta_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) \Delta_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma \Delta_t

    with :math:`\gamma` lr, :math:`\lambda` weight_decay.

    {arguments}

    Source:
        M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012,
        https://arxiv.org/abs/1212.5701. The learning rate is torch's addition; the paper's is 1.
    """

    rule = Rule(update, flags=decayed)
    last_in_groups = "capturable foreach differentiable"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1.0,
        rho: Annotated[
            float, Range(0, 1, closed=True), "decay per step of the running mean squares"
        ] = 0.9,
        eps: Annotated[float, Range(0), "added to the mean squares before their roots"] = 1e-6,
        weight_decay: hp.WeightDecay = 0,
        foreach: hp.Foreach = None,
        *,
        capturable: hp.Capturable = False,
        maximize: hp.Maximize = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
